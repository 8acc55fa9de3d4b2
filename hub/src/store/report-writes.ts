import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { Hardware, PowerState } from '../domain/facts.js'
import type { MachineRecord } from '../domain/machine/apply-report.js'
import { isWaiting, stateAfterWaiting, stateWhileWaiting } from '../domain/machine/lifecycle.js'
import type { MachineState } from '../domain/machine/machine.js'
import { transitionMachine } from '../domain/machine/transitions.js'
import { nextWait, type MachineWait, type WaitFacts } from '../domain/machine/wait.js'
import { shortName } from '../domain/names.js'
import { isHoldCode } from '../domain/placement/holds.js'
import { blamesPlace } from '../domain/placement/reliability.js'
import { nextLastError, type ReportFacts, type RequestRecord } from '../domain/request/apply-report.js'
import { endingOf } from '../domain/request/request.js'
import { holdCapacity } from './capacity-holds.js'
import type { Tx } from './database.js'
import { appendEvents, hubCause } from './events.js'
import { scheduleHosts } from './host-schedule.js'
import { dealFreeMachines } from './machine-turns.js'
import { countFailedCreate } from './place-failures.js'
import { rowsAs } from './rows.js'
import type { MachineRequestRow, MachineRow, WorkItemRow } from './tables.js'
import type { WakeTopic } from './wake.js'
import { wishMachine, wishRequest } from './wishes.js'

// Stores what reports have made of items, all of a batch in one statement for each table. Every row is locked by then, and each write holds the fence of its
// claim against the work item once more.

/** That a machine was seen is stored again after this long, where nothing else has changed. */
const seenAtGranularityMs = 60_000

/** An item, as stored and as it is to be. */
export interface ItemState {
  readonly item: WorkItemRow
  released: boolean
  dueInMs: number | null | undefined
  attempt: number
  request?: RequestItem
  machine?: MachineItem
}

interface RequestItem {
  readonly row: MachineRequestRow
  readonly before: RequestRecord
  record: RequestRecord
  /** The machine that the request has already. */
  readonly beneath: MachineRow | undefined
  giveUp: boolean
  holdOffering: boolean
  waiting: WaitFacts | 'over' | undefined
  /** As its holder found it. */
  hardware: Hardware | undefined
}

interface MachineItem {
  readonly row: MachineRow
  readonly before: MachineRecord
  record: MachineRecord
  next: MachineRecord['operation'] | undefined
}

/** A step that a holder says is done. */
export interface ReportedStep {
  readonly entry: { readonly providerId: string; readonly itemId: string; readonly fence: number }
  readonly step: NonNullable<ReportFacts['step']>
}

/** Stores the results of steps. The first result stands: a step that is told twice was done once. */
export async function insertSteps(tx: Tx, steps: readonly ReportedStep[]): Promise<void> {
  if (steps.length === 0) return
  const rows = steps.map(({ entry, step }) => ({
    provider_id: entry.providerId,
    item_id: entry.itemId,
    operation: step.operation,
    operation_generation: step.operationGeneration,
    name: step.name,
    // As text: JSON null is a result, and not the lack of one.
    result: JSON.stringify(step.result ?? null),
    fence: entry.fence,
  }))
  await sql`/* insert-steps */
    insert into steps (provider_id, item_id, operation, operation_generation, name, result, fence)
    select provider_id, item_id, operation, operation_generation, name, result::jsonb, fence
    from ${rowsAs('s (provider_id uuid, item_id uuid, operation text, operation_generation bigint, name text, result text, fence bigint)', rows)}
    on conflict do nothing
  `.execute(tx)
}

