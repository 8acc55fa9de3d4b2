import { Code } from '@connectrpc/connect'
import pg from 'pg'
import t from 'tap'
import { HubError } from '../domain/error/errors.js'
import { toConnectError } from './errors.js'

function fromDatabase(state: string): Error {
  const error = new pg.DatabaseError('said by PostgreSQL', 0, 'error')
  error.code = state
  return error
}

void t.test('a database that is away, full or crowded is said to be, and is no defect of the hub', async (t) => {
  const reset = Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' })
  const states = [
    '08006',
    '25P03',
    '25P04',
    '40001',
    '40P01',
    '53100',
    '53200',
    '53300',
    '57014',
    '57P01',
    '57P05',
    '58030',
  ]
  const thrown = [reset, ...states.map(fromDatabase)]
  for (const error of thrown) {
    const told = toConnectError(error, 'r-1')
    t.match(
      told,
      { defect: false, error: { code: Code.Unavailable } },
      `${error.message} ${String(Reflect.get(error, 'code'))}`,
    )
  }
})

void t.test('a caller that went away is no defect either; what nobody foresaw is', async (t) => {
  for (const code of ['ERR_STREAM_PREMATURE_CLOSE', 'ERR_STREAM_DESTROYED', 'ERR_HTTP2_INVALID_STREAM']) {
    const gone = Object.assign(new Error('the stream has been destroyed'), { code })
    t.match(toConnectError(gone, 'r-1'), { defect: false, error: { code: Code.Canceled } }, code)
  }
  t.match(toConnectError(fromDatabase('42601'), 'r-1'), { defect: true, error: { code: Code.Internal } })
})

void t.test('whatever is quoted in an error, it fits into the headers of every client', async (t) => {
  const long = 'ä🚢'.repeat(50_000)
  const error = new HubError('INVALID_FIELD', long, {
    violations: Array.from({ length: 500 }, () => ({ field: long, description: long })),
    metadata: { current_etag: long },
  })
  const told = toConnectError(error, 'r-1').error
  const details = told.details.map((detail) => ('value' in detail ? JSON.stringify(detail.value) : ''))
  t.match(told.rawMessage, /^ä🚢.*…$/)
  t.ok(told.rawMessage.length < 1_600 && details.join('').length < 8_000, `${details.join('').length} characters`)
  t.notMatch(told.rawMessage, /\p{Surrogate}/u)
})
