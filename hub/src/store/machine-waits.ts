import { sql } from 'kysely'
import type { Tx } from './database.js'

// Machines in waiting states: who called back, and whose time is over.

/**
 * Makes due, at any instance, what waits for the word of these machines, and what is to be looked after because of it. Paused machines are passed over, and so is
 * what an instance holds: it looks for itself. Returns how many there were.
 */
export async function takeCallbacks(tx: Tx, providerId: string, externalIds: readonly string[]): Promise<number> {
  const result = await sql<{ id: string }>`/* take-callbacks */
    with called as (
      select m.id, m.request_id, m.state from machines m
      where m.provider_id = ${providerId} and m.static and m.external_id = any(${[...externalIds]}::text[]) and m.paused_at is null
        and m.state in ('INSPECT_WAIT', 'CLEAN_WAIT', 'PROVISION_WAIT', 'AVAILABLE')
    ), due as (
      select w.provider_id, w.id from work_items w
      join called c on w.id = case when c.state = 'PROVISION_WAIT' then c.request_id else c.id end
      where w.provider_id = ${providerId} and w.session_id is null and not w.paused
        and (w.due_at is null or w.due_at > clock_timestamp())
      order by w.id
      for update of w skip locked
    )
    update work_items set due_at = clock_timestamp()
    from due
    where work_items.provider_id = due.provider_id and work_items.id = due.id
    returning work_items.id
  `.execute(tx)
  return result.rows.length
}

/** A wait whose time is over by the clock alone. */
export interface LateWait {
  readonly providerId: string
  readonly machineId: string
  /** The item that waits: the machine's own, or its request's. */
  readonly itemId: string
  readonly until: Date
  readonly message: string
  /** Null: no instance of its provider is connected. */
  readonly connectedSince: Date | null
}

/** Waits whose time is over, but for what may excuse them. */
export async function findLateWaits(tx: Tx, limit: number): Promise<readonly LateWait[]> {
  const result = await sql<LateWait>`/* late-waits */
    select m.provider_id as "providerId", m.id as "machineId",
           case when m.state = 'PROVISION_WAIT' then m.request_id else m.id end as "itemId",
           m.waiting_until_at as until, m.waiting_for as message, (
             select min(s.connected_at) from sessions s
             where s.provider_id = m.provider_id and s.ended_at is null and s.expires_at > clock_timestamp()
           ) as "connectedSince"
    from machines m
    where m.waiting_until_at <= clock_timestamp() and m.paused_at is null
      and m.state in ('INSPECT_WAIT', 'CLEAN_WAIT', 'PROVISION_WAIT')
      and (m.state <> 'PROVISION_WAIT' or m.request_id is not null)
    order by m.waiting_until_at
    limit ${limit}
  `.execute(tx)
  return result.rows
}
