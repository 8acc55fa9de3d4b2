import { sql, type RawBuilder } from 'kysely'
import type { Scopes } from '../domain/access/decide.js'
import type { Db } from './database.js'
import { withinScopes } from './scopes.js'
import type { EventRow } from './tables.js'

export interface EventListFilter {
  /** About this resource, or related to it; empty: about any. */
  readonly subject: string
  readonly severities: readonly EventRow['severity'][]
  readonly reasons: readonly string[]
  readonly since: Date | undefined
  /** Undefined: all. */
  readonly within?: Scopes | undefined
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
  const { within } = filter
  const asked = conditions(filter, after)
  if (within === undefined) {
    let query = db.selectFrom('events').selectAll().orderBy('xid', 'desc').orderBy('id', 'desc').limit(limit)
    for (const condition of asked) query = query.where(condition)
    return query.execute()
  }
  // One organization after the other, each along its own index: the newest of all are among the newest of each.
  const found = await sql<EventRow>`
    select e.* from (
      select unnest(${[...within.organizationIds]}::uuid[]) as id
      union select organization_id from workspaces where name = any(${[...within.workspaces]}::text[])
    ) o
    cross join lateral (
      select * from events
      where organization_id = o.id and ${sql.join([withinScopes('event', within), ...asked], sql` and `)}
      order by xid desc, id desc
      limit ${limit}
    ) e
    order by e.xid desc, e.id desc
    limit ${limit}
  `.execute(db)
  return found.rows
}

function conditions(filter: EventListFilter, after: readonly [string, number] | undefined): RawBuilder<boolean>[] {
  const { subject, severities, reasons, since } = filter
  return [
    ...(after === undefined ? [] : [sql<boolean>`(xid, id) < (${after[0]}::xid8, ${after[1]}::bigint)`]),
    ...(subject === '' ? [] : [sql<boolean>`(subject = ${subject} or related @> array[${subject}]::text[])`]),
    ...(severities.length === 0 ? [] : [sql<boolean>`severity = any(${[...severities]}::text[])`]),
    ...(reasons.length === 0 ? [] : [sql<boolean>`reason = any(${[...reasons]}::text[])`]),
    ...(since === undefined ? [] : [sql<boolean>`at >= ${since}`]),
  ]
}

/** Whether an event is one that a filter asks for. */
export function matchesEvent(filter: EventListFilter, row: EventRow): boolean {
  if (filter.subject !== '' && row.subject !== filter.subject && !row.related.includes(filter.subject)) return false
  if (filter.severities.length > 0 && !filter.severities.includes(row.severity)) return false
  if (filter.reasons.length > 0 && !filter.reasons.includes(row.reason)) return false
  return filter.since === undefined || row.at >= filter.since
}
