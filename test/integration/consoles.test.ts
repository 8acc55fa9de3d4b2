import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { create } from '@bufbuild/protobuf'
import { withHub, type TestHub } from '@slipway/hub/testing'
import { ReplicaService, CarryConsoleRequestSchema } from '@slipway/proto/replica/v1'
import { defineProvider, type ConsoleWish } from '@slipway/sdk'
import { createSlipwayClient, followConsole, type SlipwayClient } from '@slipway/sdk/client'
import { enrol, openClient, openStream, parseGateway, parseJoinToken } from '@slipway/sdk/testing'
import { pino } from 'pino'
import t, { type Test } from 'tap'

// Consoles over two replicas of a hub: the provider's session at the one, readers at the other.

const secret = 'hunter2-on-the-console'
const asIs = (error: unknown): unknown => error

async function until<Value>(what: string, look: () => Value | undefined | false | Promise<Value | undefined | false>) {
  const deadlineMs = performance.now() + 30_000
  for (;;) {
    const value = await look()
    if (value !== undefined && value !== false) return value
    if (performance.now() > deadlineMs) throw new Error(`${what} did not come`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** A rack of one machine, whose console says numbered lines as long as somebody reads. */
class Rack {
  given = 0
  open = 0
  lines = Infinity

  readonly console = async function* (
    this: Rack,
    { signal }: { readonly signal: AbortSignal },
    _machine: unknown,
    { after, follow }: ConsoleWish,
  ) {
    this.open += 1
    try {
      for (let line = (after?.offset ?? 0) / 64; line < this.lines;) {
        const first = line
        let text = ''
        for (; line < this.lines && line < first + 64; line += 1)
          text += `${String(line).padStart(8, '0')} ${secret}`.padEnd(63, '.') + '\n'
        this.given += text.length
        await new Promise((resolve) => setImmediate(resolve))
        yield { position: { log: 'log', offset: first * 64 }, bytes: Buffer.from(text) }
      }
      if (follow) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
    } finally {
      this.open -= 1
    }
  }.bind(this)

  provider() {
    const nothing = () => Promise.resolve()
    return defineProvider({
      kind: 'static',
      family: 'numbers',
      listIntervalMs: 200,
      async *discover() {
        await Promise.resolve()
        yield { externalId: 'm1', providerData: { slot: 1 } }
      },
      observe: () => Promise.resolve({ externalId: 'm1' }),
      power: nothing,
      provision: () => Promise.resolve({ externalId: 'm1' }),
      clean: nothing,
      console: this.console,
    })
  }
}

interface Scene {
  readonly first: TestHub
  readonly second: Omit<TestHub, 'another'>
  readonly rack: Rack
  readonly near: SlipwayClient
  readonly far: SlipwayClient
  readonly machine: string
  /** Starts an instance at the first replica. @returns what stops it. */
  readonly connect: () => Promise<() => Promise<void>>
  /** Stops the instance that is there from the start. */
  readonly leave: () => Promise<void>
}

async function start(t: Test): Promise<Scene> {
  const first = await withHub(t)
  const second = await first.another()
  const rack = new Rack()
  const client = ({ hub, token }: Omit<TestHub, 'another'>) => createSlipwayClient({ baseUrl: hub.apiUrl, token })
  const [near, far] = [client(first), client(second)]
  await near.providers.createProvider({ providerId: 'rack', provider: { family: 'numbers', kind: 1 } })
  const connect = async () => {
    const stateDir = mkdtempSync(join(tmpdir(), 'slipway-consoles-'))
    const stop = new AbortController()
    const { joinToken } = await near.providers.createJoinToken({ provider: 'providers/rack' })
    const running = rack.provider().run({
      ...{ gateway: first.hub.gatewayAddress, joinToken, stateDir },
      ...{ signal: stop.signal, log: pino({ level: 'silent' }) },
    })
    const end = async () => {
      stop.abort()
      await running.catch(() => undefined)
      rmSync(stateDir, { recursive: true, force: true })
    }
    t.teardown(end)
    return end
  }
  const leave = await connect()
  const machine = await until('the machine', async () => (await near.machines.listMachines({})).machines[0]?.name)
  return { first, second, rack, near, far, machine, connect, leave }
}

/** Reads until there is as much as this, or the end. */
async function read(client: SlipwayClient, request: object, bytes = Infinity): Promise<string> {
  let text = ''
  const stop = new AbortController()
  try {
    for await (const { data } of client.machines.streamMachineConsole(request, { signal: stop.signal, timeoutMs: 0 })) {
      text += Buffer.from(data).toString()
      if (text.length >= bytes) break
    }
  } finally {
    stop.abort()
  }
  return text
}

function numbersOf(text: string): number[] {
  return [...text.matchAll(/^(\d{8}) /gm)].map(([, number]) => Number(number))
}

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index)

t.setTimeout(300_000)

void t.test(
  'a console is read at another replica, in order, no faster than it is read',
  { timeout: 120_000 },
  async (t) => {
    const { first, second, rack, near, far, machine } = await start(t)
    for (const [where, client] of [
      ['here', near],
      ['there', far],
    ] as const) {
      const text = await read(client, { name: machine, follow: true }, 1_000_000)
      t.same(numbersOf(text), upTo(numbersOf(text).length), `in order and none missing, ${where}`)
      await until('the author to be let go', () => rack.open === 0)
    }

    // A reader who does not read: what was given stands still, within the windows on the way.
    const before = rack.given
    const slow = new AbortController()
    const stream = far.machines.streamMachineConsole(
      { name: machine, follow: true },
      { signal: slow.signal, timeoutMs: 0 },
    )
    const pieces = stream[Symbol.asyncIterator]()
    await pieces.next()
    let given = -1
    let still = 0
    await until('the console to stand still', async () => {
      still = rack.given === given ? still + 1 : 0
      given = rack.given
      await new Promise((resolve) => setTimeout(resolve, 100))
      return still >= 5
    })
    // What the kernel keeps for each of the sockets on the way is its own affair, and grows.
    t.ok(given - before < 16_000_000, `${given - before} bytes were taken for a reader who reads none`)
    t.equal((await far.machines.getMachine({ name: machine })).machine?.name, machine, 'and all else goes on')
    slow.abort()
    await pieces.next().catch(asIs)
    await until('the author to be let go', () => rack.open === 0)

    for (const log of [first.log, second.log]) t.notMatch(log.join('\n'), secret, 'nothing of it is logged')
    const tables = await first.database.db.introspection.getTables()
    for (const { name } of tables) {
      const rows = await first.database.db
        .selectFrom(name as never)
        .selectAll()
        .execute()
      t.notOk(
        JSON.stringify(rows, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value)).includes(
          secret,
        ),
      )
    }
    t.ok(tables.length > 10)
  },
)

void t.test('readers come and go, and go on where they were', { timeout: 120_000 }, async (t) => {
  const { first, rack, near, far, machine, connect, leave } = await start(t)
  rack.lines = 100
  const stop = new AbortController()
  let text = ''
  const updates = followConsole(
    (position, signal) =>
      far.machines.streamMachineConsole({ name: machine, follow: true, position }, { signal, timeoutMs: 0 }),
    stop.signal,
  )
  const following = (async () => {
    for await (const update of updates) if (update.kind === 'data') text += Buffer.from(update.data).toString()
  })()
  await until('what there is', () => text.length === 6_400)
  // Once more from the first line on, as plain JSON.
  const body = Buffer.from(JSON.stringify({ name: machine }))
  const head = Buffer.alloc(5)
  head.writeUInt32BE(body.length, 1)
  const answer = await fetch(`${first.hub.apiUrl}/slipway.hub.v1.MachineService/StreamMachineConsole`, {
    method: 'POST',
    headers: { authorization: `Bearer ${first.token}`, 'content-type': 'application/connect+json' },
    body: Buffer.concat([head, body]),
  })
  const json = await answer.text()
  const data = [...json.matchAll(/"data":"([^"]*)"/g)].map(([, base64 = '']) =>
    Buffer.from(base64, 'base64').toString(),
  )
  t.equal(data.join(''), text)

  const readers = Array.from({ length: 7 }, () => {
    const controller = new AbortController()
    const ended = (async () => {
      const options = { signal: controller.signal, timeoutMs: 0 }
      for await (const piece of near.machines.streamMachineConsole({ name: machine, follow: true }, options)) void piece
    })().catch(asIs)
    return { controller, ended }
  })
  await until('eight readers', () => rack.open === 8)
  for (const client of [near, far])
    t.match(await read(client, { name: machine }).catch(asIs), { reason: 'CONSOLE_BUSY' }, 'a ninth is too many')
  for (const { controller } of readers) controller.abort()
  await Promise.all(readers.map(({ ended }) => ended))
  await until('them to be let go', () => rack.open === 1)
  t.equal((await read(near, { name: machine })).length, 6_400)

  // The instance that showed it goes, and another one goes on.
  await connect()
  const live = () => first.database.db.selectFrom('sessions').select('id').where('ended_at', 'is', null).execute()
  await until('the other instance', async () => (await live()).length === 2)
  rack.lines = 150
  await leave()
  await until('the rest', () => text.length === 9_600)
  t.same(numbersOf(text), upTo(150))
  stop.abort()
  await following
})

