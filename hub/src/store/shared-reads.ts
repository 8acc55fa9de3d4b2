import { settleAll, type Pending, type Settled } from './batcher.js'
import { onOneConnection, type Db } from './database.js'

/** Items of one kind in one round at most. */
const maxItems = 200

/** Reads for many at once, and gives a result for each item, in order. */
export type SharedRead<Item, Result> = (connection: Db, items: readonly Item[]) => Promise<readonly Settled<Result>[]>

/** What one kind reads in one round. Neither rejects. */
interface Part {
  readonly read: (connection: Db) => Promise<void>
  readonly fail: (error: unknown) => void
}

/**
 * Gathers reads of several kinds that many ask for at the same time into rounds. A round is one round trip on one connection, with one statement, or a few, for each kind; one
 * is under way at a time, and whatever comes meanwhile goes into the next. Each read begins after whoever shares it has asked, so nobody is given what is older than the
 * question. A kind that fails does so for those alone who asked for it.
 */
export class SharedReads {
  readonly #db: Db
  readonly #kinds: (() => Part | undefined)[] = []
  #running = false

  constructor(db: Db) {
    this.#db = db
  }

  /** Adds a kind, and gives the function that asks for an item of it. That throws what `read` threw, or gave for the item. */
  kind<Item, Result>(read: SharedRead<Item, Result>): (item: Item) => Promise<Result> {
    let pending: Pending<Item, Result>[] = []
    this.#kinds.push(() => {
      if (pending.length === 0) return undefined
      const batch = pending.slice(0, maxItems)
      pending = pending.slice(maxItems)
      return {
        read: (connection) => settleAll(batch, (items) => read(connection, items)),
        fail: (error) => batch.forEach(({ reject }) => reject(error)),
      }
    })
    return (item) =>
      new Promise((resolve, reject) => {
        pending.push({ item, resolve, reject })
        if (!this.#running) void this.#run()
      })
  }

  async #run(): Promise<void> {
    this.#running = true
    // Let the rest of this tick's items join the first round.
    await new Promise((resolve) => setImmediate(resolve))
    for (;;) {
      const round = this.#kinds.flatMap((take) => take() ?? [])
      if (round.length === 0) break
      try {
        await onOneConnection(this.#db, (connection) => Promise.all(round.map((part) => part.read(connection))))
      } catch (error) {
        // No connection could be had.
        for (const part of round) part.fail(error)
      }
    }
    this.#running = false
  }
}
