import t from 'tap'
import type { JsonObject } from '../domain/facts.js'
import type { ClassOffering, ClassSpec, PlacementWish } from '../domain/host/host.js'
import { judgePlacement, mayWait, type Judged } from '../domain/placement/placement.js'
import { inTransaction } from './database.js'
import { holdCapacity, readHolds, releaseHolds } from './capacity-holds.js'
import { countFailedCreate } from './place-failures.js'
import type { MachineRequestRow } from './tables.js'
import { euros, organizationId, Rig, smallShape, workspaceId } from '../../testing/reconcile-rig.js'
import { loadCandidates } from './placement.js'

const orderer = { organizationId, workspaceId }
const anywhere: PlacementWish = { providers: [], families: [], locations: [], maxHourlyMicros: 0 }
const bootstrap = { phoneHome: false, phoneHomeTimeoutMs: 1, provisionTimeoutMs: 1, userData: '' }
const offering = (over: Partial<ClassOffering> = {}): ClassOffering => ({
  family: 'simulated',
  provider: '',
  typeId: '',
  locations: [],
  providerData: {},
  ...over,
})
const classOf = (over: Partial<ClassSpec> = {}): ClassSpec => ({
  shape: smallShape,
  offerings: [],
  machineSelector: null,
  bootstrap,
  ...over,
})

async function judge(rig: Rig, spec: ClassSpec, over: Partial<PlacementWish> = {}): Promise<readonly Judged[]> {
  const placement = { ...anywhere, ...over }
  return judgePlacement({ shape: spec.shape, placement }, await loadCandidates(rig.db, orderer, spec, placement))
}

/** What a person would read of it: the place, and why not. */
const brief = (judged: readonly Judged[]) =>
  judged.map(({ candidate, rejected }) =>
    [candidate.provider.name, candidate.typeId, candidate.location, rejected?.reason]
      .filter((part) => part !== undefined && part !== '')
      .join(' '),
  )

void t.test('places at clouds', async (t) => {
  const rig = await Rig.start(t)
  const b = await rig.provider('b', {
    offerings: [
      { typeId: 'small', location: 'x', price: euros(20) },
      { typeId: 'small', location: 'y', price: euros(20), available: false },
      { typeId: 'tiny', location: 'x', price: euros(1), shape: { ...smallShape, vcpus: 1 } },
      { typeId: 'arm', location: 'x', price: euros(1), shape: { ...smallShape, architecture: 'arm64' } },
    ],
  })
  await rig.provider('a', { offerings: [{ typeId: 'small', location: 'z', price: euros(30) }] })
  await rig.provider('other', { family: 'metal-cloud', offerings: [{ location: 'x', price: euros(10) }] })
  await rig.provider('gone', { connected: false })
  await rig.provider('full', { draining: true })
  await rig.provider('ill', { health: 'UNHEALTHY' })
  t.strictSame(brief(await judge(rig, classOf({ offerings: [offering()] }))), [
    'b small x',
    'a small z',
    'b arm x ARCHITECTURE_MISMATCH',
    'b small y OFFERING_UNAVAILABLE',
    'b tiny x SHAPE_TOO_SMALL',
    'full small fsn1 PROVIDER_DRAINING',
    'gone small fsn1 PROVIDER_DISCONNECTED',
    'ill small fsn1 PROVIDER_UNHEALTHY',
  ])
  t.strictSame(
    brief(
      await judge(rig, classOf({ offerings: [offering({ provider: 'b', typeId: 'small', locations: ['x', 'w'] })] })),
    ),
    ['b small x'],
  )
  const dearer = await judge(
    rig,
    classOf({
      offerings: [offering({ provider: 'b', locations: ['x'], price: euros(99) }), offering({ provider: 'a' })],
    }),
  )
  t.strictSame(brief(dearer).slice(0, 2), ['a small z', 'b small x'], "the class's price is the one that counts")
  const any = await judge(rig, classOf(), { families: ['metal-cloud'] })
  t.equal(brief(any)[0], 'other small x', 'a class that names nothing takes any live offering')
  const limited = await judge(rig, classOf({ offerings: [offering()] }), {
    maxHourlyMicros: 25,
    locations: ['x', 'y', 'z'],
  })
  t.strictSame(brief(limited).slice(0, 2), ['b small x', 'a small z PRICE_TOO_HIGH'])
  const unknown = await judge(rig, classOf({ offerings: [offering({ provider: 'a', typeId: 'huge' })] }))
  t.strictSame(brief(unknown), ['a huge NOT_OFFERED'])
  t.notOk(mayWait(unknown), 'for what is not offered nobody waits')
  t.strictSame(await judge(rig, classOf({ offerings: [offering({ family: 'nobody' })] })), [])

  const request = {
    provider_id: b.providerId,
    type_id: 'small',
    location: 'x',
    spec: { providerData: {} },
  } as MachineRequestRow
  const told = await inTransaction(rig.db, (tx) => holdCapacity(tx, request, 'CAPACITY', 'none'))
  t.match(told, [{ subject: 'providers/b', reason: 'CapacityHeld', message: /small in x .*CAPACITY: none/ }])
  t.strictSame(
    await inTransaction(rig.db, (tx) => holdCapacity(tx, request, 'CAPACITY', 'none')),
    [],
    'it is told once',
  )
  const judged = await judge(rig, classOf({ offerings: [offering()] }))
  t.equal(brief(judged)[0], 'a small z')
  t.match(
    judged.find(({ rejected }) => rejected?.reason === 'OFFERING_HELD')?.rejected?.message,
    /held back until 20.*Z: CAPACITY: none/,
  )
  await rig.db
    .updateTable('capacity_holds')
    .set({ held_until: new Date(Date.now() - 1) })
    .execute()
  t.equal(brief(await judge(rig, classOf({ offerings: [offering()] })))[0], 'b small x', 'held no more')
})

