import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Emulator, type EmulatorOptions } from '@slipway/provider-hetzner-cloud/testing'
import t, { type Test } from 'tap'
import { Slipway, until } from '../tools/processes.js'

// The whole way to servers of the Hetzner Cloud, with real processes: hub, provider, command line; the cloud is emulated, and its ledger is the truth.

const provider = 'providers/hetzner-cloud/dist/src/main.js'
const hasty = [
  '--listing-lag-ms',
  '200',
  '--effect-timeout-ms',
  '10000',
  '--list-interval-ms',
  '500',
  '--offerings-interval-ms',
  '500',
]
const config = { image: 'debian-12', callTimeoutMs: 5_000, actionTimeoutMs: 20_000, shutdownTimeoutMs: 500 }

const smallClass = {
  kind: 'MachineClass',
  name: 'small',
  shape: { vcpus: 2, memoryMib: 4096, diskGib: 40, architecture: 'amd64' },
  offerings: [{ family: 'hetzner-cloud', typeId: 'cx22' }],
  bootstrap: { phoneHome: true },
}

// The whole file may take longer than the runner's ordinary limit; each test has its own.
t.setTimeout(1_500_000)

interface HostJson {
  readonly state: string
  readonly machine?: string
  readonly location?: string
  readonly lastError?: { readonly code: string; readonly message: string }
  readonly attempts?: readonly { readonly location: string; readonly error: { readonly code: string } }[]
}

async function start(t: Test, options: { emulator?: EmulatorOptions; env?: NodeJS.ProcessEnv } = {}) {
  const emulator = await Emulator.start(options.emulator)
  t.teardown(() => emulator.close())
  const slipway = await Slipway.start(t, options.env)
  await slipway.addProvider('cloud', 'hetzner-cloud', 'dynamic', {
    config: { ...config, endpoint: emulator.endpoint },
    credentials: { apiToken: emulator.token },
  })
  await slipway.apply(smallClass)
  return { emulator, slipway }
}

void t.test('a host in the Hetzner Cloud', { timeout: 600_000 }, async (t) => {
  const { emulator, slipway } = await start(t)
  const process = await slipway.startProvider('cloud', provider, hasty, { env: { SLIPWAY_LOG_LEVEL: 'trace' } })

  await t.test('is ordered, born and READY', async (t) => {
    t.match(await slipway.ok('host', 'order', 'web-1', '--class', 'small', '--timeout', '180s'), /READY/)
    const [server, ...more] = emulator.ledger.live('server')
    t.strictSame(more, [])
    t.match(server, { name: /^web-1-/, labels: { 'slipway/host': 'web-1', 'slipway/class': 'small' } })
  })

  await t.test('is power-cycled', async (t) => {
    const { machine = '' } = await slipway.json<HostJson>('get', 'host', 'web-1')
    await slipway.ok('machine', 'power', machine, 'off', '--wait')
    t.match(await slipway.json('get', 'machine', machine), { power: 'POWER_STATE_OFF' })
    await slipway.ok('machine', 'power', machine, 'on', '--wait')
    await slipway.ok('machine', 'power', machine, 'reboot', '--wait')
    t.match(await slipway.json('get', 'machine', machine), { power: 'POWER_STATE_ON', rebootsDone: '1' })
  })

  await t.test('is released, and nothing is left', async (t) => {
    await slipway.ok('host', 'release', 'web-1', '--yes', '--wait', '--timeout', '180s')
    t.strictSame(emulator.ledger.live(), [])
  })

  await t.test('goes to the second location where the first has no room left', async (t) => {
    emulator.faults.setCapacity('fsn1', 0)
    t.match(await slipway.ok('host', 'order', 'web-2', '--class', 'small', '--timeout', '180s'), /READY/)
    const host = await slipway.json<HostJson>('get', 'host', 'web-2')
    t.match(host, { state: 'HOST_STATE_READY', attempts: [{ location: 'fsn1', error: { code: /CAPACITY/ } }] })
    t.match(await slipway.ok('describe', 'host', 'web-2'), /resource_unavailable/)
    await slipway.ok('host', 'release', 'web-2', '--yes', '--wait', '--timeout', '180s')
  })
  t.strictSame(emulator.violations, [], 'both sides kept to the description')
  const log = process.output()
  t.ok(log.includes('configuration and credentials are in use'))
  for (const secret of [emulator.token, 'emulated-root-password', '#cloud-config', 'phone_home'])
    t.notOk(log.includes(secret), `${secret} is in no log`)
  t.strictSame(emulator.ledger.live(), [])
})

