import { openDatabase } from '@slipway/hub/testing'
import { createSlipwayClient, SlipwayError } from '@slipway/sdk/client'
import t from 'tap'
import { plantProvider } from '../tools/offers.js'
import { Slipway } from '../tools/processes.js'

// Quotas under a crowd, on two hub processes.

const organization = 'organizations/default'
const parent = 'workspaces/default'

const missing = process.env['SLIPWAY_TEST_DATABASE_URL'] === undefined
const skip = missing && process.env['CI'] !== 'true' && 'two replicas need a database: set SLIPWAY_TEST_DATABASE_URL'

void t.test('a thousand orders at once on two replicas', { timeout: 240_000, skip }, async (t) => {
  const slipway = await Slipway.start(t)
  const replica = await slipway.startReplica()
  if (replica === undefined || slipway.database === undefined) return t.fail('there is no database for two replicas')
  const db = openDatabase({ connectionString: slipway.database, poolSize: 2 })
  t.teardown(() => db.destroy())
  await plantProvider(db, 'cloud', 'simulated', [{ typeId: 'small', hourlyMicros: 10_000 }])
  const clients = [slipway.url, replica.url].map((baseUrl) =>
    createSlipwayClient({ baseUrl, token: slipway.token, timeoutMs: 120_000 }),
  )
  const [one] = clients
  if (one === undefined) return t.fail('there is no client')
  await one.machineClasses.createMachineClass({
    machineClassId: 'small',
    machineClass: { shape: { vcpus: 1 }, offerings: [{ family: 'simulated', typeId: 'small' }] },
  })
  const host = { machineClass: 'machineClasses/small' }
  const outcomes = async (orders: readonly Promise<unknown>[]) => {
    const counts: Record<string, number> = {}
    for (const outcome of await Promise.allSettled(orders)) {
      const reason = outcome.status === 'fulfilled' ? 'accepted' : (outcome.reason as Error)
      const key = reason instanceof SlipwayError ? (reason.reason ?? reason.message) : String(reason)
      counts[key] = (counts[key] ?? 0) + 1
    }
    return counts
  }

  await t.test('exactly a hundred are accepted', async (t) => {
    await one.quotas.createQuota({ parent: organization, quotaId: 'hundred', quota: { maxHosts: 100n } })
    const orders = Array.from({ length: 1_000 }, (_, index) =>
      clients[index % 2]?.hosts.createHost({ parent, hostId: `h-${index}`, host, requestId: `o-${index}` }),
    )
    t.strictSame(await outcomes(orders.map((order) => order ?? Promise.reject(new Error('none')))), {
      accepted: 100,
      QUOTA_EXCEEDED: 900,
    })
    const { quota } = await one.quotas.getQuota({ name: `${organization}/quotas/hundred` })
    t.equal(quota?.usage?.hosts, 100n)
    const { count } = await db
      .selectFrom('hosts')
      .select(db.fn.countAll<number>().as('count'))
      .executeTakeFirstOrThrow()
    t.equal(Number(count), 100, 'and that many hosts are there')
  })

  await t.test('so it is with money, and orders that come and go', async (t) => {
    await one.quotas.updateQuota({
      quota: { name: `${organization}/quotas/hundred`, budget: { currency: 'EUR', maxHourlyMicros: 1_200_000n } },
      updateMask: { paths: ['max_hosts', 'budget'] },
    })
    const orders = Array.from({ length: 200 }, (_, index) =>
      clients[index % 2]?.hosts.createHost({ parent, hostId: `m-${index}`, host }),
    )
    const counts = await outcomes(orders.map((order) => order ?? Promise.reject(new Error('none'))))
    t.strictSame(counts, { accepted: 20, BUDGET_EXCEEDED: 180 })
  })

  await t.test('one key, one host, however many ask at once', async (t) => {
    await one.quotas.deleteQuota({ name: `${organization}/quotas/hundred` })
    await one.quotas.createQuota({ parent: organization, quotaId: 'one-more', quota: { maxHosts: 121n } })
    const answers = await Promise.all(
      Array.from({ length: 64 }, (_, index) =>
        (clients[index % 2] ?? one).hosts.createHost({ parent, hostId: 'same', host, requestId: 'same' }),
      ),
    )
    t.equal(new Set(answers.map((answer) => answer.host?.uid)).size, 1)
    t.match((await one.quotas.getQuota({ name: `${organization}/quotas/one-more` })).quota, { usage: { hosts: 121n } })
  })
})
