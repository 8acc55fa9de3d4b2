import fc from 'fast-check'
import t from 'tap'
import type { PlacementWish } from '../host/host.js'
import { ageingMs } from './priority.js'
import { untouchedShares, type ShareState } from './share.js'
import { chargeTurn, dealMachines, fitsLane, type FreeMachine, type Lane } from './turns.js'

const nothing = { vcpus: 0, memoryMib: 0, diskGib: 0, diskClass: '', architecture: '' }
const anywhere: PlacementWish = { providers: [], families: [], locations: [], maxHourlyMicros: 0 }
const machine = (
  id: string,
  over: Partial<FreeMachine> = {},
  provider: Partial<FreeMachine['provider']> = {},
): FreeMachine => ({
  ...{ id, labels: { kind: 'any' }, nics: 1, shape: nothing, rack: '' },
  ...over,
  provider: {
    ...{
      id: 'p',
      name: 'rack',
      family: 'metal',
      kind: 'STATIC',
      state: 'CONNECTED',
      draining: false,
      health: 'HEALTHY',
      healthMessage: '',
    },
    ...{ backlog: 0, region: '', residency: [], claim: null },
    ...{ ownerOrganizationId: null, ownerWorkspaceId: null, poolId: null, claimWorkspaceId: null },
    ...provider,
  },
})
const lane = (workspaceId: string, count: number, over: Partial<Lane> = {}): Lane => ({
  ...{
    id: `${workspaceId}-${over.priority ?? 0}-${over.selector?.labelSelector ?? ''}`,
    organizationId: 'o',
    workspaceId,
    priority: 0,
    weight: 1,
  },
  ...{ shape: nothing, selector: { labelSelector: '', provider: '', providerData: {} }, placement: anywhere },
  waiting: Array.from({ length: count }, (_, index) => ({
    hostId: `${workspaceId}${over.priority ?? 0}${index}`,
    sinceMs: index,
  })),
  ...over,
})
const selecting = (labelSelector: string) => ({ selector: { labelSelector, provider: '', providerData: {} } })
const machines = (count: number) => Array.from({ length: count }, (_, index) => machine(`m${index}`))
const counts = (grants: ReturnType<typeof dealMachines>) => {
  const of = new Map<string, number>()
  for (const {
    lane: { workspaceId },
  } of grants)
    of.set(workspaceId, (of.get(workspaceId) ?? 0) + 1)
  return Object.fromEntries(of)
}

void t.test('what fits', async (t) => {
  t.ok(fitsLane(lane('a', 1), machine('m')))
  t.notOk(fitsLane(lane('a', 1, selecting('kind=gpu')), machine('m')))
  t.notOk(fitsLane(lane('a', 1, { shape: { ...nothing, vcpus: 1 } }), machine('m')))
  t.notOk(fitsLane(lane('a', 1, { placement: { ...anywhere, providers: ['other'] } }), machine('m')))
  t.notOk(
    fitsLane(
      lane('a', 1, { selector: { labelSelector: '', provider: 'rack', providerData: {}, minNics: 2 } }),
      machine('m'),
    ),
  )
  t.notOk(
    fitsLane(lane('a', 1), machine('m', {}, { ownerOrganizationId: 'other' })),
    "of others' machines nobody gets any",
  )
  t.notOk(fitsLane(lane('a', 1), machine('m', {}, { draining: true })))
})

void t.test('a burst of one workspace does not starve another', async (t) => {
  const grants = dealMachines(untouchedShares, [lane('a', 100), lane('b', 2)], machines(4), 1_000)
  t.strictSame(counts(grants), { a: 2, b: 2 })
  t.strictSame(
    counts(dealMachines(untouchedShares, [lane('a', 100, { weight: 3 }), lane('b', 100)], machines(8), 1_000)),
    { a: 6, b: 2 },
  )
})

void t.test('urgent ones first, and what has waited for long as if it were', async (t) => {
  const late = lane('b', 1, { priority: 1, waiting: [{ hostId: 'urgent', sinceMs: ageingMs }] })
  const first = (sinceMs: number, nowMs: number) =>
    dealMachines(
      untouchedShares,
      [lane('a', 1, { waiting: [{ hostId: 'patient', sinceMs }] }), late],
      machines(1),
      nowMs,
    )[0]?.hostId
  t.equal(first(ageingMs, ageingMs + 1), 'urgent')
  t.equal(first(0, ageingMs + 1), 'patient', 'as old as that, it goes by its age')
})

