import { sql } from 'kysely'
import type { EventDraft } from '../domain/facts.js'
import type { Tx } from './database.js'

// Sessions whose time has run out, by the database's clock.

/** Ends sessions that were not heard of in time. */
export async function endExpiredSessions(tx: Tx): Promise<number> {
  const result = await sql<{ id: string }>`
    with expired as (
      select id from sessions where ended_at is null and expires_at <= clock_timestamp() order by id for update skip locked
    )
    update sessions
    set ended_at = clock_timestamp(), end_reason = 'expired'
    from expired
    where sessions.id = expired.id
    returning sessions.id
  `.execute(tx)
  return result.rows.length
}

/**
 * Frees what ended sessions still hold: it is due for whoever comes next. A session that has only run out keeps what it holds until it is ended, so that it can
 * still be extended. Returns the providers that have work again.
 */
export async function freeHeldItems(tx: Tx): Promise<readonly string[]> {
  const result = await sql<{ providerId: string }>`
    with lost as (
      select w.provider_id, w.id
      from work_items w
      join sessions s on s.id = w.session_id
      where w.session_id is not null and s.ended_at is not null
      order by w.provider_id, w.id
      for update of w skip locked
    )
    update work_items
    set session_id = null, due_at = clock_timestamp()
    from lost
    where work_items.provider_id = lost.provider_id and work_items.id = lost.id
    returning work_items.provider_id as "providerId"
  `.execute(tx)
  return [...new Set(result.rows.map((row) => row.providerId))]
}

/** Brings what is said of providers in step with their sessions: connected is who has a live one. Returns what changed, for the timelines. */
export async function refreshConnections(tx: Tx): Promise<readonly EventDraft[]> {
  const suspects = await sql<{ id: string }>`
    select p.id
    from providers p
    where p.deleted_at is null and (p.state = 'CONNECTED') <> exists (
      select 1 from sessions s where s.provider_id = p.id and s.ended_at is null and s.expires_at > clock_timestamp()
    )
    order by p.id
    for no key update of p skip locked
  `.execute(tx)
  if (suspects.rows.length === 0) return []
  // Looked at again under the lock: an instance may have connected at this very moment.
  const result = await sql<{ id: string; name: string; state: string }>`
    update providers p
    set state = case when p.state = 'CONNECTED' then 'DISCONNECTED' else 'CONNECTED' end
    where p.id = any(${suspects.rows.map((row) => row.id)}::uuid[]) and (p.state = 'CONNECTED') <> exists (
      select 1 from sessions s where s.provider_id = p.id and s.ended_at is null and s.expires_at > clock_timestamp()
    )
    returning p.id, p.name, p.state
  `.execute(tx)
  return result.rows.map((row) => ({
    subject: `providers/${row.name}`,
    reason: row.state === 'CONNECTED' ? 'ProviderConnected' : 'ProviderDisconnected',
    severity: row.state === 'CONNECTED' ? 'INFO' : 'WARNING',
    message:
      row.state === 'CONNECTED'
        ? 'An instance is connected'
        : 'No instance is connected any more; its machines are left alone',
    providerId: row.id,
  }))
}
