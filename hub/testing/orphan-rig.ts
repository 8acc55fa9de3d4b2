import { randomUUID } from 'node:crypto'
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import {
  InventorySchema,
  type HubMessage,
  type OwnedResourceSchema,
  type RemoveOrphan,
} from '@slipway/proto/provider/v1'
import pino from 'pino'
import type { Test } from 'tap'
import type { OrphanPolicy } from '../src/domain/orphan/orphan.js'
import { ownershipKey, shortName } from '../src/domain/names.js'
import type { RequestState } from '../src/domain/request/request.js'
import type { GatewayDeps } from '../src/gateway/deps.js'
import { Listings } from '../src/gateway/listings.js'
import { OrphanCourier, recordOrphanRemoval } from '../src/gateway/orphan-courier.js'
import { SessionRegistry } from '../src/gateway/registry.js'
import { ProviderSession } from '../src/gateway/session.js'
import type { OrphanRow } from '../src/store/tables.js'
import { eventually, organizationId, Rig } from './reconcile-rig.js'

// A provider's listings and a replica's courier, on a real database; the instance at the other end of the session is played by the test.

export type Listed = Omit<MessageInitShape<typeof OwnedResourceSchema>, '$typeName' | '$unknown'>

/** One replica of the hub, with a session of each provider that it was given. */
export class Replica {
  readonly orders: RemoveOrphan[] = []
  readonly deps: GatewayDeps
  readonly registry = new SessionRegistry()
  readonly courier: OrphanCourier

  constructor(rig: Rig, config: Partial<GatewayDeps['config']>) {
    this.deps = {
      db: rig.db,
      wake: rig.wake,
      keyring: rig.keyring,
      log: pino({ level: 'silent' }),
      hubId: rig.hubId,
      replica: randomUUID(),
      config: { orphanGraceMs: 0, orphanRestoreGraceMs: 3_600_000, orphanRemovalTimeoutMs: 60_000, ...config },
    } as unknown as GatewayDeps
    this.courier = new OrphanCourier(this.deps, this.registry)
  }

  /** Connects an instance, which takes note of orders and does nothing. */
  connect(provider: { readonly id: string; readonly name: string }, capabilities = ['REMOVE_ORPHAN'] as const): void {
    const outbox = {
      send: (body: HubMessage['body']) => {
        if (body.case === 'removeOrphan') this.orders.push(body.value)
      },
    }
    const identity = { id: randomUUID(), instanceId: randomUUID(), kind: 'DYNAMIC', capabilities } as const
    const about = { ...identity, providerId: provider.id, providerName: provider.name }
    this.registry.add(new ProviderSession(about, outbox as never, undefined as never, undefined as never))
  }
}

export class OrphanRig {
  readonly rig: Rig
  readonly replica: Replica
  readonly #t: Test
  readonly #listings = new Map<string, Listings>()

  private constructor(t: Test, rig: Rig) {
    this.#t = t
    this.rig = rig
    this.replica = this.another()
  }

  static async start(t: Test): Promise<OrphanRig> {
    return new OrphanRig(t, await Rig.start(t))
  }

  another(config: Partial<GatewayDeps['config']> = {}): Replica {
    const replica = new Replica(this.rig, config)
    this.#t.teardown(() => replica.courier.stop())
    return replica
  }

  /** A dynamic provider that can remove orphans, with a policy to remove everything at once unless it says otherwise. */
  async provider(
    name: string,
    policy: Partial<OrphanPolicy> = {},
  ): Promise<{ readonly id: string; readonly name: string }> {
    const { providerId: id } = await this.rig.provider(name, { capabilities: ['LIST', 'REMOVE_ORPHAN'] })
    await this.rig.db
      .updateTable('providers')
      .set({
        effect_timeout_ms: 0,
        orphan_mode: policy.mode ?? 'REMOVE',
        orphan_min_age_ms: policy.minAgeMs ?? 0,
        orphan_max_per_pass: policy.maxPerPass ?? 100,
        orphan_max_percent: policy.maxPercent ?? 100,
      })
      .where('id', '=', id)
      .execute()
    return { id, name }
  }

