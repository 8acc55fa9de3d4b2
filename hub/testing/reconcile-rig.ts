import { randomBytes, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import pino from 'pino'
import type { Test } from 'tap'
import { v7 as uuid } from 'uuid'
import type { Price, Shape } from '../src/domain/facts.js'
import type { ClassSpec, PlacementWish } from '../src/domain/host/host.js'
import type { MachineState } from '../src/domain/machine/machine.js'
import { shortName } from '../src/domain/names.js'
import type { ReportFacts } from '../src/domain/request/apply-report.js'
import { startReconciler } from '../src/reconcile/reconciler.js'
import type { ReconcilerConfig } from '../src/reconcile/deps.js'
import { makeKeyring, type Keyring } from '../src/secrets/keyring.js'
import { inTransaction, type Db } from '../src/store/database.js'
import { recordPhoneHome } from '../src/store/phone-home.js'
import { scheduleHost } from '../src/store/host-schedule.js'
import { applyWorkEntries, type WorkEntry } from '../src/store/reports.js'
import type { HostRow, MachineRequestRow, MachineRow } from '../src/store/tables.js'
import { Wake } from '../src/store/wake.js'
import { claimDueItems, takeChangedWishes, type ClaimedItem } from '../src/store/work-items.js'
import { withDatabase } from './database.js'

export const organizationId = '00000000-0000-7000-8000-000000000001'
export const workspaceId = '00000000-0000-7000-8000-000000000002'
export const smallShape: Shape = { vcpus: 2, memoryMib: 4096, diskGib: 40, diskClass: 'ssd', architecture: 'amd64' }
export const euros = (hourlyMicros: number): Price => ({
  currency: 'EUR',
  hourlyMicros,
  monthlyMicros: 0,
  setupMicros: 0,
})
const waitMs = 20_000

export interface ProviderOptions {
  readonly kind?: 'STATIC' | 'DYNAMIC'
  readonly family?: string
  /** Null: nothing is told of offerings. */
  readonly offerings?: readonly OfferingOptions[] | null
  readonly connected?: boolean
  readonly draining?: boolean
  readonly health?: 'HEALTHY' | 'DEGRADED' | 'UNHEALTHY'
  readonly capabilities?: readonly string[]
}

const defaultProvider: Required<Omit<ProviderOptions, 'capabilities'>> = {
  kind: 'DYNAMIC',
  family: 'simulated',
  offerings: [{}],
  connected: true,
  draining: false,
  health: 'HEALTHY',
}

export interface OfferingOptions {
  readonly typeId?: string
  readonly location?: string
  readonly shape?: Shape
  readonly price?: Price | null
  readonly available?: boolean
  readonly remaining?: number | null
}

export interface HostOptions {
  readonly spec?: Partial<ClassSpec>
  readonly placement?: Partial<PlacementWish>
  readonly userData?: string
  readonly providerData?: HostRow['provider_data']
  readonly labels?: HostRow['labels']
  /** Of another workspace than the default one. */
  readonly workspace?: { readonly id: string; readonly name: string }
  readonly priority?: number
  /** A class that several orders name; default: one of its own. */
  readonly className?: string
}

/** Played by a test: an instance that claims items and says what became of them. */
export interface FakeInstance {
  readonly sessionId: string
  readonly providerId: string
  /** Takes what is due, and what has changed of what it holds. */
  claim(): Promise<readonly ClaimedItem[]>
  /** Says something about an item that it holds, and lets go of it if that ends it. */
  report(item: ClaimedItem, report: ReportFacts, end?: 'settled' | 'keep'): Promise<void>
  /** Says something about several in one batch, and lets go of them. */
  reportAll(reports: readonly (readonly [ClaimedItem, ReportFacts])[]): Promise<void>
}

/** A database, reconcilers on it, and what is needed to play the parts of everybody else. */
export class Rig {
  readonly db: Db
  /** Of the database. */
  readonly url: string
  readonly wake = new Wake()
  readonly keyring: Keyring
  readonly hubId = randomUUID()
  readonly #t: Test
  #classes = 0
  #reconcilers = 0

  private constructor(t: Test, db: Db, url: string) {
    this.#t = t
    this.db = db
    this.url = url
    this.keyring = makeKeyring([randomBytes(32)])
  }

  static async start(t: Test): Promise<Rig> {
    const { db, url } = await withDatabase(t)
    return new Rig(t, db, url)
  }

  /** Runs reconcilers until the test ends, or until what this returns stops them. */
  reconcile(replicas = 1, config: Partial<ReconcilerConfig> = {}): () => Promise<void> {
    const stops: (() => Promise<void>)[] = []
    for (let replica = 0; replica < replicas; replica++) {
      const reconciler = startReconciler({
        db: this.db,
        wake: this.wake,
        keyring: this.keyring,
        log: pino({ level: 'silent' }),
        hubId: this.hubId,
        replica: `replica-${this.#reconcilers++}`,
        config: { sweepMs: 200, leaseMs: 600, publicUrl: 'https://hub.example', startGraceMs: 0, ...config },
      })
      this.#t.teardown(() => reconciler.stop())
      stops.push(() => reconciler.stop())
    }
    return async () => void (await Promise.all(stops.map((stop) => stop())))
  }

  async provider(name: string, options: ProviderOptions = {}): Promise<FakeInstance> {
    const id = uuid()
    const { kind, family, draining, health, connected, offerings: told } = { ...defaultProvider, ...options }
    const offerings = kind === 'STATIC' ? null : told
    await this.db
      .insertInto('providers')
      .values({
        id,
        name,
        family,
        kind,
        state: connected ? 'CONNECTED' : 'DISCONNECTED',
        draining,
        health,
        capabilities: JSON.stringify(options.capabilities ?? (offerings === null ? [] : ['OFFERINGS'])),
        offerings_at: offerings === null ? null : new Date(),
      })
      .execute()
    for (const offering of offerings ?? []) await this.offer(id, offering)
    const sessionId = uuid()
    if (connected) await this.session(id, sessionId)
    return this.#instance(id, name, sessionId)
  }

  async offer(providerId: string, options: OfferingOptions = {}): Promise<void> {
    await this.db
      .insertInto('offerings')
      .values({
        provider_id: providerId,
        type_id: options.typeId ?? 'small',
        location: options.location ?? 'fsn1',
        shape: JSON.stringify(options.shape ?? smallShape),
        price: options.price === null ? null : JSON.stringify(options.price ?? euros(10_000)),
        available: options.available ?? true,
        remaining: options.remaining ?? null,
      })
      .execute()
  }

  /** A live session that began long ago. */
  async session(providerId: string, id: string, expiresInMs = 3_600_000): Promise<void> {
    await this.db
      .insertInto('sessions')
      .values({
        id,
        provider_id: providerId,
        instance_id: uuid(),
        instance_name: 'test',
        replica: 'test',
        sdk: 'test',
        provider_version: '0',
        certificate_serial: '00',
        capacity: 100,
        connected_at: new Date(Date.now() - 3_600_000),
        expires_at: new Date(Date.now() + expiresInMs),
      })
      .execute()
  }

  async machine(
    instance: FakeInstance,
    name: string,
    over: { state?: MachineState; labels?: Record<string, string>; shape?: Shape | null } = {},
  ) {
    const id = uuid()
    const provider = await this.db
      .selectFrom('providers')
      .select('name')
      .where('id', '=', instance.providerId)
      .executeTakeFirstOrThrow()
    await this.db
      .insertInto('machines')
      .values({
        provider_id: instance.providerId,
        id,
        name: shortName('m', id),
        provider_name: provider.name,
        static: true,
        external_id: name,
        state: over.state ?? 'AVAILABLE',
        hardware: JSON.stringify(over.shape === null ? {} : { shape: over.shape ?? smallShape }),
        provider_labels: JSON.stringify(over.labels ?? {}),
      })
      .execute()
    return id
  }

  /** Orders a host, as the API does. */
  async order(name: string, options: HostOptions = {}): Promise<string> {
    const spec: ClassSpec = {
      shape: smallShape,
      offerings: [{ family: 'simulated', provider: '', typeId: '', locations: [], providerData: {} }],
      machineSelector: null,
      bootstrap: { phoneHome: false, phoneHomeTimeoutMs: 900_000, provisionTimeoutMs: 3_600_000, userData: '' },
      ...options.spec,
    }
    const className = options.className ?? `class-${++this.#classes}`
    await this.db
      .insertInto('machine_classes')
      .values({ id: uuid(), name: className })
      .onConflict((conflict) => conflict.doNothing())
      .execute()
    const { id: classId } = await this.db
      .selectFrom('machine_classes')
      .select('id')
      .where('name', '=', className)
      .executeTakeFirstOrThrow()
    const id = uuid()
    await inTransaction(this.db, async (tx) => {
      await tx
        .insertInto('hosts')
        .values({
          organization_id: organizationId,
          id,
          workspace_id: options.workspace?.id ?? workspaceId,
          workspace_name: options.workspace?.name ?? 'default',
          labels: JSON.stringify(options.labels ?? {}),
          priority: options.priority ?? 0,
          name,
          hostname: `${name}.example`,
          class_id: classId,
          class_name: className,
          class_spec: JSON.stringify(spec),
          placement: JSON.stringify({
            providers: [],
            families: [],
            locations: [],
            maxHourlyMicros: 0,
            ...options.placement,
          }),
          provider_data: JSON.stringify(options.providerData ?? {}),
          state: 'ORDERED',
          created_by: 'test',
        })
        .execute()
      if (options.userData !== undefined) {
        await tx
          .insertInto('host_secrets')
          .values({
            organization_id: organizationId,
            host_id: id,
            user_data_sealed: this.keyring.seal('host.user-data', id, options.userData),
          })
          .execute()
      }
      await scheduleHost(tx, { organizationId, hostId: id })
    })
    this.wake.signal({ kind: 'host' })
    return id
  }

  /** Releases a host, or has it retried, as the API does. */
  async ask(hostId: string, state: 'RELEASING' | 'ORDERED'): Promise<void> {
    await inTransaction(this.db, async (tx) => {
      await tx.updateTable('hosts').set({ state, state_at: new Date() }).where('id', '=', hostId).execute()
      await scheduleHost(tx, { organizationId, hostId })
    })
    this.wake.signal({ kind: 'host' })
  }

  /** A machine phones home. Returns whether it is the first time. */
  async phoneHome(token: string): Promise<boolean> {
    const { first } = await inTransaction(this.db, (tx) => recordPhoneHome(tx, token, { hostname: '' }))
    this.wake.signal({ kind: 'host' })
    return first
  }

  async host(id: string): Promise<HostRow> {
    return this.db.selectFrom('hosts').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
  }

  async requests(hostId: string): Promise<MachineRequestRow[]> {
    return this.db.selectFrom('machine_requests').selectAll().where('host_id', '=', hostId).orderBy('id').execute()
  }

  async machineRow(id: string): Promise<MachineRow> {
    return this.db.selectFrom('machines').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
  }

  /** Reasons of the events about a host, and about what is beneath it, in order. */
  async reasons(subject: string): Promise<readonly string[]> {
    const rows = await this.db
      .selectFrom('events')
      .select('reason')
      .where((where) => where.or([where('subject', '=', subject), sql<boolean>`${subject} = any(related)`]))
      .orderBy('xid')
      .orderBy('id')
      .execute()
    return rows.map((row) => row.reason)
  }

  /** Waits until a host is as wished, with what it is then. */
  async until(id: string, holds: (host: HostRow) => boolean, what: string): Promise<HostRow> {
    return eventually(
      () => this.host(id),
      holds,
      (host) => `${what}; it is ${host.state}: ${host.state_message}`,
    )
  }

  #instance(providerId: string, name: string, sessionId: string): FakeInstance {
    const write = async (entries: readonly WorkEntry[]) => {
      const { results, wake } = await inTransaction(this.db, (tx) => applyWorkEntries(tx, entries, new Date()))
      for (const result of results) if (!result.ok) throw new Error(result.message)
      this.wake.signal(...wake)
    }
    const entriesOf = (item: ClaimedItem, report: ReportFacts, end: 'settled' | 'keep'): readonly WorkEntry[] => {
      const common = { sessionId, providerId, providerName: name, itemId: item.id, fence: item.fence }
      const said = { ...common, body: { kind: 'report', report } } as const
      return end === 'keep' ? [said] : [said, { ...common, body: { kind: 'settled', generation: item.generation } }]
    }
    return {
      sessionId,
      providerId,
      claim: async () => {
        const told = [
          await claimDueItems(this.db, [{ sessionId, providerId, credit: 100 }]),
          await takeChangedWishes(this.db, [{ sessionId, providerId }]),
        ]
        // Nobody waits here for what may come meanwhile.
        await inTransaction(this.db, async (tx) => {
          for (const row of told.flatMap(({ takenUp }) => takenUp))
            await scheduleHost(tx, { organizationId: row.organization_id, hostId: row.host_id })
        })
        const items = told.flatMap((claims) => claims.items)
        this.wake.signal({ kind: 'host' })
        return items
      },
      report: (item, report, end = 'settled') => write(entriesOf(item, report, end)),
      reportAll: (reports) => write(reports.flatMap(([item, report]) => entriesOf(item, report, 'settled'))),
    }
  }
}

/** Reads until what was read holds. */
export async function eventually<T>(
  read: () => Promise<T>,
  holds: (value: T) => boolean,
  describe: (value: T) => string,
): Promise<T> {
  const deadline = Date.now() + waitMs
  for (;;) {
    const value = await read()
    if (holds(value)) return value
    if (Date.now() > deadline) throw new Error(`in vain waited for: ${describe(value)}`)
    await sleep(10)
  }
}
