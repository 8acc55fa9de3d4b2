import fc from 'fast-check'
import t from 'tap'
import type { Price, Shape } from '../facts.js'
import { machineStates } from '../machine/machine.js'
import { comparePrices, effectivePrice, formatMicros, hourlyMicros } from '../price/price.js'
import {
  describePlace,
  judgePlacement,
  layProviderData,
  mayWait,
  promisedElsewhere,
  rejectionReasons,
  type Candidate,
  type PlacementOrder,
} from './placement.js'
import { explainPlacement } from './criteria.js'
import type { CapacityHold } from './holds.js'
import { compareShapes, shapeMismatch } from './shape.js'

const shape: Shape = { vcpus: 2, memoryMib: 4096, diskGib: 40, diskClass: '', architecture: 'amd64' }
const euros = (hourlyMicros: number): Price => ({ currency: 'EUR', hourlyMicros, monthlyMicros: 0, setupMicros: 0 })
const order: PlacementOrder = { shape, placement: { providers: [], families: [], locations: [], maxHourlyMicros: 0 } }

function candidate(over: Partial<Candidate> = {}, provider: Partial<Candidate['provider']> = {}): Candidate {
  return {
    provider: {
      id: 'p1',
      name: 'fsn1',
      family: 'simulated',
      kind: 'DYNAMIC',
      state: 'CONNECTED',
      draining: false,
      health: 'HEALTHY',
      healthMessage: '',
      backlog: 0,
      region: '',
      residency: [],
      claim: null,
      ...provider,
    },
    offeringIndex: 0,
    typeId: 'small',
    location: 'fsn1',
    shape,
    price: euros(10_000),
    providerData: {},
    offered: true,
    available: true,
    remaining: null,
    holds: [],
    failures: null,
    machine: null,
    ...over,
  }
}

const hold: CapacityHold = {
  ...{ code: 'CAPACITY' as const, provider: 'fsn1', typeId: 'small', location: 'fsn1', market: '', shape: null },
  ...{ until: '2026-01-01T00:00:00.000Z', reason: 'CAPACITY: none left' },
}

function machine(
  over: Partial<NonNullable<Candidate['machine']>> = {},
  provider: Partial<Candidate['provider']> = {},
): Candidate {
  const free = {
    id: 'm1',
    name: 'm-1',
    state: 'AVAILABLE',
    cordoned: false,
    maintenance: false,
    held: false,
    rack: '',
    rackLoad: 0,
    selected: true,
    listed: true,
    contested: false,
  } as const
  return candidate(
    { typeId: '', location: '', price: null, machine: { ...free, ...over } },
    { kind: 'STATIC', name: 'rack', ...provider },
  )
}

