import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { withHub, type TestHub } from '@slipway/hub/testing'
import { createSlipwayClient, type SlipwayClient } from '@slipway/sdk/client'
import { sql } from 'kysely'
import type { Test } from 'tap'
import type { Names, Which } from './cases.js'

// Two tenants and a hub, with something of everything: what the matrix of roles and methods is tried on. Whatever belongs to the other tenant has `foreign` in its name.

export interface Actor {
  readonly name: string
  readonly token: string
  /** Whether it has a role of the whole hub, and so may know of both tenants. */
  readonly hubWide: boolean
}

export interface Scene {
  readonly test: TestHub
  readonly admin: SlipwayClient
  readonly actors: readonly Actor[]
  readonly names: Names
  /** Makes one more of the caller's own, to be deleted. @returns its resource name. */
  readonly fresh: (sort: string, which: Which) => Promise<string>
  /** All rows of the other tenant, as text. */
  readonly foreignRows: () => Promise<string>
}

const [administrator, providerOperator, auditor] = [5, 6, 7]
const [owner, operator, hostCreator, viewer] = [1, 2, 3, 4]
const [user, serviceAccount] = [1, 2]

const tenantRoles = { owner, operator, 'host-creator': hostCreator, viewer }
const hubRoles = { administrator, 'provider-operator': providerOperator, auditor }

/** An issuer for each of both tenants. Nothing is fetched from them. */
function issuersFile(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'slipway-matrix-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const file = join(folder, 'issuers.json')
  const issuers = ['own', 'foreign'].map((organization) => ({
    name: organization,
    issuer: `https://login.${organization}.example`,
    clientId: 'slipway',
    organization,
  }))
  writeFileSync(file, JSON.stringify({ issuers }))
  return file
}

export async function setScene(t: Test): Promise<Scene> {
  const test = await withHub(t, { SLIPWAY_ISSUERS_FILE: issuersFile(t) })
  const admin = createSlipwayClient({ baseUrl: test.hub.apiUrl, token: test.token })
  await makeSupply(test, admin)
  for (const organization of ['own', 'foreign']) {
    await admin.organizations.createOrganization({
      organizationId: organization,
      organization: { displayName: organization },
    })
    await admin.principals.createPrincipal({
      parent: `organizations/${organization}`,
      principalId: 'member',
      principal: { kind: serviceAccount, displayName: `${organization} member` },
    })
    await admin.secrets.createSecret({
      parent: `organizations/${organization}`,
      secretId: 'key',
      secret: { description: `of ${organization}`, data: { value: `${organization} cleartext` } },
    })
    await admin.quotas.createQuota({
      parent: `organizations/${organization}`,
      quotaId: 'limit',
      quota: { displayName: `of ${organization}`, maxHosts: 1_000_000n },
    })
    await admin.billingAgreements.createBillingAgreement({
      parent: `organizations/${organization}`,
      billingAgreementId: 'agreed',
      billingAgreement: { displayName: `of ${organization}`, discountBasisPoints: 100 },
    })
  }
  await admin.priceLists.createPriceList({ priceListId: 'list', priceList: {} })
  await admin.organizations.createOrganization({ organizationId: 'deleted', organization: {} })
  await admin.organizations.deleteOrganization({ name: 'organizations/deleted' })
  for (const [parent, workspaceId] of [
    ['own', 'own-a'],
    ['own', 'own-b'],
    ['own', 'own-gone'],
    ['foreign', 'foreign-a'],
  ] as const)
    await admin.workspaces.createWorkspace({ parent: `organizations/${parent}`, workspaceId, workspace: {} })
  await admin.workspaces.deleteWorkspace({ name: 'workspaces/own-gone' })
  await makeOwned(admin)
  const fresh = makerOf(test, admin)
  const [own, sibling, foreign] = await Promise.all(
    ['own-a', 'own-b', 'foreign-a'].map((workspace) => makeHost(test, admin, workspace, 'web')),
  )
  if (own === undefined || sibling === undefined || foreign === undefined) throw new Error('hosts are missing')
  for (const made of [own, sibling, foreign]) await putInService(test, made)
  await Promise.all(['own-a', 'own-b', 'foreign-a'].map((workspace) => makeSet(admin, workspace, 'group')))
  const deletedHost = await makeHost(test, admin, 'own-a', 'gone')
  await sql`update hosts set state = 'RELEASED', released_at = now() where name = 'gone'`.execute(test.database.db)
  const names = {
    ...(await makePeople(admin)),
    ...namesOfSupply(own, sibling, foreign, deletedHost),
  }
  const foreignRows = () => readForeign(test)
  return { test, admin, actors: await makeActors(admin, test), names, fresh, foreignRows }
}

