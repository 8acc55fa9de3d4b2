import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { EventDraft } from '../domain/facts.js'
import { shortName } from '../domain/names.js'
import type { Kept, Surroundings } from '../domain/orphan/orphan.js'
import type { Tx } from './database.js'
import { isOwnedBy, type SeenResource } from './inventory.js'
import { orphanEvent, orphanText } from './orphan-events.js'
import type { OrphanRecords } from './orphan-facts.js'
import type { OrphanRow, ProviderRow } from './tables.js'

// What a complete listing shows of orphans, and what it does not show any more.

/** A listing that was read to its end. */
export interface CompleteListing {
  readonly id: string
  /** When its first part came. */
  readonly startedAt: Date
  /** How many resources it showed under our hub's key. */
  readonly owned: number
  readonly unowned: readonly SeenResource[]
}

const notJudgedYet: Kept = { reason: 'SEEN_ONCE', message: 'it was seen in one complete listing only' }

/** What was no live request's when its part came may be one's by now; and what another provider's request owns is that one's to list. */
export function isOrphan(providerId: string, resource: SeenResource, { requests }: OrphanRecords): boolean {
  const request = requests.get(resource.requestId ?? '')
  if (request === undefined) return true
  if (request.provider_id !== providerId) return request.provider_deleted && request.state === 'GONE'
  return !isOwnedBy(request, resource)
}

const keyOf = (kind: string, externalId: string) => `${kind}\n${externalId}`

/** Each thing once: what a listing shows twice, as pages shift beneath it, was seen once. */
export function uniqueOf(seen: readonly SeenResource[]): readonly SeenResource[] {
  return [...new Map(seen.map((resource) => [keyOf(resource.kind, resource.externalId), resource])).values()]
}

export interface Seeing {
  readonly listing: CompleteListing
  readonly overlaps: boolean
  readonly around: Surroundings
}

/** Records what a complete listing showed. @param seen each thing once. */
export async function recordSeen(
  tx: Tx,
  provider: ProviderRow,
  before: readonly OrphanRow[],
  seen: readonly SeenResource[],
  { listing, overlaps, around }: Seeing,
): Promise<EventDraft[]> {
  const known = new Map(before.map((row) => [keyOf(row.kind, row.external_id), row]))
  const events: EventDraft[] = []
  const again: string[] = []
  const fresh = new Map<string, SeenResource>()
  for (const resource of seen) {
    const key = keyOf(resource.kind, resource.externalId)
    const row = known.get(key)
    if (row === undefined) fresh.set(key, resource)
    else if (row.ownership_key !== resource.ownershipKey) await beginAnew(tx, row, resource, listing.id, around.now)
    else {
      await refresh(tx, row, resource)
      again.push(row.id)
      if (!overlaps && row.sightings === 1) events.push(seenEvent(row))
    }
  }
  await insertSeen(tx, provider, [...fresh.values()], listing.id, around.now)
  if (again.length > 0) {
    await tx
      .updateTable('orphans')
      .set({
        last_seen_at: around.now,
        last_listing_id: listing.id,
        missed_at: null,
        ...(!overlaps && { sightings: sql<number>`sightings + 1` }),
      })
      .where('provider_id', '=', provider.id)
      .where(sql<boolean>`id = any(${again}::uuid[])`)
      .execute()
  }
  return events
}

/** Told at the second sighting: what a listing still showed while its request ended is no orphan. */
function seenEvent(row: OrphanRow): EventDraft {
  const message = `${orphanText(row)} carries our key ${row.ownership_key}, and no live request owns it`
  return orphanEvent(row, 'OrphanSeen', 'WARNING', message)
}

/** Another key on it makes another thing of it. */
async function beginAnew(tx: Tx, row: OrphanRow, resource: SeenResource, listingId: string, now: Date): Promise<void> {
  await tx
    .updateTable('orphans')
    .set({
      ...seenColumns(resource),
      ...noOrder,
      first_seen_at: now,
      last_seen_at: now,
      sightings: 1,
      last_listing_id: listingId,
      missed_at: null,
      keep_reason: notJudgedYet.reason,
      keep_message: notJudgedYet.message,
      kept_by: null,
      kept_for: '',
      refused_at: null,
      last_error: null,
    })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .execute()
}

