import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { EventDraft } from '../domain/facts.js'
import { retryDelayMs } from '../domain/backoff.js'
import { applyMachineReport, type MachineRecord } from '../domain/machine/apply-report.js'
import { transitionMachine } from '../domain/machine/transitions.js'
import { shortName } from '../domain/names.js'
import { applyRequestReport, type ReportFacts, type RequestRecord } from '../domain/request/apply-report.js'
import type { Tx } from './database.js'
import { appendEvents, type Cause } from './events.js'
import { scheduleHost } from './host-schedule.js'
import type { MachineRequestRow, MachineRow, WorkItemRow } from './tables.js'
import { wishMachine, wishRequest } from './wishes.js'
import type { WakeTopic } from './wake.js'

// What holders say of their items, many at a time in one transaction: one commit for all of them.

/** A report or a release, as it came. */
export interface WorkEntry {
  readonly sessionId: string
  readonly providerId: string
  readonly providerName: string
  readonly itemId: string
  readonly fence: number
  readonly body:
    | { readonly kind: 'report'; readonly report: ReportFacts }
    | { readonly kind: 'settled'; readonly generation: number }
    | { readonly kind: 'retry'; readonly afterMs: number }
}

export type EntryResult =
  | { readonly ok: true }
  | { readonly ok: false; readonly reason: 'STALE_FENCE' | 'UNKNOWN_ITEM' | 'INVALID'; readonly message: string }

export interface AppliedEntries {
  /** One for each entry, in order. */
  readonly results: readonly EntryResult[]
  /** To be signalled after the commit. */
  readonly wake: readonly WakeTopic[]
}

interface ItemState {
  readonly item: WorkItemRow
  released: boolean
  dueInMs: number | null | undefined
  attempt: number
  request?: {
    readonly row: MachineRequestRow
    record: RequestRecord
    giveUp: boolean
    holdOffering: boolean
    touched: boolean
  }
  machine?: {
    readonly row: MachineRow
    record: MachineRecord
    next: MachineRecord['operation'] | undefined
    touched: boolean
  }
}

/** Offerings that said CAPACITY or QUOTA are not offered again for this long. */
const offeringHoldMs = 5 * 60_000

/** Applies entries in order. Each is accepted only from the session that holds the item, under its present fence. */
export async function applyWorkEntries(tx: Tx, entries: readonly WorkEntry[], now: Date): Promise<AppliedEntries> {
  const states = await loadStates(tx, [...new Set(entries.map((entry) => entry.itemId))])
  const events = new Map<string, EventDraft[]>()
  const steps: { entry: WorkEntry; step: NonNullable<ReportFacts['step']> }[] = []
  const results = entries.map((entry): EntryResult => {
    const state = states.get(entry.itemId)
    if (state === undefined || state.item.provider_id !== entry.providerId) {
      return { ok: false, reason: 'UNKNOWN_ITEM', message: `there is no item ${entry.itemId} of this provider` }
    }
    if (state.released || state.item.session_id !== entry.sessionId || state.item.fence !== entry.fence) {
      return {
        ok: false,
        reason: 'STALE_FENCE',
        message: `the claim under fence ${entry.fence} is over; stop, and touch nothing more`,
      }
    }
    if (entry.body.kind !== 'report') {
      release(state, entry.body)
      return { ok: true }
    }
    if (entry.body.report.step !== undefined) steps.push({ entry, step: entry.body.report.step })
    const said = applyReport(state, entry.body.report, now)
    const actor = `providers/${entry.providerName}`
    events.set(actor, [...(events.get(actor) ?? []), ...said])
    return { ok: true }
  })
  await insertSteps(tx, steps)
  const wake: WakeTopic[] = []
  for (const state of states.values()) await writeState(tx, state, now, wake)
  for (const [actor, drafts] of events) await appendEvents(tx, { actor, requestId: '' } satisfies Cause, drafts)
  if (entries.length > 0) wake.push({ kind: 'change' })
  return { results, wake }
}

