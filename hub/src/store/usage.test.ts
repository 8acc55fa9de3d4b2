import fc from 'fast-check'
import { sql } from 'kysely'
import t from 'tap'
import { eventually, euros, organizationId, Rig, type FakeInstance } from '../../testing/reconcile-rig.js'
import type { Failure } from '../domain/facts.js'
import { usageRecords } from '../domain/price/usage.js'
import { inTransaction, openDatabase, reachingOnly, type Db } from './database.js'
import { scheduleHost } from './host-schedule.js'
import { readUsage } from './usage.js'
import type { ClaimedItem } from './work-items.js'

interface LedgerRow {
  readonly startedAt: Date
  readonly endedAt: Date | null
  readonly provider: string
  readonly billable: boolean
  readonly poweredOn: boolean
  readonly setsUp: boolean
  readonly hourly: number | null
}

/** The ledger of a host, what goes on at its end. */
async function ledger(db: Db, hostId: string): Promise<readonly LedgerRow[]> {
  const result = await sql<LedgerRow>`
    select started_at as "startedAt", ended_at as "endedAt", provider_name as provider, billable, powered_on as "poweredOn", sets_up as "setsUp",
           (price ->> 'hourlyMicros')::bigint as hourly
    from (
      select started_at, ended_at, provider_name, billable, powered_on, sets_up, price from usage_intervals where host_id = ${hostId}::uuid
      union all
      select started_at, null, provider_name, billable, powered_on, sets_up, price from usage_open where host_id = ${hostId}::uuid
    ) all_of_it
    order by started_at
  `.execute(db)
  return result.rows
}

const shortly = (rows: readonly LedgerRow[]) =>
  rows.map(({ provider, billable, poweredOn, endedAt, setsUp }) =>
    [
      provider,
      ...(billable ? ['billable'] : []),
      ...(poweredOn ? ['on'] : []),
      ...(setsUp ? ['set-up'] : []),
      ...(endedAt === null ? ['still'] : []),
    ].join(' '),
  )

/** Every interval begins where the one before it ended, or later. */
const overlapping = (rows: readonly LedgerRow[]) =>
  rows.filter((row, index) => {
    const next = rows[index + 1]
    return next !== undefined && (row.endedAt === null || row.endedAt > next.startedAt)
  })

async function claimed(instance: FakeInstance): Promise<ClaimedItem> {
  const [item] = await eventually(
    () => instance.claim(),
    (found) => found.length > 0,
    () => 'an item to claim',
  )
  if (item === undefined) throw new Error('nothing was claimed')
  return item
}

async function make(rig: Rig, instance: FakeInstance, power: 'ON' | 'OFF' = 'ON'): Promise<ClaimedItem> {
  const item = await claimed(instance)
  const row = await rig.db
    .selectFrom('machine_requests')
    .selectAll()
    .where('id', '=', item.id)
    .executeTakeFirstOrThrow()
  const present = row.operation === 'PROVISION'
  await instance.report(item, {
    observed: {
      generation: item.generation,
      presence: present ? 'PRESENT' : 'ABSENT',
      ...(present && { externalId: `srv-${row.name}`, power }),
    },
    completed: { operation: row.operation, operationGeneration: row.operation_generation },
  })
  return item
}

/** Waits until the ledger's clock, which counts milliseconds, has moved on: an interval of no length is not kept. */
async function moment(db: Db, hostId: string): Promise<void> {
  await eventually(
    async () => {
      const result = await sql<{ passed: boolean }>`
        select date_trunc('milliseconds', clock_timestamp()) > started_at as passed from usage_open where host_id = ${hostId}::uuid
      `.execute(db)
      return result.rows[0]?.passed ?? false
    },
    (passed) => passed,
    () => 'a millisecond to pass',
  )
}

const capacity: Failure = {
  ...{ code: 'CAPACITY', message: 'no more small in fsn1', retryable: false },
  ...{ externalCode: 'resource_unavailable', step: 'create-server' },
}
const withSetup = { currency: 'EUR', hourlyMicros: 5_000, monthlyMicros: 0, setupMicros: 100 }

