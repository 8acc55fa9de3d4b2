import { sql } from 'kysely'
import { retryDelayMs } from '../domain/backoff.js'
import type { EventDraft, Failure } from '../domain/facts.js'
import type { Kept, Surroundings } from '../domain/orphan/orphan.js'
import { takenBack } from '../domain/orphan/policy.js'
import { nextLastError } from '../domain/request/apply-report.js'
import { databaseTime, type Tx } from './database.js'
import { appendEvents, hubCause } from './events.js'
import { orphanEvent, orphanText } from './orphan-events.js'
import {
  findLiveProvider,
  readRecords,
  readSurroundings,
  referenceOf,
  toFacts,
  type OrphanTimes,
} from './orphan-facts.js'
import { noOrder } from './orphan-sightings.js'
import type { OrphanRow } from './tables.js'

// Orders to remove orphans, from the moment they are due until they are answered. A row is the order: whichever replica has a session of the provider gives it,
// and where no answer comes in time it is due again.

/** Orders given at once, at most: an instance carries them out one after another. */
const batch = 20

/** An order to be given to an instance. */
export interface DueOrder {
  readonly orderId: string
  readonly providerId: string
  readonly kind: string
  readonly externalId: string
  readonly ownershipKey: string
  readonly name: string
}

/**
 * Takes orders that are due, judges each once more by what our records say now, and has it due again after `againAfterMs`.
 *
 * @returns those that stand, to be given to an instance after the commit.
 */
export async function takeDueOrders(
  tx: Tx,
  providerId: string,
  hub: OrphanTimes & { readonly hubId: string },
  againAfterMs: number,
): Promise<readonly DueOrder[]> {
  const rows = await tx
    .selectFrom('orphans')
    .selectAll()
    .where('provider_id', '=', providerId)
    .where('removal_due_at', '<=', sql<Date>`clock_timestamp()`)
    .orderBy('removal_due_at')
    .limit(batch)
    .forUpdate()
    .skipLocked()
    .execute()
  if (rows.length === 0) return []
  const provider = await findLiveProvider(tx, providerId)
  if (provider === undefined) return []
  const { hubId, ...times } = hub
  const around = await readSurroundings(tx, provider, hubId, times)
  const records = await readRecords(tx, providerId, rows.map(referenceOf))
  const due: DueOrder[] = []
  for (const row of rows) {
    const kept = takenBack({ orphan: toFacts(row, records), byPerson: row.removal_ordered_by !== 'policy' }, around)
    if (kept !== undefined) await withdraw(tx, row, kept)
    else due.push(await give(tx, row, around, againAfterMs))
  }
  return due
}

async function give(tx: Tx, row: OrphanRow, { now }: Surroundings, againAfterMs: number): Promise<DueOrder> {
  await tx
    .updateTable('orphans')
    .set({
      removal_attempts: row.removal_attempts + 1,
      removal_sent_at: now,
      removal_due_at: new Date(now.getTime() + againAfterMs),
    })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .execute()
  return {
    orderId: row.removal_order_id ?? '',
    providerId: row.provider_id,
    kind: row.kind,
    externalId: row.external_id,
    ownershipKey: row.ownership_key,
    name: row.external_name,
  }
}

async function withdraw(tx: Tx, row: OrphanRow, { reason, message }: Kept): Promise<void> {
  await tx
    .updateTable('orphans')
    .set({ ...noOrder, keep_reason: reason, keep_message: message })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .execute()
  const text = `${orphanText(row)} is kept after all: ${message}`
  await appendEvents(tx, hubCause, [orphanEvent(row, 'OrphanRemovalWithdrawn', 'INFO', text)])
}

/** How an order ended, as an instance says. */
export interface OrderAnswer {
  readonly orderId: string
  readonly outcome: 'REMOVED' | 'ALREADY_GONE' | 'KEY_MISMATCH' | 'HELD' | 'FAILED'
  readonly message: string
  readonly failure: Failure | undefined
}

/** Stores an instance's answer. One that comes late, or about an order of another provider, changes nothing. @returns whether it was stored. */
export async function recordOrderAnswer(
  tx: Tx,
  provider: { readonly id: string; readonly name: string },
  answer: OrderAnswer,
): Promise<boolean> {
  const row = await tx
    .selectFrom('orphans')
    .selectAll()
    .where('provider_id', '=', provider.id)
    .where('removal_order_id', '=', answer.orderId)
    .forUpdate()
    .executeTakeFirst()
  if (row === undefined || row.removal_done_at !== null) return false
  const now = await databaseTime(tx)
  const { change, event } = consequence(row, answer, now)
  await tx
    .updateTable('orphans')
    .set(change)
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .execute()
  await appendEvents(tx, { actor: `providers/${provider.name}`, requestId: '' }, event === undefined ? [] : [event])
  return true
}

function consequence(row: OrphanRow, answer: OrderAnswer, now: Date) {
  const { outcome, message } = answer
  if (outcome === 'REMOVED' || outcome === 'ALREADY_GONE') {
    const change = { removal_done_at: now, removal_due_at: null, removal_sent_at: null, last_error: null }
    const text = outcome === 'REMOVED' ? 'was removed' : 'was not there any more when it was to be removed'
    return { change, event: orphanEvent(row, 'OrphanRemoved', 'INFO', `${orphanText(row)} ${text}`) }
  }
  if (outcome === 'FAILED') return failed(row, answer.failure ?? failureOf('INTERNAL', message), now)
  const why = message === '' ? outcome : message
  const change = {
    ...noOrder,
    keep_reason: 'REFUSED' as const,
    keep_message: `its provider refused to remove it: ${why}`,
    refused_at: now,
    last_error: JSON.stringify(nextLastError(failureOf('CONFLICT', why), row.removal_attempts, now)),
  }
  const text = `${orphanText(row)} was not removed, its provider refused: ${why}`
  return { change, event: orphanEvent(row, 'OrphanRemovalRefused', 'WARNING', text) }
}

function failed(row: OrphanRow, failure: Failure, now: Date) {
  const delayMs = retryDelayMs(row.removal_attempts, failure.retryAfterMs ?? 0)
  const dueAt = new Date(now.getTime() + delayMs)
  const lastError = nextLastError(failure, row.removal_attempts, now, dueAt)
  const change = { removal_due_at: dueAt, removal_sent_at: null, last_error: JSON.stringify(lastError) }
  const isRepeated = row.last_error?.code === failure.code && row.last_error.message === failure.message
  const text = `${orphanText(row)} could not be removed: ${failure.code}: ${failure.message}; it is tried again`
  const event: EventDraft = orphanEvent(row, 'OrphanRemovalFailed', 'WARNING', text)
  return { change, event: isRepeated ? undefined : event }
}

function failureOf(code: Failure['code'], message: string): Failure {
  return { code, message, retryable: true, externalCode: '', step: '' }
}
