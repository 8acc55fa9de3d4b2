import type { LastError } from '../../facts.js'
import type { PlacementAttempt } from '../host.js'
import { describeError } from '../messages.js'
import {
  decide,
  goOn,
  hostEvent,
  isLive,
  moveHost,
  watchMs,
  type HostAction,
  type HostRecord,
  type HostView,
  type PhaseOutcome,
  type RequestView,
} from '../record.js'

/** Places that had none are left for another one this many times. */
const maxFallbacks = 5
/** Machines that stay silent are replaced this many times. */
const maxReplacements = 2
/** Attempts that a host keeps. */
const keptAttempts = 20
/** The step in which a machine stays silent; that of no provider. */
export const phoneHomeStep = 'phone-home'

/** Takes in that an attempt has come to its end: another place is tried, or the host is in ERROR. */
export function endedAttempt(view: HostView): PhaseOutcome {
  const { host, request } = view
  if (request === null) {
    const error = makeError(
      'INTERNAL',
      `The record of its machine request ${host.requestName ?? ''} is missing`,
      '',
      view.now,
    )
    return failHost(host, error, view.now)
  }
  const ended =
    request.state === 'FAILED' ||
    request.state === 'DEPROVISIONING' ||
    !isLive(request) ||
    request.desiredPresence === 'ABSENT'
  if (!ended) return goOn(host)
  const recorded = host.attempts.find((attempt) => attempt.request === request.name)
  return leaveAttempt(view, request, recorded?.error ?? request.lastError ?? unexplained(request, view.now), {
    kind: 'none',
  })
}

/**
 * Leaves an attempt that failed with `error`, and says what becomes of the host. The next one begins only when nothing of this one exists.
 *
 * @param action what is to be done with the request; it is wished away in any case.
 */
export function leaveAttempt(view: HostView, request: RequestView, error: LastError, action: HostAction): PhaseOutcome {
  const { host, now } = view
  const replace = host.state !== 'READY' && mayReplace(host, request, error)
  const noted = { ...host, attempts: recordAttempt(host.attempts, request, error, !replace), lastError: error }
  const wish: HostAction =
    action.kind === 'none' && isLive(request) && request.desiredPresence === 'PRESENT'
      ? { kind: 'deprovision', failure: null }
      : action
  const cancelled = action.kind === 'cancel-request'
  if (!replace) {
    const failed = moveHost(noted, 'failed', now, describeError(error))
    return decide(failed, cancelled ? 0 : null, {
      action: wish,
      events: [hostEvent(noted, 'HostFailed', 'ERROR', describeError(error))],
    })
  }
  if (cancelled || !isLive(request)) {
    const why = `Left ${request.typeId || request.name} at provider ${request.providerName}: ${describeError(error)}`
    const again = moveHost(noted, 'replace', now, 'Looking for another place')
    return decide(again, 0, { action: wish, events: [hostEvent(noted, 'HostReplaced', 'WARNING', why)] })
  }
  const stateMessage = `Another place is tried once nothing is left of this one. ${describeError(error)}`
  return decide({ ...noted, stateMessage }, watchMs, { action: wish })
}

/** Moves a host to ERROR, outside of any attempt. */
export function failHost(host: HostRecord, error: LastError, now: Date): PhaseOutcome {
  const failed = { ...moveHost(host, 'failed', now, describeError(error)), lastError: error }
  return decide(failed, null, { events: [hostEvent(host, 'HostFailed', 'ERROR', describeError(error))] })
}

/** An error that the hub itself found. */
export function makeError(code: LastError['code'], message: string, step: string, now: Date): LastError {
  return { code, message, externalCode: '', step, retryable: false, attempts: 1, at: now.toISOString() }
}

function unexplained(request: RequestView, now: Date): LastError {
  if (request.forgottenBy !== null) {
    return makeError('INTERNAL', `Its machine was forgotten by ${request.forgottenBy}, and may still exist`, '', now)
  }
  return makeError('INTERNAL', `Its machine request ${request.name} ended, and nobody said why`, '', now)
}

function mayReplace(host: HostRecord, request: RequestView, error: LastError): boolean {
  // Whoever wants this server is served by no other.
  if (request.adoptExternalId !== null && host.readyAt === null) return false
  const earlier = attemptsOfRound(host.attempts).filter((attempt) => attempt.request !== request.name)
  if (hadNone(error)) return earlier.filter((attempt) => hadNone(attempt.error)).length < maxFallbacks
  if (staysSilent(error)) return earlier.filter((attempt) => staysSilent(attempt.error)).length < maxReplacements
  return false
}

const hadNone = (error: LastError) => error.code === 'CAPACITY' || error.code === 'QUOTA'
const staysSilent = (error: LastError) => error.code === 'TIMEOUT' && error.step === phoneHomeStep

/** The attempts since a person last asked for a retry. */
function attemptsOfRound(attempts: readonly PlacementAttempt[]): readonly PlacementAttempt[] {
  return attempts.slice(attempts.findLastIndex((attempt) => attempt.final === true) + 1)
}

function recordAttempt(
  attempts: readonly PlacementAttempt[],
  request: RequestView,
  error: LastError,
  final: boolean,
): readonly PlacementAttempt[] {
  const attempt: PlacementAttempt = {
    provider: request.providerName,
    request: request.name,
    typeId: request.typeId,
    location: request.location,
    error,
    startedAt: request.createdAt.toISOString(),
    ...(final && { final: true }),
  }
  return [...attempts.filter((known) => known.request !== request.name), attempt].slice(-keptAttempts)
}