/** Stores items, and all that follows from them. Returns what to wake after the commit. */
export async function writeStates(tx: Tx, states: readonly ItemState[], now: Date): Promise<WakeTopic[]> {
  const wake: WakeTopic[] = []
  const requests = states.flatMap(({ item, request }) =>
    request !== undefined && changed(request) ? [{ item, ...request }] : [],
  )
  const machines = states.flatMap(({ item, machine }) => (machine === undefined ? [] : [{ item, ...machine }]))
  const made = newMachines(requests)
  const beneath = rowsBeneath(requests, now)
  const written = Promise.all([
    insertMachines(tx, requests, made, now),
    updateRequests(tx, requests, made, now),
    updateBeneath(tx, beneath),
    updateMachines(tx, machines, new Map(beneath.map((row) => [row.id, row])), now),
    updateItems(tx, states),
  ])
  const followUps = requests.some(needsFollowUp) || machines.some(({ next }) => next !== undefined)
  if (followUps) {
    await written
    await followUp(tx, requests, machines, now, wake)
  }
  const looked = machines.filter(({ row, next }) => row.state === 'ADOPTING' && next !== undefined)
  const hosts = [
    ...requests.map(({ row }) => ({ organizationId: row.organization_id, hostId: row.host_id })),
    ...(await hostsOf(tx, looked)),
  ]
  // Machines that nobody has any more work with are for those who wait for them, in their turn.
  const freed = states.flatMap(({ machine, released, dueInMs }) =>
    machine?.record.state === 'AVAILABLE' && released && (dueInMs ?? null) === null ? [machine.row.provider_id] : [],
  )
  await written
  const turns = await dealFreeMachines(tx, [...new Set(freed)], now)
  // Schedules are locked last.
  await scheduleHosts(tx, hosts)
  if (hosts.length > 0 || turns) wake.push({ kind: 'host' })
  for (const { item, released, dueInMs } of states)
    if (released && dueInMs === 0) wake.push({ kind: 'work', providerId: item.provider_id })
  return wake
}

function needsFollowUp({ record, beneath, giveUp, holdOffering: hold }: ChangedRequest): boolean {
  return giveUp || hold || (record.state === 'GONE' && beneath !== undefined)
}

/** What is rare, or concerns few. */
async function followUp(
  tx: Tx,
  requests: readonly ChangedRequest[],
  machines: readonly MachineItem[],
  now: Date,
  wake: WakeTopic[],
): Promise<void> {
  for (const { row, record, beneath, giveUp, holdOffering: hold } of requests) {
    if (record.state === 'GONE' && beneath !== undefined) await detachMachine(tx, beneath, row, now, wake)
    const failed = record.lastError
    if (hold && !row.static && failed !== null && isHoldCode(failed.code))
      await appendEvents(tx, hubCause, await holdCapacity(tx, row, failed.code, failed.message))
    if (!giveUp) continue
    // Whose host was READY has been PROVISIONED, and is not given up.
    const operation = endingOf(row.adopt_external_id, false)
    if (row.adopt_external_id === null && failed !== null && blamesPlace(failed.code)) await countFailedCreate(tx, row)
    await wishRequest(tx, { providerId: row.provider_id, id: row.id }, { operation })
    wake.push({ kind: 'work', providerId: row.provider_id })
  }
  for (const { row, next } of machines) {
    if (next === undefined) continue
    await wishMachine(tx, { providerId: row.provider_id, id: row.id }, { operation: next })
    wake.push({ kind: 'work', providerId: row.provider_id })
  }
}

/** The hosts of machines that were looked at on their way into use are looked at, too. */
async function hostsOf(
  tx: Tx,
  machines: readonly MachineItem[],
): Promise<readonly { readonly organizationId: string; readonly hostId: string }[]> {
  const ids = machines.flatMap(({ row }) => row.request_id ?? [])
  if (ids.length === 0) return []
  const rows = await tx
    .selectFrom('machine_requests')
    .select(['organization_id', 'host_id'])
    .where('id', 'in', ids)
    .execute()
  return rows.map((row) => ({ organizationId: row.organization_id, hostId: row.host_id }))
}

/** A report that says nothing new is acknowledged, and nothing is written. */
function changed({ before, record, giveUp, holdOffering, waiting, beneath }: RequestItem): boolean {
  const waits = waiting !== undefined && (waiting !== 'over' || beneath?.state === 'PROVISION_WAIT')
  return giveUp || holdOffering || waits || (before !== record && JSON.stringify(before) !== JSON.stringify(record))
}

