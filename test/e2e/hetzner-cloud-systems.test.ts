import { generateKeyPairSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Emulator } from '@slipway/provider-hetzner-cloud/testing'
import t, { type Test } from 'tap'
import { Slipway, until } from '../tools/processes.js'

// A new system on a server of the Hetzner Cloud that stays, and its rescue system, with real processes; the cloud is emulated, and its ledger is the truth.

const provider = 'providers/hetzner-cloud/dist/src/main.js'
const flags = ['--listing-lag-ms', '200', '--effect-timeout-ms', '6000', '--list-interval-ms', '1000']
const config = { image: 'debian-12', callTimeoutMs: 3_000, actionTimeoutMs: 20_000, shutdownTimeoutMs: 500 }

const smallClass = {
  kind: 'MachineClass',
  name: 'small',
  shape: { vcpus: 2, memoryMib: 4096, diskGib: 40 },
  offerings: [{ family: 'hetzner-cloud', typeId: 'cx22' }],
  bootstrap: { phoneHome: true },
}

interface HostJson {
  readonly state: string
  readonly machine: string
  readonly machineRequest: string
  readonly addresses: readonly { readonly ip: string }[]
  readonly phoneHomeTime: string
  readonly providerData?: { readonly image?: string }
}

interface MachineJson {
  readonly externalId: string
  readonly reinstalls?: string
  readonly reinstallsDone?: string
  readonly rescue?: boolean
}

async function start(t: Test) {
  const emulator = await Emulator.start()
  t.teardown(() => emulator.close())
  const slipway = await Slipway.start(t)
  await slipway.addProvider('cloud', 'hetzner-cloud', 'dynamic', {
    config: { ...config, endpoint: emulator.endpoint },
    credentials: { apiToken: emulator.token },
  })
  await slipway.apply(smallClass)
  const rebuilds = () =>
    emulator.ledger.calls.filter(({ method, path }) => method === 'POST' && path.endsWith('/rebuild'))
  const server = () => [...emulator.project.servers.values()][0]
  return { emulator, slipway, rebuilds, server }
}

t.setTimeout(1_200_000)

void t.test('a host is reinstalled, rescued and released', { timeout: 600_000 }, async (t) => {
  const { emulator, slipway, rebuilds, server } = await start(t)
  const process = await slipway.startProvider('cloud', provider, flags, { env: { SLIPWAY_LOG_LEVEL: 'trace' } })
  await slipway.ok('host', 'order', 'web-1', '--class', 'small', '--timeout', '180s')
  const before = await slipway.json<HostJson>('get', 'host', 'web-1')
  const { externalId } = await slipway.json<MachineJson>('get', 'machine', before.machine)

  await t.test('what cannot be is refused, and nothing is done', async (t) => {
    const reinstall = (...more: string[]) => slipway.cli('host', 'reinstall', 'web-1', '--yes', ...more)
    t.match((await reinstall('--data', 'image=plan9')).stderr, /there is no image plan9/)
    t.match((await reinstall('--data', 'imgae=debian-12')).stderr, /imgae/)
    const file = join(slipway.folder, 'backups.json')
    writeFileSync(file, '{"backups": true}')
    t.match((await reinstall('--data-file', file)).stderr, /stays as it was/)
    t.match(await slipway.ok('host', 'reinstall', 'web-1', '--dry-run', '--data', 'image=ubuntu-24.04'), /READY/)
    t.equal((await slipway.cli('host', 'reinstall', 'web-1')).code, 2, 'nor without being asked')
    t.equal(rebuilds().length, 0)
  })

  await t.test('it has another image and the same machine', async (t) => {
    const data = ['--data', 'image=ubuntu-24.04']
    t.match(await slipway.ok('host', 'reinstall', 'web-1', ...data, '--yes', '--timeout', '180s'), /READY/)
    const after = await slipway.json<HostJson>('get', 'host', 'web-1')
    t.match(after, {
      machine: before.machine,
      machineRequest: before.machineRequest,
      addresses: before.addresses,
      providerData: { image: 'ubuntu-24.04' },
    })
    t.not(after.phoneHomeTime, before.phoneHomeTime, 'it phoned home anew')
    t.match(await slipway.json('get', 'machine', before.machine), { externalId, reinstalls: '1', reinstallsDone: '1' })
    t.match(server()?.view.image, { name: 'ubuntu-24.04' })
    t.equal(server()?.installation, 2)
    t.match(await slipway.ok('describe', 'host', 'web-1'), /HostReinstalling/)
  })

  await t.test('it runs its rescue system, and its own again', async (t) => {
    t.match((await slipway.cli('machine', 'rescue', before.machine)).stderr, /by SSH key alone/)
    const file = join(slipway.folder, 'key.pub')
    writeFileSync(file, publicKey())
    await slipway.ok('machine', 'rescue', before.machine, '--ssh-key-file', file, '--wait', '--timeout', '60s')
    t.equal(server()?.inRescue, true)
    await slipway.ok('machine', 'power', before.machine, 'reboot', '--wait')
    // Both: the server is there a moment before its provider says so.
    await until('the reboot to lead there again', async () => {
      const { rescue } = await slipway.json<MachineJson>('get', 'machine', before.machine)
      return rescue === true && server()?.inRescue === true
    })
    await slipway.ok('machine', 'rescue', before.machine, '--leave', '--wait', '--timeout', '60s')
    t.equal(server()?.inRescue, false)
    t.equal(emulator.project.sshKeys.size, 0, 'the key that was put there for it is gone')
  })

  await slipway.ok('host', 'release', 'web-1', '--yes', '--wait', '--timeout', '180s')
  t.strictSame(emulator.ledger.live(), [])
  t.strictSame(emulator.violations, [])
  for (const secret of [emulator.token, 'emulated-rescue-password', 'phone_home'])
    t.notOk(process.output().includes(secret), `${secret} is in no log`)
})

