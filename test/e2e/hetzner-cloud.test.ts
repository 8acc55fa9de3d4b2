import { Emulator, type EmulatorOptions } from '@slipway/provider-hetzner-cloud/testing'
import t, { type Test } from 'tap'
import { Slipway } from '../tools/processes.js'

// The whole way to servers of the Hetzner Cloud, with real processes: hub, provider, command line; the cloud is emulated, and its ledger is the truth.

const provider = 'providers/hetzner-cloud/dist/src/main.js'
const hasty = [
  '--listing-lag-ms',
  '200',
  '--effect-timeout-ms',
  '2000',
  '--list-interval-ms',
  '500',
  '--offerings-interval-ms',
  '500',
]
const config = { image: 'debian-12', callTimeoutMs: 1_000, actionTimeoutMs: 20_000, shutdownTimeoutMs: 500 }

const smallClass = {
  kind: 'MachineClass',
  name: 'small',
  shape: { vcpus: 2, memoryMib: 4096, diskGib: 40, architecture: 'amd64' },
  offerings: [{ family: 'hetzner-cloud', typeId: 'cx22' }],
  bootstrap: { phoneHome: true },
}

interface HostJson {
  readonly state: string
  readonly machine?: string
  readonly location?: string
  readonly lastError?: { readonly code: string; readonly message: string }
  readonly attempts?: readonly { readonly location: string; readonly error: { readonly code: string } }[]
}

async function start(t: Test, options: { emulator?: EmulatorOptions; config?: object } = {}) {
  const emulator = await Emulator.start(options.emulator)
  t.teardown(() => emulator.close())
  const slipway = await Slipway.start(t)
  await slipway.addProvider('cloud', 'hetzner-cloud', 'dynamic', {
    config: { ...config, endpoint: emulator.endpoint, ...options.config },
    credentials: { apiToken: emulator.token },
  })
  await slipway.apply(smallClass)
  return { emulator, slipway }
}

void t.test('a host in the Hetzner Cloud', { timeout: 300_000 }, async (t) => {
  const { emulator, slipway } = await start(t)
  await slipway.startProvider('cloud', provider, hasty)

  await t.test('is ordered, born and READY', async (t) => {
    t.match(await slipway.ok('host', 'order', 'web-1', '--class', 'small', '--timeout', '60s'), /READY/)
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
    await slipway.ok('host', 'release', 'web-1', '--yes', '--wait', '--timeout', '60s')
    t.strictSame(emulator.ledger.live(), [])
  })

  await t.test('goes to the second location where the first has no room left', async (t) => {
    emulator.faults.setCapacity('fsn1', 0)
    t.match(await slipway.ok('host', 'order', 'web-2', '--class', 'small', '--timeout', '60s'), /READY/)
    const host = await slipway.json<HostJson>('get', 'host', 'web-2')
    t.match(host, { state: 'HOST_STATE_READY', attempts: [{ location: 'fsn1', error: { code: /CAPACITY/ } }] })
    t.match(await slipway.ok('describe', 'host', 'web-2'), /resource_unavailable/)
    await slipway.ok('host', 'release', 'web-2', '--yes', '--wait', '--timeout', '60s')
  })
  t.strictSame(emulator.violations, [], 'both sides kept to the description')
  t.strictSame(emulator.ledger.live(), [])
})
