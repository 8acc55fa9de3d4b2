import { isKeyOf, parseOwnershipKey } from '../names.js'
import type { KeepReason, Kept, OrphanFacts, Surroundings } from './orphan.js'

// When an orphan may be removed. Removing too late costs money, removing wrongly costs a server in use: every rule alone is enough to keep one.

/** A provider that refused is not asked again before. */
const refusalRestMs = 10 * 60_000

interface Rule {
  readonly reason: KeepReason
  /** Why it keeps this orphan; undefined: it has nothing against its removal. */
  readonly keeps: (orphan: OrphanFacts, around: Surroundings) => string | undefined
}

/** What nobody overrides: it protects what is in use, and what is not ours. */
const binding: readonly Rule[] = [
  {
    reason: 'FOREIGN_HUB',
    keeps: ({ ownershipKey }, { hubId }) => (isKeyOf(hubId, ownershipKey) ? undefined : 'its key is of another hub'),
  },
  {
    reason: 'KEY_UNREADABLE',
    keeps: ({ ownershipKey }) =>
      parseOwnershipKey(ownershipKey) === undefined ? 'its key names no request' : undefined,
  },
  {
    reason: 'REQUEST_LIVE',
    keeps: ({ request, externalIdInUse }) => {
      if (externalIdInUse) return 'a live request or machine has this very id out there'
      if (request === undefined || request.state === 'GONE') return undefined
      return `${request.name} is ${request.state}: what it does not need is for its own provider to remove`
    },
  },
  {
    reason: 'ADOPTION',
    keeps: ({ request }) =>
      request?.wasAdopting === true
        ? `${request.name} was to adopt it, and did not: it was there before, and is not ours; take the key off it by hand`
        : undefined,
  },
]

const unsupported: Rule = {
  reason: 'REMOVAL_UNSUPPORTED',
  keeps: (_orphan, { canRemove }) => (canRemove ? undefined : 'its provider cannot remove orphans'),
}

/** What the policy keeps to, and a person may override. */
const cautious: readonly Rule[] = [
  {
    reason: 'KEPT_BY_PERSON',
    keeps: ({ keptBy }) => (keptBy === null ? undefined : `${keptBy} said that it is to be kept`),
  },
  unsupported,
  {
    reason: 'POLICY_REPORTS',
    keeps: (_orphan, { policy }) => (policy.mode === 'REMOVE' ? undefined : "the provider's policy is to report"),
  },
  {
    reason: 'RESTORED',
    keeps: (_orphan, { restoredAt, restoreGraceMs, now }) =>
      until('the database was restored from a backup', restoredAt, restoreGraceMs, now),
  },
  {
    reason: 'CREATE_IN_FLIGHT',
    keeps: ({ request }, around) => {
      if (request === undefined) return undefined
      const what = `${request.name} went a short time ago${request.createInDoubt ? ' with a create in doubt' : ''}`
      if (request.goneAt === null) return what
      return until(what, request.goneAt, createWindowMs(around) + around.graceMs, around.now)
    },
  },
  {
    reason: 'NOT_LISTED',
    keeps: ({ listed }) => (listed ? undefined : 'the last complete listing did not show it'),
  },
  {
    reason: 'SEEN_ONCE',
    keeps: ({ sightings }) => (sightings >= 2 ? undefined : 'it was seen in one complete listing only'),
  },
  {
    reason: 'TOO_YOUNG',
    keeps: ({ firstSeenAt }, around) =>
      until('it was seen first a short time ago', firstSeenAt, oldEnoughMs(around), around.now),
  },
  {
    reason: 'REFUSED',
    keeps: ({ refusedAt }, { now }) => until('its provider refused to remove it', refusedAt, refusalRestMs, now),
  },
  {
    reason: 'REMOVAL_STOPPED',
    keeps: (_orphan, { stopped }) => (stopped ? stoppedText : undefined),
  },
]

const stoppedText = 'too many would have gone at once; removal waits for a person'

/** Why the policy does not let the hub remove an orphan, judged by itself. Undefined: it may go. */
export function keptByPolicy(orphan: OrphanFacts, around: Surroundings): Kept | undefined {
  return firstOf([...binding, ...cautious], orphan, around)
}

