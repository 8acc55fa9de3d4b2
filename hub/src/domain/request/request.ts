import type { JsonObject, Labels, Shape } from '../facts.js'

export const requestStates = ['PENDING', 'PROVISIONING', 'PROVISIONED', 'FAILED', 'DEPROVISIONING', 'GONE'] as const
export type RequestState = (typeof requestStates)[number]

export type RequestOperation = 'PROVISION' | 'REINSTALL' | 'DEPROVISION' | 'ADOPT' | 'UNADOPT'

/** Whether a request is to come to its end: what was made of it is removed, or what was to be adopted is let go of. */
export function isEnding(operation: RequestOperation): boolean {
  return operation === 'DEPROVISION' || operation === 'UNADOPT'
}

/**
 * By which operation a request comes to its end. A server that existed before is not ours before its host was READY: it is let go of, and never removed.
 *
 * @param adoptExternalId the server that the request adopts; null: none.
 * @param wasReady whether its host has ever been READY with it.
 */
export function endingOf(adoptExternalId: string | null, wasReady: boolean): 'DEPROVISION' | 'UNADOPT' {
  return adoptExternalId !== null && !wasReady ? 'UNADOPT' : 'DEPROVISION'
}

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
  /** Keys that may log in. Absent: none; requests from before there were any lack it. */
  readonly sshPublicKeys?: readonly string[]
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
