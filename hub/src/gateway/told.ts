import { MaintenanceWish, ProviderEventSeverity, type ProviderEvents } from '@slipway/proto/provider/v1'
import type { Logger } from 'pino'
import { inTransaction, type Tx } from '../store/database.js'
import { takeCallbacks } from '../store/machine-waits.js'
import { recordDroppedEvents, recordProviderEvents, type ToldEvent } from '../store/provider-events.js'
import { requireSession } from '../store/sessions.js'
import type { GatewayDeps } from './deps.js'

/** Events that one session may tell in a minute; what asks for maintenance is taken in beyond that. */
const perMinute = 120
const minuteMs = 60_000
/** Told and not yet stored, of one session. What comes on top is dropped: it is told again, or it is but an event. */
const maxQueued = 50

const severities: Readonly<Record<ProviderEventSeverity, ToldEvent['severity']>> = {
  [ProviderEventSeverity.UNSPECIFIED]: 'INFO',
  [ProviderEventSeverity.INFO]: 'INFO',
  [ProviderEventSeverity.WARNING]: 'WARNING',
  [ProviderEventSeverity.ERROR]: 'ERROR',
}

const maintenance: Readonly<Record<MaintenanceWish, ToldEvent['maintenance']>> = {
  [MaintenanceWish.UNSPECIFIED]: undefined,
  [MaintenanceWish.BEGIN]: 'begin',
  [MaintenanceWish.END]: 'end',
}

/** What one session tells beside its reports: events, and that machines have called back. Nothing of it is acknowledged. */
export class Told {
  readonly #deps: GatewayDeps
  readonly #sessionId: string
  readonly #provider: { readonly id: string; readonly name: string }
  readonly #log: Logger
  #queue: Promise<void> = Promise.resolve()
  #queued = 0
  #minuteAtMs = 0
  #taken = 0
  #dropped = 0

  constructor(deps: GatewayDeps, sessionId: string, provider: { readonly id: string; readonly name: string }) {
    this.#deps = deps
    this.#sessionId = sessionId
    this.#provider = provider
    this.#log = deps.log.child({ component: 'told', provider: provider.name })
  }

  events({ events }: ProviderEvents): void {
    const told = events.map((event) => ({
      externalId: event.externalId,
      reason: event.reason,
      severity: severities[event.severity],
      message: event.message,
      count: Math.max(1, event.count),
      maintenance: maintenance[event.maintenance],
    }))
    const dropped = this.#droppedBefore()
    const taken = told.filter((event) => this.#take(event))
    if (taken.length === 0 && dropped === 0) return
    this.#enqueue(async (tx) => {
      await recordProviderEvents(tx, this.#provider, taken)
      if (dropped > 0) await recordDroppedEvents(tx, this.#provider, dropped)
    })
  }

  calledBack(externalIds: readonly string[]): void {
    this.#enqueue(async (tx) => {
      await takeCallbacks(tx, this.#provider.id, externalIds)
    })
  }

  /** How many were dropped in the minute before, once it is over. */
  #droppedBefore(): number {
    const now = performance.now()
    if (now - this.#minuteAtMs < minuteMs) return 0
    const dropped = this.#dropped
    this.#minuteAtMs = now
    this.#taken = 0
    this.#dropped = 0
    return dropped
  }

  #take(event: ToldEvent): boolean {
    if (event.maintenance !== undefined || this.#taken < perMinute) {
      this.#taken += 1
      return true
    }
    this.#dropped += 1
    return false
  }

  #enqueue(work: (tx: Tx) => Promise<void>): void {
    if (this.#queued >= maxQueued) {
      this.#dropped += 1
      return
    }
    this.#queued += 1
    const store = (): Promise<void> =>
      inTransaction(
        this.#deps.db,
        async (tx) => {
          await requireSession(tx, this.#sessionId)
          await work(tx)
        },
        'listing',
      )
    this.#queue = this.#queue.then(store).then(
      () => {
        this.#queued -= 1
        this.#deps.wake.signal({ kind: 'work', providerId: this.#provider.id }, { kind: 'change' })
      },
      (error: unknown) => {
        this.#queued -= 1
        this.#log.warn({ err: error }, 'cannot take in what a provider tells now')
      },
    )
  }
}
