/** Gathers what is asked for in one turn of the event loop, and does it together: at most so many batches at once. */
export class Batcher<Item, Result> {
  readonly #work: (items: readonly Item[]) => Promise<readonly Result[]>
  readonly #inFlightLimit: number
  readonly #sizeLimit: number
  #waiting: { item: Item; resolve: (result: Result) => void; reject: (error: unknown) => void }[] = []
  #inFlight = 0
  #scheduled = false

  constructor(work: (items: readonly Item[]) => Promise<readonly Result[]>, inFlightLimit: number, sizeLimit = 1_000) {
    this.#work = work
    this.#inFlightLimit = inFlightLimit
    this.#sizeLimit = sizeLimit
  }

  add(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject })
      this.#schedule()
    })
  }

  #schedule(): void {
    if (this.#scheduled || this.#inFlight >= this.#inFlightLimit || this.#waiting.length === 0) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      void this.#flush()
    })
  }

  async #flush(): Promise<void> {
    const batch = this.#waiting.splice(0, this.#sizeLimit)
    this.#inFlight++
    try {
      const results = await this.#work(batch.map(({ item }) => item))
      batch.forEach(({ resolve }, index) => resolve(results[index] as Result))
    } catch (error) {
      for (const { reject } of batch) reject(error)
    } finally {
      this.#inFlight--
      this.#schedule()
    }
  }
}
