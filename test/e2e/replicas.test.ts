import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { join } from 'node:path'
import { readWorld } from '@slipway/provider-simulated/ledger'
import t, { type Test } from 'tap'
import { Slipway, until, type Environment } from '../tools/processes.js'

// Hub replicas under faults, as an operator meets them. What is drawn at random is test/chaos's business; here each fault has its own test.

const simulated = 'providers/simulated/dist/src/main.js'
const quick = { createDuration: 100, bootDuration: 50, deleteDuration: 100, powerDuration: 50 }

interface HostJson {
  readonly state: string
}

/** A line to the database that can be cut. */
class Link {
  readonly #sockets = new Set<Socket>()
  readonly #t: Test
  #isCut = false

  constructor(t: Test) {
    this.#t = t
  }

  /** Puts itself before a database, and gives the address to use instead. */
  async before(database: string): Promise<string> {
    const { port, hostname } = new URL(database)
    const url = new URL(database)
    const server = createServer((near) => {
      if (this.#isCut) return near.destroy()
      const far = connect(Number(port), hostname)
      for (const socket of [near, far]) {
        this.#sockets.add(socket)
        socket.on('error', () => undefined).on('close', () => this.#sockets.delete(socket))
      }
      near.pipe(far)
      far.pipe(near)
      near.on('close', () => far.destroy())
      far.on('close', () => near.destroy())
      return undefined
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    this.#t.teardown(() => {
      this.cut()
      server.close()
    })
    url.host = `127.0.0.1:${(server.address() as AddressInfo).port}`
    return url.toString()
  }

  cut(): void {
    this.#isCut = true
    for (const socket of this.#sockets) socket.destroy()
  }

  heal(): void {
    this.#isCut = false
  }
}

async function cloud(t: Test, env: Environment = {}) {
  const slipway = await Slipway.start(t, env)
  await slipway.addProvider('cloud', 'simulated', 'dynamic', { config: quick })
  const world = join(slipway.folder, 'world')
  for (const instance of ['one', 'two'])
    await slipway.startProvider('cloud', simulated, ['--kind', 'dynamic', '--world', world], { instance })
  await slipway.apply({
    kind: 'MachineClass',
    name: 'machineClasses/small',
    shape: { vcpus: 2, memoryMib: '4096' },
    offerings: [{ family: 'simulated' }],
  })
  return { slipway, world }
}

const ready = (slipway: Slipway, name: string) =>
  until(
    `${name} to be READY`,
    async () => (await slipway.json<HostJson>('get', 'host', name)).state === 'HOST_STATE_READY',
    90_000,
  )

async function releaseAll(t: Test, slipway: Slipway, world: string, names: readonly string[]): Promise<void> {
  for (const name of names) await slipway.ok('host', 'release', name, '--yes', '--wait', '--timeout', '90s')
  t.match(readWorld(world), { totals: { live: 0, maxLiveByOwner: 1 }, violations: [] })
}

// The whole file may take longer than the runner's ordinary limit; each test has its own.
t.setTimeout(900_000)

void t.test('with no wake-up between replicas ever sent, all completes', { timeout: 300_000 }, async (t) => {
  const deaf = { SLIPWAY_FAILPOINTS: 'hub.wake.before-notify:*=error' }
  const { slipway, world } = await cloud(t, deaf)
  const second = await slipway.startReplica(deaf)
  if (second === undefined) return t.pass('the embedded database serves one hub')
  const names = ['a', 'b', 'c']
  for (const name of names)
    await slipway.ok('--server', second.url, 'host', 'order', name, '--class', 'small', '--no-wait')
  for (const name of names) await ready(slipway, name)
  return releaseAll(t, slipway, world, names)
})

void t.test('the database is out of reach for longer than a lease', { timeout: 300_000 }, async (t) => {
  const link = new Link(t)
  const { slipway, world } = await cloud(t, async (database) =>
    database === undefined ? {} : { DATABASE_URL: await link.before(database) },
  )
  if (slipway.database === undefined) return t.pass('the embedded database belongs to its hub')
  await slipway.ok('host', 'order', 'before', '--class', 'small', '--timeout', '90s')
  link.cut()
  const call = () =>
    fetch(`${slipway.url}/slipway.hub.v1.HostService/ListHosts`, {
      method: 'POST',
      headers: { authorization: `Bearer ${slipway.token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ parent: 'workspaces/default' }),
    })
  const refusal = await until('a refusal', async () => {
    const response = await call()
    return response.status === 503 && (await response.text())
  })
  t.match(refusal, /DATABASE_UNAVAILABLE|unavailable/)
  t.match(refusal, /RetryInfo/)
  const since = performance.now()
  await until('a lease to have run out', () => performance.now() - since > 4_000)
  t.ok(slipway.hub.running, 'the hub waits for it')
  link.heal()
  await until('answers', async () => (await call()).ok)
  await slipway.ok('host', 'order', 'after', '--class', 'small', '--timeout', '90s')
  t.notMatch(slipway.hub.output(), /sessions ran out/, 'no session was ended for it')
  return releaseAll(t, slipway, world, ['before', 'after'])
})

void t.test('a hub dies on either side of every commit', { timeout: 580_000 }, async (t) => {
  const { slipway, world } = await cloud(t)
  // The others are test/chaos's business.
  const points = ['order', 'claim', 'wish', 'report', 'reconcile'].flatMap((point) => [
    `hub.${point}.before-commit`,
    `hub.${point}.after-commit`,
  ])
  const names: string[] = []
  for (const [index, point] of points.entries()) {
    await slipway.hub.end('SIGKILL')
    slipway.hub.start({ SLIPWAY_FAILPOINTS: `${point}=kill` })
    const name = `point-${index}`
    // The order is sent again under one key until it is answered, as a client does.
    const order = slipway.keepOrdering(name, 'small')
    t.equal(await slipway.hub.ended(60_000), 'SIGKILL', point)
    slipway.hub.start({ SLIPWAY_FAILPOINTS: '' })
    await order
    await ready(slipway, name)
    names.push(name)
  }
  await releaseAll(t, slipway, world, names)
})