async function loadStates(tx: Tx, ids: readonly string[]): Promise<Map<string, ItemState>> {
  const items = await tx
    .selectFrom('work_items')
    .selectAll()
    .where('id', 'in', ids)
    .orderBy('provider_id')
    .orderBy('id')
    .forUpdate()
    .execute()
  const requestIds = items.filter((item) => item.kind === 'MACHINE_REQUEST').map((item) => item.id)
  const machineIds = items.filter((item) => item.kind === 'MACHINE').map((item) => item.id)
  const requests =
    requestIds.length === 0
      ? []
      : await tx
          .selectFrom('machine_requests')
          .selectAll()
          .where('id', 'in', requestIds)
          .orderBy('id')
          .forUpdate()
          .execute()
  const machines =
    machineIds.length === 0
      ? []
      : await tx.selectFrom('machines').selectAll().where('id', 'in', machineIds).orderBy('id').forUpdate().execute()
  const states = new Map<string, ItemState>(
    items.map((item) => [item.id, { item, released: false, dueInMs: undefined, attempt: item.attempt }]),
  )
  for (const row of requests) {
    const state = states.get(row.id)
    if (state !== undefined) {
      state.request = {
        row,
        record: toRequestRecord(row, state.item),
        giveUp: false,
        holdOffering: false,
        touched: false,
      }
    }
  }
  for (const row of machines) {
    const state = states.get(row.id)
    if (state !== undefined)
      state.machine = { row, record: toMachineRecord(row, state.item), next: undefined, touched: false }
  }
  return states
}

function applyReport(state: ItemState, report: ReportFacts, now: Date): readonly EventDraft[] {
  const retryInMs = retryDelayMs(state.attempt + 1, report.failure?.retryAfterMs ?? 0)
  const nextAttemptAt = new Date(now.getTime() + retryInMs)
  if (report.failure !== undefined) state.dueInMs = retryInMs
  if (state.request !== undefined) {
    const outcome = applyRequestReport(state.request.record, report, now, nextAttemptAt)
    state.request.record = outcome.record
    state.request.giveUp ||= outcome.giveUp
    state.request.holdOffering ||= outcome.holdOffering
    state.request.touched = true
    state.attempt = outcome.record.attempt
    return outcome.events
  }
  if (state.machine !== undefined) {
    const outcome = applyMachineReport(state.machine.record, report, now, nextAttemptAt)
    state.machine.record = outcome.record
    if (outcome.nextOperation !== undefined) state.machine.next = outcome.nextOperation
    state.machine.touched = true
    state.attempt = outcome.record.attempt
    return outcome.events
  }
  return []
}

function release(state: ItemState, body: Exclude<WorkEntry['body'], { kind: 'report' }>): void {
  state.released = true
  if (body.kind === 'retry') {
    // A failure in the same batch has set the back-off already; the holder's own wish can only make it longer.
    state.dueInMs = Math.max(state.dueInMs ?? (state.attempt > 0 ? retryDelayMs(state.attempt, 0) : 0), body.afterMs)
    return
  }
  state.dueInMs = state.item.generation > body.generation ? 0 : null
}

async function insertSteps(
  tx: Tx,
  steps: readonly { entry: WorkEntry; step: NonNullable<ReportFacts['step']> }[],
): Promise<void> {
  if (steps.length === 0) return
  await tx
    .insertInto('steps')
    .values(
      steps.map(({ entry, step }) => ({
        provider_id: entry.providerId,
        item_id: entry.itemId,
        operation: step.operation,
        operation_generation: step.operationGeneration,
        name: step.name,
        result: JSON.stringify(step.result ?? null),
        fence: entry.fence,
      })),
    )
    // The first result stands: a step that is told twice was done once.
    .onConflict((conflict) => conflict.doNothing())
    .execute()
}

async function writeState(tx: Tx, state: ItemState, now: Date, wake: WakeTopic[]): Promise<void> {
  const { item } = state
  if (state.released || state.attempt !== item.attempt) {
    await tx
      .updateTable('work_items')
      .set({
        attempt: state.attempt,
        ...(state.released && {
          session_id: null,
          due_at:
            state.dueInMs === null || state.dueInMs === undefined
              ? null
              : sql<Date>`clock_timestamp() + ${state.dueInMs} * interval '1 millisecond'`,
        }),
      })
      .where('provider_id', '=', item.provider_id)
      .where('id', '=', item.id)
      .execute()
  }
  if (state.released && state.dueInMs === 0) wake.push({ kind: 'work', providerId: item.provider_id })
  if (state.request?.touched === true) await writeRequest(tx, state.request, now, wake)
  if (state.machine?.touched === true) await writeMachine(tx, state.machine, now, wake)
}

