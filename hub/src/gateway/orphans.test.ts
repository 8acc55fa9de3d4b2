import { randomUUID } from 'node:crypto'
import { create } from '@bufbuild/protobuf'
import { FailureCode, InventorySchema, OrphanOutcome, OrphanRemovalSchema } from '@slipway/proto/provider/v1'
import { sql } from 'kysely'
import t from 'tap'
import { eventually } from '../../testing/reconcile-rig.js'
import { OrphanRig, type Listed } from '../../testing/orphan-rig.js'
import { inTransaction } from '../store/database.js'
import { keepByPerson, lockOrphan, orderByPerson } from '../store/orphans.js'
import { lockProvider, updateProvider } from '../store/providers.js'

// Orphans from a provider's listings to its answers, on a real database.

const answerOf = (orderId: string, outcome: OrphanOutcome, message = '') =>
  create(OrphanRemovalSchema, { orderId, outcome, message })
const servers = (count: number, key: () => string): Listed[] =>
  Array.from({ length: count }, (_, index) => ({
    externalId: `srv-${String(index).padStart(3, '0')}`,
    ownershipKey: key(),
    name: `web-${index}`,
  }))

void t.test('an orphan is seen, ordered to be removed, removed, and gone', async (t) => {
  const rig = await OrphanRig.start(t)
  const cloud = await rig.provider('cloud')
  rig.replica.connect(cloud)
  const { key } = await rig.request(cloud, 'GONE')
  const [server = {}] = servers(1, () => key)

  await rig.list(cloud, [server])
  t.strictSame(await rig.standing(), ['srv-000: SEEN_ONCE'])
  t.strictSame(await rig.reasons(), [], 'a single sighting is no news')
  await rig.list(cloud, [server])
  t.strictSame(await rig.standing(), ['srv-000: REMOVING'])
  const [order] = await rig.carried(rig.replica, cloud, 1)
  t.match(order, { resource: { kind: 'server', externalId: 'srv-000', ownershipKey: key, name: 'web-0' } })
  t.match(await rig.orphan('srv-000'), { removal_attempts: 1, sightings: 2, removal_ordered_by: 'policy' })
  await rig.answer(cloud, answerOf(order?.orderId ?? '', OrphanOutcome.REMOVED))
  t.match(await rig.orphan('srv-000'), { removal_due_at: null, removal_done_at: Date })
  await rig.list(cloud, [])
  t.strictSame(await rig.orphans(), [])
  t.strictSame(await rig.reasons(), ['OrphanSeen', 'OrphanRemovalOrdered', 'OrphanRemoved', 'OrphanGone'])
})

void t.test('only whole listings count, each once, and not beside one another', async (t) => {
  const rig = await OrphanRig.start(t)
  const cloud = await rig.provider('cloud', { mode: 'REPORT' })
  const many = servers(7, () => rig.unknownKey())
  await rig.list(cloud, many, { complete: false })
  await rig.list(cloud, many, { final: false })
  t.strictSame(await rig.orphans(), [], 'neither a failed nor a broken off listing is a sighting')
  await rig.list(cloud, many, { partSize: 2 })
  t.ok((await rig.orphans()).every(({ sightings }) => sightings === 1))
  t.equal((await rig.orphans()).length, 7, 'all parts count')

  // Two instances at once: the second began before the first was taken in.
  const two = [await rig.instance(cloud), await rig.instance(cloud)]
  const ids = [randomUUID(), randomUUID()]
  const part = (index: number, final: boolean, resources: Listed[]) =>
    create(InventorySchema, {
      listingId: ids[index] ?? '',
      final,
      complete: final,
      resources: resources.map((resource) => ({ kind: 'server', ...resource })),
    })
  for (const [index, listings] of two.entries()) await rig.takeIn(listings, part(index, false, many.slice(0, 3)))
  for (const [index, listings] of two.entries())
    await rig.takeIn(listings, part(index, true, index === 0 ? many.slice(3) : []))
  t.ok(
    (await rig.orphans()).every(({ sightings }) => sightings === 2),
    'they count as one',
  )
  t.ok(
    (await rig.orphans()).every((row) => row.missed_at === null),
    'and what the other lacks is not missed',
  )

  await rig.list(cloud, many, { complete: false })
  await rig.list(cloud, [], { complete: false })
  t.ok((await rig.orphans()).every(({ sightings, missed_at }) => sightings === 2 && missed_at === null))
  await rig.list(cloud, many.slice(1))
  t.match(await rig.orphan('srv-000'), { sightings: 0, missed_at: Date }, 'sightings are in a row')
  await rig.list(cloud, many)
  t.match(await rig.orphan('srv-000'), { sightings: 1, missed_at: null })
  await rig.list(cloud, many.slice(1))
  await rig.list(cloud, many.slice(1))
  t.equal((await rig.orphans()).length, 6, 'missing twice is gone')
})

