import fc from 'fast-check'
import t from 'tap'
import type { Failure, FailureCode } from '../facts.js'
import { applyRequestReport, mergeConditions, type ReportFacts, type RequestRecord } from './apply-report.js'
import { endingOf, isEnding, requestStates } from './request.js'

const now = new Date('2026-01-01T00:00:00Z')
const later = new Date('2026-01-01T00:00:10Z')

function record(overrides: Partial<RequestRecord> = {}): RequestRecord {
  return {
    id: '01890000-0000-7000-8000-000000000001',
    name: 'r-1',
    hostName: 'workspaces/default/hosts/web-1',
    providerId: '01890000-0000-7000-8000-000000000002',
    providerName: 'p1',
    organizationId: '01890000-0000-7000-8000-000000000003',
    state: 'PROVISIONING',
    operation: 'PROVISION',
    operationGeneration: 1,
    generation: 1,
    observedGeneration: 0,
    externalId: null,
    presence: 'UNKNOWN',
    power: null,
    addresses: [],
    attributes: {},
    conditions: [],
    createInDoubt: false,
    progress: null,
    rebootsDone: 0,
    reinstalls: 0,
    reinstallsDone: 0,
    rescueSeen: 0,
    lastError: null,
    attempt: 0,
    ...overrides,
  }
}

function failure(code: FailureCode, retryable: boolean): Failure {
  return { code, message: 'no', retryable, externalCode: '', step: 'create' }
}

const apply = (before: RequestRecord, report: ReportFacts) => applyRequestReport(before, report, now, later)

void t.test('a create that is complete makes the request PROVISIONED and ends its error', async (t) => {
  const before = record({
    attempt: 3,
    externalId: 's-1',
    lastError: { ...failure('TIMEOUT', true), attempts: 3, at: now.toISOString() },
  })
  const outcome = apply(before, {
    observed: { presence: 'PRESENT', generation: 1 },
    completed: { operation: 'PROVISION', operationGeneration: 1 },
  })
  t.match(outcome.record, {
    state: 'PROVISIONED',
    lastError: null,
    attempt: 0,
    presence: 'PRESENT',
    observedGeneration: 1,
  })
  t.strictSame(
    outcome.events.map((event) => event.reason),
    ['RequestProvisioned'],
  )
})

void t.test('the end of an older operation completes nothing', async (t) => {
  const before = record({ operation: 'DEPROVISION', operationGeneration: 2, state: 'DEPROVISIONING' })
  t.equal(
    apply(before, { completed: { operation: 'PROVISION', operationGeneration: 1 } }).record.state,
    'DEPROVISIONING',
  )
  t.equal(
    apply(before, { completed: { operation: 'DEPROVISION', operationGeneration: 1 } }).record.state,
    'DEPROVISIONING',
  )
})

void t.test('an adoption is complete with the id of its server, and given up for good like a create', async (t) => {
  const before = record({ operation: 'ADOPT' })
  const completed = { operation: 'ADOPT', operationGeneration: 1 }
  const done = apply(before, { completed, observed: { presence: 'PRESENT', externalId: 's-1', power: 'OFF' } })
  t.match(done.record, { state: 'PROVISIONED', externalId: 's-1', power: 'OFF' })
  t.match(done.events, [{ reason: 'RequestProvisioned', message: 'Machine s-1 is adopted as it is' }])
  t.equal(apply(before, { completed }).record.state, 'PROVISIONING', 'of nobody knows what it is not complete')
  for (const code of ['CONFLICT', 'CAPACITY'] as const)
    t.match(apply(before, { failure: failure(code, false) }), {
      giveUp: true,
      holdOffering: false,
      record: { state: 'FAILED' },
    })
  t.match(apply(before, { failure: failure('UNAVAILABLE', true) }), {
    giveUp: false,
    record: { state: 'PROVISIONING' },
  })
})

void t.test('what is let go of is GONE from here, whatever exists', async (t) => {
  const before = record({ operation: 'UNADOPT', operationGeneration: 2, state: 'DEPROVISIONING', presence: 'PRESENT' })
  const completed = { operation: 'UNADOPT', operationGeneration: 2 }
  t.match(apply(before, { completed }), { record: { state: 'GONE' }, events: [{ message: /is left as it is/ }] })
  const late = apply(before, { completed: { operation: 'ADOPT', operationGeneration: 1 } })
  t.equal(late.record.state, 'DEPROVISIONING', 'a late word of the adoption ends nothing')
  t.match(
    apply(before, { failure: failure('INVALID_SPEC', false) }),
    { giveUp: false },
    'it is tried until it succeeds',
  )
  t.match(apply(before, { observed: { presence: 'ABSENT' } }).events, [], 'that it vanishes is nothing to us')
})

