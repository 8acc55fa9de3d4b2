import { withHub } from '@slipway/hub/testing'
import { createSlipwayClient, SlipwayError } from '@slipway/sdk/client'
import t from 'tap'
import { plantProvider } from '../tools/offers.js'

// Price lists and billing agreements over the client API of a whole hub.

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

const price = (hourlyMicros: number, monthlyMicros = 0, setupMicros = 0) => ({
  currency: 'EUR',
  hourlyMicros: BigInt(hourlyMicros),
  monthlyMicros: BigInt(monthlyMicros),
  setupMicros: BigInt(setupMicros),
})

void t.test('each organization orders at its own price, and keeps what it ordered at', async (t) => {
  const test = await withHub(t)
  const client = createSlipwayClient({ baseUrl: test.hub.apiUrl, token: test.token })
  await plantProvider(test.database.db, 'one', 'simulated', [{ typeId: 'small', hourlyMicros: 10_000 }])
  await plantProvider(test.database.db, 'two', 'other', [{ typeId: 'small', hourlyMicros: 20_000 }])
  await client.machineClasses.createMachineClass({
    machineClassId: 'small',
    machineClass: {
      shape: { vcpus: 1 },
      offerings: ['simulated', 'other'].map((family) => ({ family, typeId: 'small' })),
    },
  })
  const host = { machineClass: 'machineClasses/small' }
  const explain = async (more: object = {}) => {
    const plan = await client.hosts.createHost({ parent, hostId: 'x', host: { ...host, ...more }, validateOnly: true })
    return plan.candidates.map(({ provider, price, chosen, rejectedReason }) => [
      `${provider.slice('providers/'.length)}${chosen ? ' *' : ''}`,
      Number(price?.hourlyMicros ?? -1),
      rejectedReason,
    ])
  }
  t.strictSame(await explain(), [
    ['one *', 10_000, ''],
    ['two', 20_000, ''],
  ])
  const ordered = async (hostId: string) => {
    await client.hosts.createHost({ parent, hostId, host })
    return (await client.hosts.getHost({ name: `${parent}/hosts/${hostId}` })).host
  }
  t.match(await ordered('before'), { provider: 'providers/one', price: price(10_000) })

  const listed = await client.priceLists.createPriceList({
    priceListId: 'retail',
    priceList: { isDefault: true, entries: [{ family: 'simulated', price: price(30_000, 9_000_000, 500) }] },
  })
  t.match(listed.priceList, { name: 'priceLists/retail', isDefault: true })
  t.strictSame(
    await explain(),
    [
      ['two *', 20_000, ''],
      ['one', 30_000, ''],
    ],
    'the cheapest is another now',
  )
  t.strictSame(await explain({ placement: { maxHourlyMicros: 25_000n } }), [
    ['two *', 20_000, ''],
    ['one', 30_000, 'PRICE_TOO_HIGH'],
  ])
  t.match(await ordered('listed'), { provider: 'providers/two', price: price(20_000) })

  await client.billingAgreements.createBillingAgreement({
    parent: organization,
    billingAgreementId: 'friends',
    billingAgreement: {
      discountBasisPoints: 1_000,
      entries: [{ machineClass: host.machineClass, provider: 'providers/one', price: price(5_001, 0, 7) }],
    },
  })
  t.strictSame(await explain(), [
    ['one *', 5_001, ''],
    ['two', 18_000, ''],
  ])
  t.match(await ordered('agreed'), { provider: 'providers/one', price: price(5_001, 0, 7) })
  t.match(
    (await client.hosts.getHost({ name: `${parent}/hosts/before` })).host,
    { price: price(10_000) },
    'it keeps its price',
  )

  const name = `${organization}/billingAgreements/friends`
  const past = { seconds: 1_000n, nanos: 0 }
  await client.billingAgreements.updateBillingAgreement({
    billingAgreement: { name, endTime: past },
    updateMask: { paths: ['end_time'] },
  })
  t.strictSame((await explain())[0], ['two *', 20_000, ''], 'it is over')
  await client.billingAgreements.updateBillingAgreement({
    billingAgreement: { name, priceList: 'priceLists/retail' },
    updateMask: { paths: ['end_time', 'price_list', 'entries'] },
  })
  t.strictSame(await explain(), [
    ['two *', 18_000, ''],
    ['one', 27_000, ''],
  ])
  await client.quotas.createQuota({
    parent: organization,
    quotaId: 'b',
    quota: { budget: { currency: 'EUR', maxHourlyMicros: 600_000n } },
  })
  t.match((await ordered('counted'))?.price, price(18_000))
  const { quota } = await client.quotas.getQuota({ name: `${organization}/quotas/b` })
  t.equal(quota?.usage?.hourlyMicros, 10_000n + 20_000n + 5_001n + 18_000n, 'budgets count own prices')

  for (const [call, wanted] of [
    [() => client.priceLists.deletePriceList({ name: 'priceLists/retail' }), { reason: 'PRICE_LIST_IN_USE' }],
    [
      () => client.priceLists.createPriceList({ priceListId: 'other', priceList: { isDefault: true } }),
      { reason: 'INVALID_FIELD', violations: [{ field: 'price_list.is_default' }] },
    ],
    [() => client.priceLists.createPriceList({ priceListId: 'retail', priceList: {} }), { reason: 'NAME_TAKEN' }],
    [
      () =>
        client.priceLists.createPriceList({
          priceListId: 'other',
          priceList: { entries: [{ price: { ...price(1), currency: 'euro' } }] },
        }),
      { violations: [{ field: 'price_list.entries[0].price.currency' }] },
    ],
    [() => client.priceLists.getPriceList({ name: 'priceLists/none' }), { reason: 'PRICE_LIST_NOT_FOUND' }],
    [
      () =>
        client.billingAgreements.updateBillingAgreement({
          billingAgreement: { name, priceList: 'priceLists/none' },
          updateMask: { paths: ['price_list'] },
        }),
      { reason: 'PRICE_LIST_NOT_FOUND' },
    ],
    [
      () => client.billingAgreements.getBillingAgreement({ name: `${organization}/billingAgreements/none` }),
      { reason: 'BILLING_AGREEMENT_NOT_FOUND' },
    ],
    [
      () =>
        client.billingAgreements.createBillingAgreement({
          parent: organization,
          billingAgreementId: 'y',
          billingAgreement: { startTime: past, endTime: past },
        }),
      { violations: [{ field: 'billing_agreement.end_time' }] },
    ],
  ] as const)
    t.match(await refusal(call()), wanted)
  await client.billingAgreements.deleteBillingAgreement({ name })
  await client.priceLists.deletePriceList({ name: 'priceLists/retail' })
  t.strictSame((await explain())[0], ['one *', 10_000, ''])
})
