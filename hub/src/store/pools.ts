import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { EventDraft, Labels } from '../domain/facts.js'
import type { Claimant, ClaimTime, Pool } from '../domain/pool/pool.js'
import type { Db, Tx } from './database.js'
import { ownLimits } from './limit-book.js'
import type { ProviderClaimRow, ProviderPoolRow, ProviderRow, WorkspaceRow } from './tables.js'

// Pools of providers, and who has what of them. A provider is claimed under its row's lock, and the claims' unique indexes say once more that it has one claimant, and
// that a workspace has one provider of a pool. It is given back only while nobody places hosts (as limits are made), so that nothing comes to it in between.

/** A pool with what is in it. */
export interface ShownPool extends ProviderPoolRow {
  readonly providers: number
  readonly claimed: number
}

export interface PoolContent {
  readonly displayName: string
  readonly claimOn: ClaimTime
  readonly organizations: readonly string[]
  readonly workspaceSelector: string
  readonly includedHosts: number | null
  readonly trialMs: number | null
  readonly idleReleaseMs: number | null
  readonly unlessOwn: boolean
  readonly labels: Labels
  readonly annotations: Labels
}

function poolColumns(content: PoolContent) {
  return {
    display_name: content.displayName,
    claim_on: content.claimOn,
    organizations: content.organizations,
    workspace_selector: content.workspaceSelector,
    included_hosts: content.includedHosts,
    trial_ms: content.trialMs,
    idle_release_ms: content.idleReleaseMs,
    unless_own: content.unlessOwn,
    labels: JSON.stringify(content.labels),
    annotations: JSON.stringify(content.annotations),
  }
}

function shown(db: Db) {
  return db
    .selectFrom('provider_pools as l')
    .selectAll('l')
    .select([
      sql<number>`(select count(*)::int from providers p where p.pool_id = l.id and p.deleted_at is null)`.as(
        'providers',
      ),
      sql<number>`(select count(*)::int from provider_claims c where c.pool_id = l.id and c.released_at is null)`.as(
        'claimed',
      ),
    ])
}

/** Undefined where the name is in use. */
export async function insertPool(
  tx: Tx,
  pool: PoolContent & { readonly name: string; readonly family: string; readonly region: string },
): Promise<ShownPool | undefined> {
  const { name, family, region } = pool
  const row = await tx
    .insertInto('provider_pools')
    .values({ id: uuid(), name, family, region, ...poolColumns(pool) })
    .onConflict((conflict) => conflict.column('name').doNothing())
    .returningAll()
    .executeTakeFirst()
  return row && { ...row, providers: 0, claimed: 0 }
}

export async function findPool(db: Db, name: string): Promise<ShownPool | undefined> {
  return shown(db).where('l.name', '=', name).executeTakeFirst()
}

export async function lockPool(tx: Tx, name: string): Promise<ShownPool | undefined> {
  return shown(tx).where('l.name', '=', name).forUpdate('l').executeTakeFirst()
}

/** @param after name of the last one of the page before. */
export async function listPools(db: Db, after: string, limit: number): Promise<readonly ShownPool[]> {
  return shown(db).where('l.name', '>', after).orderBy('l.name').limit(limit).execute()
}

/** Changes a locked pool. */
export async function updatePool(tx: Tx, row: ShownPool, content: PoolContent): Promise<ShownPool> {
  const updated = await tx
    .updateTable('provider_pools')
    .set(poolColumns(content))
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
  return { ...updated, providers: row.providers, claimed: row.claimed }
}

/** Deletes a locked pool that has no providers. Deleted ones forget that they were of it. */
export async function deletePool(tx: Tx, row: ProviderPoolRow): Promise<void> {
  await tx.updateTable('providers').set({ pool_id: null, pool_name: '' }).where('pool_id', '=', row.id).execute()
  await tx.deleteFrom('provider_pools').where('id', '=', row.id).execute()
}

