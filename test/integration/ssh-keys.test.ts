import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { HostState, HostSetState } from '@slipway/proto/hub/v1'
import { ProviderKind } from '@slipway/proto/provider/v1'
import { withHub, type TestHub } from '@slipway/hub/testing'
import { defineProvider, type Bootstrap, type OwnedMachine } from '@slipway/sdk'
import { createSlipwayClient, SlipwayError, type SlipwayClient } from '@slipway/sdk/client'
import pino from 'pino'
import t, { type Test } from 'tap'
import { until } from '../tools/processes.js'

// The whole file may take longer than the runner's ordinary limit on a busy machine.
t.setTimeout(900_000)

// SSH keys from the order to the provider's hooks, over a whole hub and a cloud of the SDK that the test holds in its hand.

const parent = 'workspaces/default'
const small = { machineClass: 'machineClasses/small' }
const shape = { vcpus: 2, memoryMib: 4096, diskGib: 40, diskClass: 'ssd', architecture: 'amd64' }

function newKey(comment: string): string {
  const part = (bytes: Buffer) => Buffer.concat([Buffer.from([0, 0, 0, bytes.length]), bytes])
  const body = Buffer.concat([part(Buffer.from('ssh-ed25519')), part(randomBytes(32))])
  return `ssh-ed25519 ${body.toString('base64')} ${comment}`
}

interface Scene {
  readonly test: TestHub
  readonly client: SlipwayClient
  /** What the cloud was told to set machines up with, by hostname, in its order. */
  readonly told: Map<string, Bootstrap[]>
}