void t.test('what is not ours, or in use, is never touched', async (t) => {
  const rig = await OrphanRig.start(t)
  const cloud = await rig.provider('cloud')
  const elsewhere = await rig.provider('elsewhere')
  rig.replica.connect(cloud)
  const foreign = servers(50, () => `${randomUUID()}/${randomUUID()}`)
  const live = await rig.request(cloud, 'PROVISIONED', { externalId: 'srv-live' })
  const creating = await rig.request(cloud, 'PROVISIONING', { createInDoubt: true })
  const others = await rig.request(elsewhere, 'PROVISIONED', { externalId: 'srv-other' })
  const volume = { kind: 'volume', externalId: 'vol-1', ownershipKey: live.key }
  const listed: Listed[] = [
    ...foreign,
    { externalId: 'no-key', ownershipKey: '', name: 'web-1' },
    { externalId: 'hub-alone', ownershipKey: rig.rig.hubId },
    { externalId: 'srv-live', ownershipKey: live.key },
    { externalId: 'srv-extra', ownershipKey: live.key },
    { externalId: 'srv-creating', ownershipKey: creating.key },
    { externalId: 'srv-other', ownershipKey: others.key },
    { externalId: 'garbled', ownershipKey: `${rig.rig.hubId}/${'-'.repeat(36)}` },
    volume,
  ]
  for (let pass = 0; pass < 4; pass++) await rig.list(cloud, listed, { partSize: 20 })
  t.strictSame(await rig.standing(), ['garbled: KEY_UNREADABLE', 'srv-extra: REQUEST_LIVE'])
  rig.replica.courier.request(cloud.id)
  await rig.replica.courier.idle()
  t.strictSame(rig.replica.orders, [])

  const hub = { hubId: rig.rig.hubId, graceMs: 0, restoreGraceMs: 0 }
  for (const [externalId, reason] of [
    ['garbled', 'KEY_UNREADABLE'],
    ['srv-extra', 'REQUEST_LIVE'],
  ] as const) {
    const { name } = await rig.orphan(externalId)
    const refused = await inTransaction(rig.rig.db, async (tx) => {
      const row = await lockOrphan(tx, 'cloud', name)
      return row && orderByPerson(tx, row, 'token/1', hub)
    })
    t.match(refused, { kept: { reason } }, 'not even by a person')
  }
  await rig.rig.db.updateTable('machine_requests').set({ external_id: 'srv-extra' }).where('id', '=', live.id).execute()
  await rig.list(cloud, listed)
  t.notOk(
    (await rig.standing()).some((text) => text.startsWith('srv-extra')),
    'what a request owns by now is no orphan',
  )
})

