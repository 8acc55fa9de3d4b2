import { randomBytes } from 'node:crypto'
import { durationFromMs, timestampFromDate } from '@bufbuild/protobuf/wkt'
import * as hub from '@slipway/proto/hub/v1'
import { withHub, type TestHub } from '@slipway/hub/testing'
import { createSlipwayClient, SlipwayError, type SlipwayClient } from '@slipway/sdk/client'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { plantProvider } from '../tools/offers.js'
import { playCloud, type PlayedCloud } from '../tools/played-cloud.js'
import { until } from '../tools/processes.js'

// The whole file may take longer than the runner's ordinary limit on a busy machine.
t.setTimeout(900_000)

// Host sets and hosts with a lifetime, over the client API of two hubs on one database; the cloud is played by the test.

const parent = 'workspaces/default'
const name = `${parent}/hostSets/web`

interface Scene {
  readonly test: TestHub
  readonly client: SlipwayClient
  readonly cloud: PlayedCloud
  readonly set: () => Promise<hub.HostSet>
  /** Names of members that are not being released, in the order of their numbers. */
  readonly members: () => Promise<readonly string[]>
  readonly settled: (what: string) => Promise<hub.HostSet>
}

async function start(t: Test): Promise<Scene> {
  const env = { SLIPWAY_KEY: randomBytes(32).toString('hex') }
  const test = await withHub(t, env)
  await withHub(t, { ...env, DATABASE_URL: test.database.url })
  const { db } = test.database
  const client = createSlipwayClient({ baseUrl: test.hub.apiUrl, token: test.token })
  await plantProvider(db, 'one', 'simulated', [
    { typeId: 'small', location: 'a', hourlyMicros: 10_000 },
    { typeId: 'small', location: 'b', hourlyMicros: 20_000 },
  ])
  await plantProvider(db, 'two', 'simulated', [{ typeId: 'small', location: 'c', hourlyMicros: 30_000 }])
  for (const machineClassId of ['small', 'other'])
    await client.machineClasses.createMachineClass({
      machineClassId,
      machineClass: { shape: { vcpus: 1 }, offerings: [{ family: 'simulated', typeId: 'small' }] },
    })
  const cloud = playCloud(db)
  t.teardown(() => cloud.stop())
  const set = async () => {
    const { hostSet } = await client.hostSets.getHostSet({ name })
    if (hostSet === undefined) throw new Error('there is no set')
    return hostSet
  }
  const members = async () => {
    const { hosts } = await client.hosts.listHosts({ parent })
    return hosts
      .filter((host) => host.hostSet === name && host.state !== hub.HostState.RELEASING)
      .map((host) => host.name.slice(`${parent}/hosts/`.length))
      .sort((one, other) => Number(one.split('-').at(-1)) - Number(other.split('-').at(-1)))
  }
  const settled = async (what: string) => {
    await until(what, async () => (await set()).state === hub.HostSetState.READY, 60_000)
    return set()
  }
  return { test, client, cloud, set, members, settled }
}

const template = { machineClass: 'machineClasses/small' }
const refused = async (call: Promise<unknown>): Promise<SlipwayError> => {
  try {
    await call
  } catch (error) {
    if (error instanceof SlipwayError) return error
    throw error
  }
  throw new Error('nothing was refused')
}
const condition = (
  set: { readonly conditions: readonly { type: string; reason: string; message: string }[] },
  type: string,
) => set.conditions.find((each) => each.type === type)

