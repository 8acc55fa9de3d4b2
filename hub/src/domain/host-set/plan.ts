// What a set of hosts does next, from what is wanted and what is there: the whole of the decision, and nothing but it. Whoever carries it out does so step by step and
// asks again; the same view gives the same actions, so that it does not matter who asks, and how often.

/** `failed`: in ERROR, or not READY within the deadline. */
export type MemberHealth = 'ready' | 'starting' | 'failed'

export interface Member {
  readonly id: string
  /** Its number in the set. Numbers only rise. */
  readonly ordinal: number
  /** Of the template that it was ordered by. */
  readonly revision: number
  readonly health: MemberHealth
  /** Its provider can be seen, or it has none yet. What is out of sight is not concluded upon. */
  readonly visible: boolean
  readonly protected: boolean
  /** It is being released. */
  readonly leaving: boolean
  /** Where it was ordered for; empty where members are not spread. */
  readonly domain: string
}

export interface Wanted {
  readonly replicas: number
  /** Of the template as it is now. */
  readonly revision: number
  readonly maxSurge: number
  readonly maxUnavailable: number
  /** Unhealthy members that may be under replacement at once. */
  readonly maxRepairs: number
  readonly maxUnhealthyPercent: number
  readonly paused: boolean
  /** All members are to go. */
  readonly deleting: boolean
  /** The number of the next member. */
  readonly nextOrdinal: number
  /** Members before this number do not make a rollout fail: a person has seen them fail, and went on. */
  readonly failuresFrom: number
  /** Where members may be put; empty: they are not spread. */
  readonly domains: readonly string[]
  /** Nothing is ordered now: the last order was refused, and its pause is not over. */
  readonly ordersHeld: boolean
  /** No unhealthy member is replaced now: the last ones were, and their pause is not over. */
  readonly repairsHeld: boolean
}

export type ReleaseReason = 'Deleted' | 'ScaledDown' | 'Outdated' | 'Unhealthy'

export interface Plan {
  readonly release: readonly { readonly id: string; readonly why: ReleaseReason }[]
  readonly create: readonly { readonly ordinal: number; readonly domain: string }[]
  /** The rollout is to be paused: members that it made have failed. */
  readonly fail: boolean
  /** What it would do and must not, for people. */
  readonly held: readonly HeldReason[]
}

export type HeldReason =
  'Protected' | 'ProviderOutOfSight' | 'TooManyUnhealthy' | 'RepairsOff' | 'RepairsPaused' | 'OrdersHeld'

interface View {
  readonly wanted: Wanted
  readonly active: readonly Member[]
  /** As the template says, and not failed. */
  readonly current: readonly Member[]
  readonly outdated: readonly Member[]
  readonly failed: readonly Member[]
  /** Members that ought to be replaced and must not, as long as they are protected or out of sight: they keep their slots. */
  readonly pinned: readonly Member[]
  readonly rolling: boolean
}

/** What is to be done next. Releases come first: room for what is created counts them. */
export function planHostSet(wanted: Wanted, members: readonly Member[]): Plan {
  const active = members.filter((member) => !member.leaving).toSorted((one, other) => one.ordinal - other.ordinal)
  if (wanted.deleting) return planDeletion(active)
  const view = viewOf(wanted, active)
  const releasing = new Map<string, ReleaseReason>()
  const held = new Set<HeldReason>()
  const fail = !wanted.paused && hasFailed(view)
  const still = wanted.paused || fail
  scaleDown(view, releasing, still)
  if (!still) rollOut(view, releasing, held)
  if (!still) repair(view, releasing, held)
  // With the last outdated one, the surge ends too.
  scaleDown(view, releasing, still)
  if (view.pinned.some((member) => member.protected)) held.add('Protected')
  if (view.pinned.some((member) => !member.protected)) held.add('ProviderOutOfSight')
  const create = fill(view, releasing, still, held)
  return {
    release: active.flatMap(({ id }) => {
      const why = releasing.get(id)
      return why === undefined ? [] : [{ id, why }]
    }),
    create,
    fail,
    held: [...held],
  }
}

function planDeletion(active: readonly Member[]): Plan {
  return {
    release: active.filter((member) => !member.protected).map(({ id }) => ({ id, why: 'Deleted' })),
    create: [],
    fail: false,
    held: active.some((member) => member.protected) ? ['Protected'] : [],
  }
}

function viewOf(wanted: Wanted, active: readonly Member[]): View {
  const isOutdated = (member: Member) => member.revision !== wanted.revision
  const current = active.filter((member) => !isOutdated(member) && member.health !== 'failed')
  const outdated = active.filter(isOutdated)
  const failed = active.filter((member) => !isOutdated(member) && member.health === 'failed')
  const pinned = [...outdated, ...failed].filter((member) => member.protected || !member.visible)
  return {
    wanted,
    active,
    current,
    outdated,
    failed,
    pinned,
    rolling: outdated.some((member) => !member.protected && member.visible),
  }
}

/** Whether a rollout is under way, and a member that it made has failed. */
function hasFailed({ wanted, rolling, failed }: View): boolean {
  return rolling && wanted.replicas > 0 && failed.some((member) => member.ordinal >= wanted.failuresFrom)
}

/** How many READY members may go. */
function spare({ wanted, active }: View, releasing: ReadonlyMap<string, ReleaseReason>): number {
  const ready = active.filter((member) => member.health === 'ready' && !releasing.has(member.id)).length
  return Math.max(0, ready - Math.max(0, wanted.replicas - wanted.maxUnavailable))
}