void t.test('an end that is fresh is waited out', async (t) => {
  const rig = await OrphanRig.start(t)
  const cloud = await rig.provider('cloud')
  const { id, key } = await rig.request(cloud, 'GONE', { goneAt: new Date(), createInDoubt: true })
  await rig.rig.db.updateTable('providers').set({ effect_timeout_ms: 60_000, listing_lag_ms: 60_000 }).execute()
  const server = { externalId: 'srv-1', ownershipKey: key }
  for (let pass = 0; pass < 3; pass++) await rig.list(cloud, [server])
  t.strictSame(await rig.standing(), ['srv-1: CREATE_IN_FLIGHT'])
  const longAgo = new Date(Date.now() - 121_000)
  await rig.rig.db.updateTable('machine_requests').set({ gone_at: longAgo }).where('id', '=', id).execute()
  await rig.list(cloud, [server])
  t.strictSame(await rig.standing(), ['srv-1: TOO_YOUNG'], 'a create may take as long as that')
  await rig.rig.db.updateTable('orphans').set({ first_seen_at: longAgo }).execute()
  await rig.list(cloud, [server])
  t.strictSame(await rig.standing(), ['srv-1: REMOVING'])
})

void t.test('REPORT removes nothing, and orders of before are taken back', async (t) => {
  const rig = await OrphanRig.start(t)
  const cloud = await rig.provider('cloud', { mode: 'REPORT' })
  const many = servers(3, () => rig.unknownKey())
  for (let pass = 0; pass < 3; pass++) await rig.list(cloud, many)
  t.ok((await rig.standing()).every((text) => text.endsWith('POLICY_REPORTS')))
  await rig.rig.db.updateTable('providers').set({ orphan_mode: 'REMOVE' }).execute()
  await rig.list(cloud, many)
  t.ok((await rig.standing()).every((text) => text.endsWith('REMOVING')))
  await rig.rig.db.updateTable('providers').set({ orphan_mode: 'REPORT' }).execute()
  rig.replica.connect(cloud)
  rig.replica.courier.request(cloud.id)
  await eventually(
    () => rig.standing(),
    (texts) => texts.every((text) => text.endsWith('POLICY_REPORTS')),
    (texts) => `no order stands: ${texts.join()}`,
  )
  t.strictSame(rig.replica.orders, [])
})

void t.test('after a restore nothing goes, not even what was ordered before', async (t) => {
  const rig = await OrphanRig.start(t)
  const cloud = await rig.provider('cloud')
  const [one = {}, two = {}] = servers(2, () => rig.unknownKey())
  for (let pass = 0; pass < 2; pass++) await rig.list(cloud, [one])
  t.strictSame(await rig.standing(), ['srv-000: REMOVING'])
  await sql`update hub_meta set epoch = gen_random_uuid()`.execute(rig.rig.db)
  rig.replica.connect(cloud)
  rig.replica.courier.request(cloud.id)
  await eventually(
    () => rig.standing(),
    ([text]) => text === 'srv-000: RESTORED',
    (texts) => texts.join(),
  )
  for (let pass = 0; pass < 3; pass++) await rig.list(cloud, [one, two])
  t.strictSame(await rig.standing(), ['srv-000: RESTORED', 'srv-001: RESTORED'])
  t.strictSame(rig.replica.orders, [])
})

