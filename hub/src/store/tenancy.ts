import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { Scopes } from '../domain/access/decide.js'
import type { Labels } from '../domain/facts.js'
import type { Db, Tx } from './database.js'
import { labelConditions } from './label-filter.js'
import { withinScopes } from './scopes.js'
import type { OrganizationRow, PrincipalRow, WorkspaceRow } from './tables.js'

// Organizations, workspaces and principals. Their names are given once: what is deleted stays as a row.

/** The organization that every hub comes with. */
export const defaultOrganization = 'default'

/** What all three have that people write. */
export interface Described {
  readonly displayName: string
  readonly labels: Labels
  readonly annotations: Labels
}

export interface TenancyFilter {
  readonly labelSelector: string
  /** Undefined: all. */
  readonly within: Scopes | undefined
  /** The name of an organization; empty: of any. */
  readonly organization: string
}

function described({ displayName, labels, annotations }: Described) {
  return { display_name: displayName, labels: JSON.stringify(labels), annotations: JSON.stringify(annotations) }
}

const now = sql<Date>`clock_timestamp()`

// Organizations ---------------------------------------------------------------------------------------------------------------------

/** Undefined where the name is in use, or was. */
export async function insertOrganization(
  tx: Tx,
  name: string,
  content: Described,
): Promise<OrganizationRow | undefined> {
  return tx
    .insertInto('organizations')
    .values({ id: uuid(), name, ...described(content) })
    .onConflict((conflict) => conflict.column('name').doNothing())
    .returningAll()
    .executeTakeFirst()
}

export async function findOrganization(db: Db, name: string): Promise<OrganizationRow | undefined> {
  return db
    .selectFrom('organizations')
    .selectAll()
    .where('name', '=', name)
    .where('deleted_at', 'is', null)
    .executeTakeFirst()
}

export async function lockOrganization(tx: Tx, name: string): Promise<OrganizationRow | undefined> {
  return tx
    .selectFrom('organizations')
    .selectAll()
    .where('name', '=', name)
    .where('deleted_at', 'is', null)
    .forUpdate()
    .executeTakeFirst()
}

/** By name. @param after name of the last one of the page before. */
export async function listOrganizations(
  db: Db,
  filter: TenancyFilter,
  after: string,
  limit: number,
): Promise<readonly OrganizationRow[]> {
  let query = db
    .selectFrom('organizations')
    .selectAll()
    .where('deleted_at', 'is', null)
    .where('name', '>', after)
    .orderBy('name')
    .limit(limit)
  if (filter.within !== undefined) query = query.where(withinScopes('organization', filter.within))
  for (const condition of labelConditions(sql.ref('labels'), filter.labelSelector)) query = query.where(condition)
  return query.execute()
}

export async function updateOrganization(tx: Tx, row: OrganizationRow, content: Described): Promise<OrganizationRow> {
  return tx
    .updateTable('organizations')
    .set(described(content))
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
}

export async function countWorkspaces(tx: Tx, organizationId: string): Promise<number> {
  const row = await tx
    .selectFrom('workspaces')
    .select(sql<number>`count(*)::int`.as('n'))
    .where('organization_id', '=', organizationId)
    .where('deleted_at', 'is', null)
    .executeTakeFirstOrThrow()
  return row.n
}

/** Ends a locked organization, its principals, what they may do, and their tokens. */
export async function deleteOrganization(tx: Tx, row: OrganizationRow): Promise<void> {
  const own = tx.selectFrom('principals').select('id').where('organization_id', '=', row.id)
  await tx
    .updateTable('client_tokens')
    .set({ revoked_at: sql<Date>`coalesce(revoked_at, clock_timestamp())` })
    .where('principal_id', 'in', own)
    .execute()
  await tx.deleteFrom('principal_identities').where('principal_id', 'in', own).execute()
  await tx
    .deleteFrom('role_bindings')
    .where((where) => where.or([where('organization_id', '=', row.id), where('principal_id', 'in', own)]))
    .execute()
  await tx
    .updateTable('principals')
    .set({ deleted_at: now })
    .where('organization_id', '=', row.id)
    .where('deleted_at', 'is', null)
    .execute()
  await tx.updateTable('organizations').set({ deleted_at: now }).where('id', '=', row.id).execute()
}