interface HostNames {
  readonly host: string
  readonly machine: string
  readonly request: string
  readonly event: string
}

function namesOfSupply(own: HostNames, sibling: HostNames, foreign: HostNames, deleted: HostNames): Names {
  const both = (sort: keyof HostNames, absent: string) => ({
    own: own[sort],
    sibling: sibling[sort],
    foreign: foreign[sort],
    absent,
    deleted: deleted[sort],
  })
  return {
    hub: { own: '' },
    host: both('host', 'workspaces/absent-a/hosts/web'),
    hostset: {
      own: 'workspaces/own-a/hostSets/group',
      sibling: 'workspaces/own-b/hostSets/group',
      foreign: 'workspaces/foreign-a/hostSets/group',
      absent: 'workspaces/absent-a/hostSets/group',
      deleted: 'workspaces/own-a/hostSets/gone',
    },
    machine: both('machine', 'machines/m-000000000000'),
    request: both('request', 'machineRequests/r-000000000000'),
    event: both('event', `events/${randomUUID()}`),
    provider: {
      own: 'providers/own-cloud',
      sibling: 'providers/own-b-cloud',
      foreign: 'providers/foreign-cloud',
      absent: 'providers/absent',
    },
    pooled: { own: 'providers/own-pooled', foreign: 'providers/foreign-pooled', absent: 'providers/absent' },
    pool: { own: 'providerPools/pool', absent: 'providerPools/absent' },
    class: { own: 'machineClasses/small', absent: 'machineClasses/absent' },
    orphan: { own: 'providers/cloud/orphans/o-000000000001', absent: 'providers/cloud/orphans/o-absent' },
  }
}

async function makeSupply(test: TestHub, admin: SlipwayClient): Promise<void> {
  const { db } = test.database
  await admin.providers.createProvider({ providerId: 'cloud', provider: { family: 'simulated', kind: 2 } })
  await db
    .updateTable('providers')
    .set({ state: 'CONNECTED', capabilities: JSON.stringify(['POWER', 'REINSTALL', 'RESCUE', 'REMOVE_ORPHAN']) })
    .execute()
  const { id } = await db.selectFrom('providers').select('id').executeTakeFirstOrThrow()
  const shape = JSON.stringify({ vcpus: 2, memoryMib: 4096, diskGib: 40, diskClass: '', architecture: 'amd64' })
  await sql`
    insert into offerings (provider_id, type_id, location, shape, available) values (${id}, 'small', 'a', ${shape}::jsonb, true)
  `.execute(db)
  await admin.machineClasses.createMachineClass({
    machineClassId: 'small',
    machineClass: { shape: { vcpus: 1 }, offerings: [{ family: 'simulated', typeId: 'small' }] },
  })
  await makeOrphan(test, 'o-000000000001')
}

async function makeOrphan(test: TestHub, name: string): Promise<string> {
  await sql`
    insert into orphans (provider_id, id, name, provider_name, kind, external_id, ownership_key, first_seen_at, last_seen_at, last_listing_id, keep_reason)
    select id, gen_random_uuid(), ${name}, name, 'server', ${name}, 'x', now(), now(), gen_random_uuid(), 'POLICY_REPORTS'
    from providers where name = 'cloud'
  `.execute(test.database.db)
  return `providers/cloud/orphans/${name}`
}

/** Providers that not everybody may use: an organization's, a workspace's, and the other tenant's; and a pool of which each tenant has claimed one. */
async function makeOwned(admin: SlipwayClient): Promise<void> {
  const config = (of: string) => ({ endpoint: `https://${of}.example` })
  for (const [providerId, owner] of [
    ['own-cloud', 'organizations/own'],
    ['own-a-cloud', 'workspaces/own-a'],
    ['own-b-cloud', 'workspaces/own-b'],
    ['foreign-cloud', 'organizations/foreign'],
  ] as const)
    await admin.providers.createProvider({
      providerId,
      provider: { family: 'simulated', kind: 2, owner, config: config(providerId) },
    })
  await admin.providerPools.createProviderPool({
    providerPoolId: 'pool',
    providerPool: { family: 'simulated', claimOn: 3 },
  })
  for (const tenant of ['foreign', 'own']) {
    const providerId = `${tenant}-pooled`
    await admin.providers.createProvider({
      providerId,
      provider: { family: 'simulated', kind: 2, pool: 'providerPools/pool', config: config(providerId) },
    })
    await admin.providerPools.claimProvider({ name: 'providerPools/pool', workspace: `workspaces/${tenant}-a` })
  }
  await admin.providers.createProvider({
    providerId: 'free-pooled',
    provider: { family: 'simulated', kind: 2, pool: 'providerPools/pool' },
  })
}

