import type { Shape } from '../facts.js'
import type { MachineSelector, PlacementWish } from '../host/host.js'
import { judgePlacement, type CandidateProvider } from '../placement/placement.js'
import { effectivePrice } from '../price/price.js'
import { mayUse, type Ownership } from '../provider/ownership.js'
import { matchesLabels, parseLabelSelector } from '../selector.js'
import { takeTurn, type Item, type ShareState } from './share.js'

// Whose turn it is where hosts wait for machines that exist already. Hosts stand in lanes, one for each workspace, priority and kind of wish; lanes take turns as work does, and
// a lane that wants none of the machines that are there is passed over without losing anything.

/** Hosts that wait for the same: they differ in nothing but their age. */
export interface Lane {
  readonly id: string
  readonly organizationId: string
  readonly workspaceId: string
  /** -1, 0 or 1. */
  readonly priority: number
  /** Of its workspace; more than 0. */
  readonly weight: number
  readonly shape: Shape
  readonly selector: MachineSelector
  readonly placement: PlacementWish
  /** The oldest first; as many as there may be machines for. */
  readonly waiting: readonly { readonly hostId: string; readonly sinceMs: number }[]
}

/** A machine that is there to be taken. */
export interface FreeMachine {
  readonly id: string
  readonly labels: Readonly<Record<string, string>>
  readonly nics: number
  /** Null: not known. */
  readonly shape: Shape | null
  readonly rack: string
  readonly provider: CandidateProvider & Ownership
}

export interface Grant {
  readonly lane: Lane
  readonly hostId: string
  readonly machineId: string
}

/**
 * Whether a lane's hosts could be placed on a machine, as far as can be told without limits and without other hosts. What is wrongly thought to fit costs a moment: the host whose
 * turn it is looks, takes nothing, and its lane is passed over for a while.
 */
export function fitsLane({ shape, selector, placement, ...lane }: Lane, machine: FreeMachine): boolean {
  const { provider } = machine
  if (!mayUse(provider, lane) || (selector.provider !== '' && selector.provider !== provider.name)) return false
  const selected =
    machine.nics >= (selector.minNics ?? 0) && matchesLabels(parseLabelSelector(selector.labelSelector), machine.labels)
  const [judged] = judgePlacement({ shape, placement }, [
    {
      ...{ provider, offeringIndex: 0, typeId: '', location: '', shape: machine.shape, providerData: {} },
      ...{ offered: true, available: true, remaining: null, holds: [], failures: null },
      price: effectivePrice(selector.price, null),
      machine: {
        ...{ id: machine.id, name: machine.id, state: 'AVAILABLE', cordoned: false, maintenance: false, held: false },
        ...{ rack: machine.rack, rackLoad: 0, selected, listed: true, contested: true },
      },
    },
  ])
  return judged?.chosen === true
}

/**
 * Deals machines out to those who wait for them: one at a time, to the lane whose turn it is among those that the machines left would do for. Who gets a machine gets the first one
 * that does.
 */
export function dealMachines(
  state: ShareState,
  lanes: readonly Lane[],
  machines: readonly FreeMachine[],
  nowMs: number,
): readonly Grant[] {
  const weights = new Map(lanes.map((lane) => [lane.workspaceId, lane.weight]))
  const fitting = new Map(lanes.map((lane) => [lane.id, machines.filter((machine) => fitsLane(lane, machine))]))
  const next = new Map(lanes.map((lane) => [lane.id, 0]))
  const taken = new Set<string>()
  const grants: Grant[] = []
  let shares = state
  for (;;) {
    const heads = lanes.flatMap((lane) => {
      const head = lane.waiting[next.get(lane.id) ?? 0]
      const machine = fitting.get(lane.id)?.find(({ id }) => !taken.has(id))
      return head === undefined || machine === undefined ? [] : [{ lane, head, machine, item: itemOf(lane, head) }]
    })
    const turn = takeTurn(
      shares,
      heads.map(({ item }) => item),
      1,
      (workspace) => weights.get(workspace) ?? 1,
      nowMs,
    )
    const winner = heads.find(({ item }) => item === turn.taken[0])
    if (winner === undefined) return grants
    shares = turn.state
    taken.add(winner.machine.id)
    next.set(winner.lane.id, (next.get(winner.lane.id) ?? 0) + 1)
    grants.push({ lane: winner.lane, hostId: winner.head.hostId, machineId: winner.machine.id })
  }
}

function itemOf(lane: Lane, { hostId, sinceMs }: Lane['waiting'][number]): Item {
  return { id: hostId, workspace: lane.workspaceId, priority: lane.priority, dueAtMs: sinceMs }
}

/** What it costs a workspace to take a machine that others wait for. @param weight of the workspace; more than 0. */
export function chargeTurn({ passes, clock }: ShareState, workspaceId: string, weight: number): ShareState {
  const start = Math.max(passes.get(workspaceId) ?? 0, clock)
  return { passes: new Map([...passes, [workspaceId, start + 1 / weight]]), clock: start }
}
