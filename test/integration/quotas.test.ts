import { withHub, type TestHub } from '@slipway/hub/testing'
import { createSlipwayClient, SlipwayError, type SlipwayClient } from '@slipway/sdk/client'
import t, { type Test } from 'tap'
import { plantProvider } from '../tools/offers.js'
import { until } from '../tools/processes.js'

// Quotas and budgets over the client API of a whole hub.

const organization = 'organizations/default'
const parent = 'workspaces/default'

async function refusal(call: Promise<unknown>): Promise<SlipwayError> {
  try {
    await call
  } catch (error) {
    if (error instanceof SlipwayError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

interface Scene {
  readonly test: TestHub
  readonly client: SlipwayClient
  readonly order: (name: string, machineClass?: string, more?: object) => Promise<unknown>
  readonly release: (name: string) => Promise<void>
  readonly usage: (quota: string) => Promise<object>
}

async function start(t: Test): Promise<Scene> {
  const test = await withHub(t)
  const client = createSlipwayClient({ baseUrl: test.hub.apiUrl, token: test.token })
  const { db } = test.database
  await plantProvider(db, 'cheap', 'simulated', [{ typeId: 'small', hourlyMicros: 10_000, monthlyMicros: 6_000_000 }])
  await plantProvider(db, 'dear', 'other', [{ typeId: 'small', hourlyMicros: 20_000 }])
  for (const [machineClassId, families] of [
    ['small', ['simulated']],
    ['any', ['simulated', 'other']],
  ] as const)
    await client.machineClasses.createMachineClass({
      machineClassId,
      machineClass: {
        shape: { vcpus: 2, memoryMib: 2048n },
        offerings: families.map((family) => ({ family, typeId: 'small' })),
      },
    })
  const order = (name: string, machineClass = 'small', more: object = {}) =>
    client.hosts.createHost({ parent, hostId: name, host: { machineClass: `machineClasses/${machineClass}` }, ...more })
  const release = async (name: string) => {
    await client.hosts.deleteHost({ name: `${parent}/hosts/${name}` })
    await until(`${name} to be released`, async () => {
      const { hosts } = await client.hosts.listHosts({ parent })
      return hosts.every((host) => !host.name.endsWith(`/${name}`))
    })
  }
  const usage = async (quota: string) => {
    const found = await client.quotas.getQuota({ name: `${organization}/quotas/${quota}` })
    const { $typeName: _type, ...counts } = found.quota?.usage ?? { $typeName: '' }
    return Object.fromEntries(Object.entries(counts).map(([key, value]) => [key, Number(value)]))
  }
  return { test, client, order, release, usage }
}

void t.test('a quota counts what is there, refuses what would break it, and gives back what is released', async (t) => {
  const { client, order, release, usage } = await start(t)
  await order('before')
  const made = await client.quotas.createQuota({
    parent: organization,
    quotaId: 'all',
    quota: { maxHosts: 3n, maxVcpus: 6n, maxMemoryMib: 100_000n },
    requestId: 'a',
  })
  t.match(made.quota, { name: `${organization}/quotas/all`, usage: { hosts: 1n, vcpus: 2n, memoryMib: 2048n } })
  await order('one')
  await order('two')
  const refused = await refusal(order('three'))
  t.match(refused, { reason: 'QUOTA_EXCEEDED', message: /quotas\/all allows 3 hosts; 3 are taken/, code: 8 })
  t.match(refused.about, { quota: `${organization}/quotas/all`, limit: 'HOSTS', maximum: '3', used: '3' })
  t.match(await refusal(order('three', 'small', { validateOnly: true })), { reason: 'QUOTA_EXCEEDED' })
  t.match(await refusal(order('one')), { reason: 'QUOTA_EXCEEDED' })
  await release('before')
  t.strictSame(await usage('all'), { hosts: 2, vcpus: 4, memoryMib: 4096 })
  t.match(await refusal(order('one', 'small', { requestId: 'x' })), { reason: 'NAME_TAKEN' })
  t.strictSame(await usage('all'), { hosts: 2, vcpus: 4, memoryMib: 4096 }, 'a name that is in use takes nothing up')
  await order('three', 'small', { requestId: 'three' })
  await order('three', 'small', { requestId: 'three' })
  t.strictSame(await usage('all'), { hosts: 3, vcpus: 6, memoryMib: 6144 }, 'the same order again is the same host')

  const name = `${organization}/quotas/all`
  const lowered = await client.quotas.updateQuota({
    quota: { name, maxHosts: 1n },
    updateMask: { paths: ['max_hosts', 'max_vcpus'] },
  })
  t.match(lowered.quota, { maxHosts: 1n, maxMemoryMib: 100_000n, usage: { hosts: 3n } }, 'what is there stays')
  t.equal(lowered.quota?.maxVcpus, undefined)
  t.equal((await client.hosts.listHosts({ parent })).hosts.length, 3)
  t.equal((await refusal(order('four'))).reason, 'QUOTA_EXCEEDED')
  t.match(await refusal(client.quotas.updateQuota({ quota: { name, family: 'other' } })), { reason: 'FIELD_IMMUTABLE' })
  t.match(
    await refusal(
      client.quotas.updateQuota({ quota: { name }, updateMask: { paths: ['max_hosts', 'max_memory_mib'] } }),
    ),
    { reason: 'INVALID_FIELD' },
  )
  t.match(await refusal(client.quotas.updateQuota({ quota: { name, maxHosts: 5n, etag: '0' } })), {
    reason: 'ETAG_MISMATCH',
  })
  await client.quotas.deleteQuota({ name })
  await order('four')
  t.match(await refusal(client.quotas.getQuota({ name })), { reason: 'QUOTA_NOT_FOUND' })
  t.match(await refusal(client.quotas.createQuota({ parent: organization, quotaId: 'none', quota: {} })), {
    reason: 'INVALID_FIELD',
  })
})

void t.test('quotas by workspace, class and family', async (t) => {
  const { test, client, order, usage } = await start(t)
  const make = (quotaId: string, quota: object) => client.quotas.createQuota({ parent: organization, quotaId, quota })
  t.match(await refusal(make('x', { workspace: 'workspaces/none', maxHosts: 1n })), { reason: 'WORKSPACE_NOT_FOUND' })
  await make('small', { machineClass: 'machineClasses/small', maxHosts: 1n })
  await make('cheap', { family: 'simulated', maxHosts: 2n, workspace: parent })
  await order('one')
  t.match(await refusal(order('two')), { reason: 'QUOTA_EXCEEDED', message: /of class small/ })
  await order('three', 'any')
  t.strictSame([await usage('small'), await usage('cheap')], [{ hosts: 1 }, { hosts: 2 }])
  await order('four', 'any')
  await until('it to be placed where the quota allows', async () => {
    const { host } = await client.hosts.getHost({ name: `${parent}/hosts/four` })
    return host?.provider === 'providers/dear'
  })
  t.strictSame(await usage('cheap'), { hosts: 2 })
  const { db } = test.database
  await db
    .deleteFrom('offerings')
    .where('price', 'is not', null)
    .where('provider_id', 'in', db.selectFrom('providers').select('id').where('name', '=', 'dear'))
    .execute()
  t.match(await refusal(order('five', 'any')), { reason: 'QUOTA_EXCEEDED', message: /of family simulated/ })
})

void t.test('budgets: by the hour and by the month', async (t) => {
  const { client, order, release, usage } = await start(t)
  const make = (quotaId: string, budget: object) =>
    client.quotas.createQuota({ parent: organization, quotaId, quota: { budget: { currency: 'EUR', ...budget } } })
  t.match(await refusal(make('x', {})), { reason: 'INVALID_FIELD', violations: [{ field: 'quota.budget' }] })
  await make('hourly', { maxHourlyMicros: 30_000n })
  await order('one')
  await order('two')
  await order('three')
  t.match(await refusal(order('four')), {
    reason: 'BUDGET_EXCEEDED',
    message: /allows 0\.03 EUR an hour; 0\.03 EUR is taken/,
  })
  t.strictSame(await usage('hourly'), { hourlyMicros: 30_000 })
  await release('one')
  t.strictSame(await usage('hourly'), { hourlyMicros: 20_000 })
  await make('monthly', { maxMonthlyMicros: 1_000_000_000n })
  const before = (await usage('monthly')) as { monthlyMicros: number }
  t.ok(
    before.monthlyMicros > 0 && before.monthlyMicros <= 12_000_000,
    'two hosts, to the end of the month, their monthly price at the most',
  )
  await release('two')
  const after = (await usage('monthly')) as { monthlyMicros: number }
  t.ok(after.monthlyMicros <= before.monthlyMicros / 2 + 1_000, 'what was not spent is given back')
  await client.quotas.updateQuota({
    quota: {
      name: `${organization}/quotas/monthly`,
      budget: { currency: 'EUR', maxMonthlyMicros: BigInt(after.monthlyMicros) },
    },
    updateMask: { paths: ['budget'] },
  })
  t.match(await refusal(order('five')), { reason: 'BUDGET_EXCEEDED', message: /this month/ })
})

void t.test('what waits for a budget is placed once that allows it', async (t) => {
  const { test, client, order, usage } = await start(t)
  const { db } = test.database
  await client.quotas.createQuota({
    parent: organization,
    quotaId: 'b',
    quota: { budget: { currency: 'EUR', maxHourlyMicros: 10_000n } },
  })
  await db.updateTable('offerings').set({ available: false }).execute()
  await order('one')
  await db.updateTable('offerings').set({ available: true }).where('type_id', '=', 'small').execute()
  await db
    .updateTable('offerings')
    .set({ price: JSON.stringify({ currency: 'EUR', hourlyMicros: 50_000, monthlyMicros: 0, setupMicros: 0 }) })
    .execute()
  await until('it to wait for the budget', async () => {
    const { host } = await client.hosts.getHost({ name: `${parent}/hosts/one` })
    return host?.conditions.some(({ type, reason }) => type === 'Placed' && reason === 'BudgetExceeded')
  })
  await client.quotas.updateQuota({
    quota: { name: `${organization}/quotas/b`, budget: { currency: 'EUR', maxHourlyMicros: 50_000n } },
    updateMask: { paths: ['budget'] },
  })
  await until(
    'it to be placed',
    async () => (await client.hosts.getHost({ name: `${parent}/hosts/one` })).host?.provider !== '',
  )
  t.strictSame(await usage('b'), { hourlyMicros: 50_000 })
})

void t.test('a monthly budget begins anew with the month', async (t) => {
  const { test, client, order, release, usage } = await start(t)
  await client.quotas.createQuota({
    parent: organization,
    quotaId: 'm',
    quota: { budget: { currency: 'EUR', maxMonthlyMicros: 13_000_000n } },
  })
  await order('one')
  await order('gone')
  await release('gone')
  const { db } = test.database
  // As it would have been left by last month: all was spent.
  const [year, month] = [new Date().getUTCFullYear(), new Date().getUTCMonth()]
  const lastMonth = new Date(Date.UTC(year, month - 1, 1))
  await db.updateTable('quota_limits').set({ period: lastMonth, used: 13_000_000 }).execute()
  await db
    .updateTable('quota_charges')
    .set({ since: new Date(lastMonth.getTime() + 86_400_000) })
    .where('price', 'is not', null)
    .execute()
  await order('two')
  const length = Date.UTC(year, month + 1, 1) - Date.UTC(year, month, 1)
  const wholeMonth = Math.min(6_000_000, Math.round((10_000 * length) / 3_600_000))
  const { monthlyMicros } = (await usage('m')) as { monthlyMicros: number }
  t.ok(
    monthlyMicros > wholeMonth && monthlyMicros <= 2 * wholeMonth,
    `one for the whole month, the other for the rest: ${monthlyMicros}`,
  )
})
