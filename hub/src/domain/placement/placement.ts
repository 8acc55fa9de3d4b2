import type { JsonObject, Price, Shape } from '../facts.js'
import type { PlacementAttempt, PlacementWish } from '../host/host.js'
import type { MachineState } from '../machine/machine.js'
import { formatMicros, hourlyMicros } from '../price/price.js'
import type { Health, ProviderConnection, ProviderKind } from '../provider/provider.js'
import { companyMismatch, type Company } from './company.js'
import { compareCandidates, compareNames, standingOf } from './criteria.js'
import { holdOn, marketOf, type CapacityHold } from './holds.js'
import type { Failures } from './reliability.js'
import { shapeMismatch } from './shape.js'

/** What is to be placed. */
export interface PlacementOrder {
  /** The least that a place must have. */
  readonly shape: Shape
  readonly placement: PlacementWish
  /** Places that were tried before: others are preferred. */
  readonly attempts?: readonly PlacementAttempt[]
  /** Where the hosts are that its affinities and spreading are about, in the order of {@link companyWishes}. Absent: they are passed over. */
  readonly company?: readonly Company[]
  /** What the order itself says in the provider's own terms. */
  readonly providerData?: JsonObject
  /** Why limits do not allow a place that would do otherwise; absent: there are none. */
  readonly excess?: (
    candidate: Candidate,
  ) => (Pick<Rejection, 'message'> & { readonly reason: LimitReason }) | undefined
}

/** A quota, or a budget. */
export type LimitReason = 'QUOTA_EXCEEDED' | 'BUDGET_EXCEEDED'

export interface CandidateProvider {
  readonly id: string
  readonly name: string
  readonly family: string
  readonly kind: ProviderKind
  readonly state: ProviderConnection
  readonly draining: boolean
  readonly health: Health
  readonly healthMessage: string
  /** Work that waits for one of its instances. */
  readonly backlog: number
  readonly region: string
  /** What may be said of where data stays there. */
  readonly residency: readonly string[]
  /** Of a pool: what the workspace has claimed. Null: it is of no pool. */
  readonly claim: CandidateClaim | null
}

/** What a workspace has claimed of a pool. */
export interface CandidateClaim {
  /** Null: as many hosts as there is room for. */
  readonly includedHosts: number | null
  /** How many it has there. */
  readonly hosts: number
  /** Its time to try it is over. */
  readonly trialOver: boolean
}

/** A static machine, or, where it is absent, the lack of one. */
export interface CandidateMachine {
  readonly id: string
  readonly name: string
  readonly state: MachineState
  readonly cordoned: boolean
  readonly maintenance: boolean
  /** A person holds it. */
  readonly held: boolean
  /** What it stands in; empty: it does not say. */
  readonly rack: string
  /** How many machines of the same provider and rack serve hosts. */
  readonly rackLoad: number
  /** Its labels match the class's selector. */
  readonly selected: boolean
  /** It was in its provider's latest complete listing. */
  readonly listed: boolean
  /** Hosts wait for static machines, maybe for this one: whoever comes takes its turn. */
  readonly contested: boolean
}

/** A place that may do: an instance type in a location of a dynamic provider, or one machine of a static one. */
export interface Candidate {
  readonly provider: CandidateProvider
  /** Of the class: which of its offerings it comes from. */
  readonly offeringIndex: number
  /** Empty for static machines. */
  readonly typeId: string
  /** Empty: the provider has only one. */
  readonly location: string
  /** Null: not known. */
  readonly shape: Shape | null
  readonly price: Price | null
  /** What the class says in the provider's own terms. */
  readonly providerData: JsonObject
  /** Dynamic: false where the provider tells what it offers, and this is not among it. */
  readonly offered: boolean
  /** Dynamic: false where the provider says that it cannot be had now. */
  readonly available: boolean
  /** How many can be had, what was ordered since included; null: not known. */
  readonly remaining: number | null
  /** What its provider, or another one with the same credential, had none of lately: some of it may concern this place. */
  readonly holds: readonly CapacityHold[]
  /** Creates that failed there lately. Null: none did. */
  readonly failures: Failures | null
  /** Static providers: the machine, or null where none is left. */
  readonly machine: CandidateMachine | null
}

