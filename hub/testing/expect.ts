import type { Test } from 'tap'
import { HubError, type ErrorReason } from '../src/domain/error/errors.js'

/** Passes where the work is refused for that reason. */
export async function expectRefusal(
  t: Test,
  work: Promise<unknown>,
  reason: ErrorReason,
  message = `refused: ${reason}`,
): Promise<void> {
  const outcome = await work.then(
    () => 'nothing was refused',
    (error: unknown) => (error instanceof HubError ? error.reason : error),
  )
  t.equal(outcome, reason, message)
}
