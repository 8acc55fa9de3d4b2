import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ConsoleChunk, ConsoleWish } from '@slipway/sdk'
import t, { type Test } from 'tap'
import { startIpmiSim } from '../testing/bmc/ipmi-sim.js'
import { skipWithout } from '../testing/bmc/programs.js'
import { ConsoleLogs } from './console-logs.js'
import { showConsole } from './console.js'
import type { ConsolePart } from './power/driver.js'
import { BmcError } from './power/errors.js'
import { IpmiDriver } from './power/ipmi/driver.js'
import { SerialLines } from './serial-lines.js'

const skip = await skipWithout({ ipmi_sim: 'openipmi' })

async function until(what: string, check: () => boolean): Promise<void> {
  const deadlineMs = performance.now() + 30_000
  while (!check()) {
    if (performance.now() > deadlineMs) throw new Error(`${what} did not come`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** Somebody who reads along, and can be cut off. */
class Reader {
  text = ''
  at: ConsoleChunk['position'] | undefined
  readonly chunks: ConsoleChunk[] = []
  readonly done: Promise<unknown>
  readonly #stop = new AbortController()

  constructor(open: (wish: ConsoleWish, signal: AbortSignal) => AsyncIterable<ConsoleChunk>, wish: ConsoleWish) {
    this.done = this.#read(open(wish, this.#stop.signal)).catch((error: unknown) => error)
  }

  /** Goes. @returns what it ended with, where that was a failure. */
  async leave(): Promise<unknown> {
    this.#stop.abort(new Error('left'))
    return this.done
  }

  async #read(chunks: AsyncIterable<ConsoleChunk>): Promise<void> {
    for await (const chunk of chunks) {
      const { log, offset } = chunk.position
      const known = this.at?.log === log ? Math.max(0, this.at.offset - offset) : 0
      this.chunks.push(chunk)
      this.text += Buffer.from(chunk.bytes.subarray(known)).toString('latin1')
      this.at = { log, offset: offset + chunk.bytes.length }
    }
  }
}

/** A serial port that a machine writes to. */
async function serialPort(t: Test) {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => sockets.add(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return {
    sol: `tcp:127.0.0.1:${port}`,
    write: (text: string) => {
      for (const socket of sockets) socket.write(text)
    },
  }
}

async function logs(t: Test): Promise<ConsoleLogs> {
  const folder = await mkdtemp(join(tmpdir(), 'slipway-console-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return new ConsoleLogs(folder)
}

void t.test(
  'the serial line of a BMC is shared here, and taken by one at a time',
  { skip, timeout: 120_000 },
  async (t) => {
    const machine = await serialPort(t)
    const peer = await startIpmiSim({ sol: machine.sol })
    t.teardown(() => peer.close())
    const drivers = [1, 2].map(() => new IpmiDriver(peer.settings, peer.secret))
    t.teardown(() => Promise.all(drivers.map((driver) => driver.close())))
    const [first, second] = drivers.map((driver) => new SerialLines((_id, signal) => driver.openConsole(signal), 300))
    const consoles = await logs(t)
    const open =
      (serialLines: SerialLines | undefined) =>
      (wish: ConsoleWish, signal: AbortSignal): AsyncIterable<ConsoleChunk> =>
        showConsole(
          { consoles, serialLines: serialLines ?? new SerialLines(() => undefined) },
          'auto',
          'm1',
          wish,
          signal,
        )

    const talking = setInterval(() => machine.write(`${randomBytes(4).toString('hex')}\r\n`), 10)
    t.teardown(() => clearInterval(talking))
    const one = new Reader(open(first), { follow: true })
    await until('what the machine says', () => one.text.length > 100)
    const two = new Reader(open(first), { follow: true })
    await until('the same for another', () => two.text.length > one.text.length - 50 && two.text.length > 200)
    t.ok(one.text.startsWith(two.text.slice(0, 100)), 'it begins with what is kept')

    const elsewhere = new Reader(open(second), { follow: true })
    t.match(await elsewhere.done, { name: 'ConsoleRefused', why: 'busy' }, 'somebody else has it')

    // Who is cut off and comes back within moments finds that nothing is missing.
    const before = one.text
    const { at } = one
    await Promise.all([one.leave(), two.leave()])
    t.equal(first?.holds('m1'), true)
    const back = new Reader(open(first), { follow: true, ...(at !== undefined && { after: at }) })
    await until('more of it', () => back.text.length > 50)
    t.equal(back.chunks[0]?.position.log, at?.log)
    t.ok((back.chunks[0]?.position.offset ?? Infinity) <= (at?.offset ?? 0), 'from where it was')
    t.ok(before.length > 0)

    await back.leave()
    await until('the line to be given back', () => first?.holds('m1') === false)
    const now = new Reader(open(second), { follow: true })
    await until('what the machine says, elsewhere', () => now.text.length > 50)
    await now.leave()
    await second?.close()
  },
)

/** A serial line that says what it is told to. */
function scripted() {
  const parts: ConsolePart[] = []
  const state = { opened: 0, closed: 0, failure: undefined as unknown }
  const open = async function* (_id: string, signal: AbortSignal): AsyncGenerator<ConsolePart> {
    state.opened += 1
    try {
      while (!signal.aborted) {
        const part = parts.shift()
        if (part !== undefined) yield part
        else if (state.failure !== undefined) throw state.failure as Error
        else await new Promise((resolve) => setTimeout(resolve, 5))
      }
    } finally {
      state.closed += 1
    }
  }
  const say = (text: string, lost = false) => parts.push({ bytes: Buffer.from(text), lost })
  return { state, open, say, parts }
}

void t.test('what a slow reader misses shows by its place', async (t) => {
  const line = scripted()
  const lines = new SerialLines(line.open, 50)
  t.teardown(() => lines.close())
  const quick = new Reader((wish, signal) => lines.follow('m1', wish, signal), { follow: true })
  line.say('a\n')
  await until('the first', () => quick.text === 'a\n')
  for (let count = 0; count < 20; count += 1) line.say('x'.repeat(32_768))
  await until('all of it', () => quick.text.length === 2 + 20 * 32_768)
  const late = new Reader((wish, signal) => lines.follow('m1', wish, signal), {
    follow: true,
    ...(quick.chunks[0] !== undefined && { after: { ...quick.chunks[0].position, offset: 2 } }),
  })
  await until('what is kept', () => late.text.length > 0)
  t.equal(late.chunks[0]?.position.log, quick.chunks[0]?.position.log)
  t.ok((late.chunks[0]?.position.offset ?? 0) > 2 + 32_768, 'the first of it are gone, and it is told how many')

  line.say('b\nc\n', true)
  await until('what comes after a loss', () => quick.text.endsWith('c\n'))
  t.not(quick.chunks.at(-1)?.position.log, quick.chunks[0]?.position.log, 'how much is not known')
  const tail: ConsoleChunk[] = []
  for await (const chunk of lines.kept('m1', { follow: false, tailLines: 1 })) tail.push(chunk)
  t.equal(Buffer.concat(tail.map(({ bytes }) => bytes)).toString(), 'c\n')
  await Promise.all([quick.leave(), late.leave()])
  await until('the line to be given back', () => !lines.holds('m1'))
  t.same([line.state.opened, line.state.closed], [1, 1])
})

void t.test('what is said of a line that there is not, or that is taken away', async (t) => {
  const consoles = await logs(t)
  consoles.take('m1', { uptimeMs: 1, log: { offset: 0, text: 'agent: hello\n' } })
  await consoles.close()
  const { signal } = new AbortController()
  const none = new SerialLines(() => undefined)
  const show = (source: 'auto' | 'agent' | 'sol', wish: ConsoleWish, serialLines = none) =>
    new Reader((given, until) => showConsole({ consoles, serialLines }, source, 'm1', given, until), wish)

  const whole = show('auto', { follow: false })
  t.equal(await whole.done, undefined)
  t.equal(whole.text, 'agent: hello\n', 'what the agent told')
  t.match(await show('sol', { follow: true }).done, { why: 'absent' })
  t.match(await show('sol', { follow: false }).done, { why: 'absent', message: /follow it/ })
  const fallen = show('auto', { follow: true })
  await until("the agent's, where there is no line", () => fallen.text === 'agent: hello\n')
  t.match(await fallen.leave(), { message: 'left' })

  const line = scripted()
  const lines = new SerialLines(line.open, 50)
  t.teardown(() => lines.close())
  const followed = show('auto', { follow: true }, lines)
  line.say('serial\n')
  await until('the line', () => followed.text === 'serial\n')
  const along = show('sol', { follow: false }, lines)
  t.equal(await along.done, undefined)
  t.equal(along.text, 'serial\n', 'what others follow can be looked at')
  line.state.failure = new BmcError('busy', 'the BMC took the serial console away')
  t.match(await followed.done, { name: 'ConsoleRefused', why: 'busy' })
  line.state.failure = new BmcError('unreachable', 'no answer')
  t.match(await show('auto', { follow: true }, lines).done, { code: 'UNAVAILABLE' })
  t.equal(signal.aborted, false)
})