/**
 * Why a place falls out. `lasting`: the order itself, or a person, would have to change. `passing`: it may do later, and an order may wait for it.
 */
export const rejectionReasons = {
  PROVIDER_NOT_ALLOWED: 'lasting',
  FAMILY_NOT_ALLOWED: 'lasting',
  LOCATION_NOT_ALLOWED: 'lasting',
  REGION_NOT_ALLOWED: 'lasting',
  RESIDENCY_MISMATCH: 'lasting',
  TRIAL_OVER: 'lasting',
  PRICE_UNKNOWN: 'lasting',
  PRICE_TOO_HIGH: 'lasting',
  ARCHITECTURE_MISMATCH: 'lasting',
  SHAPE_TOO_SMALL: 'lasting',
  DISK_CLASS_MISMATCH: 'lasting',
  SELECTOR_MISMATCH: 'lasting',
  NOT_OFFERED: 'lasting',
  PROVIDER_DRAINING: 'passing',
  PROVIDER_PENDING: 'passing',
  PROVIDER_DISCONNECTED: 'passing',
  PROVIDER_UNHEALTHY: 'passing',
  OFFERING_UNAVAILABLE: 'passing',
  OFFERING_HELD: 'passing',
  NO_AVAILABLE_MACHINE: 'passing',
  MACHINE_MISSING: 'passing',
  MACHINE_CORDONED: 'passing',
  MACHINE_IN_MAINTENANCE: 'passing',
  MACHINE_HELD: 'passing',
  MACHINE_NOT_AVAILABLE: 'passing',
  INCLUDED_HOSTS_USED: 'passing',
  QUOTA_EXCEEDED: 'passing',
  BUDGET_EXCEEDED: 'passing',
  AFFINITY_MISMATCH: 'passing',
  MACHINE_PROMISED: 'passing',
} as const satisfies Record<string, 'lasting' | 'passing'>
export type RejectionReason = keyof typeof rejectionReasons

export interface Rejection {
  readonly reason: RejectionReason
  /** For people: a sentence about the place. */
  readonly message: string
}

export interface Judged {
  readonly candidate: Candidate
  readonly chosen: boolean
  /** Absent: it would do. */
  readonly rejected?: Rejection
}

/**
 * Judges places for an order: the chosen one first, then the others that would do, best first, then those that fell out, each with its reason. The order in
 * which candidates come does not matter.
 */
export function judgePlacement(order: PlacementOrder, candidates: readonly Candidate[]): readonly Judged[] {
  const standing = standingOf(order)
  const judged = candidates.map((candidate) => ({ candidate, rejected: reject(order, candidate) }))
  const eligible = judged
    .filter(({ rejected }) => rejected === undefined)
    .sort((one, other) => compareCandidates(one.candidate, other.candidate, standing))
  const rejected = judged
    .filter(({ rejected }) => rejected !== undefined)
    .sort((one, other) => compareNames(one.candidate, other.candidate))
  return [
    ...eligible.map(({ candidate }, index) => ({ candidate, chosen: index === 0 })),
    ...rejected.map(({ candidate, rejected }) => ({
      candidate,
      chosen: false,
      ...(rejected !== undefined && { rejected }),
    })),
  ]
}

/** Whether an order may be stored though nothing would do now: something may do later by itself. */
export function mayWait(judged: readonly Judged[]): boolean {
  return judged.some(({ rejected }) => rejected === undefined || rejectionReasons[rejected.reason] === 'passing')
}

/** A place that would do, but goes to a host whose turn comes first. */
export function promisedElsewhere(judged: Judged): Judged {
  if (judged.rejected !== undefined) return judged
  const { candidate } = judged
  return {
    candidate,
    chosen: false,
    rejected: rejection('MACHINE_PROMISED', candidate, 'goes to a host whose turn comes first'),
  }
}

