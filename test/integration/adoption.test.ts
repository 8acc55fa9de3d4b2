import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { withHub } from '@slipway/hub/testing'
import { HostState, OrphanKeepReason, Role, PrincipalKind, type Host } from '@slipway/proto/hub/v1'
import { ProviderKind } from '@slipway/proto/provider/v1'
import { defineProvider, ProviderError, type DynamicDefinition } from '@slipway/sdk'
import { createSlipwayClient, SlipwayError, type SlipwayClient } from '@slipway/sdk/client'
import pino from 'pino'
import t, { type Test } from 'tap'

// The whole file may take longer than the runner's ordinary limit on a busy machine.
t.setTimeout(900_000)

// Who may make hosts of servers that exist already, at which providers, and as what they count; over the client API of a whole hub, with providers that a test holds in
// its hand.

interface Server {
  readonly id: string
  key: string
  power: 'on' | 'off'
  typeId: string
}

const shape = { vcpus: 2, memoryMib: 4096, diskGib: 40, architecture: 'amd64' }
const price = { currency: 'EUR', hourlyMicros: 10_000n, setupMicros: 5_000_000n }

class TestCloud {
  readonly servers = new Map<string, Server>()
  /** Everything that was done to servers. */
  readonly calls: string[] = []
  /** What stands in the way of putting keys on servers. */
  mark: () => Promise<void> = () => Promise.resolve()

  add(id: string, over: Partial<Server> = {}): Server {
    const server: Server = { id, key: '', power: 'on', typeId: 's', ...over }
    this.servers.set(id, server)
    return server
  }

  definition(adopts = true): DynamicDefinition<unknown, unknown, unknown> {
    const view = (server: Server) => ({ externalId: server.id, power: server.power })
    const noCreate = () => Promise.reject(new ProviderError('INTERNAL', 'nothing is made here', { retryable: false }))
    return {
      family: 'test-cloud',
      kind: 'dynamic',
      listIntervalMs: 200,
      offeringsIntervalMs: 500,
      effectTimeoutMs: 500,
      validate: () => Promise.resolve([]),
      offerings: () =>
        Promise.resolve(['s', 'm'].map((typeId) => ({ typeId, location: 'here', shape, price, available: false }))),
      create: () => {
        this.calls.push('create')
        return noCreate()
      },
      observe: (_context, id) => {
        const server = this.servers.get(id)
        return Promise.resolve(server && view(server))
      },
      delete: (_context, { externalId = '' }) => {
        this.calls.push(`delete ${externalId}`)
        this.servers.delete(externalId)
        return Promise.resolve()
      },
      list: () => this.list(),
      power: (_context, id, wish) => {
        this.calls.push(`power ${wish} ${id}`)
        return Promise.resolve()
      },
      ...(adopts && {
        adopt: {
          find: (_context, id) => {
            const server = this.servers.get(id)
            if (server === undefined) return Promise.resolve(undefined)
            return Promise.resolve({
              ...view(server),
              ownershipKey: server.key,
              typeId: server.typeId,
              location: 'here',
              shape,
            })
          },
          mark: async (_context, { externalId, ownershipKey }) => {
            await this.mark()
            this.#key(externalId, ownershipKey)
          },
          unmark: (_context, { externalId }) => {
            this.#key(externalId, '')
            return Promise.resolve()
          },
        },
      }),
    }
  }

  async *list() {
    await Promise.resolve()
    for (const server of this.servers.values())
      if (server.key !== '') yield { externalId: server.id, ownershipKey: server.key, power: server.power }
  }

  #key(id: string, key: string): void {
    const server = this.servers.get(id)
    if (server === undefined) throw new ProviderError('INTERNAL', `there is no ${id}`)
    this.calls.push(`key ${id}`)
    server.key = key
  }
}

interface Scene {
  readonly client: SlipwayClient
  readonly as: (name: string, role: Role, scope: string) => Promise<SlipwayClient>
  /** Adds a provider, and an instance of it. */
  readonly cloud: (
    name: string,
    options?: { readonly owner?: string; readonly adopts?: boolean; readonly starts?: boolean },
  ) => Promise<TestCloud>
  readonly until: (name: string, state: HostState) => Promise<Host>
}

