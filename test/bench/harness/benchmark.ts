import type { Bed } from './bed.js'

/** What one round measured, by metric. The name of a metric ends with its unit. */
export type Sample = Readonly<Record<string, number>>

/** One way of doing what a benchmark measures. */
export interface Contender {
  /** Who does it: the hub, or what it is compared with. */
  readonly series: string
  /** Under which conditions; the same for all that are to be compared. */
  readonly case: string
  run(round: number): Promise<Sample>
}

/** What a figure is to be. */
export interface Goal {
  readonly text: string
  readonly series: string
  readonly case: string
  readonly metric: string
  /** The series of the same case whose figure is the measure; absent: the bound is absolute. */
  readonly of?: string
  readonly atLeast?: number
  readonly atMost?: number
}

export interface Prepared {
  /** Run in this order, round by round, so that whatever slows the machine slows all of them. */
  readonly contenders: readonly Contender[]
  close(): Promise<void>
}

export interface Benchmark {
  readonly name: string
  readonly title: string
  /** What is measured, and beside what. */
  readonly about: string
  readonly goals: readonly Goal[]
  /** The metric that is drawn, and how. */
  readonly charts: readonly { readonly metric: string; readonly title: string }[]
  prepare(bed: Bed): Promise<Prepared>
}

/** How much is done. */
export interface Effort {
  /** Tiny numbers, to see that everything works. */
  readonly quick: boolean
  readonly rounds: number
}
