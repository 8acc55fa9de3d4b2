import type { BootPlan, DoneAtMs, Fact, Line, PowerOrder, ServerCreated, ServerReinstalled, Stamp } from './facts.js'
import { applyCommon, initialWorldState, type PendingBoot, type WorldRules, type WorldState } from './world.js'

export type ServerStatus = 'creating' | 'reinstalling' | 'failed' | 'running' | 'off' | 'deleting'

/** Power as it was last ordered. `doneAtMs` null: the order is stuck. */
export interface PowerChange {
  readonly was: 'on' | 'off'
  readonly wish: PowerOrder
  readonly startedAtMs: number
  readonly doneAtMs: DoneAtMs
}

/** A server, living or gone. */
export interface Server {
  readonly created: ServerCreated & Stamp
  /** As it is now: it may have been put on it, or taken off, since. */
  ownershipKey: string
  runningAtMs: DoneAtMs
  creationStartedAtMs: number
  power: PowerChange | undefined
  /** The system that was put on it last, where it is not the one that it was created with. */
  system: (ServerReinstalled & Stamp) | undefined
  reinstalls: number
  rescue: boolean
  deletion: { readonly startedAtMs: number; readonly goneAtMs: DoneAtMs } | undefined
  vanishedAtMs: number | undefined
  phonedHome: { readonly atMs: number; readonly tries: number } | undefined
}

export interface CloudState extends WorldState {
  /** All that ever were, by id. */
  readonly servers: Map<string, Server>
  /** Those that are not known to be gone, by id. */
  readonly live: Map<string, Server>
  /** Boots that have not phoned home, by boot id. */
  readonly boots: Map<string, Server>
  /** Servers that will vanish by themselves. */
  readonly vanishing: Set<Server>
  readonly leaving: Set<Server>
}

/** When a server is gone; Infinity: not as far as is known. */
export function goneAtMs(server: Server): number {
  return Math.min(server.deletion?.goneAtMs ?? Infinity, server.vanishedAtMs ?? Infinity)
}

export function isLive(server: Server, nowMs: number): boolean {
  return nowMs < goneAtMs(server)
}

export function statusOf(server: Server, nowMs: number): ServerStatus {
  if (server.deletion !== undefined) return 'deleting'
  if (!isOver(server.runningAtMs, nowMs)) return 'creating'
  if (server.system !== undefined && !isOver(server.system.installedAtMs, nowMs)) return 'reinstalling'
  if (failureOf(server) !== undefined) return 'failed'
  return powerOf(server.power, 'on', nowMs) === 'on' ? 'running' : 'off'
}

/** Why the system that is on a server does not run; `undefined`: it does. */
export function failureOf({ system, created }: Server): string | undefined {
  return system === undefined ? created.failure : system.failure
}

/** The first boot of the system that is on a server. */
export function bootOf({ system, created }: Server): BootPlan | undefined {
  return system === undefined ? created.boot : system.boot
}

/** Power at a moment, given the last order and what it was without one. */
export function powerOf(change: PowerChange | undefined, unordered: 'on' | 'off', nowMs: number): 'on' | 'off' {
  if (change === undefined) return unordered
  if (!isOver(change.doneAtMs, nowMs)) return change.was
  return change.wish === 'off' ? 'off' : 'on'
}

export function isOver(doneAtMs: DoneAtMs, nowMs: number): boolean {
  return doneAtMs !== null && doneAtMs <= nowMs
}

/** Live servers that match, at a moment. */
export function countLive(state: CloudState, nowMs: number, matches: (server: ServerCreated) => boolean): number {
  let count = 0
  for (const server of state.live.values()) if (isLive(server, nowMs) && matches(server.created)) count++
  return count
}

export function findLive(
  state: CloudState,
  nowMs: number,
  matches: (server: ServerCreated) => boolean,
): Server | undefined {
  for (const server of state.live.values()) if (isLive(server, nowMs) && matches(server.created)) return server
  return undefined
}

export const cloudRules: WorldRules<CloudState> = {
  kind: 'cloud',
  initial: () => ({
    ...initialWorldState(),
    servers: new Map(),
    live: new Map(),
    boots: new Map(),
    vanishing: new Set(),
    leaving: new Set(),
  }),
  apply,
  due(state, nowMs): Fact | undefined {
    for (const server of state.vanishing) {
      if (vanishesAtMs(server) <= nowMs && isLive(server, nowMs))
        return { fact: 'server.vanished', id: server.created.id }
    }
    return undefined
  },
  *pendingBoots(state, nowMs): Iterable<PendingBoot> {
    for (const server of state.boots.values()) {
      const { id, addresses, by } = server.created
      const boot = bootOf(server)
      const dueAtMs = bootDueAtMs(server)
      if (boot === undefined || dueAtMs === undefined || !isLive(server, nowMs)) continue
      yield { id, plan: boot, addresses, dueAtMs, by: server.system?.by ?? by }
    }
  },
  phonedHome: (boot, tries) => ({ fact: 'server.phoned-home', id: boot.id, bootId: boot.plan.bootId, tries }),
  mayBoot(state, bootId, nowMs): boolean {
    const server = state.boots.get(bootId)
    return server !== undefined && isLive(server, nowMs)
  },
}

