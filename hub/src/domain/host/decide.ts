import type { EventDraft } from '../facts.js'
import { riseConditions, toConditionReason, type HostConditionType } from './conditions.js'
import { endedAttempt } from './phases/attempt.js'
import { follow } from './phases/follow.js'
import { error, place } from './phases/place.js'
import { adopt, deadlines, isRegistered, provision, vanished } from './phases/provision.js'
import { release } from './phases/release.js'
import { isLive, type HostDecision, type HostRecord, type HostView, type Phase, type RequestView } from './record.js'

/** In this order; each sees the host as the one before left it. The last one always decides. */
const phases: readonly Phase[] = [follow, release, error, place, endedAttempt, vanished, adopt, provision, deadlines]

/** What becomes of a host, from all that is known. The same view gives the same decision. */
export function decideHost(view: HostView): HostDecision {
  const events: EventDraft[] = []
  let host = view.host
  for (const phase of phases) {
    const outcome = phase({ ...view, host })
    if (outcome.kind === 'decided') {
      const { decision } = outcome
      return { ...decision, host: withConditions(decision, view), events: [...events, ...decision.events] }
    }
    host = outcome.host
    events.push(...outcome.events)
  }
  throw new Error(`no phase decided about host ${host.name}`)
}

/** The host with the conditions that follow from how far it has come. */
function withConditions({ host, action }: HostDecision, view: HostView): HostRecord {
  // Why an ORDERED host waits is known only once a place has been looked for.
  if (action.kind === 'place') return host
  const request = host.state === 'RELEASED' || action.kind === 'cancel-request' ? null : view.request
  const rise = { reached: reachedBy(host, request), ...reasonOf(host), phoneHome: host.bootstrap.phoneHome }
  return { ...host, conditions: riseConditions(host.conditions, rise, view.now) }
}

function reachedBy(host: HostRecord, request: RequestView | null): HostConditionType {
  if (host.state === 'READY') return 'Ready'
  if (host.state === 'ORDERED' || !isLive(request)) return 'Accepted'
  const there =
    request.presence !== 'ABSENT' &&
    (request.presence === 'PRESENT' || request.externalId !== null || request.state === 'PROVISIONED')
  if (!there) return 'Placed'
  if (request.state !== 'PROVISIONED') return 'Created'
  return isRegistered(host, request) ? 'Registered' : 'Booted'
}

function reasonOf(host: HostRecord): { readonly reason: string; readonly message: string } {
  switch (host.state) {
    case 'ORDERED':
    case 'PLACED':
    case 'PROVISIONING':
    case 'BOOTSTRAPPING':
    case 'RELEASING':
    case 'RELEASED':
      return { reason: toConditionReason(host.state), message: host.stateMessage }
    case 'ERROR':
      return { reason: toConditionReason(host.lastError?.code ?? 'INTERNAL'), message: host.stateMessage }
    case 'READY':
      return { reason: 'Ready', message: '' }
  }
}