/** A host with its request, a machine that serves it, and an event. */
async function makeHost(test: TestHub, admin: SlipwayClient, workspace: string, hostId: string): Promise<HostNames> {
  const { db } = test.database
  const parent = `workspaces/${workspace}`
  const { host } = await admin.hosts.createHost({
    parent,
    hostId,
    host: { machineClass: 'machineClasses/small', labels: { of: workspace } },
  })
  if (host === undefined) throw new Error('no host was made')
  const requestId = randomUUID()
  const machineId = randomUUID()
  const request = `r-${requestId.slice(-12)}`
  const machine = `m-${machineId.slice(-12)}`
  const known = await sql<{
    name: string
  }>`select name from machine_requests where host_id = ${host.uid}::uuid`.execute(db)
  if (known.rows.length === 0) {
    await sql`
      insert into machine_requests (provider_id, id, name, provider_name, organization_id, workspace_name, host_id, host_name, class_id, class_name, state,
                                    external_name, ownership_key, spec)
      select p.id, ${requestId}::uuid, ${request}, p.name, h.organization_id, h.workspace_name, h.id, ${host.name}, h.class_id, h.class_name, 'PROVISIONED',
             ${request}, ${requestId}, '{}'
      from hosts h, providers p where h.id = ${host.uid}::uuid and p.name = 'cloud'
    `.execute(db)
  }
  await sql`
    insert into machines (provider_id, id, name, provider_name, static, external_id, state, host_id, host_name)
    select id, ${machineId}::uuid, ${machine}, name, true, ${machine}, 'AVAILABLE', ${host.uid}::uuid, ${host.name} from providers where name = 'cloud'
  `.execute(db)
  await sql`update hosts set machine_id = ${machineId}::uuid, machine_name = ${machine} where id = ${host.uid}::uuid`.execute(
    db,
  )
  const event = await sql<{
    id: string
  }>`select event_id as id from events where subject = ${host.name} limit 1`.execute(db)
  return {
    host: host.name,
    machine: `machines/${machine}`,
    request: `machineRequests/${known.rows[0]?.name ?? request}`,
    event: `events/${event.rows[0]?.id ?? ''}`,
  }
}