const moments = ['sdk.effect.before', 'sdk.effect.after', 'sdk.report.before', 'sdk.report.after'] as const
const losses = {
  'sdk.effect.before': ['POST', /\/rebuild$/],
  'sdk.effect.after': ['GET', /^\/servers\/\d+\/actions$/],
  'sdk.report.before': ['GET', /^\/actions$/],
  'sdk.report.after': ['GET', /^\/servers\/\d+$/],
} as const

void t.test('killed at each failpoint with lost answers, a server is rebuilt once', { timeout: 600_000 }, async (t) => {
  const { emulator, slipway, rebuilds, server } = await start(t)
  const plain = await slipway.startProvider('cloud', provider, flags, { instance: 'one' })
  await slipway.ok('host', 'order', 'web-1', '--class', 'small', '--timeout', '180s')
  const { machine } = await slipway.json<HostJson>('get', 'host', 'web-1')
  const { externalId } = await slipway.json<MachineJson>('get', 'machine', machine)
  await plain.end('SIGTERM')
  for (const [index, moment] of moments.entries()) {
    const wishes = index + 1
    const dying = await slipway.startProvider('cloud', provider, flags, {
      instance: `dying-${wishes}`,
      env: { SLIPWAY_FAILPOINTS: `${moment}=kill` },
    })
    await slipway.ok('host', 'reinstall', 'web-1', '--yes', '--no-wait')
    await until(`the instance to be killed at ${moment}`, () => !dying.running, 60_000)
    const [method, path] = losses[moment]
    emulator.faults.planCall(method, path, 'lost')
    const next = await slipway.startProvider('cloud', provider, flags, { instance: `next-${wishes}` })
    await slipway.ok('wait', 'host/web-1', '--for', 'ready', '--timeout', '120s')
    t.match(await slipway.json('get', 'machine', machine), { externalId, reinstallsDone: String(wishes) }, moment)
    t.equal(server()?.installation, 1 + wishes, `${moment}: rebuilt once`)
    t.equal(emulator.faults.pending, 0, `${moment}: the loss took effect`)
    await next.end('SIGTERM')
  }
  t.equal(rebuilds().length, moments.length)
  await slipway.startProvider('cloud', provider, flags, { instance: 'last' })
  await slipway.ok('host', 'reinstall', 'web-1', '--yes', '--no-wait')
  await slipway.ok('host', 'release', 'web-1', '--yes', '--wait', '--timeout', '180s')
  t.strictSame(emulator.ledger.live(), [], 'a release in the middle of a reinstall leaves nothing')
  t.equal(emulator.ledger.created('server').length, 1)
  t.strictSame(emulator.violations, [])
})

/** A public key as people give it. */
function publicKey(): string {
  const { publicKey } = generateKeyPairSync('ed25519')
  const raw = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32)
  const part = (bytes: Buffer) => Buffer.concat([Buffer.from([0, 0, 0, bytes.length]), bytes])
  return `ssh-ed25519 ${Buffer.concat([part(Buffer.from('ssh-ed25519')), part(raw)]).toString('base64')} somebody\n`
}
