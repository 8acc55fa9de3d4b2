import { spawn, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readLines, readWorld } from '@slipway/provider-simulated/ledger'
import t from 'tap'
import { root, Slipway, until } from '../tools/processes.js'

// The whole way on a simulated cloud and a simulated rack, with real processes: hub, providers, command line.

const simulated = 'providers/simulated/dist/src/main.js'

const publicKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFNsaXB3YXlUb3VyU2xpcHdheVRvdXJTbGlwd2F5VG91 me@home'

const quickCloud = { createDuration: 100, deleteDuration: 100, powerDuration: 50, bootDuration: 100 }
const quickRack = {
  machines: 3,
  installDuration: 100,
  wipeDuration: 100,
  inspectDuration: 50,
  powerDuration: 50,
  bootDuration: 100,
}

const smallClass = {
  kind: 'MachineClass',
  name: 'small',
  shape: { vcpus: 2, memoryMib: 4096, diskGib: 40, architecture: 'amd64' },
  offerings: [{ family: 'simulated', typeId: 'sim-small' }],
  bootstrap: { phoneHome: true },
}

interface HostJson {
  readonly name: string
  readonly state: string
  readonly machine?: string
  readonly machineRequest?: string
  readonly lastError?: { readonly code: string; readonly message: string; readonly attempts: number }
  readonly attempts?: readonly { readonly provider: string; readonly error: { readonly code: string } }[]
  readonly provider?: string
}

