import type {
  Address,
  Condition,
  EventDraft,
  Failure,
  Hardware,
  JsonObject,
  LastError,
  PowerState,
  Progress,
} from '../facts.js'
import type { WaitFacts } from '../machine/wait.js'
import { isEnding, type Presence, type RequestOperation, type RequestState } from './request.js'

/** A machine request, as far as reports concern it. */
export interface RequestRecord {
  readonly id: string
  readonly name: string
  readonly hostName: string
  readonly providerId: string
  readonly providerName: string
  readonly organizationId: string
  readonly state: RequestState
  readonly operation: RequestOperation
  readonly operationGeneration: number
  readonly generation: number
  readonly observedGeneration: number
  readonly externalId: string | null
  readonly presence: Presence
  readonly power: PowerState | null
  readonly addresses: readonly Address[]
  readonly attributes: JsonObject
  readonly conditions: readonly Condition[]
  readonly createInDoubt: boolean
  readonly progress: Progress | null
  readonly rebootsDone: number
  /** Wished for, and done. */
  readonly reinstalls: number
  readonly reinstallsDone: number
  /** The revision of the wish under which it runs its rescue system; 0: it runs its own. */
  readonly rescueSeen: number
  readonly lastError: LastError | null
  /** Failures in a row. */
  readonly attempt: number
}

/** What a holder says is. Absent fields leave what was said before. */
export interface ObservedFacts {
  readonly generation?: number
  readonly presence?: Presence
  readonly externalId?: string
  readonly power?: PowerState
  readonly rebootsDone?: number
  readonly reinstallsDone?: number
  readonly rescue?: number
  readonly addresses?: readonly Address[]
  readonly attributes?: JsonObject
  readonly conditions?: readonly Omit<Condition, 'lastTransitionAt'>[]
  readonly createInDoubt?: boolean
  readonly hardware?: Hardware
}

export interface ReportFacts {
  readonly step?: {
    readonly operation: string
    readonly operationGeneration: number
    readonly name: string
    readonly result: unknown
  }
  readonly progress?: Progress
  readonly observed?: ObservedFacts
  readonly failure?: Failure
  readonly completed?: { readonly operation: string; readonly operationGeneration: number }
  readonly waiting?: WaitFacts
}

export interface RequestOutcome {
  readonly record: RequestRecord
  readonly events: readonly EventDraft[]
  /** The request is given up: a wish to deprovision goes with it. */
  readonly giveUp: boolean
  /** The offering said that it has none: hold it for a while. */
  readonly holdOffering: boolean
  /** What the machine beneath it is waited for from here on; `over`: for nothing more, a try has failed. Absent: as before. */
  readonly waiting?: WaitFacts | 'over'
}

/** The latest of `before` and what is said now; the time moves only where the status does. */
export function mergeConditions(
  before: readonly Condition[],
  said: readonly Omit<Condition, 'lastTransitionAt'>[],
  now: Date,
): readonly Condition[] {
  const merged = new Map(before.map((condition) => [condition.type, condition]))
  for (const condition of said) {
    const old = merged.get(condition.type)
    const lastTransitionAt =
      old !== undefined && old.status === condition.status ? old.lastTransitionAt : now.toISOString()
    merged.set(condition.type, { ...condition, lastTransitionAt })
  }
  return [...merged.values()]
}

/** The error to show after one more failure. */
export function nextLastError(failure: Failure, attempts: number, now: Date, nextAttemptAt?: Date): LastError {
  return {
    code: failure.code,
    message: failure.message,
    externalCode: failure.externalCode,
    step: failure.step,
    retryable: failure.retryable,
    attempts,
    at: now.toISOString(),
    ...(nextAttemptAt !== undefined && { nextAttemptAt: nextAttemptAt.toISOString() }),
  }
}

/**
 * What a report makes of a request. It has been checked before that it comes from the holder, under the present fence.
 *
 * @param nextAttemptAt when the next try is due, if this report tells of a failure.
 */
export function applyRequestReport(
  before: RequestRecord,
  report: ReportFacts,
  now: Date,
  nextAttemptAt: Date,
): RequestOutcome {
  // A late word after the end is taken note of, and changes nothing.
  if (before.state === 'GONE') return { record: before, events: [], giveUp: false, holdOffering: false }
  let record = observe(before, report, now)
  const events: EventDraft[] = observedEvents(before, record)
  if (report.step !== undefined)
    events.push(event(before, 'RequestStepDone', 'INFO', `Step ${report.step.name} is done`))
  let giveUp = false
  let holdOffering = false
  if (report.failure !== undefined) {
    const failed = fail(record, report.failure, now, nextAttemptAt)
    record = failed.record
    giveUp = failed.giveUp
    const hasNone = report.failure.code === 'CAPACITY' || report.failure.code === 'QUOTA'
    holdOffering = failed.giveUp && hasNone && before.operation === 'PROVISION'
    events.push(...failed.events)
  }
  if (report.completed !== undefined) {
    const completed = complete(record, report.completed)
    record = completed.record
    events.push(...completed.events)
  }
  const waiting = waitOf(record, report)
  return { record, events, giveUp, holdOffering, ...(waiting !== undefined && { waiting }) }
}

function waitOf(record: RequestRecord, { waiting, failure }: ReportFacts): WaitFacts | 'over' | undefined {
  if (failure !== undefined) return 'over'
  const current = waiting?.operation === record.operation && waiting.operationGeneration === record.operationGeneration
  return current && record.state === 'PROVISIONING' ? waiting : undefined
}

