import { sql } from 'kysely'
import type { EventDraft, Failure } from '../domain/facts.js'
import { retryDelayMs } from '../domain/backoff.js'
import { applyMachineReport, type MachineRecord } from '../domain/machine/apply-report.js'
import { isWaiting } from '../domain/machine/lifecycle.js'
import type { MachineWait } from '../domain/machine/wait.js'
import { applyRequestReport, type ReportFacts, type RequestRecord } from '../domain/request/apply-report.js'
import type { Db, Tx } from './database.js'
import { appendAll, hubCause, type Cause } from './events.js'
import { fixedStatement } from './fixed-statement.js'
import { holderValues, type Holder, type HolderValues } from './holders.js'
import { insertSteps, writeStates, type ItemState, type ReportedStep } from './report-writes.js'
import type { MachineRequestRow, MachineRow, WorkItemRow } from './tables.js'
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
    /** @param generation of the wish that the holder knew; 0: it does not say. */
    | { readonly kind: 'retry'; readonly afterMs: number; readonly generation: number }
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

/** Applies entries in order. Each is accepted only from the session that holds the item, under its present fence. */
export async function applyWorkEntries(tx: Tx, entries: readonly WorkEntry[], now: Date): Promise<AppliedEntries> {
  const states = await loadStates(tx, entries)
  const events: { readonly cause: Cause; readonly draft: EventDraft }[] = []
  const steps: ReportedStep[] = []
  const results = entries.map((entry): EntryResult => {
    const state = states.get(entry.itemId)
    if (state === undefined || state.item.provider_id !== entry.providerId) return unknownItem(entry)
    if (state.released || state.item.session_id !== entry.sessionId || state.item.fence !== entry.fence)
      return staleFence(entry)
    if (entry.body.kind !== 'report') {
      release(state, entry.body)
      return { ok: true }
    }
    if (entry.body.report.step !== undefined) steps.push({ entry, step: entry.body.report.step })
    const said = applyReport(state, entry.body.report, now)
    const cause = { actor: `providers/${entry.providerName}`, requestId: '' }
    for (const draft of said) events.push({ cause, draft })
    return { ok: true }
  })
  const [wake] = await Promise.all([
    writeStates(tx, [...states.values()], now),
    insertSteps(tx, steps),
    appendAll(tx, events),
  ])
  if (entries.some(({ body }) => body.kind === 'report')) wake.push({ kind: 'change' })
  return { results, wake }
}

/**
 * Takes the silence of machines for the failure of what they wait for, as if whoever is to watch them had said so. Their items may be held: the holder is told by the
 * wish that follows. Each is looked at once more under its lock.
 */
export async function endWaits(
  tx: Tx,
  late: readonly { readonly providerId: string; readonly itemId: string; readonly machineId: string }[],
  now: Date,
): Promise<WakeTopic[]> {
  if (late.length === 0) return []
  const states = await loadStatesOf(
    tx,
    late.map(({ itemId }) => itemId),
    late.map(({ itemId }) => itemId),
  )
  const events: { readonly cause: Cause; readonly draft: EventDraft }[] = []
  const ended: ItemState[] = []
  for (const { itemId } of late) {
    const state = states.get(itemId)
    const machine = state?.machine?.row ?? state?.request?.beneath
    if (state === undefined || machine === undefined) continue
    const { waiting_until_at: until, paused_at: pausedAt } = machine
    if (!isWaiting(machine.state) || pausedAt !== null || until === null || until > now) continue
    const message = `no word came from the machine by ${until.toISOString()}; it was waited for: ${machine.waiting_for}`
    const failure: Failure = { code: 'TIMEOUT', message, retryable: false, externalCode: '', step: '' }
    const said = applyReport(state, { failure }, now)
    const over: EventDraft = {
      subject: `machines/${machine.name}`,
      related: [`providers/${machine.provider_name}`, ...(machine.host_name === null ? [] : [machine.host_name])],
      reason: 'MachineWaitOver',
      severity: 'ERROR',
      message: `${machine.state}: ${message}`,
      providerId: machine.provider_id,
    }
    for (const draft of [over, ...said]) events.push({ cause: hubCause, draft })
    ended.push(state)
  }
  const wake = await writeStates(tx, ended, now)
  await appendAll(tx, events)
  return wake
}

