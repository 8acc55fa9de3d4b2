import { Code, ConnectError } from '@connectrpc/connect'
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from '@slipway/proto/google/rpc'

export interface FieldViolation {
  readonly field: string
  readonly description: string
}

/**
 * What the transport says where the server took nothing of a call (RFC 9113, section 8.7), or where its connection was closed before the status came: between two messages, or
 * in one.
 */
const cutOff =
  /NGHTTP2_REFUSED_STREAM|^protocol error: (missing (status|trailer|EndStreamResponse)|incomplete envelope|promised \d+ bytes)/

/** What Node says of a stream or a connection that ended beneath a call: https://nodejs.org/api/errors.html. */
const endedBeneath =
  /^(ERR_STREAM_(PREMATURE_CLOSE|DESTROYED|WRITE_AFTER_END)|ERR_HTTP2_(STREAM|SESSION)_ERROR|ERR_HTTP2_INVALID_(STREAM|SESSION)|ERR_HTTP2_GOAWAY_SESSION|ERR_HTTP2_(STREAM|PING)_CANCEL|E(CONN|PIPE|HOSTUNREACH|NETUNREACH|TIMEDOUT).*)$/

/** What Node calls that from which an error comes; empty where nothing of Node's is beneath it. */
function codeBeneath(error: Error): string {
  for (let cause = error.cause; cause instanceof Error; cause = cause.cause)
    if ('code' in cause && typeof cause.code === 'string') return cause.code
  return ''
}

/** A refusal by the hub, with what it said about it in a form that programs can act on. It is a ConnectError, so that the library passes it on as it is. */
export class SlipwayError extends ConnectError {
  /** From the hub's error catalogue, for example `CLASS_NOT_FOUND`; empty where the hub never answered. */
  readonly reason: string
  readonly violations: readonly FieldViolation[]
  /** What the refusal is about: names, limits, versions. */
  readonly about: Readonly<Record<string, string>>
  readonly retryAfterMs: number | undefined

  constructor(error: ConnectError) {
    super(error.rawMessage, error.code, error.metadata, undefined, error)
    this.details = error.details
    const [info] = error.findDetails(ErrorInfoSchema)
    const [request] = error.findDetails(BadRequestSchema)
    const [retry] = error.findDetails(RetryInfoSchema)
    this.reason = info?.reason ?? ''
    this.about = info?.metadata ?? {}
    this.violations = (request?.fieldViolations ?? []).map(({ field, description }) => ({ field, description }))
    this.retryAfterMs =
      retry?.retryDelay === undefined
        ? undefined
        : Number(retry.retryDelay.seconds) * 1000 + retry.retryDelay.nanos / 1e6
  }

  get notFound(): boolean {
    return this.code === Code.NotFound
  }

  /** No hub could be reached, or it cannot serve now, or the connection to it ended in the middle. */
  get unavailable(): boolean {
    if (this.code === Code.Unavailable) return true
    // Whatever a hub says, it says why. A connection that was reset is ABORTED to the transport.
    if (this.reason !== '') return false
    return this.code === Code.Aborted || cutOff.test(this.rawMessage) || endedBeneath.test(codeBeneath(this))
  }

  get unauthenticated(): boolean {
    return this.code === Code.Unauthenticated || this.code === Code.PermissionDenied
  }

  /** ConnectError's own test looks at the name alone, and would take any of its errors for one of these. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return (
      typeof value === 'object' && value !== null && Object.prototype.isPrototypeOf.call(SlipwayError.prototype, value)
    )
  }

  /** Makes a SlipwayError of whatever a call threw. */
  static of(thrown: unknown): SlipwayError {
    return thrown instanceof SlipwayError ? thrown : new SlipwayError(ConnectError.from(thrown))
  }
}