void t.test('a set is made, spread, scaled and deleted with its members', { timeout: 300_000 }, async (t) => {
  const { client, test, set, members, settled } = await start(t)
  const request = {
    parent,
    hostSetId: 'web',
    hostSet: { replicas: 4, template, spread: hub.Spread.LOCATION },
  }
  const dry = await client.hostSets.createHostSet({ ...request, validateOnly: true })
  t.equal(dry.candidates[0]?.location, 'a')
  t.match(await refused(set()), { reason: 'HOST_SET_NOT_FOUND' })
  const unknown = { ...request, hostSet: { replicas: 1, template: { machineClass: 'machineClasses/none' } } }
  t.match(await refused(client.hostSets.createHostSet(unknown)), {
    reason: 'CLASS_NOT_FOUND',
    violations: [{ field: 'host_set.template.machine_class' }],
  })
  const [first, second] = await Promise.all(
    [1, 2].map(() => client.hostSets.createHostSet({ ...request, requestId: 'same' })),
  )
  t.equal(first?.hostSet?.uid, second?.hostSet?.uid)
  t.match(await refused(client.hostSets.createHostSet(request)), { reason: 'NAME_TAKEN' })
  const ready = await settled('four members')
  t.match(ready, { readyReplicas: 4, currentReplicas: 4, updatedReplicas: 4, unhealthyReplicas: 0 })
  t.strictSame(await members(), ['web-0', 'web-1', 'web-2', 'web-3'])
  const { hosts } = await client.hosts.listHosts({ parent })
  const placed = hosts.map((host) => host.placement?.locations.join() ?? '').sort()
  t.strictSame(placed, ['a', 'a', 'b', 'c'], 'the cheapest first, and each as rarely as can be')
  const rows = await sql<{ n: number }>`select count(*)::int as n from hosts`.execute(test.database.db)
  t.equal(rows.rows[0]?.n, 4, 'two replicas have ordered no more than four')

  await client.hosts.updateHost({
    host: { name: `${parent}/hosts/web-3`, protected: true },
    updateMask: { paths: ['protected'] },
  })
  const updateMask = { paths: ['replicas'] }
  await client.hostSets.updateHostSet({ hostSet: { name, replicas: 2 }, updateMask })
  await until('two members', async () => (await members()).length === 2)
  t.ok((await members()).includes('web-3'), 'the protected one stays, though it is the newest')
  await settled('two members')
  await client.hostSets.updateHostSet({ hostSet: { name, replicas: 3 }, updateMask })
  await settled('three members')
  t.equal((await members()).at(-1), 'web-4', 'no number is used again')

  t.match(await refused(client.workspaces.deleteWorkspace({ name: parent })), { reason: 'WORKSPACE_IN_USE' })
  await client.hostSets.deleteHostSet({ name, cascade: true })
  await until('one member', async () => (await members()).length === 1)
  await until('that it says why', async () => condition(await set(), 'Unprotected')?.reason === 'Protected')
  t.match(await set(), { state: hub.HostSetState.DELETING })
  t.match(await refused(client.hostSets.updateHostSet({ hostSet: { name, replicas: 9 }, updateMask })), {
    reason: 'HOST_SET_DELETING',
  })
  await client.hosts.updateHost({
    host: { name: `${parent}/hosts/web-3`, protected: false },
    updateMask: { paths: ['protected'] },
  })
  await until('that it is gone', async () => (await client.hostSets.listHostSets({ parent })).hostSets.length === 0)
  t.strictSame((await client.hosts.listHosts({ parent })).hosts, [])
  const { events } = await client.events.listEvents({ filter: { subject: name } })
  const reasons = new Set(events.map((event) => event.reason))
  for (const reason of [
    'HostSetCreated',
    'HostSetMembersOrdered',
    'HostSetReady',
    'HostSetUpdated',
    'HostSetDeleting',
    'HostSetDeleted',
  ])
    t.ok(reasons.has(reason), reason)
})

void t.test('members that stay when their set goes', { timeout: 300_000 }, async (t) => {
  const { client, settled } = await start(t)
  await client.hostSets.createHostSet({ parent, hostSetId: 'web', hostSet: { replicas: 2, template } })
  await settled('two members')
  await client.hostSets.deleteHostSet({ name })
  const { hosts } = await client.hosts.listHosts({ parent })
  t.strictSame(
    hosts.map((host) => [host.state, host.hostSet]),
    [
      [hub.HostState.READY, ''],
      [hub.HostState.READY, ''],
    ],
  )
})