void t.test('clouds that do not tell what they offer', async (t) => {
  const rig = await Rig.start(t)
  await rig.provider('silent', { offerings: null })
  await rig.provider('soon', { offerings: null, capabilities: ['OFFERINGS'] })
  const judged = await judge(
    rig,
    classOf({
      offerings: [offering({ typeId: 'small', locations: ['x', 'y'], price: euros(5), providerData: { image: 'a' } })],
    }),
  )
  t.strictSame(
    brief(judged),
    ['silent small x', 'silent small y', 'soon small x OFFERING_UNAVAILABLE', 'soon small y OFFERING_UNAVAILABLE'],
    'the class is taken at its word',
  )
  t.match(judged[0]?.candidate, { price: { hourlyMicros: 5 }, providerData: { image: 'a' }, shape: null })
  t.strictSame(await judge(rig, classOf()), [], 'but where it names nothing there is nothing to be had')
})

void t.test('what is left is what was told, less what was ordered since', async (t) => {
  const rig = await Rig.start(t)
  await rig.provider('cloud', { offerings: [{ remaining: 2 }] })
  rig.reconcile()
  const ids = [await rig.order('a'), await rig.order('b'), await rig.order('c')]
  const waiting = await Promise.all(
    ids.map((id) => rig.until(id, (host) => host.state_message !== '', 'placed, or a reason')),
  )
  t.strictSame(waiting.map((host) => host.state).sort(), ['ORDERED', 'PLACED', 'PLACED'])
  t.strictSame(brief(await judge(rig, classOf({ offerings: [offering()] }))), ['cloud small fsn1 OFFERING_UNAVAILABLE'])
  await rig.db
    .updateTable('offerings')
    .set({ seen_at: new Date(Date.now() + 1_000), remaining: 1 })
    .execute()
  const left = ids[waiting.findIndex((host) => host.state === 'ORDERED')] ?? ''
  await rig.until(left, (host) => host.state === 'PLACED', 'once more can be had')
})

