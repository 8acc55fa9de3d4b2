import { isOver, onSince, powerOf, type PowerChange } from './cloud-state.js'
import type { DoneAtMs, Fact, Line, MachineProvisioned, Stamp } from './facts.js'
import { applyCommon, initialWorldState, type PendingBoot, type WorldRules, type WorldState } from './world.js'

type LineOf<Name extends Line['fact']> = Extract<Line, { fact: Name }>

/** A host on a machine, now or in the past. */
export interface Binding {
  /** As it was asked for last: an installation can be started anew. */
  readonly provisioned: MachineProvisioned & Stamp
  readonly boundAtMs: number
  /** When the installation that was asked for last is through. */
  installedAtMs: DoneAtMs
  installStartedAtMs: number
  phonedHome: { readonly atMs: number; readonly tries: number } | undefined
  releasedAtMs: number | undefined
}

export interface Wipe {
  readonly wipeId: string
  readonly startedAtMs: number
  readonly doneAtMs: DoneAtMs
  readonly fails: boolean
  outcome: 'running' | 'wiped' | 'failed' | 'interrupted'
}

/** A machine of the rack, as far as it was ever touched. */
export interface RackMachine {
  readonly serial: string
  power: PowerChange | undefined
  binding: Binding | undefined
  /** Whose data is on its disks. */
  soiledBy: string | undefined
  wipe: Wipe | undefined
  vanishedAtMs: number | undefined
  readonly bindings: Binding[]
  readonly wipes: { readonly atMs: number; readonly binding: string | undefined }[]
}

export interface RackState extends WorldState {
  readonly machines: Map<string, RackMachine>
  /** Boots that have not phoned home, by boot id. */
  readonly boots: Map<string, RackMachine>
  readonly wiping: Set<RackMachine>
}

/** A machine's power at a moment. What nobody has switched on is off. */
export function machinePower(machine: RackMachine | undefined, nowMs: number): 'on' | 'off' {
  return powerOf(machine?.power, 'off', nowMs)
}

export const rackRules: WorldRules<RackState> = {
  kind: 'rack',
  initial: () => ({ ...initialWorldState(), machines: new Map(), boots: new Map(), wiping: new Set() }),
  apply,
  due(state, nowMs): Fact | undefined {
    for (const { serial, wipe, soiledBy } of state.wiping) {
      if (wipe === undefined || !isOver(wipe.doneAtMs, nowMs)) continue
      const fact = wipe.fails ? 'machine.wipe-failed' : 'machine.wiped'
      return { fact, serial, wipeId: wipe.wipeId, ...(soiledBy !== undefined && { binding: soiledBy }) }
    }
    return undefined
  },
  *pendingBoots(state): Iterable<PendingBoot> {
    for (const machine of state.boots.values()) {
      const { binding, power, serial } = machine
      const boot = binding?.provisioned.boot
      if (binding === undefined || boot === undefined || binding.installedAtMs === null) continue
      const onSinceMs = onSince(power, binding.installedAtMs)
      if (onSinceMs === undefined || machine.vanishedAtMs !== undefined) continue
      const { by } = binding.provisioned
      yield { id: serial, plan: boot, addresses: [addressOf(serial)], dueAtMs: onSinceMs + boot.durationMs, by }
    }
  },
  phonedHome: (boot, tries) => ({ fact: 'machine.phoned-home', serial: boot.id, bootId: boot.plan.bootId, tries }),
  mayBoot: (state, bootId) => state.boots.has(bootId),
}

/** The address that a machine has in its rack's network. */
export function addressOf(serial: string): string {
  let hash = 0
  for (const char of serial) hash = (hash * 31 + (char.codePointAt(0) ?? 0)) >>> 0
  return `10.${64 + ((hash >> 16) & 63)}.${(hash >> 8) & 255}.${hash & 255}`
}

function apply(state: RackState, line: Line): void {
  applyCommon(state, line)
  if ('serial' in line && line.fact !== 'violation') applyToMachine(state, machineOf(state, line.serial), line)
}

