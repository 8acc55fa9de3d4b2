import { v7 as uuid } from 'uuid'
import { retryDelayMs } from '../domain/backoff.js'
import type { EventDraft } from '../domain/facts.js'
import { resourceName } from '../domain/names.js'
import type { Kept, Surroundings } from '../domain/orphan/orphan.js'
import { judgePass, type Pass } from '../domain/orphan/policy.js'
import { mergeConditions } from '../domain/request/apply-report.js'
import type { Tx } from './database.js'
import { appendEvents } from './events.js'
import type { ListingProvider } from './inventory.js'
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
import { isOrphan, noOrder, recordSeen, recordUnseen, uniqueOf, type CompleteListing } from './orphan-sightings.js'
import type { OrphanRow, ProviderRow } from './tables.js'

// What follows from a complete listing for what no live request owns: it is recorded, judged, and its removal ordered where the policy says so; what is not
// there any more is forgotten. All of it is one transaction, under the lock of the provider's pass.

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
  const seen = uniqueOf(listing.unowned).filter((resource) => isOrphan(provider.id, resource, records))
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