async function updateItems(tx: Tx, states: readonly ItemState[]): Promise<void> {
  const rows = states
    .filter(({ item, released, attempt }) => released || attempt !== item.attempt)
    .map(({ item, released, attempt, dueInMs }) => ({
      provider_id: item.provider_id,
      id: item.id,
      session_id: item.session_id,
      fence: item.fence,
      attempt,
      released,
      due_in_ms: dueInMs ?? null,
    }))
  if (rows.length === 0) return
  await sql`/* update-items */
    update work_items w
    set attempt = s.attempt,
        session_id = case when s.released then null else w.session_id end,
        due_at = case when s.released then clock_timestamp() + s.due_in_ms * interval '1 millisecond' else w.due_at end
    from ${rowsAs('s (provider_id uuid, id uuid, session_id uuid, fence bigint, attempt int, released boolean, due_in_ms float8)', rows)}
    where w.provider_id = s.provider_id and w.id = s.id and w.session_id = s.session_id and w.fence = s.fence
  `.execute(tx)
}

type ChangedRequest = RequestItem & { readonly item: WorkItemRow }

async function updateRequests(
  tx: Tx,
  requests: readonly ChangedRequest[],
  made: ReadonlyMap<string, NewMachine>,
  now: Date,
): Promise<void> {
  if (requests.length === 0) return
  const rows = requests.map(({ item, row, record }) => ({
    provider_id: row.provider_id,
    id: row.id,
    fence: item.fence,
    state: record.state,
    observed_generation: record.observedGeneration,
    external_id: record.externalId,
    presence: record.presence,
    power: record.power,
    addresses: record.addresses,
    attributes: record.attributes,
    conditions: record.conditions,
    create_in_doubt: record.createInDoubt,
    progress: record.progress,
    reboots_done: record.rebootsDone,
    reinstalls_done: record.reinstallsDone,
    rescue_seen: record.rescueSeen,
    last_error: record.lastError,
    machine_id: made.get(row.id)?.id ?? row.machine_id,
    machine_name: made.get(row.id)?.name ?? row.machine_name,
    provisioned_at: record.state === 'PROVISIONED' ? (row.provisioned_at ?? now) : row.provisioned_at,
    // Another deadline counts from here on.
    paused_ms: record.state === 'PROVISIONED' && row.state !== 'PROVISIONED' ? 0 : row.paused_ms,
    gone_at: record.state === 'GONE' ? (row.gone_at ?? now) : row.gone_at,
    desired_power: powerToKeep(row, record),
  }))
  await sql`/* update-requests */
    update machine_requests r
    set state = s.state, observed_generation = s.observed_generation, external_id = s.external_id, presence = s.presence, power = s.power,
        addresses = s.addresses, attributes = s.attributes, conditions = s.conditions, create_in_doubt = s.create_in_doubt,
        progress = s.progress, reboots_done = s.reboots_done, reinstalls_done = s.reinstalls_done, rescue_seen = s.rescue_seen,
        last_error = s.last_error, machine_id = s.machine_id, machine_name = s.machine_name, provisioned_at = s.provisioned_at, gone_at = s.gone_at,
        paused_ms = s.paused_ms, desired_power = coalesce(s.desired_power, r.desired_power)
    from ${rowsAs(
      `s (provider_id uuid, id uuid, fence bigint, state text, observed_generation bigint, external_id text, presence text, power text,
          addresses jsonb, attributes jsonb, conditions jsonb, create_in_doubt boolean, progress jsonb, reboots_done bigint, reinstalls_done bigint, rescue_seen bigint, last_error jsonb,
          machine_id uuid, machine_name text, provisioned_at timestamptz, gone_at timestamptz, paused_ms bigint, desired_power text)`,
      rows,
    )}
    join work_items w on w.provider_id = s.provider_id and w.id = s.id and w.fence = s.fence
    where r.provider_id = s.provider_id and r.id = s.id
  `.execute(tx)
}

