import { ProviderError, type MachineSpec, type OwnedMachine } from '@slipway/sdk'
import t, { type Test } from 'tap'
import { Emulator, readOnlyToken, type EmulatorOptions } from '../testing/emulator/emulator.js'
import { FakeWork, machineSpec } from '../testing/work.js'
import { Api, answer } from './api/client.js'
import { configSchema, credentialsSchema, type Data } from './config.js'
import { hetznerCloudProvider } from './provider.js'

t.setTimeout(280_000)

const settings = { listingLagMs: 200, effectTimeoutMs: 4_000, listIntervalMs: 1_000, offeringsIntervalMs: 1_000 }
const publicKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmulatedEmulatedEmulatedEmulatedEmulatedEmul tester'

async function scene(t: Test, options: { emulator?: EmulatorOptions; config?: object; token?: string } = {}) {
  const emulator = await Emulator.start(options.emulator)
  t.teardown(() => emulator.close())
  const config = configSchema.parse({
    endpoint: emulator.endpoint,
    callTimeoutMs: 2_000,
    actionTimeoutMs: 5_000,
    shutdownTimeoutMs: 300,
    ...options.config,
  })
  const credentials = credentialsSchema.parse({ apiToken: options.token ?? emulator.token })
  const provider = hetznerCloudProvider(settings)
  const work = () => new FakeWork(config, credentials)
  const { log } = work().context()
  const api = new Api({ endpoint: emulator.endpoint, token: emulator.token, timeoutMs: 2_000, log }).as('normal')
  const owned = async (): Promise<OwnedMachine[]> => {
    const all: OwnedMachine[] = []
    for await (const each of provider.list(work().context())) all.push(each)
    return all
  }
  const violations = async (spec: MachineSpec<Data>) =>
    Object.fromEntries(
      ((await provider.validate?.(work().context(), spec)) ?? []).map(({ field, description }) => [field, description]),
    )
  return { emulator, provider, work, api, owned, violations }
}

/** The project that full orders speak of. */
async function furnished({ api }: Awaited<ReturnType<typeof scene>>) {
  const subnets = [{ type: 'cloud' as const, ip_range: '10.1.0.0/24', network_zone: 'eu-central' }]
  await answer(api.POST('/networks', { body: { name: 'net', ip_range: '10.1.0.0/16', subnets } }))
  await answer(api.POST('/firewalls', { body: { name: 'wall' } }))
  await answer(api.POST('/placement_groups', { body: { name: 'spread', type: 'spread' } }))
  await answer(api.POST('/ssh_keys', { body: { name: 'key', public_key: publicKey } }))
  const ip = { name: 'kept', type: 'ipv4' as const, assignee_type: 'server' as const, location: 'fsn1' }
  await answer(api.POST('/primary_ips', { body: ip }))
}

const full: Partial<Data> = {
  sshKeys: ['key'],
  networks: ['net'],
  firewalls: ['wall'],
  placementGroup: 'spread',
  ipv4: 'kept',
  volumes: [
    { sizeGib: 10, format: 'ext4', automount: true },
    { sizeGib: 20, automount: false },
  ],
  backups: true,
  protected: true,
  labels: { team: 'a' },
}

void t.test('the whole life of a server with everything', async (t) => {
  const place = await scene(t)
  const { emulator, provider, work, owned, violations } = place
  await furnished(place)
  await provider.check?.(work().context())
  const spec = machineSpec('full-1', full, {
    host: {
      ...machineSpec('x').host,
      host: 'workspaces/default/hosts/full',
      labels: { tier: 'web', 'hetzner.cloud/x': 'y', 'slipway/hub': 'forged' },
    },
  })
  t.strictSame(await violations(spec), {})
  const item = work()
  const made = await provider.create(item.context(), spec)
  t.match(made, { power: 'on', attributes: { type: 'cx22', location: 'fsn1', image: 'debian-12', status: 'running' } })
  t.match(item.reports[0], { externalId: made.externalId }, 'its id is told before anything is waited for')
  t.match(made.addresses, [
    { type: 'public', ip: /^100\./ },
    { type: 'public', ip: /::1$/ },
    { type: 'private', ip: /^10\.1\./ },
  ])
  const server = emulator.project.servers.get(Number(made.externalId))?.view
  t.match(server, {
    backup_window: '22-02',
    protection: { delete: true, rebuild: true },
    placement_group: { name: 'spread' },
  })
  t.strictSame(server?.labels, {
    team: 'a',
    tier: 'web',
    'slipway/hub': 'hub',
    'slipway/request': 'full-1',
    'slipway/host': 'full',
    'slipway/workspace': 'default',
    'slipway/class': 'small',
  })
  t.equal(server?.volumes?.length, 2)
  t.match(await owned(), [
    { kind: 'server', ownershipKey: 'hub/full-1', name: 'full-1' },
    { kind: 'volume', ownershipKey: 'hub/full-1', name: 'full-1-1' },
    { kind: 'volume', ownershipKey: 'hub/full-1', name: 'full-1-2' },
  ])
  await provider.delete(item.context(), { externalId: made.externalId, ownershipKey: 'hub/full-1', name: 'full-1' })
  t.strictSame(
    emulator.ledger
      .live()
      .map(({ name }) => name)
      .sort(),
    ['kept', 'key', 'net', 'spread', 'wall'],
    'what it brought along is gone, and what the project had before is there',
  )
  await provider.delete(item.context(), { externalId: made.externalId, ownershipKey: 'hub/full-1', name: 'full-1' })
  t.strictSame(emulator.violations, [])
})