// Workspaces ------------------------------------------------------------------------------------------------------------------------

/** Undefined where the name is in use, or was. */
export async function insertWorkspace(
  tx: Tx,
  organization: Pick<OrganizationRow, 'id' | 'name'>,
  name: string,
  content: Described,
): Promise<WorkspaceRow | undefined> {
  // Whether a name is in use cannot be seen by a tenant, only met.
  return tx
    .insertInto('workspaces')
    .values({
      organization_id: organization.id,
      organization_name: organization.name,
      id: uuid(),
      name,
      ...described(content),
    })
    .onConflict((conflict) => conflict.doNothing())
    .returningAll()
    .executeTakeFirst()
}

export async function findWorkspace(db: Db, name: string): Promise<WorkspaceRow | undefined> {
  return db
    .selectFrom('workspaces')
    .selectAll()
    .where('name', '=', name)
    .where('deleted_at', 'is', null)
    .executeTakeFirst()
}

export async function lockWorkspace(tx: Tx, name: string): Promise<WorkspaceRow | undefined> {
  return tx
    .selectFrom('workspaces')
    .selectAll()
    .where('name', '=', name)
    .where('deleted_at', 'is', null)
    .forUpdate()
    .executeTakeFirst()
}

/** By name. @param after name of the last one of the page before. */
export async function listWorkspaces(
  db: Db,
  filter: TenancyFilter,
  after: string,
  limit: number,
): Promise<readonly WorkspaceRow[]> {
  let query = db
    .selectFrom('workspaces')
    .selectAll()
    .where('deleted_at', 'is', null)
    .where('name', '>', after)
    .orderBy('name')
    .limit(limit)
  if (filter.organization !== '') query = query.where('organization_name', '=', filter.organization)
  if (filter.within !== undefined) query = query.where(withinScopes('workspace', filter.within))
  for (const condition of labelConditions(sql.ref('labels'), filter.labelSelector)) query = query.where(condition)
  return query.execute()
}

export async function updateWorkspace(tx: Tx, row: WorkspaceRow, content: Described): Promise<WorkspaceRow> {
  return tx
    .updateTable('workspaces')
    .set(described(content))
    .where('organization_id', '=', row.organization_id)
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
}

/** How many host sets a workspace has. */
export async function countHostSets(tx: Tx, workspace: string): Promise<number> {
  const row = await tx
    .selectFrom('host_sets')
    .select(sql<number>`count(*)::int`.as('n'))
    .where('workspace_name', '=', workspace)
    .executeTakeFirstOrThrow()
  return row.n
}

/** What a workspace is due of what is scarce. Levels as in domain/share. */
export interface ShareContent {
  readonly weight: number
  readonly priority: number
  readonly maxPriority: number
}

/** Says what a locked workspace is due. */
export async function updateShare(tx: Tx, row: WorkspaceRow, share: ShareContent): Promise<WorkspaceRow> {
  return tx
    .updateTable('workspaces')
    .set({ weight: share.weight, priority: share.priority, max_priority: share.maxPriority })
    .where('organization_id', '=', row.organization_id)
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
}

/** Hosts of a workspace that are not released. */
export async function countHosts(tx: Tx, workspace: string): Promise<number> {
  const row = await tx
    .selectFrom('hosts')
    .select(sql<number>`count(*)::int`.as('n'))
    .where('workspace_name', '=', workspace)
    .where('state', '<>', 'RELEASED')
    .executeTakeFirstOrThrow()
  return row.n
}

