import { retryDelayMs } from '../../domain/backoff.js'
import type { EventDraft } from '../../domain/facts.js'
import { domainOf } from '../../domain/host-set/domains.js'
import { describeHostSet } from '../../domain/host-set/host-set.js'
import { memberName, judgeMember } from '../../domain/host-set/member.js'
import { planHostSet, type Member, type Plan, type ReleaseReason, type Wanted } from '../../domain/host-set/plan.js'
import { hostName, hostSetName } from '../../domain/names.js'
import { judgePlacement } from '../../domain/placement/placement.js'
import type { Db, Tx } from '../../store/database.js'
import { appendEvents, hubCause } from '../../store/events.js'
import {
  dueHostSets,
  lockHostSetById,
  lockMembers,
  openUserData,
  readMembers,
  saveProgress,
  scheduleHostSet,
  type HostSetKey,
  type HostSetProgress,
  type MemberGuard,
  type SeenMembers,
} from '../../store/host-set-reconcile.js'
import { removeHostSet } from '../../store/host-sets.js'
import { moveHost } from '../../store/hosts.js'
import { classSpecOf, findClass } from '../../store/machine-classes.js'
import { loadCandidates } from '../../store/placement.js'
import type { HostSetRow } from '../../store/tables.js'
import { startController, type Turn } from '../controller.js'
import type { ReconcilerDeps } from '../deps.js'
import type { Loop } from '../loop.js'
import type { MemberOutcome, OrderMember } from '../../store/member-orders.js'

const leaseMs = 30_000
const setsAtOnce = 20
/** Members that one look orders at most: the next look goes on. */
const ordersAtOnce = 50
const restMs = 1_000
/** A set at rest is looked at this often though nothing was heard. */
const restingMs = 60_000
/** What is not at rest is looked at this often. */
const watchingMs = 5_000
/** Not before this replica has run the controller for so long is silence held against a member. */
const patienceMs = 2 * 60_000
const repairPauseMs = 10_000
const longestRepairPauseMs = 10 * 60_000

type SetDeps = Pick<ReconcilerDeps, 'db' | 'wake' | 'keyring' | 'log'>

/** Keeps host sets as they are wanted: in one replica at a time, each set under its row's lock, and orders under the controller's fence. */
export function startHostSets(deps: ReconcilerDeps, orderMember: OrderMember): Loop {
  return startController(deps, {
    name: 'host-sets',
    leaseMs,
    round: async (turn) => {
      const due = await dueHostSets(deps.db, setsAtOnce)
      let again = false
      for (const key of due) again = (await lookAtHostSet(deps, turn, orderMember, key)) || again
      return again ? 0 : restMs
    },
  })
}

interface Look {
  readonly set: HostSetRow
  readonly plan: Plan
  readonly guard: MemberGuard
  readonly lookedAt: Date
  /** Something was stored that others may want to know of. */
  readonly changed: boolean
}

/** One look at a set: what is to go is released, and then what is missing is ordered. @returns whether there is more to do at once. */
export async function lookAtHostSet(
  deps: SetDeps,
  turn: Turn,
  orderMember: OrderMember,
  key: HostSetKey,
): Promise<boolean> {
  const domains = await domainsOf(deps.db, key)
  const look = await turn.write((tx) => decide(tx, turn, key, domains))
  if (look?.changed !== false) deps.wake.signal({ kind: 'host' }, { kind: 'change' })
  if (look === undefined || look.plan.create.length === 0) return false
  const userData = await openUserData(deps.db, deps.keyring, key)
  const wanted = look.plan.create.slice(0, ordersAtOnce)
  const outcomes = await Promise.all(
    wanted.map(({ ordinal, domain }) => orderMember({ set: look.set, ordinal, domain, userData, guard: look.guard })),
  )
  await turn.write((tx) => noteOrders(tx, look, wanted, outcomes))
  deps.wake.signal({ kind: 'change' })
  return look.plan.create.length > ordersAtOnce && outcomes.every(({ kind }) => kind === 'ordered')
}