void t.test('a rollout, one that fails, and how it goes on', { timeout: 300_000 }, async (t) => {
  const { client, cloud, set, members, settled, test } = await start(t)
  await client.hostSets.createHostSet({ parent, hostSetId: 'web', hostSet: { replicas: 3, template } })
  await settled('three members')
  // The most that there ever are, of all that are not being released; and the fewest that are READY.
  await sql`create table seen (active int not null, ready int not null)`.execute(test.database.db)
  await sql
    .raw(
      `
    create function look() returns trigger language plpgsql security definer as $$ begin
      insert into public.seen select count(*) filter (where state not in ('RELEASING', 'RELEASED')), count(*) filter (where state = 'READY')
      from public.hosts where host_set_id is not null; return null; end $$;
    create trigger look after insert or update on hosts for each statement execute function look();
  `,
    )
    .execute(test.database.db)
  const updateMask = { paths: ['template.machine_class'] }
  const roll = (machineClass: string) =>
    client.hostSets.updateHostSet({ hostSet: { name, template: { machineClass } }, updateMask })
  const { hostSet } = await roll('machineClasses/other')
  t.equal(hostSet?.templateRevision, 2n)
  await settled('the rollout')
  t.strictSame(await members(), ['web-3', 'web-4', 'web-5'])
  const { hosts } = await client.hosts.listHosts({ parent })
  const staying = hosts.filter(({ state }) => state !== hub.HostState.RELEASING)
  t.ok(staying.every((host) => host.machineClass === 'machineClasses/other'))
  const extremes = await sql<{
    most: number
    least: number
  }>`select max(active) as most, min(ready) as least from seen`.execute(test.database.db)
  t.strictSame(extremes.rows[0], { most: 4, least: 3 })

  cloud.broken.add('/web-6$')
  await roll('machineClasses/small')
  await until('that it is paused', async () => (await set()).pauseReason === 'RolloutFailed')
  await until('that it shows', async () => (await set()).unhealthyReplicas === 1)
  t.match(await set(), { state: hub.HostSetState.PAUSED, readyReplicas: 3, updatedReplicas: 1 })
  t.strictSame(await members(), ['web-3', 'web-4', 'web-5', 'web-6'], 'none is given up for it')
  const { events } = await client.events.listEvents({ filter: { subject: name } })
  t.match(events.find((event) => event.reason === 'HostSetRolloutFailed')?.message, /web-6/)
  const { hostSet: resumed } = await client.hostSets.resumeHostSet({ name })
  t.equal(resumed?.paused, false)
  await settled('the rollout')
  t.notOk((await members()).includes('web-6'))
  t.equal((await members()).length, 3)

  await client.hostSets.pauseHostSet({ name })
  await roll('machineClasses/other')
  await until('that it stands still', async () => (await set()).updatedReplicas === 0)
  t.match(condition(await set(), 'RolledOut'), { reason: 'ByRequest' })
  await client.hostSets.resumeHostSet({ name })
  await settled('the rollout')
})

void t.test('unhealthy members, and those that nobody sees', { timeout: 300_000 }, async (t) => {
  const { client, set, members, settled, test } = await start(t)
  const { db } = test.database
  await client.hostSets.createHostSet({ parent, hostSetId: 'web', hostSet: { replicas: 2, template } })
  await settled('two members')
  const vanish = (host: string) =>
    sql`update hosts set state = 'ERROR', state_at = clock_timestamp() where name = ${host} and state = 'READY'`.execute(
      db,
    )
  // What was lost would be there again as soon as the host is looked at.
  await sql`update machine_requests set presence = 'ABSENT' where host_name like '%/web-0'`.execute(db)
  await sql`update sessions set expires_at = clock_timestamp() - interval '1 hour'`.execute(db)
  await vanish('web-0')
  await until('that it is seen', async () => (await set()).unhealthyReplicas === 1)
  t.match(condition(await set(), 'Ready'), { reason: 'ProviderOutOfSight' })
  t.strictSame(await members(), ['web-0', 'web-1'])
  await sql`update sessions set expires_at = clock_timestamp() + interval '1 hour', ended_at = null`.execute(db)
  await settled('its replacement')
  t.strictSame(await members(), ['web-1', 'web-2'])
})

