import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { Scopes } from '../domain/access/decide.js'
import type { Labels } from '../domain/facts.js'
import type { HostTemplate, PauseReason, Spread } from '../domain/host-set/host-set.js'
import type { Keyring } from '../secrets/keyring.js'
import type { Db, Tx } from './database.js'
import type { WorkspaceKey } from './hosts.js'
import { labelConditions } from './label-filter.js'
import { withinScopes } from './scopes.js'
import type { HostSetRow } from './tables.js'

// Host sets as people make, change and end them. What becomes of their members is the reconciler's.

/** What people say of a set. */
export interface HostSetSpec {
  readonly replicas: number
  readonly template: HostTemplate
  readonly spread: Spread
  readonly maxSurge: number
  readonly maxUnavailable: number
  readonly progressDeadlineMs: number
  readonly maxRepairs: number
  readonly maxUnhealthyPercent: number
  readonly labels: Labels
  readonly annotations: Labels
}

export interface NewHostSet extends HostSetSpec {
  readonly workspace: WorkspaceKey
  readonly name: string
  /** Secret: sealed before it is stored. */
  readonly userData: string
  readonly createdBy: string
}

function specColumns(spec: HostSetSpec) {
  return {
    replicas: spec.replicas,
    template: JSON.stringify(spec.template),
    spread: spec.spread,
    max_surge: spec.maxSurge,
    max_unavailable: spec.maxUnavailable,
    progress_deadline_ms: spec.progressDeadlineMs,
    max_repairs: spec.maxRepairs,
    max_unhealthy_percent: spec.maxUnhealthyPercent,
    labels: JSON.stringify(spec.labels),
    annotations: JSON.stringify(spec.annotations),
  }
}

/** What people have said of a set that is stored. */
export function specOf(row: HostSetRow): HostSetSpec {
  return {
    replicas: row.replicas,
    template: row.template,
    spread: row.spread,
    maxSurge: row.max_surge,
    maxUnavailable: row.max_unavailable,
    progressDeadlineMs: row.progress_deadline_ms,
    maxRepairs: row.max_repairs,
    maxUnhealthyPercent: row.max_unhealthy_percent,
    labels: row.labels,
    annotations: row.annotations,
  }
}

/** Stores a set, due at once; undefined where the name is in use. */
export async function insertHostSet(tx: Tx, keyring: Keyring, set: NewHostSet): Promise<HostSetRow | undefined> {
  const id = uuid()
  const row = await tx
    .insertInto('host_sets')
    .values({
      ...specColumns(set),
      organization_id: set.workspace.organizationId,
      id,
      workspace_id: set.workspace.id,
      workspace_name: set.workspace.name,
      name: set.name,
      state_message: 'Ordering its members',
      created_by: set.createdBy,
    })
    .onConflict((conflict) => conflict.columns(['workspace_name', 'name']).doNothing())
    .returningAll()
    .executeTakeFirst()
  if (row === undefined) return undefined
  await writeUserData(tx, keyring, row, set.userData)
  await tx.insertInto('host_set_schedule').values({ organization_id: row.organization_id, host_set_id: id }).execute()
  return row
}

async function writeUserData(
  tx: Tx,
  keyring: Keyring,
  row: Pick<HostSetRow, 'organization_id' | 'id'>,
  userData: string,
): Promise<void> {
  await tx
    .deleteFrom('host_set_secrets')
    .where('organization_id', '=', row.organization_id)
    .where('host_set_id', '=', row.id)
    .execute()
  if (userData === '') return
  await tx
    .insertInto('host_set_secrets')
    .values({
      organization_id: row.organization_id,
      host_set_id: row.id,
      user_data_sealed: keyring.seal('host-set.user-data', row.id, userData),
    })
    .execute()
}

export async function findHostSet(db: Db, workspace: string, name: string): Promise<HostSetRow | undefined> {
  return db
    .selectFrom('host_sets')
    .selectAll()
    .where('workspace_name', '=', workspace)
    .where('name', '=', name)
    .executeTakeFirst()
}

export async function lockHostSet(tx: Tx, workspace: string, name: string): Promise<HostSetRow | undefined> {
  return tx
    .selectFrom('host_sets')
    .selectAll()
    .where('workspace_name', '=', workspace)
    .where('name', '=', name)
    .forUpdate()
    .executeTakeFirst()
}

export interface HostSetListFilter {
  /** Undefined: all. */
  readonly workspace: string | undefined
  readonly labelSelector: string
  readonly within: Scopes | undefined
}

