import { createHash } from 'node:crypto'
import type { Candidate } from '../../domain/placement/placement.js'
import type { ShareState } from '../../domain/share/share.js'
import {
  chargeTurn,
  dealMachines,
  fitsLane,
  type FreeMachine,
  type Grant,
  type Lane,
} from '../../domain/share/turns.js'
import type { Tx } from '../../store/database.js'
import {
  dealFreeMachines,
  endTurn,
  giveTurns,
  joinLanes,
  lockTurns,
  maxTurns,
  readFreeMachines,
  readLanes,
  readMachineShares,
  readWeight,
  saveMachineShare,
  type MachineWait,
} from '../../store/machine-turns.js'
import type { HostRow } from '../../store/tables.js'

/** Whose turn it is to take static machines, as far as one transaction's hosts are concerned. Where nobody waits for machines it asks the database nothing. */
export class Turns {
  readonly #tx: Tx
  readonly #waits: MachineWait[] = []
  readonly #shares = new Map<string, ShareState>()
  readonly #machines = new Map<string, FreeMachine>()
  readonly #turns = new Map<string, readonly Grant[]>()
  readonly #weights = new Map<string, number>()
  #lanes: Lane[] | undefined

  constructor(tx: Tx) {
    this.#tx = tx
  }

  /**
   * Of machines that a host could take, the best first, those that it may: the others go to hosts whose turn comes before its own. Those are looked at as soon as this
   * transaction is over.
   */
  async mine(row: HostRow, candidates: readonly Candidate[], now: Date): Promise<readonly Candidate[]> {
    if (!candidates.some(({ machine }) => machine?.contested === true)) return candidates
    const lanes = await this.#open()
    if (lanes.every(({ waiting }) => waiting.every(({ hostId }) => hostId === row.id))) return candidates
    const machines = await this.#read(candidates)
    const withHost = this.#withHost(lanes, row, await this.#weightOf(row.workspace_id))
    const allowed: Candidate[] = []
    for (const providerId of new Set(candidates.map(({ provider }) => provider.id))) {
      const here = candidates.filter(({ provider }) => provider.id === providerId)
      const free = here.slice(0, maxTurns).flatMap(({ machine }) => machines.get(machine?.id ?? '') ?? [])
      const grants = dealMachines(await this.#sharesAt(providerId), withHost, free, now.getTime())
      const turn = grants.findIndex(({ hostId }) => hostId === row.id)
      const before = turn === -1 ? grants : grants.slice(0, turn)
      const promised = new Set(before.map(({ machineId }) => machineId))
      allowed.push(...here.filter(({ machine }) => !promised.has(machine?.id ?? '')))
      if (before.length > 0) this.#turns.set(providerId, before)
    }
    return candidates.filter((candidate) => allowed.includes(candidate))
  }

  /** Takes in that a host has taken a machine. */
  async took(row: HostRow, { provider, machine }: Candidate): Promise<void> {
    const lanes = this.#lanes
    const taken = this.#machines.get(machine?.id ?? '')
    if (lanes === undefined || taken === undefined) return
    const rivals = lanes.filter((lane) => lane.workspaceId !== row.workspace_id && fitsLane(lane, taken))
    const own = lanes.find((lane) => lane.waiting.some(({ hostId }) => hostId === row.id))
    this.#machines.delete(taken.id)
    this.#lanes = lanes.map((lane) => ({ ...lane, waiting: lane.waiting.filter(({ hostId }) => hostId !== row.id) }))
    if (own !== undefined) await endTurn(this.#tx, own.id)
    // Whoever is alone takes nothing away from anybody.
    if (rivals.length === 0) return
    const weight = await this.#weightOf(row.workspace_id)
    const after = chargeTurn(await this.#sharesAt(provider.id), row.workspace_id, weight)
    this.#shares.set(provider.id, after)
    await saveMachineShare(this.#tx, provider.id, row.workspace_id, after)
  }

  /** A host goes on waiting. @param passes it could take nothing at all, whosever turn it is. */
  wait(row: HostRow, passes: boolean): void {
    if (row.class_spec.machineSelector === null) return
    this.#waits.push({
      ...{ organizationId: row.organization_id, hostId: row.id, workspaceId: row.workspace_id, priority: row.priority },
      ...{ wish: wishOf(row), since: row.state_at, passes },
    })
  }

  /** Stores who waits, and who is to be looked at next. Says whether anybody is. */
  async finish(now: Date): Promise<boolean> {
    let given = false
    for (const [providerId, grants] of this.#turns) {
      const turns = grants.map(({ lane, hostId }) => ({ laneId: lane.id, organizationId: lane.organizationId, hostId }))
      await giveTurns(this.#tx, providerId, turns)
      given ||= turns.length > 0
    }
    const passed = await joinLanes(this.#tx, this.#waits)
    return (await dealFreeMachines(this.#tx, passed, now)) || given
  }

  async #open(): Promise<Lane[]> {
    if (this.#lanes === undefined) {
      await lockTurns(this.#tx)
      this.#lanes = [...(await readLanes(this.#tx, maxTurns))]
    }
    return this.#lanes
  }

  /** The lanes with a host in one of them: at the end of its own where it has only just come. */
  #withHost(lanes: readonly Lane[], row: HostRow, weight: number): readonly Lane[] {
    const selector = row.class_spec.machineSelector
    if (selector === null || lanes.some(({ waiting }) => waiting.some(({ hostId }) => hostId === row.id))) return lanes
    const own: Lane = {
      ...{ id: row.id, organizationId: row.organization_id, workspaceId: row.workspace_id, priority: row.priority },
      ...{ weight, shape: row.class_spec.shape, selector, placement: row.placement },
      waiting: [{ hostId: row.id, sinceMs: row.state_at.getTime() }],
    }
    return [...lanes, own]
  }

  async #read(candidates: readonly Candidate[]): Promise<ReadonlyMap<string, FreeMachine>> {
    const ids = candidates.flatMap(({ machine }) =>
      machine === null || this.#machines.has(machine.id) ? [] : [machine.id],
    )
    if (ids.length > 0)
      for (const machine of await readFreeMachines(this.#tx, { ids })) this.#machines.set(machine.id, machine)
    return this.#machines
  }

  async #weightOf(workspaceId: string): Promise<number> {
    const known = this.#weights.get(workspaceId) ?? (await readWeight(this.#tx, workspaceId))
    this.#weights.set(workspaceId, known)
    return known
  }

  async #sharesAt(providerId: string): Promise<ShareState> {
    const known = this.#shares.get(providerId)
    if (known !== undefined) return known
    const read = await readMachineShares(this.#tx, providerId)
    this.#shares.set(providerId, read)
    return read
  }
}

/** Hosts that wish for the same may be given the same machines, within the same limits. */
function wishOf({ class_name: className, class_spec: spec, placement, labels }: HostRow): string {
  const ofLabels = (placement.affinities ?? []).length + (placement.spread ?? []).length > 0 ? labels : {}
  const wish = [className, spec.shape, spec.machineSelector, placement, ofLabels]
  return createHash('sha256').update(JSON.stringify(wish)).digest('base64url')
}