function apply(state: CloudState, line: Line): void {
  applyCommon(state, line)
  forgetGone(state, line.atMs)
  if (line.fact === 'server.created') return addServer(state, line)
  const server = 'id' in line ? state.servers.get(line.id) : undefined
  if (server === undefined) return
  switch (line.fact) {
    case 'server.retried':
      server.runningAtMs = line.runningAtMs
      server.creationStartedAtMs = line.atMs
      break
    case 'server.deleted':
      server.deletion = { startedAtMs: line.atMs, goneAtMs: line.goneAtMs }
      state.leaving.add(server)
      endBoot(state, server)
      break
    case 'server.powered': {
      const was = powerOf(server.power, 'on', line.atMs)
      server.power = { was, wish: line.wish, startedAtMs: line.atMs, doneAtMs: line.doneAtMs }
      // What starts anew starts its own system.
      if (line.wish !== 'on') server.rescue = false
      break
    }
    case 'server.rescued': {
      const was = powerOf(server.power, 'on', line.atMs)
      if (was === 'on') server.power = { was, wish: 'reboot', startedAtMs: line.atMs, doneAtMs: line.doneAtMs }
      server.rescue = line.enabled
      break
    }
    case 'server.reinstalled':
      return reinstall(state, server, line)
    case 'server.keyed':
      server.ownershipKey = line.ownershipKey
      break
    case 'server.vanished':
      server.vanishedAtMs ??= line.atMs
      state.vanishing.delete(server)
      state.live.delete(line.id)
      endBoot(state, server)
      break
    case 'server.phoned-home':
      server.phonedHome ??= { atMs: line.atMs, tries: line.tries }
      endBoot(state, server)
      break
    default:
  }
}

function addServer(state: CloudState, line: ServerCreated & Stamp): void {
  const server: Server = {
    created: line,
    ownershipKey: line.ownershipKey,
    runningAtMs: line.runningAtMs,
    creationStartedAtMs: line.atMs,
    power: undefined,
    system: undefined,
    reinstalls: 0,
    rescue: false,
    deletion: undefined,
    vanishedAtMs: undefined,
    phonedHome: undefined,
  }
  state.servers.set(line.id, server)
  state.live.set(line.id, server)
  if (line.boot !== undefined && !line.boot.silent && line.failure === undefined)
    state.boots.set(line.boot.bootId, server)
  if (line.vanishAfterMs !== undefined) state.vanishing.add(server)
}

function reinstall(state: CloudState, server: Server, line: ServerReinstalled & Stamp): void {
  endBoot(state, server)
  server.system = line
  server.reinstalls += 1
  server.rescue = false
  server.phonedHome = undefined
  server.power = { was: 'on', wish: 'on', startedAtMs: line.atMs, doneAtMs: line.installedAtMs }
  if (line.boot !== undefined && !line.boot.silent && line.failure === undefined)
    state.boots.set(line.boot.bootId, server)
}

function forgetGone(state: CloudState, nowMs: number): void {
  for (const server of state.leaving) {
    if (isLive(server, nowMs)) continue
    state.leaving.delete(server)
    state.vanishing.delete(server)
    state.live.delete(server.created.id)
  }
}

function endBoot(state: CloudState, server: Server): void {
  const boot = bootOf(server)
  if (boot !== undefined) state.boots.delete(boot.bootId)
}

function vanishesAtMs(server: Server): number {
  const { vanishAfterMs } = server.created
  return vanishAfterMs === undefined || server.runningAtMs === null ? Infinity : server.runningAtMs + vanishAfterMs
}

/** When a server's first boot is through; `undefined`: not with its power as it is. */
function bootDueAtMs(server: Server): number | undefined {
  const { runningAtMs, power, system, rescue } = server
  const boot = bootOf(server)
  const madeAtMs = system === undefined ? runningAtMs : system.installedAtMs
  if (boot === undefined || madeAtMs === null || rescue) return undefined
  const onSinceMs = onSince(power, madeAtMs)
  return onSinceMs === undefined ? undefined : onSinceMs + boot.durationMs
}

/** Since when something is on that was made at a moment; `undefined`: it is off, or on its way there. */
export function onSince(power: PowerChange | undefined, madeAtMs: number): number | undefined {
  if (power === undefined) return madeAtMs
  if (power.wish === 'off' || power.doneAtMs === null) return undefined
  return Math.max(madeAtMs, power.doneAtMs)
}
