import { cpus, hostname, release, totalmem } from 'node:os'
import { rebootsOf } from './checker/power.js'
import { callsOf } from './checker/calls.js'
import { readHistories, type Histories, type Violation } from './checker/histories.js'
import type { Fault } from './kinds.js'
import { unsupported } from './kinds.js'

export interface Tally {
  attempted: number
  effective: number
}

/** The figures of one round. */
export interface RoundReport {
  readonly seed: number
  readonly faultSeconds: number
  readonly restSeconds: number
  readonly faults: Readonly<Record<string, Tally>>
  readonly planned: number
  /** Ends by SIGKILL and by SIGTERM, by kind of process. */
  readonly ended: Readonly<Record<string, number>>
  readonly operations: Readonly<Record<string, Readonly<Record<string, number>>>>
  readonly acknowledged: number
  readonly acknowledgedPerMinute: number
  readonly hosts: number
  readonly servers: number
  readonly cloudFaults: Readonly<Record<string, number>>
  readonly watch: {
    readonly deliveries: number
    readonly opened: number
    readonly resumed: number
    readonly fresh: number
  }
  readonly rebootsRepeated: number
  /** From the end of a fault to the next acknowledged operation that began after it, at most. */
  readonly longestRecoveryMs: number
  /** The longest time without an acknowledged operation. */
  readonly longestSilenceMs: number
  readonly violations: readonly Violation[]
  /** Why the round proves nothing; empty: it does. */
  readonly void: readonly string[]
  readonly histories: string
}

interface Limits {
  readonly seed: number
  readonly faults: readonly Fault[]
  readonly floor: number
  readonly effectiveShare: number
  readonly faultsMs: number
  readonly restMs: number
}

/** Adds up what the histories of a round say. */
export function judgeRound(folder: string, violations: readonly unknown[], limits: Limits): RoundReport {
  const histories = readHistories(folder)
  const faults = tallyFaults(histories, limits.faults)
  const effective = Object.values(faults).reduce((sum, tally) => sum + tally.effective, 0)
  const under = underFaults(histories)
  const acknowledged = under.length
  const perMinute = limits.faultsMs > 0 ? (acknowledged * 60_000) / limits.faultsMs : 0
  const needed = Math.ceil(limits.faults.length * limits.effectiveShare)
  return {
    seed: limits.seed,
    faultSeconds: Math.round(limits.faultsMs / 1_000),
    restSeconds: Math.round(limits.restMs / 1_000),
    planned: limits.faults.length,
    faults,
    ended: tallyEnds(histories),
    operations: tallyOperations(histories),
    acknowledged,
    acknowledgedPerMinute: Math.round(perMinute),
    hosts: new Set(
      callsOf(histories).flatMap(({ outcome, invocation }) =>
        outcome?.type === 'ok' && invocation.op === 'order' ? [outcome.seen.uid] : [],
      ),
    ).size,
    servers: histories.ledgers
      .flatMap(({ lines }) => lines)
      .filter(({ fact }) => /^(server\.created|machine\.provisioned)$/.test(fact)).length,
    cloudFaults: tallyCloud(histories),
    watch: tallyWatch(histories),
    rebootsRepeated: rebootsOf(histories).reduce(
      (sum, { wished, happened }) => sum + Math.max(0, happened.length - wished),
      0,
    ),
    ...recovery(histories, under),
    violations: violations as readonly Violation[],
    void: [
      ...(perMinute < limits.floor
        ? [`${Math.round(perMinute)} acknowledged operations a minute are below the floor of ${limits.floor}`]
        : []),
      ...(effective < needed
        ? [`${effective} of ${limits.faults.length} planned faults took effect, and ${needed} were needed`]
        : []),
    ],
    histories: folder,
  }
}

function tallyFaults({ faults }: Histories, planned: readonly Fault[]): Record<string, Tally> {
  const tallies: Record<string, Tally> = {}
  for (const { kind } of planned) tallies[kind] ??= { attempted: 0, effective: 0 }
  for (const line of faults) {
    const tally = (tallies[line.kind] ??= { attempted: 0, effective: 0 })
    if (line.type === 'begin') tally.attempted++
    else if (line.effective === true) tally.effective++
  }
  return tallies
}