async function writeRequest(
  tx: Tx,
  state: NonNullable<ItemState['request']>,
  now: Date,
  wake: WakeTopic[],
): Promise<void> {
  const { row, record } = state
  const machine = await machineOfRequest(tx, row, record, now, wake)
  await tx
    .updateTable('machine_requests')
    .set({
      state: record.state,
      observed_generation: record.observedGeneration,
      external_id: record.externalId,
      presence: record.presence,
      power: record.power,
      addresses: JSON.stringify(record.addresses),
      attributes: JSON.stringify(record.attributes),
      conditions: JSON.stringify(record.conditions),
      create_in_doubt: record.createInDoubt,
      progress: record.progress === null ? null : JSON.stringify(record.progress),
      reboots_done: record.rebootsDone,
      last_error: record.lastError === null ? null : JSON.stringify(record.lastError),
      ...(machine !== undefined && { machine_id: machine.id, machine_name: machine.name }),
      ...(record.state === 'PROVISIONED' && row.provisioned_at === null && { provisioned_at: now }),
      ...(record.state === 'GONE' && row.gone_at === null && { gone_at: now }),
    })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .execute()
  if (state.giveUp) {
    await wishRequest(tx, { providerId: row.provider_id, id: row.id }, { operation: 'DEPROVISION' })
    wake.push({ kind: 'work', providerId: row.provider_id })
  }
  if (state.holdOffering) await holdOffering(tx, row, record)
  await scheduleHost(tx, { organizationId: row.organization_id, hostId: row.host_id })
  wake.push({ kind: 'host' })
}

/**
 * Keeps the machine beneath a request in step with it. A dynamic machine's record appears with its first external id; a static one is
 * ACTIVE once it is provisioned, and is cleaned, by its own work, once the host is off it.
 */
async function machineOfRequest(
  tx: Tx,
  row: MachineRequestRow,
  record: RequestRecord,
  now: Date,
  wake: WakeTopic[],
): Promise<{ readonly id: string; readonly name: string } | undefined> {
  if (row.machine_id === null) {
    if (row.static || record.externalId === null || record.state === 'GONE') return undefined
    const id = uuid()
    const machine = { id, name: shortName('m', id) }
    await tx
      .insertInto('machines')
      .values({
        provider_id: row.provider_id,
        ...machine,
        provider_name: row.provider_name,
        static: false,
        external_id: record.externalId,
        state: 'ACTIVE',
        hardware: JSON.stringify({ shape: row.spec.shape }),
        addresses: JSON.stringify(record.addresses),
        power: record.power,
        request_id: row.id,
        request_name: row.name,
        host_id: row.host_id,
        host_name: row.host_name,
        attributes: JSON.stringify(record.attributes),
        seen_at: now,
      })
      .execute()
    return machine
  }
  const machine = await tx
    .selectFrom('machines')
    .selectAll()
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.machine_id)
    .forUpdate()
    .executeTakeFirst()
  if (machine === undefined) return undefined
  if (record.state === 'GONE') {
    await detachMachine(tx, machine, row, now, wake)
    return undefined
  }
  const active = record.state === 'PROVISIONED' ? transitionMachine(machine.state, 'provisioned') : undefined
  await tx
    .updateTable('machines')
    .set({
      ...(active !== undefined && { state: active }),
      power: record.power,
      addresses: JSON.stringify(record.addresses),
      attributes: JSON.stringify(record.attributes),
      reboots_done: record.rebootsDone,
      reboots: row.reboots,
      desired_power: row.desired_power,
      last_error: record.lastError === null ? null : JSON.stringify(record.lastError),
      seen_at: now,
    })
    .where('provider_id', '=', machine.provider_id)
    .where('id', '=', machine.id)
    .execute()
  return undefined
}

