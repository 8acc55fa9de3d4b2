import { ProviderError, type FailureCode } from '@slipway/sdk'

/** What the API says when it refuses a call. */
export interface ApiProblem {
  readonly status: number
  /** The API's own word for it. */
  readonly code: string
  readonly message: string
  readonly retryAfterMs?: number
}

/** What the hub is to make of each of the API's words. What is not here goes by its status. */
const byCode: Readonly<Record<string, FailureCode>> = {
  out_of_stock: 'CAPACITY',
  limit_reached: 'QUOTA',
  name_taken: 'CONFLICT',
  locked: 'CONFLICT',
  invalid: 'INVALID_SPEC',
}

/** A refusal of the API in the hub's terms: the code decides what the hub does. */
export function toProviderError({ status, code, message, retryAfterMs }: ApiProblem): ProviderError {
  return new ProviderError(byCode[code] ?? byStatus(status), message, {
    externalCode: code,
    ...(retryAfterMs !== undefined && { retryAfterMs }),
  })
}

function byStatus(status: number): FailureCode {
  if (status === 401 || status === 403) return 'CREDENTIALS'
  if (status === 429) return 'RATE_LIMITED'
  return status >= 500 ? 'UNAVAILABLE' : 'INTERNAL'
}
