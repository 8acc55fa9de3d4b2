import { isDeepStrictEqual } from 'node:util'
import { sql } from 'kysely'
import type { BudgetFacts, Capability, Health, StoredBudget } from '../domain/provider/provider.js'
import type { Db, Tx } from './database.js'
import type { ProviderRow } from './tables.js'

// Sessions and the leases that hang on them. All times are the database's own, so that no replica's clock matters.

export interface NewSession {
  readonly id: string
  readonly providerId: string
  readonly instanceId: string
  readonly instanceName: string
  readonly replica: string
  readonly sdk: string
  readonly providerVersion: string
  readonly certificateSerial: string
  readonly leaseMs: number
}

export interface HeldClaim {
  readonly id: string
  readonly fence: number
  readonly generation: number
}

/**
 * Stores a session, binds to it what the instance says it holds from an earlier one, under the same fences, and frees what else the earlier
 * ones held: the process itself says that it does not work on that.
 */
export async function openSession(
  tx: Tx,
  session: NewSession,
  holds: readonly HeldClaim[],
): Promise<{ readonly bound: ReadonlySet<string>; readonly supersededIds: readonly string[] }> {
  // Started together, they are executed in this order, and cost one round trip.
  const [, bound, , superseded] = await Promise.all([
    tx
      .insertInto('sessions')
      .values({
        id: session.id,
        provider_id: session.providerId,
        instance_id: session.instanceId,
        instance_name: session.instanceName,
        replica: session.replica,
        sdk: session.sdk,
        provider_version: session.providerVersion,
        certificate_serial: session.certificateSerial,
        expires_at: sql<Date>`clock_timestamp() + ${session.leaseMs} * interval '1 millisecond'`,
      })
      .execute(),
    bindHeld(tx, session, holds),
    sql`
      update work_items
      set session_id = null, due_at = clock_timestamp()
      where session_id in (
        select id from sessions
        where provider_id = ${session.providerId} and instance_id = ${session.instanceId} and id <> ${session.id}
      )
    `.execute(tx),
    tx
      .updateTable('sessions')
      .set({ ended_at: sql<Date>`clock_timestamp()`, end_reason: 'superseded' })
      .where('provider_id', '=', session.providerId)
      .where('instance_id', '=', session.instanceId)
      .where('id', '<>', session.id)
      .where('ended_at', 'is', null)
      .returning('id')
      .execute(),
  ])
  return { bound, supersededIds: superseded.map((row) => row.id) }
}

/** Which of the items that an instance says it holds are its still: those go over to its new session. */
async function bindHeld(tx: Tx, session: NewSession, holds: readonly HeldClaim[]): Promise<ReadonlySet<string>> {
  if (holds.length === 0) return new Set()
  const bound = await sql<{ id: string }>`
    update work_items
    set session_id = ${session.id}, sent_generation = least(work_items.generation, held.generation)
    from unnest(
      ${holds.map((held) => held.id)}::uuid[], ${holds.map((held) => held.fence)}::bigint[], ${holds.map((held) => held.generation)}::bigint[]
    ) as held (id, fence, generation)
    where work_items.provider_id = ${session.providerId}
      and work_items.id = held.id
      and work_items.fence = held.fence
      and (
        work_items.session_id is null
        or work_items.session_id in (
          select id from sessions where provider_id = ${session.providerId} and instance_id = ${session.instanceId}
        )
      )
    returning work_items.id
  `.execute(tx)
  return new Set(bound.rows.map((row) => row.id))
}

/** What an instance says of its provider when it connects. */
export interface Introduction {
  readonly capabilities: readonly Capability[]
  readonly configSchema: string
  readonly credentialsSchema: string
  readonly dataSchema: string
  readonly listingLagMs: number
  readonly effectTimeoutMs: number
}