void t.test('only what was made, or was in use as a host, is ever removed', async (t) => {
  t.equal(endingOf(null, false), 'DEPROVISION')
  t.equal(endingOf(null, true), 'DEPROVISION')
  t.equal(endingOf('s-1', true), 'DEPROVISION')
  t.equal(endingOf('s-1', false), 'UNADOPT')
  t.strictSame((['PROVISION', 'REINSTALL', 'ADOPT', 'UNADOPT', 'DEPROVISION'] as const).filter(isEnding), [
    'UNADOPT',
    'DEPROVISION',
  ])
})

void t.test('GONE needs an absence that was seen', async (t) => {
  const before = record({
    operation: 'DEPROVISION',
    operationGeneration: 2,
    state: 'DEPROVISIONING',
    presence: 'PRESENT',
  })
  const completed = { operation: 'DEPROVISION', operationGeneration: 2 }
  t.equal(apply(before, { completed }).record.state, 'DEPROVISIONING')
  t.equal(apply(before, { completed, observed: { presence: 'ABSENT' } }).record.state, 'GONE')
})

void t.test('the last error stays over progress and steps, with its attempts counted', async (t) => {
  let current = record()
  for (let attempt = 1; attempt <= 3; attempt++) {
    current = apply(current, { failure: failure('UNAVAILABLE', true) }).record
    current = apply(current, {
      progress: { step: 'create', message: 'again' },
      step: { operation: 'PROVISION', operationGeneration: 1, name: 'a', result: 1 },
    }).record
    t.match(current.lastError, { code: 'UNAVAILABLE', attempts: attempt, nextAttemptAt: later.toISOString() })
    t.equal(current.state, 'PROVISIONING')
  }
})

void t.test('a create that cannot succeed is given up; capacity holds the offering back', async (t) => {
  for (const [code, holds] of [
    ['CAPACITY', true],
    ['QUOTA', true],
    ['INVALID_SPEC', false],
  ] as const) {
    const outcome = apply(record(), { failure: failure(code, false) })
    t.match(outcome, { giveUp: true, holdOffering: holds, record: { state: 'FAILED' } }, code)
    t.equal(outcome.record.lastError?.nextAttemptAt, undefined)
  }
})

void t.test('what exists is not given up for a failure, and what is to go is tried for ever', async (t) => {
  const provisioned = apply(record({ state: 'PROVISIONED' }), { failure: failure('INVALID_SPEC', false) })
  t.match(provisioned, { giveUp: false, record: { state: 'PROVISIONED' } })
  const going = apply(record({ state: 'DEPROVISIONING', operation: 'DEPROVISION' }), {
    failure: failure('INTERNAL', false),
  })
  t.match(going, { giveUp: false, record: { state: 'DEPROVISIONING', lastError: { attempts: 1 } } })
})

void t.test('a machine that vanished is told of once', async (t) => {
  const before = record({ state: 'PROVISIONED', presence: 'PRESENT', externalId: 's-1' })
  const first = apply(before, { observed: { presence: 'ABSENT' } })
  t.ok(first.events.some((event) => event.reason === 'MachineVanished'))
  t.notOk(
    apply(first.record, { observed: { presence: 'ABSENT' } }).events.some(
      (event) => event.reason === 'MachineVanished',
    ),
  )
})

