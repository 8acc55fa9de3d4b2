import type { Labels } from '../facts.js'
import type { FailureDomain, HostAffinity, PlacementWish } from '../host/host.js'
import { matchesLabels, parseLabelSelector } from '../selector.js'
import type { Candidate } from './placement.js'

// Which other hosts an order wants to be near to, apart from, or spread among. All of it is about hosts of the same workspace that have a place.

/** Where the hosts are that one wish is about. */
export interface Company {
  /** How many of them are in each domain, by {@link domainOf}. */
  readonly counts: ReadonlyMap<string, number>
  /** The order itself would be one of them. */
  readonly includesOrder: boolean
}

/** One wish about other hosts. */
export type CompanyWish =
  | ({ readonly kind: 'AFFINITY' } & HostAffinity)
  | { readonly kind: 'SPREAD'; readonly domain: FailureDomain; readonly labelSelector: string }

/** How a place fares by one wish: less is better. */
export interface CompanyScore {
  readonly score: number
  readonly better: string
  readonly worse: string
}

interface DomainPlace {
  readonly provider: string
  /** Empty: the provider has only one. */
  readonly location: string
  /** Empty: not known. */
  readonly rack: string
}

const nouns: Readonly<Record<FailureDomain, string>> = { PROVIDER: 'provider', LOCATION: 'location', RACK: 'rack' }

/** All that a wish says about other hosts, in the order in which their company is given. */
export function companyWishes({ affinities = [], spread = [] }: PlacementWish): readonly CompanyWish[] {
  return [
    ...affinities.map((affinity) => ({ kind: 'AFFINITY' as const, ...affinity })),
    ...spread.map((over) => ({ kind: 'SPREAD' as const, ...over })),
  ]
}

/** Whether an order must keep to other hosts' whereabouts: others of its workspace are not to be placed at the same moment. */
export function mustKeepCompany({ affinities = [] }: PlacementWish): boolean {
  return affinities.some(({ required }) => required)
}

/**
 * The domain that a place is in. A location is one whichever provider names it; a provider that has only one is a location of its own. Undefined: it does not say which rack it
 * stands in, as no cloud does.
 */
export function domainOf(domain: FailureDomain, { provider, location, rack }: DomainPlace): string | undefined {
  switch (domain) {
    case 'PROVIDER':
      return provider
    case 'LOCATION':
      return location === '' ? `@${provider}` : location
    case 'RACK':
      return rack === '' ? undefined : `${rack}@${provider}`
  }
}

/** Where a candidate is. */
export function whereIs({ provider, location, machine }: Candidate): DomainPlace {
  return { provider: provider.name, location, rack: machine?.rack ?? '' }
}

/** Whether a host is one of those that a wish is about. A spread that selects nothing is about the members of the host's own set, or else about the whole workspace. */
export function isCompany(
  wish: CompanyWish,
  order: { readonly hostSetId: string | null },
  host: { readonly labels: Labels; readonly hostSetId: string | null },
): boolean {
  if (wish.kind === 'SPREAD' && wish.labelSelector === '')
    return order.hostSetId === null || order.hostSetId === host.hostSetId
  return matchesLabels(parseLabelSelector(wish.labelSelector), host.labels)
}

/** Why a place is against what an order must have; undefined: it is not. */
export function companyMismatch(
  placement: PlacementWish,
  company: readonly Company[],
  candidate: Candidate,
): string | undefined {
  for (const [index, wish] of companyWishes(placement).entries()) {
    const seen = company[index]
    if (seen === undefined || wish.kind !== 'AFFINITY' || !wish.required) continue
    const why = mismatch(wish, seen, candidate)
    if (why !== undefined) return why
  }
  return undefined
}

function mismatch(wish: HostAffinity, { counts, includesOrder }: Company, candidate: Candidate): string | undefined {
  const noun = nouns[wish.domain]
  const domain = domainOf(wish.domain, whereIs(candidate))
  // The first one of its kind has nobody to be near to.
  if (wish.side === 'NEAR' && counts.size === 0 && includesOrder) return undefined
  if (domain === undefined) return `does not say which ${noun} it stands in, and the order must be ${sideText(wish)}`
  const there = counts.get(domain) ?? 0
  if (wish.side === 'APART')
    return there === 0 ? undefined : `is in a ${noun} with ${hostsText(there)} ${wish.labelSelector}`
  if (there > 0) return undefined
  return counts.size === 0
    ? `waits for a host ${wish.labelSelector} to be near to`
    : `is in a ${noun} with no host ${wish.labelSelector}`
}

function sideText({ side, labelSelector }: HostAffinity): string {
  return `${side === 'NEAR' ? 'near to' : 'apart from'} hosts ${labelSelector}`
}

function hostsText(count: number): string {
  return count === 1 ? 'a host' : `${count} hosts`
}

/** How a place fares by all that an order prefers about other hosts, in the order of its wishes. */
export function companyScores(
  placement: PlacementWish,
  company: readonly Company[],
  candidate: Candidate,
): readonly CompanyScore[] {
  return companyWishes(placement).flatMap((wish, index) => {
    const seen = company[index]
    if (seen === undefined || (wish.kind === 'AFFINITY' && wish.required)) return []
    return [scoreOf(wish, seen, candidate)]
  })
}

function scoreOf(wish: CompanyWish, { counts }: Company, candidate: Candidate): CompanyScore {
  const noun = nouns[wish.domain]
  const domain = domainOf(wish.domain, whereIs(candidate))
  const there = domain === undefined ? undefined : (counts.get(domain) ?? 0)
  if (wish.kind === 'AFFINITY' && wish.side === 'NEAR') {
    return {
      score: there !== undefined && there > 0 ? 0 : 1,
      better: `its ${noun} has hosts ${wish.labelSelector}, which the order would rather be near to`,
      worse: `its ${noun} has no host ${wish.labelSelector}, which the order would rather be near to`,
    }
  }
  const whom = wish.labelSelector === '' ? '' : ` ${wish.labelSelector}`
  const rather = wish.kind === 'SPREAD' ? 'the order is spread over' : 'the order would rather be apart from'
  return {
    // Of what is not known, the worst is taken to be true.
    score: there ?? Number.MAX_SAFE_INTEGER,
    better: `its ${noun} has the fewest hosts${whom} that ${rather}`,
    worse:
      there === undefined
        ? `it does not say which ${noun} it stands in`
        : `its ${noun} has ${hostsText(there)}${whom} that ${rather}`,
  }
}

/** Below zero: the first is better. */
export function compareCompany(one: readonly CompanyScore[], other: readonly CompanyScore[]): number {
  const [mine, others] = decidingScores(one, other) ?? []
  return mine === undefined || others === undefined ? 0 : mine.score - others.score
}

/** Of two places, the first scores in which they differ. */
export function decidingScores(
  one: readonly CompanyScore[],
  other: readonly CompanyScore[],
): readonly [CompanyScore, CompanyScore] | undefined {
  for (const [index, mine] of one.entries()) {
    const others = other[index]
    if (others !== undefined && mine.score !== others.score) return [mine, others]
  }
  return undefined
}
