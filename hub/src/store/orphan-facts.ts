import { sql } from 'kysely'
import type { OrphanFacts, Surroundings } from '../domain/orphan/orphan.js'
import { databaseTime, type Db, type Tx } from './database.js'
import type { MachineRequestRow, OrphanRow, ProviderRow } from './tables.js'

// What the policy about orphans is asked with, out of our records. They are read after the cloud was listed, never before.

/** Times that are added to what providers say of their own. */
export interface OrphanTimes {
  readonly graceMs: number
  /** Nothing is removed by policy for this long after a restore from backup. */
  readonly restoreGraceMs: number
}

export type KnownRequest = Pick<
  MachineRequestRow,
  | 'provider_id'
  | 'id'
  | 'name'
  | 'state'
  | 'operation'
  | 'external_id'
  | 'adopt_external_id'
  | 'gone_at'
  | 'create_in_doubt'
> & { readonly provider_deleted: boolean }

/** What our records say of what some orphans speak of. */
export interface OrphanRecords {
  readonly requests: ReadonlyMap<string, KnownRequest>
  /** External ids of live requests and machines of the provider. */
  readonly externalIdsInUse: ReadonlySet<string>
}

/** The part of an orphan, recorded or about to be, that records are looked up by. */
export interface OrphanReference {
  readonly requestId: string | undefined
  readonly kind: string
  readonly externalId: string
}

/**
 * Reads the records that some resources of a provider speak of. Requests are looked for at all providers: two of them may share an account out there, and each
 * lists the other's servers.
 */
export async function readRecords(
  db: Db,
  providerId: string,
  references: readonly OrphanReference[],
): Promise<OrphanRecords> {
  const ids = [...new Set(references.flatMap(({ requestId }) => requestId ?? []))]
  const requests =
    ids.length === 0
      ? []
      : await db
          .selectFrom('machine_requests as r')
          .innerJoin('providers as p', 'p.id', 'r.provider_id')
          .select(['r.provider_id', 'r.id', 'r.name', 'r.state', 'r.operation', 'r.external_id', 'r.adopt_external_id'])
          .select(['r.gone_at', 'r.create_in_doubt'])
          .select(sql<boolean>`p.deleted_at is not null`.as('provider_deleted'))
          .where(sql<boolean>`r.id = any(${ids}::uuid[])`)
          .execute()
  const servers = references.filter(({ kind }) => kind === 'server').map(({ externalId }) => externalId)
  const inUse =
    servers.length === 0
      ? []
      : (
          await sql<{ externalId: string }>`
            select external_id as "externalId" from machine_requests
            where provider_id = ${providerId} and external_id = any(${servers}::text[]) and state <> 'GONE'
            union
            select external_id from machines
            where provider_id = ${providerId} and external_id = any(${servers}::text[]) and state <> 'GONE'
          `.execute(db)
        ).rows
  return {
    requests: new Map(requests.map((request) => [request.id, request])),
    externalIdsInUse: new Set(inUse.map(({ externalId }) => externalId)),
  }
}

export function referenceOf(row: Pick<OrphanRow, 'request_id' | 'kind' | 'external_id'>): OrphanReference {
  return { requestId: row.request_id ?? undefined, kind: row.kind, externalId: row.external_id }
}

export function toFacts(row: OrphanRow, { requests, externalIdsInUse }: OrphanRecords): OrphanFacts {
  const request = requests.get(row.request_id ?? '')
  return {
    id: row.id,
    ownershipKey: row.ownership_key,
    request: request && {
      name: request.name,
      state: request.state,
      goneAt: request.gone_at,
      createInDoubt: request.create_in_doubt,
      // One that was released when its host was READY has been removed as what is made. One that a person forgot keeps what it had.
      wasAdopting:
        request.adopt_external_id !== null && (request.operation === 'ADOPT' || request.operation === 'UNADOPT'),
    },
    externalIdInUse: row.kind === 'server' && externalIdsInUse.has(row.external_id),
    firstSeenAt: row.first_seen_at,
    sightings: row.sightings,
    listed: row.missed_at === null,
    keptBy: row.kept_by,
    refusedAt: row.refused_at,
    orderedAt: row.removal_ordered_at,
  }
}

/** What all orphans of a provider are judged by, at this moment by the database's clock. */
export async function readSurroundings(
  tx: Tx,
  provider: ProviderRow,
  hubId: string,
  times: OrphanTimes,
): Promise<Surroundings> {
  const { restored_at: restoredAt } = await tx.selectFrom('hub_meta').select('restored_at').executeTakeFirstOrThrow()
  return {
    now: await databaseTime(tx),
    hubId,
    policy: {
      mode: provider.orphan_mode,
      minAgeMs: provider.orphan_min_age_ms,
      maxPerPass: provider.orphan_max_per_pass,
      maxPercent: provider.orphan_max_percent,
    },
    effectTimeoutMs: provider.effect_timeout_ms,
    listingLagMs: provider.listing_lag_ms,
    canRemove: provider.capabilities.includes('REMOVE_ORPHAN'),
    restoredAt,
    stopped: provider.orphan_stopped_at !== null,
    ...times,
  }
}

/** A provider that was not deleted. */
export async function findLiveProvider(db: Db, id: string): Promise<ProviderRow | undefined> {
  return db.selectFrom('providers').selectAll().where('id', '=', id).where('deleted_at', 'is', null).executeTakeFirst()
}
