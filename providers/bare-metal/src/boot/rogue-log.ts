/** Something that no honest machine does. */
export interface RogueEvent {
  readonly atMs: number
  readonly kind: string
  /** A MAC or an IP address. */
  readonly subject: string
  readonly message: string
  /** How many like it were not told since the last one that was. */
  readonly suppressed: number
}

const perSubjectMs = 60_000
const perMinute = 30
const maxSubjects = 1_000
const maxKept = 200

/** Tells of what goes wrong, without letting whoever causes it flood anybody: of one subject once a minute, and so many a minute in all. */
export class RogueLog {
  readonly #tell: (event: RogueEvent) => void
  readonly #last = new Map<string, { atMs: number; suppressed: number }>()
  readonly #kept: RogueEvent[] = []
  #minuteStartMs = 0
  #toldThisMinute = 0
  #suppressedInAll = 0
  #total = 0

  constructor(tell: (event: RogueEvent) => void) {
    this.#tell = tell
  }

  /** All that were ever noted, told or not. */
  get total(): number {
    return this.#total
  }

  get recent(): readonly RogueEvent[] {
    return this.#kept
  }

  note(kind: string, subject: string, message: string, nowMs: number): void {
    this.#total += 1
    const key = `${kind} ${subject}`
    const last = this.#last.get(key)
    if (nowMs - this.#minuteStartMs >= perSubjectMs) {
      this.#minuteStartMs = nowMs
      this.#toldThisMinute = 0
    }
    const isRecent = last !== undefined && nowMs - last.atMs < perSubjectMs
    if (isRecent || this.#toldThisMinute >= perMinute) {
      if (last !== undefined) last.suppressed += 1
      else this.#suppressedInAll += 1
      return
    }
    this.#toldThisMinute += 1
    const suppressed = (last?.suppressed ?? 0) + this.#suppressedInAll
    this.#suppressedInAll = 0
    this.#remember(key, nowMs)
    const event = { atMs: nowMs, kind, subject, message, suppressed }
    this.#kept.push(event)
    if (this.#kept.length > maxKept) this.#kept.shift()
    this.#tell(event)
  }

  #remember(key: string, nowMs: number): void {
    this.#last.delete(key)
    this.#last.set(key, { atMs: nowMs, suppressed: 0 })
    const [oldest] = this.#last.keys()
    if (this.#last.size > maxSubjects && oldest !== undefined) this.#last.delete(oldest)
  }
}
