import type { Condition, JsonObject, Labels, Shape } from '../facts.js'
import type { PlacementWish } from '../host/host.js'
import { mergeConditions } from '../request/apply-report.js'
import type { HeldReason, Member, Plan, Wanted } from './plan.js'

export const spreads = ['NONE', 'PROVIDER', 'LOCATION', 'FAILURE_DOMAIN'] as const
export type Spread = (typeof spreads)[number]

export type HostSetState = 'PROGRESSING' | 'READY' | 'DEGRADED' | 'PAUSED' | 'DELETING'
export type PauseReason = 'ByRequest' | 'RolloutFailed'

/** What each member of a set is ordered as, but for its user-data, which is kept apart. */
export interface HostTemplate {
  /** A machine class's name; empty: the shape says it. */
  readonly className: string
  readonly shape: Shape | null
  readonly placement: PlacementWish
  readonly providerData: JsonObject
  readonly labels: Labels
  readonly annotations: Labels
  readonly protected: boolean
  readonly lifetimeMs: number | null
  /** Keys that may log in. Absent: none; sets from before there were any lack it. */
  readonly sshPublicKeys?: readonly string[]
}

/** Whether members that were ordered by one template have to be replaced for another: what tells of the machine, and not of the record. */
export function replacesMembers(before: HostTemplate, after: HostTemplate): boolean {
  const ofMachine = ({ className, shape, placement, providerData, sshPublicKeys = [] }: HostTemplate) =>
    canonical({ className, shape, placement, providerData, sshPublicKeys })
  return ofMachine(before) !== ofMachine(after)
}

/** As text, the same whatever the order of its keys: the database keeps none. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, each: unknown) =>
    typeof each === 'object' && each !== null && !Array.isArray(each)
      ? Object.fromEntries(Object.entries(each).toSorted(([one], [other]) => (one < other ? -1 : 1)))
      : each,
  )
}

export interface HostSetCounts {
  /** Not being released. */
  readonly current: number
  readonly ready: number
  readonly updated: number
  readonly unhealthy: number
  readonly releasing: number
}

export function countMembers(members: readonly Member[], revision: number): HostSetCounts {
  const active = members.filter((member) => !member.leaving)
  return {
    current: active.length,
    ready: active.filter(({ health }) => health === 'ready').length,
    updated: active.filter((member) => member.revision === revision).length,
    unhealthy: active.filter(({ health }) => health === 'failed').length,
    releasing: members.length - active.length,
  }
}

/** What people are told of a set. */
export interface HostSetStatus {
  readonly state: HostSetState
  readonly message: string
  readonly counts: HostSetCounts
  readonly conditions: readonly Condition[]
}

const heldMessages: Readonly<Record<HeldReason, string>> = {
  Protected: 'Protected members stay as they are; take the protection off to have them replaced or released',
  ProviderOutOfSight: 'Members whose provider is out of sight are not replaced until it is back',
  TooManyUnhealthy:
    'More members are unhealthy than the repair policy takes for a fault of their machines: none is replaced',
  RepairsOff: 'The repair policy replaces no unhealthy members',
  RepairsPaused: 'Unhealthy members were replaced just now; the next ones wait a while',
  OrdersHeld: 'An order was refused; it is tried again',
}

/** Which of the things that it must not do keep it from being well, the first first. */
const heldOrder: readonly HeldReason[] = [
  'OrdersHeld',
  'TooManyUnhealthy',
  'RepairsOff',
  'ProviderOutOfSight',
  'Protected',
  'RepairsPaused',
]

/** What is to be said of a set. @param refusal why the latest order was refused; undefined: it was not. */
export function describeHostSet(
  view: {
    readonly wanted: Wanted
    readonly members: readonly Member[]
    readonly plan: Plan
    readonly pauseReason: PauseReason | null
    readonly refusal: { readonly reason: string; readonly message: string } | undefined
    readonly before: readonly Condition[]
  },
  now: Date,
): HostSetStatus {
  const { wanted, members, plan } = view
  const counts = countMembers(members, wanted.revision)
  const outdated = counts.current - counts.updated
  const held = heldOrder.find((reason) => plan.held.includes(reason))
  const done = counts.ready === wanted.replicas && counts.current === wanted.replicas && outdated === 0
  // Where all are there, an order that was refused once has been made up for.
  const refusal = done ? undefined : view.refusal
  const tally = `${counts.ready} of ${wanted.replicas} READY${outdated > 0 ? `, ${outdated} outdated` : ''}`
  const state = stateOf(view, done, held)
  const why = refusal?.message ?? (held === undefined ? undefined : heldMessages[held])
  const message = state === 'READY' ? tally : [tally, ...(why === undefined ? [] : [why])].join('; ')
  const least = Math.max(0, wanted.replicas - wanted.maxUnavailable)
  const of = (type: string, holds: boolean, reason: string, text = '') => ({
    type,
    status: holds ? ('TRUE' as const) : ('FALSE' as const),
    reason,
    message: text,
  })
  const conditions = mergeConditions(
    view.before,
    [
      of('Ready', done, done ? 'Ready' : reasonOf(state, held), done ? '' : message),
      of('Available', counts.ready >= least, counts.ready >= least ? 'EnoughReady' : 'TooFewReady', tally),
      of(
        'RolledOut',
        outdated === 0,
        outdated === 0 ? 'UpToDate' : (view.pauseReason ?? held ?? 'RollingOut'),
        outdated === 0 ? '' : tally,
      ),
      of('Ordered', refusal === undefined, refusal?.reason ?? 'Accepted', refusal?.message ?? ''),
      of(
        'Healthy',
        counts.unhealthy === 0,
        counts.unhealthy === 0 ? 'AllHealthy' : 'MembersUnhealthy',
        counts.unhealthy === 0
          ? ''
          : `${counts.unhealthy} of ${counts.current} members are in ERROR, or were not READY in time${why === undefined ? '' : `; ${why}`}`,
      ),
      of(
        'Unprotected',
        !plan.held.includes('Protected'),
        plan.held.includes('Protected') ? 'Protected' : 'NothingHeld',
        plan.held.includes('Protected') ? heldMessages.Protected : '',
      ),
    ],
    now,
  )
  return { state, message, counts, conditions }
}

function stateOf(
  view: { readonly wanted: Wanted; readonly pauseReason: PauseReason | null },
  done: boolean,
  held: HeldReason | undefined,
): HostSetState {
  if (view.wanted.deleting) return 'DELETING'
  if (view.pauseReason !== null) return 'PAUSED'
  if (done) return 'READY'
  return held === undefined || held === 'RepairsPaused' ? 'PROGRESSING' : 'DEGRADED'
}

function reasonOf(state: HostSetState, held: HeldReason | undefined): string {
  if (state === 'DELETING') return 'Deleting'
  if (state === 'PAUSED') return 'Paused'
  return held ?? 'Progressing'
}