// Claims -----------------------------------------------------------------------------------------------------------------------------

/** Pools that workspaces are given providers of by themselves, for one workspace. */
export interface OpenPools {
  readonly pools: readonly (Pool & { readonly free: boolean })[]
  readonly claimant: Claimant
}

interface OpenPoolRow {
  readonly workspace: string
  readonly pools: OpenPools['pools']
  readonly organization: string
  readonly labels: Labels
  readonly claimed: readonly string[]
  readonly tried: readonly string[]
  readonly own: readonly string[]
}

/** What some workspaces, by name, could claim from: those alone for which there is any pool that they have nothing of. */
export async function readOpenPools(db: Db, workspaces: readonly string[]): Promise<ReadonlyMap<string, OpenPools>> {
  const found = await sql<OpenPoolRow>`/* open-pools */
    select w.name as workspace, w.organization_name as organization, w.labels,
           (select jsonb_agg(jsonb_build_object(
              'id', l.id, 'name', l.name, 'family', l.family, 'region', l.region, 'claimOn', l.claim_on, 'organizations', l.organizations,
              'workspaceSelector', l.workspace_selector, 'trial', l.trial_ms is not null, 'unlessOwn', l.unless_own,
              'free', exists (select from providers p where p.pool_id = l.id and p.deleted_at is null and p.claim_workspace_id is null and not p.draining)
            ) order by l.name) from provider_pools l where l.claim_on <> 'MANUAL') as pools,
           array(select c.pool_id from provider_claims c where c.workspace_id = w.id and c.released_at is null) as claimed,
           array(select distinct c.pool_id from provider_claims c where c.organization_id = w.organization_id and c.trial_ends_at is not null) as tried,
           array(select distinct p.family from providers p
             where p.deleted_at is null and p.owner_organization_id = w.organization_id and coalesce(p.owner_workspace_id = w.id, true)) as own
    from workspaces w
    where w.name = any(${[...workspaces]}::text[]) and w.deleted_at is null
      and exists (select from provider_pools l where l.claim_on <> 'MANUAL'
        and not exists (select from provider_claims c where c.workspace_id = w.id and c.pool_id = l.id and c.released_at is null))
  `.execute(db)
  return new Map(
    found.rows.map(({ workspace, pools, organization, labels, claimed, tried, own }) => [
      workspace,
      {
        pools,
        claimant: {
          organization,
          labels,
          claimedPoolIds: new Set(claimed),
          triedPoolIds: new Set(tried),
          ownFamilies: new Set(own),
        },
      },
    ]),
  )
}

export type Claimed =
  /** `fresh`: it was not the workspace's before. */
  { readonly kind: 'claimed'; readonly provider: ProviderRow; readonly fresh: boolean } | { readonly kind: 'exhausted' }

/** The providers of a pool that can be had, the best first. */
const freeProviders = (poolId: string) => sql`
  select p.id from providers p
  where p.pool_id = ${poolId} and p.deleted_at is null and p.claim_workspace_id is null and not p.draining
  order by (p.state = 'CONNECTED' and p.health <> 'UNHEALTHY') desc, p.name
  limit 1`

/**
 * Gives a workspace a provider of a pool, or says which one it has. Whoever comes at the same time gets another one; who finds all of them taken at this moment waits for
 * what becomes of the last, and gets it after all where it was not.
 */
