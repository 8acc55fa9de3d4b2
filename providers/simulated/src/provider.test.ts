import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { defineProvider, ProviderError, Stopped, type MachineSpec, type OwnedMachine } from '@slipway/sdk'
import { cloudRules } from './cloud-state.js'
import { cloudDataSchema, rackDataSchema, type CloudConfig, type Credentials, type RackConfig } from './config.js'
import { Guests } from './guests.js'
import { cloudProvider } from './provider.js'
import { rackProvider } from './rack-provider.js'
import { rackRules } from './rack-state.js'
import { readWorld } from './report.js'
import { takeOwnFlags } from './settings.js'
import { FakeWork, machineSpec } from './testing/context.js'
import {
  cloudConfig,
  hostOrder,
  openCloud,
  openRack,
  phoneHub,
  rackConfig,
  serverOrder,
  silentLog,
  tempDir,
  until,
} from './testing/world.js'
import { World } from './world.js'
import { Worlds } from './worlds.js'

type Teardown = { teardown: (fn: () => void) => void }

const prompt = { createDuration: 20, deleteDuration: 20, powerDuration: 5, bootDuration: 5, actionTimeoutMs: 150 }
const promptRack = { installDuration: 20, wipeDuration: 20, powerDuration: 5, bootDuration: 5, actionTimeoutMs: 150 }

function cloudSetting(t: Teardown, overrides: Parameters<typeof cloudConfig>[0] = {}, flags: string[] = []) {
  const dir = tempDir(t)
  const worlds = new Worlds(cloudRules)
  t.teardown(() => worlds.close())
  const { settings } = takeOwnFlags(['--world', dir, ...flags], {})
  const provider = cloudProvider(worlds, settings)
  const work = () => new FakeWork<CloudConfig, Credentials>(cloudConfig({ ...prompt, ...overrides }), {})
  return { dir, provider, work, data: cloudDataSchema.parse({}) }
}

function rackSetting(t: Teardown, overrides: Parameters<typeof rackConfig>[0] = {}) {
  const dir = tempDir(t)
  const worlds = new Worlds(rackRules)
  t.teardown(() => worlds.close())
  const provider = rackProvider(worlds, takeOwnFlags(['--kind', 'static', '--world', dir], {}).settings)
  const work = () => new FakeWork<RackConfig, Credentials>(rackConfig({ ...promptRack, ...overrides }), {})
  const machine = { machineId: 'm', externalId: 'SIM-0001', providerData: {} }
  return { dir, provider, work, machine, data: rackDataSchema.parse({}) }
}

void t.test('the whole life of a server, by the functions of the provider', async (t) => {
  const { dir, provider, work, data } = cloudSetting(t)
  const item = work()
  const context = item.context()
  await provider.check?.(context)
  const offerings = await provider.offerings?.(context)
  t.match(offerings?.[0], {
    typeId: 'sim-small',
    location: 'sim-east',
    available: true,
    price: { currency: 'EUR', hourlyMicros: 6000n, monthlyMicros: 3_800_000n },
  })
  const spec = machineSpec('a', data)
  t.same(await provider.validate?.(context, spec), [])
  const fields = async (wrong: object) =>
    (await provider.validate?.(context, { ...spec, ...wrong }))?.map(({ field }) => field)
  t.same(await fields({ typeId: 'none' }), ['spec.type_id'])
  t.same(await fields({ location: 'moon', data: { image: 'os2' } }), ['spec.location', 'spec.provider_data.image'])

  const made = await provider.create(context, spec)
  t.match(made, { power: 'on', attributes: { type: 'sim-small', status: 'running' } })
  t.same(item.reports, [{ externalId: made.externalId }], 'the id is reported before anything is waited for')
  t.match(await provider.observe(context, made.externalId), made)
  const listed: OwnedMachine[] = []
  for await (const machine of provider.list(context)) listed.push(machine)
  t.match(listed, [{ externalId: made.externalId, ownershipKey: 'hub/a', name: 'a', kind: 'server' }])
  await provider.power?.(context, made.externalId, 'off')
  t.match(await provider.observe(context, made.externalId), { power: 'off' })
  await provider.power?.(context, made.externalId, 'reboot')
  await provider.delete(context, { ownershipKey: 'hub/a', name: 'a' })
  t.equal(await provider.observe(context, made.externalId), undefined)
  await provider.delete(context, { externalId: made.externalId, ownershipKey: 'hub/a', name: 'a' })
  t.match(readWorld(dir).totals, { creates: 1, live: 0 })
})