void t.test('each reason for falling out', async (t) => {
  const placement = order.placement
  const cases: readonly (readonly [keyof typeof rejectionReasons, Candidate, Partial<PlacementOrder['placement']>?])[] =
    [
      ['PROVIDER_NOT_ALLOWED', candidate(), { providers: ['hel1'] }],
      ['FAMILY_NOT_ALLOWED', candidate(), { families: ['qemu'] }],
      ['LOCATION_NOT_ALLOWED', candidate(), { locations: ['hel1'] }],
      ['REGION_NOT_ALLOWED', candidate({}, { region: 'us-east' }), { regions: ['eu-central'] }],
      ['RESIDENCY_MISMATCH', candidate({}, { residency: ['eu'] }), { residency: ['eu', 'iso-27001'] }],
      ['TRIAL_OVER', candidate({}, { claim: { includedHosts: null, hosts: 0, trialOver: true } })],
      ['INCLUDED_HOSTS_USED', candidate({}, { claim: { includedHosts: 2, hosts: 2, trialOver: false } })],
      ['PRICE_UNKNOWN', candidate({ price: null }), { maxHourlyMicros: 1 }],
      ['PRICE_TOO_HIGH', candidate(), { maxHourlyMicros: 9_999 }],
      ['ARCHITECTURE_MISMATCH', candidate({ shape: { ...shape, architecture: 'arm64' } })],
      ['SHAPE_TOO_SMALL', candidate({ shape: { ...shape, vcpus: 1 } })],
      ['NOT_OFFERED', candidate({ offered: false })],
      ['PROVIDER_DRAINING', candidate({}, { draining: true })],
      ['PROVIDER_PENDING', candidate({}, { state: 'PENDING' })],
      ['PROVIDER_DISCONNECTED', candidate({}, { state: 'DISCONNECTED' })],
      ['PROVIDER_UNHEALTHY', candidate({}, { health: 'UNHEALTHY', healthMessage: 'bad credentials' })],
      ['OFFERING_HELD', candidate({ holds: [hold] })],
      ['OFFERING_UNAVAILABLE', candidate({ available: false })],
      ['OFFERING_UNAVAILABLE', candidate({ remaining: 0 })],
      ['NO_AVAILABLE_MACHINE', { ...machine(), machine: null }],
      ['SELECTOR_MISMATCH', machine({ selected: false })],
      ['MACHINE_IN_MAINTENANCE', machine({ maintenance: true })],
      ['MACHINE_HELD', machine({ held: true })],
      ['MACHINE_CORDONED', machine({ cordoned: true })],
      ['MACHINE_NOT_AVAILABLE', machine({ state: 'CLEANING' })],
      ['MACHINE_MISSING', machine({ listed: false })],
    ]
  const seen = new Set<string>(['DISK_CLASS_MISMATCH', 'AFFINITY_MISMATCH'])
  const [free] = judgePlacement(order, [machine()])
  const promised = free && promisedElsewhere(free)
  t.match(promised, { chosen: false, rejected: { reason: 'MACHINE_PROMISED' } })
  t.ok(promised !== undefined && mayWait([promised]))
  seen.add('MACHINE_PROMISED')
  const byLimits = (['QUOTA_EXCEEDED', 'BUDGET_EXCEEDED'] as const).map(
    (reason) => [reason, candidate(), {}, () => ({ reason, message: 'so much is taken' })] as const,
  )
  for (const [reason, place, wish, excess] of [...cases.map((one) => [...one, undefined] as const), ...byLimits]) {
    const placed = { ...order, placement: { ...placement, ...wish }, ...(excess !== undefined && { excess }) }
    const [judged] = judgePlacement(placed, [place])
    t.equal(judged?.chosen, false)
    t.equal(judged?.rejected?.reason, reason)
    t.match(judged?.rejected?.message, describePlace(place), 'the message names the place')
    t.equal(mayWait(judged === undefined ? [] : [judged]), rejectionReasons[reason] === 'passing', reason)
    seen.add(reason)
  }
  t.strictSame([...seen].sort(), Object.keys(rejectionReasons).sort(), 'all of them')
  const [disk] = judgePlacement({ ...order, shape: { ...shape, diskClass: 'nvme' } }, [candidate()])
  t.equal(disk?.rejected?.reason, 'DISK_CLASS_MISMATCH')
  t.match(
    judgePlacement({ ...order, placement: { ...placement, maxHourlyMicros: 5_100 } }, [candidate()])[0]?.rejected
      ?.message,
    '0.01 EUR an hour, over the limit of 0.0051 EUR',
  )
  t.notOk(mayWait([]), 'for nothing at all nobody waits')
})

