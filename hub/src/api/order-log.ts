import type { Logger } from 'pino'
import { HubError } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import type { ClassSpec, PlacementWish } from '../domain/host/host.js'
import { demandOf } from '../domain/quota/demand.js'
import type { Demand } from '../domain/quota/quota.js'
import type { Keyring } from '../secrets/keyring.js'
import { Batcher, type Settled } from '../store/batcher.js'
import { inTransaction, isConnectionLoss, type Db, type Tx } from '../store/database.js'
import { appendAll, type Cause } from '../store/events.js'
import { startSchedules } from '../store/host-schedule.js'
import { insertHosts, type NewHost, type NewHostRow, type WorkspaceKey } from '../store/hosts.js'
import { findAnswers, lockKeys, storeAnswers, type IdempotencyKey } from '../store/idempotency.js'
import { openLimitBook, type LimitBook } from '../store/limit-book.js'
import { findClassesByName } from '../store/machine-classes.js'
import type { HostRow, MachineClassRow } from '../store/tables.js'
import type { Wake, WakeTopic } from '../store/wake.js'
import { limitExceeded } from './quota-resources.js'

const maxBatch = 200

/** An order that has been checked, and is to be stored. */
export interface CheckedOrder {
  readonly key: IdempotencyKey | undefined
  readonly cause: Cause
  /** Names the class: it is read once for all orders of a batch that have the same. */
  readonly className: string
  readonly classSpec: ClassSpec
  readonly placement: PlacementWish
  readonly workspace: WorkspaceKey
  /** Where it would be placed, now or later, for quotas and budgets. Null: nobody knows. */
  readonly estimate: Demand['place']
  /** Finds the class where none of that name is there any more, or makes it. @throws HubError */
  readonly findClass: (tx: Tx) => Promise<MachineClassRow>
  readonly toHost: (machineClass: MachineClassRow) => NewHost
  readonly toEvent: (row: HostRow) => EventDraft
  /** What the caller is told, and told again whenever the same key comes. */
  readonly toAnswer: (row: HostRow) => Uint8Array
  readonly nameTaken: () => HubError
  /** Refuses the order where what it rests upon has changed since it was checked; it holds what it looks at to the end of the transaction. */
  readonly guard?: (tx: Tx) => Promise<HubError | undefined>
}

/** Places new hosts in the transaction that stores them, where the reconciler can do that yet: otherwise they wait for its next round. */
export type PrepareFirstLook = (
  tx: Tx,
  expected: readonly {
    readonly class_spec: ClassSpec
    readonly placement: PlacementWish
    readonly class_name: string
    readonly organization_id: string
    readonly workspace_id: string
  }[],
  limits: Promise<LimitBook>,
) =>
  | {
      readonly ready: Promise<void>
      readonly look: (hosts: readonly NewHostRow[]) => Promise<readonly WakeTopic[]>
    }
  | undefined

export interface OrderLogDeps {
  readonly db: Db
  readonly wake: Wake
  readonly keyring: Keyring
  readonly log: Logger
  readonly prepareFirstLook: PrepareFirstLook
}

/** Stores the orders that come at the same time in one transaction, and finds places for them there. Each is stored, or repeated, or refused by itself. */
export class OrderLog {
  readonly #deps: OrderLogDeps
  readonly #batches: Batcher<CheckedOrder, Uint8Array>

