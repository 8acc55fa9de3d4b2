import fc from 'fast-check'
import t from 'tap'
import { planHostSet, type Member, type Plan, type Wanted } from './plan.js'

const wanted: Wanted = {
  replicas: 3,
  revision: 1,
  maxSurge: 1,
  maxUnavailable: 0,
  maxRepairs: 1,
  maxUnhealthyPercent: 100,
  paused: false,
  deleting: false,
  nextOrdinal: 100,
  failuresFrom: 0,
  domains: [],
  ordersHeld: false,
  repairsHeld: false,
}

function member(ordinal: number, rest: Partial<Member> = {}): Member {
  return {
    id: `m${ordinal}`,
    ordinal,
    revision: 1,
    health: 'ready',
    visible: true,
    protected: false,
    leaving: false,
    domain: '',
    ...rest,
  }
}

const many = (count: number, rest: Partial<Member> = {}) =>
  Array.from({ length: count }, (_, index) => member(index, rest))
const released = (plan: Plan) => plan.release.map(({ id }) => id)

void t.test('a new set orders its members, each where the fewest are', (t) => {
  const plan = planHostSet({ ...wanted, replicas: 5, nextOrdinal: 0, domains: ['a', 'b'] }, [])
  t.strictSame(
    plan.create.map(({ ordinal, domain }) => `${ordinal}${domain}`),
    ['0a', '1b', '2a', '3b', '4a'],
  )
  const full = planHostSet({ ...wanted, replicas: 4, domains: ['a', 'b', 'c'] }, [
    ...many(2, { domain: 'a' }),
    member(7, { domain: 'b' }),
  ])
  t.strictSame(full.create, [{ ordinal: 100, domain: 'c' }])
  t.end()
})

void t.test(
  'fewer: unhealthy first, then the unready, then the outdated, then the fullest place, then the newest',
  (t) => {
    const members = [
      member(0, { domain: 'a' }),
      member(1, { domain: 'a' }),
      member(2, { domain: 'b' }),
      member(3, { domain: 'a', health: 'starting' }),
      member(4, { domain: 'b', health: 'failed' }),
      member(5, { domain: 'b', health: 'failed', protected: true }),
    ]
    const left = (replicas: number) => {
      const gone = new Set(released(planHostSet({ ...wanted, replicas, maxRepairs: 0 }, members)))
      return members.flatMap(({ id }) => (gone.has(id) ? [] : [id])).join(' ')
    }
    t.equal(left(5), 'm0 m1 m2 m3 m5')
    t.equal(left(4), 'm0 m1 m2 m5')
    t.equal(left(2), 'm0 m1 m5')
    t.equal(left(1), 'm0 m5', 'the protected one stays beside it: what is READY is not given up for it')
    t.equal(left(0), 'm5')
    t.end()
  },
)

void t.test('a rollout goes on as the new ones become READY, and stops at the first that fails', (t) => {
  const next = { ...wanted, revision: 2 }
  t.strictSame(planHostSet(next, many(3)), {
    release: [],
    create: [{ ordinal: 100, domain: '' }],
    fail: false,
    held: [],
  })
  const young = member(100, { revision: 2, health: 'starting' })
  t.strictSame(planHostSet(next, [...many(3), young]).release, [])
  const step = planHostSet(next, [...many(3), { ...young, health: 'ready' }])
  t.strictSame(step.release, [{ id: 'm0', why: 'Outdated' }])
  t.equal(step.create.length, 1)
  const broken = [...many(3), { ...young, health: 'failed' as const }]
  t.match(planHostSet(next, broken), { release: [], create: [], fail: true })
  t.match(planHostSet({ ...next, paused: true }, broken), { release: [], create: [], fail: false })
  const resumed = planHostSet({ ...next, failuresFrom: 101, nextOrdinal: 101 }, broken)
  t.strictSame(resumed.release, [{ id: 'm100', why: 'Unhealthy' }])
  t.strictSame(resumed.create, [{ ordinal: 101, domain: '' }])
  t.end()
})

void t.test('without a surge, one at a time is given up first', (t) => {
  const next = { ...wanted, revision: 2, maxSurge: 0, maxUnavailable: 1 }
  const plan = planHostSet(next, many(3))
  t.strictSame([released(plan), plan.create.length], [['m0'], 1])
  t.end()
})