/** An order that is none. */
export const noOrder = {
  removal_ordered_at: null,
  removal_ordered_by: null,
  removal_order_id: null,
  removal_due_at: null,
  removal_attempts: 0,
  removal_sent_at: null,
  removal_done_at: null,
} as const

function seenColumns(resource: SeenResource) {
  return {
    external_name: resource.name,
    ownership_key: resource.ownershipKey,
    request_id: resource.requestId ?? null,
    power: resource.power ?? null,
    addresses: JSON.stringify(resource.addresses),
  }
}

async function refresh(tx: Tx, row: OrphanRow, resource: SeenResource): Promise<void> {
  const addresses = JSON.stringify(resource.addresses)
  if (
    row.external_name === resource.name &&
    row.power === (resource.power ?? null) &&
    JSON.stringify(row.addresses) === addresses
  )
    return
  await tx
    .updateTable('orphans')
    .set(seenColumns(resource))
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .execute()
}

async function insertSeen(
  tx: Tx,
  provider: ProviderRow,
  seen: readonly SeenResource[],
  listingId: string,
  now: Date,
): Promise<void> {
  for (let index = 0; index < seen.length; index += 1_000) {
    const rows = seen.slice(index, index + 1_000).map((resource) => {
      const id = uuid()
      return {
        provider_id: provider.id,
        id,
        name: shortName('o', id),
        provider_name: provider.name,
        kind: resource.kind,
        external_id: resource.externalId,
        ...seenColumns(resource),
        first_seen_at: now,
        last_seen_at: now,
        last_listing_id: listingId,
        keep_reason: notJudgedYet.reason,
        keep_message: notJudgedYet.message,
      }
    })
    await tx.insertInto('orphans').values(rows).execute()
  }
}

/** Records what a complete listing did not show as an orphan: gone, once that is sure, or owned by a live request. */
export async function recordUnseen(
  tx: Tx,
  before: readonly OrphanRow[],
  seen: readonly SeenResource[],
  records: OrphanRecords,
  { listing, around }: Pick<Seeing, 'listing' | 'around'>,
): Promise<EventDraft[]> {
  const shown = new Set(seen.map(({ kind, externalId }) => keyOf(kind, externalId)))
  const unseen = before.filter((row) => !shown.has(keyOf(row.kind, row.external_id)))
  const ended: OrphanRow[] = []
  const missed: string[] = []
  const events: EventDraft[] = []
  for (const row of unseen) {
    const request = records.requests.get(row.request_id ?? '')
    if (request !== undefined && isOwnedBy(request, { kind: row.kind, externalId: row.external_id })) {
      ended.push(row)
      events.push(orphanEvent(row, 'OrphanGone', 'INFO', `${orphanText(row)} belongs to ${request.name}`))
      continue
    }
    // Seen in a listing that went on beside this one: that this one lacks it says nothing.
    if (row.last_seen_at.getTime() > listing.startedAt.getTime()) continue
    if (isBefore(row.missed_at, listing.startedAt) || isBefore(row.removal_done_at, listing.startedAt)) {
      ended.push(row)
      events.push(orphanEvent(row, 'OrphanGone', 'INFO', `${orphanText(row)} is gone`))
    } else if (row.missed_at === null) missed.push(row.id)
  }
  const providerId = before[0]?.provider_id ?? ''
  if (missed.length > 0) {
    await tx
      .updateTable('orphans')
      .set({ missed_at: around.now, sightings: 0 })
      .where('provider_id', '=', providerId)
      .where(sql<boolean>`id = any(${missed}::uuid[])`)
      .execute()
  }
  if (ended.length > 0) {
    const ids = ended.map(({ id }) => id)
    await tx
      .deleteFrom('orphans')
      .where('provider_id', '=', providerId)
      .where(sql<boolean>`id = any(${ids}::uuid[])`)
      .execute()
  }
  return events
}

function isBefore(time: Date | null, other: Date): boolean {
  return time !== null && time.getTime() <= other.getTime()
}