void t.test('the better one is chosen', async (t) => {
  const chosen = (places: readonly Candidate[], attempts: PlacementOrder['attempts'] = []) =>
    judgePlacement({ ...order, attempts }, places).find((judged) => judged.chosen)?.candidate
  const pairs: readonly (readonly [string, Candidate, Candidate])[] = [
    ['healthy before degraded', candidate({ price: euros(20_000) }), candidate({}, { name: 'a', health: 'DEGRADED' })],
    ['cheap before dear', candidate({ price: euros(9_999) }), candidate({}, { name: 'a' })],
    ['known prices before unknown', candidate({ price: euros(9_999_999) }), candidate({ price: null }, { name: 'a' })],
    ['machines that are there already before bought ones', machine(), candidate({ price: euros(1) }, { name: 'a' })],
    ['idle before busy', candidate({}, { backlog: 3 }), candidate({}, { name: 'a', backlog: 4 })],
    ['much left before little', candidate({ remaining: 9 }), candidate({ remaining: 8 }, { name: 'a' })],
    ['small before large', candidate(), candidate({ shape: { ...shape, memoryMib: 8192 } }, { name: 'a' })],
    [
      'the emptier rack before the fuller',
      machine({ id: 'b', name: 'b', rack: 'r2', rackLoad: 1 }),
      machine({ id: 'a', name: 'a', rack: 'r1', rackLoad: 2 }),
    ],
    ['then by name', candidate({}, { name: 'a' }), candidate({}, { name: 'b' })],
    ['and by type', candidate({ typeId: 'a' }), candidate({ typeId: 'b' })],
    ['and by machine', machine({ name: 'm-1' }), machine({ name: 'm-2', id: 'm2' })],
    ['and by the order in the class', candidate(), candidate({ offeringIndex: 1 })],
  ]
  for (const [what, better, worse] of pairs) {
    t.equal(chosen([better, worse]), better, what)
    t.equal(chosen([worse, better]), better, `${what}, whichever comes first`)
  }
  const failure = {
    code: 'CAPACITY',
    message: '',
    externalCode: '',
    step: '',
    retryable: false,
    attempts: 1,
    at: '',
  } as const
  const tried = { provider: 'fsn1', request: 'r-1', typeId: 'small', location: 'fsn1', error: failure, startedAt: '' }
  const dear = candidate({ location: 'hel1', price: euros(99_999) })
  t.equal(chosen([candidate(), dear], [tried]), dear, 'another place before one that failed')
  t.ok(chosen([candidate()], [tried]), 'which is still better than none')
})

const anyShape = fc.record({
  vcpus: fc.nat(8),
  memoryMib: fc.constantFrom(0, 2048, 4096, 8192),
  diskGib: fc.constantFrom(0, 20, 40),
  diskClass: fc.constantFrom('', 'ssd', 'nvme'),
  architecture: fc.constantFrom('', 'amd64', 'arm64'),
})
const anyPrice = fc.option(
  fc.record({
    currency: fc.constantFrom('EUR', 'USD'),
    hourlyMicros: fc.nat(30_000),
    monthlyMicros: fc.nat(9_000_000),
    setupMicros: fc.nat(5),
  }),
)
const anyCandidate = fc
  .record({
    kind: fc.constantFrom('STATIC' as const, 'DYNAMIC' as const),
    name: fc.constantFrom('a', 'b', 'c'),
    state: fc.constantFrom(
      'CONNECTED' as const,
      'CONNECTED' as const,
      'CONNECTED' as const,
      'PENDING' as const,
      'DISCONNECTED' as const,
    ),
    draining: fc.integer({ min: 0, max: 9 }),
    health: fc.constantFrom('HEALTHY' as const, 'HEALTHY' as const, 'DEGRADED' as const, 'UNHEALTHY' as const),
    backlog: fc.nat(2),
    typeId: fc.constantFrom('small', 'large'),
    location: fc.constantFrom('', 'x', 'y'),
    shape: fc.option(anyShape),
    price: anyPrice,
    flags: fc.integer({ min: 0, max: 31 }),
    remaining: fc.option(fc.integer({ min: -1, max: 3 })),
    machineState: fc.constantFrom('AVAILABLE' as const, 'AVAILABLE' as const, ...machineStates),
    number: fc.nat(50),
  })
  .map(({ kind, name, state, draining, health, backlog, flags, machineState, number, ...rest }): Candidate => {
    const bit = (position: number) => (flags & (1 << position)) === 0
    return {
      ...rest,
      provider: {
        id: name,
        name,
        family: kind === 'STATIC' ? 'metal' : 'cloud',
        kind,
        state,
        draining: draining === 0,
        health,
        healthMessage: '',
        backlog,
        region: '',
        residency: [],
        claim: null,
      },
      ...(kind === 'STATIC' && { typeId: '', location: '' }),
      offeringIndex: number % 3,
      providerData: { number },
      offered: bit(0) || bit(1),
      available: bit(2) || bit(1),
      holds: bit(3) || bit(1) ? [] : [{ ...hold, typeId: rest.typeId, location: rest.location }],
      failures: bit(2) ? null : { failures: number % 7, creates: number % 11 },
      machine:
        kind === 'DYNAMIC' || number === 0
          ? null
          : {
              id: String(number),
              name: `m-${number}`,
              state: machineState,
              cordoned: !bit(0),
              held: bit(4) && bit(5),
              rack: `r${number % 2}`,
              rackLoad: number % 3,
              maintenance: !bit(2),
              selected: bit(3) || bit(1),
              listed: bit(4) || bit(1),
              contested: false,
            },
    }
  })