void t.test('a lane that wants none of what is there loses nothing, and keeps nobody from it', async (t) => {
  const lanes = [lane('a', 5, selecting('kind=gpu')), lane('b', 5)]
  t.strictSame(counts(dealMachines(untouchedShares, lanes, machines(2), 1_000)), { b: 2 })
  const mixed = [machine('g', { labels: { kind: 'gpu' } }), ...machines(1)]
  t.strictSame(counts(dealMachines(untouchedShares, lanes, mixed, 1_000)), { a: 1, b: 1 })
})

void t.test('who took a machine comes later', async (t) => {
  const after = chargeTurn(untouchedShares, 'a', 1)
  t.equal(dealMachines(after, [lane('a', 1), lane('b', 1)], machines(1), 1_000)[0]?.lane.workspaceId, 'b')
})

const anyLanes = fc
  .uniqueArray(
    fc.record({
      workspace: fc.constantFrom('a', 'b', 'c'),
      priority: fc.integer({ min: -1, max: 1 }),
      label: fc.constantFrom('', 'kind=x', 'kind=y'),
      count: fc.integer({ min: 1, max: 6 }),
    }),
    { maxLength: 8, selector: ({ workspace, priority, label }) => `${workspace} ${priority} ${label}` },
  )
  .map((given) =>
    given.map(({ workspace, priority, label, count }, number) =>
      lane(workspace, 0, {
        ...{ id: String(number), priority, ...selecting(label) },
        waiting: Array.from({ length: count }, (_, index) => ({
          hostId: `${number}-${index}`,
          sinceMs: index * 10 + number,
        })),
      }),
    ),
  )
const anyMachines = fc
  .array(fc.constantFrom('x', 'y'), { maxLength: 8 })
  .map((kinds) => kinds.map((kind, index) => machine(`m${index}`, { labels: { kind } })))

void t.test('properties of dealing', async (t) => {
  await t.test('no machine twice, no host twice, only what fits, in each lane the oldest first', async () => {
    fc.assert(
      fc.property(anyLanes, anyMachines, (lanes, free) => {
        const grants = dealMachines(untouchedShares, lanes, free, 1_000)
        const unique = (all: readonly string[]) => new Set(all).size === all.length
        return (
          unique(grants.map(({ machineId }) => machineId)) &&
          unique(grants.map(({ hostId }) => hostId)) &&
          grants.every(({ lane: of, machineId }) => free.some((one) => one.id === machineId && fitsLane(of, one))) &&
          lanes.every((of) => {
            const mine = grants.filter((grant) => grant.lane === of).map(({ hostId }) => hostId)
            return JSON.stringify(mine) === JSON.stringify(of.waiting.slice(0, mine.length).map(({ hostId }) => hostId))
          })
        )
      }),
      { numRuns: 500 },
    )
  })

  await t.test('nothing is left that anybody who waits could take', async () => {
    fc.assert(
      fc.property(anyLanes, anyMachines, (lanes, free) => {
        const grants = dealMachines(untouchedShares, lanes, free, 1_000)
        const left = free.filter(({ id }) => !grants.some(({ machineId }) => machineId === id))
        return lanes.every((of) => {
          const served = grants.filter((grant) => grant.lane === of).length
          return served === of.waiting.length || !left.some((one) => fitsLane(of, one))
        })
      }),
      { numRuns: 500 },
    )
  })

  await t.test('one machine after the other, each workspace that waits all the time gets its part', async () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 60 }),
        (one, other, rounds) => {
          let shares: ShareState = untouchedShares
          const got = { a: 0, b: 0 }
          for (let round = 0; round < rounds; round++) {
            const [grant] = dealMachines(
              shares,
              [lane('a', 1000, { weight: one }), lane('b', 1, { weight: other })],
              machines(1),
              1_000,
            )
            if (grant === undefined) return false
            got[grant.lane.workspaceId as 'a' | 'b']++
            shares = chargeTurn(shares, grant.lane.workspaceId, grant.lane.weight)
          }
          return Math.abs(got.a / one - got.b / other) <= 1 / one + 1 / other + 1e-9
        },
      ),
      { numRuns: 200 },
    )
  })
})
