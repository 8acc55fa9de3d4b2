import { create } from '@bufbuild/protobuf'
import { Code, ConnectError } from '@connectrpc/connect'
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from '@slipway/proto/google/rpc'
import { HubError, type StatusName } from '../domain/error/errors.js'
import { isConnectionLoss, violatedConstraint } from '../store/database.js'

const codes: Readonly<Record<StatusName, Code>> = {
  INVALID_ARGUMENT: Code.InvalidArgument,
  NOT_FOUND: Code.NotFound,
  ALREADY_EXISTS: Code.AlreadyExists,
  PERMISSION_DENIED: Code.PermissionDenied,
  UNAUTHENTICATED: Code.Unauthenticated,
  FAILED_PRECONDITION: Code.FailedPrecondition,
  ABORTED: Code.Aborted,
  OUT_OF_RANGE: Code.OutOfRange,
  RESOURCE_EXHAUSTED: Code.ResourceExhausted,
  UNAVAILABLE: Code.Unavailable,
  DEADLINE_EXCEEDED: Code.DeadlineExceeded,
  INTERNAL: Code.Internal,
}

/** What a caller is answered for anything thrown, and whether it is a defect of ours. */
export function toConnectError(
  thrown: unknown,
  requestId: string,
): { readonly error: ConnectError; readonly defect: boolean } {
  const known = toHubError(thrown)
  if (known === undefined) {
    const error = new HubError(
      'INTERNAL',
      `something went wrong in the hub; its log has more under request id ${requestId}`,
    )
    return { error: encode(error, requestId), defect: true }
  }
  return { error: known instanceof ConnectError ? known : encode(known, requestId), defect: false }
}

function encode(error: HubError, requestId: string): ConnectError {
  const retry = error.retryAfterMs
  return new ConnectError(error.message, codes[error.status], { 'x-request-id': requestId }, [
    {
      desc: ErrorInfoSchema,
      value: create(ErrorInfoSchema, {
        reason: error.reason,
        domain: 'slipway',
        metadata: { ...error.metadata, request_id: requestId },
      }),
    },
    ...(error.violations.length === 0
      ? []
      : [
          {
            desc: BadRequestSchema,
            value: create(BadRequestSchema, {
              fieldViolations: error.violations.map((violation) => ({ ...violation })),
            }),
          },
        ]),
    ...(retry === undefined
      ? []
      : [
          {
            desc: RetryInfoSchema,
            value: create(RetryInfoSchema, {
              retryDelay: { seconds: BigInt(Math.floor(retry / 1000)), nanos: (retry % 1000) * 1_000_000 },
            }),
          },
        ]),
  ])
}

/** Undefined: nothing that we know. A ConnectError is passed on where the library itself refused in a way that needs no more words. */
function toHubError(thrown: unknown): HubError | ConnectError | undefined {
  if (thrown instanceof HubError) return thrown
  if (thrown instanceof ConnectError) return fromLibrary(thrown)
  if (isBrokenOff(thrown)) return new ConnectError('the caller went away', Code.Canceled)
  const constraint = violatedConstraint(thrown)
  if (constraint !== undefined && /_name$/.test(constraint))
    return new HubError('NAME_TAKEN', 'the name is in use; choose another one')
  if (isConnectionLoss(thrown)) {
    return new HubError('DATABASE_UNAVAILABLE', 'the database does not answer; try again', {
      retryAfterMs: 1_000,
      cause: thrown,
    })
  }
  return undefined
}

/** What the library itself refuses or what a caller broke off needs no more words; a missed deadline gets its reason. */
function fromLibrary(error: ConnectError): HubError | ConnectError {
  return error.code === Code.DeadlineExceeded
    ? new HubError('DEADLINE_EXCEEDED', 'the call took longer than its deadline allows')
    : error
}

/** What Node says of a response whose reader is gone: cut while written to, or destroyed before the next message of a watch. */
const brokenOff = new Set(['ERR_STREAM_PREMATURE_CLOSE', 'ERR_STREAM_DESTROYED', 'ERR_HTTP2_INVALID_STREAM'])

/** The caller went away in the middle: nobody's defect. */
function isBrokenOff(thrown: unknown): boolean {
  if (!(thrown instanceof Error)) return false
  // ECONNRESET is not among them: it may as well be the database's connection, and who went away reads no answer.
  return thrown.name === 'AbortError' || ('code' in thrown && brokenOff.has(String(thrown.code)))
}
