import { goneAtMs, cloudRules, isLive, powerOf, statusOf, type CloudState, type Server } from './cloud-state.js'
import type { CloudCode, Line, ViolationSeen, WorldKind } from './facts.js'
import { Ledger, type Leftovers, type Reducer } from './ledger.js'
import { machinePower, rackRules, type RackMachine, type RackState } from './rack-state.js'
import { kindOfWorld, type WorldState } from './world.js'

export type { Line } from './facts.js'

/** A server that is or was, as the cloud itself knows it. Times are milliseconds since 1970. */
export interface ServerReport {
  readonly id: string
  readonly name: string
  readonly ownershipKey: string
  readonly type: string
  readonly location: string
  readonly labels: Readonly<Record<string, string>>
  readonly isLive: boolean
  /** How often a new system was put on it, the mark of the last one, and whether its rescue system was started last. */
  readonly reinstalls: number
  readonly mark: number
  readonly rescue: boolean
  /** Of the system that is on it. */
  readonly sshPublicKeys: readonly string[]
  readonly status: 'creating' | 'reinstalling' | 'failed' | 'running' | 'off' | 'deleting' | 'gone' | 'vanished'
  readonly power: 'on' | 'off'
  readonly createdAtMs: number
  /** Absent: not as far as is known. */
  readonly goneAtMs?: number
  readonly phonedHomeAtMs?: number
  readonly answer?: 'lost'
}

/** What happened under one ownership key. */
export interface OwnerReport {
  readonly ownershipKey: string
  /** Servers ever created, or times that a machine was bound. */
  readonly creates: number
  readonly live: number
  /** The most that ever lived at the same moment: more than 1 is a second server for one request. */
  readonly maxLive: number
}

/** A machine of the rack that was ever touched. */
export interface MachineReport {
  readonly serial: string
  readonly power: 'on' | 'off'
  readonly isThere: boolean
  /** The ownership key of the host on it. */
  readonly binding?: string
  readonly phonedHomeAtMs?: number
  /** Whose data is on its disks; absent: it is clean. */
  readonly soiledBy?: string
  readonly bindings: readonly { readonly binding: string; readonly fromMs: number; readonly toMs?: number }[]
  /** Wipes that went well, with the host whose data they removed. */
  readonly wipes: readonly { readonly atMs: number; readonly binding?: string }[]
}

/** Everything that a ledger tells. */
export interface WorldReport {
  readonly dir: string
  readonly kind: WorldKind
  readonly worldId: string
  readonly seed: number
  /** Lines that hold, and what was passed over. */
  readonly lines: number
  readonly leftovers: Leftovers
  /** Writing calls by kind, and refusals by reason. */
  readonly calls: Readonly<Record<string, number>>
  readonly refusals: Readonly<Partial<Record<CloudCode, number>>>
  /** Calls that had their effect, and whose caller was told of a timeout. */
  readonly lostAnswers: number
  readonly totals: {
    readonly creates: number
    readonly deletes: number
    readonly vanished: number
    readonly phonedHome: number
    readonly live: number
    readonly maxLive: number
    readonly maxLiveByOwner: number
    readonly wipes: number
  }
  readonly owners: readonly OwnerReport[]
  readonly servers: readonly ServerReport[]
  readonly machines: readonly MachineReport[]
  readonly violations: readonly (ViolationSeen & { readonly seq: number; readonly atMs: number })[]
}

/** Reads a world from its ledger alone, and changes nothing. @throws where the folder holds none. */
export function readWorld(dir: string): WorldReport {
  if (kindOfWorld(dir) === 'cloud') {
    const ledger = replay(dir, cloudRules)
    return { ...common(dir, ledger), ...cloudReport(ledger.state, ledger.now()) }
  }
  const ledger = replay(dir, rackRules)
  return { ...common(dir, ledger), ...rackReport(ledger.state, ledger.now()) }
}

/** The lines of a ledger that hold, in order. @throws where the folder holds no world. */
export function readLines(dir: string): readonly Line[] {
  kindOfWorld(dir)
  return replay<Line[]>(dir, { initial: () => [], apply: (lines, line) => void lines.push(line) }).state
}

function replay<State>(dir: string, reducer: Reducer<State>): Ledger<State> {
  const ledger = new Ledger(dir, reducer, { readOnly: true })
  ledger.close()
  return ledger
}

function common(dir: string, ledger: Ledger<WorldState>) {
  const { opened, calls, refusals, lostAnswers, violations } = ledger.state
  return {
    dir,
    worldId: opened?.worldId ?? '',
    seed: opened?.seed ?? 0,
    lines: ledger.seq,
    leftovers: ledger.leftovers,
    calls: Object.fromEntries(calls),
    refusals: Object.fromEntries(refusals),
    lostAnswers,
    violations: violations.map((violation) => ({ ...violation })),
  }
}

interface Span {
  readonly owner: string
  readonly fromMs: number
  /** Infinity: it goes on. */
  readonly toMs: number
}

