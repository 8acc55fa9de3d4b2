import fc from 'fast-check'
import t from 'tap'
import type { Price, Shape } from '../facts.js'
import { failureDomains, type HostAffinity, type PlacementWish, type SpreadWish } from '../host/host.js'
import { companyWishes, domainOf, isCompany, mustKeepCompany, whereIs, type Company } from './company.js'
import { explainPlacement } from './criteria.js'
import { judgePlacement, type Candidate, type PlacementOrder } from './placement.js'

const shape: Shape = { vcpus: 2, memoryMib: 4096, diskGib: 40, diskClass: '', architecture: 'amd64' }
const euros = (hourlyMicros: number): Price => ({ currency: 'EUR', hourlyMicros, monthlyMicros: 0, setupMicros: 0 })
const anywhere: PlacementWish = { providers: [], families: [], locations: [], maxHourlyMicros: 0 }

function place(
  provider: string,
  location: string,
  over: { price?: number; rack?: string; failures?: Candidate['failures'] } = {},
): Candidate {
  const { rack } = over
  return {
    provider: {
      ...{
        id: provider,
        name: provider,
        family: 'f',
        kind: rack === undefined ? 'DYNAMIC' : 'STATIC',
        state: 'CONNECTED',
        draining: false,
      },
      ...{ health: 'HEALTHY', healthMessage: '', backlog: 0, region: '', residency: [], claim: null },
    },
    ...{
      offeringIndex: 0,
      typeId: rack === undefined ? 'small' : '',
      location,
      shape,
      price: euros(over.price ?? 10_000),
      providerData: {},
    },
    ...{ offered: true, available: true, remaining: null, holds: [], failures: over.failures ?? null },
    machine:
      rack === undefined
        ? null
        : {
            ...{
              id: `${provider} ${location} ${rack}`,
              name: `m-${rack}`,
              state: 'AVAILABLE',
              cordoned: false,
              maintenance: false,
              held: false,
            },
            ...{ rack, rackLoad: 0, selected: true, listed: true, contested: false },
          },
  }
}

const company = (counts: Readonly<Record<string, number>>, includesOrder = false): Company => ({
  counts: new Map(Object.entries(counts)),
  includesOrder,
})
const near = (over: Partial<HostAffinity> = {}): HostAffinity => ({
  ...{ side: 'NEAR', domain: 'LOCATION', labelSelector: 'app=db', required: true },
  ...over,
})
const orderOf = (wish: Partial<PlacementWish>, ...seen: readonly Company[]): PlacementOrder => ({
  shape,
  placement: { ...anywhere, ...wish },
  company: seen,
})
const told = (order: PlacementOrder, places: readonly Candidate[]) => {
  const judged = judgePlacement(order, places)
  const why = explainPlacement(judged, order)
  return judged.map(({ candidate, rejected }, index) => [
    `${candidate.location}${candidate.machine?.rack ?? ''}`,
    rejected?.reason ?? '',
    why[index],
  ])
}

void t.test('domains', async (t) => {
  const at = { provider: 'p', location: 'x', rack: 'r1' }
  t.strictSame(
    failureDomains.map((domain) => domainOf(domain, at)),
    ['p', 'x', 'r1@p'],
  )
  t.equal(domainOf('LOCATION', { ...at, location: '' }), '@p', 'a provider that has only one is one of its own')
  t.equal(domainOf('RACK', { ...at, rack: '' }), undefined)
  t.strictSame(whereIs(place('p', 'x', { rack: 'r2' })), { provider: 'p', location: 'x', rack: 'r2' })
})

void t.test('whom a wish is about', async (t) => {
  const [affinity, spread, all] = companyWishes({
    ...anywhere,
    affinities: [near()],
    spread: [
      { domain: 'RACK', labelSelector: 'app=web' },
      { domain: 'RACK', labelSelector: '' },
    ],
  })
  if (affinity === undefined || spread === undefined || all === undefined) throw new Error('three wishes')
  const alone = { hostSetId: null }
  const db = { labels: { app: 'db' }, hostSetId: 's' }
  t.ok(isCompany(affinity, alone, db))
  t.notOk(isCompany(spread, alone, db))
  t.ok(isCompany(all, alone, db), 'all hosts of the workspace')
  t.ok(isCompany(all, { hostSetId: 's' }, db), 'or the members of its own set')
  t.notOk(isCompany(all, { hostSetId: 'other' }, db))
})

