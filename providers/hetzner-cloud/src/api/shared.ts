/** How long reading something may take that many wait for. */
const readTimeoutMs = 120_000
const maxEntries = 5_000

interface Entry {
  readonly value: Promise<unknown>
  /** When it is to be read again. */
  untilMs: number
}

/** What is read once for all who ask for it at a time, and kept for a while. What is not there, and what fails, is not kept. */
export class Shared {
  readonly #keptMs: number
  readonly #entries = new Map<string, Entry>()

  constructor(keptMs: number) {
    this.#keptMs = keptMs
  }

  /** @param read gets a signal of its own: it goes on where the one who asked first gives up. @throws what it throws, and the signal's reason. */
  get<Value>(key: string, signal: AbortSignal, read: (signal: AbortSignal) => Promise<Value>): Promise<Value> {
    const known = this.#entries.get(key)
    const entry = known !== undefined && known.untilMs > performance.now() ? known : this.#begin(key, read)
    return orAborted(entry.value, signal) as Promise<Value>
  }

  #begin(key: string, read: (signal: AbortSignal) => Promise<unknown>): Entry {
    const entry: Entry = { value: read(AbortSignal.timeout(readTimeoutMs)), untilMs: Number.POSITIVE_INFINITY }
    const forget = (): void => {
      if (this.#entries.get(key) === entry) this.#entries.delete(key)
    }
    entry.value.then((value) => {
      entry.untilMs = performance.now() + this.#keptMs
      if (value === undefined) forget()
    }, forget)
    this.#entries.delete(key)
    this.#entries.set(key, entry)
    const [oldest] = this.#entries.keys()
    if (this.#entries.size > maxEntries && oldest !== undefined) this.#entries.delete(oldest)
    return entry
  }
}

/** @throws the signal's reason, and what the work throws. */
function orAborted<Value>(work: Promise<Value>, signal: AbortSignal): Promise<Value> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error)
    if (signal.aborted) return onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}
