import { sql } from 'kysely'
import { deleteOldHolds } from './capacity-holds.js'
import type { Tx } from './database.js'
import { deleteOldFailures } from './place-failures.js'

const batch = 10_000

export interface Retention {
  /** Changes are kept this long: a watcher that was away longer lists again. */
  readonly changesMs: number
  /** Timelines are kept this long. */
  readonly eventsMs: number
  readonly idempotencyKeysMs: number
}

/** Runs something in a transaction. */
export type Write = <T>(work: (tx: Tx) => Promise<T>) => Promise<T>

/** They are refused for their age by now. */
const deleteUsedIdTokens = sql`delete from used_id_tokens where expires_at < clock_timestamp()`
/** People begin one every day; who did what is in the audit log. */
const deleteEndedSessions = sql`
  delete from client_tokens where identity_id is not null and least(revoked_at, expires_at) < clock_timestamp() - interval '30 days'
`

/** Nobody waits in them; who comes anew opens one anew. */
const deleteEmptyLanes = sql`
  delete from machine_lanes l
  where joined_at < clock_timestamp() - interval '1 day' and not exists (select from machine_waits w where w.lane_id = l.id)
`

/** Trims what is older than it need be, in batches, and moves the horizon in the same transaction. Returns how many rows went. */
export async function trim(write: Write, retention: Retention): Promise<number> {
  let total = 0
  total += await trimLog(write, 'changes', retention.changesMs)
  total += await trimLog(write, 'events', retention.eventsMs)
  const keys = await write((tx) =>
    sql`
      delete from idempotency_keys where created_at < clock_timestamp() - ${retention.idempotencyKeysMs} * interval '1 millisecond'
    `.execute(tx),
  )
  total += Number(keys.numAffectedRows ?? 0n)
  for (const statement of [
    deleteUsedIdTokens,
    deleteEndedSessions,
    deleteEmptyLanes,
    deleteOldHolds,
    deleteOldFailures,
  ]) {
    const gone = await write((tx) => statement.execute(tx))
    total += Number(gone.numAffectedRows ?? 0n)
  }
  return total
}

async function trimLog(write: Write, table: 'changes' | 'events', olderThanMs: number): Promise<number> {
  let total = 0
  for (;;) {
    const gone = await write(async (tx) => {
      const deleted = await sql<{ count: number; xid: string | null; id: number | null }>`
        with old as (
          select xid, id from ${sql.table(table)}
          where at < clock_timestamp() - ${olderThanMs} * interval '1 millisecond' and xid < pg_snapshot_xmin(pg_current_snapshot())
          order by xid, id
          limit ${batch}
        ), gone as (
          delete from ${sql.table(table)} using old where ${sql.table(table)}.xid = old.xid and ${sql.table(table)}.id = old.id
          returning old.xid, old.id
        )
        select (select count(*) from gone)::int as count, xid::text as xid, id from gone order by gone.xid desc, id desc limit 1
      `.execute(tx)
      const last = deleted.rows[0]
      if (last === undefined || last.xid === null || last.id === null) return 0
      await sql`
        update change_horizon set ${sql.ref(`${table}_xid`)} = ${last.xid}::xid8, ${sql.ref(`${table}_id`)} = ${last.id}
      `.execute(tx)
      return last.count
    })
    total += gone
    if (gone < batch) return total
  }
}
