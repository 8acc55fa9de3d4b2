import { sql } from 'kysely'
import type { Db, Tx } from './database.js'

// When the reconciler looks at which host next. Taking a host moves `due_at` into the future; whoever schedules it meanwhile moves it back, and so only who finds
// it unmoved may say when to look next. These rows are locked last in every transaction, after work items, requests, machines and hosts.

export interface HostKey {
  readonly organizationId: string
  readonly hostId: string
}

/** A host that was taken to be looked at. Its turn comes again by itself where whoever took it dies. */
export interface TakenHost extends HostKey {
  /** As PostgreSQL writes it, to the microsecond. */
  readonly takenUntil: string
  /** The host's machine request when it was taken. */
  readonly requestId: string | null
}

/** When to look at a host that was taken. */
export interface NextLook extends TakenHost {
  /** From now. Null: when something is heard of it. */
  readonly inMs: number | null
}

/**
 * Makes a host due, unless it is due earlier already. Wake `{kind: 'host'}` after the commit.
 *
 * @param dueAt default: at once.
 */
export async function scheduleHost(tx: Tx, host: HostKey, dueAt?: Date): Promise<void> {
  await scheduleHosts(tx, [host], dueAt)
}

/** The same for many hosts at once; the same one may be among them more than once. */
export async function scheduleHosts(tx: Tx, hosts: readonly HostKey[], dueAt?: Date): Promise<void> {
  if (hosts.length === 0) return
  // In one order, so that two replicas never wait for each other; and a row that is due by then anyway is not written.
  await sql`/* schedule-hosts */
    insert into host_schedule (organization_id, host_id, due_at)
    select h.organization_id, h.host_id, coalesce(${dueAt ?? null}::timestamptz, clock_timestamp())
    from (
      select distinct organization_id, host_id
      from unnest(
        ${hosts.map((host) => host.organizationId)}::uuid[], ${hosts.map((host) => host.hostId)}::uuid[]
      ) as given (organization_id, host_id)
    ) h
    order by h.host_id
    on conflict (organization_id, host_id) do update set due_at = excluded.due_at where host_schedule.due_at > excluded.due_at
  `.execute(tx)
}

/** Takes hosts that are due, the longest due first. No two replicas take the same one. */
export async function takeDueHosts(db: Db, limit: number, holdMs: number): Promise<TakenHost[]> {
  const result = await sql<TakenHost>`/* take-due-hosts */
    with due as (
      select organization_id, host_id
      from host_schedule
      where due_at <= clock_timestamp()
      order by due_at
      limit ${limit}
      for update skip locked
    )
    update host_schedule
    set due_at = clock_timestamp() + ${holdMs} * interval '1 millisecond'
    from due
    where host_schedule.organization_id = due.organization_id and host_schedule.host_id = due.host_id
    returning host_schedule.organization_id as "organizationId", host_schedule.host_id as "hostId", host_schedule.due_at::text as "takenUntil",
      (select h.request_id from hosts h where h.organization_id = host_schedule.organization_id and h.id = host_schedule.host_id) as "requestId"
  `.execute(db)
  return result.rows
}

/** How long until a host is due: 0 where one is, null where none ever will be by itself. */
export async function nextDueInMs(db: Db): Promise<number | null> {
  const result = await sql<{ inMs: number | null }>`/* next-due-host */
    select case when min(due_at) is not null then greatest(0, ceil(extract(epoch from min(due_at) - clock_timestamp()) * 1000)) end::float8 as "inMs"
    from host_schedule
  `.execute(db)
  return result.rows[0]?.inMs ?? null
}

/** Says when taken hosts are to be looked at next. Those that something happened to meanwhile stay due. */
export async function finishHosts(tx: Tx, looks: readonly NextLook[]): Promise<void> {
  if (looks.length === 0) return
  // In one order, so that two replicas never wait for each other.
  const sorted = [...looks].sort((one, other) => (one.hostId < other.hostId ? -1 : 1))
  const wanted = sql`
    unnest(
      ${sorted.map((look) => look.organizationId)}::uuid[], ${sorted.map((look) => look.hostId)}::uuid[],
      ${sorted.map((look) => look.takenUntil)}::timestamptz[], ${sorted.map((look) => look.inMs)}::float8[]
    ) as look (organization_id, host_id, taken_until, in_ms)`
  const untouched = sql`
    host_schedule.organization_id = look.organization_id and host_schedule.host_id = look.host_id and host_schedule.due_at = look.taken_until`
  // What is moved and what is deleted are never the same rows.
  await sql`/* finish-hosts */
    with moved as (
      update host_schedule
      set due_at = clock_timestamp() + look.in_ms * interval '1 millisecond'
      from ${wanted}
      where ${untouched} and look.in_ms is not null
    )
    delete from host_schedule using ${wanted} where ${untouched} and look.in_ms is null
  `.execute(tx)
}
