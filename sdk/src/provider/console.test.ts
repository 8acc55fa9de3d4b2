import { randomUUID } from 'node:crypto'
import { appendFile, copyFile, rename, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Capability, ConsoleEnd } from '@slipway/proto/provider/v1'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { setUp, startGateway, startProvider, readySession, tempDir } from '../testing/provider.js'
import { TestCloud } from '../testing/cloud.js'
import type { TestSession } from '../testing/gateway.js'
import { until } from '../testing/until.js'
import { ConsoleRefused, type ConsoleChunk, type ConsoleWish } from './console.js'
import { ConsoleCursor, splitPiece } from './console-cursor.js'
import { readConsoleFile } from './console-file.js'
import { ProviderError } from './errors.js'

void t.test('what an author gives, overlaps and all, is told once and in order, and gaps are named', (t) => {
  const source = Uint8Array.from({ length: 400 }, (_, index) => index % 251)
  const spans = fc.array(fc.tuple(fc.nat(399), fc.nat(80)), { maxLength: 40 })
  const property = fc.property(spans, fc.option(fc.nat(399), { nil: undefined }), (spans, after) => {
    const cursor = new ConsoleCursor(after === undefined ? undefined : { log: 'a', offset: after })
    let at = after
    for (const [offset, length] of spans) {
      const bytes = source.subarray(offset, offset + length)
      const piece = cursor.take({ position: { log: 'a', offset }, bytes })
      if (piece === undefined) continue
      const from = at ?? offset
      t.equal(piece.position.offset >= from, true, 'never again what was told')
      t.same([piece.gap, piece.lostBytes], [piece.position.offset > from, piece.position.offset - from])
      t.same(piece.bytes, source.subarray(piece.position.offset, piece.position.offset + piece.bytes.length))
      at = piece.position.offset + piece.bytes.length
    }
  })
  fc.assert(property, { numRuns: 100 })
  const cursor = new ConsoleCursor({ log: 'a', offset: 5 })
  const chunk = (log: string, offset: number, continues?: boolean): ConsoleChunk => ({
    ...{ position: { log, offset }, bytes: new Uint8Array(3) },
    ...(continues !== undefined && { continues }),
  })
  t.match(cursor.take(chunk('b', 0)), { gap: true, lostBytes: 0 }, 'another log is a gap')
  t.match(cursor.take(chunk('c', 0, true)), { gap: false }, 'but one that goes on is none')
  t.match(cursor.take(new Uint8Array(2)), { gap: true, position: { offset: 0 } }, 'bare bytes have a log of their own')
  t.match(cursor.take(new Uint8Array(2)), { gap: false, position: { offset: 2 } })
  for (const [log, offset] of [
    ['', 0],
    ['a b', 0],
    ['a', -1],
    ['a', 0.5],
  ] as const)
    t.throws(() => cursor.take(chunk(log, offset)), /no position/)
  const whole = { position: { log: 'a', offset: 7 }, bytes: new Uint8Array(5), gap: true, lostBytes: 2 }
  const [head, rest] = splitPiece(whole, 2)
  t.match(
    [head, rest],
    [
      { gap: true, lostBytes: 2 },
      { gap: false, position: { offset: 9 } },
    ],
  )
  t.end()
})

/** Reads a file's console along, as the hub would be told of it. */
class FileReader {
  text = ''
  gaps = 0
  at: ConsoleChunk['position'] | undefined
  readonly done: Promise<unknown>
  readonly #stop = new AbortController()

