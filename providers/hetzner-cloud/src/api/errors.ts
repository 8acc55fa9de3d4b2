import { ProviderError, type FailureCode } from '@slipway/sdk'
import type { Action, ErrorAnswer } from './types.js'

interface Meaning {
  readonly code: FailureCode
  /** Absent: as the SDK has it for the code. */
  readonly retryable?: boolean
  readonly retryAfterMs?: number
}

const busy: Meaning = { code: 'CONFLICT', retryable: true, retryAfterMs: 2_000 }
const refusedForGood: Meaning = { code: 'INVALID_SPEC' }
const down: Meaning = { code: 'UNAVAILABLE' }
const ourDefect: Meaning = { code: 'INTERNAL', retryable: false }
const unexplained: Meaning = { code: 'INTERNAL' }

/** What each error code of the API means to the hub, in answers and in failed actions. Those marked with a dagger are not in the vendor's table, but were seen. */
const meanings: Readonly<Record<string, Meaning>> = {
  resource_unavailable: { code: 'CAPACITY' },
  placement_error: { code: 'CAPACITY' }, // †
  no_space_left_in_location: { code: 'CAPACITY' }, // †
  resource_limit_exceeded: { code: 'QUOTA' },
  unauthorized: { code: 'CREDENTIALS' },
  token_readonly: { code: 'CREDENTIALS' },
  forbidden: { code: 'CREDENTIALS' },
  rate_limit_exceeded: { code: 'RATE_LIMITED' },
  locked: busy,
  conflict: busy,
  // Whoever has the name keeps it: asking again and again only burns the budget.
  uniqueness_error: { code: 'CONFLICT', retryable: false },
  protected: { code: 'CONFLICT', retryable: false },
  invalid_input: refusedForGood,
  json_error: refusedForGood,
  unsupported_error: refusedForGood,
  maintenance: { code: 'UNAVAILABLE', retryAfterMs: 60_000 },
  service_error: down,
  server_error: down,
  unavailable: down,
  bad_gateway: down, // †
  timeout: { code: 'TIMEOUT' },
  not_found: ourDefect,
  method_not_allowed: ourDefect,
  deprecated_api_endpoint: ourDefect,
}

/** An answer of the API that says no. The message is the API's own, with the fields and limits that it names. */
export class ApiError extends ProviderError {
  readonly status: number
  /** The API's error code, `uniqueness_error` for example. */
  readonly apiCode: string
  /** The names in `details.fields`, or in `details.limits`. */
  readonly named: readonly string[]

  constructor(call: string, status: number, { error }: ErrorAnswer, retryAfterMs?: number) {
    const { code, retryable, retryAfterMs: usualMs } = meanings[error.code] ?? meaningOfStatus(status)
    const details = detailsOf(error.details)
    const waitMs = retryAfterMs ?? usualMs
    super(code, `${call}: ${error.message} (${error.code})${details.text}`, {
      externalCode: error.code,
      ...(retryable !== undefined && { retryable }),
      ...(waitMs !== undefined && { retryAfterMs: waitMs }),
    })
    this.status = status
    this.apiCode = error.code
    this.named = details.names
  }
}

/** Whether a call was refused, for one of these reasons where any are given. */
export function isApiError(thrown: unknown, ...codes: readonly string[]): thrown is ApiError {
  return thrown instanceof ApiError && (codes.length === 0 || codes.includes(thrown.apiCode))
}

/** Makes an error of an answer whatever its body holds: proxies on the way answer in HTML. */
export function errorOf(call: string, status: number, body: unknown, retryAfterMs?: number): ApiError {
  const said = isErrorAnswer(body) ? body : { error: { code: `http_${status}`, message: `HTTP ${status}` } }
  return new ApiError(call, status, said, retryAfterMs)
}

/** An action that was accepted and then failed, sorted by its error code as refused calls are. */
export class ActionFailed extends ProviderError {
  readonly command: string

  constructor({ id, command, error }: Pick<Action, 'id' | 'command' | 'error'>) {
    const apiCode = error?.code ?? 'unknown'
    const { code, retryable, retryAfterMs } = meanings[apiCode] ?? unexplained
    super(code, `${command} (action ${id}) failed: ${error?.message ?? 'no reason given'} (${apiCode})`, {
      externalCode: apiCode,
      ...(retryable !== undefined && { retryable }),
      ...(retryAfterMs !== undefined && { retryAfterMs }),
    })
    this.command = command
  }
}

/** What a call that got no answer means. Where it may have been carried out it is TIMEOUT, so that whoever repeats it looks first. */
export function lostOf(call: string, thrown: unknown, timeoutMs: number): ProviderError {
  const { name, code, text } = describe(thrown)
  if (name === 'TimeoutError')
    return new ProviderError('TIMEOUT', `${call}: no answer within ${timeoutMs} ms`, { cause: thrown })
  // Nothing was sent: there was nobody to send it to.
  if (['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'UND_ERR_CONNECT_TIMEOUT'].includes(code))
    return new ProviderError('UNAVAILABLE', `${call}: the API cannot be reached (${code})`, { cause: thrown })
  return new ProviderError('TIMEOUT', `${call}: the answer was lost (${text})`, { cause: thrown })
}

function meaningOfStatus(status: number): Meaning {
  if (status === 401 || status === 403) return { code: 'CREDENTIALS' }
  if (status === 429) return { code: 'RATE_LIMITED' }
  if (status === 408 || status === 504) return { code: 'TIMEOUT' }
  if (status >= 500) return down
  if (status === 409 || status === 423) return busy
  if (status === 400 || status === 422) return refusedForGood
  return ourDefect
}

function isErrorAnswer(body: unknown): body is ErrorAnswer {
  const { error } = (typeof body === 'object' && body !== null ? body : {}) as {
    error?: Record<string, unknown> | null
  }
  return typeof error?.['code'] === 'string' && typeof error['message'] === 'string'
}

function detailsOf(details: unknown): { readonly names: readonly string[]; readonly text: string } {
  const { fields, limits } = (details ?? {}) as { fields?: unknown; limits?: unknown }
  const entries = [fields, limits].flatMap((list): unknown[] => (Array.isArray(list) ? list : []))
  const names = entries.flatMap((entry) => {
    const { name } = (entry ?? {}) as { name?: unknown }
    return typeof name === 'string' ? [name] : []
  })
  return { names, text: names.length === 0 ? '' : `: ${names.join(', ')}` }
}

function describe(thrown: unknown): { readonly name: string; readonly code: string; readonly text: string } {
  if (!(thrown instanceof Error)) return { name: '', code: '', text: String(thrown) }
  const { code } = (thrown.cause ?? {}) as { code?: unknown }
  return {
    name: thrown.name,
    code: typeof code === 'string' ? code : '',
    text: typeof code === 'string' ? code : thrown.message,
  }
}