void t.test('unhealthy members are replaced under a cap, and never where nobody sees', (t) => {
  const sick = [member(0, { health: 'failed' }), member(1, { health: 'failed' }), member(2)]
  t.strictSame(released(planHostSet(wanted, sick)), ['m0'])
  t.strictSame(released(planHostSet({ ...wanted, maxRepairs: 5 }, sick)), ['m0', 'm1'])
  t.match(planHostSet({ ...wanted, maxUnhealthyPercent: 50 }, sick), { release: [], held: ['TooManyUnhealthy'] })
  const unseen = sick.map((each) => ({ ...each, visible: false }))
  t.match(planHostSet(wanted, unseen), { release: [], create: [], held: ['ProviderOutOfSight'] })
  t.match(planHostSet({ ...wanted, repairsHeld: true }, sick), { release: [], held: ['RepairsPaused'] })
  const replaced = [member(1, { health: 'failed' }), member(2), member(3, { health: 'starting' })]
  t.strictSame(released(planHostSet(wanted, replaced)), [], 'the one before is not READY yet')
  t.match(planHostSet(wanted, [member(0, { health: 'failed', protected: true }), ...many(3).slice(1)]), {
    release: [],
    create: [],
    held: ['Protected'],
  })
  t.end()
})

void t.test('what cannot be ordered now is not made room for', (t) => {
  const held = { ...wanted, revision: 2, maxSurge: 0, maxUnavailable: 1, ordersHeld: true }
  t.match(planHostSet(held, many(3)), { release: [], create: [], held: ['OrdersHeld'] })
  t.end()
})

// A world that members live in, for what must hold whatever happens.

interface World {
  readonly wanted: Wanted
  readonly members: readonly Member[]
}

/** Carries a plan out as the edge does: what is released already, or exists, is left as it is. */
function carryOut({ wanted, members }: World, plan: Plan): World {
  const going = new Set(released(plan))
  const made = plan.create
    .filter(({ ordinal }) => !members.some((each) => each.ordinal === ordinal))
    .map(({ ordinal, domain }) => member(ordinal, { revision: wanted.revision, health: 'starting', domain }))
  const after = [...members.map((each) => (going.has(each.id) ? { ...each, leaving: true } : each)), ...made]
  const nextOrdinal = Math.max(wanted.nextOrdinal, ...after.map(({ ordinal }) => ordinal + 1))
  return { wanted: { ...wanted, nextOrdinal, paused: wanted.paused || plan.fail }, members: after }
}

const anyMember = fc.record({
  revision: fc.constantFrom(1, 2),
  health: fc.constantFrom<Member['health']>('ready', 'ready', 'starting', 'failed'),
  visible: fc.boolean(),
  protected: fc.constantFrom(false, false, false, true),
  leaving: fc.constantFrom(false, false, false, true),
  domain: fc.constantFrom('', 'a', 'b', 'gone'),
})
const anyWorld: fc.Arbitrary<World> = fc
  .record({
    members: fc.array(anyMember, { maxLength: 9 }),
    replicas: fc.nat(6),
    limits: fc.tuple(fc.nat(3), fc.nat(3)).filter(([surge, unavailable]) => surge + unavailable > 0),
    maxRepairs: fc.nat(2),
    maxUnhealthyPercent: fc.constantFrom(0, 30, 50, 100),
    flags: fc.record({
      paused: fc.boolean(),
      deleting: fc.constantFrom(false, false, false, true),
      ordersHeld: fc.boolean(),
      repairsHeld: fc.boolean(),
    }),
    failuresFrom: fc.nat(10),
    domains: fc.constantFrom([], ['a', 'b'], ['a', 'b', 'c']),
  })
  .map(({ members, limits: [maxSurge, maxUnavailable], flags, ...rest }) => ({
    members: members.map((each, ordinal) => member(ordinal, each)),
    wanted: { ...wanted, ...rest, ...flags, maxSurge, maxUnavailable, revision: 2, nextOrdinal: members.length },
  }))

const runs = { numRuns: 5_000 }
const activeOf = (members: readonly Member[]) => members.filter((each) => !each.leaving)
const readyOf = (members: readonly Member[]) => activeOf(members).filter((each) => each.health === 'ready').length

