import type { EventDraft } from '../../facts.js'
import { describeMaking } from '../messages.js'
import {
  decide,
  goOn,
  hostEvent,
  moveHost,
  watchMs,
  type HostRecord,
  type HostView,
  type PhaseOutcome,
  type RequestView,
} from '../record.js'
import { failHost, leaveAttempt, makeError, phoneHomeStep } from './attempt.js'

/** At least this long after a provider has come back before a deadline fires. */
const reconnectGraceMs = 2 * 60_000

/** Notices that the machine of a request that was well is not there any more. Nothing is removed or made for that: a person decides. */
export function vanished({ host, request, machineState, now }: HostView): PhaseOutcome {
  if (request?.state !== 'PROVISIONED') return goOn(host)
  if (request.presence !== 'ABSENT' && machineState !== 'GONE') return goOn(host)
  const what = request.externalId === null ? 'Its machine' : `Its machine ${request.externalId}`
  const error = makeError(
    'UNAVAILABLE',
    `${what} vanished outside of Slipway; retry the host to have another one, or release it`,
    '',
    now,
  )
  return failHost(host, error, now)
}

/** Moves the host on as far as its request has come. */
export function provision(view: HostView): PhaseOutcome {
  const { request, now } = view
  if (request === null || view.host.state === 'READY') return goOn(view.host)
  const events: EventDraft[] = []
  let host: HostRecord = { ...view.host, stateMessage: describeMaking(request, view.connection) }
  const { lastError } = request
  if (isReinstalling(request) && lastError !== null && !lastError.retryable) return failHost(host, lastError, now)
  if (host.state === 'PLACED' && request.state === 'PROVISIONING') {
    host = moveHost(host, 'claimed', now, host.stateMessage)
    events.push(hostEvent(host, 'HostProvisioning', 'INFO', `Provider ${request.providerName} is making its machine`))
  }
  if ((host.state === 'PLACED' || host.state === 'PROVISIONING') && request.state === 'PROVISIONED') {
    host = moveHost(host, 'provisioned', now, host.stateMessage)
    if (!isRegistered(host, request)) {
      events.push(hostEvent(host, 'HostBootstrapping', 'INFO', 'Its machine exists, and has yet to phone home'))
    }
  }
  if (host.state === 'BOOTSTRAPPING') {
    host = { ...host, stateMessage: 'Waiting for its machine to phone home' }
    if (isRegistered(host, request)) {
      host = { ...moveHost(host, 'ready', now, ''), readyAt: now, lastError: null, progress: null }
      events.push(
        hostEvent(
          host,
          'HostReady',
          'INFO',
          host.bootstrap.phoneHome ? 'Its machine has phoned home' : 'Its machine is up',
        ),
      )
    }
  }
  return goOn(host, events)
}

/** Whether a new system is being put on a machine that its host has had before. */
function isReinstalling(request: RequestView): boolean {
  return request.operation === 'REINSTALL' && request.state === 'PROVISIONING'
}

/** Whether the machine has said of itself that it is up, where its class asks for that. */
export function isRegistered(host: HostRecord, request: RequestView): boolean {
  return !host.bootstrap.phoneHome || request.phonedHomeAt !== null
}

/**
 * Ends what takes too long. While the provider is out of reach nothing is concluded from silence, and afterwards, as after a start of the hub, there is time
 * for it to speak up.
 */
export function deadlines(view: HostView): PhaseOutcome {
  const { host, request, connection, now } = view
  if (request === null || host.state === 'READY') return decide(host, null)
  if (connection.connectedSince === null) return decide(host, watchMs)
  const deadline = deadlineOf(host, request)
  const earliest = Math.max(view.graceUntil.getTime(), connection.connectedSince.getTime() + reconnectGraceMs)
  const leftMs = Math.max(deadline.at, earliest) - now.getTime()
  if (leftMs > 0) return decide(host, Math.min(leftMs, watchMs))
  const error = makeError('TIMEOUT', deadline.message, deadline.step, now)
  // It was in use before: a person decides what becomes of it. If it speaks up late, its host is READY.
  if (request.operation === 'REINSTALL') return failHost(host, error, now)
  return leaveAttempt(
    view,
    request,
    error,
    request.neverClaimed ? { kind: 'cancel-request', lastError: error } : { kind: 'deprovision', failure: error },
  )
}

interface Deadline {
  readonly at: number
  readonly step: string
  readonly message: string
}

function deadlineOf({ bootstrap, state }: HostRecord, request: RequestView): Deadline {
  if (state === 'BOOTSTRAPPING') {
    return {
      at: (request.provisionedAt ?? request.createdAt).getTime() + bootstrap.phoneHomeTimeoutMs,
      step: phoneHomeStep,
      message: `The machine was provisioned, and did not phone home within ${inWords(bootstrap.phoneHomeTimeoutMs)}`,
    }
  }
  const last =
    request.lastError === null ? '' : `; the last failure was ${request.lastError.code}: ${request.lastError.message}`
  const what = request.operation === 'REINSTALL' ? 'Reinstalling' : 'Provisioning'
  return {
    at: (request.reinstallWishedAt ?? request.createdAt).getTime() + bootstrap.provisionTimeoutMs,
    step: '',
    message: `${what} was not done within ${inWords(bootstrap.provisionTimeoutMs)}${last}`,
  }
}

function inWords(ms: number): string {
  return ms % 60_000 === 0 ? `${ms / 60_000} min` : `${ms / 1_000} s`
}
