import type { Price } from '../facts.js'
import type { PlacementAttempt } from '../host/host.js'
import { comparePrices, formatMicros, hourlyMicros } from '../price/price.js'
import { compareCompany, companyScores, decidingScores, type CompanyScore } from './company.js'
import type { Candidate, Judged, PlacementOrder } from './placement.js'
import { describeFailures, failingLevel } from './reliability.js'
import { compareShapes } from './shape.js'

// What one place is preferred to another by, and how people are told of it.

const placeKey = (provider: string, typeId: string, location: string) => JSON.stringify([provider, typeId, location])

function countAttempts(attempts: readonly PlacementAttempt[]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>()
  for (const attempt of attempts) {
    const key = placeKey(attempt.provider, attempt.typeId, attempt.location)
    counts.set(key, (counts.get(key) ?? 0) + 1)
  }
  return counts
}

/** What one place is preferred to another by. */
interface Criterion {
  /** Below zero: the first one is better. */
  readonly compare: (one: Candidate, other: Candidate, standing: Standing) => number
  /** Of the better one, beside the other. */
  readonly better: (one: Candidate, other: Candidate, standing: Standing) => string
  /** Of the other, beside the better one. */
  readonly worse: (one: Candidate, other: Candidate, standing: Standing) => string
}

/** How a place stands with an order, apart from what it is by itself. */
export interface Standing {
  /** How often the order was there in vain. */
  readonly attemptsAt: (candidate: Candidate) => number
  /** By affinity and spreading. */
  readonly company: (candidate: Candidate) => readonly CompanyScore[]
}

/** What an order says and has been through, made ready to compare places by. */
export function standingOf({ placement, attempts = [], company = [] }: OrderStanding): Standing {
  const counts = countAttempts(attempts)
  return {
    attemptsAt: ({ provider, typeId, location }) => counts.get(placeKey(provider.name, typeId, location)) ?? 0,
    company: (candidate) => (company.length === 0 ? [] : companyScores(placement, company, candidate)),
  }
}

/** What of an order places are compared by. */
export type OrderStanding = Pick<PlacementOrder, 'placement' | 'attempts' | 'company'>

/**
 * Healthy before degraded, untried before tried, what works before where creates keep failing; then what the order itself prefers, for that costs what it may cost: near, apart
 * and spread; then price, load, what is left, size, how full the rack is, and at last the name, so that the result is always the same.
 */
const criteria: readonly Criterion[] = [
  {
    compare: (one, other) => Number(one.provider.health !== 'HEALTHY') - Number(other.provider.health !== 'HEALTHY'),
    better: () => 'its provider is healthy',
    worse: (_, { provider }) =>
      `its provider is ${provider.health}${provider.healthMessage && `: ${provider.healthMessage}`}`,
  },
  {
    compare: (one, other, { attemptsAt }) => attemptsAt(one) - attemptsAt(other),
    better: () => 'it was tried less often before',
    worse: () => 'it was tried in vain before',
  },
  {
    compare: (one, other) => failingLevel(one.failures) - failingLevel(other.failures),
    better: () => 'creates fail there less often',
    worse: (_, { failures }) => describeFailures(failures),
  },
  {
    compare: (one, other, { company }) => compareCompany(company(one), company(other)),
    better: (one, other, { company }) => decidingScores(company(one), company(other))?.[0].better ?? '',
    worse: (one, other, { company }) => decidingScores(company(one), company(other))?.[1].worse ?? '',
  },
  {
    compare: comparePlacePrices,
    better: (one) => (one.price === null ? 'it is there already and costs nothing more' : 'it is the cheapest'),
    worse: (one, other) =>
      other.price === null
        ? 'its price is not known'
        : one.price === null
          ? `it costs ${hourlyText(other.price)}`
          : `it costs ${hourlyText(other.price)}, and the chosen one ${hourlyText(one.price)}`,
  },
  {
    compare: (one, other) => one.provider.backlog - other.provider.backlog,
    better: () => 'fewer orders wait for its provider',
    worse: (_, { provider }) => `${provider.backlog} orders wait for its provider`,
  },
  {
    compare: (one, other) => compareRemaining(one.remaining, other.remaining),
    better: () => 'it has the most left',
    worse: (_, { remaining }) => (remaining === null ? 'how many are left is not known' : `${remaining} are left`),
  },
  {
    compare: (one, other) => compareShapes(one.shape, other.shape),
    better: () => 'it is no larger than need be',
    worse: (_, { shape }) => (shape === null ? 'what it has is not known' : 'it is larger than need be'),
  },
  {
    // Of machines that are alike, the one in the rack that has the fewest hosts.
    compare: (one, other) => (one.machine?.rackLoad ?? 0) - (other.machine?.rackLoad ?? 0),
    better: () => 'its rack has fewer hosts',
    worse: (_, { machine }) => `its rack has ${machine?.rackLoad ?? 0} hosts`,
  },
  {
    compare: compareNames,
    better: () => 'its name comes first, of those that are as good',
    worse: () => 'it is as good, and its name comes later',
  },
]

/** Below zero: the first place is better. Never zero for two places. */
export function compareCandidates(one: Candidate, other: Candidate, standing: Standing): number {
  for (const { compare } of criteria) {
    const order = compare(one, other, standing)
    if (order !== 0) return order
  }
  return 0
}

/**
 * Why each place was chosen, comes after the chosen one, or fell out, for people: in the order of what was judged.
 *
 * @param order the one that was judged.
 */
export function explainPlacement(judged: readonly Judged[], order: OrderStanding): readonly string[] {
  const standing = standingOf(order)
  const [best, second] = judged.filter(({ rejected }) => rejected === undefined)
  return judged.map(({ candidate, rejected }) => {
    if (rejected !== undefined) return rejected.message
    if (best === undefined) return ''
    const other = candidate === best.candidate ? second?.candidate : candidate
    if (other === undefined) return 'it is the only one that will do'
    const deciding = criteria.find(({ compare }) => compare(best.candidate, other, standing) !== 0)
    const say = candidate === best.candidate ? deciding?.better : deciding?.worse
    return say?.(best.candidate, other, standing) ?? ''
  })
}

function hourlyText(price: Price): string {
  return `${formatMicros(hourlyMicros(price), price.currency)} an hour`
}

/** A static machine without a price is there already, and costs nothing more; a dynamic one without is the last choice. */
function comparePlacePrices(one: Candidate, other: Candidate): number {
  const free = (candidate: Candidate) => candidate.provider.kind === 'STATIC' && candidate.price === null
  if (free(one) || free(other)) return Number(free(other)) - Number(free(one))
  return comparePrices(one.price, other.price)
}

/** More before less; not known before none. */
function compareRemaining(one: number | null, other: number | null): number {
  if (one === other) return 0
  return (other ?? 0) - (one ?? 0) || Number(one === null) - Number(other === null)
}

/** By provider, type, location, machine, and where the class names it. */
export function compareNames(one: Candidate, other: Candidate): number {
  return (
    compareText(one.provider.name, other.provider.name) ||
    compareText(one.typeId, other.typeId) ||
    compareText(one.location, other.location) ||
    compareText(one.machine?.name ?? '', other.machine?.name ?? '') ||
    one.offeringIndex - other.offeringIndex
  )
}

function compareText(one: string, other: string): number {
  return one === other ? 0 : one < other ? -1 : 1
}