void t.test('what a host used is told from its first place to its release, and outlives it', async (t) => {
  const rig = await Rig.start(t)
  const full = await rig.provider('full', { offerings: [{ price: { ...withSetup, hourlyMicros: 1 } }] })
  const good = await rig.provider('good', { offerings: [{ price: withSetup }] })
  rig.reconcile()
  const id = await rig.order('web-1')
  await rig.until(id, (host) => host.state === 'PLACED', 'the host is placed')
  t.strictSame(shortly(await ledger(rig.db, id)), ['full still'], 'a place is its, and costs nothing yet')
  const item = await claimed(full)
  await full.report(item, { failure: capacity })
  await make(rig, full)
  await rig.until(id, (host) => host.provider_name === 'good', 'the next best place is tried')
  await make(rig, good)
  await rig.until(id, (host) => host.state === 'READY', 'the host is ready')
  t.match(shortly(await ledger(rig.db, id)), ['full', 'good', 'good billable on set-up still'])
  await moment(rig.db, id)
  await inTransaction(rig.db, async (tx) => {
    await tx
      .updateTable('machine_requests')
      .set({ power: 'OFF' })
      .where('host_id', '=', id)
      .where('state', '=', 'PROVISIONED')
      .execute()
    await scheduleHost(tx, { organizationId, hostId: id })
  })
  await rig.until(id, (host) => host.power === 'OFF', 'the host is off as its server is')
  await moment(rig.db, id)
  await rig.ask(id, 'RELEASING')
  const atRelease = await ledger(rig.db, id)
  t.strictSame(
    shortly(atRelease),
    ['full', 'good', 'good billable on set-up', 'good billable'],
    'it ends when its release is asked for',
  )
  await make(rig, good)
  await rig.until(id, (host) => host.state === 'RELEASED', 'the host is released')
  t.strictSame(await ledger(rig.db, id), atRelease)
  t.strictSame(overlapping(atRelease), [])

  const to = new Date(Date.now() + 1_000)
  const intervals = (await readUsage(rig.db, organizationId, [id], { from: null, to })).get(id) ?? []
  const [failed, used, ...more] = usageRecords(intervals, null, to)
  t.strictSame(more, [])
  t.match(failed, { providerName: 'full', billableMs: 0, amountMicros: 0, setupMicros: 0 }, 'a failed attempt is free')
  const [, , first, second] = atRelease
  const usedMs = (second?.endedAt?.getTime() ?? 0) - (first?.startedAt.getTime() ?? 0)
  t.match(used, { providerName: 'good', billableMs: usedMs, setupMicros: 100 })
  t.equal(used?.amountMicros, 100 + Math.round((usedMs * 5_000) / 3_600_000))
})

void t.test('set-up is paid once for a price at a provider, and a change of price splits the time', async (t) => {
  const rig = await Rig.start(t)
  const cloud = await rig.provider('cloud', { offerings: [{ price: withSetup }] })
  rig.reconcile()
  const id = await rig.order('web-1')
  await make(rig, cloud)
  await rig.until(id, (host) => host.state === 'READY', 'the host is ready')
  const reprice = async (price: object | null) => {
    await rig.db
      .updateTable('hosts')
      .set({ price: price === null ? null : (JSON.stringify(price) as never) })
      .where('id', '=', id)
      .execute()
  }
  await reprice(euros(7_000))
  await reprice(withSetup)
  await reprice(null)
  const rows = await ledger(rig.db, id)
  t.strictSame(overlapping(rows), [])
  const setUps = rows.filter((row) => row.setsUp).map((row) => row.hourly)
  t.strictSame(setUps, [...new Set(setUps)], 'each price once, though it came back')
  t.match(rows.at(-1), { hourly: null, setsUp: false, endedAt: null })
  await rig.db.deleteFrom('hosts').where('id', '=', id).execute()
  t.ok(
    (await ledger(rig.db, id)).every((row) => row.endedAt !== null),
    'a host that is deleted uses nothing',
  )
})

