import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { Scopes } from '../domain/access/decide.js'
import type { Price } from '../domain/facts.js'
import type { ClassSpec } from '../domain/host/host.js'
import { quotaName } from '../domain/names.js'
import { monthStart } from '../domain/price/cost.js'
import { demandOf } from '../domain/quota/demand.js'
import { chargeOf, concerns, limitKinds, noCharge, type Limit, type LimitKind } from '../domain/quota/quota.js'
import type { Db, Tx } from './database.js'
import { ownLimits } from './limit-book.js'
import { rowsAs } from './rows.js'
import type { QuotaRow } from './tables.js'

// Quotas as people make them, and the limits that they stand for.

/** A quota with its organization's name and what counts against it. */
export interface ShownQuota extends QuotaRow {
  readonly organization_name: string
  readonly usage: Readonly<Partial<Record<LimitKind, number>>>
}

/** What a quota limits. */
export interface QuotaMaxima {
  readonly max_hosts: number | null
  readonly max_vcpus: number | null
  readonly max_memory_mib: number | null
  readonly currency: string
  readonly max_hourly_micros: number | null
  readonly max_monthly_micros: number | null
}

export interface NewQuota extends QuotaMaxima {
  readonly organizationId: string
  readonly organizationName: string
  readonly name: string
  readonly displayName: string
  readonly workspace: { readonly id: string; readonly name: string } | undefined
  readonly className: string
  readonly family: string
}

function shown(db: Db) {
  return db
    .selectFrom('quotas as q')
    .innerJoin('organizations as o', 'o.id', 'q.organization_id')
    .selectAll('q')
    .select('o.name as organization_name')
    .select(
      sql<ShownQuota['usage']>`(
        select coalesce(jsonb_object_agg(l.kind, l.used), '{}') from quota_limits l where l.quota_id = q.id
      )`.as('usage'),
    )
}

export async function findQuota(db: Db, organization: string, name: string): Promise<ShownQuota | undefined> {
  return shown(db).where('o.name', '=', organization).where('q.name', '=', name).executeTakeFirst()
}

export async function lockQuota(tx: Tx, organization: string, name: string): Promise<ShownQuota | undefined> {
  return shown(tx).where('o.name', '=', organization).where('q.name', '=', name).forUpdate('q').executeTakeFirst()
}

/** @param after organization and name of the last one of the page before. */
export async function listQuotas(
  db: Db,
  filter: { readonly organization: string | undefined; readonly within: Scopes | undefined },
  after: readonly [string, string] | undefined,
  limit: number,
): Promise<readonly ShownQuota[]> {
  let query = shown(db).orderBy('o.name').orderBy('q.name').limit(limit)
  const { organization, within } = filter
  if (organization !== undefined) query = query.where('o.name', '=', organization)
  if (within !== undefined)
    query = query.where(
      sql<boolean>`(q.organization_id = any(${[...within.organizationIds]}::uuid[]) or q.workspace_name = any(${[...within.workspaces]}::text[]))`,
    )
  if (after !== undefined) query = query.where(sql<boolean>`(o.name, q.name) > (${after[0]}, ${after[1]})`)
  return query.execute()
}

export async function insertQuota(tx: Tx, quota: NewQuota): Promise<ShownQuota> {
  const { organizationId, organizationName, name, displayName, workspace, className, family, ...maxima } = quota
  const row = await tx
    .insertInto('quotas')
    .values({
      organization_id: organizationId,
      id: uuid(),
      name,
      display_name: displayName,
      workspace_id: workspace?.id ?? null,
      workspace_name: workspace?.name ?? null,
      class_name: className,
      family,
      ...maxima,
    })
    .returningAll()
    .executeTakeFirstOrThrow()
  return settleLimits(tx, { ...row, organization_name: organizationName, usage: {} })
}

/** Changes what a locked quota limits. What counts already goes on counting; a limit that is new counts what is there. */
export async function updateQuota(
  tx: Tx,
  row: ShownQuota,
  change: QuotaMaxima & { readonly display_name: string },
): Promise<ShownQuota> {
  const updated = await tx
    .updateTable('quotas')
    .set(change)
    .where('organization_id', '=', row.organization_id)
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
  return settleLimits(tx, { ...updated, organization_name: row.organization_name, usage: row.usage })
}

/** Deletes a locked quota, and all that counts against it. */
export async function deleteQuota(tx: Tx, row: QuotaRow): Promise<void> {
  await ownLimits(tx)
  await tx.deleteFrom('quotas').where('organization_id', '=', row.organization_id).where('id', '=', row.id).execute()
}