/** Why not even a person can have an orphan removed. Undefined: they can. */
export function keptFromEverybody(orphan: OrphanFacts, around: Surroundings): Kept | undefined {
  return firstOf([...binding, unsupported], orphan, around)
}

function firstOf(rules: readonly Rule[], orphan: OrphanFacts, around: Surroundings): Kept | undefined {
  for (const { reason, keeps } of rules) {
    const message = keeps(orphan, around)
    if (message !== undefined) return { reason, message }
  }
  return undefined
}

/** An order to remove that was not carried out yet. */
export interface StandingOrder {
  readonly orphan: OrphanFacts
  readonly byPerson: boolean
}

/** Why an order is taken back instead of being given (again). Undefined: it stands. */
export function takenBack({ orphan, byPerson }: StandingOrder, around: Surroundings): Kept | undefined {
  const { orderedAt } = orphan
  // An order that came out of a backup was given by somebody who knew another world.
  if (orderedAt === null || (around.restoredAt !== null && orderedAt.getTime() <= around.restoredAt.getTime()))
    return { reason: 'RESTORED', message: 'the order is older than the restore of the database' }
  return byPerson ? keptFromEverybody(orphan, around) : keptByPolicy(orphan, around)
}

/** What a complete listing leads to for one orphan. */
export type Verdict =
  | { readonly kind: 'keep'; readonly kept: Kept }
  | { readonly kind: 'remove' }
  /** Its removal is under way already. */
  | { readonly kind: 'ordered' }

export interface Pass {
  /** In the order of the orphans given. */
  readonly verdicts: readonly Verdict[]
  /** Set where removal stops itself: how many would have gone, and how many may. */
  readonly stop: { readonly eligible: number; readonly allowed: number } | undefined
}

/**
 * Judges all orphans of a provider after one listing of it.
 *
 * @param listing whether it was read to its end, and how many resources it showed under our hub's key, orphans and others.
 */
export function judgePass(
  orphans: readonly OrphanFacts[],
  listing: { readonly complete: boolean; readonly owned: number },
  around: Surroundings,
): Pass {
  const unlisted: Kept = { reason: 'NOT_LISTED', message: 'the listing was not read to its end' }
  const judged = orphans.map((orphan): Verdict => {
    if (orphan.orderedAt !== null) return { kind: 'ordered' }
    const kept = listing.complete ? keptByPolicy(orphan, around) : unlisted
    return kept === undefined ? { kind: 'remove' } : { kind: 'keep', kept }
  })
  const eligible = judged.filter(({ kind }) => kind === 'remove').length
  // One is always allowed: a share of a small fleet would stop at the first.
  const allowed = Math.max(1, Math.floor((listing.owned * around.policy.maxPercent) / 100))
  if (eligible > allowed) {
    const kept: Kept = { reason: 'REMOVAL_STOPPED', message: stoppedText }
    return { verdicts: judged.map((verdict) => instead(verdict, kept)), stop: { eligible, allowed } }
  }
  const { maxPerPass } = around.policy
  const kept: Kept = { reason: 'LIMIT_REACHED', message: `${maxPerPass} removals were ordered after this listing` }
  let left = maxPerPass
  return {
    verdicts: judged.map((verdict) => (verdict.kind === 'remove' && left-- <= 0 ? { kind: 'keep', kept } : verdict)),
    stop: undefined,
  }
}

function instead(verdict: Verdict, kept: Kept): Verdict {
  return verdict.kind === 'remove' ? { kind: 'keep', kept } : verdict
}

/** After this long, a create has happened and shows, or never will. */
function createWindowMs({ effectTimeoutMs, listingLagMs }: Surroundings): number {
  return effectTimeoutMs + listingLagMs
}

function oldEnoughMs(around: Surroundings): number {
  return Math.max(around.policy.minAgeMs, createWindowMs(around))
}

function until(what: string, from: Date | null, ms: number, now: Date): string | undefined {
  if (from === null) return undefined
  const end = new Date(from.getTime() + ms)
  return end > now ? `${what}; until ${end.toISOString()}` : undefined
}
