import { randomBytes } from 'node:crypto'
import { closeSync, existsSync, fstatSync, mkdirSync, openSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Fact, Line } from './facts.js'

const fileName = 'ledger.jsonl'
const chunkBytes = 1 << 20
const newline = 0x0a
const maxTries = 100_000

/** How the lines of a ledger become a state. `apply` may change the state in place, and never throws. */
export interface Reducer<State> {
  initial(): State
  apply(state: State, line: Line): void
}

export interface LedgerOptions {
  /** Milliseconds since 1970. Default: the machine's clock at the start of the process, and its monotonic clock from there. */
  readonly clock?: () => number
  /** Changes nothing, and needs the file to be there. */
  readonly readOnly?: boolean
}

/** What was found in the file beside valid lines. */
export interface Leftovers {
  /** Pieces that a killed writer left. */
  readonly torn: number
  /** Whole lines that came second to another with the same number, and so never held. */
  readonly lost: number
}

/** The part of a fact that a commit adds to what is decided. */
export type Decision = Fact & Pick<Line, 'call' | 'subject' | 'answer'>

/**
 * An append-only file of facts that several processes write at once, and the state that follows from it.
 *
 * There is no lock. A writer reads all that is there, decides, and appends its fact under the next number in a single
 * O_APPEND write. The first line with a number holds; a later one with the same number is void for every reader, and its
 * writer decides again. So a process can be killed at any byte: it leaves a torn piece at most, which is no valid JSON and
 * is passed over, and nothing to be unlocked.
 */
export class Ledger<State> {
  readonly path: string
  /** This process, in the lines it writes. */
  readonly writer = randomBytes(6).toString('hex')
  readonly state: State
  readonly #reducer: Reducer<State>
  readonly #clock: () => number
  readonly #fd: number
  readonly #chunk = Buffer.alloc(chunkBytes)
  #offset = 0
  #tail = Buffer.alloc(0)
  #seq = 0
  #lastAtMs = 0
  #skewMs = 0
  #torn = 0
  #lost = 0
  #awaited: string | undefined
  #committed = false

  /** Opens the ledger of a folder, making both where they are missing, and replays it. @throws where the folder can't be used. */
  constructor(dir: string, reducer: Reducer<State>, options: LedgerOptions = {}) {
    this.path = ledgerPath(dir)
    this.#reducer = reducer
    this.#clock = options.clock ?? (() => performance.timeOrigin + performance.now())
    if (options.readOnly !== true) mkdirSync(dir, { recursive: true, mode: 0o700 })
    this.#fd = openSync(this.path, options.readOnly === true ? 'r' : 'a+', 0o600)
    this.state = reducer.initial()
    this.catchUp()
  }

  /** Number of the last valid line; 0: there is none. */
  get seq(): number {
    return this.#seq
  }

  get leftovers(): Leftovers {
    return { torn: this.#torn, lost: this.#lost }
  }

  /** The world's clock: it never falls, and is never behind the last line of any process. */
  now(): number {
    const own = Math.floor(this.#clock()) + this.#skewMs
    if (own >= this.#lastAtMs) return own
    this.#skewMs += this.#lastAtMs - own
    return this.#lastAtMs
  }

  /** Takes in what all processes have written. */
  catchUp(): State {
    const size = fstatSync(this.#fd).size
    if (size < this.#offset) throw new Error(`${this.path} was cut short while it was in use; start with a new folder`)
    while (this.#offset < size) {
      const read = readSync(this.#fd, this.#chunk, 0, Math.min(chunkBytes, size - this.#offset), this.#offset)
      if (read === 0) break
      this.#offset += read
      this.#takeIn(this.#chunk.subarray(0, read))
    }
    return this.state
  }

  /**
   * Appends the fact that `decide` gives for the state as it is at that very point of the ledger. `decide` may be called
   * several times, and must be pure.
   *
   * @returns the line as written, or `undefined` where `decide` gave none.
   * @throws whatever `decide` throws; an Error where the file can't be written.
   */
  commit(decide: (state: State, nowMs: number) => Decision | undefined): Line | undefined {
    for (let tries = 0; tries < maxTries; tries++) {
      const state = this.catchUp()
      const atMs = this.now()
      const decision = decide(state, atMs)
      if (decision === undefined) return undefined
      const line: Line = { seq: this.#seq + 1, atMs, by: this.writer, ...decision }
      if (this.#append(JSON.stringify(line))) return line
    }
    throw new Error(`${this.path}: other writers were always faster`)
  }

  close(): void {
    closeSync(this.#fd)
  }

  #append(text: string): boolean {
    // A torn piece must not swallow the line that follows it.
    const bytes = Buffer.from(`${this.#tail.length > 0 ? '\n' : ''}${text}\n`)
    this.#awaited = text
    this.#committed = false
    const written = writeSync(this.#fd, bytes)
    if (written !== bytes.length)
      throw new Error(`${this.path}: only ${written} of ${bytes.length} bytes could be written`)
    this.catchUp()
    this.#awaited = undefined
    return this.#committed
  }

  #takeIn(chunk: Buffer): void {
    const bytes = this.#tail.length === 0 ? chunk : Buffer.concat([this.#tail, chunk])
    let start = 0
    for (let end = bytes.indexOf(newline); end !== -1; end = bytes.indexOf(newline, start)) {
      if (end > start) this.#takeLine(bytes.toString('utf8', start, end))
      start = end + 1
    }
    // A copy: the chunk is used again.
    this.#tail = Buffer.from(bytes.subarray(start))
  }

  #takeLine(text: string): void {
    const line = parseLine(text)
    if (line === undefined) {
      this.#torn++
    } else if (line.seq !== this.#seq + 1) {
      this.#lost++
    } else {
      this.#seq = line.seq
      this.#lastAtMs = Math.max(this.#lastAtMs, line.atMs)
      if (text === this.#awaited) this.#committed = true
      this.#reducer.apply(this.state, line)
    }
  }
}

/** Whether a folder holds a ledger. */
export function hasLedger(dir: string): boolean {
  return existsSync(ledgerPath(dir))
}

function ledgerPath(dir: string): string {
  return join(dir, fileName)
}

function parseLine(text: string): Line | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null) return undefined
  const line = value as Partial<Line>
  const whole = Number.isSafeInteger(line.seq) && typeof line.atMs === 'number' && typeof line.by === 'string'
  return whole && typeof line.fact === 'string' ? (value as Line) : undefined
}