/** A server that was taken over is left on or off, as it was found; null: nothing is to be kept. */
function powerToKeep(row: MachineRequestRow, record: RequestRecord): PowerState | null {
  const isAdopted = row.adopt_external_id !== null && record.operation === 'ADOPT'
  return isAdopted && record.state === 'PROVISIONED' && row.state !== 'PROVISIONED' ? record.power : null
}

interface NewMachine {
  readonly id: string
  readonly name: string
}

/** A dynamic machine's record appears with its first external id. By request id. */
function newMachines(requests: readonly ChangedRequest[]): ReadonlyMap<string, NewMachine> {
  const made = new Map<string, NewMachine>()
  for (const { row, record } of requests) {
    if (row.machine_id !== null || row.static || record.externalId === null || record.state === 'GONE') continue
    const id = uuid()
    made.set(row.id, { id, name: shortName('m', id) })
  }
  return made
}

async function insertMachines(
  tx: Tx,
  requests: readonly ChangedRequest[],
  made: ReadonlyMap<string, NewMachine>,
  now: Date,
): Promise<void> {
  const rows = requests.flatMap(({ item, row, record, hardware }) => {
    const machine = made.get(row.id)
    if (machine === undefined) return []
    return [
      {
        provider_id: row.provider_id,
        ...machine,
        provider_name: row.provider_name,
        external_id: record.externalId,
        hardware: hardware ?? { shape: row.spec.shape },
        addresses: record.addresses,
        power: record.power,
        request_id: row.id,
        request_name: row.name,
        host_id: row.host_id,
        host_name: row.host_name,
        attributes: record.attributes,
        seen_at: now,
        fence: item.fence,
      },
    ]
  })
  if (rows.length === 0) return
  await sql`/* insert-machines */
    insert into machines (provider_id, id, name, provider_name, static, external_id, state, hardware, addresses, power, request_id, request_name,
                          host_id, host_name, attributes, seen_at)
    select s.provider_id, s.id, s.name, s.provider_name, false, s.external_id, 'ACTIVE', s.hardware, s.addresses, s.power, s.request_id,
           s.request_name, s.host_id, s.host_name, s.attributes, s.seen_at
    from ${rowsAs(
      `s (provider_id uuid, id uuid, name text, provider_name text, external_id text, hardware jsonb, addresses jsonb, power text,
          request_id uuid, request_name text, host_id uuid, host_name text, attributes jsonb, seen_at timestamptz, fence bigint)`,
      rows,
    )}
    join work_items w on w.provider_id = s.provider_id and w.id = s.request_id and w.fence = s.fence
  `.execute(tx)
}

/** Keeps machines in step with the requests that they are beneath; a static one is ACTIVE once it is provisioned. */
function rowsBeneath(requests: readonly ChangedRequest[], now: Date) {
  return requests.flatMap(({ item, row, record, beneath, waiting }) => {
    if (beneath === undefined || record.state === 'GONE') return []
    const after = {
      ...stateBeneath(beneath, record, waiting, now),
      power: record.power,
      addresses: record.addresses,
      attributes: record.attributes,
      reboots_done: record.rebootsDone,
      reboots: row.reboots,
      reinstalls_done: record.reinstallsDone,
      reinstalls: row.reinstalls,
      desired_rescue: row.rescue !== null,
      rescue: record.rescueSeen > 0,
      desired_power: powerToKeep(row, record) ?? row.desired_power,
      last_error: record.lastError,
    }
    const same = (Object.keys(after) as (keyof typeof after)[]).every(
      (column) => JSON.stringify(after[column]) === JSON.stringify(beneath[column]),
    )
    if (same && seenLately(beneath, now)) return []
    const key = { provider_id: beneath.provider_id, id: beneath.id, request_id: row.id, fence: item.fence }
    return [{ ...key, ...after, seen_at: now }]
  })
}

type RowBeneath = ReturnType<typeof rowsBeneath>[number]

