import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { JsonObject, Labels, Shape } from '../domain/facts.js'
import type { ClassSpec, HostState, PlacementWish } from '../domain/host/host.js'
import type { Keyring } from '../secrets/keyring.js'
import type { Db, Tx } from './database.js'
import { scheduleHost, scheduleHosts } from './host-schedule.js'
import { labelConditions } from './label-filter.js'
import { rowsAs } from './rows.js'
import type { HostRow } from './tables.js'

export interface WorkspaceRef {
  readonly organizationId: string
  readonly id: string
  readonly name: string
}

export async function findWorkspaces(db: Db, names: readonly string[]): Promise<WorkspaceRef[]> {
  const rows = await db
    .selectFrom('workspaces')
    .select(['organization_id', 'id', 'name'])
    .where(sql<boolean>`name = any(${[...names]}::text[])`)
    .execute()
  return rows.map((row) => ({ organizationId: row.organization_id, id: row.id, name: row.name }))
}

export interface NewHost {
  readonly workspace: WorkspaceRef
  readonly name: string
  readonly hostname: string
  readonly classId: string
  readonly className: string
  readonly classSpec: ClassSpec
  readonly shape: Shape | null
  readonly placement: PlacementWish
  readonly providerData: JsonObject
  /** Secret: sealed before it is stored. */
  readonly userData: string
  readonly labels: Labels
  readonly annotations: Labels
  readonly protected: boolean
  readonly createdBy: string
}

/**
 * Stores orders, sealed where they are secret, and due for the reconciler. Wake `{kind: 'host'}` after the commit.
 *
 * @returns for each what was stored, or undefined where the name is in use.
 */
export async function insertHosts(
  tx: Tx,
  keyring: Keyring,
  hosts: readonly NewHost[],
): Promise<readonly (HostRow | undefined)[]> {
  if (hosts.length === 0) return []
  const now = new Date().toISOString()
  const drafts = hosts.map((host) => ({ id: uuid(), host }))
  const made = await sql<HostRow>`
    insert into hosts (organization_id, id, workspace_id, workspace_name, name, hostname, class_id, class_name, class_spec, shape, placement,
                       provider_data, labels, annotations, protected, state, state_message, conditions, created_by)
    select * from ${rowsAs(
      `h (organization_id uuid, id uuid, workspace_id uuid, workspace_name text, name text, hostname text, class_id uuid, class_name text,
          class_spec jsonb, shape jsonb, placement jsonb, provider_data jsonb, labels jsonb, annotations jsonb, protected boolean, state text,
          state_message text, conditions jsonb, created_by text)`,
      drafts.map(({ id, host }) => ({
        organization_id: host.workspace.organizationId,
        id,
        workspace_id: host.workspace.id,
        workspace_name: host.workspace.name,
        name: host.name,
        hostname: host.hostname,
        class_id: host.classId,
        class_name: host.className,
        class_spec: host.classSpec,
        shape: host.shape,
        placement: host.placement,
        provider_data: host.providerData,
        labels: host.labels,
        annotations: host.annotations,
        protected: host.protected,
        state: 'ORDERED',
        state_message: 'Looking for a place',
        conditions: [{ type: 'Accepted', status: 'TRUE', reason: 'Ordered', message: '', lastTransitionAt: now }],
        created_by: host.createdBy,
      })),
    )}
    on conflict (workspace_name, name) where state <> 'RELEASED' do nothing
    returning *
  `.execute(tx)
  const rows = new Map(made.rows.map((row) => [row.id, row]))
  const stored = drafts.filter(({ id }) => rows.has(id))
  await Promise.all([
    insertHostSecrets(tx, keyring, stored),
    scheduleHosts(
      tx,
      stored.map(({ id, host }) => ({ organizationId: host.workspace.organizationId, hostId: id })),
    ),
  ])
  return drafts.map(({ id }) => rows.get(id))
}

