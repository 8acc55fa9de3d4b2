import fc from 'fast-check'
import t from 'tap'
import { ownershipKey } from '../names.js'
import { keepReasons, type KeepReason, type OrphanFacts, type RequestFacts, type Surroundings } from './orphan.js'
import { judgePass, keptByPolicy, keptFromEverybody, takenBack, type Verdict } from './policy.js'

const hubId = '0f0e0d0c-0b0a-4908-8706-050403020100'
const otherHub = '11111111-2222-4333-8444-555555555555'
const requestId = '7e6c8f4e-0000-4000-8000-000000000000'
const now = new Date('2026-11-01T12:00:00Z')
const ago = (ms: number) => new Date(now.getTime() - ms)
const minutes = 60_000

const around: Surroundings = {
  now,
  hubId,
  policy: { mode: 'REMOVE', minAgeMs: 60 * minutes, maxPerPass: 5, maxPercent: 100 },
  effectTimeoutMs: minutes,
  listingLagMs: minutes,
  canRemove: true,
  graceMs: 5 * minutes,
  restoredAt: null,
  restoreGraceMs: 24 * 60 * minutes,
  stopped: false,
}
const gone: RequestFacts = {
  name: 'r-1',
  state: 'GONE',
  goneAt: ago(60 * minutes),
  createInDoubt: false,
  wasAdopting: false,
}
const orphan: OrphanFacts = {
  id: 'a',
  ownershipKey: ownershipKey(hubId, requestId),
  request: gone,
  externalIdInUse: false,
  firstSeenAt: ago(90 * minutes),
  sightings: 2,
  listed: true,
  keptBy: null,
  refusedAt: null,
  orderedAt: null,
}
const complete = { complete: true, owned: 100 }
const reasonOf = (verdict: Verdict | undefined) =>
  verdict?.kind === 'keep' ? verdict.kept.reason : verdict?.kind.toUpperCase()

interface Breach {
  readonly reason: KeepReason
  readonly orphan?: Partial<OrphanFacts>
  readonly around?: Partial<Surroundings>
}

/** Each breaks one rule and no other. */
const breaches: readonly Breach[] = [
  { reason: 'FOREIGN_HUB', orphan: { ownershipKey: ownershipKey(otherHub, requestId) } },
  { reason: 'FOREIGN_HUB', orphan: { ownershipKey: '' } },
  { reason: 'FOREIGN_HUB', orphan: { ownershipKey: hubId } },
  { reason: 'FOREIGN_HUB', orphan: { ownershipKey: requestId } },
  { reason: 'KEY_UNREADABLE', orphan: { ownershipKey: `${hubId}/` } },
  { reason: 'KEY_UNREADABLE', orphan: { ownershipKey: `${hubId}/web-1` } },
  { reason: 'KEY_UNREADABLE', orphan: { ownershipKey: `${hubId}/${'-'.repeat(36)}` } },
  { reason: 'KEY_UNREADABLE', orphan: { ownershipKey: `${hubId}/${requestId}/x` } },
  ...(['PENDING', 'PROVISIONING', 'PROVISIONED', 'FAILED', 'DEPROVISIONING'] as const).map((state): Breach => ({
    reason: 'REQUEST_LIVE',
    orphan: { request: { ...gone, state, goneAt: null } },
  })),
  { reason: 'REQUEST_LIVE', orphan: { externalIdInUse: true } },
  { reason: 'ADOPTION', orphan: { request: { ...gone, wasAdopting: true } } },
  { reason: 'KEPT_BY_PERSON', orphan: { keptBy: 'token/1' } },
  { reason: 'REMOVAL_UNSUPPORTED', around: { canRemove: false } },
  { reason: 'POLICY_REPORTS', around: { policy: { ...around.policy, mode: 'REPORT' } } },
  { reason: 'RESTORED', around: { restoredAt: ago(23 * 60 * minutes) } },
  { reason: 'CREATE_IN_FLIGHT', orphan: { request: { ...gone, goneAt: ago(6 * minutes) } } },
  { reason: 'CREATE_IN_FLIGHT', orphan: { request: { ...gone, goneAt: ago(6 * minutes), createInDoubt: true } } },
  { reason: 'CREATE_IN_FLIGHT', orphan: { request: { ...gone, goneAt: null } } },
  { reason: 'NOT_LISTED', orphan: { listed: false } },
  { reason: 'SEEN_ONCE', orphan: { sightings: 1 } },
  { reason: 'SEEN_ONCE', orphan: { sightings: 0 } },
  { reason: 'TOO_YOUNG', orphan: { firstSeenAt: ago(59 * minutes) } },
  { reason: 'TOO_YOUNG', around: { effectTimeoutMs: 100 * minutes }, orphan: { request: undefined } },
  { reason: 'REFUSED', orphan: { refusedAt: ago(9 * minutes) } },
  { reason: 'REMOVAL_STOPPED', around: { stopped: true } },
]

