import type { JsonObject, Price, Shape } from '../facts.js'
import type { PlacementAttempt, PlacementWish } from '../host/host.js'
import type { MachineState } from '../machine/machine.js'
import { comparePrices, formatMicros, hourlyMicros } from '../price/price.js'
import type { Health, ProviderConnection, ProviderKind } from '../provider/provider.js'
import { compareShapes, shapeMismatch } from './shape.js'

/** What is to be placed. */
export interface PlacementOrder {
  /** The least that a place must have. */
  readonly shape: Shape
  readonly placement: PlacementWish
  /** Places that were tried before: others are preferred. */
  readonly attempts?: readonly PlacementAttempt[]
}

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
}

/** A static machine, or, where it is absent, the lack of one. */
export interface CandidateMachine {
  readonly id: string
  readonly name: string
  readonly state: MachineState
  readonly cordoned: boolean
  readonly maintenance: boolean
  /** Its labels match the class's selector. */
  readonly selected: boolean
  /** It was in its provider's latest complete listing. */
  readonly listed: boolean
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
  /** Not offered again before, because the provider had none. */
  readonly held: { readonly until: string; readonly reason: string } | null
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
  MACHINE_NOT_AVAILABLE: 'passing',
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
  const failures = countAttempts(order.attempts ?? [])
  const judged = candidates.map((candidate) => ({ candidate, rejected: reject(order, candidate) }))
  const eligible = judged
    .filter(({ rejected }) => rejected === undefined)
    .sort((one, other) => compareCandidates(one.candidate, other.candidate, failures))
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
    (candidate.provider.kind === 'STATIC' ? rejectMachine(candidate) : rejectOffering(candidate))
  )
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

function rejectOffering(candidate: Candidate): Rejection | undefined {
  const { held } = candidate
  if (held !== null) return rejection('OFFERING_HELD', candidate, `is held back until ${held.until}: ${held.reason}`)
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
  if (machine.cordoned) return rejection('MACHINE_CORDONED', candidate, 'is cordoned')
  if (machine.state !== 'AVAILABLE') return rejection('MACHINE_NOT_AVAILABLE', candidate, `is ${machine.state}`)
  if (!machine.listed) return rejection('MACHINE_MISSING', candidate, 'is missing from its provider’s inventory')
  return undefined
}

function rejection(reason: RejectionReason, candidate: Candidate, what: string): Rejection {
  return { reason, message: `${describePlace(candidate)} ${what}` }
}

const placeKey = (provider: string, typeId: string, location: string) => JSON.stringify([provider, typeId, location])

function countAttempts(attempts: readonly PlacementAttempt[]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>()
  for (const attempt of attempts) {
    const key = placeKey(attempt.provider, attempt.typeId, attempt.location)
    counts.set(key, (counts.get(key) ?? 0) + 1)
  }
  return counts
}

/** Healthy before degraded, untried before tried, then price, load, what is left, size, and at last the name, so that the result is always the same. */
function compareCandidates(one: Candidate, other: Candidate, failures: ReadonlyMap<string, number>): number {
  const failuresOf = (candidate: Candidate) =>
    failures.get(placeKey(candidate.provider.name, candidate.typeId, candidate.location)) ?? 0
  return (
    Number(one.provider.health !== 'HEALTHY') - Number(other.provider.health !== 'HEALTHY') ||
    failuresOf(one) - failuresOf(other) ||
    comparePlacePrices(one, other) ||
    one.provider.backlog - other.provider.backlog ||
    compareRemaining(one.remaining, other.remaining) ||
    compareShapes(one.shape, other.shape) ||
    compareNames(one, other)
  )
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

function compareNames(one: Candidate, other: Candidate): number {
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
