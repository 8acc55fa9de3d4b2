import type { Hello } from '@slipway/proto/provider/v1'
import type { Adapter, Description } from './adapter.js'
import { Bench } from './bench.js'
import { whySkipped, type Case } from './case.js'
import { opening } from './cases/opening.js'
import { TestAuthority } from './gateway/authority.js'
import { CaseSkipped } from './until.js'

/** How one case ended. */
export interface CaseResult {
  readonly id: string
  readonly rule: string
  readonly outcome: 'passed' | 'failed' | 'skipped'
  /** Why it failed or was skipped. */
  readonly reason?: string
  readonly durationMs: number
  /** What was said and done; of those that ran. */
  readonly transcript?: string
}

export interface RunOptions {
  readonly adapter: Adapter
  readonly description: Description
  /** The program that starts an instance, and its arguments. */
  readonly command: readonly string[]
  readonly cases: readonly Case[]
  /** Cases at once. More than one only with an isolated adapter. */
  readonly jobs: number
  /** How long to wait for anything that must happen, at most, in milliseconds. */
  readonly waitMs: number
  readonly onResult?: (result: CaseResult) => void
}

/** What a whole run gave. */
export interface RunResult {
  /** Undefined where the provider never opened a session. */
  readonly hello: Hello | undefined
  readonly results: readonly CaseResult[]
}

/** Runs cases against a provider. The first thing is always to see whether it opens a session at all. */
export async function runConformance(options: RunOptions): Promise<RunResult> {
  const authority = await TestAuthority.create('Slipway conformance CA')
  let hello: Hello | undefined
  const asking: Case = {
    ...opening,
    async run(bench) {
      await opening.run(bench)
      hello = bench.gateway.sessions[0]?.hello
    },
  }
  const first = await runCase(asking, options, undefined, authority)
  options.onResult?.(first)
  const known = hello
  const cases = options.cases.filter(({ id }) => id !== opening.id)
  if (known === undefined) {
    const skipped = cases.map((each) => skippedResult(each, 'the provider opened no session'))
    for (const result of skipped) options.onResult?.(result)
    return { hello: undefined, results: [first, ...skipped] }
  }
  const results = await runAll(cases, options, known, authority)
  return { hello: known, results: [first, ...results] }
}

async function runAll(
  cases: readonly Case[],
  options: RunOptions,
  hello: Hello,
  authority: TestAuthority,
): Promise<CaseResult[]> {
  const results: CaseResult[] = []
  const waiting = [...cases.entries()]
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [index, each] = next
      const result = await runCase(each, options, hello, authority)
      results[index] = result
      options.onResult?.(result)
    }
  }
  const jobs = options.description.isolated === true ? options.jobs : 1
  await Promise.all(Array.from({ length: Math.max(1, jobs) }, work))
  return results
}

async function runCase(
  each: Case,
  options: RunOptions,
  hello: Hello | undefined,
  authority: TestAuthority,
): Promise<CaseResult> {
  const { id, rule } = each
  const why = hello === undefined ? undefined : whySkipped(each, options.description, hello)
  if (why !== undefined) return skippedResult(each, why)
  const startedAtMs = performance.now()
  const { adapter, description, command, waitMs } = options
  const bench = await Bench.open(
    { adapter, description, command, hello, waitMs, options: each.options ?? {} },
    authority,
  ).catch((error: unknown) => String(error))
  if (typeof bench === 'string')
    return { id, rule, outcome: 'failed', reason: `the case could not be set up: ${bench}`, durationMs: 0 }
  const thrown = await each.run(bench).then(
    () => undefined,
    (error: unknown) => error ?? new Error('something was thrown that says nothing'),
  )
  const output = bench.instances.map(
    ({ process }) => `--- last output of ${process.name} ---\n${process.output.slice(-4_000)}`,
  )
  const breaches = await bench.close().catch((error: unknown) => [`the case could not be ended: ${String(error)}`])
  const done = {
    id,
    rule,
    durationMs: performance.now() - startedAtMs,
    transcript: [bench.transcript.toText(), ...output].join('\n'),
  }
  if (thrown instanceof CaseSkipped && breaches.length === 0)
    return { ...done, outcome: 'skipped', reason: thrown.message }
  const reasons = [...(thrown === undefined ? [] : [messageOf(thrown)]), ...new Set(breaches)]
  return reasons.length === 0
    ? { ...done, outcome: 'passed' }
    : { ...done, outcome: 'failed', reason: reasons.join('; ') }
}

function messageOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown)
  return thrown.name === 'CaseFailure' ? thrown.message : `${thrown.name}: ${thrown.message}`
}

function skippedResult({ id, rule }: Case, reason: string): CaseResult {
  return { id, rule, outcome: 'skipped', reason, durationMs: 0 }
}
