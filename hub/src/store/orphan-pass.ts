import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import { retryDelayMs } from '../domain/backoff.js'
import type { EventDraft } from '../domain/facts.js'
import { resourceName, shortName } from '../domain/names.js'
import type { Kept, Surroundings } from '../domain/orphan/orphan.js'
import { judgePass, type Pass } from '../domain/orphan/policy.js'
import { mergeConditions } from '../domain/request/apply-report.js'
import type { Tx } from './database.js'
import { appendEvents } from './events.js'
import { isOwnedBy, type ListingProvider, type SeenResource } from './inventory.js'
import { orphanEvent, orphanText } from './orphan-events.js'
import {
  findLiveProvider,
  readRecords,
  readSurroundings,
  referenceOf,
  toFacts,
  type OrphanRecords,
  type OrphanTimes,
} from './orphan-facts.js'
import type { OrphanRow, ProviderRow } from './tables.js'

// What follows from a complete listing for what no live request owns: it is recorded, judged, and its removal ordered where the policy says so; what is not
// there any more is forgotten. All of it is one transaction, under the lock of the provider's pass.

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

/** Takes in a complete listing of a dynamic provider. @returns whether a removal was ordered. */
export async function takeOrphanPass(
  tx: Tx,
  named: ListingProvider,
  listing: CompleteListing,
  hub: OrphanTimes & { readonly hubId: string },
): Promise<boolean> {
  const overlaps = await lockPass(tx, named.id, listing)
  const provider = await findLiveProvider(tx, named.id)
  if (provider === undefined) return false
  const { hubId, ...times } = hub
  const around = await readSurroundings(tx, provider, hubId, times)
  const before = await lockOrphans(tx, provider.id)
  const references = [...listing.unowned, ...before.map(referenceOf)]
  const records = await readRecords(tx, provider.id, references)
  const seen = listing.unowned.filter((resource) => isOrphan(provider.id, resource, records))
  const events = await recordSeen(tx, provider, before, seen, { listing, overlaps, around })
  events.push(...(await recordUnseen(tx, before, seen, records, { listing, around })))
  const pass = overlaps
    ? undefined
    : await judge(tx, provider, records, { complete: true, owned: listing.owned }, around)
  await appendEvents(tx, { actor: resourceName('provider', provider.name), requestId: '' }, events)
  await appendEvents(tx, { actor: 'hub', requestId: '' }, pass?.events ?? [])
  await notePass(tx, provider.id, listing.id, around.now)
  return pass?.ordered ?? false
}

/** One pass of a provider at a time. @returns whether the listing began before the last one was taken in: then it tells nothing new of how long something exists. */
async function lockPass(tx: Tx, providerId: string, listing: CompleteListing): Promise<boolean> {
  await tx
    .insertInto('orphan_passes')
    .values({ provider_id: providerId, at: new Date(0), listing_id: listing.id })
    .onConflict((conflict) => conflict.doNothing())
    .execute()
  const { at } = await tx
    .selectFrom('orphan_passes')
    .select('at')
    .where('provider_id', '=', providerId)
    .forUpdate()
    .executeTakeFirstOrThrow()
  return at.getTime() > listing.startedAt.getTime()
}

async function notePass(tx: Tx, providerId: string, listingId: string, now: Date): Promise<void> {
  await tx
    .updateTable('orphan_passes')
    .set({ at: now, listing_id: listingId })
    .where('provider_id', '=', providerId)
    .execute()
}

async function lockOrphans(tx: Tx, providerId: string): Promise<OrphanRow[]> {
  return tx.selectFrom('orphans').selectAll().where('provider_id', '=', providerId).orderBy('id').forUpdate().execute()
}

/** What was no live request's when its part came may be one's by now; and what another provider's request owns is that one's to list. */
function isOrphan(providerId: string, resource: SeenResource, { requests }: OrphanRecords): boolean {
  const request = requests.get(resource.requestId ?? '')
  if (request === undefined) return true
  if (request.provider_id !== providerId) return request.provider_deleted && request.state === 'GONE'
  return !isOwnedBy(request, resource)
}

const keyOf = (kind: string, externalId: string) => `${kind}\n${externalId}`

