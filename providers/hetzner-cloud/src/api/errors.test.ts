import { type FailureCode } from '@slipway/sdk'
import t from 'tap'
import { ApiError, errorOf, isApiError, lostOf } from './errors.js'

interface Expected {
  readonly status: number
  readonly code: FailureCode
  readonly retryable: boolean
}

// One by one, with the status that the vendor's table gives.
const expected: Readonly<Record<string, Expected>> = {
  json_error: { status: 400, code: 'INVALID_SPEC', retryable: false },
  unauthorized: { status: 401, code: 'CREDENTIALS', retryable: true },
  token_readonly: { status: 401, code: 'CREDENTIALS', retryable: true },
  forbidden: { status: 403, code: 'CREDENTIALS', retryable: true },
  maintenance: { status: 403, code: 'UNAVAILABLE', retryable: true },
  resource_limit_exceeded: { status: 403, code: 'QUOTA', retryable: false },
  not_found: { status: 404, code: 'INTERNAL', retryable: false },
  method_not_allowed: { status: 405, code: 'INTERNAL', retryable: false },
  uniqueness_error: { status: 409, code: 'CONFLICT', retryable: false },
  conflict: { status: 409, code: 'CONFLICT', retryable: true },
  deprecated_api_endpoint: { status: 410, code: 'INTERNAL', retryable: false },
  resource_unavailable: { status: 412, code: 'CAPACITY', retryable: false },
  invalid_input: { status: 422, code: 'INVALID_SPEC', retryable: false },
  service_error: { status: 422, code: 'UNAVAILABLE', retryable: true },
  unsupported_error: { status: 422, code: 'INVALID_SPEC', retryable: false },
  placement_error: { status: 422, code: 'CAPACITY', retryable: false },
  no_space_left_in_location: { status: 422, code: 'CAPACITY', retryable: false },
  locked: { status: 423, code: 'CONFLICT', retryable: true },
  protected: { status: 423, code: 'CONFLICT', retryable: false },
  rate_limit_exceeded: { status: 429, code: 'RATE_LIMITED', retryable: true },
  server_error: { status: 500, code: 'UNAVAILABLE', retryable: true },
  bad_gateway: { status: 502, code: 'UNAVAILABLE', retryable: true },
  unavailable: { status: 503, code: 'UNAVAILABLE', retryable: true },
  timeout: { status: 504, code: 'TIMEOUT', retryable: true },
}

void t.test('each error code of the API has its meaning', async (t) => {
  for (const [apiCode, { status, code, retryable }] of Object.entries(expected)) {
    const error = errorOf('POST /servers', status, { error: { code: apiCode, message: 'no' } })
    t.match(error, { code, retryable, externalCode: apiCode, status, apiCode }, apiCode)
    t.ok(error.message.includes(apiCode) && error.message.includes('POST /servers'))
  }
})

void t.test('what is not in the table goes by its status', async (t) => {
  const cases: readonly (readonly [number, FailureCode, boolean])[] = [
    [400, 'INVALID_SPEC', false],
    [401, 'CREDENTIALS', true],
    [403, 'CREDENTIALS', true],
    [404, 'INTERNAL', false],
    [408, 'TIMEOUT', true],
    [409, 'CONFLICT', true],
    [423, 'CONFLICT', true],
    [429, 'RATE_LIMITED', true],
    [500, 'UNAVAILABLE', true],
    [504, 'TIMEOUT', true],
  ]
  for (const [status, code, retryable] of cases) {
    t.match(errorOf('GET /x', status, { error: { code: 'new_code', message: 'm' } }), { code, retryable }, `${status}`)
    t.match(errorOf('GET /x', status, '<html>'), { code, apiCode: `http_${status}` }, `${status} without a body`)
  }
})

void t.test('names the fields and limits that are refused', async (t) => {
  const details = { fields: [{ name: 'server_type', messages: ['unknown'] }, null, { name: 4 }] }
  const invalid = errorOf('c', 422, { error: { code: 'invalid_input', message: 'bad', details } })
  t.strictSame(invalid.named, ['server_type'])
  t.match(invalid.message, /server_type/)
  const limits = { limits: [{ name: 'primary_ip_limit' }] }
  const limited = errorOf('c', 403, { error: { code: 'resource_limit_exceeded', message: 'no', details: limits } })
  t.strictSame(limited.named, ['primary_ip_limit'])
})

void t.test('tells when to ask again', async (t) => {
  const body = { error: { code: 'rate_limit_exceeded', message: 'slow down' } }
  t.equal(errorOf('c', 429, body, 1_500).retryAfterMs, 1_500)
  t.equal(errorOf('c', 423, { error: { code: 'locked', message: 'm' } }).retryAfterMs, 2_000)
})

void t.test('is told apart from others', async (t) => {
  const error = errorOf('c', 404, { error: { code: 'not_found', message: 'm' } })
  t.ok(isApiError(error))
  t.ok(isApiError(error, 'conflict', 'not_found'))
  t.notOk(isApiError(error, 'conflict'))
  t.notOk(isApiError(new Error('not_found'), 'not_found'))
  t.ok(error instanceof ApiError)
})

void t.test('a call without an answer may have happened, unless nothing was sent', async (t) => {
  const cause = (code: string) => Object.assign(new Error('fetch failed'), { cause: { code } })
  t.match(lostOf('POST /servers', cause('ECONNREFUSED'), 10), { code: 'UNAVAILABLE' })
  t.match(lostOf('POST /servers', cause('ENOTFOUND'), 10), { code: 'UNAVAILABLE' })
  t.match(lostOf('POST /servers', cause('UND_ERR_SOCKET'), 10), { code: 'TIMEOUT' })
  t.match(lostOf('POST /servers', cause('ECONNRESET'), 10), { code: 'TIMEOUT' })
  t.match(lostOf('c', new DOMException('x', 'TimeoutError'), 10), { code: 'TIMEOUT', message: /within 10 ms/ })
  t.match(lostOf('c', 'text', 10), { code: 'TIMEOUT', message: /text/ })
})