/** A host that is READY on a machine that runs: one to which everything can be done. */
async function putInService(test: TestHub, { host, machine, request }: HostNames): Promise<void> {
  const [, workspace, , name] = host.split('/')
  const deadline = Date.now() + 30_000
  for (;;) {
    await serve()
    if (await isReady()) return
    // The hub's own work on the host came in between.
    if (Date.now() > deadline) throw new Error(`${host} is not in service`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }

  async function serve(): Promise<void> {
    await sql`
    with served as (
      update machines m set state = 'ACTIVE', static = false, request_id = r.id
      from machine_requests r where m.name = ${machine.split('/')[1]} and r.name = ${request.split('/')[1]}
      returning m.id, m.name, m.external_id, r.id as request_id
    ), asked as (
      update machine_requests r set state = 'PROVISIONED', presence = 'PRESENT', external_id = s.external_id, machine_id = s.id, machine_name = s.name
      from served s where r.id = s.request_id
    )
    update hosts h set state = 'READY', request_id = s.request_id, provider_id = p.id, provider_name = p.name
    from served s, providers p
    where h.workspace_name = ${workspace} and h.name = ${name} and p.name = 'cloud'
  `.execute(test.database.db)
  }

  async function isReady(): Promise<boolean> {
    const ready = await sql<{ ready: boolean }>`
    select exists (
      select from hosts h join work_items w on w.id = h.request_id
      where h.workspace_name = ${workspace} and h.name = ${name} and h.state = 'READY'
    ) as ready
  `.execute(test.database.db)
    return ready.rows[0]?.ready === true
  }
}

/** A set without members: nothing moves in it while the matrix is tried. */
async function makeSet(admin: SlipwayClient, workspace: string, hostSetId: string): Promise<string> {
  const { hostSet } = await admin.hostSets.createHostSet({
    parent: `workspaces/${workspace}`,
    hostSetId,
    hostSet: { template: { machineClass: 'machineClasses/small' }, labels: { of: workspace } },
  })
  return hostSet?.name ?? ''
}

async function makePeople(admin: SlipwayClient): Promise<Names> {
  const bound = async (organization: string) => {
    const made = await admin.roleBindings.createRoleBinding({
      parent: `organizations/${organization}`,
      roleBinding: { principal: `organizations/${organization}/principals/member`, role: viewer },
    })
    return made.roleBinding?.name ?? ''
  }
  const token = async (organization: string) => {
    const principal = `organizations/${organization}/principals/member`
    return (await admin.tokens.createToken({ principal, displayName: `${organization} token` })).token?.name ?? ''
  }
  const revoked = await token('own')
  await admin.tokens.revokeToken({ name: revoked })
  await admin.principals.createPrincipal({
    parent: 'organizations/own',
    principalId: 'gone',
    principal: { kind: serviceAccount },
  })
  await admin.principals.deletePrincipal({ name: 'organizations/own/principals/gone' })
  const person = async (organization: string) => {
    const parent = `organizations/${organization}`
    await admin.principals.createPrincipal({ parent, principalId: 'person', principal: { kind: user } })
    const name = `${parent}/principals/person`
    const identity = { issuer: organization, subject: `${organization}-subject` }
    return (await admin.identities.createIdentity({ parent: name, identity })).identity?.name ?? ''
  }
  const inOrganization = (rest: string) => ({
    own: `organizations/own${rest}`,
    foreign: `organizations/foreign${rest}`,
    absent: `organizations/absent${rest}`,
  })
  return {
    organization: { ...inOrganization(''), deleted: 'organizations/deleted' },
    workspace: {
      own: 'workspaces/own-a',
      sibling: 'workspaces/own-b',
      foreign: 'workspaces/foreign-a',
      absent: 'workspaces/absent-a',
      deleted: 'workspaces/own-gone',
    },
    principal: { ...inOrganization('/principals/member'), deleted: 'organizations/own/principals/gone' },
    person: { ...inOrganization('/principals/person'), deleted: 'organizations/own/principals/gone' },
    identity: {
      own: await person('own'),
      foreign: await person('foreign'),
      absent: 'organizations/absent/principals/person/identities/i-000000000000',
      deleted: 'organizations/own/principals/person/identities/i-000000000000',
    },
    secret: { ...inOrganization('/secrets/key'), deleted: 'organizations/own/secrets/gone' },
    agreement: {
      ...inOrganization('/billingAgreements/agreed'),
      deleted: 'organizations/own/billingAgreements/gone',
    },
    pricelist: { own: 'priceLists/list', absent: 'priceLists/absent' },
    quota: { ...inOrganization('/quotas/limit'), deleted: 'organizations/own/quotas/gone' },
    binding: {
      own: await bound('own'),
      foreign: await bound('foreign'),
      absent: 'organizations/absent/roleBindings/b-000000000000',
      deleted: 'organizations/own/roleBindings/b-000000000000',
    },
    token: {
      own: await token('own'),
      foreign: await token('foreign'),
      absent: 'tokens/0000000000000000',
      deleted: revoked,
    },
  }
}

/** One actor a role and place, one without any, and nobody. */
async function makeActors(admin: SlipwayClient, test: TestHub): Promise<readonly Actor[]> {
  const make = async (organization: string, principalId: string, parent: string, role: number): Promise<string> => {
    const { principal } = await admin.principals.createPrincipal({
      parent: organization,
      principalId,
      principal: { kind: serviceAccount },
    })
    const name = principal?.name ?? ''
    if (role !== 0) await admin.roleBindings.createRoleBinding({ parent, roleBinding: { principal: name, role } })
    return (await admin.tokens.createToken({ principal: name })).secret
  }
  const actors: Actor[] = []
  for (const [name, role] of Object.entries(hubRoles))
    actors.push({ name, token: await make('', `h-${name}`, '', role), hubWide: true })
  for (const [name, role] of Object.entries(tenantRoles)) {
    const own = 'organizations/own'
    actors.push({ name: `${name}@organization`, token: await make(own, `o-${name}`, own, role), hubWide: false })
    const token = await make(own, `w-${name}`, 'workspaces/own-a', role)
    actors.push({ name: `${name}@workspace`, token, hubWide: false })
  }
  actors.push({ name: 'no-role', token: await make('organizations/own', 'no-role', '', 0), hubWide: false })
  actors.push({ name: 'no-token', token: '', hubWide: false })
  if (actors.some((actor) => actor.token === test.token)) throw new Error('actors have tokens of their own')
  return actors
}

function makerOf(test: TestHub, admin: SlipwayClient): (sort: string, which: Which) => Promise<string> {
  let count = 0
  const organization = 'organizations/own'
  return async (sort, which) => {
    const id = `fresh-${++count}`
    const workspace = which === 'sibling' ? 'own-b' : which === 'foreign' ? 'foreign-a' : 'own-a'
    switch (sort) {
      case 'principal':
        await admin.principals.createPrincipal({
          parent: organization,
          principalId: id,
          principal: { kind: serviceAccount },
        })
        return `${organization}/principals/${id}`
      case 'binding': {
        const principal = `${organization}/principals/${id}`
        await admin.principals.createPrincipal({
          parent: organization,
          principalId: id,
          principal: { kind: serviceAccount },
        })
        const made = await admin.roleBindings.createRoleBinding({
          parent: organization,
          roleBinding: { principal, role: viewer },
        })
        return made.roleBinding?.name ?? ''
      }
      case 'identity': {
        const made = await admin.identities.createIdentity({
          parent: `${organization}/principals/person`,
          identity: { issuer: 'own', subject: id },
        })
        return made.identity?.name ?? ''
      }
      case 'secret':
        await admin.secrets.createSecret({ parent: organization, secretId: id, secret: { data: { a: 'b' } } })
        return `${organization}/secrets/${id}`
      case 'agreement':
        await admin.billingAgreements.createBillingAgreement({
          parent: organization,
          billingAgreementId: id,
          billingAgreement: {},
        })
        return `${organization}/billingAgreements/${id}`
      case 'pricelist':
        await admin.priceLists.createPriceList({ priceListId: id, priceList: {} })
        return `priceLists/${id}`
      case 'quota':
        await admin.quotas.createQuota({ parent: organization, quotaId: id, quota: { maxHosts: 1_000n } })
        return `${organization}/quotas/${id}`
      case 'host':
        return (await makeHost(test, admin, workspace, id)).host
      case 'hostset':
        return makeSet(admin, workspace, id)
      case 'machine':
        return (await makeHost(test, admin, workspace, id)).machine
      case 'provider':
        await admin.providers.createProvider({ providerId: id, provider: { family: 'simulated', kind: 2 } })
        return `providers/${id}`
      case 'pool':
        await admin.providerPools.createProviderPool({ providerPoolId: id, providerPool: { family: 'simulated' } })
        return `providerPools/${id}`
      case 'class':
        await admin.machineClasses.createMachineClass({ machineClassId: id, machineClass: { shape: { vcpus: 1 } } })
        return `machineClasses/${id}`
      default:
        throw new Error(`say how to make a ${sort} that can be deleted`)
    }
  }
}

async function readForeign(test: TestHub): Promise<string> {
  const found = await sql<{ rows: string }>`
    select string_agg(row, e'\n' order by row) as rows from (
      select to_jsonb(o)::text as row from organizations o where name = 'foreign'
      union all select to_jsonb(w)::text from workspaces w where organization_name = 'foreign'
      union all select to_jsonb(p)::text from principals p where organization_name = 'foreign'
      union all select jsonb_build_array(p.name, p.config, p.owner_name, p.labels, p.annotations, p.claim_workspace_name)::text from providers p where name like 'foreign-%'
      union all select to_jsonb(b)::text from role_bindings b where organization_name = 'foreign'
      union all select (to_jsonb(t) - 'last_used_at')::text from client_tokens t where principal_id in (select id from principals where organization_name = 'foreign')
      union all select to_jsonb(i)::text from principal_identities i where principal_id in (select id from principals where organization_name = 'foreign')
      union all select jsonb_build_array(h.name, h.hostname, h.labels, h.annotations, h.protected, h.release_requested_at, h.created_by)::text
        from hosts h where workspace_name = 'foreign-a'
      union all select jsonb_build_array(s.name, s.replicas, s.template, s.labels, s.annotations, s.pause_reason, s.delete_requested_at)::text
        from host_sets s where workspace_name = 'foreign-a'
      union all select jsonb_build_array(m.name, m.labels, m.desired_power, m.cordoned, m.maintenance, m.protected, m.reboots, m.reinstalls, m.desired_rescue)::text from machines m where host_name like 'workspaces/foreign-a/%'
      union all select (to_jsonb(s) - 'version')::text from secrets s where organization_id in (select id from organizations where name = 'foreign')
      union all select (to_jsonb(b) - 'version')::text from billing_agreements b where organization_id in (select id from organizations where name = 'foreign')
      union all select (to_jsonb(q) - 'version')::text from quotas q where organization_id in (select id from organizations where name = 'foreign')
    ) rows
  `.execute(test.database.db)
  return found.rows[0]?.rows ?? ''
}
