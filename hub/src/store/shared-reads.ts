/**
 * Lets those who ask for the same thing at the same time share one read. Whoever asks while a read is under way shares the next one: nobody is given what is older than
 * the question.
 */
export class SharedReads {
  readonly #running = new Map<string, Promise<unknown>>()
  readonly #waiting = new Map<string, Promise<unknown>>()

  /** @param key names what is read: the same key is the same question. */
  read<T>(key: string, read: () => Promise<T>): Promise<T> {
    const waiting = this.#waiting.get(key)
    if (waiting !== undefined) return waiting as Promise<T>
    const before = this.#running.get(key) ?? Promise.resolve()
    const begin = (): Promise<T> => {
      this.#waiting.delete(key)
      const reading = read().finally(() => {
        if (this.#running.get(key) === reading) this.#running.delete(key)
      })
      this.#running.set(key, reading)
      return reading
    }
    // What became of the read before is not this one's concern.
    const next = before.then(begin, begin)
    this.#waiting.set(key, next)
    return next
  }
}
