import { backOffMs, sleep } from '../internal/timing.js'
import { ProviderError, type FailureCode } from './errors.js'

const transientCodes: ReadonlySet<FailureCode> = new Set(['UNAVAILABLE', 'TIMEOUT', 'RATE_LIMITED'])
const tries = 4
const baseMs = 250
const maxMs = 5_000

/** Whether the same call may well succeed a moment later. */
export function isTransient(error: ProviderError): boolean {
  return error.retryable && transientCodes.has(error.code)
}

/** Repeats a call that only looks, a few times, where it fails for the moment. Longer pauses are the hub's business. @throws what the last try threw. */
export async function retryTransient<Result>(signal: AbortSignal, look: () => Promise<Result>): Promise<Result> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await look()
    } catch (thrown) {
      const error = ProviderError.from(thrown)
      signal.throwIfAborted()
      if (!isTransient(error) || attempt === tries || (error.retryAfterMs ?? 0) > maxMs) throw thrown
      await sleep((error.retryAfterMs ?? 0) + backOffMs(attempt, baseMs, maxMs), signal)
    }
  }
}