async function updateBeneath(tx: Tx, rows: readonly RowBeneath[]): Promise<void> {
  if (rows.length === 0) return
  await sql`/* update-machines-beneath */
    update machines m
    set state = s.state, waiting_for = s.waiting_for, waiting_at = s.waiting_at, waiting_until_at = s.waiting_until_at,
        power = s.power, addresses = s.addresses, attributes = s.attributes, reboots_done = s.reboots_done, reboots = s.reboots,
        reinstalls_done = s.reinstalls_done, reinstalls = s.reinstalls, desired_rescue = s.desired_rescue, rescue = s.rescue,
        desired_power = s.desired_power, last_error = s.last_error, seen_at = s.seen_at
    from ${rowsAs(
      `s (provider_id uuid, id uuid, request_id uuid, fence bigint, state text, waiting_for text, waiting_at timestamptz,
          waiting_until_at timestamptz, power text, addresses jsonb, attributes jsonb,
          reboots_done bigint, reboots bigint, reinstalls_done bigint, reinstalls bigint, desired_rescue boolean, rescue boolean, desired_power text, last_error jsonb, seen_at timestamptz)`,
      rows,
    )}
    join work_items w on w.provider_id = s.provider_id and w.id = s.request_id and w.fence = s.fence
    where m.provider_id = s.provider_id and m.id = s.id
  `.execute(tx)
}

/** What the machine of a request is about. Only a static one is ever anything but ACTIVE. */
function stateBeneath(
  beneath: MachineRow,
  record: RequestRecord,
  waiting: WaitFacts | 'over' | undefined,
  now: Date,
): { readonly state: MachineState } & WaitColumns {
  const before =
    beneath.waiting_at === null || beneath.waiting_until_at === null
      ? null
      : { message: beneath.waiting_for, since: beneath.waiting_at, until: beneath.waiting_until_at }
  const state = nextBeneath(beneath.state, record, waiting) ?? beneath.state
  if (!isWaiting(state)) return { state, ...waitColumns(null) }
  const wait = waiting === undefined || waiting === 'over' ? before : nextWait(before, waiting, now)
  return { state, ...waitColumns(wait) }
}

function nextBeneath(
  state: MachineState,
  record: RequestRecord,
  waiting: WaitFacts | 'over' | undefined,
): MachineState | undefined {
  // A server in use is ACTIVE once its provider has looked at it, and by nothing that is said of its request.
  if (record.state === 'PROVISIONED') return transitionMachine(state, 'provisioned')
  if (record.state === 'FAILED') return transitionMachine(state, 'provision-failed')
  if (waiting === undefined) return undefined
  return waiting === 'over' ? stateAfterWaiting(state, 'PROVISION') : stateWhileWaiting(state, 'PROVISION')
}

interface WaitColumns {
  readonly waiting_for: string
  readonly waiting_at: Date | null
  readonly waiting_until_at: Date | null
}

function waitColumns(wait: MachineWait | null): WaitColumns {
  return {
    waiting_for: wait?.message ?? '',
    waiting_at: wait?.since ?? null,
    waiting_until_at: wait?.until ?? null,
  }
}

function seenLately(machine: MachineRow, now: Date): boolean {
  return machine.seen_at !== null && now.getTime() - machine.seen_at.getTime() < seenAtGranularityMs
}

