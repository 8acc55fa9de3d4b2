import { sql } from 'kysely'
import { compareBindings } from '../domain/sign-in/person.js'
import type { GroupBinding } from '../domain/sign-in/issuer.js'
import type { Tx } from './database.js'
import { deleteBinding, insertBinding, isAdministered } from './role-bindings.js'
import type { PrincipalRow, RoleBindingRow } from './tables.js'

// Roles that people have by their groups at an issuer. What somebody bound by hand is left alone.

/** What came of it. Bindings are told as `OPERATOR of acme`. */
export interface GivenRoles {
  readonly bound: readonly string[]
  readonly unbound: readonly string[]
  /** Groups give roles where there is no such organization or workspace. */
  readonly missing: readonly { readonly organization: string | null; readonly workspace: string | null }[]
  /** Bindings that stay because nobody else may administer the hub. */
  readonly kept: number
}

/** Makes the roles that an issuer gave somebody those that it gives now. @param actor by whom they are bound. */
export async function giveIssuerRoles(
  tx: Tx,
  order: {
    readonly principal: PrincipalRow
    readonly actor: string
    readonly wanted: readonly GroupBinding[]
  },
): Promise<GivenRoles> {
  const { principal, actor, wanted } = order
  const rows = await tx
    .selectFrom('role_bindings')
    .selectAll()
    .where('principal_id', '=', principal.id)
    .where('created_by', '=', actor)
    .execute()
  const held = rows.map((row) => ({
    row,
    role: row.role,
    organization: row.organization_name,
    workspace: row.workspace_name,
  }))
  const { add, remove } = compareBindings(held, wanted)
  const unbound: string[] = []
  let kept = 0
  for (const { row } of remove) {
    if (row.role === 'ADMINISTRATOR' && !(await isAdministered(tx, { bindingId: row.id }))) {
      kept += 1
      continue
    }
    await deleteBinding(tx, row.id)
    unbound.push(told(row.role, row.organization_name, row.workspace_name))
  }
  const bound: string[] = []
  const missing: GivenRoles['missing'][number][] = []
  for (const { role, organization, workspace } of add) {
    const place = await findPlace(tx, organization, workspace)
    if (place === undefined) {
      missing.push({ organization, workspace })
      continue
    }
    const made = await insertBinding(tx, {
      principalId: principal.id,
      role,
      organization: place,
      workspace,
      createdBy: actor,
    })
    if (made !== undefined) bound.push(told(role, organization, workspace))
  }
  return { bound, unbound, missing, kept }
}

function told(role: RoleBindingRow['role'], organization: string | null, workspace: string | null): string {
  return `${role} of ${workspace ?? organization ?? 'the hub'}`
}

/** Null: the whole hub. Undefined: there is no such place. */
async function findPlace(
  tx: Tx,
  organization: string | null,
  workspace: string | null,
): Promise<{ readonly id: string; readonly name: string } | null | undefined> {
  if (organization === null) return null
  const found = await sql<{ id: string; name: string }>`
    select o.id, o.name from organizations o
    where o.name = ${organization} and o.deleted_at is null
      and (${workspace}::text is null
           or exists (select from workspaces w where w.name = ${workspace} and w.organization_id = o.id and w.deleted_at is null))
  `.execute(tx)
  return found.rows[0]
}
