import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { Scopes } from '../domain/access/decide.js'
import type { JsonObject, Labels, Shape } from '../domain/facts.js'
import type { ClassSpec, HostState, PlacementWish } from '../domain/host/host.js'
import type { PriorityRange } from '../domain/share/priority.js'
import type { Keyring } from '../secrets/keyring.js'
import type { Db, Tx } from './database.js'
import { scheduleHost } from './host-schedule.js'
import { labelConditions } from './label-filter.js'
import { plannedAnew } from './prepared.js'
import { rowsAs } from './rows.js'
import { withinScopes } from './scopes.js'
import type { HostRow } from './tables.js'

export interface WorkspaceKey {
  readonly organizationId: string
  readonly id: string
  readonly name: string
}

export interface WorkspaceRef extends WorkspaceKey {
  /** What its orders may be. */
  readonly range: PriorityRange
}

export async function findWorkspaces(db: Db, names: readonly string[]): Promise<WorkspaceRef[]> {
  const rows = await db
    .selectFrom('workspaces')
    .select(['organization_id', 'id', 'name', 'priority', 'max_priority'])
    .where(sql<boolean>`name = any(${[...names]}::text[]) and deleted_at is null`)
    .execute()
  return rows.map((row) => ({
    organizationId: row.organization_id,
    id: row.id,
    name: row.name,
    range: { priority: row.priority, maxPriority: row.max_priority },
  }))
}

export interface NewHost {
  readonly workspace: WorkspaceKey
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
  /** -1, 0 or 1. */
  readonly priority: number
  readonly createdBy: string
  /** Checked. Absent: none. */
  readonly sshPublicKeys?: readonly string[]
  readonly expiry?: NewExpiry
  readonly member?: NewMember
}

/** When a host is to end: at a time, or so long after it was stored. */
export type NewExpiry = { readonly at: Date } | { readonly lifetimeMs: number }

/** The set that a host is made for, and its number in it. */
export interface NewMember {
  readonly setId: string
  readonly setName: string
  readonly ordinal: number
  readonly revision: number
  readonly domain: string
}

/** An order as it was stored. */
export interface NewHostRow {
  readonly row: HostRow
  /** The user-data that it brought along. */
  readonly sealedUserData: Buffer | null
}

/**
 * Stores orders, sealed where they are secret. Say in the same transaction when the reconciler is to look at them.
 *
 * @returns for each what was stored, or undefined where the name is in use.
 */
export async function insertHosts(
  tx: Tx,
  keyring: Keyring,
  hosts: readonly NewHost[],
): Promise<readonly (NewHostRow | undefined)[]> {
  if (hosts.length === 0) return []
  const now = new Date().toISOString()
  const drafts = hosts.map((host) => {
    const id = uuid()
    const sealedUserData = host.userData === '' ? null : keyring.seal('host.user-data', id, host.userData)
    return { id, host, sealedUserData }
  })
  const made = await sql<HostRow>`
    insert into hosts (organization_id, id, workspace_id, workspace_name, name, hostname, class_id, class_name, class_spec, shape, placement,
                       provider_data, labels, annotations, protected, priority, state, state_message, conditions, created_by, host_set_id,
                       host_set_name, host_set_ordinal, host_set_revision, host_set_domain, ssh_public_keys, expires_at, expiry_look_at)
    select organization_id, id, workspace_id, workspace_name, name, hostname, class_id, class_name, class_spec, shape, placement,
           provider_data, labels, annotations, protected, priority, state, state_message, conditions, created_by, host_set_id, host_set_name,
           host_set_ordinal, host_set_revision, host_set_domain, ssh_public_keys, coalesce(expires_at, clock_timestamp() + lifetime_ms * interval '1 millisecond'),
           case when expires_at is not null or lifetime_ms is not null then clock_timestamp() end
    from ${rowsAs(
      `h (organization_id uuid, id uuid, workspace_id uuid, workspace_name text, name text, hostname text, class_id uuid, class_name text,
          class_spec jsonb, shape jsonb, placement jsonb, provider_data jsonb, labels jsonb, annotations jsonb, protected boolean, priority smallint,
          state text, state_message text, conditions jsonb, created_by text, host_set_id uuid, host_set_name text, host_set_ordinal bigint,
          host_set_revision bigint, host_set_domain text, ssh_public_keys text[], expires_at timestamptz, lifetime_ms float8)`,
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
        priority: host.priority,
        state: 'ORDERED',
        state_message: 'Looking for a place',
        conditions: [{ type: 'Accepted', status: 'TRUE', reason: 'Ordered', message: '', lastTransitionAt: now }],
        created_by: host.createdBy,
        ssh_public_keys: host.sshPublicKeys ?? [],
        ...memberColumns(host.member),
        ...expiryColumns(host.expiry),
      })),
    )}
    on conflict (workspace_name, name) where state <> 'RELEASED' do nothing
    returning *
  `.execute(tx)
  const rows = new Map(made.rows.map((row) => [row.id, row]))
  const stored = drafts.map(({ id, sealedUserData }) => {
    const row = rows.get(id)
    return row === undefined ? undefined : { row, sealedUserData }
  })
  await insertHostSecrets(
    tx,
    stored.filter((host) => host !== undefined),
  )
  return stored
}

