import { sql } from 'kysely'
import type { HostSetStatus, PauseReason } from '../domain/host-set/host-set.js'
import type { Keyring } from '../secrets/keyring.js'
import type { ControllerLease } from './controllers.js'
import type { Db, Tx } from './database.js'
import type { HostRow, HostSetRow } from './tables.js'

// What the controller of host sets reads and writes. A set is locked before its members, and those in the order of their ids.

export interface HostSetKey {
  readonly organizationId: string
  readonly id: string
}

/** Changes of members that commit later than this after they were made are found when the set's own time comes. */
const overlapSeconds = 10

/** Sets that are due, or whose members have changed since they were looked at; the longest due first. */
export async function dueHostSets(db: Db, limit: number): Promise<readonly HostSetKey[]> {
  const found = await sql<HostSetKey>`/* due-host-sets */
    select s.organization_id as "organizationId", s.host_set_id as id
    from host_set_schedule s
    where s.due_at <= clock_timestamp()
      or exists (
        select from hosts h where h.host_set_id = s.host_set_id and h.updated_at > s.looked_at - ${sql.lit(overlapSeconds)} * interval '1 second'
      )
    order by s.due_at
    limit ${limit}
  `.execute(db)
  return found.rows
}

export async function lockHostSetById(tx: Tx, key: HostSetKey): Promise<HostSetRow | undefined> {
  return tx
    .selectFrom('host_sets')
    .selectAll()
    .where('organization_id', '=', key.organizationId)
    .where('id', '=', key.id)
    .forUpdate()
    .executeTakeFirst()
}

/** A member, and whether its provider can be seen. */
export interface MemberRow {
  readonly host: HostRow
  /** Since when its provider has been connected. Null: it is not, or there is none. */
  readonly connectedSince: Date | null
}

export interface SeenMembers {
  readonly members: readonly MemberRow[]
  /** One more than the number of any member that there ever was. */
  readonly nextOrdinal: number
  /** By the database's clock. */
  readonly now: Date
}

/** The members of a set that are not released. */
export async function readMembers(tx: Tx, setId: string): Promise<SeenMembers> {
  const [hosts, facts] = await Promise.all([
    sql<HostRow & { readonly connectedSince: Date | null }>`/* members-of-set */
      select h.*, (
        select min(s.connected_at) from sessions s where s.provider_id = h.provider_id and s.ended_at is null and s.expires_at > clock_timestamp()
      ) as "connectedSince"
      from hosts h
      where h.host_set_id = ${setId}::uuid and h.state <> 'RELEASED'
      order by h.host_set_ordinal
    `.execute(tx),
    sql<{ next: number; now: Date }>`
      select coalesce(max(host_set_ordinal) + 1, 0)::bigint as next, clock_timestamp() as now from hosts where host_set_id = ${setId}::uuid
    `.execute(tx),
  ])
  const [fact] = facts.rows
  if (fact === undefined) throw new Error('the database told no time')
  return {
    members: hosts.rows.map(({ connectedSince, ...host }) => ({ host, connectedSince })),
    nextOrdinal: fact.next,
    now: fact.now,
  }
}

/** Locks members that are to be released, in the order of their ids: those that are as they were seen. */
export async function lockMembers(tx: Tx, seen: readonly HostRow[]): Promise<readonly HostRow[]> {
  if (seen.length === 0) return []
  const locked = await sql<HostRow>`
    select * from hosts where id = any(${seen.map(({ id }) => id)}::uuid[]) order by id for update
  `.execute(tx)
  const versions = new Map(seen.map(({ id, version }) => [id, version]))
  return locked.rows.filter((row) => versions.get(row.id) === row.version)
}

/** What the controller keeps of a set. */
export interface HostSetProgress {
  readonly status: HostSetStatus
  readonly nextOrdinal: number
  readonly pauseReason: PauseReason | null
  readonly refusedOrders: number
  readonly nextOrderAt: Date | null
  readonly repairsInRow: number
  readonly nextRepairAt: Date | null
}

/** Stores how a locked set is doing. Nothing is written where nothing has changed. */
export async function saveProgress(tx: Tx, row: HostSetRow, progress: HostSetProgress): Promise<boolean> {
  const { status } = progress
  const columns = {
    state: status.state,
    state_message: status.message,
    counts: status.counts,
    conditions: status.conditions,
    next_ordinal: progress.nextOrdinal,
    pause_reason: progress.pauseReason,
    refused_orders: progress.refusedOrders,
    next_order_at: progress.nextOrderAt,
    repairs_in_row: progress.repairsInRow,
    next_repair_at: progress.nextRepairAt,
  }
  const result = await tx
    .updateTable('host_sets')
    .set({ ...columns, counts: JSON.stringify(status.counts), conditions: JSON.stringify(status.conditions) })
    .where('organization_id', '=', row.organization_id)
    .where('id', '=', row.id)
    .where(
      sql<boolean>`(state, state_message, counts, conditions, next_ordinal, pause_reason, refused_orders, next_order_at, repairs_in_row, next_repair_at)
        is distinct from (${columns.state}, ${columns.state_message}, ${JSON.stringify(columns.counts)}::jsonb, ${JSON.stringify(columns.conditions)}::jsonb,
          ${columns.next_ordinal}::bigint, ${columns.pause_reason}, ${columns.refused_orders}::int, ${columns.next_order_at}::timestamptz,
          ${columns.repairs_in_row}::int, ${columns.next_repair_at}::timestamptz)`,
    )
    .executeTakeFirst()
  return result.numUpdatedRows > 0n
}

/** Says when a set is looked at next, if nothing happens before; unless something has happened since it was begun to be looked at. */
export async function scheduleHostSet(tx: Tx, key: HostSetKey, lookedAt: Date, inMs: number): Promise<void> {
  await sql`
    update host_set_schedule
    set looked_at = ${lookedAt}, due_at = case when due_at > ${lookedAt} then due_at else clock_timestamp() + ${inMs} * interval '1 millisecond' end
    where organization_id = ${key.organizationId}::uuid and host_set_id = ${key.id}::uuid
  `.execute(tx)
}

/** The user-data of a set's template, in the clear: for its members' orders alone. */
export async function openUserData(db: Db, keyring: Keyring, key: HostSetKey): Promise<string> {
  const row = await db
    .selectFrom('host_set_secrets')
    .select('user_data_sealed')
    .where('organization_id', '=', key.organizationId)
    .where('host_set_id', '=', key.id)
    .executeTakeFirst()
  return row === undefined ? '' : keyring.open('host-set.user-data', key.id, row.user_data_sealed).toString('utf8')
}

/** What an order for a member rests upon. */
export interface MemberGuard {
  readonly set: HostSetKey
  /** What was wanted when it was decided. */
  readonly specRevision: number
  readonly lease: Pick<ControllerLease, 'name' | 'fence'>
}

/** Whether what an order rests upon still holds; it does so to the end of the transaction. Take it before limits and hosts. */
export async function holdMemberGuard(tx: Tx, { set, specRevision, lease }: MemberGuard): Promise<boolean> {
  const held = await sql`/* hold-member-guard */
    select 1 from controllers c, host_sets s
    where c.name = ${lease.name} and c.fence = ${lease.fence} and c.expires_at > clock_timestamp()
      and s.organization_id = ${set.organizationId}::uuid and s.id = ${set.id}::uuid and s.spec_revision = ${specRevision}
      and s.delete_requested_at is null
    for share
  `.execute(tx)
  return held.rows.length > 0
}
