import type { Address, Condition, EventDraft, EventReason, LastError, PowerState, Price, Progress } from '../facts.js'
import type { MachineState } from '../machine/machine.js'
import type { Presence, RequestOperation, RequestState } from '../request/request.js'
import type { ClassBootstrap, HostState, PlacementAttempt } from './host.js'
import { transitionHost, type HostEvent } from './transitions.js'

/** A host, as far as its life concerns it. */
export interface HostRecord {
  readonly organizationId: string
  readonly id: string
  /** `workspaces/{workspace}/hosts/{id}`. */
  readonly name: string
  readonly bootstrap: ClassBootstrap
  readonly state: HostState
  readonly stateAt: Date
  readonly stateMessage: string
  readonly conditions: readonly Condition[]
  readonly lastError: LastError | null
  readonly attempts: readonly PlacementAttempt[]
  readonly providerId: string | null
  readonly providerName: string | null
  readonly requestId: string | null
  readonly requestName: string | null
  readonly machineId: string | null
  readonly machineName: string | null
  readonly addresses: readonly Address[]
  readonly power: PowerState | null
  readonly price: Price | null
  readonly progress: Progress | null
  readonly phoneHomeAt: Date | null
  readonly readyAt: Date | null
  readonly releasedAt: Date | null
}

/** A host's machine request, as far as it concerns the host. */
export interface RequestView {
  readonly id: string
  readonly name: string
  readonly providerId: string
  readonly providerName: string
  readonly state: RequestState
  /** REINSTALL also once it is done: from the first one on, the machine is one to be kept. */
  readonly operation: RequestOperation
  /** The server that it takes over, by its id out there. Null: its machine is made, or is one of a static provider. */
  readonly adoptExternalId: string | null
  /** When the latest reinstall was wished for. */
  readonly reinstallWishedAt: Date | null
  readonly desiredPresence: 'PRESENT' | 'ABSENT'
  readonly presence: Presence
  readonly externalId: string | null
  readonly typeId: string
  readonly location: string
  readonly price: Price | null
  readonly machineId: string | null
  readonly machineName: string | null
  readonly addresses: readonly Address[]
  readonly power: PowerState | null
  readonly progress: Progress | null
  readonly lastError: LastError | null
  readonly createdAt: Date
  /** Since when its machine is left alone; null: it is not. */
  readonly pausedAt: Date | null
  /** For how long it was, since its present deadline began to count. */
  readonly pausedMs: number
  readonly provisionedAt: Date | null
  readonly phonedHomeAt: Date | null
  readonly forgottenBy: string | null
  /** No instance has ever been told of it. */
  readonly neverClaimed: boolean
}

/** Whether a provider's instances can be reached. */
export interface ConnectionView {
  /** Null: no instance is connected. */
  readonly connectedSince: Date | null
}

/** All that a decision about a host depends on. */
export interface HostView {
  readonly host: HostRecord
  /** Of the host's present request. Null: it never had one, or its record is gone. */
  readonly request: RequestView | null
  readonly machineState: MachineState | null
  readonly connection: ConnectionView
  readonly now: Date
  /** No deadline fires before: the hub has only just come back. */
  readonly graceUntil: Date
}

/** What is to be done besides storing the host. */
export type HostAction =
  | { readonly kind: 'none' }
  /** Find a place, and store a request for it. */
  | { readonly kind: 'place' }
  /** Nobody was ever told of the request: it ends here and now, and its machine was not touched. */
  | { readonly kind: 'cancel-request'; readonly lastError: LastError | null }
  /** Wish that nothing of the request exists. `failure`: it is given up for that reason. */
  | { readonly kind: 'deprovision'; readonly failure: LastError | null }
  /** Its machine, which was in use already, was looked at and is the host's from here on. */
  | { readonly kind: 'adopt' }

export interface HostDecision {
  readonly host: HostRecord
  readonly action: HostAction
  readonly events: readonly EventDraft[]
  /** When to look again though nothing was heard. Null: never. */
  readonly lookAgainInMs: number | null
}

/** How a phase ends: the next one goes on with the host, or the decision is made. */
export type PhaseOutcome =
  | { readonly kind: 'on'; readonly host: HostRecord; readonly events: readonly EventDraft[] }
  | { readonly kind: 'decided'; readonly decision: HostDecision }

export type Phase = (view: HostView) => PhaseOutcome

/** Looks again at the latest after this long while something is under way, to notice what nobody tells: a provider that is out of reach. */
export const watchMs = 60_000

export function goOn(host: HostRecord, events: readonly EventDraft[] = []): PhaseOutcome {
  return { kind: 'on', host, events }
}

export function decide(
  host: HostRecord,
  lookAgainInMs: number | null,
  rest: { readonly action?: HostAction; readonly events?: readonly EventDraft[] } = {},
): PhaseOutcome {
  return {
    kind: 'decided',
    decision: { host, action: rest.action ?? { kind: 'none' }, events: rest.events ?? [], lookAgainInMs },
  }
}

/**
 * The host after an event of its life, with what to tell people.
 *
 * @throws Error where the table of transitions does not know the move: a defect.
 */
export function moveHost(host: HostRecord, event: HostEvent, now: Date, stateMessage: string): HostRecord {
  const state = transitionHost(host.state, event)
  if (state === undefined) throw new Error(`host ${host.name} is ${host.state}, which has no event ${event}`)
  return { ...host, state, stateAt: now, stateMessage }
}

/** A line for the host's timeline. */
export function hostEvent(
  host: HostRecord,
  reason: EventReason,
  severity: EventDraft['severity'],
  message: string,
): EventDraft {
  return {
    subject: host.name,
    related: [
      ...(host.requestName === null ? [] : [`machineRequests/${host.requestName}`]),
      ...(host.providerName === null ? [] : [`providers/${host.providerName}`]),
      ...(host.machineName === null ? [] : [`machines/${host.machineName}`]),
    ],
    reason,
    severity,
    message,
    organizationId: host.organizationId,
    ...(host.providerId !== null && { providerId: host.providerId }),
  }
}

/** A request of which something may exist. */
export type LiveRequest = RequestView & { readonly state: Exclude<RequestState, 'GONE'> }

export function isLive(request: RequestView | null): request is LiveRequest {
  return request !== null && request.state !== 'GONE'
}
