import { create } from '@bufbuild/protobuf'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import { OwnedResourceSchema, RemoveOrphanSchema, type OrphanRemoval } from '@slipway/proto/provider/v1'
import type { Logger } from 'pino'
import { inTransaction } from '../store/database.js'
import { recordOrderAnswer, takeDueOrders, type DueOrder } from '../store/orphan-orders.js'
import { fromOrphanRemoval } from './convert.js'
import { orphanTimes, type GatewayDeps } from './deps.js'
import type { SessionRegistry } from './registry.js'

/** Between an instance's deadline and the next try: its answer may be on its way. */
const answerSlackMs = 1_000

/**
 * Gives orders to remove orphans to instances that are connected to this replica. It runs when woken and at every sweep; an order that was taken and never
 * reached anybody is due again after its time.
 */
export class OrphanCourier {
  readonly #deps: GatewayDeps
  readonly #registry: SessionRegistry
  readonly #log: Logger
  readonly #wanted = new Set<string>()
  #running: Promise<void> | undefined
  #stopped = false

  constructor(deps: GatewayDeps, registry: SessionRegistry) {
    this.#deps = deps
    this.#registry = registry
    this.#log = deps.log.child({ component: 'orphans' })
  }

  /** Looks for orders of these providers, soon. */
  request(...providerIds: readonly string[]): void {
    if (this.#stopped) return
    for (const id of providerIds) if (this.#sessionOf(id) !== undefined) this.#wanted.add(id)
    if (this.#wanted.size > 0) this.#running ??= this.#run()
  }

  /** Takes nothing more; resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.idle()
  }

  /** Resolves when all that was asked for was looked at. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running
  }

  async #run(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve))
    while (this.#wanted.size > 0 && !this.#stopped) {
      const [providerId = ''] = this.#wanted
      this.#wanted.delete(providerId)
      try {
        await this.#carry(providerId)
      } catch (error) {
        this.#log.warn({ err: error, providerId }, 'cannot look for orders to remove orphans now')
      }
    }
    this.#running = undefined
  }

  async #carry(providerId: string): Promise<void> {
    const { db, config, hubId, wake } = this.#deps
    const orders = await inTransaction(db, (tx) =>
      takeDueOrders(tx, providerId, { hubId, ...orphanTimes(config) }, config.orphanRemovalTimeoutMs + answerSlackMs),
    )
    if (orders.length === 0) return
    // The same instance gets all of them, and works them off one by one. One that is gone by now leaves them to be due again.
    const session = this.#sessionOf(providerId)
    for (const order of orders) {
      session?.send({ case: 'removeOrphan', value: toRemoveOrphan(order, config.orphanRemovalTimeoutMs) })
      this.#log.info({ orphan: order.externalId, ownershipKey: order.ownershipKey }, 'an orphan is to be removed')
    }
    wake.signal({ kind: 'change' })
  }

  #sessionOf(providerId: string) {
    return this.#registry.ofProvider(providerId).find((session) => session.removesOrphans)
  }
}

function toRemoveOrphan({ orderId, kind, externalId, ownershipKey, name }: DueOrder, deadlineMs: number) {
  return create(RemoveOrphanSchema, {
    resource: create(OwnedResourceSchema, { kind, externalId, ownershipKey, name }),
    orderId,
    deadline: durationFromMs(deadlineMs),
  })
}

/** Stores what an instance says became of an order. */
export async function recordOrphanRemoval(
  deps: GatewayDeps,
  provider: { readonly id: string; readonly name: string },
  removal: OrphanRemoval,
): Promise<void> {
  await inTransaction(deps.db, (tx) => recordOrderAnswer(tx, provider, fromOrphanRemoval(removal)))
  deps.wake.signal({ kind: 'change' })
}