/** Stores what an instance said of its provider, and that the provider is connected. Returns the row as it was before. */
export async function introduceProvider(
  tx: Tx,
  providerId: string,
  said: Introduction,
): Promise<ProviderRow | undefined> {
  // Not a full lock: rows that refer to the provider, another instance's session for one, are inserted at the same time.
  const before = await tx
    .selectFrom('providers')
    .selectAll()
    .where('id', '=', providerId)
    .where('deleted_at', 'is', null)
    .forNoKeyUpdate()
    .executeTakeFirst()
  if (before === undefined) return undefined
  const now = {
    state: 'CONNECTED',
    config_schema: said.configSchema,
    credentials_schema: said.credentialsSchema,
    data_schema: said.dataSchema,
    listing_lag_ms: said.listingLagMs,
    effect_timeout_ms: said.effectTimeoutMs,
  } as const
  // Mostly it is one more of many, or the same again.
  const known = (Object.keys(now) as (keyof typeof now)[]).every((key) => before[key] === now[key])
  if (known && isDeepStrictEqual(before.capabilities, said.capabilities)) return before
  await tx
    .updateTable('providers')
    .set({ ...now, capabilities: JSON.stringify(said.capabilities) })
    .where('id', '=', providerId)
    .execute()
  return before
}

/**
 * Extends sessions, and with them every lease that hangs on them. A session is over once it was ended, and not by time alone: while the database was away nobody
 * could extend one, and nobody could take over what it holds.
 *
 * @returns those that were extended: the others are over.
 */
export async function extendSessions(
  db: Db,
  sessionIds: readonly string[],
  leaseMs: number,
): Promise<ReadonlySet<string>> {
  const result = await sql<{ id: string }>`
    update sessions
    set heartbeat_at = clock_timestamp(), expires_at = clock_timestamp() + ${leaseMs} * interval '1 millisecond'
    where id = any(${[...sessionIds]}::uuid[]) and ended_at is null
    returning id
  `.execute(db)
  return new Set(result.rows.map((row) => row.id))
}

/**
 * The live sessions of a provider that may show the console of a machine, the likeliest first: the one that works on the machine, then those that
 * connected last.
 *
 * @param itemIds the machine and the request that it serves.
 */
export async function listConsoleSessions(
  db: Db,
  providerId: string,
  itemIds: readonly string[],
  limit: number,
): Promise<string[]> {
  const result = await sql<{ id: string }>`
    select sessions.id
    from sessions
    where sessions.provider_id = ${providerId} and ended_at is null and expires_at > clock_timestamp()
    order by
      exists (
        select 1 from work_items
        where work_items.provider_id = ${providerId} and work_items.id = any(${[...itemIds]}::uuid[])
          and work_items.session_id = sessions.id
      ) desc,
      connected_at desc
    limit ${limit}
  `.execute(db)
  return result.rows.map((row) => row.id)
}

/** Ends a session that its instance closed in good order. What it still held is free at once. */
export async function endSession(tx: Tx, sessionId: string, reason: string): Promise<void> {
  await tx
    .updateTable('work_items')
    .set({ session_id: null, due_at: sql<Date>`clock_timestamp()` })
    .where('session_id', '=', sessionId)
    .execute()
  await tx
    .updateTable('sessions')
    .set({ ended_at: sql<Date>`clock_timestamp()`, end_reason: reason })
    .where('id', '=', sessionId)
    .where('ended_at', 'is', null)
    .execute()
}

/** The session was ended, here or by another replica: what its instance said over it is not to be stored any more. */
export class SessionOver extends Error {
  override readonly name = 'SessionOver'
}

/**
 * The fence of all that a session says of its provider as a whole. Call it first in the transaction that stores it: a replica that was paused until its sessions
 * were ended then stores nothing when it wakes up.
 *
 * @throws SessionOver
 */
export async function requireSession(tx: Tx, sessionId: string): Promise<void> {
  const live = await sql`select 1 from sessions where id = ${sessionId} and ended_at is null for key share`.execute(tx)
  if (live.rows.length === 0) throw new SessionOver(`session ${sessionId} is over`)
}

