import type { Price, Shape } from '../facts.js'
import type { ClassSpec, PlacementWish } from '../host/host.js'
import { comparePrices } from '../price/price.js'
import type { Pricing } from '../price/pricing.js'
import { judgePlacement, rejectionReasons, type Candidate, type Judged } from './placement.js'
import { pricedFor } from './priced.js'

// What a workspace is shown of a class: judged by the very rules that an order of it would be.

/** A place, or several static machines that are the same to the catalog. */
export interface CatalogPlace {
  readonly candidate: Candidate
  /** When its provider spoke of it last; null: it did not, it is known from the hub's own records. */
  readonly asOf: Date | null
}

/** Narrows what is shown. Empty lists, zero and '' do not. */
export interface CatalogFilter {
  readonly families: readonly string[]
  readonly locations: readonly string[]
  readonly minVcpus: number
  readonly minMemoryMib: number
  readonly architecture: string
  readonly maxHourlyMicros: number
  /** Only what can be had at once. */
  readonly available: boolean
}

export interface CatalogLocation {
  readonly location: string
  readonly family: string
  readonly price: Price | null
  readonly available: boolean
  readonly remaining: number | null
  readonly asOf: Date | null
}

export interface CatalogEntry {
  readonly shape: Shape
  readonly price: Price | null
  readonly available: boolean
  readonly locations: readonly CatalogLocation[]
}

/** What a class is to whoever pays these prices; undefined where it cannot be ordered, or not as the filter wants it. */
export function catalogEntry(
  className: string,
  spec: ClassSpec,
  places: readonly CatalogPlace[],
  pricing: Pricing,
  filter: CatalogFilter,
): CatalogEntry | undefined {
  const { families, locations, maxHourlyMicros } = filter
  const placement: PlacementWish = { providers: [], families, locations, maxHourlyMicros }
  const shape = askedShape(spec.shape, filter)
  const asOf = new Map<Candidate, Date | null>()
  const priced = pricedFor(
    places.map((place) => place.candidate),
    pricing,
    className,
  )
  priced.forEach((candidate, index) => asOf.set(candidate, places[index]?.asOf ?? null))
  const judged = judgePlacement({ shape, placement }, priced).filter(
    ({ candidate, rejected }) =>
      (rejected === undefined || (rejectionReasons[rejected.reason] === 'passing' && !filter.available)) &&
      (candidate.shape !== null || isWithin(spec.shape, shape)),
  )
  const best = judged[0]
  if (best === undefined) return undefined
  return {
    shape: shownShape(spec.shape, best.candidate.shape),
    price: best.candidate.price,
    available: best.rejected === undefined,
    locations: byLocation(judged, asOf),
  }
}

function askedShape(ofClass: Shape, { minVcpus, minMemoryMib, architecture }: CatalogFilter): Shape {
  return {
    ...ofClass,
    vcpus: Math.max(ofClass.vcpus, minVcpus),
    memoryMib: Math.max(ofClass.memoryMib, minMemoryMib),
    // A class of another architecture has none of this one.
    architecture: architecture === '' ? ofClass.architecture : architecture,
  }
}

/** Of a place that says nothing of its shape, what its class says is taken. */
function isWithin(ofClass: Shape, asked: Shape): boolean {
  return (
    ofClass.vcpus >= asked.vcpus && ofClass.memoryMib >= asked.memoryMib && ofClass.architecture === asked.architecture
  )
}

function shownShape(ofClass: Shape, ofPlace: Shape | null): Shape {
  if (ofPlace === null) return ofClass
  return {
    vcpus: ofClass.vcpus || ofPlace.vcpus,
    memoryMib: ofClass.memoryMib || ofPlace.memoryMib,
    diskGib: ofClass.diskGib || ofPlace.diskGib,
    diskClass: ofClass.diskClass || ofPlace.diskClass,
    architecture: ofClass.architecture || ofPlace.architecture,
  }
}

function byLocation(judged: readonly Judged[], asOf: ReadonlyMap<Candidate, Date | null>): readonly CatalogLocation[] {
  const found = new Map<string, CatalogLocation>()
  for (const { candidate, rejected } of judged) {
    const { location, price, provider, remaining } = candidate
    const here: CatalogLocation = {
      ...{ location, family: provider.family, price },
      available: rejected === undefined,
      remaining: rejected === undefined ? remaining : null,
      asOf: asOf.get(candidate) ?? null,
    }
    const key = JSON.stringify([location, provider.family])
    const known = found.get(key)
    found.set(key, known === undefined ? here : together(known, here))
  }
  return [...found.values()].sort(
    (one, other) =>
      Number(other.available) - Number(one.available) ||
      comparePrices(one.price, other.price) ||
      compareText(one.location, other.location) ||
      compareText(one.family, other.family),
  )
}

/** Two places of one location and family: what can be had at once is what counts, where there is any. */
function together(one: CatalogLocation, other: CatalogLocation): CatalogLocation {
  const asOf = oldest(one.asOf, other.asOf)
  if (one.available !== other.available) return { ...(one.available ? one : other), asOf }
  const known = one.remaining !== null && other.remaining !== null
  return {
    ...(comparePrices(one.price, other.price) <= 0 ? one : other),
    remaining: known ? (one.remaining ?? 0) + (other.remaining ?? 0) : null,
    asOf,
  }
}

function oldest(one: Date | null, other: Date | null): Date | null {
  if (one === null || other === null) return one ?? other
  return one < other ? one : other
}

function compareText(one: string, other: string): number {
  return one === other ? 0 : one < other ? -1 : 1
}
