import type { FailureCode } from '../facts.js'

// How often creates fail at a place, as far as was seen lately.

/** Creates that failed at a place lately, the older ones counting less. */
export interface Failures {
  /** As of now. */
  readonly failures: number
  /** How many were asked for in the time before the latest of them. */
  readonly creates: number
}

/** A failed create counts half after this. */
export const failureHalfLifeMs = 30 * 60_000
/** What happens but once is nobody's habit. */
const fewestFailures = 1.5
/** From this share of creates on a place fails often, and from the other one more often than not. */
const often = 0.1
const mostly = 0.5

/** Whether a create that failed so says anything of the place. What the order, the account or a limit of calls is to blame for does not. */
export function blamesPlace(code: FailureCode): boolean {
  switch (code) {
    case 'CAPACITY':
    case 'UNAVAILABLE':
    case 'TIMEOUT':
    case 'CONFLICT':
    case 'INTERNAL':
      return true
    case 'QUOTA':
    case 'INVALID_SPEC':
    case 'CREDENTIALS':
    case 'RATE_LIMITED':
      return false
  }
}

/** What is left of a number of failures after a time. */
export function decayed(failures: number, ageMs: number): number {
  return failures * 0.5 ** (Math.max(0, ageMs) / failureHalfLifeMs)
}

/** 0: it works, as far as is known; 1: creates fail there often; 2: more often than not. */
export function failingLevel(seen: Failures | null): 0 | 1 | 2 {
  if (seen === null || seen.failures < fewestFailures) return 0
  const rate = seen.failures / Math.max(seen.creates, seen.failures)
  return rate < often ? 0 : rate < mostly ? 1 : 2
}

/** For people. */
export function describeFailures(seen: Failures | null): string {
  if (seen === null) return ''
  const failed = Math.round(seen.failures)
  return `creates keep failing there: ${failed} of the latest ${Math.max(seen.creates, failed)}`
}
