import type { MachineSpec } from '@slipway/sdk'
import t from 'tap'
import { readOnlyToken } from '../testing/emulator/emulator.js'
import { furnish, scene } from '../testing/scene.js'
import { machineSpec } from '../testing/work.js'
import { answer } from './api/client.js'
import { configSchema, credentialsSchema, type Data } from './config.js'

t.setTimeout(280_000)

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
  await furnish(place)
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
  await furnish(place)
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
  const keyed = { ...machineSpec('a').bootstrap, userData: '{"ignition": {}}', sshPublicKeys: ['ssh-ed25519 AAAA'] }
  await refused(
    'spec.bootstrap.user_data',
    /not for cloud-init.*order without ssh_public_keys/,
    {},
    { bootstrap: keyed },
  )
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
  await t.rejects(check({ callTimeoutMs: 11_000 }), { code: 'INVALID_SPEC', message: /--effect-timeout-ms/ })
  await t.rejects(check({}, 'x'.repeat(64)), { code: 'CREDENTIALS', externalCode: 'unauthorized' })
  await t.rejects(check({}, readOnlyToken), { code: 'CREDENTIALS', externalCode: 'token_readonly' })
  t.notOk(configSchema.safeParse({ endpoint: 'http://api.example.org/v1' }).success, 'a token goes over TLS alone')
  t.notOk(configSchema.safeParse({ locations: ['fsn1'], networkZone: 'eu-central' }).success)
  t.notOk(credentialsSchema.safeParse({ apiToken: 'short' }).success)
})
