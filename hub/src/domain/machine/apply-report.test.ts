import t from 'tap'
import type { Failure } from '../facts.js'
import type { ReportFacts } from '../request/apply-report.js'
import { applyMachineReport, maxMachineAttempts, type MachineRecord } from './apply-report.js'
import { doingOperation } from './lifecycle.js'
import type { MachineOperation } from './machine.js'

const now = new Date('2026-01-01T00:00:00Z')
const later = new Date('2026-01-01T00:00:10Z')
const refused: Failure = { code: 'INTERNAL', message: 'no', retryable: true, externalCode: '', step: '' }

function record(overrides: Partial<MachineRecord> = {}): MachineRecord {
  return {
    id: '01890000-0000-7000-8000-000000000001',
    name: 'm-1',
    providerId: '01890000-0000-7000-8000-000000000002',
    providerName: 'rack',
    externalId: 'slot-1',
    state: 'VERIFYING',
    operation: 'VERIFY',
    operationGeneration: 1,
    generation: 1,
    observedGeneration: 0,
    hardware: {},
    power: null,
    rebootsDone: 0,
    addresses: [],
    attributes: {},
    conditions: [],
    lastError: null,
    attempt: 0,
    waiting: null,
    ...overrides,
  }
}

const apply = (before: MachineRecord, report: ReportFacts) => applyMachineReport(before, report, now, later)
const done = (machine: MachineRecord): ReportFacts => ({
  completed: { operation: machine.operation ?? '', operationGeneration: machine.operationGeneration },
})

void t.test(
  'an accepted machine is verified, inspected and cleaned, and then AVAILABLE with nothing left to do',
  async (t) => {
    let machine = record()
    const states: string[] = []
    while (machine.operation !== null && states.length < 10) {
      const outcome = apply(machine, done(machine))
      states.push(outcome.record.state)
      machine = {
        ...outcome.record,
        operation: outcome.nextOperation ?? null,
        operationGeneration: machine.operationGeneration + 1,
      }
    }
    t.strictSame(states, ['INSPECTING', 'CLEANING', 'AVAILABLE'])
  },
)

void t.test('work of an older generation completes nothing', async (t) => {
  const outcome = apply(record({ operationGeneration: 4 }), {
    completed: { operation: 'VERIFY', operationGeneration: 3 },
  })
  t.match(outcome, { record: { state: 'VERIFYING' }, nextOperation: undefined })
})

void t.test('a failed wipe is tried a few times, and then the machine is quarantined', async (t) => {
  let machine = record({ state: 'CLEANING', operation: 'CLEAN' })
  for (let attempt = 1; attempt < maxMachineAttempts.CLEAN; attempt++) {
    machine = apply(machine, { failure: refused }).record
    t.match(machine, { state: 'CLEANING', attempt, lastError: { attempts: attempt } })
  }
  const last = apply(machine, { failure: refused })
  t.match(last, { record: { state: 'CLEAN_FAILED' }, nextOperation: null })
  t.ok(last.events.some((event) => event.reason === 'MachineFailed' && event.severity === 'ERROR'))
})

void t.test('a failure that cannot be cured is not tried again', async (t) => {
  for (const [state, failedState] of [
    ['VERIFYING', 'VERIFY_FAILED'],
    ['INSPECTING', 'INSPECT_FAILED'],
    ['CLEANING', 'CLEAN_FAILED'],
  ] as const) {
    const operation: MachineOperation | null = doingOperation(state)
    const outcome = apply(record({ state, operation }), { failure: { ...refused, retryable: false } })
    t.match(outcome, { record: { state: failedState }, nextOperation: null }, state)
  }
})

void t.test('a machine that works by itself is waited for, until it is done, fails, or fails for good', async (t) => {
  const waiting = (machine: MachineRecord, timeoutMs = 60_000): ReportFacts => ({
    waiting: {
      operation: machine.operation ?? '',
      operationGeneration: machine.operationGeneration,
      timeoutMs,
      message: 'the wipe',
    },
  })
  const cleaning = record({ state: 'CLEANING', operation: 'CLEAN' })
  const waits = apply(cleaning, waiting(cleaning)).record
  t.match(waits, { state: 'CLEAN_WAIT', waiting: { message: 'the wipe', until: new Date(now.getTime() + 60_000) } })
  t.strictSame(apply(waits, waiting(waits, 999_000)).record.waiting, waits.waiting, 'its deadline stands')
  t.match(apply(waits, { observed: { power: 'ON' } }).record, { state: 'CLEAN_WAIT' }, 'a look changes nothing')
  t.match(apply(waits, done(waits)).record, { state: 'AVAILABLE', waiting: null })
  t.match(apply(waits, { failure: refused }).record, { state: 'CLEANING', waiting: null, attempt: 1 }, 'tried again')
  const final = apply(waits, { failure: { ...refused, retryable: false } })
  t.match(final, { record: { state: 'CLEAN_FAILED', waiting: null }, nextOperation: null })
  const stale = { ...waiting(cleaning).waiting, operationGeneration: 7 }
  t.match(apply(cleaning, { waiting: stale as never }).record, { state: 'CLEANING', waiting: null })
  const verifying = record()
  t.match(apply(verifying, waiting(verifying)).record, { state: 'VERIFYING' }, 'there is nothing to wait for')
})

void t.test('a server in use is ACTIVE once it was looked at, and nothing follows', async (t) => {
  const adopting = record({ state: 'ADOPTING', operation: 'ADOPT' })
  t.match(apply(adopting, done(adopting)), { record: { state: 'ACTIVE' }, nextOperation: null })
  const failed = apply(adopting, { failure: { ...refused, retryable: false } })
  t.match(failed, { record: { state: 'ADOPT_FAILED' }, nextOperation: null })
})

void t.test('an inspection tells the hardware, and an AVAILABLE machine may be switched', async (t) => {
  const inspected = apply(record({ state: 'INSPECTING', operation: 'INSPECT' }), {
    observed: { hardware: { serial: 'X1' } },
    completed: { operation: 'INSPECT', operationGeneration: 1 },
  })
  t.match(inspected, { record: { state: 'CLEANING', hardware: { serial: 'X1' } }, nextOperation: 'CLEAN' })
  const switched = apply(record({ state: 'AVAILABLE', operation: 'POWER', power: 'OFF' }), {
    observed: { power: 'ON' },
    completed: { operation: 'POWER', operationGeneration: 1 },
  })
  t.match(switched, { record: { state: 'AVAILABLE', power: 'ON' }, nextOperation: null })
  t.strictSame(
    switched.events.map((event) => event.reason),
    ['PowerChanged'],
  )
})
