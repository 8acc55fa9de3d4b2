const windowMs = 3_600_000

/** The rate limit of a project as the vendor describes it: so many calls an hour, given back one at a time. */
export class RateLimit {
  readonly limit: number
  #left: number
  #countedAtMs = Date.now()
  /** Calls that were refused for it. */
  refused = 0
  /** Refuses every call, whatever the headers say is left: as if there were another limit, on short bursts. */
  isThrottled = false

  constructor(limit: number, left = limit) {
    this.limit = limit
    this.#left = left
  }

  /** Counts a call. @returns false: there is none left. */
  take(): boolean {
    this.#refill()
    if (this.isThrottled || this.#left < 1) {
      this.refused += 1
      return false
    }
    this.#left -= 1
    return true
  }

  /** Takes away what is left: as if another client had spent it. */
  drain(left = 0): void {
    this.#refill()
    this.#left = left
  }

  headers(): Record<string, string> {
    this.#refill()
    const fullInS = ((this.limit - this.#left) * windowMs) / this.limit / 1_000
    return {
      'RateLimit-Limit': String(this.limit),
      'RateLimit-Remaining': String(Math.floor(this.#left)),
      'RateLimit-Reset': String(Math.ceil(Date.now() / 1_000 + fullInS)),
    }
  }

  #refill(): void {
    const nowMs = Date.now()
    this.#left = Math.min(this.limit, this.#left + ((nowMs - this.#countedAtMs) * this.limit) / windowMs)
    this.#countedAtMs = nowMs
  }
}
