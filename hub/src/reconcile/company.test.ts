import t from 'tap'
import type { HostAffinity } from '../domain/host/host.js'
import type { ClaimedItem } from '../store/work-items.js'
import { euros, eventually, Rig, type FakeInstance, type HostOptions } from '../../testing/reconcile-rig.js'

const apart = (domain: HostAffinity['domain'], over: Partial<HostAffinity> = {}): HostAffinity => ({
  ...{ side: 'APART', domain, labelSelector: 'app=web', required: true },
  ...over,
})
const web = (placement: HostOptions['placement'], over: HostOptions = {}): HostOptions => ({
  ...{ labels: { app: 'web' }, className: 'small', placement: placement ?? {} },
  ...over,
})

/** Claims until there is something. */
async function claimed(instance: FakeInstance): Promise<ClaimedItem> {
  const [item] = await eventually(
    () => instance.claim(),
    (found) => found.length > 0,
    () => 'an item to claim',
  )
  if (item === undefined) throw new Error('nothing was claimed')
  return item
}

void t.test('hosts that must be apart never meet, however many come at once', async (t) => {
  const rig = await Rig.start(t)
  await rig.provider('cloud', {
    offerings: ['x', 'y', 'z'].map((location, index) => ({ location, price: euros(index + 1) })),
  })
  rig.reconcile(3)
  const ids = await Promise.all(
    Array.from({ length: 8 }, (_, index) => rig.order(`web-${index}`, web({ affinities: [apart('LOCATION')] }))),
  )
  const seen = await Promise.all(
    ids.map((id) => rig.until(id, (host) => host.state_message !== '', 'placed, or a reason')),
  )
  const placed = seen.filter(({ state }) => state === 'PLACED')
  const locations = await Promise.all(placed.map(async ({ id }) => (await rig.requests(id))[0]?.location))
  t.strictSame(locations.sort(), ['x', 'y', 'z'])
  const waiting = seen.find(({ state }) => state === 'ORDERED')
  t.match(waiting?.state_message, /is in a location with a host app=web/)

  const [first] = placed
  if (first === undefined) throw new Error('somebody was placed')
  await rig.ask(first.id, 'RELEASING')
  await rig.until(first.id, (host) => host.state === 'RELEASED', 'released')
  const deadline = await Promise.any(
    seen
      .filter(({ state }) => state === 'ORDERED')
      .map(({ id }) => rig.until(id, (host) => host.state === 'PLACED', 'the room that was left')),
  )
  t.ok(deadline.request_id)
})

void t.test('near to others, and spread', async (t) => {
  const rig = await Rig.start(t)
  await rig.provider('cloud', {
    offerings: ['x', 'y'].map((location, index) => ({ location, price: euros(index + 1) })),
  })
  rig.reconcile()
  const at = async (id: string) => {
    await rig.until(id, (host) => host.state === 'PLACED', 'placed')
    return (await rig.requests(id))[0]?.location
  }
  const db = await rig.order('db', { labels: { app: 'db' }, placement: { locations: ['y'] } })
  t.equal(await at(db), 'y')
  const near = { side: 'NEAR', domain: 'LOCATION', labelSelector: 'app=db' } as const
  t.equal(
    await at(await rig.order('must', web({ affinities: [{ ...near, required: true }] }))),
    'y',
    'though it is dearer',
  )
  t.equal(await at(await rig.order('would', web({ affinities: [{ ...near, required: false }] }))), 'y')
  const lone = await rig.order('lone', web({ affinities: [{ ...near, labelSelector: 'app=absent', required: true }] }))
  const waits = await rig.until(lone, (host) => host.state_message !== '', 'a reason')
  t.match(waits, { state: 'ORDERED', state_message: /waits for a host app=absent to be near to/ })

  const spread = [{ domain: 'LOCATION', labelSelector: 'app=cache' }] as const
  const caches: (string | undefined)[] = []
  for (let index = 0; index < 4; index++)
    caches.push(await at(await rig.order(`cache-${index}`, { labels: { app: 'cache' }, placement: { spread } })))
  t.strictSame(caches, ['x', 'y', 'x', 'y'])
})

void t.test('over racks', async (t) => {
  const rig = await Rig.start(t)
  const rack = await rig.provider('metal', { kind: 'STATIC', family: 'metal' })
  for (const name of ['a1', 'a2', 'b1']) await rig.machine(rack, name, { labels: { rack: name.slice(0, 1) } })
  rig.reconcile()
  const spec = { offerings: [], machineSelector: { labelSelector: '', provider: '', providerData: {} } }
  const ids = await Promise.all(
    ['one', 'two', 'three'].map((name) =>
      rig.order(name, web({ affinities: [apart('RACK')] }, { spec, className: 'metal' })),
    ),
  )
  const seen = await Promise.all(
    ids.map((id) => rig.until(id, (host) => host.state_message !== '', 'placed, or a reason')),
  )
  t.strictSame(seen.map(({ state }) => state).sort(), ['ORDERED', 'PLACED', 'PLACED'])
  const racks = await Promise.all(
    seen.flatMap(({ machine_id: id }) =>
      id === null ? [] : [rig.machineRow(id).then((row) => row.external_id?.slice(0, 1))],
    ),
  )
  t.strictSame(racks.sort(), ['a', 'b'])
})

void t.test('the next best place, where there is none, with all that was tried on the host', async (t) => {
  const rig = await Rig.start(t)
  const cheap = await rig.provider('cheap', {
    offerings: [
      { location: 'x', price: euros(1) },
      { location: 'y', price: euros(2) },
    ],
  })
  const dear = await rig.provider('dear', { offerings: [{ location: 'z', price: euros(9) }] })
  rig.reconcile()
  const id = await rig.order('web', web({ locations: ['x', 'y', 'z'] }))
  const fail = async (instance: typeof cheap, code: 'CAPACITY' | 'QUOTA') => {
    await rig.until(
      id,
      (host) => host.state === 'PLACED' && host.provider_id === instance.providerId,
      `placed before ${code}`,
    )
    const failure = { code, message: `no ${code}`, retryable: false, externalCode: 'x', step: 'create' }
    await instance.report(await claimed(instance), { failure })
    const gone = await claimed(instance)
    const { operation_generation: operationGeneration = 0 } = (await rig.requests(id)).at(-1) ?? {}
    await instance.report(gone, {
      observed: { generation: gone.generation, presence: 'ABSENT' },
      completed: { operation: 'DEPROVISION', operationGeneration },
    })
  }
  await fail(cheap, 'CAPACITY')
  await fail(cheap, 'QUOTA')
  const placed = await rig.until(
    id,
    (host) => host.state === 'PLACED' && host.provider_id === dear.providerId,
    'the next best',
  )
  t.strictSame(
    placed.attempts.map(({ provider, location, error }) => [provider, location, error.code, error.message]),
    [
      ['cheap', 'x', 'CAPACITY', 'no CAPACITY'],
      ['cheap', 'y', 'QUOTA', 'no QUOTA'],
    ],
  )
  const holds = await rig.db.selectFrom('capacity_holds').select(['code', 'location']).orderBy('code').execute()
  t.strictSame(holds, [
    { code: 'CAPACITY', location: 'x' },
    { code: 'QUOTA', location: '' },
  ])
  const failures = await rig.db.selectFrom('place_failures').select(['location', 'failures']).execute()
  t.strictSame(failures, [{ location: 'x', failures: 1 }], 'a quota is not the place’s fault')
  t.ok((await rig.reasons('providers/cheap')).filter((reason) => reason === 'CapacityHeld').length === 2)
})
