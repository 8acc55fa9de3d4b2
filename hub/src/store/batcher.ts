import { isConnectionLoss } from './database.js'

export interface BatcherOptions<Item, Result> {
  /** Items at most in one batch. */
  readonly max: number
  /** Items of one key are never in one batch; undefined: it minds no other. */
  readonly keyOf?: (item: Item) => string | undefined
  /** Does a batch, and gives a result for each item, in order. */
  readonly work: (items: readonly Item[]) => Promise<readonly Settled<Result>[]>
}

export type Settled<Result> =
  { readonly ok: true; readonly result: Result } | { readonly ok: false; readonly error: unknown }

/** An item that somebody waits for. */
export interface Pending<Item, Result> {
  readonly item: Item
  readonly resolve: (result: Result) => void
  readonly reject: (error: unknown) => void
}

/**
 * Gathers what many ask for at the same time, and does it together: one batch is under way at a time, and whatever comes meanwhile goes into the next. Who comes alone does
 * not wait. Where a batch fails though the database answers, its items are done one by one, so that one that cannot be done fails alone.
 */
export class Batcher<Item, Result> {
  readonly #options: BatcherOptions<Item, Result>
  #pending: Pending<Item, Result>[] = []
  #running = false

  constructor(options: BatcherOptions<Item, Result>) {
    this.#options = options
  }

  /** Resolves when the item is done. @throws what its work threw. */
  submit(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#pending.push({ item, resolve, reject })
      if (!this.#running) void this.#run()
    })
  }

  async #run(): Promise<void> {
    this.#running = true
    // Let the rest of this tick's items join the first batch.
    await new Promise((resolve) => setImmediate(resolve))
    while (this.#pending.length > 0) await settleAll(this.#take(), this.#options.work)
    this.#running = false
  }

  #take(): readonly Pending<Item, Result>[] {
    const { max, keyOf } = this.#options
    const keys = new Set<string>()
    const batch: Pending<Item, Result>[] = []
    const later: Pending<Item, Result>[] = []
    for (const pending of this.#pending) {
      const key = keyOf?.(pending.item)
      if (batch.length >= max || (key !== undefined && keys.has(key))) later.push(pending)
      else batch.push(pending)
      if (key !== undefined) keys.add(key)
    }
    this.#pending = later
    return batch
  }
}

/** Does a batch, and tells everybody who waits. Where it fails though the database answers, its items are done one by one. Never rejects. */
export async function settleAll<Item, Result>(
  batch: readonly Pending<Item, Result>[],
  work: BatcherOptions<Item, Result>['work'],
): Promise<void> {
  try {
    const results = await work(batch.map(({ item }) => item))
    batch.forEach(({ resolve, reject }, index) => {
      const settled = results[index]
      if (settled?.ok === true) resolve(settled.result)
      else reject(settled?.error ?? new Error('there is no result'))
    })
  } catch (error) {
    if (batch.length === 1 || isConnectionLoss(error)) for (const { reject } of batch) reject(error)
    else for (const pending of batch) await settleAll([pending], work)
  }
}
