import { faultKinds, type FaultKind } from './faults.js'
import type { SeedResult } from './run.js'

/** Sums over seeds: the denominators of what is claimed. */
export interface Totals {
  seeds: number
  virtualMs: number
  events: number
  statements: number
  operations: number
  hosts: number
  creates: number
  watched: number
  readonly faults: Partial<Record<FaultKind, number>>
  readonly violations: { readonly seed: number; readonly invariant: string; readonly message: string }[]
  add(result: SeedResult): void
}

export function addUp(): Totals {
  return {
    seeds: 0,
    virtualMs: 0,
    events: 0,
    statements: 0,
    operations: 0,
    hosts: 0,
    creates: 0,
    watched: 0,
    faults: {},
    violations: [],
    add(result) {
      this.seeds += 1
      for (const key of ['virtualMs', 'events', 'statements', 'operations', 'hosts', 'creates', 'watched'] as const)
        this[key] += result[key]
      for (const kind of faultKinds) {
        const count = result.faults[kind] ?? 0
        if (count > 0) this.faults[kind] = (this.faults[kind] ?? 0) + count
      }
      for (const { invariant, message } of result.violations)
        this.violations.push({ seed: result.seed, invariant, message })
    },
  }
}

export function describe(
  totals: Totals,
  run: { readonly seeds: number; readonly from: number; readonly seconds: number; readonly machine: string },
): string {
  const faults = Object.values(totals.faults).reduce((sum, count) => sum + count, 0)
  const rows = faultKinds.flatMap((kind) =>
    totals.faults[kind] === undefined ? [] : [`  ${kind.padEnd(28)}${String(totals.faults[kind]).padStart(9)}`],
  )
  const n = (count: number): string => Math.round(count).toLocaleString('en')
  return [
    `${n(totals.seeds)} of ${n(run.seeds)} seeds, from ${run.from}, in ${n(run.seconds)} s (${run.machine})`,
    `  virtual time ${(totals.virtualMs / 3_600_000).toFixed(1)} h, ${(totals.virtualMs / 1000 / run.seconds).toFixed(0)} times as fast as real`,
    `  ${n(totals.hosts)} hosts ordered and released, ${n(totals.creates)} machines made, ${n(totals.operations)} calls of clients, ${n(totals.watched)} changes watched`,
    `  ${n(totals.events)} events, ${n(totals.statements)} statements`,
    `  ${n(faults)} faults that took effect:`,
    ...rows,
    `${n(totals.violations.length)} violations`,
  ].join('\n')
}
