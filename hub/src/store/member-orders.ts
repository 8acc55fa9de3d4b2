import type { MemberGuard } from './host-set-reconcile.js'
import type { HostSetRow } from './tables.js'

/** An order for one member of a set. */
export interface MemberOrder {
  readonly set: HostSetRow
  readonly ordinal: number
  /** What its placement is narrowed to; see domain/host-set. Empty: nothing. */
  readonly domain: string
  /** Secret. */
  readonly userData: string
  readonly guard: MemberGuard
}

/** `stale`: what it rests upon has changed since, and nothing was ordered. */
export type MemberOutcome =
  | { readonly kind: 'ordered' }
  | { readonly kind: 'stale' }
  | { readonly kind: 'refused'; readonly reason: string; readonly message: string; readonly nameTaken: boolean }

/**
 * Orders a member as a person would order a host, with all that is checked then: class, places, quotas, budgets, the provider's own opinion. The same number of a set is
 * ordered once, however often it is asked for.
 */
export type OrderMember = (order: MemberOrder) => Promise<MemberOutcome>
