import { Code, ConnectError } from '@connectrpc/connect'
import { ChangeType } from '@slipway/proto/hub/v1'
import t from 'tap'
import { follow } from './watch.js'

interface Change {
  readonly type: ChangeType
  readonly name: string
}

/** Follows streams of which each breaks off with the next of the errors, up to the second change. */
async function followOver(...errors: readonly Error[]) {
  const opened: string[] = []
  const left = [...errors]
  async function* open(revision: string) {
    opened.push(revision)
    // A stream answers later, and never at once.
    await Promise.resolve()
    const number = opened.length
    const error = left.shift()
    if (error !== undefined && number > 1) throw error
    yield { changes: [{ type: ChangeType.EXISTING, name: `n${number}` }], revision: `r${number}`, synced: true }
    if (error !== undefined) throw error
  }
  const ended = new AbortController()
  const seen: string[] = []
  for await (const { change } of follow(open, ({ name }: Change) => name, { signal: ended.signal })) {
    if (change !== undefined) seen.push(change.resource)
    if (seen.length === 2) ended.abort()
  }
  return { seen, opened }
}

void t.test('a connection that is reset is a cut like any other, also while it is made', async (t) => {
  const reset = new ConnectError('read ECONNRESET', Code.Aborted)
  t.strictSame(await followOver(reset, reset, new ConnectError('connect ECONNREFUSED', Code.Unavailable)), {
    seen: ['n1', 'n4'],
    opened: ['', 'r1', 'r1', 'r1'],
  })
})

void t.test('a connection that was closed before the status came is a cut, too', async (t) => {
  const ends = [
    new ConnectError('protocol error: missing status', Code.Internal),
    new ConnectError('protocol error: incomplete envelope', Code.InvalidArgument),
    new ConnectError('protocol error: promised 512 bytes, received 40', Code.InvalidArgument),
    new ConnectError('Stream closed with error code NGHTTP2_REFUSED_STREAM', Code.Internal),
    Object.assign(new Error('Premature close'), { code: 'ERR_STREAM_PREMATURE_CLOSE' }),
  ]
  t.strictSame((await followOver(...ends)).opened, ['', 'r1', 'r1', 'r1', 'r1', 'r1'])
})

void t.test('what trying again cannot cure is thrown', async (t) => {
  await t.rejects(followOver(new ConnectError('no such token', Code.Unauthenticated)), /no such token/)
  const header = Object.assign(new Error('Invalid value for header'), { code: 'ERR_HTTP2_INVALID_HEADER_VALUE' })
  await t.rejects(followOver(header), /Invalid value/)
  await t.rejects(followOver(new TypeError('a defect')), /a defect/)
})