for (const idempotency of ['unique-name', 'token', 'none'] as const) {
  void t.test(`lost answers with ${idempotency}: the next try adopts what is there`, async (t) => {
    const { dir, provider, work, data } = cloudSetting(t, { idempotency, listingLagMs: 50 }, ['--listing-lag-ms', '50'])
    const item = work()
    const spec = machineSpec('a', { ...data, simulate: 'lost-answer' as const })
    await t.rejects(provider.create(item.context(), spec), { code: 'TIMEOUT' })
    item.attempt = 2
    // With a name that must be unique it finds its own server even before any listing shows it; else the SDK waits for the lag.
    if (idempotency === 'none') await until('the listing', async () => (await listedIds()).length === 1)
    const made = await provider.create(item.context(), spec)
    t.match(readWorld(dir).totals, { creates: 1, live: 1, maxLiveByOwner: 1 })
    t.equal(readWorld(dir).servers[0]?.id, made.externalId)

    async function listedIds(): Promise<string[]> {
      const ids: string[] = []
      for await (const { externalId } of provider.list(item.context())) ids.push(externalId)
      return ids
    }
  })
}

void t.test('where nothing prevents a second server, it is removed before the first is handed over', async (t) => {
  const { dir, provider, work, data } = cloudSetting(t, { idempotency: 'none' })
  const spec = machineSpec('a', data)
  const [one, two] = [work(), work()]
  const kept = await provider.create(one.context(), spec)
  await provider.create(two.context(), spec)
  await until('the extra to be gone', () => readWorld(dir).totals.live === 1)
  t.not(readWorld(dir).servers.find(({ isLive }) => isLive)?.id, kept.externalId)
  t.match(readWorld(dir).totals, { creates: 2, maxLiveByOwner: 2 })
})

void t.test('a name that somebody else has is a conflict, and an abort stays an abort', async (t) => {
  const { provider, work, data } = cloudSetting(t, { listingLagMs: 5_000 }, [
    '--listing-lag-ms',
    '5000',
    '--effect-timeout-ms',
    '60000',
  ])
  const prompt = work()
  await provider.create(prompt.context(), machineSpec('a', data, { ownershipKey: 'other/a' }))
  const short = cloudSetting(t)
  await short.provider.create(short.work().context(), machineSpec('a', data, { ownershipKey: 'other/a' }))
  await t.rejects(short.provider.create(short.work().context(), machineSpec('a', data)), {
    code: 'CONFLICT',
    externalCode: 'name-taken',
  })

  const controller = new AbortController()
  const pending = provider.create(work().context(controller.signal), machineSpec('a', data))
  controller.abort(new Stopped('stopping', 'enough'))
  await t.rejects(pending, Stopped)
})

void t.test('stuck, failed and vanished creations', async (t) => {
  const { provider, work, data } = cloudSetting(t)
  const item = work()
  const stuck = machineSpec('a', { ...data, simulate: 'stuck' as const })
  await t.rejects(provider.create(item.context(), stuck), { code: 'TIMEOUT' })
  item.attempt = 2
  t.match(await provider.create(item.context(), stuck), { power: 'on' }, 'the next try starts the creation anew')
  const failing = machineSpec('b', { ...data, simulate: 'fail' as const })
  await t.rejects(provider.create(work().context(), failing), {
    code: 'INTERNAL',
    retryable: false,
    externalCode: 'creation-failed',
  })
  const gone = work()
  gone.steps.set('create-server', { id: 'srv-none' })
  await t.rejects(provider.create(gone.context(), machineSpec('c', data)), {
    code: 'INTERNAL',
    retryable: false,
    message: /vanished/,
  })
  await t.rejects(async () => provider.power?.(gone.context(), 'srv-none', 'on'), ProviderError)
})