/** Where members of a set can be put now, for spreading; what can be had now first. */
async function domainsOf(db: Db, key: HostSetKey): Promise<readonly string[]> {
  const set = await db
    .selectFrom('host_sets')
    .select(['spread', 'template', 'workspace_id'])
    .where('organization_id', '=', key.organizationId)
    .where('id', '=', key.id)
    .executeTakeFirst()
  if (set === undefined || set.spread === 'NONE') return []
  const { className, shape, placement } = set.template
  const machineClass = className === '' ? undefined : await findClass(db, className)
  const spec =
    machineClass !== undefined
      ? classSpecOf(machineClass)
      : shape === null
        ? undefined
        : { shape, offerings: [], machineSelector: null, bootstrap: emptyBootstrap }
  if (spec === undefined) return []
  const orderer = { organizationId: key.organizationId, workspaceId: set.workspace_id }
  const judged = judgePlacement({ shape: spec.shape, placement }, await loadCandidates(db, orderer, spec, placement))
  const names = judged.flatMap(({ candidate, rejected }) =>
    rejected === undefined ? [domainOf(set.spread, candidate)] : [],
  )
  return [...new Set(names)]
}

const emptyBootstrap = { phoneHome: false, phoneHomeTimeoutMs: 0, provisionTimeoutMs: 0, userData: '' }

async function decide(tx: Tx, turn: Turn, key: HostSetKey, domains: readonly string[]): Promise<Look | undefined> {
  const set = await lockHostSetById(tx, key)
  if (set === undefined) return undefined
  const seen = await readMembers(tx, set.id)
  if (set.delete_requested_at !== null && seen.members.length === 0) {
    await removeHostSet(tx, set)
    await appendEvents(tx, hubCause, [setEvent(set, 'HostSetDeleted', 'INFO', 'Deleted; none of its members is left')])
    return undefined
  }
  const members = membersOf(set, seen, turn.lease.heldMs < patienceMs)
  const wanted = wantedOf(set, seen, domains)
  const planned = planHostSet(wanted, members)
  const released = await release(tx, set, seen, planned)
  // The others were to make room: without it nothing is ordered, and the set is looked at anew.
  const overtaken = released.length < planned.release.length
  const plan = overtaken ? { ...planned, create: [] } : planned
  const events = [...released, ...eventsOf(set, members, plan)]
  const progress = progressOf(set, { ...wanted, paused: wanted.paused || plan.fail }, members, plan, seen.now)
  if (progress.status.state === 'READY' && set.state !== 'READY')
    events.push(setEvent(set, 'HostSetReady', 'INFO', progress.status.message))
  const saved = await saveProgress(tx, set, progress)
  await appendEvents(tx, hubCause, events)
  await scheduleHostSet(tx, key, seen.now, overtaken ? 0 : nextLookMs(progress, seen.now))
  const guard = { set: key, specRevision: set.spec_revision, lease: turn.lease }
  return { set, plan, guard, lookedAt: seen.now, changed: saved || events.length > 0 }
}

function membersOf(set: HostSetRow, { members, now }: SeenMembers, patient: boolean): readonly Member[] {
  return members.map(({ host, connectedSince }) =>
    judgeMember(
      {
        id: host.id,
        ordinal: host.host_set_ordinal ?? 0,
        revision: host.host_set_revision ?? 0,
        domain: host.host_set_domain ?? '',
        protected: host.protected,
        state: host.state,
        stateAt: host.state_at,
        createdAt: host.created_at,
        readyAt: host.ready_at,
        providerId: host.provider_id,
        connectedSince,
      },
      { now, deadlineMs: set.progress_deadline_ms, patient },
    ),
  )
}

