import type { EventDraft, LastError } from '../../domain/facts.js'
import { retryDelayMs } from '../../domain/backoff.js'
import { decideHost } from '../../domain/host/decide.js'
import { makeError } from '../../domain/host/phases/attempt.js'
import type { HostDecision, HostView } from '../../domain/host/record.js'
import { inTransaction, type Tx } from '../../store/database.js'
import { appendEvents, hubCause } from '../../store/events.js'
import { databaseNow, lockHosts, saveHosts, seeNewHost, type SeenHost } from '../../store/host-reconcile.js'
import { adoptRequest } from '../../store/adoption.js'
import { cancelRequest, deleteSecrets, deprovisionRequest } from '../../store/host-requests.js'
import { releaseCharges, type LimitBook } from '../../store/limit-book.js'
import { finishHosts, startSchedules, type NextLook, type TakenHost } from '../../store/host-schedule.js'
import type { NewHostRow } from '../../store/hosts.js'
import type { WakeTopic } from '../../store/wake.js'
import type { ReconcilerDeps } from '../deps.js'
import { Placing, type PlaceWish } from './placing.js'

/** The step in which the reconciler itself failed. */
const reconcileStep = 'reconcile'
/** Before a host is looked at anew that changed while it was being locked. */
const changedPauseMs = 50

/**
 * Looks at hosts that were taken: decides, and stores what was decided, in one transaction for all of them. Where that fails they are looked at one by one, so
 * that a host that cannot be dealt with delays no other.
 *
 * @throws whatever the database threw, where it does not answer at all.
 */
export async function reconcileHosts(
  deps: ReconcilerDeps,
  taken: readonly TakenHost[],
  graceUntil: Date,
): Promise<void> {
  try {
    await reconcileTogether(deps, taken, graceUntil)
    return
  } catch (error) {
    // Where the database itself is the trouble, no host is to blame.
    await databaseNow(deps.db)
    deps.log.warn({ err: error, hosts: taken.length }, 'a batch of hosts failed; they are looked at one by one')
  }
  for (const host of taken) {
    try {
      await reconcileTogether(deps, [host], graceUntil)
    } catch (error) {
      await setAside(deps, [host], error, graceUntil)
    }
  }
}

async function reconcileTogether(deps: ReconcilerDeps, taken: readonly TakenHost[], graceUntil: Date): Promise<void> {
  const wake = await inTransaction(
    deps.db,
    async (tx) => {
      const { hosts, changed } = await lockHosts(tx, taken, graceUntil)
      const done = await decideAll(tx, new Placing(deps, tx), hosts)
      const looks = new Map<string, number>([
        ...done.looks,
        ...changed.map((host): [string, number] => [host.hostId, changedPauseMs]),
      ])
      // They need nothing of one another, and travel together; locks are still taken in their order.
      const [stored] = await Promise.all([
        storeAll(tx, done),
        releaseCharges(tx, releasedBy(done.saves)),
        finishHosts(
          tx,
          taken.map((host) => ({ ...host, inMs: looks.get(host.hostId) ?? null })),
        ),
      ])
      return wakeFor(done, stored)
    },
    'reconcile',
    { readsFirst: true },
  )
  deps.wake.signal(...wake)
}

/**
 * Looks at new hosts in the very transaction that stores them, so that a provider can have their requests as soon as the order is accepted.
 *
 * @param expected what may come: places for hosts like these are read beforehand, and cost no round trip of their own.
 * @returns `ready`, once they are read; `look`, which resolves with what is to be signalled after the commit.
 */
export function prepareFirstLook(
  deps: ReconcilerDeps,
  tx: Tx,
  expected: readonly PlaceWish[],
  limits: Promise<LimitBook>,
): {
  readonly ready: Promise<void>
  readonly look: (hosts: readonly NewHostRow[]) => Promise<readonly WakeTopic[]>
} {
  const placing = new Placing(deps, tx, limits)
  return {
    ready: placing.expect(expected),
    look: async (hosts) => {
      const done = await decideAll(tx, placing, hosts.map(seeNewHost))
      const looks = new Map(done.looks)
      const [{ others }] = await Promise.all([
        storeAll(tx, done),
        startSchedules(
          tx,
          hosts.map(({ row }) => ({
            organizationId: row.organization_id,
            hostId: row.id,
            inMs: looks.get(row.id) ?? null,
          })),
        ),
      ])
      const soon = done.looks.some(([, inMs]) => inMs < deps.config.sweepMs)
      return [...wakeFor(done, { saved: true, others }), ...(soon ? [{ kind: 'host' as const }] : [])]
    },
  }
}

interface Decided {
  /** By host id, in ms; hosts that are not among them are looked at when something is heard of them. */
  readonly looks: readonly (readonly [string, number])[]
  readonly events: readonly EventDraft[]
  /** Those that are given work. */
  readonly providers: ReadonlySet<string>
  readonly placing: Placing
  readonly replacedRequestIds: readonly string[]
  readonly saves: readonly Save[]
}

interface Save {
  readonly host: SeenHost
  readonly decision: HostDecision
}