void t.test('whatever there is', (t) => {
  const holds = (check: (world: World, plan: Plan, after: World) => boolean) =>
    fc.assert(
      fc.property(anyWorld, (world) => {
        const plan = planHostSet(world.wanted, world.members)
        return check(world, plan, carryOut(world, plan))
      }),
      runs,
    )
  t.doesNotThrow(
    () =>
      holds(({ wanted, members }, _plan, after) => {
        const least = wanted.deleting ? 0 : Math.max(0, wanted.replicas - wanted.maxUnavailable)
        return readyOf(after.members) >= Math.min(readyOf(members), least)
      }),
    'never below what must be available, by its own doing',
  )
  t.doesNotThrow(
    () =>
      holds(({ wanted, members }, _plan, after) => {
        const before = activeOf(members).length
        return activeOf(after.members).length <= Math.max(before, wanted.replicas + wanted.maxSurge)
      }),
    'never above the surge',
  )
  t.doesNotThrow(
    () =>
      holds(({ members }, plan) =>
        released(plan).every((id) => {
          const found = members.find((each) => each.id === id)
          return found !== undefined && !found.protected && !found.leaving
        }),
      ),
    'never a protected one',
  )
  t.doesNotThrow(
    () =>
      holds(({ members }, plan) =>
        plan.release.every(({ id, why }) => {
          const found = members.find((each) => each.id === id)
          return (why !== 'Unhealthy' && why !== 'Outdated') || found?.visible === true
        }),
      ),
    'nothing is replaced that is out of sight',
  )
  t.doesNotThrow(
    () =>
      holds(({ wanted }, plan) => plan.release.filter(({ why }) => why === 'Unhealthy').length <= wanted.maxRepairs),
    'never more repairs at once than allowed',
  )
  t.doesNotThrow(
    () =>
      holds(({ wanted, members }, plan) => {
        const shuffled = planHostSet(wanted, members.toReversed())
        return JSON.stringify(shuffled) === JSON.stringify(plan)
      }),
    'the order in which members are told of does not matter',
  )
  t.doesNotThrow(
    () =>
      holds((_world, plan, after) => {
        const again = carryOut(after, plan)
        return JSON.stringify(again.members) === JSON.stringify(after.members)
      }),
    'another replica that carries out the same plan changes nothing',
  )
  t.doesNotThrow(
    () =>
      holds((_world, _plan, after) => {
        // Another look may find that the share of unhealthy members is a smaller one, or that nothing takes the place of one that was repaired.
        let world = after
        for (let look = 0; look < 5; look++) world = carryOut(world, planHostSet(world.wanted, world.members))
        const again = planHostSet(world.wanted, world.members)
        return again.release.length === 0 && again.create.length === 0 && !again.fail
      }),
    'plans that are carried out soon leave nothing to do',
  )
  t.end()
})

/** Lets time pass: what is leaving goes, what starts becomes READY. */
function pass({ wanted, members }: World): World {
  const staying = members.filter((each) => !each.leaving)
  return {
    wanted,
    members: staying.map((each) => (each.health === 'starting' ? { ...each, health: 'ready' } : each)),
  }
}

void t.test('left alone, every set comes to what is wanted', (t) => {
  const calm = anyWorld.map(({ wanted, members }) => ({
    wanted: {
      ...wanted,
      paused: false,
      ordersHeld: false,
      repairsHeld: false,
      maxRepairs: Math.max(1, wanted.maxRepairs),
      maxUnhealthyPercent: 100,
      // What has failed already was seen by a person.
      failuresFrom: wanted.nextOrdinal,
    },
    members: members.map((each) => ({ ...each, visible: true, protected: false })),
  }))
  fc.assert(
    fc.property(calm, (start) => {
      let world: World = start
      const most = Math.max(activeOf(start.members).length, start.wanted.replicas + start.wanted.maxSurge)
      for (let round = 0; round < 40; round++) {
        world = pass(carryOut(world, planHostSet(world.wanted, world.members)))
        if (activeOf(world.members).length > most) return false
      }
      const goal = world.wanted.deleting ? 0 : world.wanted.replicas
      return (
        !world.wanted.paused &&
        world.members.length === goal &&
        world.members.every((each) => each.health === 'ready' && each.revision === world.wanted.revision)
      )
    }),
    runs,
  )
  t.end()
})

void t.test('with protected members, as far as they let it', (t) => {
  fc.assert(
    fc.property(anyWorld, (start) => {
      let world: World = {
        wanted: {
          ...start.wanted,
          paused: false,
          ordersHeld: false,
          repairsHeld: false,
          failuresFrom: 99,
          maxRepairs: 1,
          maxUnhealthyPercent: 100,
        },
        members: start.members.map((each) => ({ ...each, visible: true })),
      }
      for (let round = 0; round < 40; round++) world = pass(carryOut(world, planHostSet(world.wanted, world.members)))
      const kept = start.members.filter((each) => each.protected && !each.leaving)
      const left = planHostSet(world.wanted, world.members)
      return (
        kept.every(({ id }) => world.members.some((each) => each.id === id)) &&
        left.release.length === 0 &&
        left.create.length === 0 &&
        (left.held.includes('Protected') ||
          world.members.every((each) => each.protected || (each.revision === 2 && each.health === 'ready')))
      )
    }),
    runs,
  )
  t.end()
})