  constructor(path: string, turnover: 'rename' | 'copy', wish: ConsoleWish) {
    const file = { path, previousPath: `${path}.1`, turnover, pollMs: 10, waitForIt: true }
    const cursor = new ConsoleCursor(wish.after)
    const read = async (): Promise<void> => {
      for await (const chunk of readConsoleFile(file, wish, this.#stop.signal)) {
        const piece = cursor.take(chunk)
        if (piece === undefined) continue
        this.text += Buffer.from(piece.bytes).toString()
        this.gaps += piece.gap ? 1 : 0
        this.at = { log: piece.position.log, offset: piece.position.offset + piece.bytes.length }
      }
    }
    this.done = read().catch((error: unknown) => error)
  }

  async leave(): Promise<void> {
    this.#stop.abort(new Error('left'))
    await this.done
  }
}

async function turnOver(path: string, how: 'rename' | 'copy'): Promise<void> {
  if (how === 'rename') return rename(path, `${path}.1`)
  await copyFile(path, `${path}.part`)
  await truncate(path)
  return rename(`${path}.part`, `${path}.1`)
}

for (const turnover of ['rename', 'copy'] as const) {
  void t.test(`a console in a file is read over its turnovers (${turnover})`, { timeout: 60_000 }, async (t) => {
    const path = join(await tempDir(t), 'console.log')
    const reader = new FileReader(path, turnover, { follow: true })
    let written = ''
    for (let round = 0; round < 40; round += 1) {
      const line = `line ${round} ${randomUUID()}\n`
      written += line
      await appendFile(path, line)
      if (round % 8 !== 7) continue
      await until('all of it to be read', () => reader.text === written)
      await turnOver(path, turnover)
      // The next turnover must not come before this one was seen: more than one at once is a gap.
      const next = `after turnover ${round}\n`
      written += next
      await appendFile(path, next)
      await until('what comes after it', () => reader.text === written)
    }
    t.equal(reader.gaps, 0)
    const { at } = reader
    await reader.leave()
    await appendFile(path, 'while nobody read\n')
    const back = new FileReader(path, turnover, { follow: false, ...(at !== undefined && { after: at }) })
    t.equal(await back.done, undefined)
    t.same([back.text, back.gaps], ['while nobody read\n', 0], 'it goes on where it was')
    const lost = new FileReader(path, turnover, { follow: false, after: { log: 'gone', offset: 3 } })
    await lost.done
    t.equal(lost.gaps, 1, 'a log that is gone is a gap')
    t.ok(lost.text.endsWith('while nobody read\n'))
  })
}

void t.test('a part that was turned over while nobody read is found again', async (t) => {
  const path = join(await tempDir(t), 'console.log')
  await writeFile(path, 'one\ntwo\n')
  const first = new FileReader(path, 'rename', { follow: true })
  await until('the beginning', () => first.text === 'one\ntwo\n')
  await first.leave()
  await appendFile(path, 'three\n')
  await turnOver(path, 'rename')
  await writeFile(path, 'four\n')
  const back = new FileReader(path, 'rename', { follow: false, ...(first.at !== undefined && { after: first.at }) })
  await back.done
  t.same([back.text, back.gaps], ['three\nfour\n', 0])
})

void t.test('tails, and files that are not there, or are cut off', { timeout: 60_000 }, async (t) => {
  const path = join(await tempDir(t), 'console.log')
  const tail = async (tailLines: number): Promise<string> => {
    const reader = new FileReader(path, 'rename', { follow: false, tailLines })
    await reader.done
    return reader.text
  }
  t.match(await new FileReader(path, 'rename', { follow: false }).done, { name: 'ConsoleRefused', why: 'absent' })
  const waiting = new FileReader(path, 'rename', { follow: true })
  await writeFile(`${path}.1`, 'a\nb\n')
  await writeFile(path, 'c\nd\ne')
  await until('the file', () => waiting.text.endsWith('c\nd\ne'))
  t.same([await tail(0), await tail(1), await tail(2), await tail(3)], ['', 'e', 'd\ne', 'c\nd\ne'])
  t.same([await tail(4), await tail(5), await tail(99)], ['b\nc\nd\ne', 'a\nb\nc\nd\ne', 'a\nb\nc\nd\ne'])
  await truncate(path)
  await appendFile(path, 'x')
  await until('what was written after it was cut off', () => waiting.text.endsWith('x'), 30_000)
  t.equal(waiting.gaps, 1)
  await waiting.leave()
})

const open = (streamId: string, more: object = {}) => ({
  case: 'openConsole' as const,
  value: { streamId, machineId: randomUUID(), externalId: 'm1', follow: true, creditBytes: 100, ...more },
})

function textOf(session: TestSession, streamId: string): string {
  const pieces = session.all('consoleData').filter((piece) => piece.streamId === streamId)
  return Buffer.concat(pieces.map(({ data }) => data)).toString()
}

/** A console that says the same line for ever. */
function endless() {
  const state = { given: 0, open: 0, opened: 0 }
  const console = async function* (_context: unknown, _machine: unknown, { after }: ConsoleWish) {
    state.opened += 1
    state.open += 1
    try {
      for (let offset = after?.offset ?? 0; ; offset += 10) {
        state.given += 1
        await new Promise((resolve) => setImmediate(resolve))
        yield { position: { log: 'log', offset }, bytes: Buffer.from(`${String(offset).padStart(9, '0')}\n`) }
      }
    } finally {
      state.open -= 1
    }
  }
  return { state, console }
}

async function withConsole(t: Test, console: ReturnType<typeof endless>['console']) {
  return setUp(t, () => ({ console }), { heartbeatMs: 100 })
}

void t.test('no more is sent than there is credit for, nor is more taken from the author', async (t) => {
  const { state, console } = endless()
  const { session, item } = await withConsole(t, console)
  t.ok(session.hello.capabilities.includes(Capability.CONSOLE))
  const streamId = randomUUID()
  session.send(open(streamId))
  await until('all that there is credit for', () => textOf(session, streamId).length === 100)
  // A claim, and all that it says, goes past a console that waits.
  session.send(item.claimed())
  await until('the work beside it', () => item.settledAt === 1n)
  t.equal(textOf(session, streamId).length, 100)
  t.ok(state.given <= 12, `${state.given} pieces were taken`)
  session.send({ case: 'consoleCredit', value: { streamId, bytes: 45 } })
  await until('more', () => textOf(session, streamId).length === 145)
  session.send({ case: 'closeConsole', value: { streamId } })
  await until('the author to be let go', () => state.open === 0)
  session.send({ case: 'consoleCredit', value: { streamId, bytes: 1_000 } })
  const { length } = session.all('heartbeat')
  await until('two heartbeats', () => session.all('heartbeat').length >= length + 2)
  t.equal(textOf(session, streamId).length, 145, 'nothing follows')
  t.same(session.all('consoleClosed'), [])
})

void t.test('a console ends with its stream, and goes on over the next one', async (t) => {
  const { state, console } = endless()
  const { gateway, session, running } = await withConsole(t, console)
  const [one, two] = [randomUUID(), randomUUID()]
  session.send(open(one), open(one), open(two))
  await until('both', () => state.open === 2 && textOf(session, two).length === 100)
  t.equal(state.opened, 2, 'the same stream is opened once')
  session.fail()
  const next = await readySession(gateway, 2)
  await until('the authors to be let go', () => state.open === 0)
  t.same(next.all('consoleData'), [])
  const three = randomUUID()
  next.send(open(three, { start: { case: 'after', value: { log: 'log', offset: 100n } } }))
  await until('more', () => textOf(next, three).length === 100)
  t.ok(textOf(next, three).startsWith('000000100\n'))
  t.equal(next.all('consoleData')[0]?.gap, false)
  void running.stop()
  await next.expect('consoleClosed', ({ end }) => end === ConsoleEnd.STOPPING)
  await running.ended
  t.equal(state.open, 0)
})

void t.test('each end is told with its reason', async (t) => {
  const ends = {
    done: () => undefined,
    absent: () => new ConsoleRefused('absent', 'no serial port'),
    'not-found': () => new ConsoleRefused('not-found', 'no such machine'),
    busy: () => new ConsoleRefused('busy', 'somebody has it'),
    failed: () => new ProviderError('UNAVAILABLE', 'the API is down'),
    wrong: () => undefined,
  }
  const { session } = await setUp(t, () => ({
    async *console(_context, { externalId }) {
      await Promise.resolve()
      if (externalId === 'wrong') yield { position: { log: 'not a log', offset: 0 }, bytes: new Uint8Array(1) }
      yield Buffer.from('bare')
      const error = ends[externalId as keyof typeof ends]()
      if (error !== undefined) throw error
    },
  }))
  const endOf = async (externalId: keyof typeof ends) => {
    const streamId = randomUUID()
    session.send(open(streamId, { externalId }))
    return session.expect('consoleClosed', (closed) => closed.streamId === streamId)
  }
  t.match(await endOf('done'), { end: ConsoleEnd.DONE })
  t.match(await endOf('absent'), { end: ConsoleEnd.ABSENT, message: 'no serial port' })
  t.match(await endOf('not-found'), { end: ConsoleEnd.NOT_FOUND })
  t.match(await endOf('busy'), { end: ConsoleEnd.BUSY })
  t.match(await endOf('failed'), { end: ConsoleEnd.FAILED, failure: { message: 'the API is down', retryable: true } })
  t.match(await endOf('wrong'), { end: ConsoleEnd.FAILED, failure: { message: /no position/ } })
})

void t.test('a provider without the function does not announce it, and refuses', async (t) => {
  const gateway = await startGateway(t)
  await startProvider(t, gateway, new TestCloud().provider({}))
  const session = await readySession(gateway)
  t.notOk(session.hello.capabilities.includes(Capability.CONSOLE))
  session.send(open(randomUUID()))
  t.match(await session.expect('consoleClosed'), { end: ConsoleEnd.ABSENT })
})
