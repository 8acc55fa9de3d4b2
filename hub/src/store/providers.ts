import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { Scopes } from '../domain/access/decide.js'
import type { JsonObject, Labels } from '../domain/facts.js'
import type { OrphanPolicy } from '../domain/orphan/orphan.js'
import { secretName } from '../domain/names.js'
import type { ProviderConnection, ProviderKind, StoredBudget } from '../domain/provider/provider.js'
import type { Keyring } from '../secrets/keyring.js'
import { readHolds, type StoredHold } from './capacity-holds.js'
import type { Db, Tx } from './database.js'
import { setCredentials, type CredentialSource } from './provider-credentials.js'
import { destroyUnneededVersions } from './secrets.js'
import { removalCondition } from './orphan-pass.js'
import { labelConditions } from './label-filter.js'
import { claimsOn } from './pools.js'
import { withinScopes } from './scopes.js'
import type { OfferingRow, ProviderClaimRow, ProviderPoolRow, ProviderRow } from './tables.js'

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
  readonly credentials: CredentialSource
  readonly labels: Labels
  readonly annotations: Labels
  readonly autoAcceptMachines: boolean
  readonly draining: boolean
  readonly orphanPolicy: OrphanPolicy
  readonly region: string
  readonly residency: readonly string[]
  readonly owner: ProviderOwner
  readonly pool: Pick<ProviderPoolRow, 'id' | 'name'> | undefined
}

/** Whose a provider is. */
export interface ProviderOwner {
  /** `organizations/{id}`, `workspaces/{id}`, or empty: nobody's. */
  readonly name: string
  readonly organizationId: string | null
  readonly workspaceId: string | null
}

function ownerColumns({ name, organizationId, workspaceId }: ProviderOwner) {
  return { owner_name: name, owner_organization_id: organizationId, owner_workspace_id: workspaceId }
}

function poolColumns(pool: NewProvider['pool']) {
  return { pool_id: pool?.id ?? null, pool_name: pool?.name ?? '' }
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
      ...credentialColumns(provider.credentials),
      labels: JSON.stringify(provider.labels),
      annotations: JSON.stringify(provider.annotations),
      auto_accept_machines: provider.autoAcceptMachines,
      draining: provider.draining,
      ...policyColumns(provider.orphanPolicy),
      region: provider.region,
      residency: provider.residency,
      ...ownerColumns(provider.owner),
      ...poolColumns(provider.pool),
    })
    .returningAll()
    .executeTakeFirstOrThrow()
  await setCredentials(tx, keyring, row, row.config_version, provider.credentials)
  return row
}

function credentialColumns(source: CredentialSource) {
  return {
    has_credentials: source.kind !== 'none',
    credentials_secret: source.kind === 'secret' ? secretName(source.secret.organization_name, source.secret.name) : '',
  }
}

export async function findProvider(db: Db, name: string): Promise<ProviderRow | undefined> {
  return db
    .selectFrom('providers')
    .selectAll()
    .where('name', '=', name)
    .where('deleted_at', 'is', null)
    .executeTakeFirst()
}

/** What of a provider the database shows to tenants that may use it. */
const shownColumns = [
  'id',
  'name',
  'family',
  'kind',
  'labels',
  'draining',
  'state',
  'health',
  'capabilities',
  'data_schema',
  'offerings_at',
  'version',
  'created_at',
  'updated_at',
  'region',
  'residency',
  'owner_organization_id',
  'owner_workspace_id',
  'owner_name',
] as const
export type ShownProvider = Pick<ProviderRow, (typeof shownColumns)[number]>

/** One that a tenant may use, as it may see it. */
export async function findShownProvider(db: Db, name: string, within: Scopes): Promise<ShownProvider | undefined> {
  return db
    .selectFrom('providers')
    .select(shownColumns)
    .where('name', '=', name)
    .where('deleted_at', 'is', null)
    .where(withinScopes('provider', within))
    .executeTakeFirst()
}

export async function findProvidersById(db: Db, ids: readonly string[]): Promise<readonly ProviderRow[]> {
  return ids.length === 0 ? [] : db.selectFrom('providers').selectAll().where('id', 'in', ids).execute()
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
  return listed(db, filter, after, limit).selectAll().execute()
}

/** Those that a tenant may use, as it may see them. */
export async function listShownProviders(
  db: Db,
  filter: ProviderListFilter & { readonly within: Scopes },
  after: string,
  limit: number,
): Promise<readonly ShownProvider[]> {
  return listed(db, filter, after, limit).select(shownColumns).where(withinScopes('provider', filter.within)).execute()
}

function listed(db: Db, filter: ProviderListFilter, after: string, limit: number) {
  let query = db
    .selectFrom('providers')
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
  return query
}