function tallyEnds({ processes }: Histories): Record<string, number> {
  const ended: Record<string, number> = {}
  for (const { type, name, how, because } of processes) {
    if (type !== 'exit' || because === 'the end' || because === 'told to stop') continue
    const kind = /^(hub|client|watcher|postgres)/.exec(name)?.[1] ?? 'provider'
    const key = because === undefined ? `${kind} by itself` : `${kind} ${how ?? ''}`
    ended[key] = (ended[key] ?? 0) + 1
  }
  return ended
}

function tallyOperations(histories: Histories): Record<string, Record<string, number>> {
  const operations: Record<string, Record<string, number>> = {}
  for (const { invocation, outcome } of callsOf(histories)) {
    const byOutcome = (operations[invocation.op] ??= {})
    const key = outcome?.type ?? 'info'
    byOutcome[key] = (byOutcome[key] ?? 0) + 1
  }
  return operations
}

function tallyCloud({ ledgers }: Histories): Record<string, number> {
  const tally: Record<string, number> = {}
  const count = (key: string) => (tally[key] = (tally[key] ?? 0) + 1)
  for (const line of ledgers.flatMap(({ lines }) => lines)) {
    if (line.answer === 'lost') count('done, and the answer lost')
    if (line.fact === 'call.refused') count(`refused: ${line.code ?? ''}`)
    if (line.fact === 'server.vanished') count('vanished')
  }
  return tally
}

function tallyWatch({ watches }: Histories) {
  const lines = watches.flatMap((file) => file.lines)
  const opens = lines.flatMap((line) => (line.type === 'open' ? [line] : []))
  return {
    deliveries: lines.reduce((sum, line) => sum + (line.type === 'message' ? line.changes.length : 0), 0),
    opened: opens.length,
    resumed: opens.filter(({ from }) => from !== '').length,
    fresh: opens.filter(({ from }) => from === '').length,
  }
}

interface Acknowledged {
  readonly fromMs: number
  readonly toMs: number
}

/** Operations of clients that were acknowledged before they were told to stop. */
function underFaults(histories: Histories): readonly Acknowledged[] {
  return callsOf(histories)
    .flatMap(({ invocation, outcome }) =>
      outcome?.type === 'ok' && invocation.by !== 'clerk' ? [{ fromMs: invocation.at, toMs: outcome.at }] : [],
    )
    .sort((one, other) => one.toMs - other.toMs)
}

function recovery({ faults }: Histories, done: readonly Acknowledged[]) {
  let longestRecoveryMs = 0
  for (const { type, at, effective } of faults) {
    if (type !== 'end' || effective !== true) continue
    const next = done.find(({ fromMs }) => fromMs >= at)
    if (next !== undefined) longestRecoveryMs = Math.max(longestRecoveryMs, next.toMs - at)
  }
  let longestSilenceMs = 0
  for (const [index, { toMs }] of done.entries())
    longestSilenceMs = Math.max(longestSilenceMs, toMs - (done[index - 1]?.toMs ?? toMs))
  return { longestRecoveryMs, longestSilenceMs }
}

/** The figures of all rounds together, with what is needed to repeat them. */
export interface RunReport {
  readonly command: string
  readonly commit: string
  readonly machine: string
  readonly rounds: readonly RoundReport[]
  readonly unsupported: readonly { readonly kind: string; readonly why: string }[]
  readonly verdict: 'passed' | 'violated' | 'void'
}

export function sumUp(
  rounds: readonly RoundReport[],
  about: { command: string; commit: string; missing: readonly { kind: string; why: string }[] },
): RunReport {
  const violated = rounds.some(({ violations }) => violations.length > 0)
  const isVoid = rounds.length === 0 || rounds.some((round) => round.void.length > 0)
  const gib = Math.round(totalmem() / 2 ** 30)
  return {
    command: about.command,
    commit: about.commit,
    machine: `${hostname()}: ${cpus().length} × ${cpus()[0]?.model.trim() ?? 'CPU'}, ${gib} GiB, Linux ${release()}, Node ${process.versions.node}`,
    rounds,
    unsupported: [...unsupported, ...about.missing],
    verdict: violated ? 'violated' : isVoid ? 'void' : 'passed',
  }
}

