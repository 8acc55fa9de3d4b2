import { create } from '@bufbuild/protobuf'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import {
  ConfigureSchema,
  HeldSchema,
  ProviderKind,
  WelcomeSchema,
  type Hello,
  type ItemRef,
  type Welcome,
} from '@slipway/proto/provider/v1'
import { v7 as uuid } from 'uuid'
import { HubError } from '../domain/error/errors.js'
import { checkSchemas } from '../domain/provider/schemas.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import { introduceProvider, openSession } from '../store/sessions.js'
import type { ProviderRow } from '../store/tables.js'
import { fromCapabilities, toMs } from './convert.js'
import type { GatewayDeps } from './deps.js'
import type { HelloReads } from './hello-reads.js'
import type { SessionIdentity } from './session.js'

/** Protocol versions that this hub speaks, the newest last. */
export const protocolVersions: readonly number[] = [1]

/** For instances that do not say how long a create may be under way. */
const assumedEffectTimeoutMs = 10 * 60_000

export interface Opened {
  readonly identity: SessionIdentity
  readonly welcome: Welcome
  /** That which it was welcomed with. */
  readonly configVersion: number
  /** There is a newer one, to be told next. */
  readonly hasNewerConfig: boolean
  /** Items that are bound to the session from the start. */
  readonly bound: readonly { readonly ref: ItemRef; readonly fence: number }[]
  /** Sessions that this one takes the place of. */
  readonly supersededIds: readonly string[]
}

/**
 * Answers Hello: checks that the instance is what its provider was added as, stores the session, and binds what the instance still holds.
 *
 * @throws HubError VERSION_UNSUPPORTED, FAMILY_MISMATCH, PROVIDER_DELETED, SCHEMA_INVALID, PROTOCOL_VIOLATION.
 */
export async function openBy(
  hello: Hello,
  peer: { readonly providerId: string; readonly certificateSerial: string },
  deps: GatewayDeps,
  reads: HelloReads,
): Promise<Opened> {
  const protocolVersion = chooseVersion(hello.protocolVersions)
  checkSchemas({
    config_schema: hello.configSchema,
    credentials_schema: hello.credentialsSchema,
    data_schema: hello.dataSchema,
  })
  const sessionId = uuid()
  const { provider, bound, supersededIds } = await inTransaction(
    deps.db,
    async (tx) => {
      // Sessions are locked before providers, in every transaction; all of it is one round trip.
      const opening = openSession(
        tx,
        {
          id: sessionId,
          providerId: peer.providerId,
          instanceId: hello.instanceId,
          instanceName: hello.instanceName,
          replica: deps.replica,
          sdk: `${hello.sdkName} ${hello.sdkVersion}`.trim(),
          providerVersion: hello.providerVersion,
          certificateSerial: peer.certificateSerial,
          leaseMs: deps.config.leaseMs,
        },
        hello.holds.flatMap((held) =>
          held.item === undefined
            ? []
            : [{ id: held.item.id, fence: Number(held.fence), generation: Number(held.generation) }],
        ),
      )
      const [opened, provider] = await Promise.all([opening, introduce(tx, hello, peer.providerId)])
      return { provider, ...opened }
    },
    'session-open',
  )
  deps.wake.signal({ kind: 'change' })
  const { wanted, kept } = await reads.settings(provider.id)
  // While new credentials are not proven, an instance begins with those that worked, and is told the new ones next: its answer tells whether they do.
  const secrets = kept ?? wanted
  await reads.configured({ sessionId, version: secrets.version })
  const welcome = create(WelcomeSchema, {
    protocolVersion,
    sessionId,
    hubId: deps.hubId,
    replica: deps.replica,
    heartbeatInterval: durationFromMs(deps.config.heartbeatMs),
    leaseDuration: durationFromMs(deps.config.leaseMs),
    provider: `providers/${provider.name}`,
    configure: create(ConfigureSchema, {
      version: BigInt(secrets.version),
      config: secrets.config as never,
      credentials: secrets.credentials as never,
    }),
    bound: hello.holds
      .filter((held) => held.item !== undefined && bound.has(held.item.id))
      .map((held) => create(HeldSchema, held)),
    lost: hello.holds
      .filter((held) => held.item === undefined || !bound.has(held.item.id))
      .map((held) => create(HeldSchema, held)),
  })
  return {
    identity: {
      id: sessionId,
      providerId: provider.id,
      providerName: provider.name,
      instanceId: hello.instanceId,
      kind: provider.kind,
      capabilities: fromCapabilities(hello.capabilities),
    },
    welcome,
    configVersion: secrets.version,
    hasNewerConfig: kept !== undefined,
    bound: hello.holds.flatMap((held) =>
      held.item !== undefined && bound.has(held.item.id) ? [{ ref: held.item, fence: Number(held.fence) }] : [],
    ),
    supersededIds,
  }
}

function chooseVersion(offered: readonly number[]): number {
  const common = protocolVersions.filter((version) => offered.includes(version))
  const best = common.at(-1)
  if (best === undefined) {
    throw new HubError(
      'VERSION_UNSUPPORTED',
      `the instance speaks protocol versions ${offered.join(', ')}, this hub ${protocolVersions.join(', ')}; update the older of the two`,
      { metadata: { offered: offered.join(','), supported: protocolVersions.join(',') } },
    )
  }
  return best
}

async function introduce(tx: Tx, hello: Hello, providerId: string): Promise<ProviderRow> {
  const before = await introduceProvider(tx, providerId, {
    capabilities: fromCapabilities(hello.capabilities),
    configSchema: hello.configSchema,
    credentialsSchema: hello.credentialsSchema,
    dataSchema: hello.dataSchema,
    listingLagMs: toMs(hello.listingLag),
    effectTimeoutMs: hello.effectTimeout === undefined ? assumedEffectTimeoutMs : toMs(hello.effectTimeout),
  })
  if (before === undefined) throw new HubError('PROVIDER_DELETED', 'the provider was deleted; stop this instance')
  const kind = hello.kind === ProviderKind.STATIC ? 'STATIC' : 'DYNAMIC'
  if (before.family !== hello.family || before.kind !== kind) {
    throw new HubError(
      'FAMILY_MISMATCH',
      `provider ${before.name} was added as ${before.kind.toLowerCase()} ${before.family}, but the instance is ${kind.toLowerCase()} ${hello.family}; ` +
        'start the right software, or add another provider',
      { metadata: { provider: before.name, expected_family: before.family, family: hello.family } },
    )
  }
  if (before.state !== 'CONNECTED') {
    await appendEvents(tx, { actor: `providers/${before.name}`, requestId: '' }, [
      {
        subject: `providers/${before.name}`,
        reason: 'ProviderConnected',
        message: `Instance ${hello.instanceName || hello.instanceId} connected`,
        severity: 'INFO',
        providerId,
      },
    ])
  }
  return before
}