/** Says that the claim is over: nothing is left to be done, or nothing of that generation. */
export type SettledEntry = WorkEntry & { readonly body: { readonly kind: 'settled' } }

/**
 * Ends claims about which their holders say nothing else, in one statement. Each is ended only by the session that holds the item, under its present fence. No two of
 * them may be about one item.
 */
export async function settleItems(db: Db, entries: readonly SettledEntry[]): Promise<AppliedEntries> {
  // In one order, so that two replicas never wait for each other.
  const sorted = [...entries].sort((one, other) => (one.itemId < other.itemId ? -1 : 1))
  const holders: Holder[] = []
  const placeOf = new Map<string, number>()
  const places = sorted.map(({ sessionId, providerId }) => {
    const known = placeOf.get(sessionId)
    if (known !== undefined && holders[known - 1]?.providerId === providerId) return known
    placeOf.set(sessionId, holders.push({ sessionId, providerId }))
    return holders.length
  })
  const [ended] = await settle(db, {
    items: sorted.map(({ itemId }) => itemId),
    fences: sorted.map(({ fence }) => fence),
    generations: sorted.map(({ body }) => body.generation),
    holders: places,
    ...holderValues(holders),
  })
  const wake = [...new Set(ended?.due)].map((providerId) => ({ kind: 'work' as const, providerId }))
  // Nearly always all are, and which need not be said.
  if (ended?.count === entries.length) return { results: entries.map(() => ({ ok: true })), wake }
  const endedIds = new Set(ended?.ids)
  const known = await knownItems(
    db,
    entries.filter(({ itemId }) => !endedIds.has(itemId)),
  )
  const results = entries.map((entry): EntryResult => {
    if (endedIds.has(entry.itemId)) return { ok: true }
    return known.has(entry.itemId) ? staleFence(entry) : unknownItem(entry)
  })
  return { results, wake }
}

interface SettledValues extends HolderValues {
  readonly items: readonly string[]
  readonly fences: readonly number[]
  readonly generations: readonly number[]
  /** For each item, the place of its holder, from 1. */
  readonly holders: readonly number[]
}

interface Ended {
  readonly count: number
  readonly due: readonly string[] | null
  readonly ids: readonly string[] | null
}

const settle = fixedStatement<Ended, SettledValues>(
  (value) => sql<Ended>`/* settle-items */
    with ended as (
      update work_items w
      set session_id = null, due_at = case when w.generation > a.generation then clock_timestamp() end
      from (
        select unnest((select ${value('items')}::uuid[])) as id, unnest((select ${value('fences')}::bigint[])) as fence,
               unnest((select ${value('generations')}::bigint[])) as generation, unnest((select ${value('holders')}::int[])) as holder
      ) a
      where w.id = a.id and w.fence = a.fence
        and w.session_id = (${value('sessions')}::uuid[])[a.holder] and w.provider_id = (${value('providers')}::uuid[])[a.holder]
      returning w.provider_id, w.id, w.due_at is not null as due
    )
    select count(*)::int as count, array_agg(provider_id) filter (where due) as due,
           case when count(*) < cardinality(${value('items')}::uuid[]) then array_agg(id) end as ids
    from ended`,
)

/** Which of these are items of the providers that speak of them. */
async function knownItems(db: Db, entries: readonly WorkEntry[]): Promise<ReadonlySet<string>> {
  if (entries.length === 0) return new Set()
  const found = await sql<{ readonly id: string }>`
    select w.id from work_items w
    join unnest(${entries.map((entry) => entry.providerId)}::uuid[], ${entries.map((entry) => entry.itemId)}::uuid[]) as a (provider_id, id)
      on w.provider_id = a.provider_id and w.id = a.id
  `.execute(db)
  return new Set(found.rows.map(({ id }) => id))
}

function unknownItem(entry: WorkEntry): EntryResult {
  return { ok: false, reason: 'UNKNOWN_ITEM', message: `there is no item ${entry.itemId} of this provider` }
}

function staleFence(entry: WorkEntry): EntryResult {
  return {
    ok: false,
    reason: 'STALE_FENCE',
    message: `the claim under fence ${entry.fence} is over; stop, and touch nothing more`,
  }
}

/** Locks what entries are about: work items first, and requests and machines only of items that something was said of. */
async function loadStates(tx: Tx, entries: readonly WorkEntry[]): Promise<Map<string, ItemState>> {
  const reported = entries.flatMap(({ itemId, body }) => (body.kind === 'report' ? [itemId] : []))
  return loadStatesOf(
    tx,
    entries.map((entry) => entry.itemId),
    [...new Set(reported)],
  )
}