void t.test('an orphan against which nothing speaks is removed', async (t) => {
  t.equal(keptByPolicy(orphan, around), undefined)
  t.equal(keptByPolicy({ ...orphan, request: undefined }, around), undefined, 'also where no record knows its request')
  const doubted = { ...gone, goneAt: ago(8 * minutes), createInDoubt: true }
  t.equal(
    keptByPolicy({ ...orphan, request: doubted }, around),
    undefined,
    'a doubt ends when a create can be under way no more',
  )
  t.equal(keptByPolicy(orphan, { ...around, restoredAt: ago(25 * 60 * minutes) }), undefined)
  t.strictSame(judgePass([orphan], complete, around), { verdicts: [{ kind: 'remove' }], stop: undefined })
})

void t.test('each rule keeps by itself, and says so', async (t) => {
  for (const breach of breaches) {
    const verdict = judgePass([{ ...orphan, ...breach.orphan }], complete, { ...around, ...breach.around }).verdicts[0]
    t.equal(reasonOf(verdict), breach.reason, JSON.stringify(breach))
  }
  const told = new Set<KeepReason>(breaches.map(({ reason }) => reason))
  // Only a whole pass can reach its limit.
  t.strictSame(
    keepReasons.filter((reason) => !told.has(reason)),
    ['LIMIT_REACHED'],
  )
  t.equal(reasonOf(judgePass([orphan], { ...complete, complete: false }, around).verdicts[0]), 'NOT_LISTED')
})

void t.test('a person overrides what the policy is careful about, and nothing else', async (t) => {
  const untouchable: readonly KeepReason[] = [
    'FOREIGN_HUB',
    'KEY_UNREADABLE',
    'REQUEST_LIVE',
    'ADOPTION',
    'REMOVAL_UNSUPPORTED',
  ]
  for (const breach of breaches) {
    const kept = keptFromEverybody({ ...orphan, ...breach.orphan }, { ...around, ...breach.around })
    t.equal(kept?.reason, untouchable.includes(breach.reason) ? breach.reason : undefined, JSON.stringify(breach))
  }
})

void t.test('an order is taken back when what it rests on has changed', async (t) => {
  const ordered = { ...orphan, orderedAt: ago(minutes) }
  for (const breach of breaches) {
    const [facts, surroundings] = [
      { ...ordered, ...breach.orphan },
      { ...around, ...breach.around },
    ]
    t.equal(takenBack({ orphan: facts, byPerson: false }, surroundings)?.reason, breach.reason, JSON.stringify(breach))
  }
  t.equal(takenBack({ orphan: ordered, byPerson: false }, around), undefined)
  t.equal(takenBack({ orphan: { ...ordered, sightings: 1 }, byPerson: true }, around), undefined)
  const live = { ...ordered, request: { ...gone, state: 'PROVISIONED' as const } }
  t.equal(takenBack({ orphan: live, byPerson: true }, around)?.reason, 'REQUEST_LIVE')
  const restored = { ...around, restoredAt: ago(0) }
  t.equal(
    takenBack({ orphan: ordered, byPerson: true }, restored)?.reason,
    'RESTORED',
    'orders out of a backup are void',
  )
  t.equal(
    takenBack({ orphan: { ...orphan, orderedAt: now }, byPerson: true }, { ...around, restoredAt: ago(1) }),
    undefined,
  )
})

void t.test('a pass has a limit, and stops itself where too many would go', async (t) => {
  const many = (count: number) => Array.from({ length: count }, (_, index) => ({ ...orphan, id: String(index) }))
  const limited = judgePass(many(7), complete, around)
  t.strictSame(limited.verdicts.map(reasonOf), [
    ...Array.from({ length: 5 }, () => 'REMOVE'),
    'LIMIT_REACHED',
    'LIMIT_REACHED',
  ])
  const tenPercent = { ...around, policy: { ...around.policy, maxPercent: 10, maxPerPass: 100 } }
  t.equal(judgePass(many(10), complete, tenPercent).stop, undefined)
  const stopped = judgePass(many(11), complete, tenPercent)
  t.strictSame(stopped.stop, { eligible: 11, allowed: 10 })
  t.ok(stopped.verdicts.every((verdict) => reasonOf(verdict) === 'REMOVAL_STOPPED'))
  t.equal(judgePass(many(1), { complete: true, owned: 1 }, tenPercent).stop, undefined, 'one may always go')
  t.match(judgePass(many(2), { complete: true, owned: 3 }, tenPercent).stop, { eligible: 2, allowed: 1 })
  const half = [...many(6).map((one) => ({ ...one, keptBy: 'token/1' })), ...many(1)]
  t.equal(judgePass(half, { complete: true, owned: 7 }, tenPercent).stop, undefined, 'what is kept does not count')
  const ordered = judgePass([{ ...orphan, orderedAt: now }, orphan], complete, around)
  t.strictSame(ordered.verdicts.map(reasonOf), ['ORDERED', 'REMOVE'], 'what is ordered is not ordered again')
})

