import { ProviderError } from '@slipway/sdk'

/** Who goes first where calls are short: deletes and power, then new servers, then looking around. */
export type Urgency = 'urgent' | 'normal' | 'background'

const urgencies: readonly Urgency[] = ['urgent', 'normal', 'background']

/** The share of the limit that each urgency leaves untouched for those above it. */
const reserves: Readonly<Record<Urgency, number>> = { urgent: 0, normal: 0.05, background: 0.2 }

/** How long a call of each urgency waits for its turn, milliseconds. Where it would be longer, whoever called can say so instead. */
const patienceMs: Readonly<Record<Urgency, number>> = { urgent: 120_000, normal: 60_000, background: 30_000 }

const windowMs = 3_600_000
/** What holds until an answer has said what does. */
const documentedLimit = 3_600
/** A little late rather than a little early: the API's clock decides. */
const graceMs = 50

/** The state of a rate limit, as the headers of an answer tell it. */
export interface RateHeaders {
  readonly limit: number
  readonly remaining: number
}

interface Waiter {
  readonly grant: () => void
}

/**
 * The calls that a project may still make. The API lets `limit` calls an hour through and gives them back steadily, one at a time; every answer tells
 * how many are left, whoever made the calls. So the count here is a guess between two answers, and instances that share a project need not talk to one
 * another.
 *
 * Calls that look around leave a reserve, so that urgent ones never wait behind them.
 */
export class RateBudget {
  readonly #now: () => number
  readonly #waiting: Record<Urgency, Set<Waiter>> = { urgent: new Set(), normal: new Set(), background: new Set() }
  #limit = documentedLimit
  #left = documentedLimit
  #countedAtMs: number
  #underWay = 0
  #timer: NodeJS.Timeout | undefined

  constructor(now: () => number = () => performance.now()) {
    this.#now = now
    this.#countedAtMs = now()
  }

  /**
   * Takes one call, and waits for its turn; end it with {@link done}.
   *
   * @throws the signal's reason, and ProviderError of code RATE_LIMITED where it would take too long before there is a call left for this urgency.
   */
  take(urgency: Urgency, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#refill()
      const waitMs = this.#waitMs(urgency)
      if (waitMs > patienceMs[urgency]) return reject(spent(urgency, this.#limit, waitMs))
      const queue = this.#waiting[urgency]
      const onAbort = (): void => {
        queue.delete(waiter)
        reject(signal.reason as Error)
      }
      const waiter: Waiter = {
        grant: () => {
          signal.removeEventListener('abort', onAbort)
          resolve()
        },
      }
      if (signal.aborted) return onAbort()
      signal.addEventListener('abort', onAbort, { once: true })
      queue.add(waiter)
      this.#serve()
    })
  }

  /** Ends a call, with what its answer said of the limit. Without an answer it counts as made. */
  done(headers: RateHeaders | undefined): void {
    this.#underWay -= 1
    if (headers !== undefined) {
      this.#limit = Math.max(1, headers.limit)
      // The answer may have been given before the calls that are still under way were counted.
      this.#left = Math.min(this.#limit, headers.remaining) - this.#underWay
      this.#countedAtMs = this.#now()
    }
    this.#serve()
  }

  /** Nothing is left, whatever was believed: a call was refused for it. */
  exhausted(): void {
    this.#left = 0
    this.#countedAtMs = this.#now()
  }

  /** How long until the next urgent call is let through, milliseconds. */
  get nextInMs(): number {
    this.#refill()
    return this.#waitMs('urgent')
  }

  /** What is believed to be left now. */
  get left(): number {
    this.#refill()
    return Math.floor(this.#left)
  }

  /** The whole of it, as it is believed to be now. */
  get state(): { readonly limit: number; readonly remaining: number; readonly resetsInMs: number } {
    this.#refill()
    const resetsInMs = Math.ceil(((this.#limit - this.#left) * windowMs) / this.#limit)
    return { limit: this.#limit, remaining: Math.max(0, this.left), resetsInMs }
  }

  #refill(): void {
    const nowMs = this.#now()
    this.#left = Math.min(this.#limit, this.#left + ((nowMs - this.#countedAtMs) * this.#limit) / windowMs)
    this.#countedAtMs = nowMs
  }

  #waitMs(urgency: Urgency): number {
    const missing = Math.floor(this.#limit * reserves[urgency]) + 1 - this.#left
    return missing <= 0 ? 0 : Math.ceil((missing * windowMs) / this.#limit) + graceMs
  }

  #serve(): void {
    this.#refill()
    clearTimeout(this.#timer)
    this.#timer = undefined
    for (const urgency of urgencies) {
      for (const waiter of this.#waiting[urgency]) {
        const waitMs = this.#waitMs(urgency)
        if (waitMs > 0) {
          // Less urgent ones wait longer still.
          this.#timer = setTimeout(() => this.#serve(), waitMs)
          return
        }
        this.#waiting[urgency].delete(waiter)
        this.#left -= 1
        this.#underWay += 1
        waiter.grant()
      }
    }
  }
}

function spent(urgency: Urgency, limit: number, waitMs: number): ProviderError {
  const seconds = Math.ceil(waitMs / 1_000)
  const message = `the project's ${limit} calls an hour are used up: the next one that is ${urgency} can be made in ${seconds} s`
  return new ProviderError('RATE_LIMITED', message, { retryAfterMs: waitMs })
}

/** Reads the headers of an answer; undefined where they are missing or make no sense. */
export function rateHeadersOf(headers: Headers): RateHeaders | undefined {
  const [limit, remaining] = ['ratelimit-limit', 'ratelimit-remaining'].map((name) => {
    const text = headers.get(name)
    return text !== null && /^\d{1,9}$/.test(text.trim()) ? Number(text) : undefined
  })
  return limit === undefined || remaining === undefined || limit === 0 ? undefined : { limit, remaining }
}