interface Seeing {
  readonly listing: CompleteListing
  readonly overlaps: boolean
  readonly around: Surroundings
}

async function recordSeen(
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

/** What the listing did not show as an orphan: gone, once that is sure, or owned by a live request. */
async function recordUnseen(
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

async function judge(
  tx: Tx,
  provider: ProviderRow,
  records: OrphanRecords,
  listing: { readonly complete: boolean; readonly owned: number },
  around: Surroundings,
): Promise<{ readonly ordered: boolean; readonly events: readonly EventDraft[] }> {
  const rows = await tx
    .selectFrom('orphans')
    .selectAll()
    .where('provider_id', '=', provider.id)
    .orderBy('first_seen_at')
    .orderBy('id')
    .execute()
  const pass = judgePass(
    rows.map((row) => toFacts(row, records)),
    listing,
    around,
  )
  const events: EventDraft[] = []
  let ordered = false
  for (const [index, row] of rows.entries()) {
    const verdict = pass.verdicts[index]
    if (verdict?.kind === 'keep') await keep(tx, row, verdict.kept)
    else if (verdict?.kind === 'ordered') await remind(tx, row, around)
    else if (verdict?.kind === 'remove') {
      await orderRemoval(tx, row, 'policy', around.now)
      events.push(orphanEvent(row, 'OrphanRemovalOrdered', 'WARNING', `${orphanText(row)} is to be removed, by policy`))
      ordered = true
    }
  }
  if (pass.stop !== undefined) events.push(await stopRemoval(tx, provider, pass.stop, around.now))
  return { ordered, events }
}

async function keep(tx: Tx, row: OrphanRow, { reason, message }: Kept): Promise<void> {
  if (row.keep_reason === reason && row.keep_message === message) return
  await tx
    .updateTable('orphans')
    .set({ keep_reason: reason, keep_message: message })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .execute()
}

/** Orders the removal of a locked orphan. @param by `policy`, or who ordered it. */
export async function orderRemoval(tx: Tx, row: OrphanRow, by: string, now: Date): Promise<void> {
  await tx
    .updateTable('orphans')
    .set({
      ...noOrder,
      removal_ordered_at: now,
      removal_ordered_by: by,
      removal_order_id: uuid(),
      removal_due_at: now,
      keep_reason: null,
      keep_message: '',
      kept_by: null,
      kept_for: '',
      refused_at: null,
      last_error: null,
    })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .execute()
}

/** What was said to be gone, and is listed still when a listing may not show it any more, is to be removed again. */
async function remind(tx: Tx, row: OrphanRow, { now, listingLagMs }: Surroundings): Promise<void> {
  if (row.removal_done_at === null || row.missed_at !== null) return
  if (row.removal_done_at.getTime() + listingLagMs >= now.getTime()) return
  const dueAt = new Date(now.getTime() + retryDelayMs(row.removal_attempts, 0))
  await tx
    .updateTable('orphans')
    .set({ removal_done_at: null, removal_due_at: dueAt })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .execute()
}

export const removalCondition = 'OrphanRemoval'

async function stopRemoval(
  tx: Tx,
  provider: ProviderRow,
  { eligible, allowed }: NonNullable<Pass['stop']>,
  now: Date,
): Promise<EventDraft> {
  const message =
    `${eligible} orphans would have been removed after one listing, and at most ${allowed} may; none was. ` +
    "Look at them, remove by hand what is to go, and set the provider's orphan policy to let removal go on"
  const { conditions } = await tx
    .selectFrom('providers')
    .select('conditions')
    .where('id', '=', provider.id)
    .forNoKeyUpdate()
    .executeTakeFirstOrThrow()
  const stopped = { type: removalCondition, status: 'FALSE', reason: 'TooMany', message } as const
  await tx
    .updateTable('providers')
    .set({ orphan_stopped_at: now, conditions: JSON.stringify(mergeConditions(conditions, [stopped], now)) })
    .where('id', '=', provider.id)
    .execute()
  return {
    subject: resourceName('provider', provider.name),
    reason: 'OrphanRemovalStopped',
    severity: 'ERROR',
    message,
    providerId: provider.id,
  }
}
