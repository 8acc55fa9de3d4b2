import { randomBytes, randomUUID } from 'node:crypto'
import { withHub, type TestHub } from '@slipway/hub/testing'
import { ClaimTime, Priority, ProviderState } from '@slipway/proto/hub/v1'
import { ProviderKind } from '@slipway/proto/provider/v1'
import { createSlipwayClient, SlipwayError, type SlipwayClient } from '@slipway/sdk/client'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { until } from '../tools/processes.js'

// The whole file may take longer than the runner's ordinary limit on a busy machine.
t.setTimeout(900_000)

// Whose providers are, who may use them, and how they are claimed from pools: over the client API of whole hubs.

const [owner, , hostCreator, viewer] = [1, 2, 3, 4]
const family = 'simulated'
const kind = ProviderKind.DYNAMIC

async function refusal(call: Promise<unknown>): Promise<SlipwayError> {
  try {
    await call
  } catch (error) {
    if (error instanceof SlipwayError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

class Scene {
  readonly test: TestHub
  readonly admin: SlipwayClient

  constructor(test: TestHub) {
    this.test = test
    this.admin = this.as(test.token)
  }

  static async start(t: Test, env: Readonly<Record<string, string>> = {}): Promise<Scene> {
    const scene = new Scene(await withHub(t, env))
    await scene.admin.machineClasses.createMachineClass({
      machineClassId: 'small',
      machineClass: { shape: { vcpus: 1 }, offerings: [{ family, typeId: 'small' }] },
    })
    return scene
  }

  as(token: string): SlipwayClient {
    return createSlipwayClient({ baseUrl: this.test.hub.apiUrl, token })
  }

  async organization(organizationId: string, ...workspaceIds: readonly string[]): Promise<void> {
    await this.admin.organizations.createOrganization({ organizationId, organization: {} })
    for (const workspaceId of workspaceIds) await this.workspace(organizationId, workspaceId)
  }

  async workspace(organization: string, workspaceId: string, labels: Record<string, string> = {}): Promise<void> {
    await this.admin.workspaces.createWorkspace({
      parent: `organizations/${organization}`,
      workspaceId,
      workspace: { labels },
    })
  }

  /** A provider that looks connected, with one offering. */
  async provider(providerId: string, over: Record<string, unknown> = {}): Promise<void> {
    const provider = { family, kind, config: { endpoint: `https://${providerId}.example` }, ...over }
    await this.admin.providers.createProvider({ providerId, provider })
    const { db } = this.test.database
    const shape = JSON.stringify({ vcpus: 2, memoryMib: 4096, diskGib: 40, diskClass: '', architecture: 'amd64' })
    await sql`
      with found as (update providers set state = 'CONNECTED', offerings_at = now() where name = ${providerId} returning id),
      offered as (insert into offerings (provider_id, type_id, location, shape, available) select id, 'small', 'a', ${shape}::jsonb, true from found)
      insert into sessions (id, provider_id, instance_id, instance_name, replica, sdk, provider_version, certificate_serial, capacity, expires_at)
      select gen_random_uuid(), id, gen_random_uuid(), 'made-up', 'made-up', 'made-up', '1.2.3', '00', 0, now() + interval '1 hour' from found
    `.execute(db)
  }

  async member(organization: string, id: string, role: number, parent?: string): Promise<SlipwayClient> {
    const { principal } = await this.admin.principals.createPrincipal({
      parent: `organizations/${organization}`,
      principalId: id,
      principal: { kind: 2 },
    })
    const name = principal?.name ?? ''
    await this.admin.roleBindings.createRoleBinding({
      parent: parent ?? `organizations/${organization}`,
      roleBinding: { principal: name, role },
    })
    return this.as((await this.admin.tokens.createToken({ principal: name })).secret)
  }

  order(workspace: string, hostId: string, client: SlipwayClient = this.admin, over: Record<string, unknown> = {}) {
    return client.hosts.createHost({
      parent: `workspaces/${workspace}`,
      hostId,
      host: { machineClass: 'machineClasses/small', ...over },
      requestId: randomUUID(),
    })
  }

  /** Where a host was placed, once it was. */
  async placed(workspace: string, hostId: string): Promise<string> {
    const name = `workspaces/${workspace}/hosts/${hostId}`
    return until(`${name} to be placed`, async () => {
      const { host } = await this.admin.hosts.getHost({ name })
      return host?.provider === '' ? undefined : host?.provider
    })
  }

  /** What an instance would say: nothing is left of a workspace's hosts. */
  async clear(workspace: string): Promise<void> {
    await sql`
      update machine_requests set state = 'GONE', presence = 'ABSENT', gone_at = now() where workspace_name = ${workspace}
    `.execute(this.test.database.db)
    await sql`
      update hosts set state = 'RELEASED', released_at = now() where workspace_name = ${workspace} and state <> 'RELEASED'
    `.execute(this.test.database.db)
  }

  async claimants(): Promise<readonly string[]> {
    const { providers } = await this.admin.providers.listProviders({})
    return providers.flatMap(({ name, claim }) => (claim === undefined ? [] : [`${name} ${claim.workspace}`]))
  }
}

void t.test('a host goes only to providers that its workspace may use', async (t) => {
  const scene = await Scene.start(t)
  const { admin } = scene
  await scene.organization('acme', 'acme-web', 'acme-lab')
  await scene.organization('other', 'other-web')
  await scene.provider('acme-cloud', { owner: 'organizations/acme' })
  await scene.provider('lab-cloud', { owner: 'workspaces/acme-lab' })

  await scene.order('acme-web', 'a')
  t.equal(await scene.placed('acme-web', 'a'), 'providers/acme-cloud', "the organization's")
  const named = { placement: { providers: ['providers/lab-cloud'] } }
  await scene.order('acme-lab', 'a', admin, named)
  t.equal(await scene.placed('acme-lab', 'a'), 'providers/lab-cloud', "the workspace's own")
  const refused = await refusal(scene.order('other-web', 'a'))
  t.match(refused, { reason: 'CLASS_NOT_OFFERED' })
  t.notMatch(refused.message, /acme|lab/, 'others learn nothing of them')
  const sibling = await refusal(scene.order('acme-web', 'b', admin, named))
  t.match(sibling, { reason: 'CLASS_NOT_OFFERED' })

  await scene.provider('everybodys')
  await scene.order('other-web', 'b')
  t.equal(await scene.placed('other-web', 'b'), 'providers/everybodys')

  const change = (owner: string, name = 'providers/everybodys') =>
    admin.providers.updateProvider({ provider: { name, owner }, updateMask: { paths: ['owner'] } })
  t.match(
    await refusal(change('organizations/acme')),
    { reason: 'PROVIDER_IN_USE' },
    'what others have there stays theirs',
  )
  t.match((await change('organizations/other')).provider, { owner: 'organizations/other' })
  t.match(await refusal(change('organizations/nobody')), { reason: 'ORGANIZATION_NOT_FOUND' })
  t.match(await refusal(scene.order('acme-web', 'c', admin, { placement: { providers: ['providers/everybodys'] } })), {
    reason: 'CLASS_NOT_OFFERED',
  })
  await scene.clear('acme-lab')
  t.match(await refusal(admin.workspaces.deleteWorkspace({ name: 'workspaces/acme-lab' })), {
    reason: 'WORKSPACE_IN_USE',
    message: /owns 1 providers/,
  })
})

void t.test('an order asks for a region, and for what may be said of data there', async (t) => {
  const scene = await Scene.start(t)
  await scene.provider('west', { region: 'us-west' })
  await scene.provider('central', { region: 'eu-central', residency: ['eu', 'iso-27001'] })
  await scene.order('default', 'a', scene.admin, { placement: { regions: ['eu-central'] } })
  t.equal(await scene.placed('default', 'a'), 'providers/central')
  await scene.order('default', 'b', scene.admin, { placement: { residency: ['eu'] } })
  t.equal(await scene.placed('default', 'b'), 'providers/central')
  const refused = await refusal(scene.order('default', 'c', scene.admin, { placement: { residency: ['swiss'] } }))
  t.match(refused, { reason: 'CLASS_NOT_OFFERED', message: /does not promise swiss/ })
})

void t.test('tenants see of a provider what they need of it', async (t) => {
  const scene = await Scene.start(t)
  const { admin } = scene
  await scene.organization('acme', 'acme-web', 'acme-lab')
  await scene.organization('other', 'other-web')
  await scene.provider('everybodys', { annotations: { rack: 'secret-place' } })
  await scene.provider('acme-cloud', { owner: 'organizations/acme' })
  await scene.provider('lab-cloud', { owner: 'workspaces/acme-lab' })
  await scene.provider('other-cloud', { owner: 'organizations/other' })
  const [boss, webViewer, labViewer] = await Promise.all([
    scene.member('acme', 'boss', owner),
    scene.member('acme', 'web', viewer, 'workspaces/acme-web'),
    scene.member('acme', 'lab', viewer, 'workspaces/acme-lab'),
  ])
  const seen = async (client: SlipwayClient) =>
    (await client.providers.listProviders({})).providers.map(({ name, config }) => [name, config !== undefined])
  t.strictSame(await seen(boss), [
    ['providers/acme-cloud', true],
    ['providers/everybodys', false],
    ['providers/lab-cloud', true],
  ])
  t.strictSame(
    await seen(webViewer),
    [
      ['providers/acme-cloud', false],
      ['providers/everybodys', false],
    ],
    'a workspace sees what it may use',
  )
  t.strictSame(await seen(labViewer), [
    ['providers/acme-cloud', false],
    ['providers/everybodys', false],
    ['providers/lab-cloud', true],
  ])
  const { provider } = await webViewer.providers.getProvider({ name: 'providers/everybodys' })
  t.match(provider, { state: ProviderState.CONNECTED, family, offerings: [{ typeId: 'small' }] })
  t.strictSame(
    [provider?.annotations, provider?.sessions, provider?.capacity, provider?.configSchema, provider?.conditions],
    [{}, [], undefined, '', []],
  )
  const whole = await admin.providers.getProvider({ name: 'providers/everybodys' })
  t.match(whole.provider, { sessions: [{ providerVersion: '1.2.3' }], capacity: { capacity: 0, waiting: 0 } })
  for (const name of ['providers/other-cloud', 'providers/lab-cloud', 'providers/absent'])
    t.match(await refusal(webViewer.providers.getProvider({ name })), { reason: 'PROVIDER_NOT_FOUND' })
  t.match(await refusal(boss.providers.updateProvider({ provider: { name: 'providers/acme-cloud' } })), {
    reason: 'PERMISSION_MISSING',
  })
})

void t.test('a pool is claimed from as its policy says, and given back', async (t) => {
  const scene = await Scene.start(t)
  const { admin } = scene
  const pools = admin.providerPools
  t.match(await refusal(pools.createProviderPool({ providerPoolId: 'none', providerPool: {} })), {
    violations: [{ field: 'provider_pool.family' }],
  })
  const name = 'providerPools/eu'
  await pools.createProviderPool({
    providerPoolId: 'eu',
    providerPool: {
      family,
      region: 'eu',
      claimOn: ClaimTime.WORKSPACE_CREATED,
      organizations: ['organizations/acme'],
      workspaceSelector: 'plan=pro',
      includedHosts: 1,
      idleRelease: { seconds: 1n },
      unlessOwn: true,
    },
  })
  await scene.provider('eu-1', { region: 'eu', pool: name })
  const renamed = { providerPool: { name, displayName: 'Europe' }, updateMask: { paths: ['display_name'] } }
  t.match((await pools.updateProviderPool(renamed)).providerPool, { displayName: 'Europe', includedHosts: 1, family })
  const wrong = [
    [{ region: 'us', pool: name }, /region eu/],
    [{ region: 'eu', pool: name, family: 'qemu' }, /family simulated/],
    [{ region: 'eu', pool: name, owner: 'organizations/default' }, /nobody owns/],
    [{ region: 'eu', pool: 'providerPools/none' }, /no provider pool/],
  ] as const
  for (const [over, message] of wrong) t.match(await refusal(scene.provider('wrong', over)), { message })

  await scene.organization('acme', 'acme-free')
  t.match(await refusal(scene.order('acme-free', 'a')), { reason: 'CLASS_NOT_OFFERED' }, 'nobody uses it unclaimed')
  await scene.workspace('acme', 'acme-pro', { plan: 'pro' })
  t.strictSame(await scene.claimants(), ['providers/eu-1 workspaces/acme-pro'])
  t.match((await pools.getProviderPool({ name })).providerPool, { providers: 1, claimed: 1 })
  await scene.order('acme-pro', 'a')
  t.equal(await scene.placed('acme-pro', 'a'), 'providers/eu-1')
  const full = await scene.order('acme-pro', 'b')
  t.match(full.warnings, [/all 1 hosts that are included/], 'what is not included waits')

  t.match(await refusal(pools.releaseProvider({ name: 'providers/eu-1' })), { reason: 'PROVIDER_IN_USE' })
  t.match(await refusal(pools.claimProvider({ name, workspace: 'workspaces/acme-free' })), { reason: 'POOL_EXHAUSTED' })
  t.match(await refusal(pools.deleteProviderPool({ name })), { reason: 'POOL_IN_USE' })
  await scene.clear('acme-pro')
  await admin.workspaces.deleteWorkspace({ name: 'workspaces/acme-pro' })
  await until(
    'the provider to be given back',
    async () => ((await scene.claimants()).length === 0 ? true : undefined),
    60_000,
  )
  const claimed = await pools.claimProvider({ name, workspace: 'workspaces/acme-free' })
  t.match(
    claimed.provider,
    { claim: { workspace: 'workspaces/acme-free', includedHosts: 1 } },
    'by hand, whatever the policy',
  )
  t.match((await pools.claimProvider({ name, workspace: 'workspaces/acme-free' })).provider, { name: 'providers/eu-1' })
  t.match((await pools.releaseProvider({ name: 'providers/eu-1' })).provider, { claim: undefined })
  const { rows } = await sql<{ reason: string }>`
    select reason from events where subject = 'providers/eu-1' and reason like 'Provider%ed' and reason <> 'ProviderAdded' order by xid, id
  `.execute(scene.test.database.db)
  t.strictSame(
    rows.map(({ reason }) => reason),
    ['ProviderClaimed', 'ProviderReleased', 'ProviderClaimed', 'ProviderReleased'],
  )

  await scene.provider('own', { owner: 'organizations/acme' })
  await scene.workspace('acme', 'acme-byo', { plan: 'pro' })
  t.strictSame(await scene.claimants(), [], 'who brings its own gets none')
})

void t.test('a trial ends, and is had once', async (t) => {
  const scene = await Scene.start(t)
  await scene.admin.providerPools.createProviderPool({
    providerPoolId: 'trial',
    providerPool: { family, claimOn: ClaimTime.FIRST_ORDER, trial: { seconds: 3600n } },
  })
  await scene.provider('t-1', { pool: 'providerPools/trial' })
  await scene.organization('acme', 'acme-web', 'acme-lab')
  const plan = await scene.admin.hosts.createHost({
    parent: 'workspaces/acme-web',
    hostId: 'a',
    host: { machineClass: 'machineClasses/small' },
    validateOnly: true,
  })
  t.match(plan, {
    warnings: [/would claim a provider of pool trial/],
    candidates: [{ provider: 'providers/t-1', chosen: true }],
  })
  t.strictSame(await scene.claimants(), [], 'looking claims nothing')
  await scene.order('acme-web', 'a')
  t.equal(await scene.placed('acme-web', 'a'), 'providers/t-1')
  await sql`update provider_claims set trial_ends_at = now()`.execute(scene.test.database.db)
  const over = await refusal(scene.order('acme-web', 'b'))
  t.match(over, { reason: 'CLASS_NOT_OFFERED', message: /the time to try it is over/ })
  await scene.clear('acme-web')
  await until('the trial to end', async () => ((await scene.claimants()).length === 0 ? true : undefined), 60_000)
  t.match(await refusal(scene.order('acme-lab', 'a')), { reason: 'CLASS_NOT_OFFERED' }, 'an organization tries it once')
})

void t.test('first orders race for the last provider of a pool, on two replicas', async (t) => {
  const env = { SLIPWAY_KEY: randomBytes(32).toString('hex') }
  const scene = await Scene.start(t, env)
  const second = await scene.test.another()
  const replicas = [scene.admin, createSlipwayClient({ baseUrl: second.hub.apiUrl, token: scene.test.token })]
  for (const pool of ['a', 'b'])
    await scene.admin.providerPools.createProviderPool({ providerPoolId: pool, providerPool: { family } })
  const rounds = 5
  const rivals = 4
  for (let round = 0; round < rounds; round++) {
    // One is left in each of two pools, and four workspaces want one each, with two orders at once.
    await scene.provider(`a-${round}`, { pool: 'providerPools/a' })
    await scene.provider(`b-${round}`, { pool: 'providerPools/b' })
    const workspaces = Array.from({ length: rivals }, (_, index) => `race-${round}-${index}`)
    for (const workspace of workspaces) await scene.workspace('default', workspace)
    const orders = await Promise.allSettled(
      workspaces.flatMap((workspace, index) =>
        ['x', 'y'].map((host, at) => scene.order(workspace, host, replicas[(index + at) % 2] ?? scene.admin)),
      ),
    )
    const claimants = (await scene.claimants()).filter((line) => line.includes(`-${round} `))
    t.equal(claimants.length, 2, 'each went to one')
    const { rows } = await sql<{ claims: number; workspaces: number; providers: number }>`
      select count(*)::int as claims, count(distinct (workspace_id, pool_id))::int as workspaces, count(distinct provider_id)::int as providers
      from provider_claims where released_at is null
    `.execute(scene.test.database.db)
    t.strictSame(rows, [{ claims: 2 * (round + 1), workspaces: 2 * (round + 1), providers: 2 * (round + 1) }])
    const lost = orders.flatMap((order) => (order.status === 'rejected' ? [order.reason as SlipwayError] : []))
    t.ok(lost.length >= 2 && lost.length <= 6, `${lost.length} of 8 were told`)
    for (const error of lost) t.match(error, { reason: 'CLASS_NOT_OFFERED', message: /pool [ab] has no provider left/ })
  }
})

void t.test(
  'priority within what the workspace and the role allow, and shares from administrators alone',
  async (t) => {
    const scene = await Scene.start(t)
    const { admin } = scene
    await scene.provider('everybodys')
    await scene.organization('acme', 'acme-web')
    const [boss, maker] = await Promise.all([
      scene.member('acme', 'boss', owner),
      scene.member('acme', 'maker', hostCreator),
    ])
    const share = { weight: 3, maxPriority: Priority.HIGH }
    const name = 'workspaces/acme-web'
    t.match(await refusal(boss.workspaces.setWorkspaceShare({ name, share })), { reason: 'PERMISSION_MISSING' })
    t.match(
      await refusal(
        admin.workspaces.setWorkspaceShare({ name, share: { priority: Priority.HIGH, maxPriority: Priority.LOW } }),
      ),
      {
        violations: [{ field: 'share.max_priority' }],
      },
    )
    t.match(await admin.workspaces.setWorkspaceShare({ name, share }), {
      workspace: { share: { weight: 3, priority: Priority.NORMAL, maxPriority: Priority.HIGH } },
    })
    const high = { priority: Priority.HIGH }
    t.match(await refusal(scene.order('acme-web', 'a', maker, high)), {
      reason: 'PRIORITY_TOO_HIGH',
      message: /NORMAL at most/,
    })
    t.match((await scene.order('acme-web', 'a', maker, { priority: Priority.LOW })).host, { priority: Priority.LOW })
    t.match((await scene.order('acme-web', 'b', boss, high)).host, high)
    t.match((await scene.order('acme-web', 'c', maker)).host, { priority: Priority.NORMAL })
    await admin.workspaces.setWorkspaceShare({ name, share: {} })
    t.match(await refusal(scene.order('acme-web', 'd', boss, high)), { reason: 'PRIORITY_TOO_HIGH' })
    const { rows } = await sql<{ priority: number; n: number }>`
    select w.priority, count(*)::int as n from work_items w join workspaces s on s.id = w.workspace_id where s.name = 'acme-web' group by 1 order by 1
  `.execute(scene.test.database.db)
    t.strictSame(
      rows,
      [-1, 0, 1].map((priority) => ({ priority, n: 1 })),
    )
  },
)

void t.test(
  'members of a set claim as orders do, and machines go to nobody who may not use their provider',
  async (t) => {
    const scene = await Scene.start(t)
    const { admin } = scene
    await scene.organization('acme', 'acme-left', 'acme-right')
    await admin.providerPools.createProviderPool({ providerPoolId: 'a', providerPool: { family } })
    await scene.provider('last', { pool: 'providerPools/a' })
    const make = (workspace: string) =>
      admin.hostSets.createHostSet({
        parent: `workspaces/${workspace}`,
        hostSetId: 'web',
        hostSet: { replicas: 2, template: { machineClass: 'machineClasses/small' } },
      })
    await make('acme-left')
    t.equal(await scene.placed('acme-left', 'web-1'), 'providers/last')
    t.equal(await scene.placed('acme-left', 'web-0'), 'providers/last')
    t.strictSame(await scene.claimants(), ['providers/last workspaces/acme-left'])

    t.match(await refusal(make('acme-right')), {
      reason: 'CLASS_NOT_OFFERED',
      message: /pool a has no provider left/,
    })
    t.strictSame((await admin.hosts.listHosts({ parent: 'workspaces/acme-right' })).hosts, [])
    t.strictSame(await scene.claimants(), ['providers/last workspaces/acme-left'], 'it stays whose it is')

    await sql`
    insert into machines (provider_id, id, name, provider_name, static, external_id, state)
    select id, gen_random_uuid(), 'm-found', name, true, 'found', 'DISCOVERED' from providers where name = 'last'
  `.execute(scene.test.database.db)
    const adopt = (workspace: string) =>
      admin.machines.adoptMachine({
        name: 'machines/m-found',
        parent: `workspaces/${workspace}`,
        hostId: 'found',
        machineClass: 'machineClasses/small',
      })
    for (const workspace of ['acme-right', 'default'])
      t.match(await refusal(adopt(workspace)), {
        reason: 'PROVIDER_NOT_USABLE',
        message: new RegExp(`workspace ${workspace} may not use provider last`),
      })
    t.match(await adopt('acme-left'), { host: { name: 'workspaces/acme-left/hosts/found' } })
  },
)
