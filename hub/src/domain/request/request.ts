import type { JsonObject, Labels, Shape } from '../facts.js'

export const requestStates = ['PENDING', 'PROVISIONING', 'PROVISIONED', 'FAILED', 'DEPROVISIONING', 'GONE'] as const
export type RequestState = (typeof requestStates)[number]

export type RequestOperation = 'PROVISION' | 'DEPROVISION'
export type Presence = 'UNKNOWN' | 'PRESENT' | 'ABSENT'

/** What is sent to the provider, without secrets; frozen when the request is made. */
export interface RequestSpec {
  readonly shape: Shape
  readonly providerData: JsonObject
  readonly hostname: string
  readonly phoneHome: boolean
  readonly phoneHomeTimeoutMs: number
  readonly provisionTimeoutMs: number
  readonly labels: Labels
}
