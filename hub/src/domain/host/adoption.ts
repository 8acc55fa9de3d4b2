import type { Price, Shape } from '../facts.js'
import type { Candidate } from '../placement/placement.js'
import { shapeMismatch } from '../placement/shape.js'

// As what a server that exists already is taken into a host: the type and the location by which its class has it, and what that costs.

/** What is said of the server. */
export interface AdoptedPlace {
  /** Empty: as the class has it. */
  readonly typeId: string
  /** Empty: as the class has it. */
  readonly location: string
}

export type FoundPlace =
  | { readonly kind: 'place'; readonly candidate: Candidate }
  /** None of the class's places at the provider is it. `reasons` tells why, for people. */
  | { readonly kind: 'none'; readonly reasons: readonly string[] }
  /** Several are: which one is for the caller to say. */
  | { readonly kind: 'several'; readonly field: 'type_id' | 'location'; readonly choices: readonly string[] }

/**
 * The place of a class that an existing server has. Whether more of it could be had now is no matter: the server is there.
 *
 * @param candidates of the class, at one provider.
 */
export function findAdoptedPlace(
  candidates: readonly Candidate[],
  shape: Shape,
  { typeId, location }: AdoptedPlace,
): FoundPlace {
  const dynamic = candidates.filter(({ provider }) => provider.kind === 'DYNAMIC')
  const named = dynamic.filter(
    (candidate) =>
      (typeId === '' || candidate.typeId === typeId) && (location === '' || candidate.location === location),
  )
  const places = named.filter((candidate) => mismatch(shape, candidate) === undefined)
  const types = distinct(places.map((candidate) => candidate.typeId))
  if (types.length > 1) return { kind: 'several', field: 'type_id', choices: types }
  const [candidate] = places
  if (candidate !== undefined) {
    const locations = distinct(places.map((place) => place.location))
    return locations.length > 1
      ? { kind: 'several', field: 'location', choices: locations }
      : { kind: 'place', candidate }
  }
  const unfit = named.flatMap((each) => {
    const why = mismatch(shape, each)
    return why === undefined ? [] : [`${describe(each)} ${why}`]
  })
  const others = distinct(dynamic.map(describe))
  if (unfit.length > 0) return { kind: 'none', reasons: unfit }
  return { kind: 'none', reasons: others.length === 0 ? [] : [`it has ${others.join(', ')} there`] }
}

/** What an adopted host counts as: all that its server has, though its class promises less. */
export function adoptedShape(promised: Shape, has: Shape | null): Shape {
  if (has === null) return promised
  return {
    ...promised,
    vcpus: Math.max(promised.vcpus, has.vcpus),
    memoryMib: Math.max(promised.memoryMib, has.memoryMib),
  }
}

/** What an adopted host costs: set up it was long ago. */
export function adoptedPrice(price: Price | null): Price | null {
  return price && { ...price, setupMicros: 0 }
}

function mismatch(shape: Shape, candidate: Candidate): string | undefined {
  return candidate.shape === null ? undefined : shapeMismatch(shape, candidate.shape)?.message
}

function describe({ typeId, location }: Candidate): string {
  return location === '' ? typeId : `${typeId} in ${location}`
}

function distinct(values: readonly string[]): readonly string[] {
  return [...new Set(values)].sort()
}
