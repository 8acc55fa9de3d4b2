import type { Price } from '../facts.js'
import { monthEnd, monthStart, timeMicros } from '../price/cost.js'
import { formatMicros, hourlyMicros } from '../price/price.js'

// Limits on what an organization or a workspace may have and spend. A quota is made of them, one for each thing that it limits.

export const limitKinds = ['HOSTS', 'VCPUS', 'MEMORY_MIB', 'HOURLY_MICROS', 'MONTHLY_MICROS'] as const
export type LimitKind = (typeof limitKinds)[number]

export interface Limit {
  readonly id: string
  /** Of its quota, for people. */
  readonly quota: string
  readonly organizationId: string
  /** Null: of the whole organization. */
  readonly workspaceId: string | null
  readonly kind: LimitKind
  /** Empty: of any. */
  readonly className: string
  /** Empty: of any. */
  readonly family: string
  /** Of money; empty for anything else. */
  readonly currency: string
  readonly maximum: number
  /** What counts against it. */
  readonly used: number
}

/** What a host takes up: as it is ordered, and then as it is placed. */
export interface Demand {
  readonly organizationId: string
  readonly workspaceId: string
  readonly className: string
  readonly vcpus: number
  readonly memoryMib: number
  /** Null: no place is known yet; what depends on one is counted when there is. */
  readonly place: { readonly family: string; readonly price: Price | null; readonly free: boolean } | null
}

/** What counts for a host against a limit. */
export interface Charge {
  readonly amount: number
  /** Of `amount`: what a monthly budget has been spent on and cannot be had back. */
  readonly settled: number
  /** What a monthly budget goes on being spent by; null: nothing. */
  readonly running: { readonly price: Price; readonly since: Date } | null
}

export const noCharge: Charge = { amount: 0, settled: 0, running: null }

/** Why a charge would not do. */
export interface Excess {
  readonly limit: Limit
  readonly message: string
}

/** Whether a limit is about such a host at all. */
export function concerns(limit: Limit, demand: Demand): boolean {
  return (
    limit.organizationId === demand.organizationId &&
    (limit.workspaceId === null || limit.workspaceId === demand.workspaceId) &&
    (limit.className === '' || limit.className === demand.className) &&
    (limit.family === '' || limit.family === demand.place?.family)
  )
}

/**
 * What is to count for a host against a limit from now on.
 *
 * @param before what counts for it so far.
 */
export function chargeOf(limit: Limit, demand: Demand, now: Date, before: Charge = noCharge): Charge {
  if (limit.kind === 'MONTHLY_MICROS') return monthlyCharge(limit, demand, now, before)
  if (!concerns(limit, demand)) return noCharge
  switch (limit.kind) {
    case 'HOSTS':
      return { ...noCharge, amount: 1 }
    case 'VCPUS':
      return { ...noCharge, amount: demand.vcpus }
    case 'MEMORY_MIB':
      return { ...noCharge, amount: demand.memoryMib }
    case 'HOURLY_MICROS': {
      const price = demand.place?.price ?? null
      return { ...noCharge, amount: price === null ? 0 : hourlyMicros(price) }
    }
  }
}

function monthlyCharge(limit: Limit, demand: Demand, now: Date, before: Charge): Charge {
  const settled = spentBy(before, now)
  const price = concerns(limit, demand) ? (demand.place?.price ?? null) : null
  if (price === null) return { amount: settled, settled, running: null }
  // Set-up is paid where the host did not have this very price before: it is the same place as far as money goes.
  const goesOn = before.running !== null && JSON.stringify(before.running.price) === JSON.stringify(price)
  if (goesOn) return before
  const ahead = timeMicros(price, monthEnd(now).getTime() - now.getTime(), now)
  const paid = settled + price.setupMicros
  return { amount: paid + ahead, settled: paid, running: { price, since: now } }
}

/** What of a monthly charge is spent by now. */
export function spentBy({ settled, running }: Charge, now: Date): number {
  if (running === null) return settled
  return settled + timeMicros(running.price, now.getTime() - running.since.getTime(), running.since)
}

/** What counts against a monthly budget once its host is released. */
export function releasedCharge(charge: Charge, now: Date): Charge {
  const settled = spentBy(charge, now)
  return { amount: settled, settled, running: null }
}

/** What counts in a new month for a host that goes on: all of it, and nothing of before. */
export function carriedCharge(charge: Charge, month: Date): Charge {
  if (charge.running === null) return noCharge
  const since = monthStart(month)
  const ahead = timeMicros(charge.running.price, monthEnd(month).getTime() - since.getTime(), month)
  return { amount: ahead, settled: 0, running: { price: charge.running.price, since } }
}

/**
 * Why a limit does not allow a host to count as it would; undefined where it does. Counting less than before is always allowed: a limit that was lowered ends nothing.
 */
export function excessOf(limit: Limit, demand: Demand, now: Date, before: Charge = noCharge): Excess | undefined {
  const isMoney = limit.currency !== ''
  if (isMoney && concerns(limit, demand) && demand.place !== null && !demand.place.free) {
    const { price } = demand.place
    if (price === null) return { limit, message: `${limit.quota} is a budget, and the place has no known price` }
    if (price.currency !== limit.currency)
      return {
        limit,
        message: `${limit.quota} is a budget in ${limit.currency}, and the price is in ${price.currency}`,
      }
  }
  const more = chargeOf(limit, demand, now, before).amount - before.amount
  if (more <= 0 || limit.used + more <= limit.maximum) return undefined
  return { limit, message: excessText(limit, more) }
}

const kindWords: Readonly<Record<Exclude<LimitKind, 'HOURLY_MICROS' | 'MONTHLY_MICROS'>, string>> = {
  HOSTS: 'hosts',
  VCPUS: 'vCPUs',
  MEMORY_MIB: 'MiB of memory',
}

function excessText(limit: Limit, more: number): string {
  const about = [
    limit.className === '' ? '' : ` of class ${limit.className}`,
    limit.family === '' ? '' : ` of family ${limit.family}`,
  ].join('')
  if (limit.kind === 'HOURLY_MICROS' || limit.kind === 'MONTHLY_MICROS') {
    const money = (micros: number) => formatMicros(micros, limit.currency)
    const span = limit.kind === 'HOURLY_MICROS' ? 'an hour' : 'this month'
    return `${limit.quota} allows ${money(limit.maximum)} ${span}${about}; ${money(limit.used)} is taken, and this would be ${money(more)} more`
  }
  const what = kindWords[limit.kind]
  return `${limit.quota} allows ${limit.maximum} ${what}${about}; ${limit.used} are taken, and this would be ${more} more`
}

/** Whether a limit is about money, so that its refusal speaks of a budget. */
export function isBudget(limit: Limit): boolean {
  return limit.currency !== ''
}
