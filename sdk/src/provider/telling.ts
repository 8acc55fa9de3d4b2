import { MaintenanceWish, ProviderEventSeverity } from '@slipway/proto/provider/v1'
import type { Session } from '../internal/session.js'
import type { ProviderEvent } from './types.js'

/** What is alike within this is counted, and told once. */
const gatherMs = 2_000
/** Told and not yet sent. What comes on top is dropped, and counted. */
const maxQueued = 200
const maxInMessage = 100

const severities = {
  info: ProviderEventSeverity.INFO,
  warning: ProviderEventSeverity.WARNING,
  error: ProviderEventSeverity.ERROR,
} as const

const wishes = { begin: MaintenanceWish.BEGIN, end: MaintenanceWish.END } as const

interface Queued {
  readonly event: ProviderEvent
  count: number
}

/** Takes what a provider tells beside its work to the hub: gathered, counted, and never waited for. */
export class Telling {
  readonly #session: Session
  readonly #queue = new Map<string, Queued>()
  readonly #called = new Set<string>()
  #timer: NodeJS.Timeout | undefined
  #dropped = 0

  constructor(session: Session) {
    this.#session = session
  }

  event(event: ProviderEvent): void {
    const key = JSON.stringify([event.externalId, event.reason, event.message, event.maintenance])
    const known = this.#queue.get(key)
    if (known !== undefined) known.count += event.count ?? 1
    else if (this.#queue.size < maxQueued || event.maintenance !== undefined)
      this.#queue.set(key, { event, count: event.count ?? 1 })
    else this.#dropped += 1
    this.#timer ??= setTimeout(() => this.flush(), event.maintenance === undefined ? gatherMs : 0)
    this.#timer.unref()
  }

  calledBack(externalId: string): void {
    if (this.#called.size === 0) setImmediate(() => this.#sendCalled())
    this.#called.add(externalId)
  }

  /** Sends what waits. Without a stream it goes on waiting; a session that begins asks for it. */
  flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#session.stream === 0 || this.#queue.size === 0) return
    const queued = [...this.#queue.values()]
    this.#queue.clear()
    if (this.#dropped > 0) {
      const message = `${this.#dropped} more events were not told`
      queued.push({ event: { reason: 'EventsDropped', message, severity: 'warning' }, count: 1 })
      this.#dropped = 0
    }
    for (let at = 0; at < queued.length; at += maxInMessage)
      this.#session.send({ case: 'events', value: { events: queued.slice(at, at + maxInMessage).map(toProto) } })
  }

  /** A machine that was not heard says it again. */
  #sendCalled(): void {
    const externalIds = [...this.#called]
    this.#called.clear()
    if (this.#session.stream === 0) return
    for (let at = 0; at < externalIds.length; at += 1_000)
      this.#session.send({ case: 'calledBack', value: { externalIds: externalIds.slice(at, at + 1_000) } })
  }
}

function toProto({ event, count }: Queued) {
  const { externalId = '', reason, message, severity = 'info', maintenance } = event
  return {
    externalId,
    reason,
    severity: severities[severity],
    message: message.slice(0, 1024),
    count,
    maintenance: maintenance === undefined ? MaintenanceWish.UNSPECIFIED : wishes[maintenance],
  }
}