void t.test('quotas hold for members, and a refusal shows', { timeout: 300_000 }, async (t) => {
  const { client, set, settled } = await start(t)
  const quota = 'organizations/default/quotas/two'
  await client.quotas.createQuota({ parent: 'organizations/default', quotaId: 'two', quota: { maxHosts: 2n } })
  await client.hostSets.createHostSet({ parent, hostSetId: 'web', hostSet: { replicas: 3, template } })
  await until('a refusal', async () => (await set()).refusedOrders > 0)
  await until('two members', async () => (await set()).readyReplicas === 2)
  await until('that it says so', async () => (await set()).state === hub.HostSetState.DEGRADED)
  const degraded = await set()
  t.match(condition(degraded, 'Ordered'), { reason: 'QuotaExceeded', message: /quotas\/two allows 2 hosts/ })
  t.ok(degraded.nextOrderTime)
  await client.quotas.updateQuota({ quota: { name: quota, maxHosts: 3n }, updateMask: { paths: ['max_hosts'] } })
  t.match(await settled('the third'), { refusedOrders: 0, readyReplicas: 3 })
})

void t.test('a host ends by itself, unless it is protected or extended', { timeout: 300_000 }, async (t) => {
  const { client, test } = await start(t)
  const order = (hostId: string, more: object) =>
    client.hosts.createHost({ parent, hostId, host: { machineClass: 'machineClasses/small', ...more } })
  const get = async (id: string) => (await client.hosts.getHost({ name: `${parent}/hosts/${id}` })).host
  const past = timestampFromDate(new Date(Date.now() - 1_000))
  t.match(await refused(order('past', { expireTime: past })), { violations: [{ field: 'host.expire_time' }] })
  t.match(
    await refused(
      order('both', { expireTime: timestampFromDate(new Date(Date.now() + 9e6)), lifetime: durationFromMs(9e6) }),
    ),
    { violations: [{ field: 'host.lifetime' }] },
  )
  const lifetime = durationFromMs(3_000)
  await Promise.all([
    order('short', { lifetime }),
    order('kept', { lifetime, protected: true }),
    order('longer', { lifetime }),
    order('never', { lifetime }),
  ])
  const update = (id: string, host: object, path: string) =>
    client.hosts.updateHost({ host: { name: `${parent}/hosts/${id}`, ...host }, updateMask: { paths: [path] } })
  const longer = await update('longer', { lifetime: durationFromMs(3_600_000) }, 'lifetime')
  t.ok(longer.host?.expireTime)
  const never = await update('never', {}, 'expire_time')
  t.equal(never.host?.expireTime, undefined)
  await until('its end', async () =>
    (await client.hosts.listHosts({ parent })).hosts.every((host) => !host.name.endsWith('/short')),
  )
  await until(
    'that the protected one is held',
    async () => condition((await get('kept')) ?? { conditions: [] }, 'Expiring')?.reason === 'Protected',
  )
  t.match(await get('kept'), { state: hub.HostState.READY })
  await update('kept', { protected: false }, 'protected')
  await until('its end', async () =>
    (await client.hosts.listHosts({ parent })).hosts.every((host) => !host.name.endsWith('/kept')),
  )
  t.strictSame(
    (await client.hosts.listHosts({ parent })).hosts.map((host) => host.name.split('/').at(-1)),
    ['longer', 'never'],
  )
  const said = await sql<{ subject: string; reasons: string }>`
    select subject, string_agg(reason, ' ' order by xid, id) as reasons from events where reason like 'HostExpir%' group by subject order by subject
  `.execute(test.database.db)
  t.strictSame(said.rows, [
    { subject: `${parent}/hosts/kept`, reasons: 'HostExpiring HostExpiryHeld HostExpired' },
    { subject: `${parent}/hosts/short`, reasons: 'HostExpiring HostExpired' },
  ])
})
