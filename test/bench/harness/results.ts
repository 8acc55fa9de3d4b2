import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Benchmark, Effort, Goal, Sample } from './benchmark.js'
import { root } from './child.js'
import type { Machine } from './machine.js'
import { figure, median } from './stats.js'

/** What one contender measured, a value for each round. */
export interface Row {
  readonly series: string
  readonly case: string
  readonly metrics: Readonly<Record<string, readonly number[]>>
}

export interface Verdict {
  readonly text: string
  readonly value: number
  readonly bound: string
  readonly met: boolean
}

export interface Result {
  readonly name: string
  readonly title: string
  readonly about: string
  readonly at: string
  readonly machine: Machine
  /** Load of the machine when it began and when it ended, averaged over a minute: 1 for each core that is wanted. */
  readonly load: readonly [number, number]
  readonly rounds: number
  readonly rows: readonly Row[]
  readonly goals: readonly Verdict[]
  readonly charts: Benchmark['charts']
}

export const resultsFolder = join(root, 'test/bench/results')

export function saveResult(result: Result, folder: string): void {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, `${result.name}.json`), `${JSON.stringify(result, rounded, 2)}\n`)
}

export function loadResults(folder: string): Result[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .map((file) => JSON.parse(readFileSync(join(folder, file), 'utf8')) as Result)
}

const rounded = (_key: string, value: unknown): unknown =>
  typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(5)) : value

/** Runs all contenders round by round. */
export async function measure(
  contenders: readonly { readonly series: string; readonly case: string; run(round: number): Promise<Sample> }[],
  effort: Effort,
  say: (line: string) => void,
): Promise<Row[]> {
  const rows = contenders.map(({ series, case: of }) => {
    const metrics: Record<string, number[]> = {}
    return { series, case: of, metrics }
  })
  for (let round = 0; round < effort.rounds; round++) {
    for (const [index, contender] of contenders.entries()) {
      const sample = await contender.run(round)
      const metrics = rows[index]?.metrics ?? {}
      for (const [metric, value] of Object.entries(sample)) (metrics[metric] ??= []).push(value)
      const figures = Object.entries(sample).map(([metric, value]) => `${metric} ${figure(value)}`)
      say(`  round ${round + 1}  ${contender.series}, ${contender.case}:  ${figures.join('  ')}`)
    }
  }
  return rows
}

/** Ratios are of figures of the same round, so that what slowed the machine slowed both. */
export function judge(goal: Goal, rows: readonly Row[]): Verdict {
  const values = valuesOf(rows, goal.series, goal.case, goal.metric)
  const measures = goal.of === undefined ? undefined : valuesOf(rows, goal.of, goal.case, goal.metric)
  const compared =
    measures === undefined ? values : values.map((value, round) => value / (measures[round] ?? Number.NaN))
  const value = median(compared)
  const bound = goal.atLeast === undefined ? `≤ ${goal.atMost}` : `≥ ${goal.atLeast}`
  const met = goal.atLeast === undefined ? value <= (goal.atMost ?? Number.NaN) : value >= goal.atLeast
  return { text: goal.text, value, bound: measures === undefined ? bound : `${bound} ×`, met }
}

export function valuesOf(rows: readonly Row[], series: string, of: string, metric: string): readonly number[] {
  return rows.find((row) => row.series === series && row.case === of)?.metrics[metric] ?? []
}
