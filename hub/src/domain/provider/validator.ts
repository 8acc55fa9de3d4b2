import type { JsonObject, Labels, Shape } from '../facts.js'

/** An order, as its provider is asked about it before it costs money. No secrets. */
export interface OrderToValidate {
  readonly typeId: string
  readonly location: string
  readonly shape: Shape
  readonly providerData: JsonObject
  readonly hostname: string
  readonly hostName: string
  readonly workspace: string
  readonly machineClass: string
  readonly labels: Labels
  readonly sshPublicKeys: readonly string[]
  /** The server that the order would take over, by its id out there. */
  readonly adoptExternalId?: string
  /** The machine that the order would put a new system on. */
  readonly reinstall?: { readonly externalId: string; readonly providerData: JsonObject }
}

/** Asks connected providers about orders. */
export interface OrderValidator {
  /** @returns what is wrong, and in `unavailable` why it could not be checked. */
  validate(
    providerId: string,
    order: OrderToValidate,
    deadlineMs: number,
  ): Promise<{
    readonly violations: readonly { readonly field: string; readonly description: string }[]
    readonly unavailable?: string
  }>
}
