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