/** What to call a place towards people: `fsn1-cloud: cx22 in fsn1`. */
export function describePlace(candidate: Candidate): string {
  if (candidate.provider.kind === 'STATIC') {
    return candidate.machine === null
      ? candidate.provider.name
      : `${candidate.provider.name}: machine ${candidate.machine.name}`
  }
  const type = candidate.typeId === '' ? '' : `: ${candidate.typeId}`
  return `${candidate.provider.name}${type}${candidate.location === '' ? '' : ` in ${candidate.location}`}`
}

/** What a provider is told in its own terms: what the class says, with the order's own words laid over it, key by key. */
export function layProviderData(ofClass: JsonObject, ofOrder: JsonObject): JsonObject {
  return { ...ofClass, ...ofOrder }
}

function reject(order: PlacementOrder, candidate: Candidate): Rejection | undefined {
  return (
    rejectByWish(order, candidate) ??
    rejectByShape(order, candidate) ??
    (candidate.provider.kind === 'DYNAMIC' && !candidate.offered
      ? rejection('NOT_OFFERED', candidate, 'is not among what the provider offers')
      : undefined) ??
    rejectByProvider(candidate) ??
    rejectByClaim(candidate) ??
    (candidate.provider.kind === 'STATIC' ? rejectMachine(candidate) : rejectOffering(order, candidate)) ??
    rejectByCompany(order, candidate) ??
    rejectByLimits(order, candidate)
  )
}

function rejectByLimits({ excess }: PlacementOrder, candidate: Candidate): Rejection | undefined {
  const found = excess?.(candidate)
  return found && rejection(found.reason, candidate, `is not allowed: ${found.message}`)
}

function rejectByCompany({ placement, company = [] }: PlacementOrder, candidate: Candidate): Rejection | undefined {
  const why = companyMismatch(placement, company, candidate)
  return why === undefined ? undefined : rejection('AFFINITY_MISMATCH', candidate, why)
}

function rejectByWish({ placement }: PlacementOrder, candidate: Candidate): Rejection | undefined {
  const { provider, location, price } = candidate
  if (placement.providers.length > 0 && !placement.providers.includes(provider.name)) {
    return rejection('PROVIDER_NOT_ALLOWED', candidate, `is not of ${placement.providers.join(', ')}`)
  }
  if (placement.families.length > 0 && !placement.families.includes(provider.family)) {
    return rejection(
      'FAMILY_NOT_ALLOWED',
      candidate,
      `is of family ${provider.family}, not ${placement.families.join(', ')}`,
    )
  }
  if (placement.locations.length > 0 && !placement.locations.includes(location)) {
    return rejection('LOCATION_NOT_ALLOWED', candidate, `is not in ${placement.locations.join(', ')}`)
  }
  const elsewhere = rejectByResidency(placement, candidate)
  if (elsewhere !== undefined) return elsewhere
  if (placement.maxHourlyMicros > 0) {
    if (price === null) return rejection('PRICE_UNKNOWN', candidate, 'has no known price, and the order has a limit')
    if (hourlyMicros(price) > placement.maxHourlyMicros) {
      const limit = formatMicros(placement.maxHourlyMicros, price.currency)
      return rejection(
        'PRICE_TOO_HIGH',
        candidate,
        `costs ${formatMicros(hourlyMicros(price), price.currency)} an hour, over the limit of ${limit}`,
      )
    }
  }
  return undefined
}

