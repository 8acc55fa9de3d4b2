import type { Price } from '../facts.js'

// What time costs. All of it is whole millionths, reckoned with bigints, and rounded once, at the end.

const msPerHour = 3_600_000n

/** The beginning of the calendar month (UTC) that a time is in. UTC has no daylight-saving time: all months are whole days. */
export function monthStart(at: Date): Date {
  return new Date(Date.UTC(at.getUTCFullYear(), at.getUTCMonth(), 1))
}

/** The beginning of the month after. */
export function monthEnd(at: Date): Date {
  return new Date(Date.UTC(at.getUTCFullYear(), at.getUTCMonth() + 1, 1))
}

/** The calendar months (UTC) that a span touches, each cut to what of it lies within. */
export function monthsWithin(
  from: Date,
  to: Date,
): readonly { readonly month: Date; readonly from: Date; readonly to: Date }[] {
  const months: { readonly month: Date; readonly from: Date; readonly to: Date }[] = []
  for (let start = from; start < to;) {
    const next = monthEnd(start)
    const end = next < to ? next : to
    months.push({ month: monthStart(start), from: start, to: end })
    start = end
  }
  return months
}

/**
 * What some time of one calendar month costs, in micros, without set-up: by the hour to the millisecond, and no more than the monthly price where there is one. Without an
 * hourly price it is the month's share of the monthly one. Rounded to the nearest millionth, halves up.
 *
 * @param usedMs together, within the month.
 * @param month any time within it.
 */
export function timeMicros(price: Price, usedMs: number, month: Date): number {
  const used = BigInt(Math.max(0, Math.trunc(usedMs)))
  const monthly = BigInt(price.monthlyMicros)
  if (price.hourlyMicros === 0) {
    const length = BigInt(monthEnd(month).getTime() - monthStart(month).getTime())
    return Number(divide(monthly * used, length))
  }
  const byHour = divide(BigInt(price.hourlyMicros) * used, msPerHour)
  return Number(monthly > 0n && byHour > monthly ? monthly : byHour)
}

/** Rounded to the nearest, halves up. Neither may be negative. */
function divide(amount: bigint, by: bigint): bigint {
  return (amount * 2n + by) / (by * 2n)
}

/** An amount of money in hundredths of the unit, rounded to the nearest, halves up: for the sum at the end of a bill, never for what is summed. */
export function toCents(micros: number): number {
  return Number(divide(BigInt(micros), 10_000n))
}