async function insertHostSecrets(
  tx: Tx,
  keyring: Keyring,
  drafts: readonly { readonly id: string; readonly host: NewHost }[],
): Promise<void> {
  const secret = drafts.filter(({ host }) => host.userData !== '')
  if (secret.length === 0) return
  await sql`
    insert into host_secrets (organization_id, host_id, user_data_sealed)
    select * from unnest(
      ${secret.map(({ host }) => host.workspace.organizationId)}::uuid[], ${secret.map(({ id }) => id)}::uuid[],
      ${secret.map(({ id, host }) => keyring.seal('host.user-data', id, host.userData))}::bytea[]
    )
  `.execute(tx)
}

/** The host of that name that is not released, or else, with `released`, the last one that was. */
export async function findHost(
  db: Db,
  workspace: string,
  name: string,
  released = false,
): Promise<HostRow | undefined> {
  let query = db.selectFrom('hosts').selectAll().where('workspace_name', '=', workspace).where('name', '=', name)
  query = released
    ? query
        .orderBy(sql`state = 'RELEASED'`)
        .orderBy('created_at', 'desc')
        .limit(1)
    : query.where('state', '<>', 'RELEASED')
  return query.executeTakeFirst()
}

export async function lockHost(tx: Tx, workspace: string, name: string): Promise<HostRow | undefined> {
  return tx
    .selectFrom('hosts')
    .selectAll()
    .where('workspace_name', '=', workspace)
    .where('name', '=', name)
    .where('state', '<>', 'RELEASED')
    .forUpdate()
    .executeTakeFirst()
}

export interface HostListFilter {
  /** Undefined: all. */
  readonly workspace: string | undefined
  readonly states: readonly HostState[]
  readonly providers: readonly string[]
  readonly classes: readonly string[]
  readonly labelSelector: string
  readonly showReleased: boolean
}

/** @param after workspace, name and id of the last one of the page before. */
export async function listHosts(
  db: Db,
  filter: HostListFilter,
  after: readonly [string, string, string] | undefined,
  limit: number,
): Promise<readonly HostRow[]> {
  let query = db.selectFrom('hosts').selectAll().orderBy('workspace_name').orderBy('name').orderBy('id').limit(limit)
  if (after !== undefined) {
    query = query.where(sql<boolean>`(workspace_name, name, id) > (${after[0]}, ${after[1]}, ${after[2]}::uuid)`)
  }
  if (filter.workspace !== undefined) query = query.where('workspace_name', '=', filter.workspace)
  if (filter.states.length > 0) query = query.where('state', 'in', filter.states)
  else if (!filter.showReleased) query = query.where('state', '<>', 'RELEASED')
  if (filter.providers.length > 0) query = query.where('provider_name', 'in', filter.providers)
  if (filter.classes.length > 0) query = query.where('class_name', 'in', filter.classes)
  for (const condition of labelConditions(sql.ref('labels'), filter.labelSelector)) query = query.where(condition)
  return query.execute()
}

export interface HostChange {
  readonly labels?: Labels
  readonly annotations?: Labels
  readonly protected?: boolean
}

export async function updateHost(tx: Tx, row: HostRow, change: HostChange): Promise<HostRow> {
  return tx
    .updateTable('hosts')
    .set({
      labels: JSON.stringify(change.labels ?? row.labels),
      annotations: JSON.stringify(change.annotations ?? row.annotations),
      protected: change.protected ?? row.protected,
    })
    .where('organization_id', '=', row.organization_id)
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
}

/** Moves a locked host to another state by a caller's wish, due for the reconciler. */
export async function moveHost(
  tx: Tx,
  row: HostRow,
  state: HostState,
  message: string,
  releasing: boolean,
): Promise<HostRow> {
  const moved = await tx
    .updateTable('hosts')
    .set({
      state,
      state_message: message,
      state_at: sql<Date>`clock_timestamp()`,
      ...(releasing && { release_requested_at: sql<Date>`clock_timestamp()` }),
    })
    .where('organization_id', '=', row.organization_id)
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
  await scheduleHost(tx, { organizationId: row.organization_id, hostId: row.id })
  return moved
}