void t.test('places in racks', async (t) => {
  const rig = await Rig.start(t)
  const rack = await rig.provider('rack', { kind: 'STATIC', family: 'metal' })
  const empty = await rig.provider('bare', { kind: 'STATIC', family: 'metal' })
  const name = new Map<string, string>()
  const machine = async (title: string, over: Parameters<Rig['machine']>[2] = {}) => {
    const id = await rig.machine(rack, title, over)
    name.set((await rig.machineRow(id)).name, title)
    return id
  }
  await machine('large', { labels: { rack: 'b12' }, shape: { ...smallShape, memoryMib: 8192 } })
  await machine('small', { labels: { rack: 'b12' } })
  await machine('used', { labels: { rack: 'b12' }, state: 'ACTIVE' })
  await machine('elsewhere', { labels: { rack: 'b13' } })
  await machine('tiny', { labels: { rack: 'b12' }, shape: { ...smallShape, vcpus: 1 } })
  await machine('unknown', { labels: { rack: 'b12' }, shape: null })
  await machine('new', { labels: { rack: 'b12' }, shape: null, state: 'DISCOVERED' })
  const cordoned = await machine('cordoned', { labels: { rack: 'b12' } })
  await rig.db.updateTable('machines').set({ cordoned: true }).where('id', '=', cordoned).execute()
  const missing = await machine('missing', { labels: { rack: 'b12' } })
  const absent = [{ type: 'Present', status: 'FALSE', reason: 'NotListed', message: '', lastTransitionAt: '' }]
  await rig.db
    .updateTable('machines')
    .set({ conditions: JSON.stringify(absent) })
    .where('id', '=', missing)
    .execute()
  const relabelled = await machine('relabelled', { labels: { rack: 'b12' } })
  await rig.db
    .updateTable('machines')
    .set({ labels: JSON.stringify({ rack: 'b99' }) })
    .where('id', '=', relabelled)
    .execute()
  await machine('removed', { labels: { rack: 'b12' }, state: 'GONE' })

  const spec = classOf({
    machineSelector: {
      labelSelector: 'rack in (b12),!broken,rack!=b14,rack',
      provider: 'rack',
      providerData: { raid: 1 },
      price: euros(7),
    },
  })
  const judged = await judge(rig, spec)
  const named = judged.map(
    ({ candidate, rejected }) =>
      `${name.get(candidate.machine?.name ?? '')}${rejected === undefined ? '' : ` ${rejected.reason}`}`,
  )
  t.strictSame(named.slice(0, 2), ['small', 'large'], 'the smallest that does')
  t.strictSame(named.slice(2).sort(), [
    'cordoned MACHINE_CORDONED',
    'elsewhere SELECTOR_MISMATCH',
    'missing MACHINE_MISSING',
    'new MACHINE_NOT_AVAILABLE',
    'relabelled SELECTOR_MISMATCH',
    'tiny SHAPE_TOO_SMALL',
    'unknown ARCHITECTURE_MISMATCH',
    'used MACHINE_NOT_AVAILABLE',
  ])
  t.match(judged[0]?.candidate, { price: { hourlyMicros: 7 }, providerData: { raid: 1 } })
  t.equal(
    (await loadCandidates(rig.db, orderer, spec, anywhere, { explain: false })).length,
    2,
    'what will not do is read only for who asks',
  )

  const any = await judge(rig, classOf({ machineSelector: { labelSelector: '', provider: 'bare', providerData: {} } }))
  t.match(any, [
    { candidate: { machine: null, provider: { id: empty.providerId } }, rejected: { reason: 'NO_AVAILABLE_MACHINE' } },
  ])
  t.ok(mayWait(any), 'a rack that has nothing yet may be waited for')
  const mixed = await judge(
    rig,
    classOf({
      shape: { ...smallShape, vcpus: 0, memoryMib: 0, diskGib: 0, architecture: '', diskClass: '' },
      machineSelector: { labelSelector: 'rack=b12', provider: '', providerData: {} },
    }),
  )
  t.equal(
    mixed.filter(({ rejected }) => rejected === undefined).length,
    4,
    'who asks for nothing takes what is not known as well',
  )
})

