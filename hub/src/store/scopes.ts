import { sql, type RawBuilder } from 'kysely'
import type { Scopes } from '../domain/access/decide.js'
import type { Db } from './database.js'
import type { WatchedResource } from './tables.js'

// Which rows are in the places that a caller may do something in: the policy's half of what row-level security says again.

export type ScopedResource = WatchedResource | 'event' | 'role_binding'

const tables: Readonly<Record<ScopedResource, string>> = {
  provider: 'providers',
  machine_class: 'machine_classes',
  host: 'hosts',
  host_set: 'host_sets',
  machine_request: 'machine_requests',
  machine: 'machines',
  organization: 'organizations',
  workspace: 'workspaces',
  principal: 'principals',
  event: 'events',
  role_binding: 'role_bindings',
}

/** A condition on the rows of a resource's table. @param alias what the statement calls the table, where it does. */
export function withinScopes(resource: ScopedResource, scopes: Scopes, alias?: string): RawBuilder<boolean> {
  const organizations = sql`${[...scopes.organizationIds]}::uuid[]`
  const workspaces = sql`${[...scopes.workspaces]}::text[]`
  const column = (name: string) => sql.ref(alias === undefined ? name : `${alias}.${name}`)
  const byOrganization = sql<boolean>`${column('organization_id')} = any(${organizations})`
  switch (resource) {
    case 'host':
    case 'host_set':
    case 'machine_request':
    case 'role_binding':
      return sql<boolean>`(${byOrganization} or ${column('workspace_name')} = any(${workspaces}))`
    case 'workspace':
      return sql<boolean>`(${byOrganization} or ${column('name')} = any(${workspaces}))`
    case 'machine':
      return sql<boolean>`split_part(${column('host_name')}, '/', 2) in (${workspaceNames(scopes)})`
    case 'event':
      return sql<boolean>`(${byOrganization}
        or (${column('organization_id')} is not null and event_workspace(${column('subject')}, ${column('related')}) = any(${workspaces})))`
    case 'principal':
      return byOrganization
    case 'organization':
      return sql<boolean>`${column('id')} = any(${organizations})`
    case 'machine_class':
      return sql<boolean>`true`
    case 'provider':
      return sql<boolean>`(case
        when ${column('pool_id')} is not null then ${column('claim_workspace_name')} in (${workspaceNames(scopes)})
        when ${column('owner_workspace_id')} is not null then substr(${column('owner_name')}, length('workspaces/') + 1) in (${workspaceNames(scopes)})
        when ${column('owner_organization_id')} is not null then ${column('owner_organization_id')} = any(${organizations})
          or ${column('owner_organization_id')} in (select organization_id from workspaces where name = any(${workspaces}))
        else true
      end)`
  }
}

/** The names of the workspaces that are in some scopes. */
export function workspaceNames({ organizationIds, workspaces }: Scopes): RawBuilder<unknown> {
  return sql`select name from workspaces where organization_id = any(${[...organizationIds]}::uuid[]) or name = any(${[...workspaces]}::text[])`
}

/** Those of some resources that are in the scopes, and that the database shows. */
export async function visibleAmong(
  db: Db,
  resource: ScopedResource,
  ids: readonly string[],
  scopes: Scopes,
): Promise<ReadonlySet<string>> {
  if (ids.length === 0) return new Set()
  const id = sql.ref(resource === 'event' ? 'event_id' : 'id')
  const found = await sql<{ id: string }>`
    select ${id} as id from ${sql.table(tables[resource])} where ${id} = any(${[...ids]}::uuid[]) and ${withinScopes(resource, scopes)}
  `.execute(db)
  return new Set(found.rows.map((row) => row.id))
}