/** @param beneath what the same batch writes to machines for the requests above them, by machine. */
async function updateMachines(
  tx: Tx,
  machines: readonly (MachineItem & { readonly item: WorkItemRow })[],
  beneath: ReadonlyMap<string, RowBeneath>,
  now: Date,
): Promise<void> {
  const rows = machines
    .filter(({ row, before, record }) => !seenLately(row, now) || JSON.stringify(before) !== JSON.stringify(record))
    .map(({ item, row, before, record }) => ({
      provider_id: row.provider_id,
      id: row.id,
      fence: item.fence,
      ...sharedColumns(before, record, beneath.get(row.id)),
      observed_generation: record.observedGeneration,
      hardware: record.hardware,
      conditions: record.conditions,
      seen_at: now,
    }))
  if (rows.length === 0) return
  await sql`/* update-machines */
    update machines m
    set state = s.state, waiting_for = s.waiting_for, waiting_at = s.waiting_at, waiting_until_at = s.waiting_until_at,
        observed_generation = s.observed_generation, hardware = s.hardware, power = s.power, addresses = s.addresses,
        attributes = s.attributes, conditions = s.conditions, reboots_done = s.reboots_done, last_error = s.last_error, seen_at = s.seen_at
    from ${rowsAs(
      `s (provider_id uuid, id uuid, fence bigint, state text, waiting_for text, waiting_at timestamptz, waiting_until_at timestamptz,
          observed_generation bigint, hardware jsonb, power text, addresses jsonb,
          attributes jsonb, conditions jsonb, reboots_done bigint, last_error jsonb, seen_at timestamptz)`,
      rows,
    )}
    join work_items w on w.provider_id = s.provider_id and w.id = s.id and w.fence = s.fence
    where m.provider_id = s.provider_id and m.id = s.id
  `.execute(tx)
}

/**
 * What is said of a machine by its own item, and by its request's as well. Where both speak in one batch, both began from the same record: what the machine's own said
 * nothing new about is as the request's has just written it.
 */
function sharedColumns(before: MachineRecord, record: MachineRecord, written: RowBeneath | undefined) {
  const own = columnsOf(record)
  if (written === undefined) return own
  const was = columnsOf(before)
  const untouched = (Object.keys(own) as (keyof typeof own)[]).filter(
    (column) => JSON.stringify(own[column]) === JSON.stringify(was[column]),
  )
  return { ...own, ...Object.fromEntries(untouched.map((column) => [column, written[column]])) }
}

function columnsOf(record: MachineRecord) {
  return {
    state: record.state,
    ...waitColumns(record.waiting),
    power: record.power,
    addresses: record.addresses,
    attributes: record.attributes,
    reboots_done: record.rebootsDone,
    last_error: record.lastError,
  }
}

/** The end of a request: a dynamic machine is gone with it; a static one is cleaned before anyone else may have it. */
export async function detachMachine(
  tx: Tx,
  machine: MachineRow,
  request: Pick<MachineRequestRow, 'id' | 'operation' | 'provisioned_at'>,
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
    .set({
      request_id: null,
      request_name: null,
      host_id: null,
      host_name: null,
      desired_power: null,
    })
    .where('provider_id', '=', machine.provider_id)
    .where('id', '=', machine.id)
    .execute()
  const key = { providerId: machine.provider_id, id: machine.id }
  const untouched = transitionMachine(machine.state, 'unadopted')
  if (request.operation === 'ADOPT' && request.provisioned_at === null && untouched !== undefined) {
    await wishMachine(tx, key, { state: untouched, operation: null })
    wake.push({ kind: 'work', providerId: machine.provider_id })
    return
  }
  const next = transitionMachine(machine.state, 'released')
  if (next !== undefined && machine.protected) return quarantine(tx, machine, next, now)
  if (next !== undefined) {
    await wishMachine(tx, key, { state: next, operation: 'CLEAN' })
    wake.push({ kind: 'work', providerId: machine.provider_id })
  }
}

/** A protected machine is not wiped by anything that happens to its host, and is of no use to anybody else before a person says so. */
async function quarantine(tx: Tx, machine: MachineRow, cleaning: MachineState, now: Date): Promise<void> {
  const state = transitionMachine(cleaning, 'clean-failed')
  if (state === undefined) throw new Error(`a machine that is ${cleaning} cannot be quarantined`)
  const message = 'It is protected, and was not wiped: take the protection off, and retry it'
  await wishMachine(tx, { providerId: machine.provider_id, id: machine.id }, { state, operation: null })
  const failure = { code: 'CONFLICT' as const, message, retryable: false, externalCode: '', step: '' }
  await tx
    .updateTable('machines')
    .set({ last_error: JSON.stringify(nextLastError(failure, 1, now)) })
    .where('provider_id', '=', machine.provider_id)
    .where('id', '=', machine.id)
    .execute()
}