export async function claimFromPool(
  tx: Tx,
  pool: ProviderPoolRow,
  workspace: Pick<WorkspaceRow, 'id' | 'organization_id' | 'name'>,
): Promise<Claimed> {
  // Orders of one workspace that come at once: the second finds what the first has claimed.
  await sql`select from workspaces where id = ${workspace.id} for no key update`.execute(tx)
  const mine = await tx
    .selectFrom('providers')
    .selectAll()
    .where('pool_id', '=', pool.id)
    .where('claim_workspace_id', '=', workspace.id)
    .where('deleted_at', 'is', null)
    .executeTakeFirst()
  if (mine !== undefined) return { kind: 'claimed', provider: mine, fresh: false }
  for (;;) {
    const passing = await sql<{ id: string }>`${freeProviders(pool.id)} for no key update of p skip locked`.execute(tx)
    const id = passing.rows[0]?.id ?? (await waitForFree(tx, pool.id))
    if (id === undefined) return { kind: 'exhausted' }
    if (id !== null) return { kind: 'claimed', provider: await storeClaim(tx, pool, workspace, id), fresh: true }
  }
}

/** Waits for whoever holds the first one that looks free. @returns undefined: none does; null: look again. */
async function waitForFree(tx: Tx, poolId: string): Promise<string | undefined | null> {
  const first = await sql<{ id: string }>`${freeProviders(poolId)}`.execute(tx)
  const id = first.rows[0]?.id
  if (id === undefined) return undefined
  const held = await sql<{ free: boolean }>`
    select claim_workspace_id is null and pool_id = ${poolId} and deleted_at is null and not draining as free
    from providers where id = ${id} for no key update
  `.execute(tx)
  return held.rows[0]?.free === true ? id : null
}

async function storeClaim(
  tx: Tx,
  pool: ProviderPoolRow,
  workspace: Pick<WorkspaceRow, 'id' | 'organization_id' | 'name'>,
  providerId: string,
): Promise<ProviderRow> {
  const now = sql<Date>`clock_timestamp()`
  await tx
    .insertInto('provider_claims')
    .values({
      id: uuid(),
      pool_id: pool.id,
      provider_id: providerId,
      organization_id: workspace.organization_id,
      workspace_id: workspace.id,
      workspace_name: workspace.name,
      included_hosts: pool.included_hosts,
      trial_ends_at:
        pool.trial_ms === null ? null : sql<Date>`clock_timestamp() + ${pool.trial_ms} * interval '1 millisecond'`,
    })
    .execute()
  return tx
    .updateTable('providers')
    .set({ claim_workspace_id: workspace.id, claim_workspace_name: workspace.name, claimed_at: now })
    .where('id', '=', providerId)
    .returningAll()
    .executeTakeFirstOrThrow()
}

/** The claims that stand on some providers. */
export async function claimsOn(db: Db, providerIds: readonly string[]): Promise<ReadonlyMap<string, ProviderClaimRow>> {
  if (providerIds.length === 0) return new Map()
  const rows = await db
    .selectFrom('provider_claims')
    .selectAll()
    .where('provider_id', 'in', providerIds)
    .where('released_at', 'is', null)
    .execute()
  return new Map(rows.map((row) => [row.provider_id, row]))
}

/** Locks what these workspaces have claimed with room for so many hosts, so that no two placements count the same room. */
export async function lockIncluded(tx: Tx, workspaceIds: readonly string[]): Promise<void> {
  await sql`/* lock-included */
    select from provider_claims
    where workspace_id = any(${[...workspaceIds]}::uuid[]) and released_at is null and included_hosts is not null
    order by id
    for update
  `.execute(tx)
}

// What is left --------------------------------------------------------------------------------------------------------------------------

/** What of a tenant is left at a provider: servers, what they may have left behind, and machines that are not wiped yet. */
const leftThere = (provider: string) => sql`
  (select count(*) from machine_requests r where r.provider_id = ${sql.ref(provider)} and r.state <> 'GONE')
  + (select count(*) from machines m where m.provider_id = ${sql.ref(provider)} and m.static
       and m.state not in ('DISCOVERED', 'VERIFYING', 'VERIFY_FAILED', 'MANAGEABLE', 'INSPECTING', 'INSPECT_WAIT', 'INSPECT_FAILED', 'AVAILABLE', 'GONE'))
  + (select count(*) from orphans o where o.provider_id = ${sql.ref(provider)})`