void t.test('the power of a server', async (t) => {
  const { emulator, provider, work } = await scene(t)
  const item = work()
  const { externalId } = await provider.create(item.context(), machineSpec('a'))
  const power = async () => (await provider.observe(item.context(), externalId))?.power
  await provider.power?.(item.context(), externalId, 'off')
  t.equal(await power(), 'off')
  t.notOk(
    emulator.ledger.calls.some(({ path }) => path.endsWith('/poweroff')),
    'it shut down when it was asked to',
  )
  await provider.power?.(item.context(), externalId, 'reboot')
  t.equal(await power(), 'on', 'what is off is switched on instead')
  await provider.power?.(item.context(), externalId, 'reboot')
  t.equal(emulator.ledger.calls.filter(({ path }) => path.endsWith('/reboot')).length, 1)
  emulator.faults.deaf.add('a')
  await provider.power?.(item.context(), externalId, 'off')
  t.equal(await power(), 'off', 'one that does not heed the signal is switched off')
  t.ok(emulator.ledger.calls.some(({ path }) => path.endsWith('/poweroff')))
  await provider.power?.(item.context(), externalId, 'on')
  emulator.faults.planAction('shutdown_server', { code: 'action_failed', message: 'no ACPI' })
  await provider.power?.(item.context(), externalId, 'off')
  t.equal(await power(), 'off', 'one that cannot take the signal too')
  await provider.power?.(item.context(), externalId, 'on')
  await provider.power?.(item.context(), externalId, 'on')
  t.equal(await power(), 'on')
  emulator.vanish(Number(externalId))
  t.equal(await provider.observe(item.context(), externalId), undefined)
  await t.rejects(provider.power?.(item.context(), externalId, 'on') ?? Promise.resolve(), { code: 'INTERNAL' })
})

void t.test('an order is checked whole before it costs anything', async (t) => {
  const place = await scene(t, { config: { networkZone: 'eu-central' } })
  const { emulator, api, violations } = place
  await furnished(place)
  const refused = async (field: string, saying: RegExp, data: Partial<Data>, over: Partial<MachineSpec<Data>> = {}) => {
    const found = await violations(machineSpec('a', data, over))
    t.match(found[field], saying, `${field}: ${saying.source}`)
    t.strictSame(Object.keys(found), [field], 'and nothing else')
  }
  await refused('spec.type_id', /there is no server type cx99.*cx22/, {}, { typeId: 'cx99' })
  await refused('spec.type_id', /cx11 can no longer be had in fsn1 since 2024-09-06: take cx22/, {}, { typeId: 'cx11' })
  await refused(
    'spec.location',
    /"moon" is not offered here: choose one of fsn1, nbg1, hel1$/,
    {},
    { location: 'moon' },
  )
  await refused(
    'spec.location',
    /cax11 is not to be had in hel1, but in fsn1, nbg1/,
    {},
    { typeId: 'cax11', location: 'hel1' },
  )
  await refused('spec.provider_data.image', /there is no image nope for x86/, { image: 'nope' })
  await refused('spec.provider_data.image', /debian-10 is deprecated since 2024-07-01: take debian-13/, {
    image: 'debian-10',
  })
  await refused('spec.provider_data.image', /is for arm, and cx22 is x86/, { image: 1_001 })
  await refused('spec.provider_data.sshKeys[1]', /none of the name or id nobody/, { sshKeys: ['key', 'nobody'] })
  await refused('spec.provider_data.networks[0]', /none of the name/, { networks: [77] })
  await refused('spec.provider_data.firewalls[0]', /none of the name/, { firewalls: ['77'] })
  await refused('spec.provider_data.placementGroup', /none of the name/, { placementGroup: 'nope' })
  await refused('spec.provider_data.ipv6', /is an ipv4 address/, { ipv6: 'kept' })
  await refused('spec.provider_data.ipv4', /is in fsn1/, { ipv4: 'kept' }, { location: 'nbg1' })
  await refused('spec.provider_data.labels', /slipway/, { labels: { 'slipway/hub': 'x' } })
  await refused('spec.provider_data.volumes[0].automount', /file system/, {
    volumes: [{ sizeGib: 10, automount: true }],
  })
  const bootstrap = { ...machineSpec('a').bootstrap, userData: `#cloud-config\n#${'x'.repeat(32 * 1024)}` }
  await refused('spec.bootstrap.user_data', /32768/, {}, { bootstrap })
  await answer(api.POST('/servers', { body: { name: 'a', server_type: 'cx22', image: 'debian-12', location: 'fsn1' } }))
  await refused('spec.name', /not ours/, {})
  t.strictSame(await violations(machineSpec('', {}, { ownershipKey: '' })), {}, 'also before there is a request')
  const all = await violations(machineSpec('b', { image: 'nope', sshKeys: ['nobody'] }, { location: 'moon' }))
  t.equal(Object.keys(all).length, 3, 'all that is wrong at once')
  t.strictSame(emulator.ledger.created('server').length, 1, 'nothing was made')
  t.strictSame(emulator.violations, [])
})

