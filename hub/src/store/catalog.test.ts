import { randomUUID } from 'node:crypto'
import t from 'tap'
import { euros, organizationId, Rig, workspaceId } from '../../testing/reconcile-rig.js'
import type { CatalogFilter } from '../domain/placement/catalog.js'
import { catalogEntry } from '../domain/placement/catalog.js'
import { listPrices } from '../domain/price/pricing.js'
import { listCatalogClasses, loadCatalogPlaces } from './catalog.js'
import type { Db } from './database.js'
import { classSpecOf, insertClass } from './machine-classes.js'
import { readPricing } from './pricing.js'
import { inTransaction } from './database.js'

const orderer = { organizationId, workspaceId }
const bootstrap = { phoneHome: false, phoneHomeTimeoutMs: 900_000, provisionTimeoutMs: 3_600_000, userData: '' }
const any: CatalogFilter = {
  ...{ families: [], locations: [], minVcpus: 0, minMemoryMib: 0, architecture: '', maxHourlyMicros: 0 },
  available: false,
}
const nothing = { vcpus: 0, memoryMib: 0, diskGib: 0, diskClass: '', architecture: '' }

async function addClass(rig: Rig, name: string, spec: object): Promise<void> {
  const content = { displayName: '', labels: {}, annotations: {} }
  await inTransaction(rig.db, (tx) =>
    insertClass(tx, name, {
      ...content,
      spec: { shape: nothing, offerings: [], machineSelector: null, bootstrap, ...spec },
    }),
  )
}

/** A database that counts the statements that it is given. */
function counting(db: Db): { readonly db: Db; readonly count: () => number } {
  let count = 0
  const counted = db.withPlugin({
    transformQuery: ({ node }) => {
      count++
      return node
    },
    transformResult: ({ result }) => Promise.resolve(result),
  })
  return { db: counted, count: () => count }
}

void t.test('a page of the catalog is read in as many statements however many classes there are', async (t) => {
  const rig = await Rig.start(t)
  await rig.provider('cloud', { offerings: [{}, { typeId: 'large', location: 'nbg1' }] })
  const rack = await rig.provider('rack', { kind: 'STATIC', family: 'bare-metal' })
  await rig.machine(rack, 'a', { labels: { rack: 'b12' } })
  const statementsFor = async (classes: number): Promise<number> => {
    for (let index = (await listCatalogClasses(rig.db, '', 1_000)).length; index < classes; index++)
      await addClass(
        rig,
        `class-${index}`,
        index % 2 === 0
          ? { machineSelector: { labelSelector: `rack=b${index}`, provider: '', providerData: {} } }
          : { offerings: [{ family: 'simulated', provider: '', typeId: 'small', locations: [], providerData: {} }] },
      )
    const { db, count } = counting(rig.db)
    const rows = await listCatalogClasses(db, '', 200)
    await readPricing(db, [])
    const places = await loadCatalogPlaces(db, orderer, rows)
    t.equal(rows.length, classes)
    t.equal(places.size, classes)
    return count()
  }
  t.equal(await statementsFor(2), 4)
  t.equal(await statementsFor(200), 4)
})