export interface ProviderChange {
  readonly config?: JsonObject
  readonly credentials?: CredentialSource
  readonly labels?: Labels
  readonly annotations?: Labels
  readonly autoAcceptMachines?: boolean
  readonly draining?: boolean
  /** Setting it, even to what it is, lets the removal of orphans go on that had stopped itself. */
  readonly orphanPolicy?: OrphanPolicy
  readonly region?: string
  readonly residency?: readonly string[]
  /** Only while nobody places hosts. The same of the pool. */
  readonly owner?: ProviderOwner
  /** Null: none. */
  readonly pool?: Pick<ProviderPoolRow, 'id' | 'name'> | null
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
  const conditions = change.orphanPolicy === undefined ? row.conditions : withoutStop(row)
  const updated = await tx
    .updateTable('providers')
    .set({
      ...(change.config !== undefined && { config: JSON.stringify(change.config) }),
      ...(change.credentials !== undefined && credentialColumns(change.credentials)),
      ...(reconfigured && { config_version: sql<number>`config_version + 1` }),
      ...(change.labels !== undefined && { labels: JSON.stringify(change.labels) }),
      ...(change.annotations !== undefined && { annotations: JSON.stringify(change.annotations) }),
      ...(change.autoAcceptMachines !== undefined && { auto_accept_machines: change.autoAcceptMachines }),
      ...(change.orphanPolicy !== undefined && { ...policyColumns(change.orphanPolicy), orphan_stopped_at: null }),
      ...(change.region !== undefined && { region: change.region }),
      ...(change.residency !== undefined && { residency: change.residency }),
      ...(change.owner !== undefined && ownerColumns(change.owner)),
      ...(change.pool !== undefined && poolColumns(change.pool ?? undefined)),
      conditions: JSON.stringify(conditions),
      draining: change.draining ?? row.draining,
    })
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
  if (change.credentials === undefined) return updated
  await setCredentials(tx, keyring, updated, updated.config_version, change.credentials)
  return tx.selectFrom('providers').selectAll().where('id', '=', row.id).executeTakeFirstOrThrow()
}

function withoutStop(row: ProviderRow) {
  return row.conditions.filter(({ type }) => type !== removalCondition)
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
  const credentials = await tx
    .deleteFrom('provider_credentials')
    .where('provider_id', '=', providerId)
    .returning('secret_id')
    .execute()
  await destroyUnneededVersions(
    tx,
    credentials.flatMap((row) => row.secret_id ?? []),
  )
  await tx.deleteFrom('offerings').where('provider_id', '=', providerId).execute()
  await tx
    .updateTable('provider_claims')
    .set({ released_at: sql<Date>`clock_timestamp()` })
    .where('provider_id', '=', providerId)
    .where('released_at', 'is', null)
    .execute()
  await tx.deleteFrom('work_shares').where('provider_id', '=', providerId).execute()
  await tx.deleteFrom('work_clocks').where('provider_id', '=', providerId).execute()
  await tx.deleteFrom('machine_shares').where('provider_id', '=', providerId).execute()
  await tx.deleteFrom('machine_clocks').where('provider_id', '=', providerId).execute()
  await tx.deleteFrom('place_failures').where('provider_id', '=', providerId).execute()
  await tx.deleteFrom('join_tokens').where('provider_id', '=', providerId).execute()
  // Nobody can look for them any more; the timelines keep them.
  const orphans = await tx.deleteFrom('orphans').where('provider_id', '=', providerId).executeTakeFirst()
  await tx
    .updateTable('providers')
    .set({ deleted_at: sql<Date>`clock_timestamp()`, has_credentials: false, credentials_secret: '' })
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

/** What only a read can tell of a provider. */
export interface ProviderDetails {
  readonly sessions: readonly LiveSession[]
  readonly offerings: readonly OfferingRow[]
  readonly claim: ProviderClaimRow | undefined
  /** Items that nobody holds; no more than are counted. */
  readonly waiting: number
  /** Of static providers. */
  readonly machines: number
  readonly availableMachines: number
  /** What is not offered for a while. */
  readonly holds: readonly StoredHold[]
}

const maxCounted = 1_000

/** Live sessions, offerings and the like of some providers. */
export async function readProviderDetails(
  db: Db,
  ids: readonly string[],
): Promise<ReadonlyMap<string, ProviderDetails>> {
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
  const claims = await claimsOn(db, ids)
  const counts = await countsOf(db, ids)
  const holds = await readHolds(db, ids)
  return new Map(
    ids.map((id) => [
      id,
      {
        sessions: sessions.rows.filter((session) => session.provider_id === id),
        offerings: offerings.filter((offering) => offering.provider_id === id),
        claim: claims.get(id),
        holds: holds.get(id) ?? [],
        ...(counts.get(id) ?? { waiting: 0, machines: 0, availableMachines: 0 }),
      },
    ]),
  )
}

async function countsOf(
  db: Db,
  ids: readonly string[],
): Promise<ReadonlyMap<string, Pick<ProviderDetails, 'waiting' | 'machines' | 'availableMachines'>>> {
  const found = await sql<{ id: string; waiting: number; machines: number; availableMachines: number }>`
    select p.id,
           (select count(*) from (
             select from work_items w where w.provider_id = p.id and w.session_id is null and w.due_at is not null and not w.paused limit ${sql.lit(maxCounted)}
           ) waiting)::int as waiting,
           (select count(*) from machines m where p.kind = 'STATIC' and m.provider_id = p.id and m.static and m.state <> 'GONE')::int as machines,
           (select count(*) from machines m
             where p.kind = 'STATIC' and m.provider_id = p.id and m.static and m.state = 'AVAILABLE' and not m.cordoned and not m.maintenance
           )::int as "availableMachines"
    from providers p where p.id = any(${[...ids]}::uuid[])
  `.execute(db)
  return new Map(found.rows.map(({ id, ...counts }) => [id, counts]))
}

/** Providers that belong to an organization or, where it is given, to one of its workspaces. */
export async function countOwned(tx: Tx, organizationId: string, workspaceId?: string): Promise<number> {
  const found = await sql<{ n: number }>`
    select count(*)::int as n from providers
    where deleted_at is null and owner_organization_id = ${organizationId}
      and (${workspaceId ?? null}::uuid is null or owner_workspace_id = ${workspaceId ?? null}::uuid)
  `.execute(tx)
  return found.rows[0]?.n ?? 0
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