/** The end of a request: a dynamic machine is gone with it; a static one is cleaned before anyone else may have it. */
export async function detachMachine(
  tx: Tx,
  machine: MachineRow,
  request: Pick<MachineRequestRow, 'id'>,
  now: Date,
  wake: WakeTopic[],
): Promise<void> {
  if (machine.request_id !== request.id) return
  if (!machine.static) {
    await tx
      .updateTable('machines')
      .set({ state: 'GONE', gone_at: now })
      .where('provider_id', '=', machine.provider_id)
      .where('id', '=', machine.id)
      .execute()
    return
  }
  await tx
    .updateTable('machines')
    .set({ request_id: null, request_name: null, host_id: null, host_name: null, desired_power: null })
    .where('provider_id', '=', machine.provider_id)
    .where('id', '=', machine.id)
    .execute()
  const next = transitionMachine(machine.state, 'released')
  if (next !== undefined) {
    await wishMachine(tx, { providerId: machine.provider_id, id: machine.id }, { state: next, operation: 'CLEAN' })
    wake.push({ kind: 'work', providerId: machine.provider_id })
  }
}

async function holdOffering(tx: Tx, row: MachineRequestRow, record: RequestRecord): Promise<void> {
  await tx
    .updateTable('offerings')
    .set({
      held_until: sql<Date>`clock_timestamp() + ${offeringHoldMs} * interval '1 millisecond'`,
      held_reason: `${record.lastError?.code ?? 'CAPACITY'}: ${record.lastError?.message ?? ''}`,
    })
    .where('provider_id', '=', row.provider_id)
    .where('type_id', '=', row.type_id)
    .where('location', '=', row.location)
    .execute()
}

async function writeMachine(
  tx: Tx,
  state: NonNullable<ItemState['machine']>,
  now: Date,
  wake: WakeTopic[],
): Promise<void> {
  const { row, record } = state
  await tx
    .updateTable('machines')
    .set({
      state: record.state,
      observed_generation: record.observedGeneration,
      hardware: JSON.stringify(record.hardware),
      power: record.power,
      addresses: JSON.stringify(record.addresses),
      attributes: JSON.stringify(record.attributes),
      conditions: JSON.stringify(record.conditions),
      reboots_done: record.rebootsDone,
      last_error: record.lastError === null ? null : JSON.stringify(record.lastError),
      seen_at: now,
    })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .execute()
  if (state.next === undefined) return
  await wishMachine(tx, { providerId: row.provider_id, id: row.id }, { operation: state.next })
  wake.push({ kind: 'work', providerId: row.provider_id })
}

function toRequestRecord(row: MachineRequestRow, item: WorkItemRow): RequestRecord {
  return {
    id: row.id,
    name: row.name,
    hostName: row.host_name,
    providerId: row.provider_id,
    providerName: row.provider_name,
    organizationId: row.organization_id,
    state: row.state,
    operation: row.operation,
    operationGeneration: row.operation_generation,
    generation: row.generation,
    observedGeneration: row.observed_generation,
    externalId: row.external_id,
    presence: row.presence,
    power: row.power,
    addresses: row.addresses,
    attributes: row.attributes,
    conditions: row.conditions,
    createInDoubt: row.create_in_doubt,
    progress: row.progress,
    rebootsDone: row.reboots_done,
    lastError: row.last_error,
    attempt: item.attempt,
  }
}

function toMachineRecord(row: MachineRow, item: WorkItemRow): MachineRecord {
  return {
    id: row.id,
    name: row.name,
    providerId: row.provider_id,
    providerName: row.provider_name,
    externalId: row.external_id,
    state: row.state,
    operation: row.operation,
    operationGeneration: row.operation_generation,
    generation: row.generation,
    observedGeneration: row.observed_generation,
    hardware: row.hardware,
    power: row.power,
    rebootsDone: row.reboots_done,
    addresses: row.addresses,
    attributes: row.attributes,
    conditions: row.conditions,
    lastError: row.last_error,
    attempt: item.attempt,
  }
}
