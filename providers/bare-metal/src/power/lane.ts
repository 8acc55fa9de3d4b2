import { untilAborted } from './waiting.js'

/** Lets so many pieces of work happen at once, and the others wait in the order in which they came. */
export class Lane {
  readonly #limit: number
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  get free(): number {
    return Math.max(0, this.#limit - this.#running - this.#waiting.length)
  }

  /** @throws what the work throws, or the signal's reason where it fires before there is room. */
  async run<Result>(signal: AbortSignal, work: () => Promise<Result>): Promise<Result> {
    if (this.#running >= this.#limit) await this.#room(signal)
    else this.#running += 1
    try {
      return await work()
    } finally {
      this.#leave()
    }
  }

  async #room(signal: AbortSignal): Promise<void> {
    let enter = (): void => undefined
    const entered = new Promise<void>((resolve) => (enter = resolve))
    this.#waiting.push(enter)
    try {
      await untilAborted(entered, signal)
    } catch (error) {
      const place = this.#waiting.indexOf(enter)
      // Its place was given to it just when it gave up: it passes it on.
      if (place >= 0) this.#waiting.splice(place, 1)
      else this.#leave()
      throw error
    }
  }

  #leave(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#running -= 1
    else next()
  }
}