void t.test('the ledger is only added to, by the hub and nobody else, and read by whose it is', async (t) => {
  const rig = await Rig.start(t)
  const cloud = await rig.provider('cloud')
  rig.reconcile()
  const id = await rig.order('web-1')
  await make(rig, cloud)
  await rig.until(id, (host) => host.state === 'READY', 'the host is ready')
  await t.rejects(
    inTransaction(rig.db, async (tx) => {
      await sql`update hosts set state = 'RELEASING' where id = ${id}::uuid`.execute(tx)
      throw new Error('it came to nothing')
    }),
    /came to nothing/,
  )
  t.match(
    shortly(await ledger(rig.db, id)).at(-1),
    /billable on( set-up)? still/,
    'a change that is taken back leaves no trace',
  )
  await rig.ask(id, 'RELEASING')
  const rows = await ledger(rig.db, id)
  for (const statement of [
    sql`update usage_intervals set ended_at = started_at + interval '1 s'`,
    sql`delete from usage_intervals`,
    sql`truncate usage_intervals`,
    sql`insert into usage_intervals select * from usage_intervals`,
  ])
    await t.rejects(statement.execute(rig.db), /only ever added to|duplicate key/)
  const tenants = openDatabase({ connectionString: rig.url, role: 'slipway_tenant', poolSize: 1 })
  t.teardown(() => tenants.destroy())
  const none = { organizationIds: [], workspaces: [] }
  const as = (read: { organizationIds: readonly string[]; workspaces: readonly string[] }) =>
    reachingOnly(tenants, { read: read, write: none, tokenId: '', principalId: '' })
  t.strictSame(await ledger(as({ organizationIds: [], workspaces: ['default'] }), id), rows)
  t.strictSame(await ledger(as({ organizationIds: [organizationId], workspaces: [] }), id), rows)
  t.strictSame(await ledger(as({ organizationIds: [], workspaces: ['other'] }), id), [])
  await t.rejects(
    sql`delete from usage_open`.execute(as({ organizationIds: [organizationId], workspaces: [] })),
    /permission denied/,
  )
})

void t.test('whatever becomes of a host, and however fast, no time is told twice or left out', async (t) => {
  const rig = await Rig.start(t)
  const { providerId } = await rig.provider('cloud')
  const id = await rig.order('web-1')
  const requestIds = ['00000000-0000-7000-8000-00000000000a', '00000000-0000-7000-8000-00000000000b']
  const step = fc.record({
    state: fc.constantFrom('ORDERED', 'PLACED', 'PROVISIONING', 'BOOTSTRAPPING', 'READY', 'ERROR', 'RELEASING'),
    request: fc.constantFrom(0, 1),
    power: fc.constantFrom('ON', 'OFF', null),
    hourly: fc.constantFrom(1, 2),
  })
  const live = new Set(['PLACED', 'PROVISIONING', 'BOOTSTRAPPING', 'READY'])
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
      await sql`alter table usage_intervals disable trigger user`.execute(rig.db)
      await sql`truncate usage_intervals, usage_open`.execute(rig.db)
      await sql`alter table usage_intervals enable trigger user`.execute(rig.db)
      await sql`update hosts set state = 'ORDERED', request_id = null, provider_id = ${providerId}::uuid, provider_name = 'cloud' where id = ${id}::uuid`.execute(
        rig.db,
      )
      // Two at once: whoever comes second waits for the row.
      await Promise.all(
        steps.map(({ state, request, power, hourly }) =>
          sql`
            update hosts set state = ${state}, request_id = ${requestIds[request] ?? ''}::uuid, power = ${power}, price = ${JSON.stringify(euros(hourly))}::jsonb
            where id = ${id}::uuid
          `.execute(rig.db),
        ),
      )
      const now = await rig.host(id)
      const rows = await ledger(rig.db, id)
      const open = rows.filter((row) => row.endedAt === null)
      if (overlapping(rows).length > 0 || open.length > 1) return false
      // No request is there: a host in ERROR has nothing.
      if (open.length !== (live.has(now.state) ? 1 : 0)) return false
      const [last] = open
      const so =
        last === undefined || (last.poweredOn === (now.power === 'ON') && last.hourly === now.price?.hourlyMicros)
      // Nothing is charged for before the host was ready there, and each price is set up once.
      const setUps = rows.filter((row) => row.setsUp).map((row) => row.hourly)
      return so && (now.state !== 'READY' || last?.billable === true) && new Set(setUps).size === setUps.length
    }),
    { numRuns: 60 },
  )
})