/** The summary for people. */
export function describeRun(run: RunReport): string {
  const { rounds } = run
  const sum = (pick: (round: RoundReport) => number) => rounds.reduce((total, round) => total + pick(round), 0)
  const most = (pick: (round: RoundReport) => number) =>
    rounds.reduce((total, round) => Math.max(total, pick(round)), 0)
  const faults = mergeTallies(rounds.map((round) => round.faults))
  const lines = [
    '',
    `${rounds.length} rounds, ${sum((round) => round.faultSeconds)} s of faults; seeds ${rounds.map(({ seed }) => seed).join(', ')}`,
    `faults (effective / attempted / planned): ${sum(({ faults }) => total(faults, 'effective'))} / ${sum(({ faults }) => total(faults, 'attempted'))} / ${sum(({ planned }) => planned)}`,
    ...Object.entries(faults)
      .sort()
      .map(([kind, { attempted, effective }]) => `    ${kind.padEnd(30)} ${effective} / ${attempted}`),
    `processes ended: ${counts(merge(rounds.map(({ ended }) => ended)))}`,
    'operations:',
    ...operationLines(rounds),
    `    acknowledged ${sum(({ acknowledged }) => acknowledged)}, at least ${Math.min(...rounds.map(({ acknowledgedPerMinute }) => acknowledgedPerMinute))} a minute in each round`,
    `hosts ordered ${sum(({ hosts }) => hosts)}, servers made ${sum(({ servers }) => servers)}; reboots repeated after doubt ${sum(({ rebootsRepeated }) => rebootsRepeated)}`,
    `cloud: ${counts(merge(rounds.map(({ cloudFaults }) => cloudFaults)))}`,
    `watches: ${sum(({ watch }) => watch.deliveries)} changes delivered, opened ${sum(({ watch }) => watch.opened)} times, of these resumed ${sum(({ watch }) => watch.resumed)}`,
    `longest recovery ${(most(({ longestRecoveryMs }) => longestRecoveryMs) / 1000).toFixed(1)} s, longest time without an acknowledged operation ${(most(({ longestSilenceMs }) => longestSilenceMs) / 1000).toFixed(1)} s, longest way to rest ${most(({ restSeconds }) => restSeconds)} s`,
    'not run, and not claimed:',
    ...run.unsupported.map(({ kind, why }) => `    ${kind}: ${why}`),
    ...rounds.flatMap((round) => round.void.map((why) => `VOID (seed ${round.seed}): ${why}`)),
    ...rounds.flatMap(violationLines),
    run.machine,
    `commit ${run.commit}`,
    `repeat: ${run.command}`,
    `${run.verdict.toUpperCase()}: ${sum(({ violations }) => violations.length)} violations`,
  ]
  return lines.join('\n')
}

function violationLines({ violations, seed, histories }: RoundReport): readonly string[] {
  if (violations.length === 0) return []
  const shown = violations
    .slice(0, 20)
    .flatMap(({ rule, message, lines }) => [
      `VIOLATION ${rule} (seed ${seed}): ${message}`,
      ...lines.slice(0, 8).map((line) => `    ${JSON.stringify(line).slice(0, 1_000)}`),
    ])
  return [...shown, `    ${violations.length} violations; histories in ${histories}`]
}

function operationLines(rounds: readonly RoundReport[]): readonly string[] {
  const names = new Set(rounds.flatMap(({ operations }) => Object.keys(operations)))
  return [...names].map(
    (name) => `    ${name.padEnd(10)} ${counts(merge(rounds.map(({ operations }) => operations[name] ?? {})))}`,
  )
}

function total(tallies: Readonly<Record<string, Tally>>, field: keyof Tally): number {
  return Object.values(tallies).reduce((sum, tally) => sum + tally[field], 0)
}

function mergeTallies(all: readonly Readonly<Record<string, Tally>>[]): Record<string, Tally> {
  const merged: Record<string, Tally> = {}
  for (const tallies of all)
    for (const [kind, { attempted, effective }] of Object.entries(tallies)) {
      const tally = (merged[kind] ??= { attempted: 0, effective: 0 })
      tally.attempted += attempted
      tally.effective += effective
    }
  return merged
}

function merge(all: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const merged: Record<string, number> = {}
  for (const counts of all) for (const [key, count] of Object.entries(counts)) merged[key] = (merged[key] ?? 0) + count
  return merged
}

function counts(of: Readonly<Record<string, number>>): string {
  return (
    Object.entries(of)
      .map(([key, count]) => `${key} ${count}`)
      .join(', ') || 'none'
  )
}