void t.test('a quota is of a credential, and of a market', async (t) => {
  const rig = await Rig.start(t)
  const larger = { ...smallShape, vcpus: 4, memoryMib: 8192 }
  const offerings = [{}, { location: 'nbg1' }, { typeId: 'large', shape: larger, price: euros(20_000) }]
  const one = await rig.provider('one', { offerings })
  const other = await rig.provider('other', { offerings })
  await rig.provider('alone', { offerings: [{ price: euros(99_000) }] })
  const secret = 'organizations/default/secrets/cloud'
  for (const { providerId } of [one, other])
    await rig.db.updateTable('providers').set({ credentials_secret: secret }).where('id', '=', providerId).execute()
  const refused = (typeId: string, providerData: JsonObject = {}) =>
    ({ provider_id: one.providerId, type_id: typeId, location: 'fsn1', spec: { providerData } }) as MachineRequestRow
  const hold = (request: MachineRequestRow, code: 'CAPACITY' | 'QUOTA') =>
    inTransaction(rig.db, (tx) => holdCapacity(tx, request, code, 'no more'))
  const places = async (spec = classOf({ offerings: [offering()] })) =>
    brief((await judge(rig, spec)).filter(({ rejected }) => rejected === undefined))
  const inMarket = (market: string) => places(classOf({ offerings: [offering({ providerData: { market } })] }))

  await hold(refused('small'), 'CAPACITY')
  t.strictSame(
    await places(),
    ['one small nbg1', 'other small nbg1', 'one large fsn1', 'other large fsn1', 'alone small fsn1'],
    'the type in its location, at both: it is one account',
  )
  t.ok((await inMarket('spot')).includes('one small fsn1'), 'another market has its own')

  await hold(refused('large'), 'QUOTA')
  t.strictSame(
    await places(),
    ['one small nbg1', 'other small nbg1', 'alone small fsn1'],
    'what needs less may still fit',
  )
  const told = (await judge(rig, classOf({ offerings: [offering()] }))).filter(
    ({ candidate }) => candidate.provider.name === 'other',
  )
  t.match(told.find(({ rejected, candidate }) => rejected !== undefined && candidate.typeId === 'large')?.rejected, {
    reason: 'OFFERING_HELD',
    message: /one was told QUOTA: no more/,
  })
  await hold(refused('small'), 'QUOTA')
  t.strictSame(await places(), ['alone small fsn1'], 'everywhere, at both, and nowhere else')
  await hold(refused('small', { market: 'spot' }), 'QUOTA')
  t.strictSame(await inMarket('spot'), ['alone small fsn1'])

  t.equal((await readHolds(rig.db, [other.providerId])).get(other.providerId)?.length, 4)
  const release = (typeId: string, location: string) =>
    inTransaction(rig.db, (tx) => releaseHolds(tx, other.providerId, { typeId, location }))
  t.equal(await release('large', 'fsn1'), 0, 'a quota is held nowhere in particular')
  t.equal(await release('small', ''), 3)
  t.strictSame(await places(), [
    'one small fsn1',
    'one small nbg1',
    'other small fsn1',
    'other small nbg1',
    'alone small fsn1',
  ])
  t.equal(await release('', ''), 1)
  t.equal((await places()).length, 7)
})

void t.test('what is said of types that nobody lists is held as well', async (t) => {
  const rig = await Rig.start(t)
  const silent = await rig.provider('silent', { offerings: null })
  const spec = classOf({ offerings: [offering({ typeId: 'small', locations: ['x', 'y'], price: euros(5) })] })
  const request = {
    provider_id: silent.providerId,
    type_id: 'small',
    location: 'x',
    spec: { providerData: {} },
  } as MachineRequestRow
  await inTransaction(rig.db, (tx) => holdCapacity(tx, request, 'CAPACITY', 'none'))
  t.strictSame(brief(await judge(rig, spec)), ['silent small y', 'silent small x OFFERING_HELD'])
})

void t.test('where creates keep failing, others go first', async (t) => {
  const rig = await Rig.start(t)
  const cloud = await rig.provider('cloud', {
    offerings: [
      { location: 'x', price: euros(1) },
      { location: 'y', price: euros(2) },
    ],
  })
  const rack = await rig.provider('rack', { kind: 'STATIC', family: 'metal' })
  const machines = [await rig.machine(rack, 'a'), await rig.machine(rack, 'b')]
  const spec = classOf({ offerings: [offering()] })
  const fails = (place: Partial<MachineRequestRow>) =>
    inTransaction(rig.db, (tx) =>
      countFailedCreate(tx, {
        ...{ provider_id: cloud.providerId, type_id: 'small', location: 'x', static: false, machine_id: null },
        ...place,
      }),
    )
  await fails({})
  t.strictSame(brief(await judge(rig, spec)), ['cloud small x', 'cloud small y'], 'once is no habit')
  await fails({})
  const judged = await judge(rig, spec)
  t.strictSame(brief(judged), ['cloud small y', 'cloud small x'])
  t.match(judged[1]?.candidate.failures, { creates: 0 })
  await rig.db
    .updateTable('place_failures')
    .set({ failed_at: new Date(Date.now() - 3_600_000) })
    .execute()
  t.strictSame(brief(await judge(rig, spec)), ['cloud small x', 'cloud small y'], 'it is forgotten with time')

  const metal = classOf({ machineSelector: { labelSelector: '', provider: 'rack', providerData: {} } })
  const first = (await judge(rig, metal))[0]?.candidate.machine?.id
  for (let count = 0; count < 2; count++)
    await fails({ provider_id: rack.providerId, type_id: '', location: '', static: true, machine_id: first ?? null })
  t.equal(
    (await judge(rig, metal))[0]?.candidate.machine?.id,
    machines.find((id) => id !== first),
    'of machines, each by itself',
  )
})
