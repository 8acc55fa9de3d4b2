import { describeRemoval } from '../messages.js'
import { decide, goOn, hostEvent, isLive, moveHost, watchMs, type HostView, type PhaseOutcome } from '../record.js'
import { isRegistered } from './provision.js'

/** Asks for a place for an ORDERED host, once nothing is left of the attempt before. */
export function place(view: HostView): PhaseOutcome {
  const { host, request } = view
  if (host.state !== 'ORDERED') return goOn(host)
  if (!isLive(request)) return decide(host, null, { action: { kind: 'place' } })
  if (request.neverClaimed) return decide(host, 0, { action: { kind: 'cancel-request', lastError: null } })
  const waiting = {
    ...host,
    stateMessage: `Placed again once nothing is left of the attempt before. ${describeRemoval(request, view.connection)}`,
  }
  if (request.desiredPresence === 'ABSENT') return decide(waiting, watchMs)
  return decide(waiting, watchMs, { action: { kind: 'deprovision', failure: null } })
}

/** Waits for a person where a host is in ERROR, unless what it lost is there again. */
export function error({ host, request, machineState, now }: HostView): PhaseOutcome {
  if (host.state !== 'ERROR') return goOn(host)
  const well =
    request?.state === 'PROVISIONED' &&
    request.desiredPresence === 'PRESENT' &&
    request.presence === 'PRESENT' &&
    machineState !== 'GONE' &&
    isRegistered(host, request)
  if (!well) return decide(host, null)
  const ready = { ...moveHost(host, 'recovered', now, ''), lastError: null, readyAt: now }
  return decide(ready, null, { events: [hostEvent(host, 'HostReady', 'INFO', 'Its machine is there again')] })
}