void t.test(
  'servers with volumes, a token that is exchanged, and what is left behind',
  { timeout: 600_000 },
  async (t) => {
    const { emulator, slipway } = await start(t)
    await slipway.startProvider('cloud', provider, hasty)
    const data = join(slipway.folder, 'data.json')
    writeFileSync(data, JSON.stringify({ volumes: [{ sizeGib: 10 }] }))

    await t.test('a server comes and goes with its volumes', async (t) => {
      await slipway.ok('host', 'order', 'db-1', '--class', 'small', '--data-file', data, '--timeout', '180s')
      t.match(emulator.ledger.live('volume'), [{ name: /^db-1-.*-1$/ }])
      t.equal((await slipway.json<unknown[]>('get', 'orphans')).length, 0, 'a volume of a host is nobody left behind')
      await slipway.ok('host', 'release', 'db-1', '--yes', '--wait', '--timeout', '180s')
      t.strictSame(emulator.ledger.live(), [])
    })

    await t.test('an order that cannot be is refused before it costs anything', async (t) => {
      const order = await slipway.cli(
        'host',
        'order',
        'no-1',
        '--class',
        'small',
        '--data',
        'image=nope',
        '--timeout',
        '20s',
      )
      t.not(order.code, 0)
      t.match(order.stderr + order.stdout, /there is no image nope/)
      t.strictSame(await slipway.json('get', 'hosts'), [], 'there is no host of it')
      t.strictSame(emulator.ledger.live(), [])
    })

    await t.test('a new token is used without a restart, and one that is refused is not', async (t) => {
      const next = 'secondtk'.repeat(8)
      const apply = (apiToken: string) => slipway.apply({ kind: 'Provider', name: 'cloud', credentials: { apiToken } })
      await apply('x'.repeat(64))
      await slipway.ok('host', 'order', 'web-1', '--class', 'small', '--timeout', '180s')
      emulator.tokens.add(next)
      emulator.tokens.delete(emulator.token)
      await slipway.ok('host', 'order', 'web-2', '--class', 'small', '--no-wait')
      await until('the provider to be unhealthy', async () => {
        const { health } = await slipway.json<{ health?: string }>('get', 'provider', 'cloud')
        return health === 'HEALTH_UNHEALTHY'
      })
      await apply(next)
      await slipway.ok('wait', 'host/web-2', '--for', 'ready', '--timeout', '90s')
      t.equal(emulator.ledger.live('server').length, 2)
      for (const name of ['web-1', 'web-2'])
        await slipway.ok('host', 'release', name, '--yes', '--wait', '--timeout', '180s')
      t.strictSame(emulator.ledger.live(), [])
    })
    t.strictSame(emulator.violations, [])
  },
)

void t.test('two instances share a project, and one dies by an effect', { timeout: 600_000 }, async (t) => {
  const { emulator, slipway } = await start(t)
  const one = await slipway.startProvider('cloud', provider, hasty, {
    instance: 'one',
    env: { SLIPWAY_FAILPOINTS: 'sdk.effect.after:2=kill' },
  })
  await slipway.startProvider('cloud', provider, hasty, { instance: 'two' })
  const names = Array.from({ length: 6 }, (_, index) => `node-${index}`)
  for (const name of names) await slipway.ok('host', 'order', name, '--class', 'small', '--no-wait')
  // Where the other one was quicker with all of them, it is killed without having worked.
  await until('the first instance to be killed', () => !one.running, 30_000).catch(() => one.end('SIGKILL'))
  await slipway.ok('wait', ...names.map((name) => `host/${name}`), '--for', 'ready', '--timeout', '180s')
  t.equal(emulator.ledger.live('server').length, names.length)
  for (const name of names) await slipway.ok('host', 'release', name, '--yes')
  await until('all to be gone', async () => (await slipway.json<unknown[]>('get', 'hosts')).length === 0, 180_000)
  t.equal(emulator.ledger.mostAtOnce('server', 'slipway/request'), 1, 'never were there two servers for one request')
  t.equal(emulator.ledger.created('server').length, names.length)
  t.strictSame(emulator.ledger.live(), [])
  t.strictSame(emulator.violations, [])
})

void t.test(
  'ten thousand servers are listed and told apart within the rate budget',
  { timeout: 600_000 },
  async (t) => {
    const { emulator, slipway } = await start(t, {
      emulator: { callsPerHour: 3_600 },
      // Ordinary leases: it is not a crash that is tried here.
      env: { SLIPWAY_LEASE: '60s', SLIPWAY_HEARTBEAT: '10s' },
    })
    const { hubId } = await slipway.json<{ hubId: string }>('whoami')
    const count = 10_000
    emulator.plant(
      Array.from({ length: count }, (_, index) => ({
        labels: {
          'slipway/hub': hubId,
          'slipway/request': `00000000-0000-4000-8000-${String(index).padStart(12, '0')}`,
        },
      })),
    )
    await slipway.startProvider('cloud', provider, [])
    const startedAtMs = performance.now()
    await until(
      'all of them to be known for orphans',
      async () => {
        const output = await slipway.ok('get', 'orphans', '-o', 'name')
        return output.split('\n').length === count
      },
      300_000,
    )
    const calls = emulator.ledger.calls.filter(({ path }) => path === '/servers').length
    t.comment(`${count} servers known after ${Math.round(performance.now() - startedAtMs)} ms, in ${calls} calls`)
    t.equal(emulator.rateLimit.refused, 0, 'the limit was kept')
    t.ok(calls <= 2 * (count / 50 + 1), `${calls} calls for one listing, or two`)
    const before = emulator.ledger.calls.length
    await slipway.ok('host', 'order', 'web-1', '--class', 'small', '--timeout', '120s')
    t.comment(`a host was READY among them after ${emulator.ledger.calls.length - before} calls`)
    t.equal(emulator.rateLimit.refused, 0)
    t.strictSame(emulator.violations, [])
  },
)
