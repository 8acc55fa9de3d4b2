import type { Bench } from '../bench.js'
import type { HubSession } from '../gateway/session.js'

/** One listing, put together from its parts. */
export interface WholeListing {
  readonly listingId: string
  /** When its first part came, in milliseconds of the monotonic clock. */
  readonly atMs: number
  /** What it shows, with the ownership key where there is one. */
  readonly ids: Map<string, string>
  parts: number
  final: boolean
  complete: boolean
}

/** All listings of a session so far, in order of their first parts. */
export function listingsOf(session: HubSession): WholeListing[] {
  const all = new Map<string, WholeListing>()
  for (const { atMs, body } of session.heard) {
    if (body.case !== 'inventory') continue
    const { listingId, final, complete, machines, resources } = body.value
    const listing = all.get(listingId) ?? { listingId, atMs, ids: new Map(), parts: 0, final: false, complete: false }
    all.set(listingId, listing)
    listing.parts += 1
    listing.final = final
    listing.complete = complete
    for (const { externalId } of machines) listing.ids.set(externalId, '')
    for (const { externalId, ownershipKey } of resources) listing.ids.set(externalId, ownershipKey)
  }
  return [...all.values()]
}

/** Waits for a complete listing that begins from now on, and fits. */
export async function untilListed(
  bench: Bench,
  session: HubSession,
  fits: (listing: WholeListing) => boolean = () => true,
  what = 'a complete listing',
): Promise<WholeListing> {
  const sinceMs = performance.now()
  return bench.until(
    what,
    () => listingsOf(session).find((listing) => listing.atMs >= sinceMs && listing.complete && fits(listing)),
    bench.waitMs + 3 * listIntervalMs(bench),
  )
}

/** How often the provider lists, as it is started here. */
export function listIntervalMs(bench: Bench): number {
  return bench.description.listIntervalMs ?? 30_000
}
