import { sql } from 'kysely'
import type { Tx } from './database.js'

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
  return total + Number(keys.numAffectedRows ?? 0n)
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