void t.test('refusals come through with the codes that the hub knows', async (t) => {
  const { provider, work, data } = cloudSetting(t, { rateLimit: { limit: 1, windowMs: 86_400_000 } })
  await provider.observe(work().context(), 'x')
  await t.rejects(provider.observe(work().context(), 'x'), { code: 'RATE_LIMITED', externalCode: 'rate-limited' })
  const other = cloudSetting(t)
  const create = (simulate: 'capacity' | 'quota' | 'unavailable', labels = {}) => {
    const spec = machineSpec(simulate, { ...data, ...(Object.keys(labels).length === 0 && { simulate }) })
    return other.provider.create(other.work().context(), { ...spec, host: { ...spec.host, labels } })
  }
  await t.rejects(create('capacity'), { code: 'CAPACITY', retryable: false })
  await t.rejects(create('quota', { simulate: 'quota' }), { code: 'QUOTA' }, 'a label orders a fault too')
  await t.rejects(create('unavailable'), { code: 'UNAVAILABLE', retryable: true })
  const refused = new FakeWork<CloudConfig, Credentials>(cloudConfig(), { apiToken: 'invalid' })
  await t.rejects(async () => other.provider.check?.(refused.context()), { code: 'CREDENTIALS' })
  const late = new FakeWork<CloudConfig, Credentials>(cloudConfig({ listingLagMs: 7 }), {})
  await t.rejects(async () => other.provider.check?.(late.context()), {
    code: 'INVALID_SPEC',
    message: /--listing-lag-ms 7/,
  })
  const slow = new FakeWork<CloudConfig, Credentials>(cloudConfig({ answerTimeoutMs: 20_000 }), {})
  await t.rejects(async () => other.provider.check?.(slow.context()), {
    code: 'INVALID_SPEC',
    message: /--effect-timeout-ms 20000/,
  })
})

void t.test('the whole life of a machine in the rack, by the functions of the provider', async (t) => {
  const { dir, provider, work, machine, data } = rackSetting(t)
  const context = work().context()
  await provider.check?.(context)
  const found: string[] = []
  for await (const { externalId, power, hardware } of provider.discover(context))
    found.push(`${externalId} ${power ?? ''} ${hardware?.serial ?? ''}`)
  t.equal(found.length, 8)
  t.equal(found[0], 'SIM-0001 off SIM-0001')
  await provider.verify?.(context, machine)
  t.match(await provider.inspect?.(context, machine), {
    model: 'R1',
    serial: 'SIM-0001',
    shape: { vcpus: 16, architecture: 'amd64' },
  })
  await provider.clean(context, machine)
  t.match(await provider.observe(context, machine), { power: 'off', attributes: {} })

  const item = work()
  const spec = machineSpec('a', data)
  t.same(await provider.validate?.(context, spec), [])
  t.match(await provider.validate?.(context, { ...spec, data: { image: 'os2' } }), [
    { field: 'spec.provider_data.image' },
  ])
  const made = await provider.provision(item.context(), machine, spec)
  t.match(made, { externalId: 'SIM-0001', power: 'on', attributes: { binding: 'hub/a' } })
  await provider.power(context, machine, 'reboot')

  const stale = work()
  stale.last = { attributes: { binding: 'hub/old' } }
  await provider.deprovision?.(stale.context(), machine)
  t.match(await provider.observe(context, machine), { power: 'on' }, "another request's host is left alone")
  item.last = { attributes: { binding: 'hub/a' } }
  await provider.deprovision?.(item.context(), machine)
  await provider.deprovision?.(item.context(), machine)
  t.match(await provider.observe(context, machine), { power: 'off', attributes: {} })
  await provider.clean(context, machine)
  t.match(readWorld(dir), { totals: { creates: 1, deletes: 1, wipes: 2 }, violations: [] })
  t.equal(await provider.observe(context, { ...machine, externalId: 'none' }), undefined)
})

