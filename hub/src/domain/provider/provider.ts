export type ProviderKind = 'STATIC' | 'DYNAMIC'
export type ProviderConnection = 'PENDING' | 'CONNECTED' | 'DISCONNECTED'
export type Health = 'HEALTHY' | 'DEGRADED' | 'UNHEALTHY'
export const capabilities = [
  'POWER',
  'REINSTALL',
  'INSPECT',
  'OFFERINGS',
  'VALIDATE',
  'LIST',
  'REMOVE_ORPHAN',
  'RESCUE',
  'CONSOLE',
  'ADOPT',
] as const
export type Capability = (typeof capabilities)[number]

/** How much of a rate limit is left. */
export interface BudgetFacts {
  readonly name: string
  readonly limit: number
  readonly remaining: number
  readonly resetsInMs: number
}

/** The same, as it is stored. */
export interface StoredBudget extends BudgetFacts {
  /** ISO 8601. */
  readonly toldAt: string
}