async function start(t: Test): Promise<Scene> {
  const test = await withHub(t)
  const client = createSlipwayClient({ baseUrl: test.hub.apiUrl, token: test.token })
  const folder = mkdtempSync(join(tmpdir(), 'slipway-keys-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const told: Scene['told'] = new Map()
  const machines = new Map<string, OwnedMachine>()
  const note = (bootstrap: Bootstrap) =>
    told.set(bootstrap.hostname, [...(told.get(bootstrap.hostname) ?? []), bootstrap])
  await client.providers.createProvider({
    providerId: 'cloud',
    provider: { family: 'keys-cloud', kind: ProviderKind.DYNAMIC },
  })
  const { joinToken } = await client.providers.createJoinToken({ provider: 'providers/cloud' })
  const stop = new AbortController()
  const running = defineProvider<unknown, unknown, unknown>({
    family: 'keys-cloud',
    kind: 'dynamic',
    offerings: () => Promise.resolve([{ typeId: 'small', location: 'here', shape, available: true }]),
    validate: (_context, { bootstrap }) =>
      Promise.resolve(
        bootstrap.sshPublicKeys.some((key) => key.endsWith(' unwelcome'))
          ? [{ field: 'spec.bootstrap.ssh_public_keys', description: 'holds one that is not welcome' }]
          : [],
      ),
    create: (_context, { name, ownershipKey, bootstrap }) => {
      note(bootstrap)
      const machine = { externalId: `srv-${name}`, power: 'on' as const, ownershipKey, name }
      machines.set(machine.externalId, machine)
      return Promise.resolve(machine)
    },
    reinstall: (_context, { externalId }, { bootstrap }) => {
      note(bootstrap)
      return Promise.resolve({ externalId, power: 'on' as const })
    },
    observe: (_context, id) => Promise.resolve(machines.get(id)),
    delete: (_context, { ownershipKey }) => {
      for (const [id, machine] of machines) if (machine.ownershipKey === ownershipKey) machines.delete(id)
      return Promise.resolve()
    },
    async *list() {
      await Promise.resolve()
      yield* machines.values()
    },
  }).run({
    gateway: test.hub.gatewayAddress,
    joinToken,
    stateDir: folder,
    instanceName: 'cloud',
    signal: stop.signal,
    log: pino({ level: 'silent' }),
  })
  t.teardown(async () => {
    stop.abort()
    await running
  })
  await client.machineClasses.createMachineClass({
    machineClassId: 'small',
    machineClass: { shape: { vcpus: 1 }, offerings: [{ family: 'keys-cloud' }] },
  })
  await until('its offering', async () => {
    const { candidates } = await client.hosts
      .createHost({ parent, hostId: 'none', host: small, validateOnly: true })
      .catch(() => ({ candidates: [] }))
    return candidates.some(({ chosen }) => chosen)
  })
  return { test, client, told }
}

const refusal = async (call: Promise<unknown>): Promise<SlipwayError> => {
  try {
    await call
  } catch (error) {
    if (error instanceof SlipwayError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

void t.test('keys of a host, from its order to its provider', { timeout: 300_000 }, async (t) => {
  const { client, told } = await start(t)
  const keys = [newKey('me@home "x"'), newKey('')].map((key) => key.trim())
  const name = `${parent}/hosts/web-1`
  const order = { parent, hostId: 'web-1', host: { ...small, sshPublicKeys: keys } }
  t.strictSame((await client.hosts.createHost({ ...order, validateOnly: true })).host?.sshPublicKeys, keys)
  t.strictSame((await client.hosts.createHost({ ...order, requestId: 'once' })).host?.sshPublicKeys, keys)
  const ready = () =>
    until(
      'that it is READY',
      async () => (await client.hosts.getHost({ name })).host?.state === HostState.READY,
      60_000,
    )
  await ready()
  t.strictSame((await client.hosts.getHost({ name })).host?.sshPublicKeys, keys)
  t.match(told.get('web-1'), [{ sshPublicKeys: keys }])
  const { hosts } = await client.hosts.listHosts({ parent })
  t.strictSame(hosts[0]?.sshPublicKeys, keys)

  const other = { host: { name, sshPublicKeys: [newKey('other')] } }
  const immutable = { reason: 'FIELD_IMMUTABLE', violations: [{ field: 'host.ssh_public_keys' }] }
  t.match(await refusal(client.hosts.updateHost(other)), immutable)
  t.match(await refusal(client.hosts.updateHost({ ...other, updateMask: { paths: ['ssh_public_keys'] } })), immutable)
  const labelled = await client.hosts.updateHost({ host: { name, labels: { a: 'b' }, sshPublicKeys: keys } })
  t.match(labelled.host, { labels: { a: 'b' }, sshPublicKeys: keys }, 'what is sent again as it is changes nothing')
  await client.hosts.updateHost({ host: { name, labels: {} }, updateMask: { paths: ['labels'] } })

  await client.hosts.reinstallHost({ name, requestId: 'again' })
  await until('that it is reinstalled', () => Promise.resolve(told.get('web-1')?.length === 2))
  await ready()
  t.match(told.get('web-1')?.[1], { sshPublicKeys: keys }, 'a reinstall puts them there again')
  const key = { requestId: 'once', ...order, host: { ...small, sshPublicKeys: keys.slice(1) } }
  t.match(await refusal(client.hosts.createHost(key)), { reason: 'IDEMPOTENCY_KEY_REUSED' })
})

void t.test('keys that are refused leave no trace', { timeout: 300_000 }, async (t) => {
  const { client, test } = await start(t)
  const secret = randomBytes(24).toString('hex')
  const refused = async (sshPublicKeys: string[], description: RegExp, field: string) => {
    const host = { ...small, sshPublicKeys }
    const error = await refusal(client.hosts.createHost({ parent, hostId: 'web-1', host }))
    t.match(error, { violations: [{ field, description }] })
    t.notMatch(JSON.stringify([error.message, error.violations]), new RegExp(secret))
    return error.reason
  }
  const key = newKey('one')
  const pasted = `-----BEGIN OPENSSH ${'PRIVATE'} KEY-----\n${secret}\n-----END OPENSSH ${'PRIVATE'} KEY-----`
  t.equal(await refused([key, pasted], /private key/, 'host.ssh_public_keys[1]'), 'INVALID_FIELD')
  await refused([`from="10.0.0.1" ${key}`], /options/, 'host.ssh_public_keys[0]')
  await refused([key, newKey('two'), `${key} again`], /same key as \[0\]/, 'host.ssh_public_keys[2]')
  t.equal(
    await refused(
      Array.from({ length: 33 }, () => newKey('x')),
      /32/,
      'host.ssh_public_keys',
    ),
    'INVALID_FIELD',
  )
  t.equal(await refused([`${key} ${'x'.repeat(16_384)}`], /16384/, 'host.ssh_public_keys[0]'), 'INVALID_FIELD')
  const said = await refused([newKey('unwelcome')], /not welcome/, 'host.bootstrap.ssh_public_keys')
  t.equal(said, 'PROVIDER_DATA_INVALID', 'its provider is asked about them, too')
  const address = client.hosts.createHost({ parent, hostId: 'web-1', host: { ...small, hostname: '10.0.0.1' } })
  t.match(await refusal(address), { reason: 'INVALID_FIELD', violations: [{ field: 'host.hostname' }] })

  t.equal((await client.hosts.listHosts({ parent })).hosts.length, 0)
  const { db } = test.database
  const rows = [
    await db.selectFrom('changes').selectAll().execute(),
    await db.selectFrom('events').selectAll().execute(),
    await db.selectFrom('audit_entries').selectAll().execute(),
  ]
  t.notMatch(JSON.stringify(rows) + test.log.join(''), new RegExp(secret), 'what was pasted is in no row and no log')
})

void t.test("keys of a set's template", { timeout: 300_000 }, async (t) => {
  const { client, told } = await start(t)
  const name = `${parent}/hostSets/web`
  const [one, two] = [newKey('one'), newKey('two')]
  const settled = async (revision: bigint) => {
    await until(
      `that all are of revision ${revision}`,
      async () => {
        const { hostSet } = await client.hostSets.getHostSet({ name })
        return hostSet?.state === HostSetState.READY && hostSet.templateRevision === revision
      },
      60_000,
    )
    const { hosts } = await client.hosts.listHosts({ parent })
    return hosts.filter(({ state }) => state === HostState.READY)
  }
  const hostSet = { replicas: 2, template: { ...small, sshPublicKeys: [one] } }
  const bad = { replicas: 1, template: { ...small, sshPublicKeys: [one, one] } }
  t.match(await refusal(client.hostSets.createHostSet({ parent, hostSetId: 'web', hostSet: bad })), {
    reason: 'INVALID_FIELD',
    violations: [{ field: 'host_set.template.ssh_public_keys[1]' }],
  })
  await client.hostSets.createHostSet({ parent, hostSetId: 'web', hostSet })
  const first = await settled(1n)
  t.strictSame(
    [first.map((host) => host.sshPublicKeys), told.get('web-1')?.[0]?.sshPublicKeys],
    [[[one], [one]], [one]],
  )

  const updateMask = { paths: ['template.ssh_public_keys'] }
  const change = (sshPublicKeys: string[]) =>
    client.hostSets.updateHostSet({ hostSet: { name, template: { sshPublicKeys } }, updateMask })
  t.match(await refusal(change(['x'])), { violations: [{ field: 'host_set.template.ssh_public_keys[0]' }] })
  t.equal((await change([one])).hostSet?.templateRevision, 1n, 'what is there already replaces nobody')
  const changed = await change([one, two])
  t.match(changed.hostSet, { templateRevision: 2n, template: { ...small, sshPublicKeys: [one, two] } })
  const second = await settled(2n)
  t.strictSame(
    second.map((host) => host.sshPublicKeys),
    [
      [one, two],
      [one, two],
    ],
  )
  t.notOk(
    second.some((host) => first.some(({ uid }) => uid === host.uid)),
    'all members are other ones',
  )
  t.strictSame((await change([])).hostSet?.template?.sshPublicKeys, [])
  t.strictSame(
    (await settled(3n)).map((host) => host.sshPublicKeys),
    [[], []],
  )
})
