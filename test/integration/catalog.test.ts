import { withHub } from '@slipway/hub/testing'
import { createSlipwayClient, SlipwayError } from '@slipway/sdk/client'
import t from 'tap'
import { plantProvider } from '../tools/offers.js'
import { until } from '../tools/processes.js'

// What a workspace is shown, held against what it can order.

const price = (hourlyMicros: number) => ({
  ...{ currency: 'EUR', hourlyMicros: BigInt(hourlyMicros), monthlyMicros: 0n, setupMicros: 0n },
})

async function refusal(call: Promise<unknown>): Promise<SlipwayError> {
  try {
    await call
  } catch (error) {
    if (error instanceof SlipwayError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

void t.test('a workspace is shown what it can order, and what it pays for it', async (t) => {
  const test = await withHub(t)
  const client = createSlipwayClient({ baseUrl: test.hub.apiUrl, token: test.token })
  const { db } = test.database
  await plantProvider(db, 'one', 'simulated', [
    { typeId: 'small', location: 'fsn1', hourlyMicros: 10_000, remaining: 7 },
    { typeId: 'small', location: 'nbg1', hourlyMicros: 12_000, available: false },
    { typeId: 'large', location: 'fsn1', hourlyMicros: 40_000 },
  ])
  await plantProvider(db, 'two', 'other', [{ typeId: 'small', location: 'ash', hourlyMicros: 20_000 }])
  const away = await plantProvider(db, 'away', 'distant', [{ typeId: 'small', location: 'sgp', hourlyMicros: 1 }])
  await db.deleteFrom('sessions').where('provider_id', '=', away).execute()
  await db.updateTable('providers').set({ state: 'DISCONNECTED' }).where('name', '=', 'away').execute()
  const classes: Readonly<Record<string, object>> = {
    small: { displayName: 'Small', offerings: ['simulated', 'other'].map((family) => ({ family, typeId: 'small' })) },
    large: { shape: { vcpus: 2 }, offerings: [{ family: 'simulated', typeId: 'large' }] },
    huge: { shape: { vcpus: 96 }, offerings: [{ family: 'simulated', typeId: 'large' }] },
    waits: { offerings: [{ family: 'distant', typeId: 'small' }] },
    gone: { offerings: [{ family: 'simulated', typeId: 'withdrawn' }] },
    nobody: { offerings: [{ family: 'nobody', typeId: 'small' }] },
    any: { shape: { vcpus: 1 } },
    arm: { shape: { vcpus: 1, architecture: 'arm64' } },
    metal: { machineSelector: { labelSelector: 'rack=b12' } },
  }
  for (const [machineClassId, machineClass] of Object.entries(classes))
    await client.machineClasses.createMachineClass({ machineClassId, machineClass })
  for (const name of ['acme', 'other']) {
    await client.organizations.createOrganization({ organizationId: name })
    await client.workspaces.createWorkspace({ parent: `organizations/${name}`, workspaceId: `${name}-web` })
  }
  const parent = 'workspaces/acme-web'
  // A class that the hub made for somebody is nobody else's business.
  await client.hosts.createHost({
    parent: 'workspaces/other-web',
    hostId: 'shaped',
    host: { shape: { vcpus: 1, memoryMib: 1024n } },
  })
  await until('the order to be placed', async () => {
    const { host } = await client.hosts.getHost({ name: 'workspaces/other-web/hosts/shaped' })
    return host?.provider === 'providers/one'
  })
  const names = async (filter: object = {}) => {
    const { entries } = await client.catalog.listCatalog({ parent, filter })
    return entries.map((entry) => entry.machineClass.slice('machineClasses/'.length))
  }
  const orderable: string[] = []
  for (const machineClassId of Object.keys(classes).sort())
    try {
      const host = { machineClass: `machineClasses/${machineClassId}` }
      await client.hosts.createHost({ parent, hostId: 'x', host, validateOnly: true })
      orderable.push(machineClassId)
    } catch (error) {
      if (!(error instanceof SlipwayError) || error.reason !== 'CLASS_NOT_OFFERED') throw error
    }
  t.strictSame(await names(), orderable, 'what is shown is what an order is taken for')
  t.strictSame(orderable, ['any', 'large', 'small', 'waits'])

  const small = async () =>
    (await client.catalog.listCatalog({ parent })).entries.find(({ displayName }) => displayName === 'Small')
  t.match(await small(), {
    ...{ price: price(10_000), available: true, shape: { vcpus: 2, memoryMib: 4096n, architecture: 'amd64' } },
    locations: [
      {
        location: 'fsn1',
        family: 'simulated',
        price: price(10_000),
        available: true,
        remaining: 6,
        asOfTime: { nanos: Number },
      },
      { location: 'ash', family: 'other', price: price(20_000), available: true },
      { location: 'nbg1', family: 'simulated', available: false, asOfTime: { nanos: Number } },
    ],
  })
  t.strictSame(await names({ available: true }), ['any', 'large', 'small'])
  t.strictSame(await names({ families: ['other'] }), ['any', 'small'])
  t.strictSame(await names({ locations: ['sgp'] }), ['any', 'waits'])
  t.strictSame(await names({ minVcpus: 3 }), [])
  t.strictSame(await names({ minMemoryMib: 4096n, maxHourlyMicros: 15_000n, families: ['simulated'] }), [
    'any',
    'small',
  ])

  await t.test('at its own prices', async (t) => {
    await client.priceLists.createPriceList({
      priceListId: 'retail',
      priceList: { isDefault: true, entries: [{ machineClass: 'machineClasses/small', price: price(30_000) }] },
    })
    await client.billingAgreements.createBillingAgreement({
      parent: 'organizations/acme',
      billingAgreementId: 'a',
      billingAgreement: {
        discountBasisPoints: 1_000,
        entries: [{ machineClass: 'machineClasses/small', family: 'other', price: price(11_000) }],
      },
    })
    t.match(await small(), {
      price: price(11_000),
      locations: [
        { family: 'other', price: price(11_000) },
        { location: 'fsn1', price: price(27_000) },
        { location: 'nbg1', price: price(27_000) },
      ],
    })
    const plan = await client.hosts.createHost({
      parent,
      hostId: 'x',
      host: { machineClass: 'machineClasses/small' },
      validateOnly: true,
    })
    t.match(plan.candidates[0], { chosen: true, price: price(11_000) }, 'which are those of an order')
    const other = await client.catalog.listCatalog({ parent: 'workspaces/other-web' })
    t.match(
      other.entries.find(({ displayName }) => displayName === 'Small'),
      { price: price(30_000) },
      'another organization pays what it pays',
    )
  })

  await t.test('page by page', async (t) => {
    const found: string[] = []
    let pageToken = ''
    do {
      const page = await client.catalog.listCatalog({ parent, pageSize: 2, pageToken })
      t.ok(page.entries.length <= 2)
      found.push(...page.entries.map((entry) => entry.machineClass.slice('machineClasses/'.length)))
      pageToken = page.nextPageToken
      // What is made behind the place where the last page ended is neither seen twice nor does it move anything.
      if (found.length === 1)
        await client.machineClasses.deleteMachineClass({ name: 'machineClasses/any', allowMissing: true })
    } while (pageToken !== '')
    t.strictSame(found, orderable)
    const first = await client.catalog.listCatalog({ parent, pageSize: 1 })
    t.match(
      await refusal(
        client.catalog.listCatalog({ parent: 'workspaces/other-web', pageSize: 1, pageToken: first.nextPageToken }),
      ),
      { reason: 'INVALID_PAGE_TOKEN' },
    )
    t.match(await refusal(client.catalog.listCatalog({ parent: 'workspaces/none' })), { reason: 'WORKSPACE_NOT_FOUND' })
  })
})

void t.test('an order may give a shape, and what it was ordered by stays as it was', async (t) => {
  const test = await withHub(t)
  const client = createSlipwayClient({ baseUrl: test.hub.apiUrl, token: test.token })
  await plantProvider(test.database.db, 'one', 'simulated', [{ typeId: 'small', hourlyMicros: 10_000 }])
  const parent = 'workspaces/default'
  const order = async (hostId: string, host: object) => {
    await client.hosts.createHost({ parent, hostId, host })
    return until(`${hostId} to be placed`, async () => {
      const found = await client.hosts.getHost({ name: `${parent}/hosts/${hostId}` })
      return found.host?.provider === 'providers/one' && found.host
    })
  }
  const shape = { vcpus: 2, memoryMib: 4096n }
  const [one, same, other] = [
    await order('one', { shape }),
    await order('same', { shape }),
    await order('other', { shape: { ...shape, diskGib: 20n } }),
  ]
  t.equal(one.machineClass, same.machineClass, 'the same shape is the same class')
  t.not(one.machineClass, other.machineClass)
  const odd = await order('odd', { shape, placement: { families: ['simulated'] } })
  t.equal(odd.machineClass, one.machineClass)
  const name = one.machineClass
  const { machineClass } = await client.machineClasses.getMachineClass({ name })
  t.match(machineClass, { autoCreated: true, shape })
  for (const call of [
    () => client.machineClasses.updateMachineClass({ machineClass: { name, displayName: 'mine' } }),
    () => client.machineClasses.deleteMachineClass({ name }),
  ])
    t.match(await refusal(call()), { reason: 'CLASS_AUTO_CREATED' })
  t.match(
    await refusal(
      client.machineClasses.createMachineClass({
        machineClassId: 'auto-1c-1m-1g',
        machineClass: { shape: { vcpus: 1 } },
      }),
    ),
    { reason: 'INVALID_FIELD', violations: [{ field: 'machine_class_id' }] },
  )
  const { entries } = await client.catalog.listCatalog({ parent })
  t.strictSame(entries, [], 'it is not in the catalog')

  await client.machineClasses.createMachineClass({
    machineClassId: 'small',
    machineClass: {
      shape: { vcpus: 1 },
      offerings: [{ family: 'simulated', typeId: 'small', price: price(10_000) }],
    },
  })
  const before = await order('before', { machineClass: 'machineClasses/small' })
  await client.machineClasses.updateMachineClass({
    machineClass: {
      name: 'machineClasses/small',
      shape: { vcpus: 2 },
      offerings: [{ family: 'simulated', typeId: 'small', price: price(99_000) }],
    },
    updateMask: { paths: ['shape', 'offerings'] },
  })
  const after = await order('after', { machineClass: 'machineClasses/small' })
  t.match(before.price, price(10_000))
  t.match(after.price, price(99_000), 'an edited class concerns future orders')
  t.match((await client.hosts.getHost({ name: before.name })).host, { price: price(10_000) }, 'and no past ones')
  const rows = await test.database.db
    .selectFrom('hosts')
    .select(['name', 'class_spec'])
    .where('class_name', '=', 'small')
    .orderBy('created_at')
    .execute()
  t.match(rows, [
    { name: 'before', class_spec: { shape: { vcpus: 1 }, offerings: [{ price: { hourlyMicros: 10_000 } }] } },
    { name: 'after', class_spec: { shape: { vcpus: 2 }, offerings: [{ price: { hourlyMicros: 99_000 } }] } },
  ])
})
