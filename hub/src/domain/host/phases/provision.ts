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

/**
 * Follows a server in use at a static provider on its way into a host: its provider looks at it, and nothing else is done. A person has it looked at anew where that
 * failed. One at a dynamic provider is claimed as a request, and goes the way of what is made.
 */
export function adopt({ host, request, machineState }: HostView): PhaseOutcome {
  if (request?.operation !== 'ADOPT' || request.state !== 'PENDING' || request.adoptExternalId !== null)
    return goOn(host)
  const { machineName } = request
  if (machineState === 'ACTIVE') {
    const message = `Machine ${machineName ?? ''} is as it was, and the host's from here on`
    return decide(host, 0, { action: { kind: 'adopt' }, events: [hostEvent(host, 'MachineAdopted', 'INFO', message)] })
  }
  const stateMessage =
    machineState === 'ADOPT_FAILED'
      ? `Machine ${machineName ?? ''} could not be looked at; see its last error, and retry it`
      : `Provider ${request.providerName} looks at machine ${machineName ?? ''}, which is in use`
  return decide({ ...host, stateMessage }, watchMs)
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
    const work =
      request.adoptExternalId === null ? 'making its machine' : `taking over server ${request.adoptExternalId}`
    events.push(hostEvent(host, 'HostProvisioning', 'INFO', `Provider ${request.providerName} is ${work}`))
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
  // While a person has the machine left alone, nobody is late.
  if (request.pausedAt !== null) return decide(host, watchMs)
  const deadline = deadlineOf(host, request)
  const earliest = Math.max(view.graceUntil.getTime(), connection.connectedSince.getTime() + reconnectGraceMs)
  const leftMs = Math.max(deadline.at + request.pausedMs, earliest) - now.getTime()
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
  const what =
    request.operation === 'REINSTALL' ? 'Reinstalling' : request.operation === 'ADOPT' ? 'Adopting' : 'Provisioning'
  return {
    at: (request.reinstallWishedAt ?? request.createdAt).getTime() + bootstrap.provisionTimeoutMs,
    step: '',
    message: `${what} was not done within ${inWords(bootstrap.provisionTimeoutMs)}${last}`,
  }
}

function inWords(ms: number): string {
  return ms % 60_000 === 0 ? `${ms / 60_000} min` : `${ms / 1_000} s`
}