void t.test('keys that may log in are in the ledger, of first systems and of later ones', async (t) => {
  const sshPublicKeys = ['ssh-ed25519 AAAA me']
  const withKeys = <Data>(spec: MachineSpec<Data>): MachineSpec<Data> => ({
    ...spec,
    bootstrap: { ...spec.bootstrap, sshPublicKeys },
  })
  const keysIn = (dir: string, fact: string) =>
    readFileSync(join(dir, 'ledger.jsonl'), 'utf8')
      .split('\n')
      .filter((line) => line.includes(`"${fact}"`))
      .map((line) => (JSON.parse(line) as { sshPublicKeys?: readonly string[] }).sshPublicKeys)
  const cloud = cloudSetting(t)
  const server = withKeys(machineSpec('a', cloud.data))
  const { externalId } = await cloud.provider.create(cloud.work().context(), server)
  await cloud.provider.create(cloud.work().context(), machineSpec('b', cloud.data))
  await cloud.provider.reinstall?.(cloud.work().context(), { externalId, reinstall: 1 }, server)
  t.same(keysIn(cloud.dir, 'server.created'), [sshPublicKeys, undefined])
  t.same(keysIn(cloud.dir, 'server.reinstalled'), [sshPublicKeys])
  const rack = rackSetting(t)
  await rack.provider.provision(rack.work().context(), rack.machine, withKeys(machineSpec('c', rack.data)))
  t.same(keysIn(rack.dir, 'machine.provisioned'), [sshPublicKeys])
})

void t.test('what goes wrong in the rack', async (t) => {
  const { provider, work, machine, data } = rackSetting(t, {
    simulate: { 'SIM-0002': 'wipe-fail', 'SIM-0003': 'verify-fail' },
  })
  const [two, three, four] = ['SIM-0002', 'SIM-0003', 'SIM-0004'].map((externalId) => ({ ...machine, externalId }))
  if (two === undefined || three === undefined || four === undefined) throw new Error('three machines are needed')
  await t.rejects(provider.clean(work().context(), two), {
    code: 'INTERNAL',
    retryable: false,
    externalCode: 'wipe-failed',
  })
  await t.rejects(async () => provider.verify?.(work().context(), three), { code: 'UNAVAILABLE' })
  const item = work()
  const stuck = machineSpec('a', { ...data, simulate: 'stuck' as const })
  await t.rejects(provider.provision(item.context(), machine, stuck), { code: 'TIMEOUT' })
  t.match(await provider.provision(item.context(), machine, stuck), { power: 'on' })
  const again = work()
  again.attempt = 2
  t.match(
    await provider.provision(again.context(), machine, stuck),
    { power: 'on' },
    'another instance adopts what is there',
  )
  const failing = machineSpec('b', { ...data, simulate: 'fail' as const })
  await t.rejects(provider.provision(work().context(), four, failing), {
    code: 'INTERNAL',
    externalCode: 'installation-failed',
  })
  await t.rejects(provider.provision(work().context(), machine, machineSpec('c', data)), { code: 'CONFLICT' })
  const missing = { ...machine, externalId: 'none' }
  await t.rejects(provider.clean(work().context(), missing), ProviderError)
  await t.rejects(async () => provider.inspect?.(work().context(), missing), ProviderError)
})

