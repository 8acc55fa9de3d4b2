import { randomUUID } from 'node:crypto'
import { create } from '@bufbuild/protobuf'
import { ConsoleClosedSchema, ConsoleDataSchema, ConsoleEnd, type HubMessage } from '@slipway/proto/provider/v1'
import fc from 'fast-check'
import t from 'tap'
import { Rig } from '../../testing/reconcile-rig.js'
import type { ConsoleOrder } from '../domain/console/console.js'
import { decodePosition, encodePosition } from '../domain/console/position.js'
import { HubError } from '../domain/error/errors.js'
import { consoleWindowBytes, ConsoleDesk, type OpenLine } from './console-desk.js'
import { ConsoleLines, maxConsoles, maxConsolesOfMachine, type ConsoleSink } from './console-lines.js'
import { ConsolePipe, silence } from './console-pipe.js'
import { replicaAddress } from './replica-address.js'

const { signal } = new AbortController()
const windowBytes = 64
const asIs = (error: unknown): unknown => error

const piece = (streamId: string, offset: number, data: Uint8Array, gap = false) =>
  create(ConsoleDataSchema, { streamId, position: { log: 'log', offset: BigInt(offset) }, data, gap })
const closed = (streamId: string, end: ConsoleEnd, message = '') =>
  create(ConsoleClosedSchema, { streamId, end, message })

/** An instance with a console of some bytes, which sends as fast as it may, in pieces of some sizes. */
class Instance {
  readonly lines: ConsoleLines
  readonly violations: string[] = []
  readonly open = new Map<string, { offset: number; credit: number }>()
  readonly said: string[] = []
  readonly #bytes: Uint8Array

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.lines = new ConsoleLines(
      (body) => this.#hear(body),
      (message) => this.violations.push(message),
    )
  }

  /** Sends a piece of every console that has credit, and its end. */
  step(size: number): void {
    for (const [streamId, stream] of [...this.open]) {
      const length = Math.min(size, stream.credit, this.#bytes.length - stream.offset)
      const data = this.#bytes.subarray(stream.offset, stream.offset + length)
      if (length > 0) this.lines.data(piece(streamId, stream.offset, data))
      stream.offset += length
      stream.credit -= length
      if (stream.offset < this.#bytes.length) continue
      this.open.delete(streamId)
      this.lines.closed(closed(streamId, ConsoleEnd.DONE))
    }
  }

  #hear(body: HubMessage['body']): void {
    this.said.push(body.case ?? '')
    if (body.case === 'openConsole') {
      const { streamId, creditBytes, start } = body.value
      const offset = start.case === 'after' ? Number(start.value.offset) : 0
      this.open.set(streamId, { offset, credit: creditBytes })
    } else if (body.case === 'consoleCredit') {
      const stream = this.open.get(body.value.streamId)
      if (stream !== undefined) stream.credit += body.value.bytes
    } else if (body.case === 'closeConsole') this.open.delete(body.value.streamId)
  }
}

const order = (streamId: string, after?: number) => ({
  $typeName: 'slipway.provider.v1.OpenConsole' as const,
  streamId,
  machineId: 'm1',
  externalId: 'x',
  start:
    after === undefined
      ? { case: undefined }
      : {
          case: 'after' as const,
          value: {
            $typeName: 'slipway.provider.v1.ConsolePosition' as const,
            log: 'log',
            offset: BigInt(after),
          },
        },
  follow: true,
  creditBytes: windowBytes,
})

/** Opens a console as the desk does. */
function openPipe(instance: Instance, after?: number, readerIdleMs = 60_000) {
  const streamId = randomUUID()
  const pipe: ConsolePipe = new ConsolePipe({
    windowBytes,
    readerIdleMs,
    grant: (bytes) => line.credit(bytes),
    release: () => line.close(),
  })
  const line = instance.lines.open(order(streamId, after), pipe)
  return pipe
}