/** Ends a locked workspace, and the roles that are bound there. */
export async function deleteWorkspace(tx: Tx, row: WorkspaceRow): Promise<void> {
  await tx.deleteFrom('role_bindings').where('workspace_name', '=', row.name).execute()
  await tx
    .updateTable('workspaces')
    .set({ deleted_at: now })
    .where('organization_id', '=', row.organization_id)
    .where('id', '=', row.id)
    .execute()
}

// Principals ------------------------------------------------------------------------------------------------------------------------

export interface PrincipalContent extends Described {
  readonly kind: PrincipalRow['kind']
  readonly disabled: boolean
}

function principalColumns({ disabled, ...content }: PrincipalContent) {
  return { ...described(content), disabled }
}

/** @param organization null: the hub itself. */
export async function insertPrincipal(
  tx: Tx,
  organization: Pick<OrganizationRow, 'id' | 'name'> | null,
  name: string,
  content: PrincipalContent,
): Promise<PrincipalRow> {
  return tx
    .insertInto('principals')
    .values({
      id: uuid(),
      organization_id: organization?.id ?? null,
      organization_name: organization?.name ?? null,
      name,
      kind: content.kind,
      ...principalColumns(content),
    })
    .returningAll()
    .executeTakeFirstOrThrow()
}

interface PrincipalName {
  readonly organization: string | null
  readonly id: string
}

function named(db: Db, { organization, id }: PrincipalName) {
  return db
    .selectFrom('principals')
    .selectAll()
    .where(sql<boolean>`coalesce(organization_name, '') = ${organization ?? ''}`)
    .where('name', '=', id)
    .where('deleted_at', 'is', null)
}

export async function findPrincipal(db: Db, name: PrincipalName): Promise<PrincipalRow | undefined> {
  return named(db, name).executeTakeFirst()
}

export async function lockPrincipal(tx: Tx, name: PrincipalName): Promise<PrincipalRow | undefined> {
  return named(tx, name).forUpdate().executeTakeFirst()
}

export interface PrincipalFilter extends TenancyFilter {
  readonly kind: PrincipalRow['kind'] | undefined
}

/** By organization, the hub's own first, and name. @param after organization (or nothing) and name of the last one of the page before. */
export async function listPrincipals(
  db: Db,
  filter: PrincipalFilter,
  after: readonly [string, string] | undefined,
  limit: number,
): Promise<readonly PrincipalRow[]> {
  const organization = sql<string>`coalesce(organization_name, '')`
  let query = db
    .selectFrom('principals')
    .selectAll()
    .where('deleted_at', 'is', null)
    .orderBy(organization)
    .orderBy('name')
    .limit(limit)
  if (after !== undefined) query = query.where(sql<boolean>`(${organization}, name) > (${after[0]}, ${after[1]})`)
  if (filter.organization !== '') query = query.where('organization_name', '=', filter.organization)
  if (filter.kind !== undefined) query = query.where('kind', '=', filter.kind)
  if (filter.within !== undefined) query = query.where(withinScopes('principal', filter.within))
  for (const condition of labelConditions(sql.ref('labels'), filter.labelSelector)) query = query.where(condition)
  return query.execute()
}

export async function updatePrincipal(tx: Tx, row: PrincipalRow, content: PrincipalContent): Promise<PrincipalRow> {
  return tx
    .updateTable('principals')
    .set(principalColumns(content))
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
}

/** Ends a locked principal, what it may do, and its tokens. */
export async function deletePrincipal(tx: Tx, row: PrincipalRow): Promise<void> {
  await tx
    .updateTable('client_tokens')
    .set({ revoked_at: sql<Date>`coalesce(revoked_at, clock_timestamp())` })
    .where('principal_id', '=', row.id)
    .execute()
  await tx.deleteFrom('principal_identities').where('principal_id', '=', row.id).execute()
  await tx.deleteFrom('role_bindings').where('principal_id', '=', row.id).execute()
  await tx.updateTable('principals').set({ deleted_at: now }).where('id', '=', row.id).execute()
}