void t.test('machines phone home: with their token, again until they are heard, and once', async (t) => {
  const hub = await phoneHub(t)
  hub.status = 503
  const dir = tempDir(t)
  const { cloud, world, clock } = openCloud(dir)
  const { signal } = new AbortController()
  const boot = { hostname: 'web-1', phoneHomeUrl: hub.url, token: 'secret-token-0123456789' }
  const id = await cloud.createServer(serverOrder('a', { boot }), signal)
  const guests = new Guests(world, { log: silentLog, tickMs: 5 })
  guests.start()
  t.teardown(() => guests.stop())
  await cloud.createServer(serverOrder('off', { boot: { ...boot, token: 'never' } }), signal)
  const deleted = await cloud.createServer(serverOrder('deleted', { boot: { ...boot, token: 'never' } }), signal)
  await cloud.deleteServer(deleted, signal)
  clock.nowMs += 1_000
  const [, off] = readWorld(dir).servers
  await cloud.powerServer(off?.id ?? '', 'off', signal)
  t.equal(hub.calls.length, 0, 'not before it has booted')
  clock.nowMs += 1_000
  await until('the first call', () => hub.calls.length === 1)
  t.same(hub.calls[0], {
    authorization: 'Bearer secret-token-0123456789',
    body: { hostname: 'web-1', addresses: ['198.18.0.1', '10.0.0.1'] },
  })
  hub.status = 200
  await until('the call to be repeated and heard', () => {
    clock.nowMs += 50
    return readWorld(dir).totals.phonedHome === 1
  })
  t.match(readWorld(dir).servers, [{ id, phonedHomeAtMs: Number }, { name: 'off' }, { name: 'deleted' }])
  t.equal(hub.calls.length, 2)

  await cloud.powerServer(off?.id ?? '', 'on', signal)
  clock.nowMs += 2_000
  await until('the one that was off', () => readWorld(dir).totals.phonedHome === 2)
  t.equal(hub.calls.length, 3)
  clock.nowMs += 100_000
  await until('nothing more to be called', () => world.settled().boots.size === 0)
  t.equal(hub.calls.length, 3)
  t.ok(hub.calls.every(({ authorization }) => authorization !== undefined))
})

void t.test('a boot outlives the process that ordered it: another one takes it over', async (t) => {
  const hub = await phoneHub(t)
  const dir = tempDir(t)
  const { signal } = new AbortController()
  const boot = { hostname: 'web-1', phoneHomeUrl: hub.url, token: 'secret-token-0123456789' }
  const first = openRack(dir)
  await first.rack.provision('SIM-0001', hostOrder('a', { boot }), signal)
  first.world.close()

  const { clock } = first
  let looks = 0
  const world = new World(dir, rackRules, { clock: () => (looks++, clock.read()) })
  const guests = new Guests(world, { log: silentLog, tickMs: 5, takeoverMs: 3_000 })
  clock.nowMs += 4_999
  looks = 0
  guests.start()
  t.teardown(() => guests.stop())
  await until('a few looks', () => looks > 20)
  t.equal(hub.calls.length, 0, 'it is left to its own process for a while')
  clock.nowMs += 1
  await until('the machine to be heard', () => readWorld(dir).totals.phonedHome === 1)
  t.match(hub.calls, [{ body: { hostname: 'web-1' } }])
  t.match(readWorld(dir).machines, [{ serial: 'SIM-0001', phonedHomeAtMs: Number }])
})

void t.test('flags: its own are taken, all others are left to the SDK', (t) => {
  const argv = [
    '--gateway',
    'h:1',
    '--kind',
    'static',
    '--state-dir',
    '/s',
    '--api-budget',
    '5/1000',
    '--list-interval-ms=70',
    '--capacity',
    '3',
  ]
  const flags = takeOwnFlags(argv, {})
  t.match(flags, {
    kind: 'static',
    settings: { apiBudget: { limit: 5, windowMs: 1_000 }, listIntervalMs: 70, listingLagMs: 0 },
  })
  t.same(flags.rest, ['--gateway', 'h:1', '--state-dir', '/s', '--capacity', '3'])
  t.equal(flags.settings.worldFor(undefined), join('/s', 'world'))
  t.equal(flags.settings.worldFor('/configured'), '/configured')
  t.equal(takeOwnFlags(['--world', '/flag'], {}).settings.worldFor('/configured'), '/flag', 'the flag wins')
  t.equal(takeOwnFlags([], { SLIPWAY_STATE_DIR: '/env' }).settings.worldFor(undefined), join('/env', 'world'))
  t.equal(takeOwnFlags(['--state-dir=/eq'], {}).settings.worldFor(undefined), join('/eq', 'world'))
  t.end()
})

void t.test('both definitions are ones that the SDK takes', (t) => {
  const { settings } = takeOwnFlags(['--world', tempDir(t), '--api-budget', '5/1000'], {})
  t.match(defineProvider(cloudProvider(new Worlds(cloudRules), settings)), { family: 'simulated', kind: 'dynamic' })
  t.match(defineProvider(rackProvider(new Worlds(rackRules), settings)), { family: 'simulated-rack', kind: 'static' })
  t.end()
})
