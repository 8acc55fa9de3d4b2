import type { HostState } from '../host/host.js'
import type { Member } from './plan.js'

/** At least this long after its provider has come back before silence is held against a member. */
const reconnectGraceMs = 2 * 60_000

/** A member's host, as far as its set judges it. */
export interface MemberFacts {
  readonly id: string
  readonly ordinal: number
  readonly revision: number
  readonly domain: string
  readonly protected: boolean
  readonly state: HostState
  readonly stateAt: Date
  readonly createdAt: Date
  readonly readyAt: Date | null
  /** Null: nothing was ordered of a provider yet. */
  readonly providerId: string | null
  /** Since when that provider has been connected. Null: it is not. */
  readonly connectedSince: Date | null
}

/**
 * How a member is doing. In ERROR it is unhealthy, and where it is not READY so long after it was ordered, or after it was READY last: but silence is held against
 * nobody whose provider cannot be seen, has only just come back, or while the hub itself has (`patient`).
 */
export function judgeMember(
  facts: MemberFacts,
  clock: { readonly now: Date; readonly deadlineMs: number; readonly patient: boolean },
): Member {
  const visible = facts.providerId === null || facts.connectedSince !== null
  return {
    id: facts.id,
    ordinal: facts.ordinal,
    revision: facts.revision,
    domain: facts.domain,
    protected: facts.protected,
    leaving: facts.state === 'RELEASING',
    visible,
    health: healthOf(facts, visible, clock),
  }
}

function healthOf(
  facts: MemberFacts,
  visible: boolean,
  { now, deadlineMs, patient }: { readonly now: Date; readonly deadlineMs: number; readonly patient: boolean },
): Member['health'] {
  if (facts.state === 'READY') return 'ready'
  if (facts.state === 'ERROR') return 'failed'
  if (!visible || patient) return 'starting'
  const since = facts.readyAt === null ? facts.createdAt : facts.stateAt
  const deadline = since.getTime() + deadlineMs
  const seenFor = facts.connectedSince === null ? Infinity : now.getTime() - facts.connectedSince.getTime()
  return now.getTime() >= deadline && seenFor >= Math.min(reconnectGraceMs, deadlineMs) ? 'failed' : 'starting'
}

/** A set's members are named after it. */
export function memberName(set: string, ordinal: number): string {
  return `${set}-${ordinal}`
}
