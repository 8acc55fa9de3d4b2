import type { JsonObject, LastError, Price, Shape } from '../facts.js'

export const hostStates = [
  'ORDERED',
  'PLACED',
  'PROVISIONING',
  'BOOTSTRAPPING',
  'READY',
  'ERROR',
  'RELEASING',
  'RELEASED',
] as const
export type HostState = (typeof hostStates)[number]

/** Where a host may be placed; empty lists do not narrow. Names, not resource names. */
export interface PlacementWish {
  readonly providers: readonly string[]
  readonly families: readonly string[]
  readonly locations: readonly string[]
  /** 0: no limit. */
  readonly maxHourlyMicros: number
  /** Of providers. Absent: any. */
  readonly regions?: readonly string[]
  /** All of which a provider must promise. Absent: nothing. */
  readonly residency?: readonly string[]
  /** Other hosts of the workspace to be near to or apart from. */
  readonly affinities?: readonly HostAffinity[]
  /** What to be spread over, the first before the second. */
  readonly spread?: readonly SpreadWish[]
}

export const failureDomains = ['PROVIDER', 'LOCATION', 'RACK'] as const
/** What fails together. */
export type FailureDomain = (typeof failureDomains)[number]

/** A wish about where other hosts of the workspace are. */
export interface HostAffinity {
  readonly side: 'NEAR' | 'APART'
  readonly domain: FailureDomain
  /** Of the other hosts; never empty. */
  readonly labelSelector: string
  /** Rather wait than be placed otherwise. */
  readonly required: boolean
}

/** The fewest of these hosts in one domain are best. */
export interface SpreadWish {
  readonly domain: FailureDomain
  /** Of the other hosts; empty: the members of the host's own set, or else all of its workspace. */
  readonly labelSelector: string
}

/** A place that was tried and left. */
export interface PlacementAttempt {
  readonly provider: string
  readonly request: string
  readonly typeId: string
  readonly location: string
  readonly error: LastError
  /** ISO 8601. */
  readonly startedAt: string
  /** The host went to ERROR with it. Tries are counted anew from here, once a person has asked for a retry. */
  readonly final?: true
}

/** One way to get a class from dynamic providers. */
export interface ClassOffering {
  readonly family: string
  /** Provider name; empty: any of the family. */
  readonly provider: string
  /** Empty: any type with at least the class's shape. */
  readonly typeId: string
  readonly locations: readonly string[]
  readonly price?: Price
  readonly providerData: JsonObject
}

/** The static machines that a class takes. */
export interface MachineSelector {
  readonly labelSelector: string
  /** Provider name; empty: any. */
  readonly provider: string
  readonly providerData: JsonObject
  readonly price?: Price
  /** Only machines with at least so many network cards. */
  readonly minNics?: number
}

export interface ClassBootstrap {
  readonly phoneHome: boolean
  readonly phoneHomeTimeoutMs: number
  readonly provisionTimeoutMs: number
  readonly userData: string
}

/** What an order needs of its class, frozen with it. */
export interface ClassSpec {
  readonly shape: Shape
  readonly offerings: readonly ClassOffering[]
  readonly machineSelector: MachineSelector | null
  readonly bootstrap: ClassBootstrap
}

export const defaultPhoneHomeTimeoutMs = 15 * 60_000
export const defaultProvisionTimeoutMs = 60 * 60_000
