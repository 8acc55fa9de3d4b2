import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { once } from 'node:events'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { QmpClient, type QmpEvent } from './qmp.js'

const greeting = '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}\r\n'

interface Command {
  readonly execute: string
  readonly arguments?: unknown
  readonly id: number
}

type Answer = (command: Command, socket: Socket) => unknown

/** Something that stands in for a QEMU's monitor. Undefined from `answer` leaves the command without an answer. */
async function fakeMonitor(
  t: Test,
  answer: Answer,
  options: { greet?: string; chop?: (text: string) => string[] } = {},
): Promise<{ folder: string; seen: Command[] }> {
  const folder = await mkdtemp(join(tmpdir(), 'slipway-qmp-'))
  const seen: Command[] = []
  const sockets = new Set<Socket>()
  const chop = options.chop ?? ((text) => [text])
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    const send = (text: string): void => chop(text).forEach((part) => socket.write(part))
    send(options.greet ?? greeting)
    let unread = ''
    socket.setEncoding('utf8').on('data', (text: string) => {
      unread += text
      for (let end = unread.indexOf('\n'); end >= 0; end = unread.indexOf('\n')) {
        const command = JSON.parse(unread.slice(0, end)) as Command
        unread = unread.slice(end + 1)
        seen.push(command)
        const value = command.execute === 'qmp_capabilities' ? {} : answer(command, socket)
        if (value !== undefined)
          send(
            `${JSON.stringify(isError(value) ? { ...value, id: command.id } : { return: value, id: command.id })}\r\n`,
          )
      }
    })
  })
  server.listen(join(folder, 'qmp.sock'))
  await once(server, 'listening')
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy()
    server.close()
    await rm(folder, { recursive: true, force: true })
  })
  return { folder, seen }
}

function isError(value: unknown): value is { error: unknown } {
  return typeof value === 'object' && value !== null && 'error' in value
}

void t.test('takes part in the handshake and runs commands', async (t) => {
  const { folder, seen } = await fakeMonitor(t, (command) =>
    command.execute === 'query-status' ? { status: 'running' } : {},
  )
  const client = await QmpClient.connect(folder, 'qmp.sock')
  t.teardown(() => client.close())
  t.same(await client.execute('query-status'), { status: 'running' })
  t.same(await client.execute('device_add', { driver: 'x' }), {})
  t.same(
    seen.map(({ execute, arguments: args }) => [execute, args]),
    [
      ['qmp_capabilities', undefined],
      ['query-status', undefined],
      ['device_add', { driver: 'x' }],
    ],
  )
})

void t.test('answers find their commands in whatever order and pieces they come', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.shuffledSubarray([0, 1, 2, 3, 4, 5], { minLength: 6 }),
      fc.integer({ min: 1, max: 40 }),
      async (order, size) => {
        const waiting: Command[] = []
        const { folder } = await fakeMonitor(
          t,
          (command, socket) => {
            waiting.push(command)
            if (waiting.length < order.length) return undefined
            const lines = order.map(
              (at) =>
                `{"event":"E","data":${at}}\n${JSON.stringify({ return: waiting[at]?.execute, id: waiting[at]?.id })}\n`,
            )
            chop(lines.join('')).forEach((part) => socket.write(part))
            return undefined
          },
          { chop },
        )
        function chop(text: string): string[] {
          return text.match(new RegExp(`[^]{1,${size}}`, 'g')) ?? []
        }
        const events: QmpEvent[] = []
        const client = await QmpClient.connect(folder, 'qmp.sock', { onEvent: (event) => events.push(event) })
        const names = order.map((_at, index) => `command-${index}`)
        t.same(await Promise.all(names.map((name) => client.execute(name))), names)
        t.same(
          events.map((event) => event.data),
          order,
        )
        client.close()
      },
    ),
    { numRuns: 20 },
  )
})

void t.test('says how it failed', async (t) => {
  await t.test('QEMU refuses', async (t) => {
    const { folder } = await fakeMonitor(t, () => ({
      error: { class: 'CommandNotFound', desc: 'The command nonsense has not been found' },
    }))
    const client = await QmpClient.connect(folder, 'qmp.sock')
    t.teardown(() => client.close())
    await t.rejects(client.execute('nonsense'), {
      code: 'INTERNAL',
      externalCode: 'CommandNotFound',
      message: /nonsense has not been found/,
    })
  })
  await t.test('no answer in time', async (t) => {
    const { folder } = await fakeMonitor(t, () => undefined)
    const client = await QmpClient.connect(folder, 'qmp.sock', { timeoutMs: 50 })
    t.teardown(() => client.close())
    await t.rejects(client.execute('query-status'), { code: 'TIMEOUT', message: /query-status/ })
  })
  await t.test('no greeting in time', async (t) => {
    const { folder } = await fakeMonitor(t, () => undefined, { greet: '' })
    await t.rejects(QmpClient.connect(folder, 'qmp.sock', { timeoutMs: 50 }), { code: 'TIMEOUT', message: /greeting/ })
  })
  await t.test('the connection breaks in the middle of a command', async (t) => {
    const { folder } = await fakeMonitor(t, (_command, socket) => void socket.destroy())
    const client = await QmpClient.connect(folder, 'qmp.sock')
    await t.rejects(client.execute('quit'), { code: 'UNAVAILABLE' })
    await t.rejects(client.execute('quit'), { code: 'UNAVAILABLE' }, 'and stays broken')
  })
  await t.test('something else listens there', async (t) => {
    const { folder } = await fakeMonitor(t, () => undefined, { greet: 'SSH-2.0-OpenSSH_9.2\r\n' })
    await t.rejects(QmpClient.connect(folder, 'qmp.sock'), { code: 'UNAVAILABLE', message: /does not speak QMP/ })
  })
  await t.test('nobody listens', async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'slipway-qmp-'))
    t.teardown(() => rm(folder, { recursive: true }))
    await t.rejects(QmpClient.connect(folder, 'qmp.sock'), { code: 'UNAVAILABLE' })
    await t.rejects(QmpClient.connect(join(folder, 'gone'), 'qmp.sock'), { code: 'ENOENT' })
  })
  await t.test('a line without end', async (t) => {
    const { folder } = await fakeMonitor(t, (_command, socket) => void socket.write('x'.repeat(1_100_000)))
    const client = await QmpClient.connect(folder, 'qmp.sock')
    await t.rejects(client.execute('query-status'), { code: 'UNAVAILABLE', message: /no end/ })
  })
})

void t.test('reaches a socket in a folder whose path is longer than a socket address may be', async (t) => {
  const { folder } = await fakeMonitor(t, () => ({ status: 'running' }))
  const deep = join(folder, 'd'.repeat(120))
  await mkdir(deep)
  await symlink('../qmp.sock', join(deep, 'qmp.sock'))
  const client = await QmpClient.connect(deep, 'qmp.sock')
  t.teardown(() => client.close())
  t.same(await client.execute('query-status'), { status: 'running' })
})