function memberColumns(member: NewMember | undefined): object {
  if (member === undefined) return {}
  return {
    host_set_id: member.setId,
    host_set_name: member.setName,
    host_set_ordinal: member.ordinal,
    host_set_revision: member.revision,
    host_set_domain: member.domain,
  }
}

function expiryColumns(expiry: NewExpiry | undefined): object {
  if (expiry === undefined) return {}
  return 'at' in expiry ? { expires_at: expiry.at } : { lifetime_ms: expiry.lifetimeMs }
}

async function insertHostSecrets(tx: Tx, hosts: readonly NewHostRow[]): Promise<void> {
  const secret = hosts.filter(({ sealedUserData }) => sealedUserData !== null)
  if (secret.length === 0) return
  await sql`
    insert into host_secrets (organization_id, host_id, user_data_sealed)
    select * from unnest(
      ${secret.map(({ row }) => row.organization_id)}::uuid[], ${secret.map(({ row }) => row.id)}::uuid[],
      ${secret.map(({ sealedUserData }) => sealedUserData)}::bytea[]
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
  /** Undefined: all. */
  readonly within?: Scopes | undefined
}

/** @param after workspace, name and id of the last one of the page before. */
export async function listHosts(
  db: Db,
  filter: HostListFilter,
  after: readonly [string, string, string] | undefined,
  limit: number,
): Promise<readonly HostRow[]> {
  let query = db
    .selectFrom('hosts')
    .modifyFront(plannedAnew)
    .selectAll()
    .orderBy('workspace_name')
    .orderBy('name')
    .orderBy('id')
    .limit(limit)
  if (after !== undefined) {
    query = query.where(sql<boolean>`(workspace_name, name, id) > (${after[0]}, ${after[1]}, ${after[2]}::uuid)`)
  }
  if (filter.workspace !== undefined) query = query.where('workspace_name', '=', filter.workspace)
  if (filter.within !== undefined) query = query.where(withinScopes('host', filter.within))
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
  /** Null: never. */
  readonly expiry?: NewExpiry | null
}

function expiryOf(expiry: NewExpiry | null) {
  if (expiry === null) return sql<Date | null>`null`
  if ('at' in expiry) return sql<Date | null>`${expiry.at}::timestamptz`
  return sql<Date | null>`clock_timestamp() + ${expiry.lifetimeMs} * interval '1 millisecond'`
}

export async function updateHost(tx: Tx, row: HostRow, change: HostChange): Promise<HostRow> {
  return tx
    .updateTable('hosts')
    .set({
      labels: JSON.stringify(change.labels ?? row.labels),
      annotations: JSON.stringify(change.annotations ?? row.annotations),
      protected: change.protected ?? row.protected,
      ...(change.expiry !== undefined && { expires_at: expiryOf(change.expiry) }),
      // Its end is looked at anew where it was moved, or is held no longer.
      ...((change.expiry !== undefined || (change.protected ?? row.protected) !== row.protected) &&
        (change.expiry ?? row.expires_at ?? row.expiry_look_at) !== null && {
          expiry_look_at: sql<Date>`clock_timestamp()`,
        }),
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
