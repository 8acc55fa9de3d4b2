import type { Price } from '../facts.js'

// What an organization pays for a place. Whole millionths throughout.

/** A price, and the places that it is for. Empty fields fit any. Names, not resource names. */
export interface PriceEntry {
  readonly className: string
  readonly provider: string
  readonly typeId: string
  readonly location: string
  readonly family: string
  readonly price: Price
}

/** How an organization's prices are made. */
export interface Pricing {
  /** What was agreed on: taken as it is. */
  readonly agreed: readonly PriceEntry[]
  /** The list's, less the discount. */
  readonly listed: readonly PriceEntry[]
  /** In hundredths of a percent. */
  readonly discountBasisPoints: number
}

export const listPrices: Pricing = { agreed: [], listed: [], discountBasisPoints: 0 }

/** A place, as far as its price concerns it. */
export interface PricedPlace {
  readonly className: string
  readonly provider: string
  readonly family: string
  readonly typeId: string
  readonly location: string
}

/** What says more about a place weighs more than all that says less. */
const weights = { className: 16, provider: 8, typeId: 4, location: 2, family: 1 } as const
const fields = Object.keys(weights) as (keyof typeof weights)[]

/** The entry that fits a place and says the most about it; of two that say as much, the first. */
export function entryFor(entries: readonly PriceEntry[], place: PricedPlace): PriceEntry | undefined {
  let [best, most]: [PriceEntry | undefined, number] = [undefined, -1]
  for (const entry of entries) {
    if (!fields.every((field) => entry[field] === '' || entry[field] === place[field])) continue
    const weight = fields.reduce((sum, field) => sum + (entry[field] === '' ? 0 : weights[field]), 0)
    if (weight > most) [best, most] = [entry, weight]
  }
  return best
}

/**
 * What an organization pays for a place.
 *
 * @param base the class's own price, or the provider's, where no list says anything; null: not known.
 */
export function priceFor(pricing: Pricing, place: PricedPlace, base: Price | null): Price | null {
  const agreed = entryFor(pricing.agreed, place)
  if (agreed !== undefined) return agreed.price
  const price = entryFor(pricing.listed, place)?.price ?? base
  return price === null ? null : discounted(price, pricing.discountBasisPoints)
}

/** A price with so much taken off, each part of it rounded down to the millionth. */
export function discounted(price: Price, basisPoints: number): Price {
  if (basisPoints === 0) return price
  const less = (micros: number) => Number((BigInt(micros) * BigInt(10_000 - basisPoints)) / 10_000n)
  return {
    currency: price.currency,
    hourlyMicros: less(price.hourlyMicros),
    monthlyMicros: less(price.monthlyMicros),
    setupMicros: less(price.setupMicros),
  }
}