/**
 * Releases what is more than is wanted: unhealthy members first, then those that are not READY yet, then outdated ones, then those of the fullest place, then the
 * newest. Never a protected one.
 */
function scaleDown(view: View, releasing: Map<string, ReleaseReason>, still: boolean): void {
  const { wanted, active, current, outdated } = view
  // A rollout has more members for as long as there are both, new ones and old ones that may go.
  const surge = () => {
    const stays = (member: Member) => !releasing.has(member.id)
    const begun = [...current, ...view.failed].some(stays)
    const rolling = begun && outdated.some((member) => !member.protected && stays(member))
    return rolling && wanted.replicas > 0 ? wanted.maxSurge : 0
  }
  const tooMany = () => active.length - releasing.size - wanted.replicas - surge()
  const tooManyCurrent = () => current.filter((member) => !releasing.has(member.id)).length - wanted.replicas
  const go = (candidates: readonly Member[], surplus: () => number) => {
    while (surplus() > 0) {
      const next = leastWanted(view, candidates, releasing)
      if (next === undefined) return
      releasing.set(next.id, 'ScaledDown')
    }
  }
  go(active, tooMany)
  if (!still) go(current, tooManyCurrent)
}

const healthRank: Readonly<Record<MemberHealth, number>> = { failed: 0, starting: 1, ready: 2 }

/** The member that is missed least, among those that may go. */
function leastWanted(
  view: View,
  candidates: readonly Member[],
  releasing: ReadonlyMap<string, ReleaseReason>,
): Member | undefined {
  const maySpare = spare(view, releasing) > 0
  const count = (domain: string) =>
    view.active.filter((member) => member.domain === domain && !releasing.has(member.id)).length
  const outdatedRank = (member: Member) => (member.revision === view.wanted.revision ? 1 : 0)
  return candidates
    .filter((member) => !member.protected && !releasing.has(member.id) && (maySpare || member.health !== 'ready'))
    .toSorted(
      (one, other) =>
        healthRank[one.health] - healthRank[other.health] ||
        outdatedRank(one) - outdatedRank(other) ||
        count(other.domain) - count(one.domain) ||
        other.ordinal - one.ordinal,
    )[0]
}

/** Releases members that are not as the template says, the oldest first, as far as enough others are READY. */
function rollOut(view: View, releasing: Map<string, ReleaseReason>, held: Set<HeldReason>): void {
  const { wanted, outdated } = view
  const order = outdated.toSorted((one, other) => healthRank[one.health] - healthRank[other.health])
  for (const member of order) {
    if (member.protected || !member.visible || releasing.has(member.id)) continue
    // Nothing that works is given up for what cannot be ordered now.
    if (wanted.ordersHeld && member.health !== 'failed' && wanted.replicas > 0) {
      held.add('OrdersHeld')
      continue
    }
    if (member.health === 'ready' && spare(view, releasing) === 0) continue
    releasing.set(member.id, 'Outdated')
  }
}

/** Releases unhealthy members, so many at once as is allowed: what is still missing or starting counts as under replacement. */
function repair(view: View, releasing: Map<string, ReleaseReason>, held: Set<HeldReason>): void {
  const { wanted, active, current, failed } = view
  const sick = failed.filter((member) => !member.protected && member.visible && !releasing.has(member.id))
  if (sick.length === 0) return
  const unhealthy = active.filter((member) => member.health === 'failed').length
  if (unhealthy * 100 > wanted.maxUnhealthyPercent * active.length) {
    held.add('TooManyUnhealthy')
    return
  }
  if (wanted.maxRepairs === 0) held.add('RepairsOff')
  if (wanted.repairsHeld) held.add('RepairsPaused')
  if (wanted.repairsHeld || wanted.maxRepairs === 0) return
  const missing = Math.max(0, wanted.replicas - active.length)
  const underWay = missing + current.filter((member) => member.health === 'starting' && member.visible).length
  for (const member of sick.slice(0, Math.max(0, wanted.maxRepairs - underWay))) releasing.set(member.id, 'Unhealthy')
}

/** Orders what is missing, each where the fewest are. */
function fill(
  view: View,
  releasing: ReadonlyMap<string, ReleaseReason>,
  still: boolean,
  held: Set<HeldReason>,
): Plan['create'] {
  const { wanted, active } = view
  const staying = active.filter((member) => !releasing.has(member.id))
  const good = view.current.filter((member) => !releasing.has(member.id)).length
  const goesOn = view.outdated.some((member) => !member.protected && member.visible && !releasing.has(member.id))
  const surge = goesOn && !still ? wanted.maxSurge : 0
  const room = Math.max(0, wanted.replicas + surge - staying.length)
  const pinned = view.pinned.filter((member) => !releasing.has(member.id)).length
  const count = Math.min(Math.max(0, wanted.replicas - pinned - good), room)
  if (count > 0 && wanted.ordersHeld) {
    held.add('OrdersHeld')
    return []
  }
  const load = new Map(wanted.domains.map((domain) => [domain, 0]))
  for (const { domain } of staying) if (load.has(domain)) load.set(domain, (load.get(domain) ?? 0) + 1)
  return Array.from({ length: count }, (_, index) => {
    const domain = emptiest(load)
    load.set(domain, (load.get(domain) ?? 0) + 1)
    return { ordinal: wanted.nextOrdinal + index, domain }
  })
}

/** The place with the fewest members; among equals, the first as they were given. */
function emptiest(load: ReadonlyMap<string, number>): string {
  let best: readonly [string, number] | undefined
  for (const entry of load) if (best === undefined || entry[1] < best[1]) best = entry
  return best?.[0] ?? ''
}