const maximumOf: Readonly<Record<LimitKind, keyof QuotaMaxima>> = {
  HOSTS: 'max_hosts',
  VCPUS: 'max_vcpus',
  MEMORY_MIB: 'max_memory_mib',
  HOURLY_MICROS: 'max_hourly_micros',
  MONTHLY_MICROS: 'max_monthly_micros',
}

/** Makes a quota's limits what it says, while nobody charges or releases. Its usage comes back as it is then. */
async function settleLimits(tx: Tx, quota: ShownQuota): Promise<ShownQuota> {
  await ownLimits(tx)
  const there = await tx
    .selectFrom('quota_limits')
    .select(['id', 'kind', 'used', 'currency'])
    .where('quota_id', '=', quota.id)
    .execute()
  const usage: Partial<Record<LimitKind, number>> = {}
  for (const kind of limitKinds) {
    const maximum = quota[maximumOf[kind]] as number | null
    const old = there.find((limit) => limit.kind === kind)
    const currency = kind === 'HOURLY_MICROS' || kind === 'MONTHLY_MICROS' ? quota.currency : ''
    const stays = old !== undefined && old.currency === currency && maximum !== null
    if (stays) {
      await tx.updateTable('quota_limits').set({ maximum }).where('id', '=', old.id).execute()
      usage[kind] = old.used
      continue
    }
    if (old !== undefined) await tx.deleteFrom('quota_limits').where('id', '=', old.id).execute()
    if (maximum !== null) usage[kind] = await insertLimit(tx, quota, kind, maximum, currency)
  }
  return { ...quota, usage }
}

/** Makes a limit, and counts what is there. @returns how much that is. */
async function insertLimit(
  tx: Tx,
  quota: ShownQuota,
  kind: LimitKind,
  maximum: number,
  currency: string,
): Promise<number> {
  const limit: Limit = {
    id: uuid(),
    quota: quotaName(quota.organization_name, quota.name),
    organizationId: quota.organization_id,
    workspaceId: quota.workspace_id,
    kind,
    className: quota.class_name,
    family: quota.family,
    currency,
    maximum,
    used: 0,
  }
  const now = new Date()
  const charges = (await readHosts(tx, limit)).flatMap(({ id, demand }) => {
    const { amount, settled, running } = concerns(limit, demand) ? chargeOf(limit, demand, now) : noCharge
    if (amount === 0) return []
    return [{ host_id: id, amount, settled, price: running?.price ?? null, since: running?.since ?? null }]
  })
  const used = charges.reduce((sum, { amount }) => sum + amount, 0)
  await tx
    .insertInto('quota_limits')
    .values({
      id: limit.id,
      organization_id: limit.organizationId,
      quota_id: quota.id,
      quota_name: limit.quota,
      workspace_id: limit.workspaceId,
      kind,
      class_name: limit.className,
      family: limit.family,
      currency,
      maximum,
      used,
      period: kind === 'MONTHLY_MICROS' ? monthStart(now) : null,
    })
    .execute()
  if (charges.length === 0) return used
  await sql`
    insert into quota_charges (limit_id, host_id, amount, settled, price, since)
    select ${limit.id}::uuid, host_id, amount, settled, price, since
    from ${rowsAs('c (host_id uuid, amount bigint, settled bigint, price jsonb, since timestamptz)', charges)}
  `.execute(tx)
  return used
}

/** The hosts that are there, as limits see them. */
async function readHosts(tx: Tx, limit: Limit) {
  const result = await sql<{
    id: string
    workspace_id: string
    class_name: string
    class_spec: ClassSpec
    family: string | null
    static: boolean
    price: Price | null
  }>`
    select h.id, h.workspace_id, h.class_name, h.class_spec, h.price, p.family, coalesce(p.kind = 'STATIC', false) as static
    from hosts h
    left join providers p on p.id = h.provider_id
    where h.organization_id = ${limit.organizationId} and h.state <> 'RELEASED'
      and (${limit.workspaceId}::uuid is null or h.workspace_id = ${limit.workspaceId}::uuid)
  `.execute(tx)
  return result.rows.map((row) => {
    const place =
      row.family === null ? null : { family: row.family, price: row.price, free: row.static && row.price === null }
    const orderer = {
      organizationId: limit.organizationId,
      workspaceId: row.workspace_id,
      className: row.class_name,
      classSpec: row.class_spec,
    }
    return { id: row.id, demand: demandOf(orderer, place) }
  })
}
