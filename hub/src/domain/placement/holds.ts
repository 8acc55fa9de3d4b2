import type { FailureCode, JsonObject, Shape } from '../facts.js'

// What is not offered again for a while, because a provider had none of it, or its credential's quota is used up.

/** Why something is held back. */
export type HoldCode = 'CAPACITY' | 'QUOTA'

export interface CapacityHold {
  readonly code: HoldCode
  /** Who was told so: this provider, or another one with the same credential. */
  readonly provider: string
  /** What was asked for. */
  readonly typeId: string
  /** Of CAPACITY. */
  readonly location: string
  /** As {@link marketOf} names it. */
  readonly market: string
  /** What was asked for had this. Null: not known. */
  readonly shape: Shape | null
  /** ISO 8601. */
  readonly until: string
  /** The code and the provider's own words. */
  readonly reason: string
}

/** What may be held back. */
export interface HeldPlace {
  readonly typeId: string
  readonly location: string
  readonly market: string
  /** Null: not known. */
  readonly shape: Shape | null
}

/** Whether a failed create is one to hold something back for. */
export function isHoldCode(code: FailureCode): code is HoldCode {
  return code === 'CAPACITY' || code === 'QUOTA'
}

/** The market that something is bought in, for example `spot`: what provider data says of `market`. Empty: the provider's ordinary one. */
export function marketOf(providerData: JsonObject): string {
  const { market } = providerData
  return typeof market === 'string' ? market : ''
}

/**
 * Whether a hold keeps a place from being taken. CAPACITY is short of one type in one location and market. A QUOTA is an account's, wherever it is spent: it keeps back every
 * type of that market that needs at least as much; what is known to need fewer vCPUs or less memory may still fit into what is left, and is held for itself where it does not.
 */
export function holds({ code, typeId, location, market, shape }: CapacityHold, place: HeldPlace): boolean {
  if (market !== place.market) return false
  if (code === 'CAPACITY') return typeId === place.typeId && location === place.location
  if (typeId === place.typeId || shape === null || place.shape === null) return true
  return place.shape.vcpus >= shape.vcpus && place.shape.memoryMib >= shape.memoryMib
}

/** What keeps a place from being taken the longest, where anything does. */
export function holdOn(place: HeldPlace, held: readonly CapacityHold[]): CapacityHold | undefined {
  return held
    .filter((hold) => holds(hold, place))
    .reduce<CapacityHold | undefined>(
      (longest, hold) => (longest === undefined || isLonger(hold, longest) ? hold : longest),
      undefined,
    )
}

function isLonger(one: CapacityHold, other: CapacityHold): boolean {
  if (one.until !== other.until) return one.until > other.until
  const text = (hold: CapacityHold) => JSON.stringify([hold.code, hold.typeId, hold.location])
  return text(one) < text(other)
}