async function start(test: Test): Promise<Scene> {
  const { hub, token } = await withHub(test)
  const client = createSlipwayClient({ baseUrl: hub.apiUrl, token })
  const folder = mkdtempSync(join(tmpdir(), 'slipway-adoption-'))
  test.teardown(() => rmSync(folder, { recursive: true, force: true }))
  for (const organizationId of ['acme', 'other']) {
    await client.organizations.createOrganization({ organizationId, organization: {} })
    await client.workspaces.createWorkspace({
      parent: `organizations/${organizationId}`,
      workspaceId: `${organizationId}-a`,
      workspace: {},
    })
  }
  await client.workspaces.createWorkspace({ parent: 'organizations/acme', workspaceId: 'acme-b', workspace: {} })
  await client.machineClasses.createMachineClass({
    machineClassId: 'small',
    machineClass: {
      shape: { vcpus: 1, memoryMib: 2048n },
      offerings: [{ family: 'test-cloud', typeId: 's' }],
      bootstrap: { phoneHome: true },
    },
  })
  return {
    client,
    as: async (name, role, scope) => {
      const organization = scope.startsWith('organizations/') ? scope.split('/')[1] : scope.split('/')[1]?.split('-')[0]
      const principal = `organizations/${organization ?? ''}/principals/${name}`
      await client.principals.createPrincipal({
        parent: `organizations/${organization ?? ''}`,
        principalId: name,
        principal: { kind: PrincipalKind.SERVICE_ACCOUNT },
      })
      await client.roleBindings.createRoleBinding({ parent: scope, roleBinding: { principal, role } })
      const { secret } = await client.tokens.createToken({ principal, displayName: name })
      return createSlipwayClient({ baseUrl: hub.apiUrl, token: secret })
    },
    cloud: async (name, { owner = '', adopts = true, starts = true } = {}) => {
      await client.providers.createProvider({
        providerId: name,
        provider: { family: 'test-cloud', kind: ProviderKind.DYNAMIC, owner },
      })
      const cloud = new TestCloud()
      if (!starts) return cloud
      const { joinToken } = await client.providers.createJoinToken({ provider: `providers/${name}` })
      const stop = new AbortController()
      const stopped = defineProvider<unknown, unknown, unknown>(cloud.definition(adopts)).run({
        gateway: hub.gatewayAddress,
        joinToken,
        stateDir: join(folder, name),
        log: pino({ level: process.env['SLIPWAY_TEST_LOG'] ?? 'silent' }),
        signal: stop.signal,
      })
      stopped.catch(() => undefined)
      test.teardown(async () => {
        stop.abort()
        await stopped.catch(() => undefined)
      })
      await eventually(async () => {
        const { provider } = await client.providers.getProvider({ name: `providers/${name}` })
        return provider?.offeringsTime === undefined ? undefined : true
      }, `offerings of ${name}`)
      return cloud
    },
    until: (name, state) =>
      eventually(async () => {
        const { host } = await client.hosts.getHost({ name })
        return host?.state === state ? host : undefined
      }, `${name} to be ${HostState[state]}`),
  }
}