void t.test('burst of checks reads what is offered once', async (t) => {
  const { emulator, provider, work } = await scene(t)
  const item = work()
  await Promise.all(
    Array.from({ length: 20 }, async (_, index) => provider.validate?.(item.context(), machineSpec(`m-${index}`))),
  )
  const count = (path: string) => emulator.ledger.calls.filter((call) => call.path === path).length
  t.strictSame([count('/server_types'), count('/images'), count('/servers')], [1, 1, 20])
})

void t.test('offers', async (t) => {
  const { emulator, provider, work } = await scene(t, { config: { locations: ['fsn1', 'hel1'] } })
  const [cx22] = emulator.project.serverTypes.filter(({ name }) => name === 'cx22')
  for (const place of cx22?.locations ?? []) if (place.name === 'hel1') place.available = false
  const offerings = (await provider.offerings?.(work().context())) ?? []
  const of = (type: string) => offerings.filter(({ typeId }) => typeId === type)
  t.strictSame(of('cx22'), [
    {
      typeId: 'cx22',
      location: 'fsn1',
      shape: { vcpus: 2, memoryMib: 4096, diskGib: 40, diskClass: 'ssd', architecture: 'amd64' },
      available: true,
      price: { currency: 'EUR', hourlyMicros: 6_000n, monthlyMicros: 3_740_000n },
    },
    { ...of('cx22')[0], location: 'hel1', available: false },
  ])
  t.match(of('cax11'), [{ location: 'fsn1', shape: { architecture: 'arm64' } }])
  t.ok(
    of('cx11').every(({ available }) => !available),
    'what is retired cannot be had',
  )
})

void t.test('settings are proven before they are used', async (t) => {
  const check = async (config: object, token?: string) => {
    const { provider, work } = await scene(t, { config, ...(token !== undefined && { token }) })
    return provider.check?.(work().context())
  }
  await check({})
  await t.rejects(check({ locations: ['fsn1', 'moon'] }), { code: 'INVALID_SPEC', message: /there is no moon/ })
  await t.rejects(check({ networkZone: 'moon' }), { code: 'INVALID_SPEC', message: /eu-central, us-east/ })
  await t.rejects(check({ callTimeoutMs: 3_000 }), { code: 'INVALID_SPEC', message: /--effect-timeout-ms/ })
  await t.rejects(check({}, 'x'.repeat(64)), { code: 'CREDENTIALS', externalCode: 'unauthorized' })
  await t.rejects(check({}, readOnlyToken), { code: 'CREDENTIALS', externalCode: 'token_readonly' })
  t.notOk(configSchema.safeParse({ endpoint: 'http://api.example.org/v1' }).success, 'a token goes over TLS alone')
  t.notOk(configSchema.safeParse({ locations: ['fsn1'], networkZone: 'eu-central' }).success)
  t.notOk(credentialsSchema.safeParse({ apiToken: 'short' }).success)
})

