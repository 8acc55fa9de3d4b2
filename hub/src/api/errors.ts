import { create } from '@bufbuild/protobuf'
import { Code, ConnectError } from '@connectrpc/connect'
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from '@slipway/proto/google/rpc'
import { HubError, type StatusName } from '../domain/error/errors.js'
import { sqlState, unavailableDatabase, violatedConstraint } from '../store/database.js'

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

/** A row that a policy of the database forbids, or a table that its role has no rights on. */
const rowSecurity = '42501'

/** What a caller is answered for anything thrown, and whether it is a defect of ours. */
export function toConnectError(
  thrown: unknown,
  requestId: string,
): { readonly error: ConnectError; readonly defect: boolean } {
  if (sqlState(thrown) === rowSecurity) {
    // The policy should have refused it: the second wall held, and the first has a hole.
    return { error: encode(new HubError('PERMISSION_MISSING', 'your roles do not allow it'), requestId), defect: true }
  }
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

// An error goes in a header, of which clients take no more than 8 KiB in all (grpc-java, Netty); one that takes no more breaks off the connection, with all other calls on it. And
// messages quote what callers have sent.
const maxMessageChars = 1_500
const maxValueChars = 300
const maxViolations = 10

/** The beginning of a text that is too long, as whole characters. */
function shortened(text: string, limit: number): string {
  return text.length <= limit ? text : `${text.slice(0, limit).replace(/[\uD800-\uDBFF]$/, '')}…`
}

function shortenedValues(values: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(values).map(([key, value]) => [shortened(key, maxValueChars), shortened(value, maxValueChars)]),
  )
}

function encode(error: HubError, requestId: string): ConnectError {
  const retry = error.retryAfterMs
  return new ConnectError(
    shortened(error.message, maxMessageChars),
    codes[error.status],
    { 'x-request-id': requestId },
    [
      {
        desc: ErrorInfoSchema,
        value: create(ErrorInfoSchema, {
          reason: error.reason,
          domain: 'slipway',
          metadata: { ...shortenedValues(error.metadata), request_id: requestId },
        }),
      },
      ...(error.violations.length === 0
        ? []
        : [
            {
              desc: BadRequestSchema,
              value: create(BadRequestSchema, {
                fieldViolations: error.violations
                  .slice(0, maxViolations)
                  .map((violation) => shortenedValues({ ...violation })),
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
    ],
  )
}

/** Undefined: nothing that we know. A ConnectError is passed on where the library itself refused in a way that needs no more words. */
function toHubError(thrown: unknown): HubError | ConnectError | undefined {
  if (thrown instanceof HubError) return thrown
  if (thrown instanceof ConnectError) return fromLibrary(thrown)
  if (isBrokenOff(thrown)) return new ConnectError('the caller went away', Code.Canceled)
  const constraint = violatedConstraint(thrown)
  if (constraint !== undefined && /_name(_key)?$/.test(constraint))
    return new HubError('NAME_TAKEN', 'the name is in use; choose another one')
  return unavailableDatabase(thrown)
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
