import { HubError } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import type { Keyring } from '../secrets/keyring.js'
import { Batcher, type Settled } from '../store/batcher.js'
import { inTransaction, type Db, type Tx } from '../store/database.js'
import { appendAll, type Cause } from '../store/events.js'
import { insertHosts, type NewHost } from '../store/hosts.js'
import { findAnswers, lockKeys, storeAnswers, type IdempotencyKey } from '../store/idempotency.js'
import { findClassesByName } from '../store/machine-classes.js'
import type { HostRow, MachineClassRow } from '../store/tables.js'
import type { Wake } from '../store/wake.js'

const maxBatch = 200

/** An order that has been checked, and is to be stored. */
export interface CheckedOrder {
  readonly key: IdempotencyKey | undefined
  readonly cause: Cause
  /** Names the class: it is read once for all orders of a batch that have the same. */
  readonly className: string
  /** Finds the class where none of that name is there any more, or makes it. @throws HubError */
  readonly findClass: (tx: Tx) => Promise<MachineClassRow>
  readonly toHost: (machineClass: MachineClassRow) => NewHost
  readonly toEvent: (row: HostRow) => EventDraft
  /** What the caller is told, and told again whenever the same key comes. */
  readonly toAnswer: (row: HostRow) => Uint8Array
  readonly nameTaken: () => HubError
}

/** Stores the orders that come at the same time in one transaction. Each is stored, or repeated, or refused by itself. */
export class OrderLog {
  readonly #db: Db
  readonly #wake: Wake
  readonly #keyring: Keyring
  readonly #batches: Batcher<CheckedOrder, Uint8Array>

  constructor(deps: { readonly db: Db; readonly wake: Wake; readonly keyring: Keyring }) {
    this.#db = deps.db
    this.#wake = deps.wake
    this.#keyring = deps.keyring
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
    const { settled, stored } = await inTransaction(this.#db, (tx) => this.#storeIn(tx, orders), 'order')
    if (stored) this.#wake.signal({ kind: 'host' }, { kind: 'change' })
    return settled
  }

  async #storeIn(
    tx: Tx,
    orders: readonly CheckedOrder[],
  ): Promise<{ readonly settled: readonly Settled<Uint8Array>[]; readonly stored: boolean }> {
    const outcomes = new Map<CheckedOrder, Uint8Array | HubError>()
    const keys = orders.flatMap(({ key }) => (key === undefined ? [] : [key]))
    const [, before, known] = await Promise.all([
      lockKeys(tx, keys),
      findAnswers(tx, keys),
      findClassesByName(tx, [...new Set(orders.map((order) => order.className))]),
    ])
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
    const rows = await insertHosts(
      tx,
      this.#keyring,
      drafts.map(({ host }) => host),
    )
    const made = drafts.flatMap(({ order }, index) => {
      const row = rows[index]
      const answer = row === undefined ? order.nameTaken() : order.toAnswer(row)
      outcomes.set(order, answer)
      return row === undefined || answer instanceof HubError ? [] : [{ order, row, answer }]
    })
    await Promise.all([
      appendAll(
        tx,
        made.map(({ order, row }) => ({ cause: order.cause, draft: order.toEvent(row) })),
      ),
      storeAnswers(
        tx,
        made.flatMap(({ order: { key }, answer }) => (key === undefined ? [] : [{ key, answer }])),
      ),
    ])
    return { settled: orders.map((order) => settle(outcomes.get(order))), stored: made.length > 0 }
  }
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