void t.test('refusals say what is wrong', { timeout: 120_000 }, async (t) => {
  const { first, near, far, machine, rack, leave } = await start(t)
  rack.lines = 1
  const refusal = async (request: object, client = far) => read(client, request).catch(asIs)
  t.match(await refusal({ name: 'machines/none' }), { reason: 'MACHINE_NOT_FOUND' })
  t.match(await refusal({ name: machine, position: 'x' }), { reason: 'INVALID_FIELD' })
  t.match(await refusal({ name: machine, tailLines: 1_000_001 }), { reason: 'INVALID_FIELD' })
  t.equal((await read(far, { name: machine })).length, 64)
  await first.database.db.updateTable('providers').set({ capabilities: '["LIST"]' }).execute()
  t.match(await refusal({ name: machine }), { reason: 'CONSOLE_UNSUPPORTED' }, 'an old one says nothing of consoles')
  await first.database.db.updateTable('providers').set({ capabilities: '["LIST","CONSOLE"]' }).execute()
  await leave()
  t.match(await refusal({ name: machine }), { reason: 'PROVIDER_OFFLINE', retryAfterMs: 1_000 })

  // Neither an instance nor a stranger may bring consoles.
  const { joinToken } = await near.providers.createJoinToken({ provider: 'providers/rack' })
  const gateway = parseGateway(first.hub.gatewayAddress)
  const identity = await enrol(gateway, parseJoinToken(joinToken), 'intruder')
  for (const client of [identity, undefined]) {
    const channel = openClient({
      ...{ gateway, caPems: identity.caPems, keepaliveMs: 5_000 },
      ...(client !== undefined && { client }),
    })
    const call = openStream(channel, ReplicaService.method.carryConsole)
    const error = await new Promise((resolve) => {
      call.on('error', resolve)
      call.on('data', () => undefined)
      const value = { $typeName: 'slipway.replica.v1.ConsoleArrival' as const, streamId: crypto.randomUUID() }
      call.write(create(CarryConsoleRequestSchema, { body: { case: 'arrival', value } }))
    })
    t.match(error, { code: 16, details: /only replicas of this hub/ })
    channel.close()
  }
})
