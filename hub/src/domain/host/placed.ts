import type { EventDraft, Price } from '../facts.js'
import {
  describePlace,
  rejectionReasons,
  type Candidate,
  type Judged,
  type RejectionReason,
} from '../placement/placement.js'
import { formatMicros, hourlyMicros } from '../price/price.js'
import { riseConditions, toConditionReason } from './conditions.js'
import { hostEvent, moveHost, type HostDecision, type HostRecord } from './record.js'

/** The pause before a place is looked for again grows with the time that a host has waited, within these. */
const firstPauseMs = 1_000
const longestPauseMs = 30_000
/** Places that are named where none would do. */
const namedPlaces = 3

/** The request that was stored for a host. */
export interface StoredRequest {
  readonly id: string
  readonly name: string
  readonly price: Price | null
}

/** The host once a place was found for it. */
export function placeHost(
  host: HostRecord,
  request: StoredRequest,
  chosen: Candidate,
  now: Date,
): { readonly host: HostRecord; readonly events: readonly EventDraft[] } {
  const placed: HostRecord = {
    ...moveHost(host, 'placed', now, `Waiting for an instance of provider ${chosen.provider.name} to take it up`),
    providerId: chosen.provider.id,
    providerName: chosen.provider.name,
    requestId: request.id,
    requestName: request.name,
    machineId: chosen.machine?.id ?? null,
    machineName: chosen.machine?.name ?? null,
    addresses: [],
    power: null,
    price: request.price,
    progress: null,
    phoneHomeAt: null,
  }
  const rise = {
    reached: 'Placed',
    reason: 'Placed',
    message: placed.stateMessage,
    phoneHome: host.bootstrap.phoneHome,
  } as const
  const price =
    request.price === null ? '' : `, ${formatMicros(hourlyMicros(request.price), request.price.currency)} an hour`
  return {
    host: { ...placed, conditions: riseConditions(placed.conditions, rise, now) },
    events: [
      hostEvent(placed, 'HostPlaced', 'INFO', `Placed with ${describePlace(chosen)}${price}`),
      {
        subject: `machineRequests/${request.name}`,
        related: [host.name, `providers/${chosen.provider.name}`],
        reason: 'RequestCreated',
        severity: 'INFO',
        message: `Ordered of provider ${chosen.provider.name}`,
        providerId: chosen.provider.id,
        organizationId: host.organizationId,
      },
    ],
  }
}

/** The host while no place would do. The timeline tells of it once for each reason. */
export function keepWaiting(host: HostRecord, judged: readonly Judged[], now: Date): HostDecision {
  const { reason, message } = whyNoPlace(judged)
  const before = host.conditions.find((condition) => condition.type === 'Placed')
  const rise = {
    reached: 'Accepted',
    reason: toConditionReason(reason),
    message,
    phoneHome: host.bootstrap.phoneHome,
  } as const
  const conditions = riseConditions(host.conditions, rise, now)
  const told = before?.reason === toConditionReason(reason)
  const waiting = { ...host, stateMessage: message, conditions }
  const waitedMs = Math.max(0, now.getTime() - host.stateAt.getTime())
  return {
    host: waiting,
    action: { kind: 'none' },
    events: told ? [] : [hostEvent(waiting, 'HostWaiting', 'WARNING', message)],
    lookAgainInMs: Math.min(longestPauseMs, Math.max(firstPauseMs, Math.round(waitedMs / 2))),
  }
}

/** The reason nearest to a place: what passes by itself before what lasts; among those, the one of the most places. */
function whyNoPlace(judged: readonly Judged[]): {
  readonly reason: RejectionReason | 'NO_PROVIDER'
  readonly message: string
} {
  const rejections = judged.flatMap(({ rejected }) => (rejected === undefined ? [] : [rejected]))
  const passing = rejections.filter(({ reason }) => rejectionReasons[reason] === 'passing')
  const nearest = passing.length > 0 ? passing : rejections
  const first = nearest[0]
  if (first === undefined)
    return { reason: 'NO_PROVIDER', message: 'No place for it now: no provider offers its class' }
  const counts = new Map<RejectionReason, number>()
  for (const { reason } of nearest) counts.set(reason, (counts.get(reason) ?? 0) + 1)
  const [reason] = [...counts].reduce((best, next) => (next[1] > best[1] ? next : best))
  const named = [
    ...nearest.filter((rejected) => rejected.reason === reason),
    ...nearest.filter((rejected) => rejected.reason !== reason),
  ]
  const more = judged.length > namedPlaces ? `; and ${judged.length - namedPlaces} more` : ''
  const message = named
    .slice(0, namedPlaces)
    .map((rejected) => rejected.message)
    .join('; ')
  return { reason, message: `No place for it now: ${message}${more}` }
}
