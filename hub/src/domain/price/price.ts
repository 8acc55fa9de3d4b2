import type { Price } from '../facts.js'

const microsPerUnit = 1_000_000n
/** Hours by which a monthly price is compared with hourly ones. */
const hoursPerMonth = 730

/** What an hour costs, in micros: the hourly price, or where there is only a monthly one, its share, rounded up. */
export function hourlyMicros(price: Price): number {
  if (price.hourlyMicros > 0) return price.hourlyMicros
  return Math.ceil(price.monthlyMicros / hoursPerMonth)
}

/**
 * Orders prices: cheaper by the hour first, then by what is paid once. Unknown prices come last. Amounts of different currencies cannot be compared without a
 * rate, which the hub does not have: those are kept in the order of their currencies' codes.
 */
export function comparePrices(one: Price | null, other: Price | null): number {
  if (one === null || other === null) return Number(one === null) - Number(other === null)
  if (one.currency !== other.currency) return one.currency < other.currency ? -1 : 1
  return hourlyMicros(one) - hourlyMicros(other) || one.setupMicros - other.setupMicros
}

/** The price to show and to compare by: the class's own, where it has one. */
export function effectivePrice(ofClass: Price | undefined, ofProvider: Price | null): Price | null {
  return ofClass ?? ofProvider
}

/** An amount, exactly, with at least two decimals: `0.0051 EUR`. */
export function formatMicros(micros: number, currency: string): string {
  const amount = BigInt(micros)
  const sign = amount < 0n ? '-' : ''
  const positive = amount < 0n ? -amount : amount
  const decimals = (positive % microsPerUnit).toString().padStart(6, '0').replace(/0+$/, '').padEnd(2, '0')
  return `${sign}${positive / microsPerUnit}.${decimals} ${currency}`
}