async function eventually<T>(look: () => Promise<T | undefined>, what: string): Promise<T> {
  const deadline = Date.now() + 30_000
  for (;;) {
    const found = await look().catch((error: unknown) => {
      if (error instanceof SlipwayError) return undefined
      throw error
    })
    if (found !== undefined) return found
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`)
    await sleep(50)
  }
}

async function refusal(call: Promise<unknown>): Promise<{ readonly reason: string; readonly message: string }> {
  try {
    await call
  } catch (error) {
    if (error instanceof SlipwayError) return { reason: error.reason, message: error.message }
    throw error
  }
  return { reason: 'none', message: '' }
}

const order = (parent: string, hostId: string, provider: string, externalId: string) => ({
  ...{ parent, hostId, externalId },
  provider: `providers/${provider}`,
  machineClass: 'machineClasses/small',
})

void t.test('who may adopt, and where', async (t) => {
  const { client, as, cloud } = await start(t)
  const shared = await cloud('shared')
  const mine = await cloud('mine', { owner: 'workspaces/acme-a' })
  const ours = await cloud('ours', { owner: 'organizations/acme' })
  const theirs = await cloud('theirs', { owner: 'organizations/other' })
  for (const each of [shared, mine, ours, theirs]) for (const id of ['1', '2']) each.add(id)
  const operator = await as('operator', Role.OPERATOR, 'workspaces/acme-a')
  const creator = await as('creator', Role.HOST_CREATOR, 'workspaces/acme-a')
  const neighbour = await as('neighbour', Role.OPERATOR, 'workspaces/acme-b')
  const boss = await as('boss', Role.OPERATOR, 'organizations/acme')
  const tried = (who: SlipwayClient, provider: string, parent = 'workspaces/acme-a') =>
    refusal(who.hosts.adoptHost({ ...order(parent, 'web', provider, '1'), validateOnly: true })).then(
      ({ reason }) => reason,
    )

  t.equal(await tried(operator, 'mine'), 'none', 'an operator, at the workspace’s own provider')
  t.equal(await tried(creator, 'mine'), 'PERMISSION_MISSING', 'who may only order may not')
  t.equal(await tried(neighbour, 'mine', 'workspaces/acme-b'), 'PROVIDER_NOT_FOUND', 'a neighbour does not even see it')
  t.equal(await tried(neighbour, 'mine'), 'WORKSPACE_NOT_FOUND')
  t.equal(await tried(operator, 'ours'), 'PERMISSION_MISSING', 'what is the organization’s may be another workspace’s')
  t.equal(await tried(boss, 'ours'), 'none', 'who operates the organization may')
  t.equal(await tried(boss, 'mine'), 'none')
  t.equal(await tried(boss, 'shared'), 'PERMISSION_MISSING', 'at a shared one it may be anybody’s')
  t.equal(await tried(operator, 'shared'), 'PERMISSION_MISSING')
  t.equal(await tried(boss, 'theirs'), 'PROVIDER_NOT_FOUND', 'others’ are not there')
  t.equal(await tried(boss, 'absent'), 'PROVIDER_NOT_FOUND')
  t.equal(await tried(client, 'shared'), 'none', 'the hub’s administrators may')
  t.equal(await tried(client, 'theirs'), 'PROVIDER_NOT_USABLE', 'and give nobody what is another’s')
  t.strictSame(
    [shared, mine, ours, theirs].flatMap(({ calls }) => calls),
    [],
    'nothing was touched',
  )
})

void t.test('an adopted host counts, and is charged, like any other', async (t) => {
  const { client, cloud, until } = await start(t)
  const there = await cloud('cloud')
  for (const id of ['1', '2', '3']) there.add(id, { power: 'off' })
  await client.quotas.createQuota({
    parent: 'organizations/acme',
    quotaId: 'few',
    quota: { maxHosts: 5n, maxVcpus: 3n },
  })
  const first = { ...order('workspaces/acme-a', 'web-1', 'cloud', '1'), requestId: 'once' }
  const { host } = await client.hosts.adoptHost(first)
  t.match(host, { protected: true, state: HostState.PLACED })
  const ready = await until('workspaces/acme-a/hosts/web-1', HostState.READY)
  t.match(ready.price, { hourlyMicros: 10_000n }, 'at the price that is in force')
  t.equal(ready.price?.setupMicros ?? 0n, 0n, 'it was set up long ago')
  t.strictSame(there.calls, ['key 1'], 'it is off, and stays so')
  t.match(await client.hosts.adoptHost(first), { host: { uid: host?.uid } }, 'the same again is the same host')
  t.match(await refusal(client.hosts.adoptHost({ ...first, externalId: '2' })), { reason: 'IDEMPOTENCY_KEY_REUSED' })
  t.match(
    await refusal(client.hosts.adoptHost(order('workspaces/acme-a', 'web-2', 'cloud', '2'))),
    {
      reason: 'QUOTA_EXCEEDED',
    },
    'it counts with the two vCPUs that it has, though its class promises one',
  )
  t.match(await refusal(client.hosts.adoptHost(order('workspaces/acme-b', 'web-2', 'cloud', '1'))), {
    reason: 'SERVER_KNOWN',
  })
  t.match(await refusal(client.hosts.adoptHost(order('workspaces/other-a', 'web-2', 'cloud', '1'))), {
    reason: 'SERVER_KNOWN',
  })
  const usage = await client.usage.listUsage({ parent: 'workspaces/acme-a' })
  t.match(
    JSON.stringify(usage, (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value)),
    /web-1/,
  )
})

void t.test('of two that want one server, one has it', async (t) => {
  const { client, cloud } = await start(t)
  const there = await cloud('cloud')
  there.add('1')
  const wanted = Array.from({ length: 8 }, (_, index) => order('workspaces/acme-a', `web-${index}`, 'cloud', '1'))
  const ends = await Promise.all(wanted.map((each) => refusal(client.hosts.adoptHost(each))))
  t.equal(ends.filter(({ reason }) => reason === 'none').length, 1)
  t.equal(ends.filter(({ reason }) => reason === 'SERVER_KNOWN').length, 7)
})

void t.test('what cannot be adopted is refused before anything is stored', async (t) => {
  const { client, cloud } = await start(t)
  const there = await cloud('cloud')
  await cloud('old', { adopts: false })
  await cloud('silent', { starts: false })
  there.add('1', { key: 'another/key' })
  there.add('2', { typeId: 'm' })
  const adopt = (provider: string, id: string, more: object = {}) =>
    refusal(client.hosts.adoptHost({ ...order('workspaces/acme-a', 'web', provider, id), ...more }))
  t.match(await adopt('old', '1'), { reason: 'ADOPTION_UNSUPPORTED', message: /does not do that/ })
  t.match(await adopt('silent', '1'), { reason: 'ADOPTION_UNSUPPORTED', message: /ever connected/ })
  t.match(await adopt('cloud', '1'), { reason: 'PROVIDER_DATA_INVALID', message: /ownership key/ })
  t.match(await adopt('cloud', '2'), { reason: 'PROVIDER_DATA_INVALID', message: /is a m, not a s/ })
  t.match(await adopt('cloud', '3'), { reason: 'PROVIDER_DATA_INVALID', message: /no server 3/ })
  t.match(await adopt('cloud', '2', { typeId: 'm' }), { reason: 'CLASS_NOT_OFFERED', message: /it has s in here/ })
  t.match(await adopt('cloud', '2', { machineClass: 'machineClasses/absent' }), { reason: 'CLASS_NOT_FOUND' })
  t.match(await adopt('cloud', 'a b'), { reason: /INVALID/ })
  t.strictSame((await client.hosts.listHosts({ parent: 'workspaces/-' })).hosts, [])
  t.strictSame(there.calls, [])
})

void t.test('what fails on the way is given up, and the server is left alone', async (t) => {
  const { client, cloud, until } = await start(t)
  const there = await cloud('cloud')
  const server = there.add('1')
  there.mark = () => {
    server.key = 'another/key'
    return Promise.reject(new ProviderError('CONFLICT', 'somebody was faster', { retryable: false }))
  }
  await client.hosts.adoptHost(order('workspaces/acme-a', 'web', 'cloud', '1'))
  const name = 'workspaces/acme-a/hosts/web'
  const failed = await until(name, HostState.ERROR)
  t.match(failed.lastError, { message: 'somebody was faster' })
  t.match(await refusal(client.hosts.retryHost({ name })), { reason: 'HOST_STATE_FORBIDS', message: /release it/ })
  await client.hosts.updateHost({ host: { name, protected: false }, updateMask: { paths: ['protected'] } })
  await client.hosts.deleteHost({ name })
  await eventually(async () => {
    const { hosts } = await client.hosts.listHosts({ parent: 'workspaces/-' })
    return hosts.length === 0 ? true : undefined
  }, 'its release')
  t.equal(server.key, 'another/key')
  t.strictSame(there.calls, [], 'nothing was made, switched, keyed or deleted')
})

void t.test('a key that an adoption left behind makes no orphan that could be removed', async (t) => {
  const { client, cloud } = await start(t)
  const there = await cloud('cloud')
  const server = there.add('1')
  let key = ''
  there.mark = () => new Promise(() => undefined)
  await client.hosts.adoptHost(order('workspaces/acme-a', 'web', 'cloud', '1'))
  const request = await eventually(async () => {
    const { machineRequests } = await client.machineRequests.listMachineRequests({})
    const [found] = machineRequests
    return found?.createInDoubt === true ? found : undefined
  }, 'it to begin')
  key = request.ownershipKey
  await client.machineRequests.forgetMachineRequest({ name: request.name, reason: 'a test' })
  // What was on its way lands after that.
  server.key = key
  const orphan = await eventually(async () => {
    const { orphans } = await client.orphans.listOrphans({ parent: 'providers/cloud' })
    return orphans.find(({ keepReason }) => keepReason === OrphanKeepReason.ADOPTION)
  }, 'the orphan')
  const removal = { name: orphan.name, confirmExternalId: '1' }
  t.match(await refusal(client.orphans.removeOrphan(removal)), { reason: 'ORPHAN_NOT_OURS' })
  t.notOk(there.calls.some((call) => call.startsWith('delete')))
})