void t.test(
  'whatever the order of sending, reading, cutting and coming back: each byte comes once and in order',
  async (t) => {
    const actions = fc.array(
      fc.oneof(
        {
          weight: 6,
          arbitrary: fc.record({ kind: fc.constant('send' as const), size: fc.integer({ min: 1, max: 90 }) }),
        },
        { weight: 6, arbitrary: fc.record({ kind: fc.constant('read' as const) }) },
        { weight: 1, arbitrary: fc.record({ kind: fc.constant('over' as const) }) },
        { weight: 1, arbitrary: fc.record({ kind: fc.constant('leave' as const) }) },
      ),
      { maxLength: 200 },
    )
    const property = fc.asyncProperty(fc.uint8Array({ maxLength: 2_000 }), actions, async (bytes, actions) => {
      const instance = new Instance(bytes)
      const got: number[] = []
      let pipe = openPipe(instance)
      let waiting = 0
      let ended = false
      const read = async (): Promise<void> => {
        try {
          const next = await pipe.next(signal, 0)
          if (next === undefined) ended = true
          else if (next !== silence) {
            t.equal(Number(next.position?.offset), got.length)
            got.push(...next.data)
          }
        } catch (error) {
          t.match(error, { reason: 'PROVIDER_OFFLINE' })
          pipe.close()
          pipe = openPipe(instance, got.length)
        }
      }
      const act = async (action: (typeof actions)[number]): Promise<void> => {
        if (action.kind === 'send') instance.step(action.size)
        else if (action.kind === 'read') await read()
        else if (action.kind === 'over') {
          instance.lines.over()
          instance.open.clear()
        } else {
          pipe.close()
          pipe = openPipe(instance, got.length)
        }
        const [stream] = instance.open.values()
        waiting = stream === undefined ? 0 : stream.offset - got.length
        t.ok(waiting <= windowBytes, 'no more is under way than the window')
      }
      for (const action of actions) if (!ended) await act(action)
      while (!ended) {
        instance.step(50)
        await read()
      }
      pipe.close()
      t.same(Uint8Array.from(got), bytes)
      t.same(instance.violations, [])
      t.equal(instance.lines.count, 0, 'nothing is left open')
    })
    await fc.assert(property, { numRuns: 150 })
  },
)

void t.test('what an instance sends beyond its credit breaks the protocol, and what comes late is dropped', (t) => {
  const instance = new Instance(new Uint8Array(1_000))
  const pipe = openPipe(instance)
  const [streamId = ''] = instance.open.keys()
  instance.lines.data(piece(streamId, 0, new Uint8Array(windowBytes)))
  t.same(instance.violations, [])
  instance.lines.data(piece(streamId, windowBytes, new Uint8Array(1)))
  t.match(instance.violations, [/1 bytes beyond its credit/])
  pipe.close()
  t.same(instance.said, ['openConsole', 'closeConsole'])
  instance.lines.data(piece(streamId, 0, new Uint8Array(500)))
  instance.lines.closed(closed(streamId, ConsoleEnd.DONE))
  t.equal(instance.violations.length, 1, 'it was under way when it was closed')
  pipe.close()
  t.equal(instance.said.length, 2, 'and is closed once')
  t.end()
})

void t.test('no more are opened on a session, or of a machine, than may be', (t) => {
  const instance = new Instance(new Uint8Array())
  const sink: ConsoleSink = { data: () => undefined, closed: () => undefined, failed: () => undefined }
  const open = (machineId: string) => instance.lines.open({ ...order(randomUUID()), machineId }, sink)
  const lines = Array.from({ length: maxConsolesOfMachine }, () => open('m1'))
  t.throws(() => open('m1'), /8 look at this console/)
  lines[0]?.close()
  open('m1')
  for (let count = maxConsolesOfMachine; count < maxConsoles; count += 1) open(`m${count}`)
  t.throws(() => open('other'), /32 consoles/)
  t.equal(instance.lines.count, maxConsoles)
  t.end()
})

void t.test('a reader who takes nothing is cut off, and frees what it held', async (t) => {
  const instance = new Instance(new Uint8Array(1_000))
  const pipe = openPipe(instance, undefined, 50)
  instance.step(10)
  while (instance.open.size > 0) await new Promise((resolve) => setTimeout(resolve, 10))
  t.same(instance.said, ['openConsole', 'closeConsole'])
  t.match(await pipe.next(signal, 1_000).catch(asIs), { reason: 'SLOW_CONSUMER' })
  const quiet = openPipe(instance, undefined, 50)
  t.equal(await quiet.next(signal, 150), silence, 'one who waits is none')
  instance.step(10)
  t.match(await quiet.next(signal, 1_000), { data: new Uint8Array(10) })
  quiet.close()
})

void t.test('each end has a reason', async (t) => {
  const endOf = async (end: ConsoleEnd, message = ''): Promise<unknown> => {
    const instance = new Instance(new Uint8Array(10))
    const pipe = openPipe(instance)
    const [streamId = ''] = instance.open.keys()
    instance.lines.closed(closed(streamId, end, message))
    return pipe.next(signal, 1_000).catch((error: unknown) => error)
  }
  t.equal(await endOf(ConsoleEnd.DONE), undefined)
  t.match(await endOf(ConsoleEnd.NOT_FOUND), { reason: 'CONSOLE_ABSENT', status: 'FAILED_PRECONDITION' })
  t.match(await endOf(ConsoleEnd.ABSENT, 'no serial port'), { reason: 'CONSOLE_ABSENT', message: 'no serial port' })
  t.match(await endOf(ConsoleEnd.BUSY), { reason: 'CONSOLE_BUSY' })
  t.match(await endOf(ConsoleEnd.STOPPING), { reason: 'PROVIDER_OFFLINE', retryAfterMs: 500 })
  t.match(await endOf(ConsoleEnd.FAILED, 'broken'), { reason: 'CONSOLE_FAILED', message: 'broken' })
  const aborted = AbortSignal.abort(new Error('gone'))
  await t.rejects(openPipe(new Instance(new Uint8Array(1))).next(aborted, 1_000), { message: 'gone' })
})

