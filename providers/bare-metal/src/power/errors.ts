import { ProviderError, type FailureCode } from '@slipway/sdk'

/**
 * What can be wrong with a BMC, as far as somebody would do something else about it.
 *
 * - `unreachable`: no answer, or nobody there.
 * - `unknown-user`, `wrong-password`, `privilege`: the login is refused, or is not allowed to do this.
 * - `cipher-suite-refused`: it speaks IPMI 2.0, but not with the cipher suite asked for.
 * - `tls-identity`: somebody answers, and does not show the certificate that was pinned, or one of the given authority.
 * - `sessions-exhausted`, `busy`: it has no room for us now.
 * - `unsupported`: it cannot do this at all.
 * - `refused`: it understood, and said no.
 * - `protocol`: what it says makes no sense.
 * - `ignored`: it accepted the change and did nothing.
 * - `needs-person`: a person must do it; the message says what.
 * - `address-forbidden`: the address is none that a BMC may have.
 */
export type BmcErrorKind =
  | 'unreachable'
  | 'unknown-user'
  | 'wrong-password'
  | 'privilege'
  | 'cipher-suite-refused'
  | 'tls-identity'
  | 'sessions-exhausted'
  | 'busy'
  | 'unsupported'
  | 'refused'
  | 'protocol'
  | 'ignored'
  | 'needs-person'
  | 'address-forbidden'

interface Meaning {
  readonly code: FailureCode
  readonly retryable: boolean
  readonly retryAfterMs?: number
}

/** Many BMCs lock an account after a few wrong passwords, so a refused login is not repeated soon. */
const loginRetryMs = 10 * 60_000

/**
 * Nothing here is CREDENTIALS: that would say that the provider as a whole may not work, and its other machines would wait. Each BMC has a
 * login of its own, and a wrong one is one machine's trouble alone.
 */
const meanings: Readonly<Record<BmcErrorKind, Meaning>> = {
  unreachable: { code: 'UNAVAILABLE', retryable: true },
  'unknown-user': { code: 'UNAVAILABLE', retryable: true, retryAfterMs: loginRetryMs },
  'wrong-password': { code: 'UNAVAILABLE', retryable: true, retryAfterMs: loginRetryMs },
  privilege: { code: 'UNAVAILABLE', retryable: true, retryAfterMs: loginRetryMs },
  'cipher-suite-refused': { code: 'UNAVAILABLE', retryable: true, retryAfterMs: loginRetryMs },
  'tls-identity': { code: 'UNAVAILABLE', retryable: true, retryAfterMs: loginRetryMs },
  'sessions-exhausted': { code: 'UNAVAILABLE', retryable: true, retryAfterMs: 60_000 },
  busy: { code: 'UNAVAILABLE', retryable: true, retryAfterMs: 5_000 },
  unsupported: { code: 'INVALID_SPEC', retryable: false },
  refused: { code: 'UNAVAILABLE', retryable: true },
  protocol: { code: 'UNAVAILABLE', retryable: true },
  ignored: { code: 'UNAVAILABLE', retryable: true, retryAfterMs: 60_000 },
  'needs-person': { code: 'UNAVAILABLE', retryable: true, retryAfterMs: 15_000 },
  'address-forbidden': { code: 'INVALID_SPEC', retryable: false },
}

export interface BmcErrorOptions {
  /** The BMC's own code: an IPMI completion code as `0xc1`, an HTTP status, a Redfish message id. */
  readonly said?: string
  /** Whether the change that was asked for may have happened all the same. Default false. */
  readonly inDoubt?: boolean
  readonly retryAfterMs?: number
  readonly cause?: unknown
}

/**
 * A failure of one machine's BMC. Its `externalCode` is `bmc/<kind>`, by which conditions can be told apart; where the change may have
 * happened all the same its code is TIMEOUT, so that whoever repeats it looks first. Messages hold no secrets.
 */
export class BmcError extends ProviderError {
  readonly kind: BmcErrorKind
  readonly said: string | undefined
  readonly inDoubt: boolean

  constructor(kind: BmcErrorKind, message: string, options: BmcErrorOptions = {}) {
    const { code, retryable, retryAfterMs: usualMs } = meanings[kind]
    const waitMs = options.retryAfterMs ?? usualMs
    super(options.inDoubt === true ? 'TIMEOUT' : code, message, {
      retryable,
      externalCode: `bmc/${kind}`,
      ...(waitMs !== undefined && { retryAfterMs: waitMs }),
      ...(options.cause !== undefined && { cause: options.cause }),
    })
    this.kind = kind
    this.said = options.said
    this.inDoubt = options.inDoubt ?? false
  }

  /** Whether the BMC refused who we are, so that trying again changes nothing before a person does. */
  get refusesLogin(): boolean {
    return loginKinds.has(this.kind)
  }
}

const loginKinds: ReadonlySet<BmcErrorKind> = new Set([
  'unknown-user',
  'wrong-password',
  'privilege',
  'cipher-suite-refused',
  'tls-identity',
])

/** Whether something thrown is a BMC's failure, of one of these kinds where any are given. */
export function isBmcError(thrown: unknown, ...kinds: readonly BmcErrorKind[]): thrown is BmcError {
  return thrown instanceof BmcError && (kinds.length === 0 || kinds.includes(thrown.kind))
}
