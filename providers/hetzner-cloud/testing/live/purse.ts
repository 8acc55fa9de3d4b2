import type { Pricing, ServerType } from '../../src/api/types.js'
import { microsOf } from '../../src/price.js'

/** A month as it is billed by the hour, at least. */
const hoursOfMonth = 672n

/** What the vendor asks for things. */
export interface Prices {
  readonly pricing: Pricing
  readonly types: readonly ServerType[]
}

/**
 * Counts what a run may cost, before it is spent: each thing at its full first hour with tax, and twice that, for a run that is slow or a sweep that comes late.
 */
export class Purse {
  readonly capMicros: bigint
  #spentMicros = 0n
  readonly #prices: Prices

  constructor(capMicros: bigint, prices: Prices) {
    this.capMicros = capMicros
    this.#prices = prices
  }

  get spentMicros(): bigint {
    return this.#spentMicros
  }

  /** Pays for what a call would make. @returns why it must not be made; undefined: it is paid for. */
  pay(method: string, path: string, body: unknown): string | undefined {
    const cost = method === 'POST' ? this.#costOf(path, (body ?? {}) as Record<string, unknown>) : 0n
    if (cost === undefined) return `${method} ${path}: its price is not known, so it is not made`
    if (this.#spentMicros + cost > this.capMicros)
      return `${method} ${path}: with it the run would come to ${this.#spentMicros + cost} millionths, and its cap is ${this.capMicros}`
    this.#spentMicros += cost
    return undefined
  }

  /** Undefined: not known. */
  #costOf(path: string, body: Record<string, unknown>): bigint | undefined {
    const { pricing, types } = this.#prices
    switch (path) {
      case '/servers': {
        const type = types.find(({ name }) => name === body['server_type'])
        const price = type?.prices.find(({ location }) => location === body['location'])
        if (price === undefined) return undefined
        return 2n * (microsOf(price.price_hourly.gross) + this.#addressMicros())
      }
      case '/primary_ips':
        return 2n * this.#addressMicros()
      case '/volumes': {
        const { size } = body
        if (typeof size !== 'number') return undefined
        return 2n * ((microsOf(pricing.volume.price_per_gb_month.gross) * BigInt(size)) / hoursOfMonth + 1n)
      }
      case '/networks':
      case '/firewalls':
      case '/placement_groups':
      case '/ssh_keys':
        return 0n
      default:
        // Actions: only these make anything that costs.
        return /\/actions\/(enable_backup|create_image|change_type)$/.test(path)
          ? undefined
          : path.includes('/actions/')
            ? 0n
            : undefined
    }
  }

  #addressMicros(): bigint {
    const prices = this.#prices.pricing.primary_ips.flatMap(({ prices: each }) => each)
    return prices.reduce((most, { price_hourly: price }) => {
      const micros = microsOf(price.gross)
      return micros > most ? micros : most
    }, 0n)
  }
}