  constructor(deps: OrderLogDeps) {
    this.#deps = deps
    this.#batches = new Batcher({
      max: maxBatch,
      keyOf: ({ key }) => (key === undefined ? undefined : `${key.scope} ${key.key}`),
      work: (orders) => this.#store(orders),
    })
  }

  /**
   * Resolves with the answer once the order is committed, by this call or by an earlier one with the same key.
   *
   * @throws HubError NAME_TAKEN, IDEMPOTENCY_KEY_REUSED, or what `findClass` threw.
   */
  submit(order: CheckedOrder): Promise<Uint8Array> {
    return this.#batches.submit(order)
  }

  async #store(orders: readonly CheckedOrder[]): Promise<readonly Settled<Uint8Array>[]> {
    try {
      return await this.#storeTogether(orders, true)
    } catch (error) {
      if (isConnectionLoss(error)) throw error
      // An order is never refused for what may be amiss with finding it a place: that is shown on the host.
      this.#deps.log.warn({ err: error, orders: orders.length }, 'orders could not be placed at once')
      return this.#storeTogether(orders, false)
    }
  }

  async #storeTogether(orders: readonly CheckedOrder[], look: boolean): Promise<readonly Settled<Uint8Array>[]> {
    const { settled, wake } = await inTransaction(this.#deps.db, (tx) => this.#storeIn(tx, orders, look), 'order', {
      readsFirst: true,
    })
    this.#deps.wake.signal(...wake)
    return settled
  }

  async #storeIn(
    tx: Tx,
    orders: readonly CheckedOrder[],
    look: boolean,
  ): Promise<{ readonly settled: readonly Settled<Uint8Array>[]; readonly wake: readonly WakeTopic[] }> {
    const keys = orders.flatMap(({ key }) => (key === undefined ? [] : [key]))
    // Keys are locked before limits, in every transaction.
    const locked = lockKeys(tx, keys)
    // What orders rest upon is locked before limits, too.
    const guarded = Promise.all(orders.map(async (order) => [order, await order.guard?.(tx)] as const))
    const opened = openLimitBook(
      tx,
      orders.map(({ workspace }) => ({ organizationId: workspace.organizationId, workspaceId: workspace.id })),
    )
    const firstLook = look
      ? this.#deps.prepareFirstLook(
          tx,
          orders.map(({ classSpec, placement, className, workspace }) => ({
            ...{ class_spec: classSpec, placement },
            ...{ class_name: className, organization_id: workspace.organizationId, workspace_id: workspace.id },
          })),
          opened,
        )
      : undefined
    const outcomes = new Map<CheckedOrder, Uint8Array | HubError>()
    const [limits, refusals, , before, known] = await Promise.all([
      opened,
      guarded,
      locked,
      findAnswers(tx, keys),
      findClassesByName(tx, [...new Set(orders.map((order) => order.className))]),
      firstLook?.ready,
    ])
    for (const [order, refusal] of refusals) if (refusal !== undefined) outcomes.set(order, refusal)
    for (const order of orders) {
      const answer = order.key === undefined ? undefined : before.get(order.key)
      if (answer !== undefined) outcomes.set(order, answer)
    }
    const fresh = orders.filter((order) => !outcomes.has(order))
    const classes = await findClasses(tx, fresh, known)
    const drafts = fresh.flatMap((order) => {
      const machineClass = classes.get(order.className)
      if (machineClass === undefined) return []
      if (machineClass instanceof HubError) {
        outcomes.set(order, machineClass)
        return []
      }
      return [{ order, host: order.toHost(machineClass) }]
    })
    const made = await this.#insert(tx, drafts, limits, outcomes)
    const [, , wake] = await Promise.all([
      appendAll(
        tx,
        made.map(({ order, host }) => ({ cause: order.cause, draft: order.toEvent(host.row) })),
      ),
      storeAnswers(
        tx,
        made.flatMap(({ order: { key }, answer }) => (key === undefined ? [] : [{ key, answer }])),
      ),
      lookAt(tx, made, firstLook),
    ])
    // Where no place was looked for: else it is stored with the places, in the same round trip.
    await limits.flush(tx)
    return { settled: orders.map((order) => settle(outcomes.get(order))), wake: made.length === 0 ? [] : wake }
  }

  /** Stores those orders that limits allow, first come first served. What a name that is in use gives back, those that were refused may have. */
  async #insert(
    tx: Tx,
    drafts: readonly Draft[],
    limits: LimitBook,
    outcomes: Map<CheckedOrder, Uint8Array | HubError>,
  ): Promise<readonly (MadeHost & { readonly answer: Uint8Array })[]> {
    const made: (MadeHost & { readonly answer: Uint8Array })[] = []
    for (let waiting = drafts; waiting.length > 0;) {
      const admitted: Draft[] = []
      const refused: Draft[] = []
      for (const draft of waiting) {
        const excess = limits.isEmpty ? undefined : limits.excess(demandOfOrder(draft))
        if (excess !== undefined) outcomes.set(draft.order, limitExceeded(excess))
        else limits.reserve(demandOfOrder(draft))
        ;(excess === undefined ? admitted : refused).push(draft)
      }
      const rows = await insertHosts(
        tx,
        this.#deps.keyring,
        admitted.map(({ host }) => host),
      )
      let givenBack = false
      admitted.forEach((draft, index) => {
        const host = rows[index]
        limits.reserve(demandOfOrder(draft), -1)
        const answer = host === undefined ? draft.order.nameTaken() : draft.order.toAnswer(host.row)
        outcomes.set(draft.order, answer)
        if (host === undefined || answer instanceof HubError) givenBack = true
        else {
          limits.charge(host.row.id, demandOfOrder(draft))
          made.push({ order: draft.order, host, answer })
        }
      })
      waiting = givenBack ? refused : []
    }
    return made
  }
}

interface Draft {
  readonly order: CheckedOrder
  readonly host: NewHost
}

interface MadeHost {
  readonly order: CheckedOrder
  readonly host: NewHostRow
}

function demandOfOrder({ order, host }: Draft): Demand {
  const { organizationId, id: workspaceId } = order.workspace
  return demandOf(
    { organizationId, workspaceId, className: host.className, classSpec: order.classSpec },
    order.estimate,
  )
}

async function lookAt(
  tx: Tx,
  made: readonly MadeHost[],
  firstLook: ReturnType<PrepareFirstLook>,
): Promise<readonly WakeTopic[]> {
  if (firstLook === undefined) {
    const keys = made.map(({ host: { row } }) => ({ organizationId: row.organization_id, hostId: row.id }))
    await startSchedules(
      tx,
      keys.map((key) => ({ ...key, inMs: 0 })),
    )
    return [{ kind: 'host' }, { kind: 'change' }]
  }
  return firstLook.look(
    made.map(({ order: { classSpec, placement }, host }) => ({
      ...host,
      // The same, in the words in which its places were read: PostgreSQL gives keys in an order of its own.
      row: { ...host.row, class_spec: classSpec, placement },
    })),
  )
}

async function findClasses(
  tx: Tx,
  orders: readonly CheckedOrder[],
  known: readonly MachineClassRow[],
): Promise<ReadonlyMap<string, MachineClassRow | HubError>> {
  const classes = new Map<string, MachineClassRow | HubError>(known.map((row) => [row.name, row]))
  // In one order, so that replicas that make the same classes do not wait for each other in a circle.
  for (const order of orders.toSorted((one, other) => (one.className < other.className ? -1 : 1))) {
    if (!classes.has(order.className)) classes.set(order.className, await findOrRefuse(tx, order))
  }
  return classes
}

async function findOrRefuse(tx: Tx, order: CheckedOrder): Promise<MachineClassRow | HubError> {
  try {
    return await order.findClass(tx)
  } catch (error) {
    if (error instanceof HubError) return error
    throw error
  }
}

function settle(outcome: Uint8Array | HubError | undefined): Settled<Uint8Array> {
  if (outcome === undefined) throw new Error('an order was neither stored nor refused')
  return outcome instanceof HubError ? { ok: false, error: outcome } : { ok: true, result: outcome }
}
