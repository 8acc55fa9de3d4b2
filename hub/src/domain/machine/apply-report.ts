import type { Address, Condition, EventDraft, Hardware, JsonObject, LastError, PowerState } from '../facts.js'
import { mergeConditions, nextLastError, type ReportFacts } from '../request/apply-report.js'
import {
  afterOperation,
  doingOperation,
  isWaiting,
  stateAfterWaiting,
  stateWhileWaiting,
  waitingOperation,
} from './lifecycle.js'
import type { MachineOperation, MachineState } from './machine.js'
import { nextWait, type MachineWait } from './wait.js'

/** A static machine's own work, as far as reports concern it. */
export interface MachineRecord {
  readonly id: string
  readonly name: string
  readonly providerId: string
  readonly providerName: string
  readonly externalId: string
  readonly state: MachineState
  readonly operation: MachineOperation | null
  readonly operationGeneration: number
  readonly generation: number
  readonly observedGeneration: number
  readonly hardware: Hardware
  readonly power: PowerState | null
  readonly rebootsDone: number
  readonly addresses: readonly Address[]
  readonly attributes: JsonObject
  readonly conditions: readonly Condition[]
  readonly lastError: LastError | null
  readonly attempt: number
  /** In a waiting state: what for. */
  readonly waiting: MachineWait | null
}

export interface MachineOutcome {
  readonly record: MachineRecord
  readonly events: readonly EventDraft[]
  /** Set where a new operation begins, or none is left: a wish goes with it. */
  readonly nextOperation: MachineOperation | null | undefined
}

/** Tries in a row before a machine's own work is given up to a person. A wipe is not repeated for ever on a disk that refuses it. */
export const maxMachineAttempts: Readonly<Record<MachineOperation, number>> = {
  VERIFY: 5,
  INSPECT: 5,
  CLEAN: 3,
  POWER: 10,
  ADOPT: 5,
}

/** What a report makes of a static machine. It has been checked before that it comes from the holder, under the present fence. */
export function applyMachineReport(
  before: MachineRecord,
  report: ReportFacts,
  now: Date,
  nextAttemptAt: Date,
): MachineOutcome {
  if (before.state === 'GONE') return { record: before, events: [], nextOperation: undefined }
  const record = observe(before, report, now)
  const events: EventDraft[] = []
  if (before.power !== null && record.power !== before.power) {
    events.push(event(record, 'PowerChanged', 'INFO', `Power is ${record.power ?? 'unknown'}`))
  }
  if (record.rebootsDone > before.rebootsDone) events.push(event(record, 'Rebooted', 'INFO', 'Rebooted'))
  if (report.failure !== undefined) {
    const attempt = record.attempt + 1
    const operation = record.operation ?? 'POWER'
    const final = !report.failure.retryable || attempt >= maxMachineAttempts[operation]
    const lastError = nextLastError(report.failure, attempt, now, final ? undefined : nextAttemptAt)
    const failed: MachineRecord = { ...(final ? record : resume(record)), attempt, lastError }
    if (!final) {
      events.push(
        event(record, 'AttemptFailed', 'WARNING', `${operation}: ${report.failure.code}: ${report.failure.message}`),
      )
      return { record: failed, events: [...events, ...moved(record, failed)], nextOperation: undefined }
    }
    const outcome = move(failed, afterOperation(record.state, operation, 'failed'), null)
    events.push(
      event(
        record,
        'MachineFailed',
        'ERROR',
        `${operation} failed for good: ${report.failure.code}: ${report.failure.message}`,
      ),
    )
    return { ...outcome, events: [...events, ...outcome.events] }
  }
  if (
    report.completed !== undefined &&
    report.completed.operation === record.operation &&
    report.completed.operationGeneration === record.operationGeneration
  ) {
    const next = afterOperation(record.state, record.operation, 'done')
    const outcome = move({ ...record, attempt: 0, lastError: null }, next, doingOperation(next))
    return { ...outcome, events: [...events, ...outcome.events] }
  }
  const waited = wait(record, report, now)
  return { record: waited, events: [...events, ...moved(record, waited)], nextOperation: undefined }
}

/** The machine's own callback is waited for from here on, if the report says so. */
function wait(record: MachineRecord, { waiting }: ReportFacts, now: Date): MachineRecord {
  if (waiting?.operation !== record.operation || waiting.operationGeneration !== record.operationGeneration)
    return record
  const operation = waitingOperation(record.operation)
  if (operation === undefined) return record
  const state = isWaiting(record.state) ? record.state : stateWhileWaiting(record.state, operation)
  return state === undefined ? record : { ...record, state, waiting: nextWait(record.waiting, waiting, now) }
}

/** A try is over: nobody calls back for it any more. */
function resume(record: MachineRecord): MachineRecord {
  const operation = waitingOperation(record.operation)
  const state = operation === undefined ? undefined : stateAfterWaiting(record.state, operation)
  return state === undefined ? record : { ...record, state, waiting: null }
}

function observe(before: MachineRecord, report: ReportFacts, now: Date): MachineRecord {
  const observed = report.observed ?? {}
  return {
    ...before,
    observedGeneration: Math.max(before.observedGeneration, Math.min(observed.generation ?? 0, before.generation)),
    power: observed.power ?? before.power,
    rebootsDone: Math.max(before.rebootsDone, observed.rebootsDone ?? 0),
    addresses: observed.addresses ?? before.addresses,
    attributes: observed.attributes ?? before.attributes,
    hardware: observed.hardware ?? before.hardware,
    conditions:
      observed.conditions === undefined
        ? before.conditions
        : mergeConditions(before.conditions, observed.conditions, now),
  }
}

function move(record: MachineRecord, state: MachineState, nextOperation: MachineOperation | null): MachineOutcome {
  const after = { ...record, state, waiting: isWaiting(state) ? record.waiting : null }
  return { record: after, events: moved(record, after), nextOperation }
}

function moved(before: MachineRecord, { state }: MachineRecord): readonly EventDraft[] {
  if (state === before.state) return []
  return [event(before, 'MachineStateChanged', 'INFO', `${before.state} → ${state}`)]
}

function event(
  record: MachineRecord,
  reason: EventDraft['reason'],
  severity: EventDraft['severity'],
  message: string,
): EventDraft {
  return {
    subject: `machines/${record.name}`,
    related: [`providers/${record.providerName}`],
    reason,
    severity,
    message,
    providerId: record.providerId,
  }
}