void t.test('static machines are counted by what they have, and places say when they were spoken of', async (t) => {
  const rig = await Rig.start(t)
  await rig.provider('cloud', {
    offerings: [
      { price: euros(10_000), remaining: 3 },
      { location: 'nbg1', price: euros(20_000), available: false },
    ],
  })
  const rack = await rig.provider('rack', { kind: 'STATIC', family: 'bare-metal' })
  await rig.provider('empty', { kind: 'STATIC', family: 'bare-metal' })
  const small = { vcpus: 4, memoryMib: 8192, diskGib: 100, diskClass: 'ssd', architecture: 'amd64' }
  await rig.machine(rack, 'a', { shape: small })
  await rig.machine(rack, 'b', { shape: small })
  await rig.machine(rack, 'c', { shape: { ...small, memoryMib: 16_384 } })
  await rig.machine(rack, 'd', { shape: small, state: 'CLEANING' })
  const selector = { labelSelector: '', provider: 'rack', providerData: {} }
  await addClass(rig, 'metal', { machineSelector: { ...selector, price: euros(50_000) } })
  await addClass(rig, 'metal-large', { machineSelector: selector, shape: { ...nothing, memoryMib: 16_000 } })
  await addClass(rig, 'metal-none', { machineSelector: { ...selector, labelSelector: 'rack=none' } })
  await addClass(rig, 'metal-later', { machineSelector: { ...selector, provider: 'empty' } })
  await addClass(rig, 'virtual', {
    offerings: [{ family: 'simulated', provider: '', typeId: 'small', locations: [], providerData: {} }],
  })
  await addClass(rig, 'any', { shape: { ...nothing, vcpus: 1 } })
  const rows = await listCatalogClasses(rig.db, '', 100)
  const places = await loadCatalogPlaces(rig.db, orderer, rows)
  const entry = (name: string, filter: Partial<CatalogFilter> = {}) => {
    const row = rows.find((each) => each.name === name)
    if (row === undefined) throw new Error(`there is no class ${name}`)
    return catalogEntry(name, classSpecOf(row), places.get(name) ?? [], listPrices, { ...any, ...filter })
  }
  t.match(entry('metal'), {
    ...{ available: true, price: euros(50_000), shape: small },
    locations: [{ family: 'bare-metal', location: '', remaining: 3, asOf: null }],
  })
  t.match(entry('metal-large'), { locations: [{ remaining: 1 }], shape: { memoryMib: 16_000, vcpus: 4 } })
  t.equal(entry('metal-none'), undefined, 'no machine is like that')
  t.match(entry('metal-later'), { available: false, locations: [{ available: false, remaining: null }] })
  t.equal(entry('metal-later', { available: true }), undefined)
  t.match(entry('virtual'), {
    price: euros(10_000),
    locations: [
      { location: 'fsn1', available: true, remaining: 3, asOf: Date, price: euros(10_000) },
      { location: 'nbg1', available: false, remaining: null, price: euros(20_000) },
    ],
  })
  t.match(entry('virtual', { locations: ['nbg1'] }), { available: false, locations: [{ location: 'nbg1' }] })
  t.match(entry('any')?.locations.length, 2)
  for (const filter of [
    { families: ['bare-metal'] },
    { locations: ['ash'] },
    { minVcpus: 3 },
    { minMemoryMib: 5_000 },
    { architecture: 'arm64' },
    { maxHourlyMicros: 9_999 },
  ])
    t.equal(entry('virtual', filter), undefined, JSON.stringify(filter))
  t.ok(entry('virtual', { minVcpus: 2, minMemoryMib: 4096, architecture: 'amd64', maxHourlyMicros: 10_000 }))
})

void t.test('a workspace is shown what is at providers that it may use', async (t) => {
  const rig = await Rig.start(t)
  const cloud = await rig.provider('cloud', { offerings: [{ price: euros(10_000) }] })
  const rack = await rig.provider('rack', { kind: 'STATIC', family: 'bare-metal' })
  await rig.machine(rack, 'a')
  await addClass(rig, 'virtual', {
    offerings: [{ family: 'simulated', provider: '', typeId: 'small', locations: [], providerData: {} }],
  })
  await addClass(rig, 'metal', { machineSelector: { labelSelector: '', provider: '', providerData: {} } })
  const rows = await listCatalogClasses(rig.db, '', 100)
  const seen = async (who: Parameters<typeof loadCatalogPlaces>[1]) => {
    const places = await loadCatalogPlaces(rig.db, who, rows)
    return rows.flatMap((row) =>
      catalogEntry(row.name, classSpecOf(row), places.get(row.name) ?? [], listPrices, any) === undefined
        ? []
        : [row.name],
    )
  }
  const stranger = { organizationId: randomUUID(), workspaceId: randomUUID() }
  const neighbour = { organizationId, workspaceId: randomUUID() }
  t.strictSame(await seen(stranger), ['metal', 'virtual'], 'nobody’s are everybody’s')

  const providers = rig.db.updateTable('providers')
  await providers.set({ owner_organization_id: organizationId }).where('id', '=', rack.providerId).execute()
  t.strictSame([await seen(neighbour), await seen(stranger)], [['metal', 'virtual'], ['virtual']])
  await providers.set({ owner_workspace_id: workspaceId }).where('id', '=', rack.providerId).execute()
  t.strictSame([await seen(orderer), await seen(neighbour)], [['metal', 'virtual'], ['virtual']])

  const poolId = randomUUID()
  const pool = { id: poolId, name: 'eu', family: 'simulated', claim_on: 'FIRST_ORDER' } as const
  await rig.db.insertInto('provider_pools').values(pool).execute()
  await providers.set({ pool_id: poolId, pool_name: 'eu' }).where('id', '=', cloud.providerId).execute()
  t.strictSame(await seen(orderer), ['metal'], 'nobody has claimed it')
  t.strictSame(await seen({ ...orderer, openPoolIds: [poolId] }), ['metal', 'virtual'], 'an order would claim it')
  await providers.set({ claim_workspace_id: workspaceId }).where('id', '=', cloud.providerId).execute()
  t.strictSame(await seen(orderer), ['metal', 'virtual'])
  t.strictSame(await seen({ ...neighbour, openPoolIds: [poolId] }), [], 'another has claimed it')
})
