import { sql } from 'kysely'
import type { EventDraft } from '../domain/facts.js'
import type { KeepReason, Kept } from '../domain/orphan/orphan.js'
import { keptByPolicy, keptFromEverybody } from '../domain/orphan/policy.js'
import type { Db, Tx } from './database.js'
import { orphanEvent, orphanText } from './orphan-events.js'
import {
  findLiveProvider,
  readRecords,
  readSurroundings,
  referenceOf,
  toFacts,
  type OrphanTimes,
} from './orphan-facts.js'
import { orderRemoval } from './orphan-pass.js'
import { noOrder } from './orphan-sightings.js'
import type { OrphanRow } from './tables.js'

// What people see of orphans, and what they decide about them.

export type OrphanState = 'KEPT' | 'REMOVING' | 'REMOVED'

/** An orphan with the name of its request, where there is a record of it. */
export interface ShownOrphan extends OrphanRow {
  readonly request_name: string | null
}

export function orphanStateOf(row: Pick<OrphanRow, 'removal_ordered_at' | 'removal_done_at'>): OrphanState {
  if (row.removal_ordered_at === null) return 'KEPT'
  return row.removal_done_at === null ? 'REMOVING' : 'REMOVED'
}

export interface OrphanListFilter {
  /** Empty: of all. */
  readonly provider: string
  readonly families: readonly string[]
  readonly kinds: readonly string[]
  readonly states: readonly OrphanState[]
  readonly keepReasons: readonly KeepReason[]
}

const stateColumn = sql<OrphanState>`case when o.removal_ordered_at is null then 'KEPT' when o.removal_done_at is null then 'REMOVING' else 'REMOVED' end`

function shown(db: Db) {
  return db
    .selectFrom('orphans as o')
    .innerJoin('providers as p', 'p.id', 'o.provider_id')
    .leftJoin('machine_requests as r', 'r.id', 'o.request_id')
    .selectAll('o')
    .select('r.name as request_name')
    .where('p.deleted_at', 'is', null)
}

/** @param provider its name; `-` for any: names of orphans are unique over all of them. */
export async function findOrphan(db: Db, provider: string, name: string): Promise<ShownOrphan | undefined> {
  const query = shown(db).where('o.name', '=', name)
  return (provider === '-' ? query : query.where('p.name', '=', provider)).executeTakeFirst()
}

/** Oldest first: ids rise with time. @param after id of the last one of the page before. */
export async function listOrphans(
  db: Db,
  filter: OrphanListFilter,
  after: string,
  limit: number,
): Promise<readonly ShownOrphan[]> {
  let query = shown(db).orderBy('o.id').limit(limit)
  if (after !== '') query = query.where('o.id', '>', after)
  if (filter.provider !== '') query = query.where('p.name', '=', filter.provider)
  if (filter.families.length > 0) query = query.where('p.family', 'in', filter.families)
  if (filter.kinds.length > 0) query = query.where('o.kind', 'in', filter.kinds)
  if (filter.states.length > 0) query = query.where(sql<boolean>`${stateColumn} = any(${[...filter.states]}::text[])`)
  if (filter.keepReasons.length > 0) query = query.where('o.keep_reason', 'in', filter.keepReasons)
  return query.execute()
}

/** Locks an orphan. */
export async function lockOrphan(tx: Tx, provider: string, name: string): Promise<OrphanRow | undefined> {
  const seen = await findOrphan(tx, provider, name)
  if (seen === undefined) return undefined
  return tx
    .selectFrom('orphans')
    .selectAll()
    .where('provider_id', '=', seen.provider_id)
    .where('id', '=', seen.id)
    .forUpdate()
    .executeTakeFirst()
}

/** Judges a locked orphan by our records as they are now. */
async function judgeNow(tx: Tx, row: OrphanRow, hub: OrphanTimes & { readonly hubId: string }) {
  const provider = await findLiveProvider(tx, row.provider_id)
  if (provider === undefined) return undefined
  const { hubId, ...times } = hub
  const around = await readSurroundings(tx, provider, hubId, times)
  const orphan = toFacts(row, await readRecords(tx, row.provider_id, [referenceOf(row)]))
  return { orphan, around }
}

/**
 * Orders the removal of a locked orphan by a person's word; an order that waits for its next try is hastened.
 *
 * @returns why it is kept all the same, or the event that tells of the order.
 */
export async function orderByPerson(
  tx: Tx,
  row: OrphanRow,
  by: string,
  hub: OrphanTimes & { readonly hubId: string },
): Promise<{ readonly kept: Kept } | { readonly event: EventDraft }> {
  const judged = await judgeNow(tx, row, hub)
  if (judged === undefined) return { kept: { reason: 'REMOVAL_UNSUPPORTED', message: 'its provider was deleted' } }
  const kept = keptFromEverybody(judged.orphan, judged.around)
  if (kept !== undefined) return { kept }
  await orderRemoval(tx, row, by, judged.around.now)
  const text = `${orphanText(row)} is to be removed, by a person's order`
  return { event: orphanEvent(row, 'OrphanRemovalOrdered', 'WARNING', text) }
}

/** Whether an instance may be at work on an orphan's removal, or is done with it. */
export function isBeingRemoved(row: OrphanRow, now: Date): boolean {
  if (row.removal_done_at !== null) return true
  return row.removal_sent_at !== null && row.removal_due_at !== null && row.removal_due_at > now
}

/** Has a locked orphan left alone, and takes an order to remove it back; with an empty reason it is left to the policy again. */
export async function keepByPerson(
  tx: Tx,
  row: OrphanRow,
  by: string,
  reason: string,
  hub: OrphanTimes & { readonly hubId: string },
): Promise<readonly EventDraft[]> {
  const keptBy = reason === '' ? null : by
  if (row.kept_by === keptBy && row.kept_for === reason && row.removal_ordered_at === null) return []
  const judged = await judgeNow(tx, row, hub)
  const kept = judged && keptByPolicy({ ...judged.orphan, keptBy }, judged.around)
  // An order that stands is taken back by a person who wants it kept, and by nothing else.
  const isOrdered = row.removal_ordered_at !== null && reason === ''
  await tx
    .updateTable('orphans')
    .set({
      kept_by: keptBy,
      kept_for: reason,
      ...(!isOrdered && {
        ...noOrder,
        keep_reason: kept?.reason ?? 'LIMIT_REACHED',
        keep_message: kept?.message ?? 'the next complete listing decides',
      }),
    })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .execute()
  const text = reason === '' ? 'is left to the policy again' : `is to be kept: ${reason}`
  return [orphanEvent(row, reason === '' ? 'OrphanReleased' : 'OrphanKept', 'INFO', `${orphanText(row)} ${text}`)]
}