async function loadStatesOf(
  tx: Tx,
  ids: readonly string[],
  reported: readonly string[],
): Promise<Map<string, ItemState>> {
  // They need nothing of one another, and travel together; locks are still taken in their order.
  const [items, requests, machineRows] = await Promise.all([
    lockItems(tx, ids),
    lockRequests(tx, reported),
    lockMachines(tx, reported),
  ])
  const states = new Map<string, ItemState>(
    items.map((item) => [item.id, { item, released: false, dueInMs: undefined, attempt: item.attempt }]),
  )
  const machines = new Map(machineRows.map((row) => [row.id, row]))
  for (const row of requests) {
    const state = states.get(row.id)
    if (state === undefined) continue
    const beneath = row.machine_id === null ? undefined : machines.get(row.machine_id)
    const record = toRequestRecord(row, state.item)
    state.request = {
      row,
      before: record,
      record,
      beneath,
      giveUp: false,
      holdOffering: false,
      waiting: undefined,
      hardware: undefined,
    }
  }
  for (const row of machines.values()) {
    const state = states.get(row.id)
    if (state?.item.kind !== 'MACHINE') continue
    const record = toMachineRecord(row, state.item)
    state.machine = { row, before: record, record, next: undefined }
  }
  return states
}

async function lockItems(tx: Tx, ids: readonly string[]): Promise<WorkItemRow[]> {
  const result = await sql<WorkItemRow>`
    select * from work_items where id = any(${[...new Set(ids)]}::uuid[]) order by provider_id, id for update
  `.execute(tx)
  return result.rows
}

async function lockRequests(tx: Tx, ids: readonly string[]): Promise<MachineRequestRow[]> {
  if (ids.length === 0) return []
  const result = await sql<MachineRequestRow>`
    select * from machine_requests where id = any(${[...ids]}::uuid[]) order by id for update
  `.execute(tx)
  return result.rows
}

/** Machines that are items themselves, and those beneath requests that are. */
async function lockMachines(tx: Tx, itemIds: readonly string[]): Promise<MachineRow[]> {
  if (itemIds.length === 0) return []
  const result = await sql<MachineRow>`
    select * from machines
    where id = any(${[...itemIds]}::uuid[] || array(
      select machine_id from machine_requests where id = any(${[...itemIds]}::uuid[]) and machine_id is not null
    ))
    order by id for update
  `.execute(tx)
  return result.rows
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
    state.request.waiting = outcome.waiting ?? state.request.waiting
    state.request.hardware = report.observed?.hardware ?? state.request.hardware
    state.attempt = outcome.record.attempt
    return outcome.events
  }
  if (state.machine !== undefined) {
    const outcome = applyMachineReport(state.machine.record, report, now, nextAttemptAt)
    state.machine.record = outcome.record
    if (outcome.nextOperation !== undefined) state.machine.next = outcome.nextOperation
    state.attempt = outcome.record.attempt
    return outcome.events
  }
  return []
}

function release(state: ItemState, body: Exclude<WorkEntry['body'], { kind: 'report' }>): void {
  state.released = true
  if (body.kind === 'retry') {
    if (body.generation > 0 && state.item.generation > body.generation) {
      // Its holder goes, for however long, without having heard of the newest wish.
      state.dueInMs = 0
      return
    }
    // A failure in the same batch has set the back-off already; the holder's own wish can only make it longer.
    state.dueInMs = Math.max(state.dueInMs ?? (state.attempt > 0 ? retryDelayMs(state.attempt, 0) : 0), body.afterMs)
    return
  }
  state.dueInMs = state.item.generation > body.generation ? 0 : null
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
    reinstalls: row.reinstalls,
    reinstallsDone: row.reinstalls_done,
    rescueSeen: row.rescue_seen,
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
    waiting: waitOf(row),
  }
}

/** What a machine waits for, as stored. */
export function waitOf(row: Pick<MachineRow, 'waiting_for' | 'waiting_at' | 'waiting_until_at'>): MachineWait | null {
  if (row.waiting_at === null || row.waiting_until_at === null) return null
  return { message: row.waiting_for, since: row.waiting_at, until: row.waiting_until_at }
}
