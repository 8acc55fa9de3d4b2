import type { Price } from '../facts.js'
import { monthsWithin, timeMicros } from './cost.js'

// What hosts used, from the ledger's intervals, and what it costs. The cost of some time is what its month costs up to its end, less what the month costs up to its beginning: each
// of these is rounded once, and so the parts of a time always add up to the whole of it, and a monthly price is the most however the month is split.

/** A time for which a host had a machine, and nothing about it changed. */
export interface UsageInterval {
  readonly className: string
  readonly providerName: string
  /** Null: not known, and nothing is charged. */
  readonly price: Price | null
  readonly billable: boolean
  readonly poweredOn: boolean
  /** Set-up is due at its beginning. */
  readonly setsUp: boolean
  readonly startedAt: Date
  /** Null: it goes on. */
  readonly endedAt: Date | null
}

/** What a host used in one calendar month, at one provider and one price. */
export interface UsageRecord {
  /** The month's beginning. */
  readonly month: Date
  readonly className: string
  readonly providerName: string
  readonly price: Price | null
  readonly startedAt: Date
  readonly endedAt: Date
  readonly allocatedMs: number
  readonly billableMs: number
  readonly poweredOnMs: number
  /** Set-up included. */
  readonly amountMicros: number
  readonly setupMicros: number
}

interface Sum {
  readonly month: Date
  readonly interval: UsageInterval
  startedAt: Date | undefined
  endedAt: Date
  allocatedMs: number
  poweredOnMs: number
  /** Of the month, before the time that is asked for, and within it. */
  billableBeforeMs: number
  billableMs: number
  setupMicros: number
}

/**
 * What one host used within some time, in the order of its beginnings.
 *
 * @param intervals of the host, in their order, at least from the beginning of the month that `from` is in. They must not overlap.
 * @param from inclusive; null: from the beginning.
 * @param to exclusive; what goes on is counted up to here.
 */
export function usageRecords(intervals: readonly UsageInterval[], from: Date | null, to: Date): readonly UsageRecord[] {
  const sums = new Map<string, Sum>()
  for (const interval of intervals) {
    const end = interval.endedAt === null || interval.endedAt > to ? to : interval.endedAt
    for (const part of monthsWithin(interval.startedAt, end)) {
      const key = JSON.stringify([part.month.getTime(), interval.providerName, interval.className, interval.price])
      const sum = sums.get(key) ?? emptySum(part.month, interval)
      sums.set(key, sum)
      add(sum, interval, part, from)
    }
  }
  return [...sums.values()].flatMap((sum) => {
    const { startedAt } = sum
    return startedAt === undefined ? [] : [{ ...recordOf(sum), startedAt }]
  })
}

function emptySum(month: Date, interval: UsageInterval): Sum {
  const none = { allocatedMs: 0, poweredOnMs: 0, billableBeforeMs: 0, billableMs: 0, setupMicros: 0 }
  return { month, interval, startedAt: undefined, endedAt: month, ...none }
}

function add(
  sum: Sum,
  interval: UsageInterval,
  part: { readonly from: Date; readonly to: Date },
  from: Date | null,
): void {
  const start = from !== null && from > part.from ? from : part.from
  const beforeMs = Math.min(start.getTime(), part.to.getTime()) - part.from.getTime()
  const withinMs = Math.max(0, part.to.getTime() - start.getTime())
  if (interval.billable) sum.billableBeforeMs += beforeMs
  if (withinMs === 0) return
  sum.startedAt ??= start
  sum.endedAt = part.to
  sum.allocatedMs += withinMs
  if (interval.poweredOn) sum.poweredOnMs += withinMs
  if (!interval.billable) return
  sum.billableMs += withinMs
  const begins = part.from.getTime() === interval.startedAt.getTime() && start.getTime() === part.from.getTime()
  if (interval.setsUp && begins) sum.setupMicros += interval.price?.setupMicros ?? 0
}

function recordOf(sum: Sum): Omit<UsageRecord, 'startedAt'> {
  const { month, interval, endedAt, allocatedMs, billableMs, poweredOnMs, setupMicros } = sum
  const { className, providerName, price } = interval
  const upTo = (ms: number) => (price === null ? 0 : timeMicros(price, ms, month))
  const amountMicros = upTo(sum.billableBeforeMs + billableMs) - upTo(sum.billableBeforeMs) + setupMicros
  return {
    ...{ month, className, providerName, price, endedAt },
    ...{ allocatedMs, billableMs, poweredOnMs, amountMicros, setupMicros },
  }
}