void t.test('a host on a simulated cloud', { timeout: 300_000 }, async (t) => {
  const slipway = await Slipway.start(t)
  await slipway.addProvider('cloud', 'simulated', 'dynamic', { config: quickCloud })
  const world = join(slipway.folder, 'world')
  await slipway.startProvider('cloud', simulated, ['--kind', 'dynamic', '--world', world])
  t.match(await slipway.apply(smallClass), /small.*created/)
  t.match(await slipway.apply(smallClass), /small.*unchanged/)
  const key = join(slipway.folder, 'id.pub')
  writeFileSync(key, `${publicKey}\n`)

  await t.test('is ordered, born and READY', async (t) => {
    const output = await slipway.ok(
      ...['host', 'order', 'web-1', '--class', 'small', '--timeout', '60s'],
      '--ssh-key',
      key,
    )
    t.match(output, /READY/)
    const host = await slipway.json<HostJson>('get', 'host', 'web-1')
    const [created] = [...readLines(world)].filter((line) => line.fact === 'server.created')
    t.match(created, { sshPublicKeys: [publicKey] }, 'the cloud has been told of the key')
    const described = await slipway.ok('describe', 'host', 'web-1')
    t.match(described, /SSH keys:\nTYPE +FINGERPRINT +COMMENT\nssh-ed25519 +SHA256:[\w+/]{43} +me@home\n/)
    t.notMatch(described, /AAAAC3NzaC1lZDI1NTE5/, 'whole keys are for programs')
    t.match(host, { state: 'HOST_STATE_READY', provider: 'providers/cloud', machine: /^machines\// })
    const events = await slipway.ok('events', 'host/web-1')
    for (const reason of ['HostOrdered', 'HostPlaced', 'PhonedHome', 'HostReady']) t.match(events, new RegExp(reason))
  })

  await t.test('is seen by curl with JSON, and watched to READY by a generic client through reflection', async (t) => {
    const bearer = `authorization: Bearer ${slipway.token}`
    const url = `${slipway.url}/slipway.hub.v1.HostService`
    const body = '{"parent": "workspaces/default"}'
    const headers = ['-H', bearer, '-H', 'content-type: application/json']
    const listed = spawnSync('curl', ['-s', ...headers, '-d', body, `${url}/ListHosts`], { encoding: 'utf8' })
    t.match(JSON.parse(listed.stdout), {
      hosts: [{ name: 'workspaces/default/hosts/web-1', state: 'HOST_STATE_READY' }],
    })
    const buf = ['curl', '--http2-prior-knowledge', '--protocol', 'grpc', '-H', bearer]
    const methods = spawnSync(join(root, 'node_modules/.bin/buf'), [...buf, slipway.url, '--list-methods'], {
      encoding: 'utf8',
    })
    t.match(methods.stdout, /slipway\.hub\.v1\.HostService\/WatchHosts/)
    const watch = spawn(join(root, 'node_modules/.bin/buf'), [...buf, `${url}/WatchHosts`, '-d', body])
    t.teardown(() => watch.kill())
    let seen = ''
    watch.stdout.on('data', (data: Buffer) => (seen += data.toString()))
    await until('what exists', () => /"synced": true/.test(seen))
    await slipway.ok('host', 'order', 'web-2', '--class', 'small', '--no-wait')
    await until('web-2 to be READY in the watch', () => {
      const states = [...seen.matchAll(/hosts\/web-2"[\s\S]*?"state": "HOST_STATE_(\w+)"/g)].map((match) => match[1])
      return states.includes('ORDERED') && states.includes('READY')
    })
    await slipway.ok('host', 'release', 'web-2', '--yes', '--wait', '--timeout', '60s')
  })

  await t.test('is power-cycled', async (t) => {
    const { machine = '' } = await slipway.json<HostJson>('get', 'host', 'web-1')
    await slipway.ok('machine', 'power', machine, 'off', '--wait')
    t.match(await slipway.json('get', 'machine', machine), { power: 'POWER_STATE_OFF' })
    await slipway.ok('machine', 'power', machine, 'on', '--wait')
    await slipway.ok('machine', 'power', machine, 'reboot', '--wait')
    t.match(await slipway.json('get', 'machine', machine), { power: 'POWER_STATE_ON', reboots: '1', rebootsDone: '1' })
  })

  await t.test('is released, and nothing is left', async (t) => {
    await slipway.ok('host', 'release', 'web-1', '--yes', '--wait', '--timeout', '60s')
    t.strictSame(await slipway.json('get', 'machinerequests'), [])
    t.strictSame(await slipway.json('get', 'hosts'), [])
    t.match(readWorld(world), { totals: { live: 0, maxLiveByOwner: 1 }, violations: [] })
  })

  await t.test('an order that fails for good says why, and can be released', async (t) => {
    const order = await slipway.cli(
      ...['host', 'order', 'bad-1', '--class', 'small', '--data', 'simulate=fail', '--timeout', '60s'],
    )
    t.equal(order.code, 6, order.stdout + order.stderr)
    const host = await slipway.json<HostJson>('get', 'host', 'bad-1')
    t.match(host, { state: 'HOST_STATE_ERROR', lastError: { message: /.+/ } })
    t.match(await slipway.ok('describe', 'host', 'bad-1'), /Last error: .+attempt/)
    await slipway.ok('host', 'release', 'bad-1', '--yes', '--wait', '--timeout', '60s')
  })

  await t.test('an order that no place has capacity for tries them all, says so, and waits', async (t) => {
    await slipway.ok('host', 'order', 'full-1', '--class', 'small', '--data', 'simulate=capacity', '--no-wait')
    const host = await until('both locations to be tried', async () => {
      const seen = await slipway.json<HostJson>('get', 'host', 'full-1')
      return seen.attempts?.length === 2 && seen.state === 'HOST_STATE_ORDERED' && seen
    })
    t.match(host, {
      lastError: { code: /CAPACITY/ },
      attempts: [{ error: { code: /CAPACITY/ } }, { error: { code: /CAPACITY/ } }],
    })
    t.match(await slipway.ok('describe', 'host', 'full-1'), /CAPACITY/)
    await slipway.ok('host', 'release', 'full-1', '--yes', '--wait', '--timeout', '60s')
  })
})

void t.test(
  'instances of a provider are killed, and every order still arrives, once',
  { timeout: 300_000 },
  async (t) => {
    const slipway = await Slipway.start(t)
    await slipway.addProvider('cloud', 'simulated', 'dynamic', { config: { ...quickCloud, createDuration: 300 } })
    const world = join(slipway.folder, 'world')
    const args = ['--kind', 'dynamic', '--world', world]
    const one = await slipway.startProvider('cloud', simulated, args, {
      instance: 'one',
      env: { SLIPWAY_FAILPOINTS: 'sdk.effect.after:2=kill' },
    })
    const two = await slipway.startProvider('cloud', simulated, args, { instance: 'two' })
    await slipway.apply(smallClass)
    const names = Array.from({ length: 8 }, (_, index) => `node-${index}`)
    for (const name of names) await slipway.ok('host', 'order', name, '--class', 'small', '--no-wait')
    await until('the first instance to be killed between an effect and its record', () => !one.running, 60_000).catch(
      () => one.end('SIGKILL'),
    )
    one.start({ SLIPWAY_FAILPOINTS: '' })
    await slipway.hub.end('SIGKILL')
    slipway.hub.start()
    await slipway.ok('wait', ...names.map((name) => `host/${name}`), '--for', 'ready', '--timeout', '120s')
    await two.end('SIGKILL')
    for (const name of names) await slipway.ok('host', 'release', name, '--yes')
    await until(
      'all of them to be released',
      async () => (await slipway.json<unknown[]>('get', 'hosts')).length === 0,
      120_000,
    )
    const { totals, violations } = readWorld(world)
    t.match(totals, { live: 0, maxLiveByOwner: 1 }, 'never were there two servers for one request')
    t.strictSame(violations, [])
    t.ok(totals.creates >= names.length)
  },
)

void t.test('a host on a simulated rack', { timeout: 300_000 }, async (t) => {
  const slipway = await Slipway.start(t)
  await slipway.addProvider('rack', 'simulated-rack', 'static', { config: quickRack, autoAccept: true })
  const world = join(slipway.folder, 'world')
  await slipway.startProvider('rack', simulated, ['--kind', 'static', '--world', world])
  await slipway.apply({
    kind: 'MachineClass',
    name: 'metal',
    shape: {},
    machineSelector: { provider: 'providers/rack' },
    bootstrap: { phoneHome: true },
  })
  const available = () => slipway.json<{ name: string; power: string }[]>('get', 'machines', '--state', 'AVAILABLE')
  await until('three machines to be AVAILABLE', async () => (await available()).length === 3)
  t.ok(
    (await available()).every((machine) => machine.power === 'POWER_STATE_OFF'),
    'machines that are AVAILABLE are off',
  )

  await slipway.ok('host', 'order', 'db-1', '--class', 'metal', '--timeout', '60s')
  const host = await slipway.json<HostJson>('get', 'host', 'db-1')
  const machine = host.machine ?? ''
  t.match(await slipway.json('get', 'machine', machine), {
    state: 'MACHINE_STATE_ACTIVE',
    power: 'POWER_STATE_ON',
    host: 'workspaces/default/hosts/db-1',
  })
  t.equal((await available()).length, 2)

  await slipway.ok('host', 'release', 'db-1', '--yes', '--wait', '--timeout', '60s')
  await until('the machine to be clean again', async () => (await available()).length === 3)
  t.match(await slipway.json('get', 'machine', machine), { state: 'MACHINE_STATE_AVAILABLE', power: 'POWER_STATE_OFF' })
  t.match(await slipway.ok('events', machine), /CLEANING/)
  t.strictSame(readWorld(world).violations, [], 'nobody got a machine that was not wiped')
})
