import { sql } from 'kysely'
import type { Db } from './database.js'
import type { EventRow } from './tables.js'

export interface EventListFilter {
  /** About this resource, or related to it; empty: about any. */
  readonly subject: string
  readonly severities: readonly EventRow['severity'][]
  readonly reasons: readonly string[]
  readonly since: Date | undefined
}

export async function findEvent(db: Db, eventId: string): Promise<EventRow | undefined> {
  return db.selectFrom('events').selectAll().where('event_id', '=', eventId).executeTakeFirst()
}

/** Newest first. @param after transaction id and number of the last one of the page before. */
export async function listEvents(
  db: Db,
  filter: EventListFilter,
  after: readonly [string, number] | undefined,
  limit: number,
): Promise<readonly EventRow[]> {
  let query = db.selectFrom('events').selectAll().orderBy('xid', 'desc').orderBy('id', 'desc').limit(limit)
  if (after !== undefined) query = query.where(sql<boolean>`(xid, id) < (${after[0]}::xid8, ${after[1]}::bigint)`)
  if (filter.subject !== '')
    query = query.where(sql<boolean>`(subject = ${filter.subject} or related @> array[${filter.subject}]::text[])`)
  if (filter.severities.length > 0) query = query.where('severity', 'in', filter.severities)
  if (filter.reasons.length > 0) query = query.where('reason', 'in', filter.reasons)
  if (filter.since !== undefined) query = query.where('at', '>=', filter.since)
  return query.execute()
}

/** Whether an event is one that a filter asks for. */
export function matchesEvent(filter: EventListFilter, row: EventRow): boolean {
  if (filter.subject !== '' && row.subject !== filter.subject && !row.related.includes(filter.subject)) return false
  if (filter.severities.length > 0 && !filter.severities.includes(row.severity)) return false
  if (filter.reasons.length > 0 && !filter.reasons.includes(row.reason)) return false
  return filter.since === undefined || row.at >= filter.since
}