/** Orders from before there were regions ask for none. */
function rejectByResidency(
  { regions = [], residency = [] }: PlacementWish,
  candidate: Candidate,
): Rejection | undefined {
  const { provider } = candidate
  if (regions.length > 0 && !regions.includes(provider.region)) {
    const where = provider.region === '' ? 'in no region' : `in region ${provider.region}`
    return rejection('REGION_NOT_ALLOWED', candidate, `is ${where}, not in ${regions.join(', ')}`)
  }
  const missing = residency.filter((tag) => !provider.residency.includes(tag))
  if (missing.length === 0) return undefined
  return rejection('RESIDENCY_MISMATCH', candidate, `does not promise ${missing.join(', ')}`)
}

function rejectByClaim(candidate: Candidate): Rejection | undefined {
  const { claim } = candidate.provider
  if (claim === null) return undefined
  if (claim.trialOver) return rejection('TRIAL_OVER', candidate, 'takes no new orders: the time to try it is over')
  if (claim.includedHosts === null || claim.hosts < claim.includedHosts) return undefined
  return rejection('INCLUDED_HOSTS_USED', candidate, `has all ${claim.includedHosts} hosts that are included`)
}

function rejectByShape({ shape }: PlacementOrder, candidate: Candidate): Rejection | undefined {
  // What is not known is taken on the word of whoever named the type in the class.
  if (candidate.shape === null) return undefined
  const mismatch = shapeMismatch(shape, candidate.shape)
  return mismatch === undefined ? undefined : rejection(mismatch.reason, candidate, mismatch.message)
}

function rejectByProvider(candidate: Candidate): Rejection | undefined {
  const { provider } = candidate
  if (provider.draining)
    return rejection('PROVIDER_DRAINING', candidate, 'takes no new orders: its provider is draining')
  if (provider.state === 'PENDING')
    return rejection('PROVIDER_PENDING', candidate, 'has no instance yet: none has ever connected')
  if (provider.state === 'DISCONNECTED')
    return rejection('PROVIDER_DISCONNECTED', candidate, 'is out of reach: no instance is connected')
  if (provider.health === 'UNHEALTHY') {
    return rejection(
      'PROVIDER_UNHEALTHY',
      candidate,
      `is unhealthy${provider.healthMessage === '' ? '' : `: ${provider.healthMessage}`}`,
    )
  }
  return undefined
}

function rejectOffering(order: PlacementOrder, candidate: Candidate): Rejection | undefined {
  const { typeId, location, shape, holds } = candidate
  const market = marketOf(layProviderData(candidate.providerData, order.providerData ?? {}))
  const held = holdOn({ typeId, location, shape, market }, holds)
  if (held !== undefined) {
    const by = held.provider === candidate.provider.name ? '' : `${held.provider} was told `
    return rejection('OFFERING_HELD', candidate, `is held back until ${held.until}: ${by}${held.reason}`)
  }
  if (!candidate.available) return rejection('OFFERING_UNAVAILABLE', candidate, 'cannot be had now, its provider says')
  if (candidate.remaining !== null && candidate.remaining <= 0)
    return rejection('OFFERING_UNAVAILABLE', candidate, 'is used up')
  return undefined
}

function rejectMachine(candidate: Candidate): Rejection | undefined {
  const { machine } = candidate
  if (machine === null) return rejection('NO_AVAILABLE_MACHINE', candidate, 'has no AVAILABLE machine that would do')
  if (!machine.selected) return rejection('SELECTOR_MISMATCH', candidate, "does not match the class's label selector")
  if (machine.maintenance) return rejection('MACHINE_IN_MAINTENANCE', candidate, 'is in maintenance')
  if (machine.held) return rejection('MACHINE_HELD', candidate, 'is held by a person')
  if (machine.cordoned) return rejection('MACHINE_CORDONED', candidate, 'is cordoned')
  if (machine.state !== 'AVAILABLE') return rejection('MACHINE_NOT_AVAILABLE', candidate, `is ${machine.state}`)
  if (!machine.listed) return rejection('MACHINE_MISSING', candidate, 'is missing from its provider’s inventory')
  return undefined
}

function rejection(reason: RejectionReason, candidate: Candidate, what: string): Rejection {
  return { reason, message: `${describePlace(candidate)} ${what}` }
}