void t.test('a reinstall is complete when it was counted; what goes wrong keeps the machine', async (t) => {
  const before = record({
    operation: 'REINSTALL',
    operationGeneration: 3,
    reinstalls: 2,
    externalId: 's-1',
    presence: 'PRESENT',
  })
  const completed = { operation: 'REINSTALL', operationGeneration: 3 }
  t.equal(apply(before, { completed }).record.state, 'PROVISIONING', 'not counted: not complete')
  t.equal(
    apply(before, { completed: { ...completed, operationGeneration: 2 }, observed: { reinstallsDone: 1 } }).record
      .state,
    'PROVISIONING',
    'the one before is not the newest',
  )
  const done = apply(before, { completed, observed: { reinstallsDone: 2, presence: 'PRESENT' } })
  t.match(done.record, { state: 'PROVISIONED', reinstallsDone: 2, externalId: 's-1' })
  t.match(
    done.events.map(({ reason }) => reason),
    ['Reinstalled', 'RequestProvisioned'],
  )
  const failed = apply(before, { failure: failure('INVALID_SPEC', false) })
  t.match(failed, { giveUp: false, holdOffering: false, record: { state: 'PROVISIONING', attempt: 1 } })
  const capacity = apply(before, { failure: failure('CAPACITY', false) })
  t.match(capacity, { giveUp: false, holdOffering: false }, 'and holds no offering back')
  const entered = apply(done.record, { observed: { rescue: 1 } })
  t.match(entered, { record: { rescueSeen: 1 }, events: [{ reason: 'RescueChanged' }] })
  t.match(apply(entered.record, { observed: { rescue: 0 } }).record, { rescueSeen: 0 })
})

void t.test('conditions move their time only with their status', async (t) => {
  const said = { type: 'DiskHealthy', status: 'TRUE', reason: 'Ok', message: '' } as const
  const first = mergeConditions([], [said], now)
  const second = mergeConditions(first, [{ ...said, message: 'still' }], later)
  t.match(second, [{ lastTransitionAt: now.toISOString(), message: 'still' }])
  t.match(mergeConditions(second, [{ ...said, status: 'FALSE' }], later), [{ lastTransitionAt: later.toISOString() }])
})

const anyReport: fc.Arbitrary<ReportFacts> = fc.record(
  {
    observed: fc.record(
      {
        generation: fc.nat(5),
        presence: fc.constantFrom('PRESENT', 'ABSENT', 'UNKNOWN'),
        externalId: fc.constantFrom('s-1', 's-2'),
        power: fc.constantFrom('ON', 'OFF'),
        rebootsDone: fc.nat(5),
        reinstallsDone: fc.nat(5),
        rescue: fc.nat(3),
        createInDoubt: fc.boolean(),
      },
      { requiredKeys: [] },
    ),
    failure: fc.record({
      code: fc.constantFrom('CAPACITY', 'TIMEOUT', 'INVALID_SPEC', 'INTERNAL'),
      message: fc.string(),
      retryable: fc.boolean(),
      externalCode: fc.constant(''),
      step: fc.constantFrom('', 'create'),
    }),
    completed: fc.record({
      operation: fc.constantFrom('PROVISION', 'REINSTALL', 'DEPROVISION', 'CLEAN'),
      operationGeneration: fc.nat(3),
    }),
    progress: fc.record({ step: fc.string(), message: fc.string() }),
  },
  { requiredKeys: [] },
)

void t.test('whatever is reported, in whatever order', async (t) => {
  fc.assert(
    fc.property(
      fc.constantFrom(...requestStates),
      fc.constantFrom('PROVISION' as const, 'REINSTALL' as const, 'DEPROVISION' as const),
      fc.array(anyReport, { maxLength: 12 }),
      (state, operation, reports) => {
        let current = record({ state, operation, generation: 3, operationGeneration: 2, reinstalls: 2 })
        for (const report of reports) {
          const before = current
          const outcome = apply(before, report)
          current = outcome.record
          if (before.state === 'GONE' && current !== before) return false
          if (current.observedGeneration < before.observedGeneration || current.observedGeneration > current.generation)
            return false
          if (current.rebootsDone < before.rebootsDone) return false
          if (current.reinstallsDone < before.reinstallsDone || current.reinstallsDone > current.reinstalls)
            return false
          const installed = current.state === 'PROVISIONED' && before.state !== 'PROVISIONED'
          if (operation === 'REINSTALL' && installed && current.reinstallsDone < current.reinstalls) return false
          if (outcome.giveUp && operation !== 'PROVISION') return false
          if (current.state === 'GONE' && before.state !== 'GONE' && current.presence !== 'ABSENT') return false
          if (outcome.giveUp && current.state !== 'FAILED' && current.state !== 'PROVISIONED') return false
          if (outcome.holdOffering && !outcome.giveUp) return false
        }
        return true
      },
    ),
    { numRuns: 3000 },
  )
  t.pass('nothing goes backwards, GONE is final and was seen')
})