/** Stores how many items a session takes. */
export async function setSessionCapacity(db: Db, sessionId: string, capacity: number): Promise<void> {
  await db.updateTable('sessions').set({ capacity }).where('id', '=', sessionId).where('ended_at', 'is', null).execute()
}

/** A claim as a replica believes to hold it for one of its sessions. */
export interface BelievedClaim {
  readonly sessionId: string
  readonly itemId: string
  readonly fence: number
}

/** Of the claims that a replica believes in, those that are not so any more: freed, claimed by others under a higher fence, or gone. */
export async function findLostClaims(db: Db, believed: readonly BelievedClaim[]): Promise<BelievedClaim[]> {
  if (believed.length === 0) return []
  const result = await sql<BelievedClaim>`
    select believed.session_id as "sessionId", believed.id as "itemId", believed.fence
    from unnest(
      ${believed.map((claim) => claim.sessionId)}::uuid[], ${believed.map((claim) => claim.itemId)}::uuid[],
      ${believed.map((claim) => claim.fence)}::bigint[]
    ) as believed (session_id, id, fence)
    left join work_items on work_items.id = believed.id
    where work_items.session_id is distinct from believed.session_id or work_items.fence <> believed.fence
  `.execute(db)
  return result.rows
}

export interface HealthReport {
  readonly now: Date
  readonly sessionId: string
  readonly providerId: string
  readonly health: Health
  readonly message: string
  readonly budgets: readonly BudgetFacts[]
}

async function recordSessionHealth(tx: Tx, report: HealthReport): Promise<void> {
  const stored: readonly StoredBudget[] = report.budgets.map((budget) => ({
    ...budget,
    toldAt: report.now.toISOString(),
  }))
  await tx
    .updateTable('sessions')
    .set({ health: report.health, health_message: report.message, budgets: JSON.stringify(stored) })
    .where('id', '=', report.sessionId)
    .where('ended_at', 'is', null)
    .execute()
}

/**
 * Stores that an instance is well, and says whether that is all there is to it: its provider is known to be well, with the same words, and has no error. Otherwise
 * {@link recordHealth} is to follow. Instances of one provider do not wait for each other.
 *
 * @throws SessionOver
 */
export async function recordWellness(tx: Tx, report: HealthReport): Promise<boolean> {
  const [, , provider] = await Promise.all([
    requireSession(tx, report.sessionId),
    recordSessionHealth(tx, report),
    tx
      .selectFrom('providers')
      .select(['health', 'health_message', sql<boolean>`last_error is null`.as('fine')])
      .where('id', '=', report.providerId)
      // Whoever reckons the provider's health anew does so before, and is seen here, or after, and sees this.
      .forShare()
      .executeTakeFirst(),
  ])
  if (provider === undefined) return true
  return provider.fine && provider.health === report.health && provider.health_message === report.message
}

/** Stores how an instance is doing. Returns the provider's health before and after: as good as its best live instance. */
export async function recordHealth(
  tx: Tx,
  report: HealthReport,
): Promise<{ readonly before: Health; readonly after: Health } | undefined> {
  await recordSessionHealth(tx, report)
  const provider = await tx
    .selectFrom('providers')
    .select(['health', 'health_message'])
    .where('id', '=', report.providerId)
    .forNoKeyUpdate()
    .executeTakeFirst()
  if (provider === undefined) return undefined
  const live = await tx
    .selectFrom('sessions')
    .select(['health', 'health_message'])
    .where('provider_id', '=', report.providerId)
    .where('ended_at', 'is', null)
    .where(sql<boolean>`expires_at > clock_timestamp()`)
    .execute()
  const best =
    (['HEALTHY', 'DEGRADED', 'UNHEALTHY'] as const).find((health) =>
      live.some((session) => session.health === health),
    ) ?? report.health
  const message = live.find((session) => session.health === best)?.health_message ?? report.message
  if (provider.health !== best || provider.health_message !== message) {
    await tx
      .updateTable('providers')
      .set({ health: best, health_message: message })
      .where('id', '=', report.providerId)
      .execute()
  }
  return { before: provider.health, after: best }
}