void t.test('a create whose answer is lost is found by the next try, also before any listing shows it', async (t) => {
  const { emulator, provider, work } = await scene(t)
  emulator.faults.listingLagMs = 150
  emulator.faults.planCall('POST', /^\/servers$/, 'lost')
  const item = work()
  const spec = machineSpec('a')
  await t.rejects(provider.create(item.context(), spec), { code: 'TIMEOUT' })
  item.attempt = 2
  const made = await provider.create(item.context(), spec)
  t.equal(emulator.ledger.created('server').length, 1)
  t.equal(String(emulator.ledger.live('server')[0]?.id), made.externalId)
  t.equal(emulator.faults.pending, 0)
})

void t.test('a volume whose answer is lost is found, and attached', async (t) => {
  const { emulator, provider, work } = await scene(t)
  emulator.faults.planCall('POST', /^\/volumes$/, 'lost')
  emulator.faults.planAction('attach_volume', { code: 'server_error', message: 'broken' })
  const item = work()
  const spec = machineSpec('a', { volumes: [{ sizeGib: 10, automount: false }] })
  await t.rejects(provider.create(item.context(), spec), { code: 'TIMEOUT' })
  item.attempt = 2
  const { externalId } = await provider.create(item.context(), spec)
  t.equal(emulator.ledger.created('volume').length, 1)
  t.equal(emulator.project.servers.get(Number(externalId))?.view.volumes?.length, 1)
  await provider.delete(item.context(), { externalId, ownershipKey: spec.ownershipKey, name: spec.name })
  t.strictSame(emulator.ledger.live(), [])
})

void t.test('what somebody else has is left alone', async (t) => {
  const { emulator, provider, work } = await scene(t)
  const [foreign] = emulator.plant([{ name: 'a', labels: { 'slipway/hub': 'other', 'slipway/request': 'a' } }])
  const item = work()
  const spec = machineSpec('a')
  await t.rejects(provider.create(item.context(), spec), { code: 'CONFLICT', retryable: false })
  await provider.delete(item.context(), { ownershipKey: spec.ownershipKey, name: 'a' })
  await provider.delete(item.context(), { externalId: String(foreign), ownershipKey: spec.ownershipKey, name: 'a' })
  t.equal(emulator.ledger.live('server').length, 1)
  emulator.plant([{ name: 'unlabelled' }, { name: 'half', labels: { 'slipway/hub': 'hub' } }])
  t.match(await collected(provider.list(item.context())), [{ ownershipKey: 'other/a' }])
})

void t.test('refusals and failed actions are told by their kind', async (t) => {
  const { emulator, provider, work } = await scene(t)
  const { faults } = emulator
  const outcome = async (name: string) =>
    provider.create(work().context(), machineSpec(name)).then(
      () => 'made',
      (thrown: unknown) =>
        thrown instanceof ProviderError ? `${thrown.code} ${thrown.externalCode} ${thrown.retryable}` : thrown,
    )
  faults.setCapacity('fsn1', 0)
  t.equal(await outcome('full'), 'CAPACITY resource_unavailable false')
  faults.setCapacity('fsn1', 1_000)
  for (const [code, status, expected] of [
    ['placement_error', 422, 'CAPACITY placement_error false'],
    ['resource_limit_exceeded', 403, 'QUOTA resource_limit_exceeded false'],
    ['forbidden', 403, 'CREDENTIALS forbidden true'],
    ['maintenance', 403, 'UNAVAILABLE maintenance true'],
    ['invalid_input', 422, 'INVALID_SPEC invalid_input false'],
    ['server_error', 500, 'UNAVAILABLE server_error true'],
    ['locked', 423, 'CONFLICT locked true'],
  ] as const) {
    faults.planCall('POST', /^\/servers$/, { status, code })
    t.equal(await outcome(code.replace('_', '-')), expected, code)
  }
  faults.limits.primary_ip_limit = 1
  t.equal(await outcome('no-addresses'), 'QUOTA resource_limit_exceeded false')
  faults.limits.primary_ip_limit = 1_000
  faults.planAction('create_server', { code: 'resource_unavailable', message: 'none left' })
  t.equal(await outcome('late-capacity'), 'CAPACITY resource_unavailable false')
  faults.planAction('create_server', { code: 'action_failed', message: 'broken' })
  t.equal(await outcome('broken'), 'INTERNAL action_failed false')
  faults.planAction('start_server', { code: 'action_failed', message: 'would not start' })
  t.equal(await outcome('slow-starter'), 'made', 'a start that failed is tried again')
  t.equal(faults.pending, 0)
})