void t.test('too many at once stop removal until a person sets the policy anew', async (t) => {
  const rig = await OrphanRig.start(t)
  const cloud = await rig.provider('cloud', { maxPercent: 10, maxPerPass: 3 })
  const live = await Promise.all(
    Array.from({ length: 36 }, (_, index) => rig.request(cloud, 'PROVISIONED', { externalId: `live-${index}` })),
  )
  const fleet = live.map(({ key }, index) => ({ externalId: `live-${index}`, ownershipKey: key }))
  const many = servers(5, () => rig.unknownKey())
  for (let pass = 0; pass < 3; pass++) await rig.list(cloud, [...fleet, ...many])
  t.ok((await rig.standing()).every((text) => text.endsWith('REMOVAL_STOPPED')))
  const provider = await rig.rig.db.selectFrom('providers').selectAll().executeTakeFirstOrThrow()
  t.match(provider, { orphan_stopped_at: Date, conditions: [{ type: 'OrphanRemoval', status: 'FALSE' }] })
  // Fewer of them now; but it has stopped.
  await rig.list(cloud, [...fleet, ...many.slice(1)])
  await rig.list(cloud, [...fleet, ...many.slice(1)])
  t.ok((await rig.standing()).every((text) => text.endsWith('REMOVAL_STOPPED')))

  const policy = { mode: 'REMOVE', minAgeMs: 0, maxPerPass: 3, maxPercent: 10 } as const
  await inTransaction(rig.rig.db, async (tx) => {
    const row = await lockProvider(tx, 'cloud')
    if (row !== undefined) await updateProvider(tx, rig.rig.keyring, row, { orphanPolicy: policy })
  })
  await rig.list(cloud, [...fleet, ...many.slice(1)])
  const standing = (await rig.standing()).map((text) => text.split(': ')[1])
  t.strictSame(standing, ['REMOVING', 'REMOVING', 'REMOVING', 'LIMIT_REACHED'], 'four of forty are within the share')
  const after = await rig.rig.db.selectFrom('providers').selectAll().executeTakeFirstOrThrow()
  t.match(after, { orphan_stopped_at: null, conditions: [] })
  t.equal((await rig.reasons()).filter((reason) => reason === 'OrphanRemovalStopped').length, 1)
})

void t.test('orders are given once by any number of replicas, and again where no answer comes', async (t) => {
  const rig = await OrphanRig.start(t)
  const cloud = await rig.provider('cloud')
  const many = servers(30, () => rig.unknownKey())
  for (let pass = 0; pass < 2; pass++) await rig.list(cloud, many)
  const replicas = Array.from({ length: 3 }, () => rig.another())
  for (const replica of replicas) replica.connect(cloud)
  const given = () => replicas.flatMap(({ orders }) => orders)
  await eventually(
    () => {
      for (const { courier } of replicas) courier.request(cloud.id)
      return Promise.resolve(given().length)
    },
    (count) => count >= 30,
    (count) => `${count} orders`,
  )
  await Promise.all(replicas.map(({ courier }) => courier.stop()))
  t.equal(new Set(given().map(({ orderId }) => orderId)).size, 30)
  t.equal(given().length, 30)

  // None of them answers: their replicas are dead. A new one gives the orders again when their time is over.
  const early = rig.another()
  early.connect(cloud)
  early.courier.request(cloud.id)
  await early.courier.idle()
  t.equal(early.orders.length, 0, 'not before')
  const late = rig.another()
  late.connect(cloud)
  const past = new Date(Date.now() - 1_000)
  await rig.rig.db.updateTable('orphans').set({ removal_due_at: past }).where('external_id', '=', 'srv-000').execute()
  const [again] = await rig.carried(late, cloud, 1)
  t.match(await rig.orphan('srv-000'), { removal_order_id: again?.orderId, removal_attempts: 2 })
})

