import { sql } from 'kysely'
import { monthStart } from '../domain/price/cost.js'
import type { UsageInterval } from '../domain/price/usage.js'
import type { Db } from './database.js'

// The ledger of what hosts used. A trigger writes it, with every change of a host that matters to it; here it is only read.

/** Whose usage is read. */
export interface UsageScope {
  readonly organizationId: string
  /** Undefined: of all workspaces, deleted ones included. */
  readonly workspace: string | undefined
}

export interface UsageSpan {
  /** Inclusive. Null: from the beginning. */
  readonly from: Date | null
  /** Exclusive. */
  readonly to: Date
}

/** A host that used something. */
export interface UsageHost {
  readonly workspaceName: string
  readonly hostName: string
  readonly hostId: string
}

/** Of an organization or a workspace that is there, or was. */
export async function findUsageScope(
  db: Db,
  { organization, workspace }: { readonly organization: string | null; readonly workspace: string | null },
): Promise<UsageScope | undefined> {
  if (workspace !== null) {
    const row = await db
      .selectFrom('workspaces')
      .select('organization_id')
      .where('name', '=', workspace)
      .executeTakeFirst()
    return row && { organizationId: row.organization_id, workspace }
  }
  const row = await db
    .selectFrom('organizations')
    .select('id')
    .where('name', '=', organization ?? '')
    .executeTakeFirst()
  return row && { organizationId: row.id, workspace: undefined }
}

/** The hosts that used something within some time, ordered by workspace and name. @param after the last one of the page before. */
export async function listUsageHosts(
  db: Db,
  { organizationId, workspace }: UsageScope,
  { from, to }: UsageSpan,
  after: UsageHost | undefined,
  limit: number,
): Promise<readonly UsageHost[]> {
  const within = sql`organization_id = ${organizationId}::uuid
    ${workspace === undefined ? sql`` : sql`and workspace_name = ${workspace}`}
    and started_at < ${to}
    ${after === undefined ? sql`` : sql`and (workspace_name, host_name, host_id) > (${after.workspaceName}, ${after.hostName}, ${after.hostId}::uuid)`}`
  const columns = sql`workspace_name as "workspaceName", host_name as "hostName", host_id as "hostId"`
  const page = sql`order by workspace_name, host_name, host_id limit ${limit}`
  const result = await sql<UsageHost>`/* usage-hosts */
    (select distinct on (workspace_name, host_name, host_id) ${columns} from usage_intervals
     where ${within} ${from === null ? sql`` : sql`and ended_at > ${from}`} ${page})
    union
    (select ${columns} from usage_open where ${within} ${page})
    order by 1, 2, 3 limit ${limit}
  `.execute(db)
  return result.rows
}

/** The intervals of some hosts as they matter to some time: from the beginning of its first month. By host, in their order. */
export async function readUsage(
  db: Db,
  organizationId: string,
  hostIds: readonly string[],
  { from, to }: UsageSpan,
): Promise<ReadonlyMap<string, readonly UsageInterval[]>> {
  const columns = sql`host_id as "hostId", class_name as "className", provider_name as "providerName", price, billable, powered_on as "poweredOn",
    sets_up as "setsUp", started_at as "startedAt"`
  const ofHosts = sql`organization_id = ${organizationId}::uuid and host_id = any(${[...hostIds]}::uuid[]) and started_at < ${to}`
  const result = await sql<UsageInterval & { readonly hostId: string }>`/* usage */
    select ${columns}, ended_at as "endedAt" from usage_intervals
    where ${ofHosts} ${from === null ? sql`` : sql`and ended_at > ${monthStart(from)}`}
    union all
    select ${columns}, null from usage_open where ${ofHosts}
    order by "hostId", "startedAt"
  `.execute(db)
  const byHost = new Map<string, UsageInterval[]>()
  for (const { hostId, ...interval } of result.rows) {
    const intervals = byHost.get(hostId) ?? []
    byHost.set(hostId, intervals)
    intervals.push(interval)
  }
  return byHost
}
