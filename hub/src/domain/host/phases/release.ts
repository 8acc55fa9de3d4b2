import {
  decide,
  goOn,
  hostEvent,
  isLive,
  moveHost,
  watchMs,
  type HostRecord,
  type HostView,
  type PhaseOutcome,
} from '../record.js'
import { describeRemoval } from '../messages.js'

/** Lets go of everything that a RELEASING host has; it is RELEASED once nothing of it exists any more. */
export function release(view: HostView): PhaseOutcome {
  const { host, request, now } = view
  if (host.state === 'RELEASED') return decide(host, null)
  if (host.state !== 'RELEASING') return goOn(host)
  if (!isLive(request)) {
    const released = endHost(host, now)
    const by = request?.forgottenBy ?? null
    const forgotten = by === null ? '' : `, though its machine was forgotten by ${by} and may still exist`
    return decide(released, null, { events: [hostEvent(host, 'HostReleased', 'INFO', `Released${forgotten}`)] })
  }
  if (request.neverClaimed) {
    return decide(endHost(host, now), null, {
      action: { kind: 'cancel-request', lastError: null },
      events: [hostEvent(host, 'HostReleased', 'INFO', 'Released before anything was made for it')],
    })
  }
  const waiting: HostRecord = { ...host, stateMessage: describeRemoval(request, view.connection) }
  if (request.desiredPresence === 'ABSENT') return decide(waiting, watchMs)
  return decide(waiting, watchMs, { action: { kind: 'deprovision', failure: null } })
}

function endHost(host: HostRecord, now: Date): HostRecord {
  return {
    ...moveHost(host, 'released', now, 'Nothing of it exists any more'),
    lastError: null,
    machineId: null,
    machineName: null,
    addresses: [],
    power: null,
    progress: null,
    releasedAt: now,
  }
}
