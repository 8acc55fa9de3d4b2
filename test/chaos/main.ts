import { spawnSync } from 'node:child_process'
import { setMaxListeners } from 'node:events'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { root } from '../tools/processes.js'
import { help, readOptions, UsageError, type Options } from './options.js'
import { fakeTimeLibrary } from './party.js'
import { describePlan, planFaults } from './plan.js'
import { describeRun, sumUp, type RoundReport } from './report.js'
import { runRound } from './round.js'
import { enterSandbox, inSandbox, sandboxFolder, toldToStop, whatIsMissing } from './sandbox.js'
import { createNetwork } from './world.js'

const exit = { violated: 1, usage: 2, void: 3, lacking: 4, broken: 5, interrupted: 130 } as const

/** How long the clearing up after Ctrl-C may take. */
const stopMs = 10_000

const say = (text: string) => void process.stdout.write(`${text}\n`)

async function main(argv: readonly string[]): Promise<number> {
  const options = readOptions(argv)
  if (options.help) {
    say(help)
    return 0
  }
  if (options.plan) {
    for (let round = 0; round < options.rounds; round++)
      say(`seed ${options.seed + round}\n${describePlan(plan(options, round))}`)
    return 0
  }
  if (inSandbox()) return runAll(options)
  const missing = whatIsMissing()
  if (missing.length > 0) {
    process.stderr.write(`chaos cannot run here; it lacks ${missing.join(', ')}\n`)
    return exit.lacking
  }
  // The seed must be the same within.
  return enterSandbox(['--seed', String(options.seed), ...withoutSeed(argv)])
}

function withoutSeed(argv: readonly string[]): readonly string[] {
  const index = argv.indexOf('--seed')
  const rest = index === -1 ? argv : [...argv.slice(0, index), ...argv.slice(index + 2)]
  return rest.filter((arg) => !arg.startsWith('--seed='))
}

function plan(options: Options, round: number) {
  return planFaults({
    seed: options.seed + round,
    forMs: options.minutes * 60_000,
    everyMs: options.faultEveryMs,
    kinds: options.kinds,
    has: new Set(fakeTimeLibrary === undefined ? [] : ['libfaketime']),
  })
}

async function runAll(options: Options): Promise<number> {
  const told = new AbortController()
  // Every fault that lasts listens to it.
  setMaxListeners(0, told.signal)
  void toldToStop().then(() => {
    told.abort(new Error('told to stop'))
    // Whatever hangs then: with this process, the kernel ends everything that it started.
    setTimeout(() => process.exit(exit.interrupted), stopMs).unref()
  })
  const network = await createNetwork()
  const reports: RoundReport[] = []
  for (let round = 0; round < options.rounds && !told.signal.aborted; round++) {
    const report =
      (options.resume && finishedRound(options, round)) || (await oneRound(options, round, network, told.signal))
    if (report === undefined) break
    reports.push(report)
    if (report.violations.length > 0) say(`seed ${report.seed}: ${report.violations.length} violations`)
  }
  const { seed, minutes, rounds, faultEveryMs, kinds } = options
  const command = `npm run chaos -- --seed ${seed} --minutes ${minutes} --rounds ${rounds} --fault-every ${faultEveryMs}${kinds.length > 0 ? ` --kinds ${kinds.join(',')}` : ''}`
  const missing =
    fakeTimeLibrary === undefined
      ? [{ kind: 'clock jumps', why: 'libfaketime is not installed (package faketime)' }]
      : []
  const run = sumUp(reports, { command, commit: commitOf(), missing })
  say(describeRun(run))
  if (options.report !== undefined) writeFileSync(resolve(options.report), `${JSON.stringify(run, undefined, 2)}\n`)
  if (run.verdict === 'violated') return exit.violated
  if (told.signal.aborted) return exit.interrupted
  return run.verdict === 'void' ? exit.void : 0
}

/** @returns undefined where the run was told to stop. */
async function oneRound(
  options: Options,
  round: number,
  network: Awaited<ReturnType<typeof createNetwork>>,
  signal: AbortSignal,
): Promise<RoundReport | undefined> {
  const seed = options.seed + round
  const folder = join(sandboxFolder(), `round-${round}`)
  const histories = options.keep === undefined ? join(folder, 'histories') : keptFolder(options, round)
  rmSync(histories, { recursive: true, force: true })
  const faults = plan(options, round)
  try {
    const places = { folder, histories, network }
    const report = await runRound({ seed, faults, forMs: options.minutes * 60_000 }, options, places, signal, say)
    if (options.keep !== undefined || (report.violations.length === 0 && report.void.length === 0)) return report
    // What failed must be there to be looked at.
    return { ...report, histories: rescued(histories, seed) }
  } catch (error) {
    if (signal.aborted) return undefined
    if (options.keep === undefined) say(`histories are in ${rescued(histories, seed)}`)
    throw error
  } finally {
    rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
  }
}

function rescued(histories: string, seed: number): string {
  const kept = mkdtempSync(join(tmpdir(), `slipway-chaos-failed-${seed}-`))
  if (existsSync(histories)) cpSync(histories, kept, { recursive: true })
  return kept
}

function keptFolder(options: Options, round: number): string {
  const folder = join(resolve(options.keep ?? ''), `seed-${options.seed + round}`)
  mkdirSync(folder, { recursive: true })
  return folder
}

function finishedRound(options: Options, round: number): RoundReport | undefined {
  const file = join(keptFolder(options, round), 'report.json')
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as RoundReport) : undefined
}

function commitOf(): string {
  return spawnSync('git', ['-C', root, 'rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).stdout.trim() || 'unknown'
}

try {
  process.exit(await main(process.argv.slice(2)))
} catch (error) {
  if (error instanceof UsageError) {
    process.stderr.write(`${error.message}\n\n${help}`)
    process.exit(exit.usage)
  }
  process.stderr.write(`chaos: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
  process.exit(exit.broken)
}