function cloudReport(state: CloudState, nowMs: number) {
  const all = [...state.servers.values()]
  const spans = all.map(({ created, ...rest }) => ({
    owner: rest.ownershipKey,
    fromMs: created.atMs,
    toMs: goneAtMs({ created, ...rest }),
  }))
  return {
    kind: 'cloud' as const,
    totals: {
      ...spanTotals(spans, nowMs),
      deletes: all.filter(({ deletion }) => deletion !== undefined).length,
      vanished: all.filter(({ vanishedAtMs }) => vanishedAtMs !== undefined).length,
      phonedHome: all.filter(({ phonedHome }) => phonedHome !== undefined).length,
      wipes: 0,
    },
    owners: ownersOf(spans, nowMs),
    servers: all.map((server) => serverReport(server, nowMs)),
    machines: [],
  }
}

function serverReport(server: Server, nowMs: number): ServerReport {
  const { created, ownershipKey, vanishedAtMs, phonedHome } = server
  const { id, name, type, location, labels, answer, atMs } = created
  const lives = isLive(server, nowMs)
  const endMs = goneAtMs(server)
  const end = vanishedAtMs !== undefined && vanishedAtMs <= endMs ? 'vanished' : 'gone'
  return {
    id,
    name,
    ownershipKey,
    type,
    location,
    labels,
    isLive: lives,
    reinstalls: server.reinstalls,
    mark: server.system?.mark ?? 0,
    rescue: server.rescue,
    sshPublicKeys: (server.system ?? server.created).sshPublicKeys ?? [],
    status: lives ? statusOf(server, nowMs) : end,
    power: lives ? powerOf(server.power, 'on', nowMs) : 'off',
    createdAtMs: atMs,
    ...(endMs !== Infinity && { goneAtMs: endMs }),
    ...(phonedHome !== undefined && { phonedHomeAtMs: phonedHome.atMs }),
    ...(answer !== undefined && { answer }),
  }
}

function rackReport(state: RackState, nowMs: number) {
  const machines = [...state.machines.values()]
  const bindings = machines.flatMap((machine) => machine.bindings)
  const spans = bindings.map(({ provisioned, boundAtMs, releasedAtMs }) => ({
    owner: provisioned.binding,
    fromMs: boundAtMs,
    toMs: releasedAtMs ?? Infinity,
  }))
  return {
    kind: 'rack' as const,
    totals: {
      ...spanTotals(spans, nowMs),
      deletes: bindings.filter(({ releasedAtMs }) => releasedAtMs !== undefined).length,
      vanished: machines.filter(({ vanishedAtMs }) => vanishedAtMs !== undefined).length,
      phonedHome: bindings.filter(({ phonedHome }) => phonedHome !== undefined).length,
      wipes: machines.reduce((sum, { wipes }) => sum + wipes.length, 0),
    },
    owners: ownersOf(spans, nowMs),
    servers: [],
    machines: machines.map((machine) => machineReport(machine, nowMs)),
  }
}

function machineReport(machine: RackMachine, nowMs: number): MachineReport {
  const { serial, binding, soiledBy, vanishedAtMs, bindings, wipes } = machine
  return {
    serial,
    power: machinePower(machine, nowMs),
    isThere: vanishedAtMs === undefined,
    ...(binding !== undefined && { binding: binding.provisioned.binding }),
    ...(binding?.phonedHome !== undefined && { phonedHomeAtMs: binding.phonedHome.atMs }),
    ...(soiledBy !== undefined && { soiledBy }),
    bindings: bindings.map(({ provisioned, boundAtMs, releasedAtMs }) => ({
      binding: provisioned.binding,
      fromMs: boundAtMs,
      ...(releasedAtMs !== undefined && { toMs: releasedAtMs }),
    })),
    wipes: wipes.map(({ atMs, binding }) => ({ atMs, ...(binding !== undefined && { binding }) })),
  }
}

function spanTotals(spans: readonly Span[], nowMs: number) {
  const byOwner = [...groupByOwner(spans).values()].map(maxAtOnce)
  return {
    creates: spans.length,
    live: spans.filter(({ toMs }) => nowMs < toMs).length,
    maxLive: maxAtOnce(spans),
    maxLiveByOwner: byOwner.reduce((most, count) => Math.max(most, count), 0),
  }
}

function ownersOf(spans: readonly Span[], nowMs: number): OwnerReport[] {
  return [...groupByOwner(spans)].map(([ownershipKey, own]) => ({
    ownershipKey,
    creates: own.length,
    live: own.filter(({ toMs }) => nowMs < toMs).length,
    maxLive: maxAtOnce(own),
  }))
}

function groupByOwner(spans: readonly Span[]): Map<string, Span[]> {
  const owners = new Map<string, Span[]>()
  for (const span of spans) {
    const own = owners.get(span.owner)
    if (own === undefined) owners.set(span.owner, [span])
    else own.push(span)
  }
  return owners
}

/** How many spans overlap at most. One that ends at the very moment at which another begins does not overlap it. */
function maxAtOnce(spans: readonly Span[]): number {
  const edges = spans.flatMap(({ fromMs, toMs }) => [
    { atMs: fromMs, step: 1 },
    { atMs: toMs, step: -1 },
  ])
  edges.sort((a, b) => (a.atMs === b.atMs ? a.step - b.step : a.atMs - b.atMs))
  let now = 0
  let most = 0
  for (const { step } of edges) most = Math.max(most, (now += step))
  return most
}
