import { create } from '@bufbuild/protobuf'
import { Code, ConnectError } from '@connectrpc/connect'
import { ErrorInfoSchema, RetryInfoSchema } from '@slipway/proto/google/rpc'
import fc from 'fast-check'
import t from 'tap'
import { followConsole, type ConsoleUpdate } from './console.js'

const refusal = (reason: string, code: Code, retry = false) =>
  new ConnectError(reason, code, undefined, [
    { desc: ErrorInfoSchema, value: create(ErrorInfoSchema, { reason, domain: 'slipway' }) },
    ...(retry ? [{ desc: RetryInfoSchema, value: create(RetryInfoSchema, { retryDelay: { nanos: 1_000_000 } }) }] : []),
  ])

const message = (data: string, position: string) => ({ data: Buffer.from(data), position, gap: false, lostBytes: 0n })

async function all(updates: AsyncIterable<ConsoleUpdate>): Promise<{ text: string; interruptions: number }> {
  let [text, interruptions] = ['', 0]
  for await (const update of updates) {
    if (update.kind === 'interrupted') interruptions += 1
    else text += Buffer.from(update.data).toString()
  }
  return { text, interruptions }
}

void t.test('wherever a console is cut, each byte comes once', async (t) => {
  const { signal } = new AbortController()
  const property = fc.asyncProperty(
    fc.string({ unit: 'grapheme-ascii' }),
    fc.array(fc.nat(4), { maxLength: 3 }),
    async (said, cuts) => {
      const left = [...cuts]
      const open = async function* (position: string) {
        let offset = Number(position === '' ? 0 : position)
        yield message('', position)
        for (let room = left.shift() ?? Infinity; offset < said.length; room -= 1) {
          if (room === 0) throw refusal('PROVIDER_OFFLINE', Code.Unavailable)
          const data = said.slice(offset, offset + 2)
          offset += data.length
          await Promise.resolve()
          yield message(data, String(offset))
        }
      }
      t.equal((await all(followConsole(open, signal))).text, said)
    },
  )
  await fc.assert(property, { numRuns: 15 })
})

void t.test('what cannot be cured, or was never shown, is thrown', async (t) => {
  const ending = (error: ConnectError, shown: boolean) => {
    let opened = 0
    const open = async function* () {
      opened += 1
      await Promise.resolve()
      if (shown && opened === 1) yield message('x', '1')
      if (opened > 2) return
      throw error
    }
    return all(followConsole(open, new AbortController().signal)).catch((thrown: unknown) => thrown)
  }
  const passing = { text: 'x', interruptions: 1 }
  t.match(await ending(refusal('PROVIDER_OFFLINE', Code.Unavailable), false), { reason: 'PROVIDER_OFFLINE' })
  t.same(await ending(refusal('SLOW_CONSUMER', Code.Aborted), true), passing)
  t.same(await ending(refusal('CONSOLE_FAILED', Code.Unavailable, true), true), passing)
  t.match(await ending(refusal('CONSOLE_FAILED', Code.Unavailable), true), { reason: 'CONSOLE_FAILED' })
  t.match(await ending(refusal('CONSOLE_ABSENT', Code.FailedPrecondition), true), { reason: 'CONSOLE_ABSENT' })
  t.same(await ending(new ConnectError('reset', Code.Unavailable), true), passing)
})
