import { randomBytes } from 'node:crypto'
import { ConsoleRefused, type ConsoleChunk, type ConsolePosition, type ConsoleWish } from '@slipway/sdk'
import type { ConsolePart } from './power/driver.js'
import { isBmcError } from './power/errors.js'

/** How much is kept of a line for those who are slower, or come back. */
const keptBytes = 256 * 1024
/** A line that nobody follows is given back after this: who was cut off comes back sooner, and finds that nothing is missing. */
const defaultLingerMs = 15_000
const newline = 0x0a

/** Opens a machine's serial line; undefined where it has none. */
export type OpenLine = (machineId: string, signal: AbortSignal) => AsyncIterable<ConsolePart> | undefined

/**
 * The serial lines that are followed. A BMC gives its line to one at a time, so all who follow it here share one, which is taken when the first one
 * comes and given back after the last one went.
 */
export class SerialLines {
  readonly #open: OpenLine
  readonly #lingerMs: number
  readonly #lines = new Map<string, SerialLine>()

  constructor(open: OpenLine, lingerMs = defaultLingerMs) {
    this.#open = open
    this.#lingerMs = lingerMs
  }

  /** Whether a machine's line is held now. */
  holds(machineId: string): boolean {
    return this.#lines.has(machineId)
  }

  /** Follows a machine's line. @throws ConsoleRefused where there is none, or somebody else has it; BmcError. */
  async *follow(machineId: string, wish: ConsoleWish, signal: AbortSignal): AsyncGenerator<ConsoleChunk> {
    let line = this.#lines.get(machineId)
    while (line?.isOver === true) {
      // It is being given back: taken again before, it would seem to be somebody else's.
      await line.ended
      line = this.#lines.get(machineId)
    }
    if (line === undefined) {
      line = new SerialLine((until) => this.#open(machineId, until), this.#lingerMs)
      this.#lines.set(machineId, line)
      const made = line
      void made.ended.then(() => {
        if (this.#lines.get(machineId) === made) this.#lines.delete(machineId)
      })
    }
    yield* line.follow(wish, signal)
  }

  /** What is kept of a line that is followed by others. */
  async *kept(machineId: string, wish: ConsoleWish): AsyncGenerator<ConsoleChunk> {
    yield* this.#lines.get(machineId)?.kept(wish) ?? []
  }

  /** Gives all lines back. */
  async close(): Promise<void> {
    await Promise.all([...this.#lines.values()].map((line) => line.end()))
  }
}

class SerialLine {
  /** Fulfilled when the line was given back; never rejected. */
  readonly ended: Promise<void>
  readonly #stop = new AbortController()
  readonly #lingerMs: number
  readonly #kept: ConsoleChunk[] = []
  readonly #waiting = new Set<() => void>()
  #log = newLog()
  #offset = 0
  #keptBytes = 0
  /** How many chunks came before the first that is kept. */
  #dropped = 0
  #followers = 0
  #linger: NodeJS.Timeout | undefined
  #failure: unknown
  #over = false

  constructor(open: (signal: AbortSignal) => AsyncIterable<ConsolePart> | undefined, lingerMs: number) {
    this.#lingerMs = lingerMs
    this.ended = this.#pump(open)
  }

  get isOver(): boolean {
    return this.#over || this.#stop.signal.aborted
  }

  async end(): Promise<void> {
    clearTimeout(this.#linger)
    this.#stop.abort()
    await this.ended
  }

  async *follow(wish: ConsoleWish, signal: AbortSignal): AsyncGenerator<ConsoleChunk> {
    this.#followers += 1
    clearTimeout(this.#linger)
    const start = this.#startOf(wish)
    let next = this.#dropped + start.index
    let known = start.bytes
    try {
      for (;;) {
        signal.throwIfAborted()
        // Who was too slow goes on with what there is: by its place it shows what is missing.
        next = Math.max(next, this.#dropped)
        const chunk = this.#kept[next - this.#dropped]
        if (chunk !== undefined) {
          next += 1
          yield without(chunk, known)
          known = 0
        } else if (this.#over) {
          if (this.#failure !== undefined) throw asRefusal(this.#failure)
          return
        } else await this.#more(signal)
      }
    } finally {
      this.#followers -= 1
      if (this.#followers === 0 && !this.#over) this.#linger = setTimeout(() => void this.end(), this.#lingerMs).unref()
    }
  }

  kept(wish: ConsoleWish): readonly ConsoleChunk[] {
    const { index, bytes } = this.#startOf(wish)
    return this.#kept.slice(index).map((chunk, at) => without(chunk, at === 0 ? bytes : 0))
  }

  async #pump(open: (signal: AbortSignal) => AsyncIterable<ConsolePart> | undefined): Promise<void> {
    try {
      const parts = open(this.#stop.signal)
      if (parts === undefined) throw new ConsoleRefused('absent', 'the BMC of the machine has no serial line')
      for await (const part of parts) this.#take(part)
    } catch (error) {
      if (!this.#stop.signal.aborted) this.#failure = error
    } finally {
      this.#over = true
      this.#wakeAll()
    }
  }

  #take({ bytes, lost }: ConsolePart): void {
    // How much was lost is not known: what follows is another log.
    if (lost) [this.#log, this.#offset] = [newLog(), 0]
    this.#kept.push({ position: { log: this.#log, offset: this.#offset }, bytes })
    this.#offset += bytes.length
    this.#keptBytes += bytes.length
    while (this.#keptBytes > keptBytes && this.#kept.length > 1) {
      this.#keptBytes -= this.#kept.shift()?.bytes.length ?? 0
      this.#dropped += 1
    }
    this.#wakeAll()
  }

  #wakeAll(): void {
    for (const wake of this.#waiting) wake()
    this.#waiting.clear()
  }

  #more(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        signal.removeEventListener('abort', wake)
        this.#waiting.delete(wake)
        resolve()
      }
      this.#waiting.add(wake)
      signal.addEventListener('abort', wake, { once: true })
    })
  }

  /** Where among the kept chunks to begin, and how many bytes of the first one to leave out. */
  #startOf({ after, tailLines }: ConsoleWish): { readonly index: number; readonly bytes: number } {
    // What a reader knows of a chunk already is left out by the place that it stands at.
    if (after !== undefined) return { index: this.#indexOf(after), bytes: 0 }
    if (tailLines === undefined) return { index: 0, bytes: 0 }
    let found = 0
    let isEnd = true
    for (let index = this.#kept.length - 1; index >= 0 && tailLines > 0; index -= 1) {
      const { bytes } = this.#kept[index] ?? { bytes: new Uint8Array() }
      for (let at = bytes.length - 1; at >= 0; at -= 1) {
        if (bytes[at] === newline && !isEnd && (found += 1) === tailLines) return { index, bytes: at + 1 }
        isEnd = false
      }
    }
    return { index: tailLines === 0 ? this.#kept.length : 0, bytes: 0 }
  }

  #indexOf({ log, offset }: ConsolePosition): number {
    const index = this.#kept.findIndex(
      ({ position, bytes }) => position.log === log && position.offset + bytes.length > offset,
    )
    if (index >= 0) return index
    return log === this.#log && offset === this.#offset ? this.#kept.length : 0
  }
}

function without({ position: { log, offset }, bytes }: ConsoleChunk, known: number): ConsoleChunk {
  return { position: { log, offset: offset + known }, bytes: bytes.subarray(known) }
}

function newLog(): string {
  return `sol-${randomBytes(9).toString('hex')}`
}

function asRefusal(error: unknown): unknown {
  if (isBmcError(error, 'busy')) return new ConsoleRefused('busy', error.message)
  return isBmcError(error, 'unsupported') ? new ConsoleRefused('absent', error.message) : error
}
