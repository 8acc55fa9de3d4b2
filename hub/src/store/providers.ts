import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { JsonObject, Labels } from '../domain/facts.js'
import type { OrphanPolicy } from '../domain/orphan/orphan.js'
import type { ProviderConnection, ProviderKind, StoredBudget } from '../domain/provider/provider.js'
import type { Keyring } from '../secrets/keyring.js'
import type { Db, Tx } from './database.js'
import { removalCondition } from './orphan-pass.js'
import { labelConditions } from './label-filter.js'
import type { OfferingRow, ProviderRow } from './tables.js'

export interface ProviderListFilter {
  readonly states: readonly (ProviderConnection | 'DRAINING')[]
  readonly families: readonly string[]
  readonly labelSelector: string
}

export interface NewProvider {
  readonly name: string
  readonly family: string
  readonly kind: ProviderKind
  readonly config: JsonObject
  readonly credentials: JsonObject | undefined
  readonly labels: Labels
  readonly annotations: Labels
  readonly autoAcceptMachines: boolean
  readonly draining: boolean
  readonly orphanPolicy: OrphanPolicy
}

function policyColumns({ mode, minAgeMs, maxPerPass, maxPercent }: OrphanPolicy) {
  return {
    orphan_mode: mode,
    orphan_min_age_ms: minAgeMs,
    orphan_max_per_pass: maxPerPass,
    orphan_max_percent: maxPercent,
  }
}

export async function insertProvider(tx: Tx, keyring: Keyring, provider: NewProvider): Promise<ProviderRow> {
  const row = await tx
    .insertInto('providers')
    .values({
      id: uuid(),
      name: provider.name,
      family: provider.family,
      kind: provider.kind,
      config: JSON.stringify(provider.config),
      has_credentials: provider.credentials !== undefined,
      labels: JSON.stringify(provider.labels),
      annotations: JSON.stringify(provider.annotations),
      auto_accept_machines: provider.autoAcceptMachines,
      draining: provider.draining,
      ...policyColumns(provider.orphanPolicy),
    })
    .returningAll()
    .executeTakeFirstOrThrow()
  if (provider.credentials !== undefined) await sealCredentials(tx, keyring, row.id, provider.credentials)
  return row
}

async function sealCredentials(tx: Tx, keyring: Keyring, providerId: string, credentials: JsonObject): Promise<void> {
  const sealed = keyring.seal('provider.credentials', providerId, JSON.stringify(credentials))
  await tx
    .insertInto('provider_credentials')
    .values({ provider_id: providerId, sealed })
    .onConflict((conflict) =>
      conflict.column('provider_id').doUpdateSet({ sealed, updated_at: sql<Date>`clock_timestamp()` }),
    )
    .execute()
}

export async function findProvider(db: Db, name: string): Promise<ProviderRow | undefined> {
  return db
    .selectFrom('providers')
    .selectAll()
    .where('name', '=', name)
    .where('deleted_at', 'is', null)
    .executeTakeFirst()
}

export async function findProvidersByName(db: Db, names: readonly string[]): Promise<ProviderRow[]> {
  return db
    .selectFrom('providers')
    .selectAll()
    .where(sql<boolean>`name = any(${[...names]}::text[])`)
    .where('deleted_at', 'is', null)
    .execute()
}

export async function lockProvider(tx: Tx, name: string): Promise<ProviderRow | undefined> {
  return tx
    .selectFrom('providers')
    .selectAll()
    .where('name', '=', name)
    .where('deleted_at', 'is', null)
    .forUpdate()
    .executeTakeFirst()
}

/** @param after name of the last one of the page before. */
export async function listProviders(
  db: Db,
  filter: ProviderListFilter,
  after: string,
  limit: number,
): Promise<readonly ProviderRow[]> {
  let query = db
    .selectFrom('providers')
    .selectAll()
    .where('deleted_at', 'is', null)
    .where('name', '>', after)
    .orderBy('name')
    .limit(limit)
  if (filter.states.length > 0) {
    query = query.where(
      sql<boolean>`case when draining then 'DRAINING' else state end = any(${[...filter.states]}::text[])`,
    )
  }
  if (filter.families.length > 0) query = query.where('family', 'in', filter.families)
  for (const condition of labelConditions(sql.ref('labels'), filter.labelSelector)) query = query.where(condition)
  return query.execute()
}

export interface ProviderChange {
  readonly config?: JsonObject
  readonly credentials?: JsonObject
  readonly labels?: Labels
  readonly annotations?: Labels
  readonly autoAcceptMachines?: boolean
  readonly draining?: boolean
  /** Setting it, even to what it is, lets the removal of orphans go on that had stopped itself. */
  readonly orphanPolicy?: OrphanPolicy
}

