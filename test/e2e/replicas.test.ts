import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { readWorld } from '@slipway/provider-simulated/ledger'
import pg from 'pg'
import t, { type Test } from 'tap'
import { Slipway, until } from '../tools/processes.js'

// Hub replicas under faults, as an operator meets them. What is drawn at random is test/chaos's business; here each fault has its own test.

const simulated = 'providers/simulated/dist/src/main.js'
const quick = { createDuration: 100, bootDuration: 50, deleteDuration: 100, powerDuration: 50 }

interface HostJson {
  readonly state: string
}

async function cloud(t: Test, env: NodeJS.ProcessEnv = {}) {
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

void t.test('with no wake-up between replicas ever sent, all completes', { timeout: 300_000 }, async (t) => {
  const { slipway, world } = await cloud(t, { SLIPWAY_FAILPOINTS: 'hub.wake.before-notify:*=error' })
  const second = await slipway.startReplica({ SLIPWAY_FAILPOINTS: 'hub.wake.before-notify:*=error' })
  if (second === undefined) return t.pass('the embedded database serves one hub')
  const names = ['a', 'b', 'c']
  for (const name of names)
    await slipway.ok('--server', second.url, 'host', 'order', name, '--class', 'small', '--no-wait')
  for (const name of names) await ready(slipway, name)
  await releaseAll(t, slipway, world, names)
})

void t.test(
  'a replica that was stopped past its lease does no harm when it wakes up',
  { timeout: 300_000 },
  async (t) => {
    const { slipway, world } = await cloud(t)
    const second = await slipway.startReplica()
    if (second === undefined) return t.pass('the embedded database serves one hub')
    const names = Array.from({ length: 6 }, (_, index) => `stopped-${index}`)
    for (const name of names) await slipway.ok('host', 'order', name, '--class', 'small', '--no-wait')
    process.kill(slipway.hub.pid, 'SIGSTOP')
    t.teardown(() => slipway.hub.running && process.kill(slipway.hub.pid, 'SIGCONT'))
    await until(
      'the other replica to see it all end',
      async () => {
        const hosts = await slipway.json<readonly HostJson[]>('--server', second.url, 'get', 'hosts')
        return hosts.length === names.length && hosts.every((host) => host.state === 'HOST_STATE_READY')
      },
      120_000,
    )
    process.kill(slipway.hub.pid, 'SIGCONT')
    await ready(slipway, names[0] ?? '')
    await releaseAll(t, slipway, world, names)
  },
)

void t.test(
  'the database is out of reach: refusals with a hint, and work goes on after',
  { timeout: 300_000 },
  async (t) => {
    const server = process.env['SLIPWAY_TEST_DATABASE_URL']
    if (server === undefined || server === '') return t.pass('the embedded database belongs to its hub')
    const { slipway, world } = await cloud(t)
    const database = slipway.database ?? ''
    const admin = new pg.Client({ connectionString: server })
    await admin.connect()
    t.teardown(() => admin.end())
    const name = new URL(database).pathname.slice(1)
    // Nobody gets in, and whoever is in is thrown out: what a network that is cut looks like to the hub.
    await admin.query(`alter database ${name} with allow_connections false`)
    const cut = () => admin.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [name])
    await cut()
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
    t.ok(slipway.hub.running)
    // Longer than a lease is good for.
    await sleep(5_000)
    await cut()
    t.ok(slipway.hub.running)
    await admin.query(`alter database ${name} with allow_connections true`)
    await until('answers', async () => (await call()).ok)
    await slipway.ok('host', 'order', 'after', '--class', 'small', '--timeout', '90s')
    await releaseAll(t, slipway, world, ['after'])
  },
)

void t.test(
  'a hub dies on either side of every commit, and no order is lost or doubled',
  { timeout: 580_000 },
  async (t) => {
    const { slipway, world } = await cloud(t)
    const points = ['order', 'session-open', 'claim', 'wish', 'report', 'listing', 'reconcile', 'sweep'].flatMap(
      (point) => [`hub.${point}.before-commit`, `hub.${point}.after-commit`],
    )
    points.push('hub.heartbeat.before-store', 'hub.heartbeat.after-store', 'hub.wake.before-notify')
    const names: string[] = []
    for (const [index, point] of points.entries()) {
      await slipway.hub.end('SIGTERM')
      slipway.hub.start({ SLIPWAY_FAILPOINTS: `${point}=kill` })
      const name = `point-${index}`
      // The order is sent again under one key until it is answered, as a client does.
      const order = slipway.keepOrdering(name, 'small')
      // A wish for what is held, so that there is one to be told of.
      const release = index > 0 ? slipway.cli('host', 'release', names[index - 1] ?? '', '--yes') : undefined
      t.equal(await slipway.hub.ended(60_000), 'SIGKILL', point)
      slipway.hub.start({ SLIPWAY_FAILPOINTS: '' })
      await order
      await release
      await ready(slipway, name)
      names.push(name)
    }
    for (const name of names) {
      await until(`${name} to be released`, async () => {
        const released = await slipway.cli('host', 'release', name, '--yes', '--wait', '--timeout', '90s')
        return released.code === 0 || /HOST_NOT_FOUND|there is no host/.test(released.stderr)
      })
    }
    await until('nothing to be left', () => readWorld(world).totals.live === 0)
    t.match(readWorld(world), { totals: { live: 0, maxLiveByOwner: 1 }, violations: [] })
  },
)
