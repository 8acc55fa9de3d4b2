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
export function toConnectError(thrown: unknown, requestId: string, maxMessageBytes: number): { readonly error: ConnectError; readonly defect: boolean } {
  const known = toHubError(thrown, maxMessageBytes)
  if (known === undefined) {
    const error = new HubError('INTERNAL', `something went wrong in the hub; its log has more under request id ${requestId}`)
    return { error: encode(error, requestId), defect: true }
  }
  return { error: known instanceof ConnectError ? known : encode(known, requestId), defect: false }
}

function encode(error: HubError, requestId: string): ConnectError {
  const retry = error.retryAfterMs
  return new ConnectError(error.message, codes[error.status], { 'x-request-id': requestId }, [
    {
      desc: ErrorInfoSchema,
      value: create(ErrorInfoSchema, { reason: error.reason, domain: 'slipway', metadata: { ...error.metadata, request_id: requestId } }),
    },
    ...(error.violations.length === 0
      ? []
      : [{ desc: BadRequestSchema, value: create(BadRequestSchema, { fieldViolations: error.violations.map((violation) => ({ ...violation })) }) }]),
    ...(retry === undefined
      ? []
      : [
          {
            desc: RetryInfoSchema,
            value: create(RetryInfoSchema, { retryDelay: { seconds: BigInt(Math.floor(retry / 1000)), nanos: (retry % 1000) * 1_000_000 } }),
          },
        ]),
  ])
}

/** Undefined: nothing that we know. A ConnectError is passed on where the library itself refused in a way that needs no more words. */
function toHubError(thrown: unknown, maxMessageBytes: number): HubError | ConnectError | undefined {
  if (thrown instanceof HubError) return thrown
  if (thrown instanceof ConnectError) return fromLibrary(thrown, maxMessageBytes)
  const constraint = violatedConstraint(thrown)
  if (constraint !== undefined && /_name$/.test(constraint)) return new HubError('NAME_TAKEN', 'the name is in use; choose another one')
  if (isConnectionLoss(thrown)) {
    return new HubError('DATABASE_UNAVAILABLE', 'the database does not answer; try again', { retryAfterMs: 1_000, cause: thrown })
  }
  return undefined
}

/** The library refuses some calls before any of our code sees them; those get a reason too. */
function fromLibrary(error: ConnectError, maxMessageBytes: number): HubError | ConnectError {
  switch (error.code) {
    case Code.ResourceExhausted:
      return new HubError('MESSAGE_TOO_LARGE', `the message is over the limit of ${maxMessageBytes} bytes; send less`, {
        metadata: { limit_bytes: String(maxMessageBytes) },
      })
    case Code.InvalidArgument:
      return new HubError('INVALID_FIELD', error.rawMessage, { violations: [{ field: unknownKey(error.rawMessage), description: error.rawMessage }] })
    case Code.DeadlineExceeded:
      return new HubError('DEADLINE_EXCEEDED', 'the call took longer than its deadline allows')
    default:
      return error
  }
}

function unknownKey(message: string): string {
  return /key "([^"]+)"/.exec(message)?.[1] ?? ''
}