/** @param after workspace and name of the last one of the page before. */
export async function listHostSets(
  db: Db,
  filter: HostSetListFilter,
  after: readonly [string, string] | undefined,
  limit: number,
): Promise<readonly HostSetRow[]> {
  let query = db.selectFrom('host_sets').selectAll().orderBy('workspace_name').orderBy('name').limit(limit)
  if (after !== undefined) query = query.where(sql<boolean>`(workspace_name, name) > (${after[0]}, ${after[1]})`)
  if (filter.workspace !== undefined) query = query.where('workspace_name', '=', filter.workspace)
  if (filter.within !== undefined) query = query.where(withinScopes('host_set', filter.within))
  for (const condition of labelConditions(sql.ref('labels'), filter.labelSelector)) query = query.where(condition)
  return query.execute()
}

export interface HostSetChange {
  readonly spec: HostSetSpec
  /** Absent: as it is. */
  readonly userData?: string
  /** The template changes so that members are replaced. */
  readonly replaces: boolean
}

/** Changes what is wanted of a locked set, and has it looked at. */
export async function updateHostSet(
  tx: Tx,
  keyring: Keyring,
  row: HostSetRow,
  change: HostSetChange,
): Promise<HostSetRow> {
  const columns = specColumns(change.spec)
  const { labels: _labels, annotations: _annotations, ...wanted } = columns
  const { labels: _before, annotations: _old, ...wantedBefore } = specColumns(specOf(row))
  const changes = change.replaces || JSON.stringify(wanted) !== JSON.stringify(wantedBefore)
  if (change.userData !== undefined) await writeUserData(tx, keyring, row, change.userData)
  const updated = await changeSet(tx, row, {
    ...columns,
    ...(changes && { spec_revision: row.spec_revision + 1 }),
    ...(change.replaces && { template_revision: row.template_revision + 1 }),
    // A refusal, or a rollout that failed, says nothing of another template.
    ...(changes && { refused_orders: 0, next_order_at: null, repairs_in_row: 0, next_repair_at: null }),
    ...(change.replaces && row.pause_reason === 'RolloutFailed' && { pause_reason: null }),
    // READY never speaks of what was wanted before.
    ...(changes && row.state === 'READY' && { state: 'PROGRESSING' as const }),
  })
  await haveLookedAt(tx, row)
  return updated
}

/** Pauses a locked set, or has it go on; failures of members that exist already count no more then. */
export async function pauseHostSet(tx: Tx, row: HostSetRow, reason: PauseReason | null): Promise<HostSetRow> {
  const updated = await changeSet(tx, row, {
    pause_reason: reason,
    spec_revision: row.spec_revision + 1,
    ...(reason === null && { failures_from: row.next_ordinal, repairs_in_row: 0, next_repair_at: null }),
    ...(reason !== null && { state: 'PAUSED' as const }),
  })
  await haveLookedAt(tx, row)
  return updated
}

/** Has a locked set release its members, and end once there are none. */
export async function endHostSet(tx: Tx, row: HostSetRow): Promise<HostSetRow> {
  const updated = await changeSet(tx, row, {
    delete_requested_at: sql<Date>`clock_timestamp()`,
    spec_revision: row.spec_revision + 1,
    state: 'DELETING',
    state_message: 'Releasing its members',
  })
  await haveLookedAt(tx, row)
  return updated
}

async function changeSet(tx: Tx, row: HostSetRow, columns: object): Promise<HostSetRow> {
  return tx
    .updateTable('host_sets')
    .set(columns)
    .where('organization_id', '=', row.organization_id)
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
}

async function haveLookedAt(tx: Tx, row: HostSetRow): Promise<void> {
  await tx
    .updateTable('host_set_schedule')
    .set({ due_at: sql<Date>`clock_timestamp()` })
    .where('organization_id', '=', row.organization_id)
    .where('host_set_id', '=', row.id)
    .execute()
}

/** Removes a locked set. Members that are left are nobody's from then on; those that are released are records, and change no more. */
export async function removeHostSet(tx: Tx, row: HostSetRow): Promise<void> {
  // In one order, as all who lock several do.
  await sql`select from hosts where host_set_id = ${row.id}::uuid and state <> 'RELEASED' order by id for update`.execute(
    tx,
  )
  await sql`
    update hosts set host_set_id = null, host_set_name = null, host_set_ordinal = null, host_set_revision = null, host_set_domain = null
    where host_set_id = ${row.id}::uuid and state <> 'RELEASED'
  `.execute(tx)
  await tx.deleteFrom('host_sets').where('organization_id', '=', row.organization_id).where('id', '=', row.id).execute()
}
