import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { Grant, Scopes } from '../domain/access/decide.js'
import type { Role } from '../domain/access/roles.js'
import type { ScopeName } from '../domain/names.js'
import type { Db, Tx } from './database.js'
import { withinScopes } from './scopes.js'
import type { RoleBindingRow } from './tables.js'

/** A role binding, and whose it is. */
export interface ShownBinding extends RoleBindingRow {
  readonly principal_name: string
  readonly principal_organization: string | null
}

export interface NewBinding {
  readonly principalId: string
  readonly role: Role
  /** Null: the whole hub. */
  readonly organization: { readonly id: string; readonly name: string } | null
  readonly workspace: string | null
  readonly createdBy: string
}

/** Undefined where it is bound already. */
export async function insertBinding(tx: Tx, binding: NewBinding): Promise<string | undefined> {
  const id = uuid()
  const row = await tx
    .insertInto('role_bindings')
    .values({
      id,
      name: `b-${id.replaceAll('-', '').slice(-12)}`,
      principal_id: binding.principalId,
      role: binding.role,
      organization_id: binding.organization?.id ?? null,
      organization_name: binding.organization?.name ?? null,
      workspace_name: binding.workspace,
      created_by: binding.createdBy,
    })
    .onConflict((conflict) => conflict.doNothing())
    .returning('name')
    .executeTakeFirst()
  return row?.name
}

function shown(db: Db) {
  return db
    .selectFrom('role_bindings as b')
    .innerJoin('principals as p', 'p.id', 'b.principal_id')
    .selectAll('b')
    .select(['p.name as principal_name', 'p.organization_name as principal_organization'])
}

function inScope({ organization, workspace }: ScopeName) {
  if (workspace !== null) return sql<boolean>`b.workspace_name = ${workspace}`
  if (organization === null) return sql<boolean>`b.organization_id is null`
  return sql<boolean>`b.organization_name = ${organization} and b.workspace_name is null`
}

export async function findBinding(db: Db, scope: ScopeName, name: string): Promise<ShownBinding | undefined> {
  return shown(db).where(inScope(scope)).where('b.name', '=', name).executeTakeFirst()
}

export interface BindingFilter {
  /** An organization with its workspaces, or one workspace; both null: anywhere. */
  readonly scope: ScopeName
  readonly principalId: string | undefined
  /** Undefined: all. */
  readonly within: Scopes | undefined
}

/** Oldest first. @param after id of the last one of the page before: ids rise with time. */
export async function listBindings(
  db: Db,
  filter: BindingFilter,
  after: string,
  limit: number,
): Promise<readonly ShownBinding[]> {
  let query = shown(db).orderBy('b.id').limit(limit)
  if (after !== '') query = query.where('b.id', '>', after)
  const { scope, within, principalId } = filter
  if (scope.workspace !== null) query = query.where('b.workspace_name', '=', scope.workspace)
  if (scope.organization !== null) query = query.where('b.organization_name', '=', scope.organization)
  if (principalId !== undefined) query = query.where('b.principal_id', '=', principalId)
  if (within !== undefined) query = query.where(withinScopes('role_binding', within, 'b'))
  return query.execute()
}

/** All bindings of a principal, wherever they are. */
export async function bindingsOf(db: Db, principalId: string): Promise<readonly ShownBinding[]> {
  return shown(db).where('b.principal_id', '=', principalId).orderBy('b.id').execute()
}

/** What a principal may do, wherever that is. */
export async function grantsOf(db: Db, principalId: string): Promise<readonly Grant[]> {
  const rows = await bindingsOf(db, principalId)
  return rows.map((row) => ({
    role: row.role,
    organizationId: row.organization_id,
    workspace: row.workspace_name,
  }))
}

export async function deleteBinding(tx: Tx, id: string): Promise<boolean> {
  const gone = await tx.deleteFrom('role_bindings').where('id', '=', id).executeTakeFirst()
  return gone.numDeletedRows > 0n
}

/** An arbitrary number that all replicas agree on. */
const administratorsLock = 0x51_1b_a7_04

/**
 * Whether somebody other than this principal, or by another binding than this one, may administer the hub and is let in. Whoever asks holds off others that ask, until its
 * transaction ends.
 */
export async function isAdministered(
  tx: Tx,
  without: { readonly principalId?: string; readonly bindingId?: string },
): Promise<boolean> {
  await sql`select pg_advisory_xact_lock(${administratorsLock})`.execute(tx)
  const left = await sql`
    select from role_bindings b join principals p on p.id = b.principal_id
    where b.role = 'ADMINISTRATOR' and p.deleted_at is null and not p.disabled
      and b.principal_id is distinct from ${without.principalId ?? null}::uuid and b.id is distinct from ${without.bindingId ?? null}::uuid
    limit 1
  `.execute(tx)
  return left.rows.length > 0
}
