import type { Condition } from '../facts.js'
import type { HostState } from './host.js'

// Hosts with a lifetime end by themselves, unless they are protected. The rule is here; when it is looked at, and under which lock, is the reconciler's.

/** The condition that tells of it. TRUE: the end is near, or held off. */
export const expiringType = 'Expiring'

const longestWarningMs = 60 * 60_000
/** Of a short life, the last tenth is the warning. */
const warningShare = 10

export interface ExpiringHost {
  readonly state: HostState
  readonly protected: boolean
  /** Null: never. */
  readonly expiresAt: Date | null
  readonly createdAt: Date
  readonly conditions: readonly Condition[]
}

export interface ExpiryDecision {
  /** The time is over, and nothing holds it: it is to be released. */
  readonly release: boolean
  /** The host's conditions, with what is to be said of its end. */
  readonly conditions: readonly Condition[]
  /** What is new, for its timeline. */
  readonly news: 'HostExpiring' | 'HostExpired' | 'HostExpiryHeld' | undefined
  readonly message: string
  /** When to look again by the same clock. Null: when something changes. */
  readonly lookAt: Date | null
}

/** When people are warned of the end: an hour before, or a tenth of its life where that is short. */
export function warningAt(expiresAt: Date, createdAt: Date): Date {
  const lifeMs = Math.max(0, expiresAt.getTime() - createdAt.getTime())
  return new Date(expiresAt.getTime() - Math.min(longestWarningMs, lifeMs / warningShare))
}

/** What becomes of a host for its time to end. @param now by the database's clock, the only one that counts. */
export function decideExpiry(host: ExpiringHost, now: Date): ExpiryDecision {
  const { expiresAt } = host
  const over = host.state === 'RELEASING' || host.state === 'RELEASED'
  if (expiresAt === null || over) return { ...nothing(host, now), lookAt: null }
  const warnAt = warningAt(expiresAt, host.createdAt)
  if (now.getTime() < warnAt.getTime()) return { ...nothing(host, now), lookAt: warnAt }
  const at = expiresAt.toISOString()
  if (now.getTime() < expiresAt.getTime()) {
    const message = `It is released by itself at ${at}; extend it to keep it`
    return { ...say(host, 'ExpiresSoon', message, now, 'HostExpiring'), release: false, lookAt: expiresAt }
  }
  if (host.protected) {
    const message = `Its time ended at ${at}, and it is protected: it stays until the protection is taken off`
    return { ...say(host, 'Protected', message, now, 'HostExpiryHeld'), release: false, lookAt: null }
  }
  const message = `Its time ended at ${at}`
  return { ...say(host, 'Expired', message, now, 'HostExpired'), release: true, lookAt: null }
}

function say(
  host: ExpiringHost,
  reason: string,
  message: string,
  now: Date,
  news: NonNullable<ExpiryDecision['news']>,
): Pick<ExpiryDecision, 'conditions' | 'news' | 'message'> {
  const before = host.conditions.find(({ type }) => type === expiringType)
  const known = before?.status === 'TRUE' && before.reason === reason && before.message === message
  return {
    conditions: known ? host.conditions : withCondition(host.conditions, 'TRUE', reason, message, now),
    news: known ? undefined : news,
    message,
  }
}

/** Nothing is near: whatever was said of an end is taken back. */
function nothing(host: ExpiringHost, now: Date): Omit<ExpiryDecision, 'lookAt'> {
  const before = host.conditions.find(({ type }) => type === expiringType)
  const conditions =
    before?.status === 'TRUE' && host.state !== 'RELEASING' && host.state !== 'RELEASED'
      ? withCondition(host.conditions, 'FALSE', 'Extended', '', now)
      : host.conditions
  return { release: false, conditions, news: undefined, message: '' }
}

function withCondition(
  before: readonly Condition[],
  status: Condition['status'],
  reason: string,
  message: string,
  now: Date,
): readonly Condition[] {
  const old = before.find(({ type }) => type === expiringType)
  const lastTransitionAt = old?.status === status ? old.lastTransitionAt : now.toISOString()
  return [
    ...before.filter(({ type }) => type !== expiringType),
    { type: expiringType, status, reason, message, lastTransitionAt },
  ]
}
