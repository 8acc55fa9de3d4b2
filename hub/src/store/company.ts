import { sql } from 'kysely'
import type { Labels } from '../domain/facts.js'
import type { PlacementWish } from '../domain/host/host.js'
import { companyWishes, domainOf, isCompany, type Company, type CompanyWish } from '../domain/placement/company.js'
import type { Db, Tx } from './database.js'
import { labelConditions } from './label-filter.js'

// Where a workspace's other hosts are. Asked only for orders that say something of them.

/** Whose company is looked for. */
export interface CompanyOrder {
  readonly workspaceName: string
  /** Of a member of a set. */
  readonly hostSetId: string | null
  readonly labels: Labels
}

/**
 * Waits until nobody else places hosts of these workspaces that must be near to others or apart from them, to the end of the transaction. After the locks of hosts and limits, and
 * before those of machines.
 */
export async function lockCompany(tx: Tx, workspaceIds: readonly string[]): Promise<void> {
  for (const id of [...new Set(workspaceIds)].sort())
    await sql`select pg_advisory_xact_lock(hashtextextended(current_schema() || ${`company ${id}`}, 0))`.execute(tx)
}

interface CountedPlace {
  readonly provider: string
  readonly location: string
  readonly rack: string
  readonly count: number
}

/** Counts the hosts that an order's wishes are about, by where they are: one statement a wish, in the order of `companyWishes`. */
export async function readCompany(
  db: Db,
  order: CompanyOrder,
  placement: PlacementWish,
): Promise<readonly (Company & { readonly counts: Map<string, number> })[]> {
  return Promise.all(
    companyWishes(placement).map(async (wish) => {
      const counts = new Map<string, number>()
      for (const { count, ...place } of await countPlaces(db, order, wish)) {
        const domain = domainOf(wish.domain, place)
        if (domain !== undefined) counts.set(domain, (counts.get(domain) ?? 0) + count)
      }
      return { counts, includesOrder: isCompany(wish, order, order) }
    }),
  )
}

async function countPlaces(db: Db, order: CompanyOrder, wish: CompanyWish): Promise<readonly CountedPlace[]> {
  const ofSet = wish.kind === 'SPREAD' && wish.labelSelector === '' && order.hostSetId !== null
  const conditions = [
    sql<boolean>`h.workspace_name = ${order.workspaceName}`,
    sql<boolean>`h.state in ('PLACED', 'PROVISIONING', 'BOOTSTRAPPING', 'READY', 'ERROR') and h.provider_id is not null`,
    ...(ofSet
      ? [sql<boolean>`h.host_set_id = ${order.hostSetId}`]
      : labelConditions(sql`h.labels`, wish.labelSelector)),
  ]
  const result = await sql<CountedPlace>`/* count-company */
    select h.provider_name as provider, coalesce(r.location, '') as location, coalesce((m.provider_labels || m.labels) ->> 'rack', '') as rack,
           count(*)::int as count
    from hosts h
    join machine_requests r on r.provider_id = h.provider_id and r.id = h.request_id and r.state <> 'GONE'
    left join machines m on r.static and m.provider_id = r.provider_id and m.id = r.machine_id
    where ${sql.join(conditions, sql` and `)}
    group by 1, 2, 3
  `.execute(db)
  return result.rows
}