/** How much of tenants is left at a provider. Exact only while nobody places hosts: call {@link holdPlacing} before. */
export async function countLeft(tx: Tx, providerId: string): Promise<number> {
  const found = await sql<{
    n: number
  }>`select (${leftThere('p.id')})::int as n from providers p where p.id = ${providerId}`.execute(tx)
  return found.rows[0]?.n ?? 0
}

/** Of other tenants than these: what their hosts are, or were and are not gone yet. */
export async function countOthers(
  tx: Tx,
  providerId: string,
  { organizationId, workspaceName }: { readonly organizationId: string | null; readonly workspaceName: string | null },
): Promise<number> {
  const found = await sql<{ n: number }>`
    select count(*)::int as n from machine_requests r
    where r.provider_id = ${providerId} and r.state <> 'GONE'
      and not (coalesce(r.organization_id = ${organizationId}::uuid, true) and coalesce(r.workspace_name = ${workspaceName}::text, true))
  `.execute(tx)
  return found.rows[0]?.n ?? 0
}

/** Waits until nobody places hosts, and has all wait who would, until the transaction ends. For what is rare. */
export const holdPlacing = ownLimits

/** Gives back what is claimed of a locked provider. @returns what to tell of it; nothing where nobody has it. */
export async function releaseClaim(tx: Tx, provider: ProviderRow, why: string): Promise<readonly EventDraft[]> {
  const released = await sql<{ name: string; organization_id: string }>`
    update provider_claims set released_at = clock_timestamp() where provider_id = ${provider.id} and released_at is null
    returning workspace_name as name, organization_id
  `.execute(tx)
  await tx
    .updateTable('providers')
    .set({ claim_workspace_id: null, claim_workspace_name: '', claimed_at: null })
    .where('id', '=', provider.id)
    .execute()
  return released.rows.map((workspace) =>
    claimEvent(provider, workspace, 'ProviderReleased', `Given back by workspace ${workspace.name}: ${why}`),
  )
}

/** What a provider's timeline tells of a claim. */
export function claimEvent(
  provider: Pick<ProviderRow, 'id' | 'name'>,
  workspace: { readonly name: string; readonly organization_id: string },
  reason: 'ProviderClaimed' | 'ProviderReleased',
  message: string,
): EventDraft {
  return {
    subject: `providers/${provider.name}`,
    related: [`workspaces/${workspace.name}`],
    reason,
    message,
    severity: 'INFO',
    providerId: provider.id,
    organizationId: workspace.organization_id,
  }
}

/** Something claimed, as the sweep sees it. */
export interface SweptClaim {
  readonly id: string
  readonly providerName: string
  readonly workspaceGone: boolean
  readonly trialEndsAt: Date | null
  readonly idleSince: Date | null
  readonly idleReleaseMs: number | null
}

/** Looks at all that is claimed, and notes since when nothing has been there. */
export async function sweepClaims(tx: Tx): Promise<{ readonly claims: readonly SweptClaim[]; readonly now: Date }> {
  const seen = await sql<SweptClaim & { readonly now: Date }>`
    with looked as (
      select c.id, p.name, (${leftThere('p.id')}) = 0 as empty
      from provider_claims c join providers p on p.id = c.provider_id
      where c.released_at is null
    )
    update provider_claims c
    set idle_since = case when looked.empty then coalesce(c.idle_since, clock_timestamp()) end
    from looked, workspaces w, provider_pools l
    where c.id = looked.id and w.id = c.workspace_id and l.id = c.pool_id
    returning c.id, looked.name as "providerName", w.deleted_at is not null as "workspaceGone", c.trial_ends_at as "trialEndsAt",
              c.idle_since as "idleSince", l.idle_release_ms as "idleReleaseMs", clock_timestamp() as now
  `.execute(tx)
  return { claims: seen.rows, now: seen.rows[0]?.now ?? new Date() }
}
