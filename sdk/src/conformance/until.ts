import { setTimeout as delay } from 'node:timers/promises'

/** What a case says when something does not hold. */
export class CaseFailure extends Error {
  override readonly name = 'CaseFailure'
}

/** What a case says when it cannot tell here, with the reason. */
export class CaseSkipped extends Error {
  override readonly name = 'CaseSkipped'
}

const lookPauseMs = 10
/** What one look or one pause counts for at most: where the machine itself stands still, that is not the provider's doing. */
const maxCountedMs = 250

/**
 * Waits until `look` gives something other than undefined or false.
 *
 * @param timeoutMs how long at most, of time in which this process could run. @throws CaseFailure that says what was waited for.
 */
export async function until<Value>(
  what: string,
  look: () => Value | undefined | false | Promise<Value | undefined | false>,
  timeoutMs: number,
): Promise<Value> {
  let waitedMs = 0
  let atMs = performance.now()
  const count = (): void => {
    const nowMs = performance.now()
    waitedMs += Math.min(nowMs - atMs, maxCountedMs)
    atMs = nowMs
  }
  for (;;) {
    const value = await look()
    if (value !== undefined && value !== false) return value
    count()
    if (waitedMs > timeoutMs) throw new CaseFailure(`waited ${Math.round(timeoutMs)} ms in vain for ${what}`)
    await delay(lookPauseMs)
    count()
  }
}

/** @throws CaseFailure with the message where the condition does not hold. */
export function expect(condition: boolean, message: string): asserts condition {
  if (!condition) throw new CaseFailure(message)
}

/** @throws CaseFailure that shows both where they are not the same. */
export function expectEqual(actual: unknown, expected: unknown, what: string): void {
  if (!Object.is(actual, expected)) throw new CaseFailure(`${what}: expected ${show(expected)}, got ${show(actual)}`)
}

/** A value for people. */
export function show(value: unknown): string {
  if (typeof value === 'bigint') return String(value)
  return (
    JSON.stringify(value, (_key, inner: unknown) => (typeof inner === 'bigint' ? String(inner) : inner)) ?? 'nothing'
  )
}