  /** A record of a machine request. @returns its ownership key and id. */
  async request(
    provider: { readonly id: string; readonly name: string },
    state: RequestState,
    over: { readonly goneAt?: Date; readonly externalId?: string; readonly createInDoubt?: boolean } = {},
  ): Promise<{ readonly id: string; readonly key: string }> {
    const id = randomUUID()
    const key = ownershipKey(this.rig.hubId, id)
    await this.rig.db
      .insertInto('machine_requests')
      .values({
        ...{ provider_id: provider.id, id, name: shortName('r', id), provider_name: provider.name },
        ...{ organization_id: organizationId, workspace_name: 'default', host_id: randomUUID(), host_name: 'h' },
        ...{ class_id: randomUUID(), class_name: 'c', state, external_name: 'x', ownership_key: key, spec: '{}' },
        gone_at: over.goneAt ?? (state === 'GONE' ? new Date(Date.now() - 3_600_000) : null),
        external_id: over.externalId ?? null,
        create_in_doubt: over.createInDoubt ?? false,
        ...{ machine_id: null, machine_name: null, power: null, phoned_home_at: null, provisioned_at: null },
        ...{ forgotten_by: null, forgotten_reason: null },
      })
      .execute()
    return { id, key }
  }

  /** A key of this hub that names a request of which there is no record. */
  unknownKey(): string {
    return ownershipKey(this.rig.hubId, randomUUID())
  }

  /** What a connected instance lists into. */
  async instance(provider: { readonly id: string; readonly name: string }): Promise<Listings> {
    const sessionId = randomUUID()
    await this.rig.session(provider.id, sessionId)
    return new Listings(this.replica.deps, sessionId, { ...provider, kind: 'DYNAMIC' })
  }

  /** Has an instance list these, in parts of so many. */
  async list(
    provider: { readonly id: string; readonly name: string },
    resources: readonly Listed[],
    how: {
      readonly complete?: boolean
      readonly final?: boolean
      readonly partSize?: number
      readonly instance?: string
    } = {},
  ): Promise<void> {
    const key = `${provider.id} ${how.instance ?? ''}`
    const listings = this.#listings.get(key) ?? (await this.instance(provider))
    this.#listings.set(key, listings)
    const listingId = randomUUID()
    const size = how.partSize ?? 500
    const final = how.final ?? true
    for (let index = 0; index === 0 || index < resources.length; index += size) {
      const isLast = index + size >= resources.length
      const part = create(InventorySchema, {
        listingId,
        resources: resources.slice(index, index + size).map((resource) => ({ kind: 'server', ...resource })),
        final: isLast && final,
        complete: isLast && final && (how.complete ?? true),
      })
      await this.takeIn(listings, part)
    }
  }

  /** One part, taken in to its end. */
  async takeIn(listings: Listings, part: Parameters<Listings['inventory']>[0]): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const stop = this.rig.wake.on('change', () => {
        clearTimeout(timer)
        stop()
        resolve()
      })
      const timer = setTimeout(() => reject(new Error('a part of a listing was not taken in')), 10_000)
      listings.inventory(part)
    })
  }

  async orphans(): Promise<OrphanRow[]> {
    return this.rig.db.selectFrom('orphans').selectAll().orderBy('external_id').execute()
  }

  /** `external id: why it is kept`, or REMOVING. */
  async standing(): Promise<string[]> {
    return (await this.orphans()).map((row) => `${row.external_id}: ${row.keep_reason ?? 'REMOVING'}`)
  }

  async orphan(externalId: string): Promise<OrphanRow> {
    return this.rig.db.selectFrom('orphans').selectAll().where('external_id', '=', externalId).executeTakeFirstOrThrow()
  }

  /** Has a replica look for orders, until it has given so many. */
  async carried(replica: Replica, provider: { readonly id: string }, count: number): Promise<readonly RemoveOrphan[]> {
    replica.courier.request(provider.id)
    await eventually(
      () => Promise.resolve(replica.orders.length),
      (given) => given >= count,
      (given) => `${given} of ${count} orders`,
    )
    return replica.orders
  }

  /** An instance answers an order. */
  async answer(
    provider: { readonly id: string; readonly name: string },
    removal: Parameters<typeof recordOrphanRemoval>[2],
  ): Promise<void> {
    await recordOrphanRemoval(this.replica.deps, provider, removal)
  }

  async reasons(): Promise<string[]> {
    const rows = await this.rig.db.selectFrom('events').select('reason').orderBy('xid').orderBy('id').execute()
    return rows.map((row) => row.reason).filter((reason) => reason.startsWith('Orphan'))
  }
}
