import type { MessageInitShape } from '@bufbuild/protobuf'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import type { RateBudgetSchema } from '@slipway/proto/provider/v1'
import { monotonicMs } from '../internal/timing.js'
import { ProviderError } from './errors.js'
import type { RateBudgetState } from './types.js'

/** Who goes first where calls are short: people who wait and machines that cost, then new machines, then looking around. */
export type Urgency = 'urgent' | 'normal' | 'background'

const urgencies: readonly Urgency[] = ['urgent', 'normal', 'background']

interface Waiter {
  readonly grant: () => void
}

/** One rate limit: never more than `limit` calls in any `windowMs`. */
export class Budget {
  readonly #limit: number
  readonly #windowMs: number
  readonly #now: () => number
  readonly #taken: number[] = []
  readonly #waiting: Record<Urgency, Set<Waiter>> = { urgent: new Set(), normal: new Set(), background: new Set() }
  #timer: NodeJS.Timeout | undefined

  constructor(limit: number, windowMs: number, now: () => number = monotonicMs) {
    if (!(limit >= 1) || !(windowMs > 0))
      throw new RangeError(`a budget needs a limit of at least 1 in a window above 0 ms, not ${limit} in ${windowMs}`)
    this.#limit = Math.floor(limit)
    this.#windowMs = windowMs
    this.#now = now
  }

  /** Takes one call, and waits for it as long as it takes. @throws the signal's reason. */
  take(urgency: Urgency, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
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
      if (signal.aborted) {
        onAbort()
        return
      }
      signal.addEventListener('abort', onAbort, { once: true })
      queue.add(waiter)
      this.#serve()
    })
  }

  /** What is left of it now. */
  state(): { readonly limit: number; readonly remaining: number; readonly resetsInMs: number } {
    this.#forget()
    const last = this.#taken.at(-1)
    return {
      limit: this.#limit,
      remaining: this.#limit - this.#taken.length,
      resetsInMs: last === undefined ? 0 : Math.max(0, last + this.#windowMs - this.#now()),
    }
  }

  #forget(): void {
    const horizon = this.#now() - this.#windowMs
    let gone = 0
    while (gone < this.#taken.length && (this.#taken[gone] ?? 0) <= horizon) gone += 1
    if (gone > 0) this.#taken.splice(0, gone)
  }

  #serve(): void {
    this.#forget()
    while (this.#taken.length < this.#limit) {
      const queue = urgencies.map((urgency) => this.#waiting[urgency]).find((waiting) => waiting.size > 0)
      const [first] = queue ?? []
      if (queue === undefined || first === undefined) return
      queue.delete(first)
      this.#taken.push(this.#now())
      first.grant()
    }
    if (this.#timer !== undefined || urgencies.every((urgency) => this.#waiting[urgency].size === 0)) return
    const oldest = this.#taken[0] ?? this.#now()
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined
        this.#serve()
      },
      Math.max(1, Math.ceil(oldest + this.#windowMs - this.#now())),
    )
  }
}

/** The budgets of a provider, by name. */
export class Budgets {
  readonly #budgets: ReadonlyMap<string, Budget>

  constructor(declared: Readonly<Record<string, { readonly limit: number; readonly windowMs: number }>> = {}) {
    this.#budgets = new Map(
      Object.entries(declared).map(([name, { limit, windowMs }]) => [name, new Budget(limit, windowMs)]),
    )
  }

  /** @throws ProviderError for a name that the definition does not declare; the signal's reason. */
  async take(name: string, urgency: Urgency, signal: AbortSignal): Promise<void> {
    const budget = this.#budgets.get(name)
    if (budget === undefined)
      throw new ProviderError('INTERNAL', `no budget "${name}" is declared in the provider's definition`, {
        retryable: false,
      })
    await budget.take(urgency, signal)
  }

  /** As the hub is told of them. @param kept those that the provider keeps itself. */
  toProto(kept: readonly RateBudgetState[] = []): MessageInitShape<typeof RateBudgetSchema>[] {
    const own = [...this.#budgets].map(([name, budget]) => ({ name, ...budget.state() }))
    return [...own, ...kept].map(({ name, limit, remaining, resetsInMs }) => ({
      name: name.slice(0, 128),
      limit: Math.max(0, Math.floor(limit)),
      remaining: Math.max(0, Math.floor(remaining)),
      resetsIn: durationFromMs(Math.max(0, Math.round(resetsInMs))),
    }))
  }
}