const anyOrder = fc.record({
  shape: anyShape,
  placement: fc.record({
    providers: fc.subarray(['a', 'b', 'c'], { maxLength: 2 }),
    families: fc.constantFrom([], [], ['cloud'], ['metal']),
    locations: fc.constantFrom([], [], ['x'], ['', 'y']),
    maxHourlyMicros: fc.constantFrom(0, 0, 15_000),
  }),
})

void t.test(
  'whatever the places: one that would do is chosen if there is one, the others have reasons, and their order does not matter',
  async () => {
    fc.assert(
      fc.property(
        anyOrder,
        fc.uniqueArray(anyCandidate, { maxLength: 12, selector: (place) => JSON.stringify(rank(place)) }),
        fc.infiniteStream(fc.nat()),
        (anOrder, places, random) => {
          const judged = judgePlacement(anOrder, places)
          if (judged.length !== places.length) return false
          const eligible = judged.filter(({ rejected }) => rejected === undefined)
          const rejected = judged.filter(({ rejected }) => rejected !== undefined)
          const chosen = judged.filter((one) => one.chosen)
          if (chosen.length !== Math.min(1, eligible.length) || chosen[0] !== eligible[0]) return false
          if (judged.slice(0, eligible.length).some(({ rejected }) => rejected !== undefined)) return false
          if (rejected.some((one) => one.rejected?.message === '' || !(one.rejected!.reason in rejectionReasons)))
            return false
          for (const { candidate } of eligible) if (!doesDo(anOrder, candidate)) return false
          const shuffled = [...places]
            .map((place) => ({ place, at: random.next().value as number }))
            .sort((one, other) => one.at - other.at)
          const again = judgePlacement(
            anOrder,
            shuffled.map(({ place }) => place),
          )
          const key = (one: (typeof judged)[number]) =>
            JSON.stringify([rank(one.candidate), one.chosen, one.rejected?.reason])
          return JSON.stringify(judged.map(key)) === JSON.stringify(again.map(key))
        },
      ),
      { numRuns: 5000 },
    )
  },
)

/** What the order of places is by: two that agree in it are the same place. */
function rank({ provider, typeId, location, machine, offeringIndex }: Candidate): unknown {
  return [provider.name, typeId, location, machine?.name, offeringIndex]
}

/** The rules once more, in other words. */
function doesDo({ shape: asked, placement }: PlacementOrder, place: Candidate): boolean {
  const { provider, price, shape: has } = place
  const allowed =
    (placement.providers.length === 0 || placement.providers.includes(provider.name)) &&
    (placement.families.length === 0 || placement.families.includes(provider.family)) &&
    (placement.locations.length === 0 || placement.locations.includes(place.location)) &&
    (placement.maxHourlyMicros === 0 || (price !== null && hourlyMicros(price) <= placement.maxHourlyMicros))
  const large =
    has === null || (has.vcpus >= asked.vcpus && has.memoryMib >= asked.memoryMib && has.diskGib >= asked.diskGib)
  const alike =
    has === null ||
    ((asked.architecture === '' || asked.architecture === has.architecture) &&
      (asked.diskClass === '' || asked.diskClass === has.diskClass))
  const reachable = provider.state === 'CONNECTED' && !provider.draining && provider.health !== 'UNHEALTHY'
  const there =
    provider.kind === 'STATIC'
      ? place.machine !== null &&
        place.machine.state === 'AVAILABLE' &&
        !place.machine.cordoned &&
        !place.machine.maintenance &&
        place.machine.selected &&
        place.machine.listed
      : place.offered &&
        place.available &&
        place.holds.length === 0 &&
        (place.remaining === null || place.remaining > 0)
  return allowed && large && alike && reachable && there
}

void t.test('shapes', async (t) => {
  const nothing: Shape = { vcpus: 0, memoryMib: 0, diskGib: 0, diskClass: '', architecture: '' }
  t.equal(shapeMismatch(nothing, nothing), undefined, 'who asks for nothing gets it')
  t.equal(
    shapeMismatch({ ...nothing, architecture: 'arm64' }, nothing)?.reason,
    'ARCHITECTURE_MISMATCH',
    'what is not known is not there',
  )
  t.match(shapeMismatch(shape, { ...shape, vcpus: 1, diskGib: 20 })?.message, '1 of 2 vCPUs, 20 of 40 GiB disk')
  t.ok(compareShapes(shape, null) < 0 && compareShapes(null, shape) > 0 && compareShapes(null, null) === 0)
})