void t.test('near and apart', async (t) => {
  const places = [place('a', 'x'), place('a', 'y', { price: 20_000 })]
  t.strictSame(told(orderOf({ affinities: [near()] }, company({ y: 1 })), places), [
    ['y', '', 'it is the only one that will do'],
    ['x', 'AFFINITY_MISMATCH', 'a: small in x is in a location with no host app=db'],
  ])
  t.strictSame(told(orderOf({ affinities: [near({ side: 'APART' })] }, company({ x: 2 })), places), [
    ['y', '', 'it is the only one that will do'],
    ['x', 'AFFINITY_MISMATCH', 'a: small in x is in a location with 2 hosts app=db'],
  ])
  t.strictSame(
    told(orderOf({ affinities: [near({ required: false })] }, company({ y: 1 })), places),
    [
      ['y', '', 'its location has hosts app=db, which the order would rather be near to'],
      ['x', '', 'its location has no host app=db, which the order would rather be near to'],
    ],
    'before the price',
  )
  t.match(told(orderOf({ affinities: [near()] }, company({})), places)[0], [
    'x',
    'AFFINITY_MISMATCH',
    /waits for a host app=db/,
  ])
  t.equal(
    told(orderOf({ affinities: [near()] }, company({}, true)), places)[0]?.[1],
    '',
    'the first one of its kind may be anywhere',
  )
  t.match(told(orderOf({ affinities: [near({ domain: 'RACK', side: 'APART' })] }, company({})), places), [
    ['x', 'AFFINITY_MISMATCH', /does not say which rack it stands in/],
    ['y', 'AFFINITY_MISMATCH'],
  ])
  t.notOk(mustKeepCompany({ ...anywhere, affinities: [near({ required: false })] }))
  t.ok(mustKeepCompany({ ...anywhere, affinities: [near()] }))
})

void t.test('spread', async (t) => {
  const racks = ['r1', 'r2', 'r3'].map((rack) => place('m', '', { rack }))
  const order = orderOf(
    { spread: [{ domain: 'RACK', labelSelector: '' }] },
    company({ 'r1@m': 2, 'r2@m': 1, 'r3@m': 3 }),
  )
  t.strictSame(told(order, racks), [
    ['r2', '', 'its rack has the fewest hosts that the order is spread over'],
    ['r1', '', 'its rack has 2 hosts that the order is spread over'],
    ['r3', '', 'its rack has 3 hosts that the order is spread over'],
  ])
  const twice = orderOf(
    {
      spread: [
        { domain: 'PROVIDER', labelSelector: 'app=web' },
        { domain: 'LOCATION', labelSelector: 'app=web' },
      ],
    },
    company({ a: 2, b: 2 }),
    company({ x: 2, y: 1, z: 1 }),
  )
  const judged = judgePlacement(twice, [
    place('a', 'x'),
    place('a', 'y', { price: 20_000 }),
    place('b', 'z', { price: 15_000 }),
  ])
  t.equal(judged[0]?.candidate.location, 'z', 'the second domain among equals, and then the price')
})

void t.test('where creates keep failing', async (t) => {
  const order = orderOf({})
  const flaky = place('a', 'x', { failures: { failures: 4, creates: 5 } })
  t.strictSame(told(order, [flaky, place('a', 'y', { price: 20_000 })]), [
    ['y', '', 'creates fail there less often'],
    ['x', '', 'creates keep failing there: 4 of the latest 5'],
  ])
  t.equal(told(order, [flaky])[0]?.[0], 'x', 'it is the last choice, and still one')
})

// Properties ---------------------------------------------------------------------------------------------------------------------------------------------------

const anyPlace = fc
  .record({
    provider: fc.constantFrom('a', 'b', 'c'),
    location: fc.constantFrom('', 'x', 'y', 'z'),
    rack: fc.option(fc.constantFrom('', 'r1', 'r2'), { nil: undefined }),
    price: fc.constantFrom(1, 2, 3),
    failures: fc.option(fc.record({ failures: fc.nat(6), creates: fc.nat(40) })),
  })
  .map(({ provider, location, rack, price, failures }) =>
    place(provider, rack === undefined ? location : '', { price, failures, ...(rack !== undefined && { rack }) }),
  )