/** Changes a locked provider. A change of config or credentials raises the version that its instances are told. */
export async function updateProvider(
  tx: Tx,
  keyring: Keyring,
  row: ProviderRow,
  change: ProviderChange,
): Promise<ProviderRow> {
  const reconfigured =
    change.credentials !== undefined ||
    (change.config !== undefined && JSON.stringify(change.config) !== JSON.stringify(row.config))
  if (change.credentials !== undefined) await sealCredentials(tx, keyring, row.id, change.credentials)
  return tx
    .updateTable('providers')
    .set({
      ...(change.config !== undefined && { config: JSON.stringify(change.config) }),
      ...(change.credentials !== undefined && { has_credentials: true }),
      ...(reconfigured && { config_version: sql<number>`config_version + 1` }),
      ...(change.labels !== undefined && { labels: JSON.stringify(change.labels) }),
      ...(change.annotations !== undefined && { annotations: JSON.stringify(change.annotations) }),
      ...(change.autoAcceptMachines !== undefined && { auto_accept_machines: change.autoAcceptMachines }),
      ...(change.orphanPolicy !== undefined && resumed(row, change.orphanPolicy)),
      draining: change.draining ?? row.draining,
    })
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
}

function resumed(row: ProviderRow, policy: OrphanPolicy) {
  return {
    ...policyColumns(policy),
    orphan_stopped_at: null,
    conditions: JSON.stringify(row.conditions.filter(({ type }) => type !== removalCondition)),
  }
}

/** How much of a provider is still in use. */
export async function countProviderUse(
  tx: Tx,
  providerId: string,
): Promise<{ readonly requests: number; readonly machines: number }> {
  const result = await sql<{ requests: number; machines: number }>`
    select
      (select count(*) from machine_requests where provider_id = ${providerId} and state <> 'GONE')::int as requests,
      (select count(*) from machines where provider_id = ${providerId} and state <> 'GONE')::int as machines
  `.execute(tx)
  return result.rows[0] ?? { requests: 0, machines: 0 }
}

/** Ends a locked provider: its certificates, credentials, offerings, tokens and orphans go with it. @returns how many orphans nobody looks for any more. */
export async function deleteProvider(tx: Tx, providerId: string): Promise<number> {
  await tx
    .updateTable('provider_certificates')
    .set({ revoked_at: sql<Date>`clock_timestamp()` })
    .where('provider_id', '=', providerId)
    .execute()
  await tx.deleteFrom('provider_credentials').where('provider_id', '=', providerId).execute()
  await tx.deleteFrom('offerings').where('provider_id', '=', providerId).execute()
  await tx.deleteFrom('join_tokens').where('provider_id', '=', providerId).execute()
  // Nobody can look for them any more; the timelines keep them.
  const orphans = await tx.deleteFrom('orphans').where('provider_id', '=', providerId).executeTakeFirst()
  await tx
    .updateTable('providers')
    .set({ deleted_at: sql<Date>`clock_timestamp()`, has_credentials: false })
    .where('id', '=', providerId)
    .execute()
  return Number(orphans.numDeletedRows)
}

export interface LiveSession {
  readonly id: string
  readonly provider_id: string
  readonly instance_id: string
  readonly instance_name: string
  readonly replica: string
  readonly sdk: string
  readonly provider_version: string
  readonly capacity: number
  readonly held: number
  readonly connected_at: Date
  readonly heartbeat_at: Date
  readonly budgets: readonly Partial<StoredBudget>[]
}

/** Live sessions and offerings of some providers. */
export async function readProviderDetails(
  db: Db,
  ids: readonly string[],
): Promise<
  ReadonlyMap<string, { readonly sessions: readonly LiveSession[]; readonly offerings: readonly OfferingRow[] }>
> {
  if (ids.length === 0) return new Map()
  const sessions = await sql<LiveSession>`
    select s.id, s.provider_id, s.instance_id, s.instance_name, s.replica, s.sdk, s.provider_version, s.capacity, s.connected_at, s.heartbeat_at, s.budgets,
           (select count(*) from work_items w where w.session_id = s.id)::int as held
    from sessions s
    where s.provider_id = any(${[...ids]}::uuid[]) and s.ended_at is null and s.expires_at > clock_timestamp()
    order by s.connected_at
  `.execute(db)
  const offerings = await db
    .selectFrom('offerings')
    .selectAll()
    .where('provider_id', 'in', ids)
    .orderBy('type_id')
    .orderBy('location')
    .execute()
  return new Map(
    ids.map((id) => [
      id,
      {
        sessions: sessions.rows.filter((session) => session.provider_id === id),
        offerings: offerings.filter((offering) => offering.provider_id === id),
      },
    ]),
  )
}

/** Providers by the names or families that classes speak of. */
export async function providersNamed(
  db: Db,
  names: readonly string[],
  families: readonly string[],
): Promise<readonly ProviderRow[]> {
  return db
    .selectFrom('providers')
    .selectAll()
    .where('deleted_at', 'is', null)
    .where(sql<boolean>`(name = any(${[...names]}::text[]) or family = any(${[...families]}::text[]))`)
    .execute()
}