void t.test('answers', async (t) => {
  const rig = await OrphanRig.start(t)
  const cloud = await rig.provider('cloud')
  const other = await rig.provider('other')
  rig.replica.connect(cloud)
  const [one = {}, two = {}] = servers(2, () => rig.unknownKey())
  for (let pass = 0; pass < 2; pass++) await rig.list(cloud, [one, two])
  const orders = await rig.carried(rig.replica, cloud, 2)
  const idOf = (externalId: string) => orders.find(({ resource }) => resource?.externalId === externalId)?.orderId ?? ''

  await rig.answer(other, answerOf(idOf('srv-000'), OrphanOutcome.REMOVED))
  t.match(await rig.orphan('srv-000'), { removal_done_at: null }, "another provider's word is nothing")
  await rig.answer(cloud, answerOf(randomUUID(), OrphanOutcome.REMOVED))

  const failure = { code: FailureCode.UNAVAILABLE, message: 'the API is down', retryable: true }
  await rig.answer(
    cloud,
    create(OrphanRemovalSchema, { orderId: idOf('srv-000'), outcome: OrphanOutcome.FAILED, failure }),
  )
  const failed = await rig.orphan('srv-000')
  t.match(failed, { last_error: { code: 'UNAVAILABLE', message: 'the API is down', attempts: 1 }, keep_reason: null })
  const delayMs = (failed.removal_due_at?.getTime() ?? 0) - Date.parse(failed.last_error?.at ?? '')
  t.ok(delayMs >= 500 && delayMs <= 1_000, `tried again after a second at most: ${delayMs} ms`)

  await rig.answer(cloud, answerOf(idOf('srv-001'), OrphanOutcome.KEY_MISMATCH, 'the key on it now is none'))
  t.match(await rig.orphan('srv-001'), {
    keep_reason: 'REFUSED',
    removal_ordered_at: null,
    last_error: { code: 'CONFLICT', message: 'the key on it now is none' },
  })
  await rig.list(cloud, [one, two])
  t.strictSame(await rig.standing(), ['srv-000: REMOVING', 'srv-001: REFUSED'], 'it is not asked again at once')

  await eventually(
    () => {
      rig.replica.courier.request(cloud.id)
      return Promise.resolve(rig.replica.orders.length)
    },
    (count) => count === 3,
    (count) => `the second try: ${count} orders`,
  )
  await rig.answer(cloud, answerOf(idOf('srv-000'), OrphanOutcome.REMOVED))
  await rig.answer(cloud, answerOf(idOf('srv-000'), OrphanOutcome.REMOVED))
  t.equal(
    (await rig.reasons()).filter((reason) => reason === 'OrphanRemoved').length,
    1,
    'a repeated answer is no news',
  )
  await rig.list(cloud, [one, two])
  t.match(await rig.orphan('srv-000'), { removal_done_at: null, removal_due_at: Date }, 'listed still: once more')
})

void t.test('a person decides', async (t) => {
  const rig = await OrphanRig.start(t)
  const cloud = await rig.provider('cloud', { mode: 'REPORT', minAgeMs: 3_600_000 })
  rig.replica.connect(cloud)
  const [one = {}] = servers(1, () => rig.unknownKey())
  await rig.list(cloud, [one])
  const hub = { hubId: rig.rig.hubId, graceMs: 0, restoreGraceMs: 3_600_000 }
  await sql`update hub_meta set restored_at = now() - interval '1 minute'`.execute(rig.rig.db)
  const act = async (
    work: (
      tx: Parameters<typeof lockOrphan>[0],
      row: NonNullable<Awaited<ReturnType<typeof lockOrphan>>>,
    ) => Promise<unknown>,
  ) =>
    inTransaction(rig.rig.db, async (tx) => {
      const row = await lockOrphan(tx, '-', (await rig.orphan('srv-000')).name)
      return row && work(tx, row)
    })
  await act((tx, row) => keepByPerson(tx, row, 'token/1', 'evidence', hub))
  await rig.rig.db.updateTable('providers').set({ orphan_mode: 'REMOVE', orphan_min_age_ms: 0 }).execute()
  for (let pass = 0; pass < 3; pass++) await rig.list(cloud, [one])
  t.match(await rig.orphan('srv-000'), { keep_reason: 'KEPT_BY_PERSON', kept_for: 'evidence' })
  await act((tx, row) => keepByPerson(tx, row, 'token/1', '', hub))
  t.match(await rig.orphan('srv-000'), { keep_reason: 'RESTORED', kept_by: null })

  await act((tx, row) => orderByPerson(tx, row, 'token/1', hub))
  t.match(await rig.orphan('srv-000'), { keep_reason: null, removal_ordered_by: 'token/1' })
  await rig.carried(rig.replica, cloud, 1)
  t.match(await rig.orphan('srv-000'), { removal_attempts: 1 }, 'though the policy keeps it')
})
