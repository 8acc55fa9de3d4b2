import type { RequestState } from '../request/request.js'

/** What becomes of orphans: shown to people, or removed by the hub. */
export const orphanModes = ['REPORT', 'REMOVE'] as const
export type OrphanMode = (typeof orphanModes)[number]

/** A provider's policy. */
export interface OrphanPolicy {
  readonly mode: OrphanMode
  /** Seen for this long, at least. */
  readonly minAgeMs: number
  /** Removals ordered after one complete listing, at most. */
  readonly maxPerPass: number
  /** Where a greater share of what is listed under our key would go after one listing, in percent, none does. */
  readonly maxPercent: number
}

/**
 * REPORT, because what a record does not know may still be in use: after a restore from backup, or where a copy of the database, which has the same hub id, runs
 * beside the first. An orphan that is left alone costs money and is seen; a server removed by mistake is lost.
 */
export const defaultOrphanPolicy: OrphanPolicy = { mode: 'REPORT', minAgeMs: 3_600_000, maxPerPass: 5, maxPercent: 10 }

/** Why an orphan is left alone, the most fundamental first: the first that applies is told. */
export const keepReasons = [
  'FOREIGN_HUB',
  'KEY_UNREADABLE',
  'REQUEST_LIVE',
  'ADOPTION',
  'KEPT_BY_PERSON',
  'REMOVAL_UNSUPPORTED',
  'POLICY_REPORTS',
  'RESTORED',
  'CREATE_IN_FLIGHT',
  'NOT_LISTED',
  'SEEN_ONCE',
  'TOO_YOUNG',
  'REFUSED',
  'REMOVAL_STOPPED',
  'LIMIT_REACHED',
] as const
export type KeepReason = (typeof keepReasons)[number]

export interface Kept {
  readonly reason: KeepReason
  /** For people. */
  readonly message: string
}

/** What our records say of the request that an ownership key names. */
export interface RequestFacts {
  readonly name: string
  readonly state: RequestState
  readonly goneAt: Date | null
  readonly createInDoubt: boolean
  /** It was to take over a server that existed before, and its host was not known to be READY when it went. */
  readonly wasAdopting: boolean
}

/** One orphan, as our records tell of it after a listing has shown it. */
export interface OrphanFacts {
  readonly id: string
  readonly ownershipKey: string
  /** Undefined: there is no record of it. */
  readonly request: RequestFacts | undefined
  /** Whether a live request or machine has its very id out there, whatever its key says. */
  readonly externalIdInUse: boolean
  readonly firstSeenAt: Date
  /** Complete listings in a row that showed it; overlapping ones count once. */
  readonly sightings: number
  /** Whether the last complete listing showed it. */
  readonly listed: boolean
  /** A person's word that it is to be kept. */
  readonly keptBy: string | null
  /** When its provider refused to remove it. */
  readonly refusedAt: Date | null
  /** When its removal was ordered, if one is under way. */
  readonly orderedAt: Date | null
}

/** What all orphans of one provider are judged by. */
export interface Surroundings {
  readonly now: Date
  readonly hubId: string
  readonly policy: OrphanPolicy
  /** How long a create may be under way at this provider, at most. */
  readonly effectTimeoutMs: number
  /** How long after it a listing may still not show what it made. */
  readonly listingLagMs: number
  readonly canRemove: boolean
  /** Added to what providers say of their own times. */
  readonly graceMs: number
  /** When the database was last restored from a backup; null: never. */
  readonly restoredAt: Date | null
  /** Nothing is removed for this long after a restore. */
  readonly restoreGraceMs: number
  /** Whether removal has stopped itself, and waits for a person. */
  readonly stopped: boolean
}
