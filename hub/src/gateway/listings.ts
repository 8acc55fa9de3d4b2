import type { Inventory, Offerings } from '@slipway/proto/provider/v1'
import type { Logger } from 'pino'
import type { ProviderKind } from '../domain/provider/provider.js'
import { databaseTime, inTransaction, type Tx } from '../store/database.js'
import {
  findMissingRequests,
  forgetUnseenOrphans,
  recordMissingMachines,
  recordOwnedResources,
  recordStaticMachines,
  recordVanishedRequests,
} from '../store/inventory.js'
import { replaceOfferings } from '../store/offerings.js'
import { requireSession } from '../store/sessions.js'
import { fromAddresses, fromHardware, fromPower, fromShape, parseOwnershipKey } from './convert.js'
import type { GatewayDeps } from './deps.js'

interface Listing {
  readonly id: string
  readonly startedAt: Date
  readonly externalIds: string[]
  readonly requestIds: string[]
}

/** What one session tells of the world as a whole. Its messages are taken in one after another. */
export class Listings {
  readonly #deps: GatewayDeps
  readonly #sessionId: string
  readonly #provider: { readonly id: string; readonly name: string; readonly kind: ProviderKind }
  readonly #log: Logger
  #listing: Listing | undefined
  /** Requests that the last complete listing did not show. */
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
    }))
    listing.externalIds.push(...seen.map((machine) => machine.externalId))
    await this.#store(async (tx) => {
      await recordStaticMachines(tx, this.#provider, seen, new Date())
      if (part.final && part.complete) await recordMissingMachines(tx, this.#provider, listing.externalIds, new Date())
    })
    this.#deps.wake.signal({ kind: 'work', providerId: this.#provider.id })
  }

  async #takeDynamic(part: Inventory, listing: Listing): Promise<void> {
    const seen = part.resources.flatMap((resource) => {
      const key = parseOwnershipKey(resource.ownershipKey)
      // Another hub's things are none of our business.
      if (key === undefined || key.hubId !== this.#deps.hubId) return []
      return [
        {
          kind: resource.kind,
          externalId: resource.externalId,
          requestId: key.requestId,
          ownershipKey: resource.ownershipKey,
          name: resource.name,
          power: fromPower(resource.power),
          addresses: fromAddresses(resource.addresses),
        },
      ]
    })
    const now = new Date()
    const found = await this.#store((tx) => recordOwnedResources(tx, this.#provider, seen, now))
    listing.requestIds.push(...found)
    if (!part.final || !part.complete) return
    this.#missing = await this.#store(async (tx) => {
      const missing = await findMissingRequests(tx, this.#provider, listing.requestIds, listing.startedAt)
      await recordVanishedRequests(
        tx,
        this.#provider,
        missing.filter((id) => this.#missing.has(id)),
        now,
      )
      await forgetUnseenOrphans(tx, this.#provider, listing.startedAt)
      return new Set(missing)
    })
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
