import { Code } from '@connectrpc/connect'
import { SlipwayError } from '@slipway/sdk/client'

/** What a failed call amounts to. */
export interface Failure {
  /** `fail`: refused, and nothing happened. `info`: it may or may not have happened, or may yet. */
  readonly type: 'fail' | 'info'
  readonly code: string
  readonly reason: string
  readonly message: string
}

const refusals = new Set([
  Code.InvalidArgument,
  Code.NotFound,
  Code.AlreadyExists,
  Code.PermissionDenied,
  Code.Unauthenticated,
  Code.FailedPrecondition,
  Code.OutOfRange,
  Code.Unimplemented,
])

/** Judges what a call threw: only an answer of the hub itself that names its reason is a refusal. */
export function failureOf(thrown: unknown): Failure {
  const error = SlipwayError.of(thrown)
  const refused = error.reason !== '' && (refusals.has(error.code) || error.reason === 'ETAG_MISMATCH')
  return {
    type: refused ? 'fail' : 'info',
    code: Code[error.code],
    reason: error.reason,
    message: error.rawMessage.slice(0, 300),
  }
}
