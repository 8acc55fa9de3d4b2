import { sql } from 'kysely'
import type { Place } from '../domain/access/decide.js'
import type { Db } from './database.js'

// Where things are, for the policy: read by the hub itself, whoever asks.

export interface FoundPlace extends Place {
  /** Of a token: whose it is. */
  readonly principalId?: string
}

export async function placeOfOrganization(db: Db, name: string): Promise<FoundPlace | undefined> {
  const row = await db.selectFrom('organizations').select('id').where('name', '=', name).executeTakeFirst()
  return row === undefined ? undefined : { organizationId: row.id, workspace: null }
}

export async function placeOfWorkspace(db: Db, name: string): Promise<FoundPlace | undefined> {
  const row = await db.selectFrom('workspaces').select('organization_id').where('name', '=', name).executeTakeFirst()
  return row === undefined ? undefined : { organizationId: row.organization_id, workspace: name }
}

/** Of a machine: where the host is that it serves. Undefined where it serves none. */
export async function placeOfMachine(db: Db, name: string): Promise<FoundPlace | undefined> {
  const found = await sql<{ organization_id: string; name: string }>`
    select w.organization_id, w.name
    from machines m join workspaces w on w.name = split_part(m.host_name, '/', 2)
    where m.name = ${name}
  `.execute(db)
  return placed(found.rows[0])
}

export async function placeOfRequest(db: Db, name: string): Promise<FoundPlace | undefined> {
  const row = await db
    .selectFrom('machine_requests')
    .select(['organization_id', 'workspace_name as name'])
    .where('name', '=', name)
    .executeTakeFirst()
  return placed(row)
}

/** Of an event: undefined where it is the hub's own affair. */
export async function placeOfEvent(db: Db, id: string): Promise<FoundPlace | undefined> {
  const found = await sql<{ organization_id: string; name: string | null }>`
    select organization_id, event_workspace(subject, related) as name
    from events
    where event_id = ${id}::uuid and organization_id is not null
  `.execute(db)
  return placed(found.rows[0])
}

/** Of a token: undefined where it is for a principal of the hub itself. */
export async function placeOfToken(db: Db, id: string): Promise<FoundPlace | undefined> {
  const row = await db
    .selectFrom('client_tokens as t')
    .innerJoin('principals as p', 'p.id', 't.principal_id')
    .select(['p.organization_id', 'p.id'])
    .where('t.id', '=', id)
    .executeTakeFirst()
  return row === undefined ? undefined : { organizationId: row.organization_id, workspace: null, principalId: row.id }
}

function placed(
  row: { readonly organization_id: string; readonly name: string | null } | undefined,
): FoundPlace | undefined {
  return row === undefined ? undefined : { organizationId: row.organization_id, workspace: row.name }
}
