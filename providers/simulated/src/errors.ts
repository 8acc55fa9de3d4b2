import { ProviderError, type FailureCode } from '@slipway/sdk'
import type { CloudCode } from './facts.js'

/** A call that a simulated API refused, or gave no answer to. */
export class CloudError extends Error {
  override readonly name = 'CloudError'
  readonly code: CloudCode
  readonly retryAfterMs: number | undefined

  constructor(code: CloudCode, message: string, retryAfterMs?: number) {
    super(message)
    this.code = code
    this.retryAfterMs = retryAfterMs
  }
}

const failureCodes: Readonly<Record<CloudCode, FailureCode>> = {
  unauthorized: 'CREDENTIALS',
  'rate-limited': 'RATE_LIMITED',
  unavailable: 'UNAVAILABLE',
  timeout: 'TIMEOUT',
  invalid: 'INVALID_SPEC',
  'name-taken': 'CONFLICT',
  'out-of-capacity': 'CAPACITY',
  'over-quota': 'QUOTA',
  'not-found': 'INTERNAL',
  conflict: 'CONFLICT',
}

/** What a refusal means to the hub. */
export function toProviderError(error: CloudError): ProviderError {
  return new ProviderError(failureCodes[error.code], error.message, {
    externalCode: error.code,
    cause: error,
    ...(error.retryAfterMs !== undefined && { retryAfterMs: error.retryAfterMs }),
  })
}

/** Whether a call failed for this very reason, whoever has translated it since. */
export function isRefusal(thrown: unknown, code: CloudCode): boolean {
  if (thrown instanceof CloudError) return thrown.code === code
  return thrown instanceof ProviderError && thrown.externalCode === code
}
