import type { Dice } from './dice.js'
import { failpoints } from './failpoints.js'
import { clients, hubs, leaseMs, providers, watchers, wires, type Wire } from './topology.js'

/** One fault of a schedule. */
export interface Fault {
  readonly id: number
  /** When it begins, from the start of the schedule. */
  readonly atMs: number
  readonly kind: string
  readonly target: string
  /** How long it lasts before it is healed. */
  readonly durationMs: number
  readonly params: Readonly<Record<string, string | number>>
}

export type Drawn = Pick<Fault, 'target' | 'durationMs' | 'params'>

export interface Kind {
  readonly name: string
  readonly weight: number
  /** Faults that must not overlap share a word. Two faults of one target never overlap. */
  readonly exclusive?: 'postgres'
  /** What it needs of the machine beside the rest. */
  readonly needs?: 'libfaketime'
  readonly draw: (dice: Dice) => Drawn
}

type Targets = readonly string[]

function ofParty(name: string, weight: number, targets: Targets, least: number, most: number): Kind {
  return {
    name,
    weight,
    draw: (dice) => ({ target: dice.pick(targets), durationMs: dice.between(least, most), params: {} }),
  }
}

const wireClasses: readonly Wire['class'][] = ['hub-db', 'provider-hub', 'client-hub', 'watcher-hub']

/** A fault of the network for each class of wires: so each is counted by itself. */
function ofWires(
  name: string,
  weight: number,
  span: readonly [number, number],
  params: (dice: Dice) => Fault['params'] = () => ({}),
): readonly Kind[] {
  return wireClasses.map((wireClass) => ({
    name: `${name}:${wireClass}`,
    weight,
    draw: (dice) => ({
      target: dice.pick(wires.filter((wire) => wire.class === wireClass)).name,
      durationMs: dice.between(...span),
      params: params(dice),
    }),
  }))
}

function ofPostgres(name: string, weight: number, least: number, most: number): Kind {
  return {
    name,
    weight,
    exclusive: 'postgres',
    draw: (dice) => ({ target: 'postgres', durationMs: dice.between(least, most), params: {} }),
  }
}

function atFailpoints(of: 'provider' | 'hub', targets: Targets): readonly Kind[] {
  return failpoints[of].map((name) => ({
    name: `failpoint:${name}`,
    weight: 1,
    draw: (dice) => ({
      target: dice.pick(targets),
      durationMs: dice.between(12_000, 16_000),
      params: { failpoint: name, hit: dice.between(1, 2) },
    }),
  }))
}

function ofClock(name: string, sign: 1 | -1, targets: Targets): Kind {
  return {
    name,
    weight: 1,
    needs: 'libfaketime',
    draw: (dice) => ({
      target: dice.pick(targets),
      durationMs: dice.between(2_000, 6_000),
      params: { seconds: sign * dice.pick([30, 600, 3_600]) },
    }),
  }
}

const shortStop = [300, Math.floor(leaseMs * 0.5)] as const
const longStop = [Math.floor(leaseMs * 1.5), Math.floor(leaseMs * 2.5)] as const
const dynamic = providers.filter((name) => name.startsWith('cloud'))

/** Every fault that can be injected. */
export const kinds: readonly Kind[] = [
  ofParty('kill:hub', 5, hubs, 300, 4_000),
  ofParty('kill:provider', 6, providers, 200, 5_000),
  ofParty('kill:client', 2, clients, 100, 1_000),
  ofParty('kill:watcher', 3, watchers, 100, 1_000),
  ofParty('term:hub', 3, hubs, 200, 1_000),
  ofParty('term:provider', 2, providers, 200, 1_000),
  ofParty('stop-short:hub', 2, hubs, ...shortStop),
  ofParty('stop-long:hub', 3, hubs, ...longStop),
  ofParty('stop-short:provider', 2, providers, ...shortStop),
  ofParty('stop-long:provider', 3, providers, ...longStop),
  ofParty('stop-long:client', 1, clients, ...longStop),
  ofParty('stop-long:watcher', 1, watchers, ...longStop),
  ...atFailpoints('provider', dynamic),
  ...atFailpoints('hub', hubs),
  ofParty('unplug:hub', 2, hubs, 1_000, 6_000),
  ofParty('unplug:provider', 2, providers, 1_000, 8_000),
  ...ofWires('cut', 1, [800, 6_000]),
  ...ofWires('cut-to', 1, [800, 6_000]),
  ...ofWires('cut-from', 1, [800, 6_000]),
  ...ofWires('stall', 1, [800, 5_000], (dice) => ({ direction: dice.pick(['up', 'down', 'both']) })),
  ...ofWires('slow', 1, [1_500, 6_000], (dice) => ({
    latencyMs: dice.between(20, 400),
    bytesPerSecond: dice.pick([10_000, 50_000, 200_000]),
  })),
  ...ofWires('slice', 0.7, [1_000, 4_000], (dice) => ({ bytes: dice.pick([1, 7, 64]) })),
  ...ofWires('reset', 1, [100, 300]),
  ...ofWires('truncate', 0.7, [500, 3_000], (dice) => ({ bytes: dice.between(1, 4_000) })),
  ...ofWires('half-open', 0.7, [800, 4_000]),
  ofPostgres('pg-kill', 3, 200, 2_500),
  ofPostgres('pg-restart', 2, 100, 1_000),
  ofPostgres('pg-stop', 1, 1_000, 5_000),
  ofPostgres('pg-terminate-backend', 3, 200, 400),
  ofPostgres('pg-long-transaction', 2, 2_000, 8_000),
  ofPostgres('pg-lock', 1, 500, 3_000),
  ofPostgres('pg-disk-full', 1, 1_500, 4_000),
  ofPostgres('pg-relay-dead', 2, 2_000, 6_000),
  ofClock('clock-forward:hub', 1, hubs),
  ofClock('clock-back:hub', -1, hubs),
  ofClock('clock-forward:provider', 1, providers),
  ofClock('clock-back:provider', -1, providers),
  ofParty('cloud-vanish', 1, ['cloud-a', 'cloud-b'], 100, 200),
]

/** Faults of the catalogue that a run cannot inject, and why: said in every report, and never counted as passed. */
export const unsupported: readonly { readonly kind: string; readonly why: string }[] = [
  { kind: 'packet loss, reordering, jitter, MTU', why: 'the kernel has no netem; loss is a stall or a reset here' },
  { kind: 'standby promotion', why: 'the run has one PostgreSQL without a standby' },
  { kind: 'slow fsync', why: 'its file system is in memory' },
  { kind: 'power loss of the machine', why: 'file systems in memory do not survive it' },
  { kind: 'database clock alone', why: 'PostgreSQL is not run under libfaketime' },
  { kind: 'UDP, BMC and PXE faults', why: 'the simulated rack has no network of its own' },
]
