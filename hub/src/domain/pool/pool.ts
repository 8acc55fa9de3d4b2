import { matchesLabels, parseLabelSelector } from '../selector.js'
import type { Labels } from '../facts.js'

// Pools of providers, and which of them a workspace may claim from.

export const claimTimes = ['WORKSPACE_CREATED', 'FIRST_ORDER', 'MANUAL'] as const
export type ClaimTime = (typeof claimTimes)[number]

/** As far as it matters for who may claim. */
export interface Pool {
  readonly id: string
  readonly name: string
  readonly family: string
  /** Empty: any. */
  readonly region: string
  readonly claimOn: ClaimTime
  /** Names; empty: any. */
  readonly organizations: readonly string[]
  readonly workspaceSelector: string
  readonly trial: boolean
  readonly unlessOwn: boolean
}

/** Who might claim, and what it has. */
export interface Claimant {
  readonly organization: string
  readonly labels: Labels
  /** Pools that it has a provider of. */
  readonly claimedPoolIds: ReadonlySet<string>
  /** Pools with a trial that its organization has tried, and so cannot try again. */
  readonly triedPoolIds: ReadonlySet<string>
  /** Families that it can use a provider of that is its own, or its organization's. */
  readonly ownFamilies: ReadonlySet<string>
}

/** What is to be placed, as far as it matters for a claim. */
export interface ClaimOccasion {
  /** Families that could serve it; undefined: any. */
  readonly families: ReadonlySet<string> | undefined
  /** Regions that it may be in; empty: any. */
  readonly regions: readonly string[]
}

/** Why a workspace gets nothing of a pool by itself. */
export type PoolRefusal =
  | 'MANUAL'
  | 'CLAIMED'
  | 'TRIED'
  | 'OTHER_ORGANIZATION'
  | 'OTHER_WORKSPACE'
  | 'HAS_OWN'
  | 'OTHER_FAMILY'
  | 'OTHER_REGION'

/**
 * Whether a workspace gets a provider of a pool by itself.
 *
 * @param occasion the order that asks for it; undefined: the workspace is just being created.
 * @returns undefined where it does.
 */
export function refusalOf(
  pool: Pool,
  claimant: Claimant,
  occasion: ClaimOccasion | undefined,
): PoolRefusal | undefined {
  if (pool.claimOn === 'MANUAL' || (occasion === undefined && pool.claimOn !== 'WORKSPACE_CREATED')) return 'MANUAL'
  if (claimant.claimedPoolIds.has(pool.id)) return 'CLAIMED'
  if (pool.trial && claimant.triedPoolIds.has(pool.id)) return 'TRIED'
  if (pool.organizations.length > 0 && !pool.organizations.includes(claimant.organization)) return 'OTHER_ORGANIZATION'
  if (!matchesLabels(parseLabelSelector(pool.workspaceSelector), claimant.labels)) return 'OTHER_WORKSPACE'
  if (pool.unlessOwn && claimant.ownFamilies.has(pool.family)) return 'HAS_OWN'
  if (occasion === undefined) return undefined
  if (occasion.families !== undefined && !occasion.families.has(pool.family)) return 'OTHER_FAMILY'
  const elsewhere = occasion.regions.length > 0 && pool.region !== '' && !occasion.regions.includes(pool.region)
  return elsewhere ? 'OTHER_REGION' : undefined
}

/** What is known of something claimed, for whether it is to be given back. */
export interface ClaimStanding {
  readonly workspaceGone: boolean
  readonly trialEndsAt: Date | null
  /** Since when nothing has been there; null: something is. */
  readonly idleSince: Date | null
  /** Null: however long it has been empty. */
  readonly idleReleaseMs: number | null
}

/** Why something claimed is given back now; undefined: it is not. Never while anything is there. */
export function releaseReasonOf(
  { workspaceGone, trialEndsAt, idleSince, idleReleaseMs }: ClaimStanding,
  now: Date,
): 'WORKSPACE_DELETED' | 'TRIAL_OVER' | 'IDLE' | undefined {
  if (idleSince === null) return undefined
  if (workspaceGone) return 'WORKSPACE_DELETED'
  if (trialEndsAt !== null && trialEndsAt.getTime() <= now.getTime()) return 'TRIAL_OVER'
  if (idleReleaseMs !== null && idleSince.getTime() + idleReleaseMs <= now.getTime()) return 'IDLE'
  return undefined
}