void t.test('prices', async (t) => {
  t.equal(formatMicros(5_100, 'EUR'), '0.0051 EUR')
  t.equal(formatMicros(0, 'EUR'), '0.00 EUR')
  t.equal(formatMicros(1_500_000, 'USD'), '1.50 USD')
  t.equal(formatMicros(Number.MAX_SAFE_INTEGER, 'EUR'), '9007199254.740991 EUR', 'exactly')
  t.equal(formatMicros(-1, 'EUR'), '-0.000001 EUR')
  t.equal(hourlyMicros({ ...euros(0), monthlyMicros: 7_300_001 }), 10_001, 'a share of the month, rounded up')
  t.equal(hourlyMicros({ ...euros(7), monthlyMicros: 7_300_001 }), 7, 'a monthly price beside an hourly one is a cap')
  t.equal(effectivePrice(undefined, euros(1))?.hourlyMicros, 1)
  t.equal(effectivePrice(euros(2), euros(1))?.hourlyMicros, 2, "the class's own first")
  t.strictSame(layProviderData({ a: 1, b: { c: 1 } }, { b: 2 }), { a: 1, b: 2 })
  fc.assert(
    fc.property(anyPrice, anyPrice, anyPrice, (a, b, c) => {
      const back = Math.sign(comparePrices(a, b)) === -Math.sign(comparePrices(b, a))
      const onwards = !(comparePrices(a, b) <= 0 && comparePrices(b, c) <= 0) || comparePrices(a, c) <= 0
      return back && onwards
    }),
    { numRuns: 2000 },
  )
})

void t.test('each place is told why it was chosen, comes later, or fell out', (t) => {
  const told = (places: readonly Candidate[], over: Partial<PlacementOrder> = {}) => {
    const judged = judgePlacement({ ...order, ...over }, places)
    return judged.map(({ candidate }, index) => [
      candidate.provider.name,
      explainPlacement(judged, { ...order, ...over })[index],
    ])
  }
  const best = candidate({}, { name: 'a' })
  const other = (over: Partial<Candidate>, provider: Partial<Candidate['provider']> = {}) =>
    told([candidate(over, { name: 'b', ...provider }), best])
  t.strictSame(told([best]), [['a', 'it is the only one that will do']])
  t.strictSame(other({ price: euros(20_000) }), [
    ['a', 'it is the cheapest'],
    ['b', 'it costs 0.02 EUR an hour, and the chosen one 0.01 EUR an hour'],
  ])
  t.match(other({ price: null })[1], ['b', 'its price is not known'])
  t.match(other({}, { health: 'DEGRADED', healthMessage: 'slow' }), [
    ['a', 'its provider is healthy'],
    ['b', 'its provider is DEGRADED: slow'],
  ])
  t.match(other({}, { backlog: 3 })[1], ['b', '3 orders wait for its provider'])
  t.match(other({ shape: { ...shape, memoryMib: 8192 } })[1], ['b', 'it is larger than need be'])
  t.match(other({})[1], ['b', 'it is as good, and its name comes later'])
  t.match(other({ available: false }), [
    ['a', 'it is the only one that will do'],
    ['b', 'b: small in fsn1 cannot be had now, its provider says'],
  ])
  t.match(told([machine(), best]), [
    ['rack', 'it is there already and costs nothing more'],
    ['a', 'it costs 0.01 EUR an hour'],
  ])
  const error = {
    code: 'CAPACITY',
    message: '',
    externalCode: '',
    step: '',
    retryable: false,
    attempts: 1,
    at: '',
  } as const
  const attempts = [{ provider: 'a', request: 'r', typeId: 'small', location: 'fsn1', error, startedAt: '' }]
  t.strictSame(told([best, candidate({ price: euros(90_000) }, { name: 'b' })], { attempts }), [
    ['b', 'it was tried less often before'],
    ['a', 'it was tried in vain before'],
  ])
  t.end()
})
