import { untilAborted } from './waiting.js'

/** Lets one piece of work happen at a time, in the order asked for. Whoever gives up waiting leaves the queue. */
export class Turns {
  #last: Promise<void> = Promise.resolve()

  /** Waits for its turn and then runs. @throws what the work throws, or the signal's reason where it fires before the turn has come. */
  async run<Result>(signal: AbortSignal, work: () => Promise<Result>): Promise<Result> {
    const before = this.#last
    let release = (): void => undefined
    const ended = new Promise<void>((resolve) => (release = resolve))
    this.#last = before.then(() => ended)
    try {
      await untilAborted(before, signal)
      signal.throwIfAborted()
      return await work()
    } finally {
      release()
    }
  }
}