function applyToMachine(
  state: RackState,
  machine: RackMachine,
  line: Exclude<Extract<Line, { serial: string }>, { fact: 'violation' }>,
): void {
  switch (line.fact) {
    case 'machine.powered':
      return applyPower(state, machine, line)
    case 'machine.provisioned':
      return applyProvisioned(state, machine, line)
    case 'machine.released':
      if (machine.binding !== undefined) machine.binding.releasedAtMs = line.atMs
      endBoot(state, machine)
      machine.binding = undefined
      break
    case 'machine.wipe-started':
    case 'machine.wiped':
    case 'machine.wipe-failed':
      return applyWipe(state, machine, line)
    case 'machine.vanished':
      machine.vanishedAtMs ??= line.atMs
      endBoot(state, machine)
      break
    case 'machine.phoned-home':
      if (machine.binding?.provisioned.boot?.bootId !== line.bootId) return
      machine.binding.phonedHome ??= { atMs: line.atMs, tries: line.tries }
      endBoot(state, machine)
      break
  }
}

function applyWipe(
  state: RackState,
  machine: RackMachine,
  line: LineOf<'machine.wipe-started' | 'machine.wiped' | 'machine.wipe-failed'>,
): void {
  const { atMs, wipeId } = line
  if (line.fact === 'machine.wipe-started') {
    const { doneAtMs, fails } = line
    machine.wipe = { wipeId, doneAtMs, fails, startedAtMs: atMs, outcome: 'running' }
    machine.power = switched(machine, 'on', atMs)
    state.wiping.add(machine)
    return
  }
  if (machine.wipe?.wipeId !== wipeId || machine.wipe.outcome !== 'running') return
  machine.power = switched(machine, 'off', atMs)
  state.wiping.delete(machine)
  machine.wipe.outcome = line.fact === 'machine.wiped' ? 'wiped' : 'failed'
  if (line.fact === 'machine.wipe-failed') return
  machine.wipes.push({ atMs, binding: line.binding })
  machine.soiledBy = undefined
}

function applyPower(state: RackState, machine: RackMachine, line: LineOf<'machine.powered'>): void {
  const { wish, doneAtMs, atMs } = line
  machine.power = { was: machinePower(machine, atMs), wish, startedAtMs: atMs, doneAtMs }
  if (wish === 'on') return
  // Power that goes away takes the work on the machine with it.
  if (machine.wipe?.outcome === 'running') {
    machine.wipe.outcome = 'interrupted'
    state.wiping.delete(machine)
  }
  if (machine.binding !== undefined && !isOver(machine.binding.installedAtMs, atMs))
    machine.binding.installedAtMs = null
}

function applyProvisioned(state: RackState, machine: RackMachine, line: LineOf<'machine.provisioned'>): void {
  const { binding: key, boot, failure, installedAtMs, atMs } = line
  endBoot(state, machine)
  const before = machine.binding?.provisioned.binding === key ? machine.bindings.pop() : undefined
  machine.binding = {
    provisioned: line,
    boundAtMs: before?.boundAtMs ?? atMs,
    installedAtMs,
    installStartedAtMs: atMs,
    phonedHome: undefined,
    releasedAtMs: undefined,
  }
  machine.bindings.push(machine.binding)
  machine.soiledBy = key
  machine.power = switched(machine, 'on', atMs)
  if (boot !== undefined && !boot.silent && failure === undefined) state.boots.set(boot.bootId, machine)
}

function switched(machine: RackMachine, wish: 'on' | 'off', atMs: number): PowerChange {
  return { was: machinePower(machine, atMs), wish, startedAtMs: atMs, doneAtMs: atMs }
}

function endBoot(state: RackState, machine: RackMachine): void {
  const bootId = machine.binding?.provisioned.boot?.bootId
  if (bootId !== undefined) state.boots.delete(bootId)
}

function machineOf(state: RackState, serial: string): RackMachine {
  const known = state.machines.get(serial)
  if (known !== undefined) return known
  const machine: RackMachine = {
    serial,
    power: undefined,
    binding: undefined,
    soiledBy: undefined,
    wipe: undefined,
    vanishedAtMs: undefined,
    bindings: [],
    wipes: [],
  }
  state.machines.set(serial, machine)
  return machine
}