function wantedOf(set: HostSetRow, { nextOrdinal, now }: SeenMembers, domains: readonly string[]): Wanted {
  const later = (at: Date | null) => at !== null && at.getTime() > now.getTime()
  return {
    replicas: set.replicas,
    revision: set.template_revision,
    maxSurge: set.max_surge,
    maxUnavailable: set.max_unavailable,
    maxRepairs: set.max_repairs,
    maxUnhealthyPercent: set.max_unhealthy_percent,
    paused: set.pause_reason !== null,
    deleting: set.delete_requested_at !== null,
    nextOrdinal: Math.max(set.next_ordinal, nextOrdinal),
    failuresFrom: set.failures_from,
    domains,
    ordersHeld: later(set.next_order_at),
    repairsHeld: later(set.next_repair_at),
  }
}

/** Releases what the plan says, as far as it still is as it was seen. What has changed meanwhile is looked at again. */
async function release(tx: Tx, set: HostSetRow, seen: SeenMembers, plan: Plan): Promise<EventDraft[]> {
  const why = new Map<string, ReleaseReason>(plan.release.map((each) => [each.id, each.why]))
  const going = seen.members.flatMap(({ host }) => (why.has(host.id) ? [host] : []))
  const events: EventDraft[] = []
  for (const host of await lockMembers(tx, going)) {
    const message = `Released by its set ${set.name}: ${releaseTexts[why.get(host.id) ?? 'Deleted']}`
    await moveHost(tx, host, 'RELEASING', message, true)
    events.push({
      ...setEvent(set, 'HostSetMemberReleased', 'INFO', message),
      subject: hostName(host.workspace_name, host.name),
      related: [hostSetName(set.workspace_name, set.name)],
    })
  }
  return events
}

const releaseTexts: Readonly<Record<ReleaseReason, string>> = {
  Deleted: 'the set is being deleted',
  ScaledDown: 'there are more than are wanted',
  Outdated: 'its template has changed',
  Unhealthy: 'it is unhealthy',
}

function eventsOf(set: HostSetRow, members: readonly Member[], plan: Plan): EventDraft[] {
  if (!plan.fail) return []
  const failed = members.filter(({ health, revision }) => health === 'failed' && revision === set.template_revision)
  const names = failed.map(({ ordinal }) => memberName(set.name, ordinal)).join(', ')
  return [
    setEvent(set, 'HostSetRolloutFailed', 'ERROR', `The rollout is paused, because new members have failed: ${names}`),
  ]
}

function setEvent(
  set: HostSetRow,
  reason: EventDraft['reason'],
  severity: EventDraft['severity'],
  message: string,
): EventDraft {
  return {
    subject: hostSetName(set.workspace_name, set.name),
    reason,
    severity,
    message,
    organizationId: set.organization_id,
  }
}

function progressOf(
  set: HostSetRow,
  wanted: Wanted,
  members: readonly Member[],
  plan: Plan,
  now: Date,
): HostSetProgress {
  const pauseReason = plan.fail ? 'RolloutFailed' : set.pause_reason
  const refused = set.conditions.find(({ type }) => type === 'Ordered')
  const status = describeHostSet(
    {
      wanted,
      members,
      plan,
      pauseReason,
      refusal: set.refused_orders > 0 && refused?.status === 'FALSE' ? refused : undefined,
      before: set.conditions,
    },
    now,
  )
  const repaired = plan.release.some(({ why }) => why === 'Unhealthy')
  // What is as it is wanted has nothing left to be tried again, whether or not whoever tried has said so.
  const done = status.state === 'READY'
  const repairsInRow = repaired ? set.repairs_in_row + 1 : done ? 0 : set.repairs_in_row
  const pauseMs = Math.min(longestRepairPauseMs, repairPauseMs * 2 ** Math.min(20, repairsInRow - 1))
  return {
    status,
    nextOrdinal: wanted.nextOrdinal,
    pauseReason,
    refusedOrders: done ? 0 : set.refused_orders,
    nextOrderAt: done ? null : set.next_order_at,
    repairsInRow,
    nextRepairAt: repaired ? new Date(now.getTime() + pauseMs) : set.next_repair_at,
  }
}

