import { sql } from 'kysely'
import type { Condition } from '../domain/facts.js'
import type { Db, Tx } from './database.js'
import type { HostRow } from './tables.js'

// When hosts end by themselves.

/** A locked host whose end is to be looked at, and what time it is. */
export interface DueHost {
  readonly row: HostRow
  readonly now: Date
}

/** Locks hosts whose end is due to be looked at, the longest due first. Those that somebody holds are left for the next time. */
export async function lockDueExpiries(tx: Tx, limit: number): Promise<readonly DueHost[]> {
  const found = await sql<HostRow & { readonly now: Date }>`/* due-expiries */
    select h.*, clock_timestamp() as now
    from hosts h
    where h.expiry_look_at <= clock_timestamp()
    order by h.expiry_look_at, h.id
    limit ${limit}
    for update of h skip locked
  `.execute(tx)
  return found.rows.map(({ now, ...row }) => ({ row, now }))
}

/** How long until an end is to be looked at: 0 where one is due, null where none will be. */
export async function nextExpiryInMs(db: Db): Promise<number | null> {
  const result = await sql<{ inMs: number | null }>`
    select (extract(epoch from min(expiry_look_at) - clock_timestamp()) * 1000)::float8 as "inMs" from hosts where expiry_look_at is not null
  `.execute(db)
  const inMs = result.rows[0]?.inMs ?? null
  return inMs === null ? null : Math.max(0, Math.ceil(inMs))
}

/** Stores what was said of a locked host's end, and when to look again. */
export async function saveExpiry(
  tx: Tx,
  row: HostRow,
  look: { readonly conditions: readonly Condition[]; readonly lookAt: Date | null },
): Promise<void> {
  await tx
    .updateTable('hosts')
    .set({ conditions: JSON.stringify(look.conditions), expiry_look_at: look.lookAt })
    .where('organization_id', '=', row.organization_id)
    .where('id', '=', row.id)
    .execute()
}
