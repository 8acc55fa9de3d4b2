/** The sorts of failure that the hub tells apart; see slipway.provider.v1.FailureCode for what it does about each. */
export type FailureCode =
  | 'CAPACITY'
  | 'QUOTA'
  | 'INVALID_SPEC'
  | 'CREDENTIALS'
  | 'CONFLICT'
  | 'RATE_LIMITED'
  | 'UNAVAILABLE'
  | 'TIMEOUT'
  | 'INTERNAL'

const retryableByDefault: Readonly<Record<FailureCode, boolean>> = {
  CAPACITY: false,
  QUOTA: false,
  INVALID_SPEC: false,
  CREDENTIALS: true,
  CONFLICT: true,
  RATE_LIMITED: true,
  UNAVAILABLE: true,
  TIMEOUT: true,
  INTERNAL: true,
}

export interface ProviderErrorOptions {
  /** Default: by code; CAPACITY, QUOTA and INVALID_SPEC are not retried here. */
  readonly retryable?: boolean
  readonly retryAfterMs?: number
  /** The cloud's own error code. */
  readonly externalCode?: string
  readonly cause?: unknown
}

/** A failure that the hub can act on. Throw it from any function of a provider. The message is shown to people: no secrets. */
export class ProviderError extends Error {
  override readonly name = 'ProviderError'
  readonly code: FailureCode
  readonly retryable: boolean
  readonly retryAfterMs: number | undefined
  readonly externalCode: string | undefined

  constructor(code: FailureCode, message: string, options: ProviderErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.retryable = options.retryable ?? retryableByDefault[code]
    this.retryAfterMs = options.retryAfterMs
    this.externalCode = options.externalCode
  }

  /** Makes a ProviderError of anything thrown; what is not one already is INTERNAL, or TIMEOUT for a timed-out signal. */
  static from(thrown: unknown): ProviderError {
    if (thrown instanceof ProviderError) return thrown
    if (thrown instanceof Error) {
      const code = thrown.name === 'TimeoutError' ? 'TIMEOUT' : 'INTERNAL'
      return new ProviderError(code, thrown.message, { cause: thrown })
    }
    return new ProviderError('INTERNAL', String(thrown))
  }
}

export type StopReason = 'revoked' | 'changed' | 'stopping' | 'waiting'

/** Thrown into work that must stop at once: the claim is lost, the wish has changed, the process is stopping, or the work waits for the machine. Never swallow it. */
export class Stopped extends Error {
  override readonly name = 'Stopped'
  readonly why: StopReason
  /** With `waiting`: when to look though nobody called, in ms. */
  readonly lookAfterMs: number

  constructor(why: StopReason, message: string, lookAfterMs = 0) {
    super(message)
    this.why = why
    this.lookAfterMs = lookAfterMs
  }
}