function observe(before: RequestRecord, report: ReportFacts, now: Date): RequestRecord {
  const observed = report.observed ?? {}
  return {
    ...before,
    observedGeneration: Math.max(before.observedGeneration, Math.min(observed.generation ?? 0, before.generation)),
    presence: observed.presence ?? before.presence,
    externalId: observed.externalId ?? before.externalId,
    power: observed.power ?? before.power,
    rebootsDone: Math.max(before.rebootsDone, observed.rebootsDone ?? 0),
    // Nobody has done more than was ever wished for.
    reinstallsDone: Math.max(before.reinstallsDone, Math.min(observed.reinstallsDone ?? 0, before.reinstalls)),
    rescueSeen: observed.rescue ?? before.rescueSeen,
    addresses: observed.addresses ?? before.addresses,
    attributes: observed.attributes ?? before.attributes,
    conditions:
      observed.conditions === undefined
        ? before.conditions
        : mergeConditions(before.conditions, observed.conditions, now),
    createInDoubt: observed.createInDoubt ?? before.createInDoubt,
    progress: report.progress ?? before.progress,
  }
}

function observedEvents(before: RequestRecord, after: RequestRecord): EventDraft[] {
  const events: EventDraft[] = []
  if (before.power !== null && after.power !== before.power) {
    events.push(event(before, 'PowerChanged', 'INFO', `Power is ${after.power ?? 'unknown'}`))
  }
  if (after.rebootsDone > before.rebootsDone) events.push(event(before, 'Rebooted', 'INFO', 'Rebooted'))
  if (after.reinstallsDone > before.reinstallsDone)
    events.push(event(before, 'Reinstalled', 'INFO', 'A new system was put on the machine'))
  if (after.rescueSeen !== before.rescueSeen) {
    const message = after.rescueSeen === 0 ? 'It runs its own system' : 'It runs its rescue system'
    events.push(event(before, 'RescueChanged', 'INFO', message))
  }
  if (
    before.state === 'PROVISIONED' &&
    !isEnding(before.operation) &&
    before.presence === 'PRESENT' &&
    after.presence === 'ABSENT'
  ) {
    events.push(
      event(before, 'MachineVanished', 'ERROR', `The machine ${before.externalId ?? ''} vanished outside of Slipway`),
    )
  }
  return events
}

function fail(
  record: RequestRecord,
  failure: Failure,
  now: Date,
  nextAttemptAt: Date,
): { readonly record: RequestRecord; readonly events: readonly EventDraft[]; readonly giveUp: boolean } {
  const attempt = record.attempt + 1
  // Only what comes by its machine can be given up. What exists must be kept, and what is to go must go: those are tried until they succeed, or the wish is another one.
  const comesBy = record.operation === 'PROVISION' || record.operation === 'ADOPT'
  const giveUp = !failure.retryable && comesBy && record.state !== 'PROVISIONED'
  const lastError = nextLastError(failure, attempt, now, giveUp ? undefined : nextAttemptAt)
  const where = failure.step === '' ? '' : ` in step ${failure.step}`
  const events: EventDraft[] = [
    event(
      record,
      giveUp ? 'RequestFailed' : 'AttemptFailed',
      giveUp ? 'ERROR' : 'WARNING',
      `${failure.code}${where}: ${failure.message}`,
    ),
  ]
  if (record.createInDoubt) {
    const what =
      record.operation === 'REINSTALL'
        ? 'A reinstall was sent'
        : record.operation === 'ADOPT'
          ? 'The key of an adoption was sent'
          : 'A create was sent'
    const message = `${what} and its outcome is not known; it is looked up before the next try`
    events.push(event(record, 'CreateInDoubt', 'WARNING', message))
  }
  return { record: { ...record, attempt, lastError, ...(giveUp && { state: 'FAILED' as const }) }, events, giveUp }
}

function complete(
  record: RequestRecord,
  completed: { readonly operation: string; readonly operationGeneration: number },
): { readonly record: RequestRecord; readonly events: readonly EventDraft[] } {
  const current =
    completed.operation === record.operation && completed.operationGeneration === record.operationGeneration
  if (!current) return { record, events: [] }
  // A reinstall that was only called complete, and not counted as done, ends nothing.
  if (record.operation === 'REINSTALL' && record.reinstallsDone < record.reinstalls) return { record, events: [] }
  if (!isEnding(record.operation)) {
    // An adoption of nobody knows what adopts nothing.
    if (record.operation === 'ADOPT' && record.externalId === null) return { record, events: [] }
    const first = record.state !== 'PROVISIONED'
    const what = record.operation === 'ADOPT' ? 'adopted as it is' : 'provisioned'
    return {
      record: { ...record, state: 'PROVISIONED', attempt: 0, lastError: null, progress: null, createInDoubt: false },
      events: first
        ? [event(record, 'RequestProvisioned', 'INFO', `Machine ${record.externalId ?? ''} is ${what}`)]
        : [],
    }
  }
  // An absence that was only claimed, and not seen, ends nothing. What is let go of stays where it is.
  if (record.operation === 'DEPROVISION' && record.presence !== 'ABSENT') return { record, events: [] }
  const left =
    record.operation === 'UNADOPT' ? 'The server is left as it is, without our key' : 'Nothing of it exists any more'
  return {
    record: { ...record, state: 'GONE', attempt: 0, progress: null, createInDoubt: false },
    events: [event(record, 'RequestGone', 'INFO', left)],
  }
}

function event(
  record: RequestRecord,
  reason: EventDraft['reason'],
  severity: EventDraft['severity'],
  message: string,
): EventDraft {
  return {
    subject: `machineRequests/${record.name}`,
    related: [record.hostName, `providers/${record.providerName}`],
    reason,
    severity,
    message,
    providerId: record.providerId,
    organizationId: record.organizationId,
  }
}
