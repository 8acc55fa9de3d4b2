import type { Inventory, Offerings } from '@slipway/proto/provider/v1'
import type { Logger } from 'pino'
import { isKeyOf, parseOwnershipKey } from '../domain/names.js'
import type { ProviderKind } from '../domain/provider/provider.js'
import { databaseTime, inTransaction, type Tx } from '../store/database.js'
import {
  findMissingRequests,
  lookAfterMachines,
  recordMissingMachines,
  recordOwnedResources,
  recordStaticMachines,
  type SeenResource,
} from '../store/inventory.js'
import { replaceOfferings } from '../store/offerings.js'
import { requireSession } from '../store/sessions.js'
import { takeOrphanPass } from '../store/orphan-pass.js'
import { fromAddresses, fromHardware, fromPower, fromShape } from './convert.js'
import { orphanTimes, type GatewayDeps } from './deps.js'

interface Listing {
  readonly id: string
  readonly startedAt: Date
  readonly externalIds: string[]
  readonly requestIds: string[]
  /** How many resources carry our hub's id. */
  owned: number
  /** Those of them that no live request of the provider owns. */
  readonly unowned: SeenResource[]
}

/** What one session tells of the world as a whole. Its messages are taken in one after another. */
export class Listings {
  readonly #deps: GatewayDeps
  readonly #sessionId: string
  readonly #provider: { readonly id: string; readonly name: string; readonly kind: ProviderKind }
  readonly #log: Logger
  #listing: Listing | undefined
  /** Requests that the last complete listing did not show, and that nobody was asked about for it. */
  #missing = new Set<string>()
  #queue: Promise<void> = Promise.resolve()

  constructor(
    deps: GatewayDeps,
    sessionId: string,
    provider: { readonly id: string; readonly name: string; readonly kind: ProviderKind },
  ) {
    this.#deps = deps
    this.#sessionId = sessionId
    this.#provider = provider
    this.#log = deps.log.child({ component: 'listings', provider: provider.name })
  }

  inventory(part: Inventory): void {
    this.#enqueue(() => this.#takeInventory(part))
  }

  offerings(said: Offerings): void {
    this.#enqueue(() => this.#takeOfferings(said))
  }

  #enqueue(work: () => Promise<void>): void {
    this.#queue = this.#queue.then(work).then(
      () => this.#deps.wake.signal({ kind: 'change' }, { kind: 'host' }),
      (error: unknown) => {
        // The next listing tells it all again; but what this one lacks must not count as an absence.
        this.#listing = undefined
        this.#log.warn({ err: error }, 'cannot take in a listing now')
      },
    )
  }

  async #takeInventory(part: Inventory): Promise<void> {
    if (this.#listing?.id !== part.listingId) {
      this.#listing = {
        id: part.listingId,
        startedAt: await databaseTime(this.#deps.db),
        externalIds: [],
        requestIds: [],
        owned: 0,
        unowned: [],
      }
    }
    const listing = this.#listing
    if (this.#provider.kind === 'STATIC') await this.#takeStatic(part, listing)
    else await this.#takeDynamic(part, listing)
    if (part.final) this.#listing = undefined
  }

  async #takeStatic(part: Inventory, listing: Listing): Promise<void> {
    const seen = part.machines.map((machine) => ({
      externalId: machine.externalId,
      hardware: machine.hardware === undefined ? undefined : fromHardware(machine.hardware),
      power: fromPower(machine.power),
      labels: machine.labels,
      providerData: (machine.providerData ?? {}) as never,
      addresses: fromAddresses(machine.addresses),
      acceptedByRule: machine.acceptedByRule,
      inUse: machine.inUse,
    }))
    listing.externalIds.push(...seen.map((machine) => machine.externalId))
    await this.#store(async (tx) => {
      await recordStaticMachines(tx, this.#provider, seen, new Date())
      if (part.final && part.complete) await recordMissingMachines(tx, this.#provider, listing.externalIds, new Date())
    })
    this.#deps.wake.signal({ kind: 'work', providerId: this.#provider.id })
  }

  async #takeDynamic(part: Inventory, listing: Listing): Promise<void> {
    const seen = part.resources
      // Another hub's things are none of our business.
      .filter(({ ownershipKey }) => isKeyOf(this.#deps.hubId, ownershipKey))
      .map((resource) => ({
        kind: resource.kind,
        externalId: resource.externalId,
        requestId: parseOwnershipKey(resource.ownershipKey)?.requestId,
        ownershipKey: resource.ownershipKey,
        name: resource.name,
        power: fromPower(resource.power),
        addresses: fromAddresses(resource.addresses),
      }))
    const now = new Date()
    const shown = await this.#store((tx) => recordOwnedResources(tx, this.#provider, seen, now))
    listing.requestIds.push(...shown.requestIds)
    listing.unowned.push(...shown.unowned)
    listing.owned += seen.length
    await this.#lookAfter(shown.returned)
    if (part.final && part.complete) await this.#takeComplete(listing)
  }

  /** Only what was read to its end proves an absence, or makes an orphan. */
  async #takeComplete(listing: Listing): Promise<void> {
    const missing = await this.#store((tx) =>
      findMissingRequests(tx, this.#provider, listing.requestIds, listing.startedAt),
    )
    await this.#lookAfter(missing.filter((id) => this.#missing.has(id)))
    // Whoever was asked about is missed twice more before that is done again.
    this.#missing = new Set(missing.filter((id) => !this.#missing.has(id)))
    const { config, hubId } = this.#deps
    const ordered = await inTransaction(this.#deps.db, (tx) =>
      takeOrphanPass(tx, this.#provider, listing, { hubId, ...orphanTimes(config) }),
    )
    if (ordered) this.#deps.wake.signal({ kind: 'work', providerId: this.#provider.id })
  }

  async #lookAfter(requestIds: readonly string[]): Promise<void> {
    if (requestIds.length === 0) return
    await this.#store((tx) => lookAfterMachines(tx, this.#provider, requestIds))
    this.#deps.wake.signal({ kind: 'work', providerId: this.#provider.id })
  }

  async #takeOfferings(said: Offerings): Promise<void> {
    const offerings = said.offerings.flatMap((offering) =>
      offering.shape === undefined
        ? []
        : [
            {
              typeId: offering.typeId,
              location: offering.location,
              shape: fromShape(offering.shape),
              price:
                offering.price === undefined
                  ? null
                  : {
                      currency: offering.price.currency,
                      hourlyMicros: Number(offering.price.hourlyMicros),
                      monthlyMicros: Number(offering.price.monthlyMicros),
                      setupMicros: Number(offering.price.setupMicros),
                    },
              available: offering.available,
              remaining: offering.remaining ?? null,
            },
          ],
    )
    await this.#store((tx) => replaceOfferings(tx, this.#provider.id, offerings))
  }

  /** Nothing that a session tells is stored once it was ended. */
  #store<T>(work: (tx: Tx) => Promise<T>): Promise<T> {
    return inTransaction(
      this.#deps.db,
      async (tx) => {
        await requireSession(tx, this.#sessionId)
        return work(tx)
      },
      'listing',
    )
  }
}