async function decideAll(tx: Tx, placing: Placing, seen: readonly SeenHost[]): Promise<Decided> {
  const decisions = seen.map((host) => ({ host, decision: decideHost(withoutDefect(host.view)) }))
  const toPlace = decisions.filter(({ decision }) => decision.action.kind === 'place').map(({ host }) => host)
  await placing.expect(
    toPlace.map(({ row }) => row),
    toPlace.map(({ row }) => row),
  )
  const events: EventDraft[] = []
  const looks: [string, number][] = []
  const providers = new Set<string>()
  const saves: Save[] = []
  for (const { host, decision } of decisions) {
    const executed = await execute(tx, placing, host, decision, providers)
    events.push(...executed.events)
    if (executed.lookAgainInMs !== null) looks.push([host.row.id, executed.lookAgainInMs])
    saves.push({ host, decision: executed })
  }
  for (const id of placing.providerIds) providers.add(id)
  const replacedRequestIds = toPlace.flatMap((host) => (host.row.request_id === null ? [] : [host.row.request_id]))
  return { looks, events, providers, placing, replacedRequestIds, saves }
}

/** What was stored: whether any host has changed, and whether others are to be looked at now. */
interface Stored {
  readonly saved: boolean
  readonly others: boolean
}

async function storeAll(tx: Tx, { placing, replacedRequestIds, saves, events }: Decided): Promise<Stored> {
  const now = saves[0]?.host.view.now ?? new Date(0)
  const [others, saved] = await Promise.all([
    placing.finish(replacedRequestIds, now),
    saveHosts(
      tx,
      saves.map(({ host, decision }) => ({ before: host.view.host, after: decision.host })),
    ),
    forgetSecrets(tx, saves),
    appendEvents(tx, hubCause, events),
  ])
  return { saved, others }
}

function wakeFor({ providers, events }: Decided, { saved, others }: Stored): readonly WakeTopic[] {
  return [
    ...(others ? [{ kind: 'host' as const }] : []),
    ...[...providers].map((providerId) => ({ kind: 'work' as const, providerId })),
    ...(saved || events.length > 0 ? [{ kind: 'change' as const }] : []),
  ]
}

async function execute(
  tx: Tx,
  placing: Placing,
  host: SeenHost,
  decision: HostDecision,
  providers: Set<string>,
): Promise<HostDecision> {
  const { action } = decision
  const { request } = host.view
  if (action.kind === 'none') return decision
  if (action.kind === 'place') return placing.place(host, decision)
  if (request === null) throw new Error(`host ${decision.host.name} has no machine request to ${action.kind}`)
  providers.add(request.providerId)
  switch (action.kind) {
    case 'cancel-request':
      return {
        ...decision,
        events: [...decision.events, ...(await cancelRequest(tx, decision.host, request, action.lastError))],
      }
    case 'adopt':
      await adoptRequest(tx, request)
      return decision
    case 'deprovision':
      return {
        ...decision,
        events: [...decision.events, ...(await deprovisionRequest(tx, decision.host, request, action.failure))],
      }
  }
}

/** The hosts that end with these decisions. */
function releasedBy(saves: readonly Save[]): readonly string[] {
  return saves.flatMap(({ host, decision }) =>
    decision.host.state === 'RELEASED' && host.view.host.state !== 'RELEASED' ? [host.row.id] : [],
  )
}

async function forgetSecrets(tx: Tx, saves: readonly Save[]): Promise<void> {
  const released = saves.filter(
    ({ host, decision }) => decision.host.state === 'RELEASED' && host.view.host.state !== 'RELEASED',
  )
  await deleteSecrets(tx, {
    hostIds: released.map(({ host }) => host.row.id),
    requestIds: released.flatMap(({ host }) => (host.row.request_id === null ? [] : [host.row.request_id])),
  })
}

/** Shows the failure on the host itself, and lets it rest for longer each time. */
async function setAside(
  deps: ReconcilerDeps,
  taken: readonly TakenHost[],
  error: unknown,
  graceUntil: Date,
): Promise<void> {
  deps.log.error({ err: error, hosts: taken.map((host) => host.hostId) }, 'a host cannot be reconciled now')
  try {
    await inTransaction(deps.db, async (tx) => {
      const looks: NextLook[] = []
      for (const { taken: key, view } of (await lockHosts(tx, taken, graceUntil)).hosts) {
        const attempts = failuresInRow(view.host.lastError) + 1
        const defect = makeError(
          'INTERNAL',
          'The hub cannot go on with this host; its log says why',
          reconcileStep,
          view.now,
        )
        const delayMs = retryDelayMs(attempts, 0)
        const nextAttemptAt = new Date(view.now.getTime() + delayMs).toISOString()
        const after = { ...view.host, lastError: { ...defect, retryable: true, attempts, nextAttemptAt } }
        await saveHosts(tx, [{ before: view.host, after }])
        looks.push({ ...key, inMs: delayMs })
      }
      await finishHosts(tx, looks)
    })
    deps.wake.signal({ kind: 'change' })
  } catch (again) {
    // Its turn comes again when the time runs out for which it was taken.
    deps.log.error({ err: again }, 'a host that failed cannot be set aside')
  }
}

/** A failure of the reconciler itself is over once it can decide again. */
function withoutDefect(view: HostView): HostView {
  return failuresInRow(view.host.lastError) === 0 ? view : { ...view, host: { ...view.host, lastError: null } }
}

function failuresInRow(lastError: LastError | null): number {
  return lastError?.step === reconcileStep ? lastError.attempts : 0
}