const someOrphan = fc.record<OrphanFacts>({
  id: fc.uuid(),
  ownershipKey: fc.constantFrom(orphan.ownershipKey, ownershipKey(otherHub, requestId), `${hubId}/x`, ''),
  request: fc.option(
    fc.record<RequestFacts>({
      name: fc.constant('r-1'),
      state: fc.constantFrom('PENDING', 'PROVISIONED', 'GONE'),
      goneAt: fc.option(fc.integer({ min: 0, max: 20 }).map((count) => ago(count * minutes))),
      createInDoubt: fc.boolean(),
      wasAdopting: fc.boolean(),
    }),
    { nil: undefined },
  ),
  externalIdInUse: fc.boolean(),
  firstSeenAt: fc.integer({ min: 0, max: 120 }).map((count) => ago(count * minutes)),
  sightings: fc.integer({ min: 0, max: 3 }),
  listed: fc.boolean(),
  keptBy: fc.option(fc.constant('token/1')),
  refusedAt: fc.option(fc.integer({ min: 0, max: 20 }).map((count) => ago(count * minutes))),
  orderedAt: fc.option(fc.constant(ago(minutes))),
})
const someSurroundings = fc.record<Surroundings>({
  now: fc.constant(now),
  hubId: fc.constant(hubId),
  policy: fc.record({
    mode: fc.constantFrom('REPORT', 'REMOVE'),
    minAgeMs: fc.integer({ min: 0, max: 120 * minutes }),
    maxPerPass: fc.integer({ min: 0, max: 5 }),
    maxPercent: fc.integer({ min: 1, max: 100 }),
  }),
  effectTimeoutMs: fc.integer({ min: 0, max: 10 * minutes }),
  listingLagMs: fc.integer({ min: 0, max: 10 * minutes }),
  canRemove: fc.boolean(),
  graceMs: fc.integer({ min: 0, max: 10 * minutes }),
  restoredAt: fc.option(fc.integer({ min: 0, max: 120 }).map((count) => ago(count * minutes))),
  restoreGraceMs: fc.integer({ min: 0, max: 120 * minutes }),
  stopped: fc.boolean(),
})

void t.test('whatever else is so, breaking one rule alone keeps an orphan', async (t) => {
  // Half of the time nothing else speaks against removal: then the one breach has to.
  const surroundings = fc.oneof(fc.constant(around), someSurroundings)
  const pass = fc.tuple(fc.array(someOrphan, { maxLength: 20 }), surroundings, fc.integer({ min: 0, max: 40 }))
  const property = fc.property(
    fc.constantFrom(...breaches),
    pass,
    fc.nat({ max: 20 }),
    (breach, [others, surroundings, owned], at) => {
      const broken = { ...orphan, ...breach.orphan, id: 'broken' }
      // What the breach needs to be one, on top of anything at all.
      const facts = [...others.slice(0, at), broken, ...others.slice(at)]
      const both = { ...surroundings, ...pick(around, breach), ...breach.around }
      const { verdicts } = judgePass(facts, { complete: true, owned }, both)
      return verdicts[facts.indexOf(broken)]?.kind === 'keep'
    },
  )
  fc.assert(property, { numRuns: 2_000 })
  t.pass()
})

/** The times by which a breach's own times are judged. */
function pick(from: Surroundings, breach: Breach): Partial<Surroundings> {
  const { effectTimeoutMs, listingLagMs, graceMs, restoreGraceMs } = from
  const minAge = breach.reason === 'TOO_YOUNG' ? { policy: from.policy } : {}
  return { effectTimeoutMs, listingLagMs, graceMs, restoreGraceMs, ...minAge }
}

void t.test(
  'a pass removes only what is judged removable alone, within its limits, and all or nothing of it is stopped',
  async (t) => {
    const property = fc.property(
      fc.array(someOrphan, { maxLength: 30 }),
      someSurroundings,
      fc.integer({ min: 0, max: 60 }),
      fc.boolean(),
      (orphans, surroundings, owned, isComplete) => {
        const { verdicts, stop } = judgePass(orphans, { complete: isComplete, owned }, surroundings)
        const removed = orphans.filter((_, index) => verdicts[index]?.kind === 'remove')
        const removable = removed.every(
          (one) => one.orderedAt === null && keptByPolicy(one, surroundings) === undefined,
        )
        const within =
          removed.length <=
          Math.min(surroundings.policy.maxPerPass, Math.max(1, (owned * surroundings.policy.maxPercent) / 100))
        return (
          removable && within && (isComplete || removed.length === 0) && (stop === undefined || removed.length === 0)
        )
      },
    )
    fc.assert(property, { numRuns: 2_000 })
    t.pass()
  },
)