function nextLookMs(progress: HostSetProgress, now: Date): number {
  if (progress.status.state === 'READY') return restingMs
  const times = [progress.nextOrderAt, progress.nextRepairAt].flatMap((at) =>
    at !== null && at.getTime() > now.getTime() ? [at.getTime() - now.getTime()] : [],
  )
  return Math.min(watchingMs, ...times)
}

/** Notes what became of the orders of a look: a refusal is shown, and orders rest for a while. */
async function noteOrders(
  tx: Tx,
  look: Look,
  wanted: Plan['create'],
  outcomes: readonly MemberOutcome[],
): Promise<void> {
  const set = await lockHostSetById(tx, { organizationId: look.set.organization_id, id: look.set.id })
  if (set === undefined) return
  const refusal = outcomes.find((outcome) => outcome.kind === 'refused')
  const ordered = outcomes.filter(({ kind }) => kind === 'ordered').length
  const seen = await readMembers(tx, set.id)
  // A name that somebody else's host has is passed over.
  const taken = wanted.flatMap(({ ordinal }, index) => {
    const outcome = outcomes[index]
    return outcome?.kind === 'refused' && outcome.nameTaken ? [ordinal + 1] : []
  })
  const refusedOrders = refusal === undefined ? (ordered > 0 ? 0 : set.refused_orders) : set.refused_orders + 1
  const conditions =
    refusal === undefined
      ? set.conditions
      : [
          ...set.conditions.filter(({ type }) => type !== 'Ordered'),
          {
            type: 'Ordered',
            status: 'FALSE' as const,
            reason: refusal.reason,
            message: refusal.message,
            lastTransitionAt: lastTransition(set, seen.now),
          },
        ]
  const pauseMs = refusal === undefined ? 0 : retryDelayMs(refusedOrders, 0)
  const nextOrderAt = refusal === undefined ? null : new Date(seen.now.getTime() + pauseMs)
  const fresh = { ...set, refused_orders: refusedOrders, next_order_at: nextOrderAt, conditions }
  const members = membersOf(fresh, seen, true)
  const view = wantedOf({ ...fresh, next_ordinal: Math.max(set.next_ordinal, ...taken) }, seen, [])
  await saveProgress(
    tx,
    set,
    progressOf(fresh, view, members, { ...planHostSet(view, members), release: [], fail: false }, seen.now),
  )
  const known =
    set.refused_orders > 0 &&
    set.conditions.some(({ type, message }) => type === 'Ordered' && message === refusal?.message)
  await appendEvents(tx, hubCause, [
    ...(ordered > 0 ? [setEvent(set, 'HostSetMembersOrdered', 'INFO', orderedText(set, wanted, outcomes))] : []),
    ...(refusal !== undefined && !known
      ? [setEvent(set, 'HostSetOrderRefused', 'WARNING', `${refusal.reason}: ${refusal.message}`)]
      : []),
  ])
  await scheduleHostSet(
    tx,
    { organizationId: set.organization_id, id: set.id },
    look.lookedAt,
    Math.min(watchingMs, pauseMs || watchingMs),
  )
}

function lastTransition(set: HostSetRow, now: Date): string {
  const before = set.conditions.find(({ type }) => type === 'Ordered')
  return before?.status === 'FALSE' ? before.lastTransitionAt : now.toISOString()
}

function orderedText(set: HostSetRow, wanted: Plan['create'], outcomes: readonly MemberOutcome[]): string {
  const names = wanted.flatMap(({ ordinal }, index) =>
    outcomes[index]?.kind === 'ordered' ? [memberName(set.name, ordinal)] : [],
  )
  return names.length <= 5
    ? `Ordered ${names.join(', ')}`
    : `Ordered ${names.length} members, ${names[0]} to ${names.at(-1)}`
}