void t.test('a creation that is stuck times out, and goes on when it is asked for again', async (t) => {
  const { emulator, provider, work } = await scene(t, { config: { actionTimeoutMs: 700 } })
  emulator.faults.planAction('create_server', 'stuck')
  const item = work()
  await t.rejects(provider.create(item.context(), machineSpec('a')), { code: 'TIMEOUT' })
  const [server] = emulator.ledger.live('server')
  await t.rejects(
    provider.delete(item.context(), { externalId: String(server?.id), ownershipKey: 'hub/a', name: 'a' }),
    { code: 'CONFLICT', externalCode: 'locked' },
    'a delete waits for the lock, and is tried again later',
  )
  emulator.project.dropActionsOf('server', server?.id ?? 0)
  await provider.delete(item.context(), { externalId: String(server?.id), ownershipKey: 'hub/a', name: 'a' })
  t.strictSame(emulator.ledger.live(), [])
})

void t.test('addresses that the API leaves behind are deleted', async (t) => {
  const { emulator, provider, work } = await scene(t)
  const item = work()
  const made = await provider.create(item.context(), machineSpec('a'))
  item.last = { externalId: made.externalId, ...(made.attributes !== undefined && { attributes: made.attributes }) }
  const kept = [...emulator.project.primaryIps.values()]
  emulator.vanish(Number(made.externalId))
  for (const ip of kept) emulator.project.add('primary_ip', emulator.project.primaryIps, { ...ip, assignee_id: null })
  await provider.delete(item.context(), { externalId: made.externalId, ownershipKey: 'hub/a', name: 'a' })
  t.strictSame(emulator.ledger.live(), [])
})

void t.test('a volume that outlived its server is listed, and deleted by its key', async (t) => {
  const { emulator, provider, work, owned } = await scene(t)
  const spec = machineSpec('a', { volumes: [{ sizeGib: 10, automount: false }] })
  const { externalId } = await provider.create(work().context(), spec)
  emulator.vanish(Number(externalId))
  t.match(await owned(), [{ kind: 'volume', ownershipKey: 'hub/a' }])
  await provider.delete(work().context(), { ownershipKey: 'hub/a', name: 'a-1' })
  t.strictSame(emulator.ledger.live(), [])
})

void t.test('a token that is revoked in flight ends the attempt at once', async (t) => {
  const { emulator, provider, work } = await scene(t, {
    emulator: { durations: { create: 60_000 } },
    config: { actionTimeoutMs: 50_000 },
  })
  const item = work()
  const making = provider.create(item.context(), machineSpec('a'))
  while (item.reports.length === 0) await new Promise((resolve) => setTimeout(resolve, 10))
  emulator.tokens.clear()
  await t.rejects(making, { code: 'CREDENTIALS', retryable: true })
})

void t.test('fifty servers at once cost few calls each, and a fleet is listed in pages', async (t) => {
  const { emulator, provider, work } = await scene(t, { emulator: { durations: { create: 1_500, start: 500 } } })
  const settled = work()
  await provider.validate?.(settled.context(), machineSpec('m'))
  const before = emulator.ledger.calls.length
  await Promise.all(
    Array.from({ length: 50 }, async (_, index) => provider.create(work().context(), machineSpec(`m-${index}`))),
  )
  const calls = emulator.ledger.calls.slice(before)
  const polls = calls.filter(({ path }) => path === '/actions').length
  t.ok(calls.length <= 50 * 4, `${calls.length} calls, ${polls} of them for the actions of all`)
  t.ok(polls < 50, 'actions are asked for together')
  const listed = emulator.ledger.calls.length
  t.equal((await collected(provider.list(settled.context()))).length, 50)
  t.equal(emulator.ledger.calls.length - listed, 2)
})

void t.test('two processes share the budget of a project without knowing of one another', async (t) => {
  // Two calls a second come back.
  const one = await scene(t, { emulator: { callsPerHour: 7_200 } })
  const { emulator } = one
  const other = hetznerCloudProvider(settings)
  const made = await one.provider.create(one.work().context(), machineSpec('a'))
  emulator.plant(Array.from({ length: 500 }, () => ({ labels: { 'slipway/hub': 'hub', 'slipway/request': 'x' } })))
  const another = one.work().context()
  await other.observe(another, made.externalId)
  // A little above what looking around must leave to the others, for which it has to wait then.
  emulator.rateLimit.drain(7_200 * 0.2 + 6)
  const listings = [one.provider, other].map(async (provider) => collected(provider.list(another)))
  await one.provider.power?.(one.work().context(), made.externalId, 'off')
  const atPower = emulator.ledger.calls.filter(({ path }) => path === '/servers').length
  t.ok(atPower < 22, `power was switched while ${atPower} of 22 pages were read`)
  for (const listing of listings) t.equal((await listing).length, 501)
  t.equal(emulator.rateLimit.refused, 0, 'neither was ever refused')
})

async function collected<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = []
  for await (const item of items) all.push(item)
  return all
}
