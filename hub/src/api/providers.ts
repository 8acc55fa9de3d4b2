import { create } from '@bufbuild/protobuf'
import { durationMs } from '@bufbuild/protobuf/wkt'
import type { ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { ProviderKind } from '@slipway/proto/provider/v1'
import { HubError, invalidField } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { parseResourceName, resourceName } from '../domain/names.js'
import { matchesLabels, parseLabelSelector } from '../domain/selector.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import { createJoinToken } from '../store/join-tokens.js'
import {
  countProviderUse,
  deleteProvider,
  findProvider,
  insertProvider,
  listProviders,
  lockProvider,
  readProviderDetails,
  updateProvider,
  type ProviderListFilter,
} from '../store/providers.js'
import type { ProviderRow } from '../store/tables.js'
import {
  causeOf,
  checkEtag,
  createOnce,
  decodePageToken,
  maskedPaths,
  pageSize,
  readPage,
  type ApiDeps,
} from './context.js'
import { checkedLabels, fromKind, fromObject, nameOf, toTime } from './convert.js'
import { RolledBack, rolledBack } from './dry-run.js'
import { fromOrphanPolicy } from './orphan-resources.js'
import { changedText, changeOf, checkConfiguration, immutable, mutableFields, refusePolicy } from './provider-change.js'
import { toProvider } from './resources.js'
import { watchResources, type WatchParts } from './watch.js'

const defaultTtlMs = 3_600_000
const stateNumbers = {
  PENDING: hub.ProviderState.PENDING,
  CONNECTED: hub.ProviderState.CONNECTED,
  DISCONNECTED: hub.ProviderState.DISCONNECTED,
  DRAINING: hub.ProviderState.DRAINING,
} as const

export function providerNotFound(name: string): HubError {
  return new HubError('PROVIDER_NOT_FOUND', `there is no provider ${name}; \`slipway get providers\` lists them`, {
    metadata: { provider: name },
  })
}

function filterOf(filter: hub.ProviderFilter | undefined): ProviderListFilter {
  parseLabelSelector(filter?.labelSelector ?? '')
  return {
    states: (filter?.states ?? []).flatMap((state) => nameOf(stateNumbers, state) ?? []),
    families: filter?.families ?? [],
    labelSelector: filter?.labelSelector ?? '',
  }
}

function matches(filter: ProviderListFilter, name: string, row: ProviderRow): boolean {
  const state = row.draining ? 'DRAINING' : row.state
  return (
    (name === '' || row.name === name) &&
    (filter.states.length === 0 || filter.states.includes(state)) &&
    (filter.families.length === 0 || filter.families.includes(row.family)) &&
    matchesLabels(parseLabelSelector(filter.labelSelector), row.labels)
  )
}

function event(row: Pick<ProviderRow, 'id' | 'name'>, reason: EventDraft['reason'], message: string): EventDraft {
  return { subject: resourceName('provider', row.name), reason, message, severity: 'INFO', providerId: row.id }
}

export function providerService(deps: ApiDeps, parts: WatchParts): ServiceImpl<typeof hub.ProviderService> {
  const detailed = async (rows: readonly ProviderRow[]): Promise<hub.Provider[]> => {
    const details = await readProviderDetails(
      deps.db,
      rows.map((row) => row.id),
    )
    return rows.map((row) => toProvider(row, details.get(row.id)))
  }
  const insert = async (
    tx: Tx,
    request: hub.CreateProviderRequest,
    cause: ReturnType<typeof causeOf>,
  ): Promise<hub.CreateProviderResponse> => {
    const given = request.provider ?? create(hub.ProviderSchema)
    const row = await insertProvider(tx, deps.keyring, {
      name: request.providerId,
      family: given.family,
      kind: fromKind(given.kind),
      config: fromObject(given.config),
      credentials: given.credentials === undefined ? undefined : fromObject(given.credentials),
      labels: checkedLabels(given.labels, 'provider.labels'),
      annotations: given.annotations,
      autoAcceptMachines: given.autoAcceptMachines,
      draining: given.draining,
      orphanPolicy: fromOrphanPolicy(given.orphanPolicy),
    })
    await appendEvents(tx, cause, [event(row, 'ProviderAdded', `Added as ${row.kind.toLowerCase()} ${row.family}`)])
    return create(hub.CreateProviderResponseSchema, { provider: toProvider(row) })
  }
  return {
    async createProvider(request, context) {
      if (request.provider?.family === '')
        throw invalidField('provider.family', 'is missing; say which kind of API is behind it')
      if (request.provider?.kind === ProviderKind.UNSPECIFIED)
        throw invalidField('provider.kind', 'is missing; say whether it is static or dynamic')
      if (request.provider !== undefined) refusePolicy(request.provider, fromKind(request.provider.kind))
      if ((await findProvider(deps.db, request.providerId)) !== undefined && request.requestId === '') {
        throw new HubError('NAME_TAKEN', `provider_id: ${request.providerId} is in use; choose another name`, {
          violations: [{ field: 'provider_id', description: 'is in use; choose another name' }],
        })
      }
      if (request.validateOnly) {
        return deps.db
          .transaction()
          .execute(async (tx) => {
            const response = await insert(tx, request, causeOf(context))
            throw new RolledBack(response)
          })
          .catch(rolledBack<hub.CreateProviderResponse>)
      }
      return createOnce(deps, context, {
        requestId: request.requestId,
        request: { schema: hub.CreateProviderRequestSchema, message: request },
        response: hub.CreateProviderResponseSchema,
        wake: [],
        work: (tx) => insert(tx, request, causeOf(context)),
      })
    },

    async getProvider(request) {
      const name = parseResourceName('provider', request.name)
      const row = await findProvider(deps.db, name)
      if (row === undefined) throw providerNotFound(name)
      return { provider: (await detailed([row]))[0] }
    },

    async listProviders(request) {
      const filter = filterOf(request.filter)
      const list = JSON.stringify(['providers', filter])
      const after = decodePageToken(request.pageToken, list, 1)
      const page = await readPage(deps, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) => listProviders(tx, filter, String(after?.[0] ?? ''), limit),
        keyOf: (row) => [row.name],
      })
      return { providers: await detailed(page.rows), nextPageToken: page.nextPageToken, revision: page.revision }
    },

    async updateProvider(request, context) {
      const given = request.provider ?? create(hub.ProviderSchema)
      const name = parseResourceName('provider', given.name, 'provider.name')
      const change = changeOf(
        given,
        maskedPaths(request.updateMask?.paths, mutableFields),
        request.updateMask !== undefined,
      )
      const before = await findProvider(deps.db, name)
      if (before === undefined) throw providerNotFound(name)
      if (given.family !== '' && given.family !== before.family) throw immutable('provider.family')
      if (given.kind !== ProviderKind.UNSPECIFIED && fromKind(given.kind) !== before.kind)
        throw immutable('provider.kind')
      refusePolicy(given, before.kind)
      const row = await inTransaction(deps.db, async (tx) => {
        const locked = await lockProvider(tx, name)
        if (locked === undefined) throw providerNotFound(name)
        checkEtag(given.etag, locked, given.name)
        checkConfiguration(locked, change)
        if (request.validateOnly) return locked
        const updated = await updateProvider(tx, deps.keyring, locked, change)
        const drains = updated.draining !== locked.draining
        await appendEvents(tx, causeOf(context), [
          ...(locked.orphan_stopped_at !== null && updated.orphan_stopped_at === null
            ? [event(updated, 'OrphanRemovalResumed', 'Its orphan policy was set anew; removal goes on')]
            : []),
          ...(updated.version === locked.version && change.credentials === undefined
            ? []
            : [event(updated, 'ProviderUpdated', changedText(locked, updated, change))]),
          ...(drains
            ? [
                event(
                  updated,
                  updated.draining ? 'ProviderDraining' : 'ProviderUndrained',
                  updated.draining ? 'It gets no new orders' : 'It gets new orders again',
                ),
              ]
            : []),
        ])
        return updated
      })
      deps.wake.signal({ kind: 'provider', providerId: row.id }, { kind: 'change' }, { kind: 'host' })
      return { provider: (await detailed([row]))[0] }
    },

    async deleteProvider(request, context) {
      const name = parseResourceName('provider', request.name)
      const deleted = await inTransaction(deps.db, async (tx) => {
        const locked = await lockProvider(tx, name)
        if (locked === undefined) {
          if (request.allowMissing) return undefined
          throw providerNotFound(name)
        }
        checkEtag(request.etag, locked, request.name)
        const use = await countProviderUse(tx, locked.id)
        if (use.requests + use.machines > 0) {
          throw new HubError(
            'PROVIDER_IN_USE',
            `provider ${name} has ${use.requests} machine requests and ${use.machines} machines; drain it, and release or remove them first`,
            {
              metadata: { machine_requests: String(use.requests), machines: String(use.machines) },
            },
          )
        }
        const orphans = await deleteProvider(tx, locked.id)
        const text =
          orphans === 0 ? 'Deleted' : `Deleted; ${orphans} orphans of it may still exist, and are looked for no more`
        await appendEvents(tx, causeOf(context), [event(locked, 'ProviderDeleted', text)])
        return locked.id
      })
      if (deleted !== undefined) deps.wake.signal({ kind: 'provider', providerId: deleted }, { kind: 'change' })
      return {}
    },

    async *watchProviders(request, context) {
      const name = request.name === '' ? '' : parseResourceName('provider', request.name)
      const filter = filterOf(request.filter)
      const watched = watchResources<ProviderRow>(parts, context, {
        resource: 'provider',
        revision: request.revision,
        matches: (row) => matches(filter, name, row),
        existing: async (tx, last, limit) =>
          (await listProviders(tx, filter, last?.name ?? '', limit)).filter((row) => name === '' || row.name === name),
      })
      for await (const { changes, revision, synced } of watched) {
        const details = await readProviderDetails(
          deps.db,
          changes.map(({ row }) => row.id),
        )
        yield {
          changes: changes.map(({ type, row }) => ({ type, provider: toProvider(row, details.get(row.id)) })),
          revision,
          synced,
        }
      }
    },

    async createJoinToken(request, context) {
      const name = parseResourceName('provider', request.provider, 'provider')
      const ttlMs = request.ttl === undefined ? defaultTtlMs : Math.round(durationMs(request.ttl))
      const made = await inTransaction(deps.db, async (tx) => {
        const row = await lockProvider(tx, name)
        if (row === undefined) throw providerNotFound(name)
        return createJoinToken(tx, {
          providerId: row.id,
          providerName: row.name,
          ttlMs,
          fingerprint: deps.authority.fingerprint,
          cause: causeOf(context),
        })
      })
      deps.wake.signal({ kind: 'change' })
      return { joinToken: made.token, expireTime: toTime(made.expiresAt), gatewayAddress: deps.config.gatewayAdvertise }
    },
  }
}
