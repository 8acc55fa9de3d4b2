import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { inStatement, inTransaction, isPassing, type Db } from '../store/database.js'
import {
  applyWorkEntries,
  settleItems,
  type AppliedEntries,
  type EntryResult,
  type SettledEntry,
  type WorkEntry,
} from '../store/reports.js'
import type { Wake } from '../store/wake.js'

const maxBatch = 500
const retryDelayMs = 500

/** An entry could not be stored now, though nothing is wrong with it. */
export type SubmitResult =
  EntryResult | { readonly ok: false; readonly reason: 'UNAVAILABLE'; readonly message: string }

interface Pending<Entry extends WorkEntry = WorkEntry> {
  readonly entry: Entry
  readonly resolve: (result: SubmitResult) => void
}

/**
 * Gathers what all streams of this replica report into few transactions. One is under way at a time, so entries of an item are applied in
 * the order in which they came; whatever arrives meanwhile goes into the next.
 */
export class WorkLog {
  readonly #db: Db
  readonly #wake: Wake
  readonly #log: Logger
  #pending: Pending[] = []
  #running: Promise<void> | undefined

  constructor(db: Db, wake: Wake, log: Logger) {
    this.#db = db
    this.#wake = wake
    this.#log = log
  }

  /** Resolves once the entry, and all that follows from it, is committed or refused. A release is tried until it is stored. */
  submit(entry: WorkEntry): Promise<SubmitResult> {
    return new Promise((resolve) => {
      this.#pending.push({ entry, resolve })
      this.#running ??= this.#run()
    })
  }

  /** Resolves when nothing waits any more. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running
  }

  async #run(): Promise<void> {
    // Let the rest of this tick's frames join the first batch.
    await new Promise((resolve) => setImmediate(resolve))
    while (this.#pending.length > 0) {
      const batch = this.#pending.splice(0, maxBatch)
      const { settled, others } = part(batch)
      // They are about different items.
      const [keptSettled, kept] = await Promise.all([
        this.#apply(settled, this.#settle),
        this.#apply(others, this.#applyInOrder),
      ])
      kept.push(...keptSettled)
      if (kept.length > 0) {
        this.#pending.unshift(...kept)
        await sleep(retryDelayMs)
      }
    }
    this.#running = undefined
  }

  readonly #settle = (entries: readonly SettledEntry[]): Promise<AppliedEntries> =>
    inStatement(this.#db, (db) => settleItems(db, entries), 'report')

  readonly #applyInOrder = (entries: readonly WorkEntry[]): Promise<AppliedEntries> =>
    inTransaction(this.#db, (tx) => applyWorkEntries(tx, entries, new Date()), 'report', { readsFirst: true })

  /** Applies a batch; returns what has to be tried again. */
  async #apply<Entry extends WorkEntry>(
    batch: readonly Pending<Entry>[],
    store: (entries: readonly Entry[]) => Promise<AppliedEntries>,
  ): Promise<Pending[]> {
    if (batch.length === 0) return []
    try {
      const applied = await store(batch.map((pending) => pending.entry))
      this.#wake.signal(...applied.wake)
      batch.forEach((pending, index) => {
        pending.resolve(applied.results[index] ?? { ok: false, reason: 'UNAVAILABLE', message: 'not stored' })
      })
      return []
    } catch (error) {
      if (!isPassing(error)) return this.#applySingly(batch, store, error)
      this.#log.warn({ err: error, entries: batch.length }, 'cannot store reports now')
      return this.#postpone(batch)
    }
  }

  /** One entry that the database will never take must not hold the others up. */
  async #applySingly<Entry extends WorkEntry>(
    batch: readonly Pending<Entry>[],
    store: (entries: readonly Entry[]) => Promise<AppliedEntries>,
    error: unknown,
  ): Promise<Pending[]> {
    const [only] = batch
    if (batch.length === 1 && only !== undefined) {
      this.#log.error({ err: error, itemId: only.entry.itemId }, 'a report was refused by the database')
      only.resolve({
        ok: false,
        reason: 'INVALID',
        message: 'the report cannot be stored as it is; see the log of the hub',
      })
      return []
    }
    const kept: Pending[] = []
    for (const pending of batch) kept.push(...(await this.#apply([pending], store)))
    return kept
  }

  #postpone(batch: readonly Pending[]): Pending[] {
    const kept: Pending[] = []
    for (const pending of batch) {
      if (pending.entry.body.kind === 'report') {
        pending.resolve({ ok: false, reason: 'UNAVAILABLE', message: 'the database does not answer; send it again' })
      } else kept.push(pending)
    }
    return kept
  }
}

/** Claims that end and of which nothing else is said need not be read before they are ended. */
function part(batch: readonly Pending[]): { readonly settled: Pending<SettledEntry>[]; readonly others: Pending[] } {
  const saidOf = new Map<string, number>()
  for (const { entry } of batch) saidOf.set(entry.itemId, (saidOf.get(entry.itemId) ?? 0) + 1)
  const isAlone = (pending: Pending): pending is Pending<SettledEntry> =>
    pending.entry.body.kind === 'settled' && saidOf.get(pending.entry.itemId) === 1
  return { settled: batch.filter(isAlone), others: batch.filter((pending) => !isAlone(pending)) }
}
