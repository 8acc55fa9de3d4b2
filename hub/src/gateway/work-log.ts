import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { inTransaction, isConnectionLoss, type Db } from '../store/database.js'
import { applyWorkEntries, type EntryResult, type WorkEntry } from '../store/reports.js'
import type { Wake } from '../store/wake.js'

const maxBatch = 500
const retryDelayMs = 500

/** An entry could not be stored now, though nothing is wrong with it. */
export type SubmitResult =
  EntryResult | { readonly ok: false; readonly reason: 'UNAVAILABLE'; readonly message: string }

interface Pending {
  readonly entry: WorkEntry
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
      const kept = await this.#apply(batch)
      if (kept.length > 0) {
        this.#pending.unshift(...kept)
        await sleep(retryDelayMs)
      }
    }
    this.#running = undefined
  }

  /** Applies a batch; returns what has to be tried again. */
  async #apply(batch: readonly Pending[]): Promise<readonly Pending[]> {
    try {
      const applied = await inTransaction(
        this.#db,
        (tx) =>
          applyWorkEntries(
            tx,
            batch.map((pending) => pending.entry),
            new Date(),
          ),
        'report',
      )
      this.#wake.signal(...applied.wake)
      batch.forEach((pending, index) => {
        pending.resolve(applied.results[index] ?? { ok: false, reason: 'UNAVAILABLE', message: 'not stored' })
      })
      return []
    } catch (error) {
      if (!isConnectionLoss(error)) return this.#applySingly(batch, error)
      this.#log.warn({ err: error, entries: batch.length }, 'cannot store reports now')
      return this.#postpone(batch)
    }
  }

  /** One entry that the database will never take must not hold the others up. */
  async #applySingly(batch: readonly Pending[], error: unknown): Promise<readonly Pending[]> {
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
    for (const pending of batch) kept.push(...(await this.#apply([pending])))
    return kept
  }

  #postpone(batch: readonly Pending[]): readonly Pending[] {
    const kept: Pending[] = []
    for (const pending of batch) {
      if (pending.entry.body.kind === 'report') {
        pending.resolve({ ok: false, reason: 'UNAVAILABLE', message: 'the database does not answer; send it again' })
      } else kept.push(pending)
    }
    return kept
  }
}
