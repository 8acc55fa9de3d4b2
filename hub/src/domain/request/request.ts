import type { JsonObject, Labels, Shape } from '../facts.js'

export const requestStates = ['PENDING', 'PROVISIONING', 'PROVISIONED', 'FAILED', 'DEPROVISIONING', 'GONE'] as const
export type RequestState = (typeof requestStates)[number]

export type RequestOperation = 'PROVISION' | 'REINSTALL' | 'DEPROVISION'
export type Presence = 'UNKNOWN' | 'PRESENT' | 'ABSENT'

/** What is sent to the provider, without secrets; frozen when the request is made, but for `providerData`, which a reinstall brings anew. */
export interface RequestSpec {
  readonly shape: Shape
  readonly providerData: JsonObject
  readonly hostname: string
  readonly phoneHome: boolean
  readonly phoneHomeTimeoutMs: number
  readonly provisionTimeoutMs: number
  readonly labels: Labels
}

/** The wish that a machine runs its rescue system, and who may log in there. */
export interface RescueWish {
  /** Rises with every wish for it. */
  readonly revision: number
  /** By what the provider knows them by. */
  readonly sshKeys: readonly string[]
  /** As in `authorized_keys`. */
  readonly sshPublicKeys: readonly string[]
}