void t.test('positions', (t) => {
  const position = fc.record({
    log: fc.stringMatching(/^[A-Za-z0-9._-]{1,64}$/),
    offset: fc.nat({ max: Number.MAX_SAFE_INTEGER }),
  })
  fc.assert(fc.property(position, (given) => t.same(decodePosition(encodePosition(given), 'position'), given)))
  for (const wrong of [
    '',
    '1',
    'x:log',
    '-1:log',
    '01:log',
    '1:',
    '1:a b',
    `1:${'x'.repeat(65)}`,
    '9007199254740992:a',
  ])
    t.throws(() => decodePosition(wrong, 'position'), /is no position/, wrong)
  t.end()
})

void t.test('where replicas reach one another', (t) => {
  t.equal(replicaAddress('hub-1:9', { host: '0.0.0.0', port: 1 }), 'hub-1:9')
  t.equal(replicaAddress('', { host: '127.0.0.1', port: 1 }), '127.0.0.1:1')
  t.equal(replicaAddress('', { host: '::1', port: 1 }), '[::1]:1')
  t.match(replicaAddress('', { host: '0.0.0.0', port: 7 }), /^\S+:7$/)
  t.notMatch(replicaAddress('', { host: '0.0.0.0', port: 7 }), /^0\.0\.0\.0/)
  t.end()
})

void t.test('the desk asks one instance after the other, and lets nothing linger', async (t) => {
  const rig = await Rig.start(t)
  const { providerId } = await rig.provider('rack', { connected: false })
  const asked: string[] = []
  const answers = new Map<string, (sink: ConsoleSink) => void>()
  let left = 0
  const openLine: OpenLine = (sessionId, _order, sink) => {
    asked.push(sessionId)
    answers.get(sessionId)?.(sink)
    return Promise.resolve({ credit: () => undefined, close: () => void (left += 1) })
  }
  const desk = new ConsoleDesk({ db: rig.db, openLine, silenceMs: 20, readerIdleMs: 60_000, maxReaders: 2 })
  const wanted: ConsoleOrder = {
    ...{ providerId, machineId: randomUUID(), externalId: 'x', providerData: {}, follow: true },
  }
  const all = async (until = signal): Promise<string> => {
    let text = ''
    for await (const read of desk.read(wanted, until)) text += Buffer.from(read?.data ?? []).toString()
    return text
  }
  t.match(await all().catch(asIs), { reason: 'PROVIDER_OFFLINE', message: /no instance/ })
  const sessions = [randomUUID(), randomUUID()]
  for (const id of sessions) await rig.session(providerId, id)
  await rig.db
    .updateTable('sessions')
    .set({ expires_at: new Date(Date.now() + 60_000) })
    .execute()

  for (const id of sessions) answers.set(id, (sink) => sink.failed(new HubError('CONSOLE_ABSENT', `not at ${id}`)))
  t.match(await all().catch(asIs), { reason: 'CONSOLE_ABSENT' })
  t.same(new Set(asked), new Set(sessions), 'each is asked')
  const last = asked[1] ?? ''
  answers.set(last, (sink) => {
    sink.data(piece('', 0, Buffer.from('here')))
    sink.closed(closed('', ConsoleEnd.DONE))
  })
  t.equal(await all(), 'here')
  answers.set(last, (sink) => {
    sink.data(piece('', 0, Buffer.from('half')))
    sink.failed(new HubError('PROVIDER_OFFLINE', 'gone'))
  })
  t.match(
    await all().catch(asIs),
    { reason: 'PROVIDER_OFFLINE', message: 'gone' },
    'one that has shown something is the one',
  )
  t.equal(left, asked.length, 'every line that was opened is closed')

  answers.clear()
  const stop = new AbortController()
  const readers = [all(stop.signal), all(stop.signal)]
  while (desk.readers < 2 || asked.length < 8) await new Promise((resolve) => setTimeout(resolve, 5))
  t.match(await all().catch(asIs), { reason: 'CONSOLE_BUSY' })
  stop.abort(new Error('left'))
  for (const reader of readers) await t.rejects(reader, { message: 'left' })
  t.equal(desk.readers, 0)
  t.equal(left, asked.length)
  t.ok(consoleWindowBytes >= 64 * 1024)
})
