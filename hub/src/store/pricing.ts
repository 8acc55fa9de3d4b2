import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import { listPrices, type PriceEntry, type Pricing } from '../domain/price/pricing.js'
import type { Scopes } from '../domain/access/decide.js'
import type { Db, Tx } from './database.js'
import type { BillingAgreementRow, PriceListRow } from './tables.js'

// Price lists, what was agreed with organizations, and what both come to.

/** A billing agreement with the names of its organization and its list. */
export interface ShownAgreement extends BillingAgreementRow {
  readonly organization_name: string
  readonly price_list_name: string | null
}

/** How the prices of some organizations are made now. Those that are not in it pay what classes and providers say. */
export async function readPricing(db: Db, organizationIds: readonly string[]): Promise<ReadonlyMap<string, Pricing>> {
  const found = await sql<{
    id: string
    agreed: PriceEntry[] | null
    listed: PriceEntry[] | null
    discount: number | null
  }>`/* pricing */
    select o.id, a.entries as agreed, l.entries as listed, a.discount_basis_points as discount
    from unnest(${[...new Set(organizationIds)]}::uuid[]) as o (id)
    left join lateral (
      select b.entries, b.discount_basis_points, b.price_list_id
      from billing_agreements b
      where b.organization_id = o.id and coalesce(b.starts_at <= clock_timestamp(), true) and coalesce(b.ends_at > clock_timestamp(), true)
      order by b.starts_at desc nulls last, b.id desc
      limit 1
    ) a on true
    left join price_lists l on case when a.price_list_id is null then l.is_default else l.id = a.price_list_id end
    where a.entries is not null or l.entries is not null
  `.execute(db)
  return new Map(
    found.rows.map((row) => [
      row.id,
      { agreed: row.agreed ?? [], listed: row.listed ?? [], discountBasisPoints: row.discount ?? 0 },
    ]),
  )
}

/** Of a map as {@link readPricing} gives. */
export function pricingOf(pricing: ReadonlyMap<string, Pricing>, organizationId: string): Pricing {
  return pricing.get(organizationId) ?? listPrices
}

export interface PriceListContent {
  readonly display_name: string
  readonly is_default: boolean
  readonly entries: readonly PriceEntry[]
}

export async function insertPriceList(tx: Tx, name: string, content: PriceListContent): Promise<PriceListRow> {
  return tx
    .insertInto('price_lists')
    .values({ id: uuid(), name, ...content, entries: JSON.stringify(content.entries) })
    .returningAll()
    .executeTakeFirstOrThrow()
}

export async function findPriceList(db: Db, name: string): Promise<PriceListRow | undefined> {
  return db.selectFrom('price_lists').selectAll().where('name', '=', name).executeTakeFirst()
}

export async function lockPriceList(tx: Tx, name: string): Promise<PriceListRow | undefined> {
  return tx.selectFrom('price_lists').selectAll().where('name', '=', name).forUpdate().executeTakeFirst()
}

/** The default list, but for one. */
export async function findDefaultList(db: Db, exceptId: string): Promise<PriceListRow | undefined> {
  return db
    .selectFrom('price_lists')
    .selectAll()
    .where('is_default', '=', true)
    .where('id', '<>', exceptId)
    .executeTakeFirst()
}

/** @param after name of the last one of the page before. */
export async function listPriceLists(db: Db, after: string, limit: number): Promise<readonly PriceListRow[]> {
  return db.selectFrom('price_lists').selectAll().where('name', '>', after).orderBy('name').limit(limit).execute()
}

export async function updatePriceList(tx: Tx, id: string, content: PriceListContent): Promise<PriceListRow> {
  return tx
    .updateTable('price_lists')
    .set({ ...content, entries: JSON.stringify(content.entries) })
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirstOrThrow()
}

/** How many billing agreements are based on a list. */
export async function countListUse(tx: Tx, id: string): Promise<number> {
  const { count } = await tx
    .selectFrom('billing_agreements')
    .select(sql<number>`count(*)::int`.as('count'))
    .where('price_list_id', '=', id)
    .executeTakeFirstOrThrow()
  return count
}

export async function deletePriceList(tx: Tx, id: string): Promise<void> {
  await tx.deleteFrom('price_lists').where('id', '=', id).execute()
}

export interface AgreementContent {
  readonly display_name: string
  readonly price_list_id: string | null
  readonly discount_basis_points: number
  readonly entries: readonly PriceEntry[]
  readonly starts_at: Date | null
  readonly ends_at: Date | null
}

function shown(db: Db) {
  return db
    .selectFrom('billing_agreements as a')
    .innerJoin('organizations as o', 'o.id', 'a.organization_id')
    .leftJoin('price_lists as l', 'l.id', 'a.price_list_id')
    .selectAll('a')
    .select(['o.name as organization_name', 'l.name as price_list_name'])
}

export async function findAgreement(db: Db, organization: string, name: string): Promise<ShownAgreement | undefined> {
  return shown(db).where('o.name', '=', organization).where('a.name', '=', name).executeTakeFirst()
}

export async function lockAgreement(tx: Tx, organization: string, name: string): Promise<ShownAgreement | undefined> {
  return shown(tx).where('o.name', '=', organization).where('a.name', '=', name).forUpdate('a').executeTakeFirst()
}

/** @param after organization and name of the last one of the page before. */
export async function listAgreements(
  db: Db,
  filter: { readonly organization: string | undefined; readonly within: Scopes | undefined },
  after: readonly [string, string] | undefined,
  limit: number,
): Promise<readonly ShownAgreement[]> {
  let query = shown(db).orderBy('o.name').orderBy('a.name').limit(limit)
  if (filter.organization !== undefined) query = query.where('o.name', '=', filter.organization)
  if (filter.within !== undefined)
    query = query.where(sql<boolean>`a.organization_id = any(${[...filter.within.organizationIds]}::uuid[])`)
  if (after !== undefined) query = query.where(sql<boolean>`(o.name, a.name) > (${after[0]}, ${after[1]})`)
  return query.execute()
}

export async function insertAgreement(
  tx: Tx,
  organizationId: string,
  name: string,
  content: AgreementContent,
): Promise<void> {
  await tx
    .insertInto('billing_agreements')
    .values({ organization_id: organizationId, id: uuid(), name, ...content, entries: JSON.stringify(content.entries) })
    .execute()
}

export async function updateAgreement(tx: Tx, row: BillingAgreementRow, content: AgreementContent): Promise<void> {
  await tx
    .updateTable('billing_agreements')
    .set({ ...content, entries: JSON.stringify(content.entries) })
    .where('organization_id', '=', row.organization_id)
    .where('id', '=', row.id)
    .execute()
}

export async function deleteAgreement(tx: Tx, row: BillingAgreementRow): Promise<void> {
  await tx
    .deleteFrom('billing_agreements')
    .where('organization_id', '=', row.organization_id)
    .where('id', '=', row.id)
    .execute()
}