const anyPlaces = fc.uniqueArray(anyPlace, {
  maxLength: 12,
  selector: ({ provider, location, machine }) => JSON.stringify([provider.name, location, machine?.rack]),
})
const anyDomain = fc.constantFrom(...failureDomains)
const anyCompany = fc.record({
  counts: fc
    .dictionary(fc.constantFrom('a', 'b', 'c', 'x', 'y', 'z', '@a', 'r1@a', 'r2@b'), fc.integer({ min: 1, max: 4 }))
    .map((counts) => new Map(Object.entries(counts))),
  includesOrder: fc.boolean(),
})
const anyAffinity: fc.Arbitrary<HostAffinity> = fc.record({
  side: fc.constantFrom('NEAR' as const, 'APART' as const),
  domain: anyDomain,
  labelSelector: fc.constant('app=db'),
  required: fc.boolean(),
})
const anySpread: fc.Arbitrary<SpreadWish> = fc.record({
  domain: anyDomain,
  labelSelector: fc.constantFrom('', 'app=web'),
})
const anyOrder = fc
  .record({
    affinities: fc.array(anyAffinity, { maxLength: 3 }),
    spread: fc.array(anySpread, { maxLength: 2 }),
    seen: fc.array(anyCompany, { minLength: 5, maxLength: 5 }),
  })
  .map(({ seen, ...wish }) => orderOf(wish, ...seen.slice(0, wish.affinities.length + wish.spread.length)))

void t.test('the order in which places come does not matter', async () => {
  fc.assert(
    fc.property(anyOrder, anyPlaces, fc.infiniteStream(fc.nat()), (order, places, random) => {
      const shuffled = places
        .map((one) => [random.next().value as number, one] as const)
        .sort(([one], [other]) => one - other)
        .map(([, one]) => one)
      const brief = (judged: ReturnType<typeof judgePlacement>) =>
        JSON.stringify(judged.map(({ candidate, rejected }) => [candidate, rejected?.reason]))
      return brief(judgePlacement(order, places)) === brief(judgePlacement(order, shuffled))
    }),
    { numRuns: 1000 },
  )
})

void t.test('what must be is never broken, and whatever keeps it may be had', async () => {
  fc.assert(
    fc.property(anyOrder, anyPlaces, (order, places) =>
      judgePlacement(order, places).every(({ candidate, rejected }) => {
        const kept = (order.placement.affinities ?? []).every(({ side, domain, required }, index) => {
          const seen = order.company?.[index]
          if (!required || seen === undefined) return true
          const at = domainOf(domain, whereIs(candidate))
          const there = at === undefined ? undefined : seen.counts.get(at)
          if (side === 'APART') return at !== undefined && there === undefined
          return there !== undefined || (seen.counts.size === 0 && seen.includesOrder)
        })
        return kept === (rejected === undefined)
      }),
    ),
    { numRuns: 2000 },
  )
})

void t.test(
  'another host in a domain never makes a place of it better for a spread, nor worse for one that wants to be near',
  async () => {
    const position = (order: PlacementOrder, places: readonly Candidate[], of: Candidate) =>
      judgePlacement(order, places).findIndex(({ candidate }) => candidate === of)
    fc.assert(
      fc.property(anyPlaces, anyDomain, anyCompany, fc.nat(), (places, domain, seen, pick) => {
        const of = places[pick % Math.max(1, places.length)]
        const at = of && domainOf(domain, whereIs(of))
        if (of === undefined || at === undefined) return true
        const more: Company = { ...seen, counts: new Map([...seen.counts, [at, (seen.counts.get(at) ?? 0) + 1]]) }
        const wishes: readonly Partial<PlacementWish>[] = [
          { spread: [{ domain, labelSelector: '' }] },
          { affinities: [{ side: 'APART', domain, labelSelector: 'app=db', required: false }] },
          { affinities: [{ side: 'NEAR', domain, labelSelector: 'app=db', required: false }] },
        ]
        return wishes.every((wish, index) => {
          const rivals = places.filter((one) => one === of || domainOf(domain, whereIs(one)) !== at)
          const before = position(orderOf(wish, seen), rivals, of)
          const after = position(orderOf(wish, more), rivals, of)
          return index === 2 ? after <= before : after >= before
        })
      }),
      { numRuns: 1000 },
    )
  },
)

void t.test('each place is told why', async () => {
  fc.assert(
    fc.property(anyOrder, anyPlaces, (order, places) => {
      const why = explainPlacement(judgePlacement(order, places), order)
      return why.length === places.length && why.every((text) => text !== '')
    }),
    { numRuns: 1000 },
  )
})
