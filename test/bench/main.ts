import { loadavg } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { benchmarks } from './benchmarks/index.js'
import { Bed } from './harness/bed.js'
import type { Benchmark, Effort } from './harness/benchmark.js'
import { root } from './harness/child.js'
import { describeMachine } from './harness/machine.js'
import { writePage } from './harness/page.js'
import { judge, loadResults, measure, resultsFolder, saveResult, type Result } from './harness/results.js'
import { figure } from './harness/stats.js'

const help = `npm run bench -- [NAMES…] [options]

Measures, and writes test/bench/results/NAME.json, docs/performance.md and docs/charts. Without names: everything.

${benchmarks.map(({ name, title }) => `  ${name.padEnd(12)} ${title}`).join('\n')}

  --rounds N   how often each is measured, taking turns (default 3)
  --quick      tiny numbers and one round, to see that everything works; writes nothing
  --limit MIN  gives up a benchmark that takes longer than this many minutes (default 15)
  --page       measures nothing; writes docs/performance.md of the results that there are
  --help

SLIPWAY_BENCH_DATABASE_URL names a PostgreSQL on which databases may be made; without it, one is started and removed.
SLIPWAY_BENCH_PROFILE names a folder to which every measured process writes a CPU profile.
`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '3' },
    quick: { type: 'boolean', default: false },
    limit: { type: 'string', default: '15' },
    page: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
})

const say = (line: string): void => void process.stdout.write(`${line}\n`)

/** Measures one benchmark on a bed of its own. */
async function run(benchmark: Benchmark, effort: Effort, limitMinutes: number): Promise<Result> {
  const bed = await Bed.make(effort)
  const onSignal = () => void bed.close().finally(() => process.exit(130))
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal)
  try {
    const before = loadavg()[0] ?? 0
    const deadline = performance.now() + limitMinutes * 60_000
    const prepared = await within(benchmark.prepare(bed), deadline)
    try {
      const rows = await within(measure(prepared.contenders, effort, say), deadline)
      const { name, title, about, goals, charts } = benchmark
      return {
        ...{ name, title, about, charts, rows, rounds: effort.rounds, at: new Date().toISOString() },
        machine: describeMachine(bed.serverVersion),
        load: [before, loadavg()[0] ?? 0],
        // A quick run leaves cases out.
        goals: goals.map((goal) => judge(goal, rows)).filter(({ value }) => !Number.isNaN(value)),
      }
    } finally {
      await prepared.close()
    }
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
    await bed.close()
  }
}

function within<T>(work: Promise<T>, deadline: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('it took longer than --limit')), deadline - performance.now())
    work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

async function main(): Promise<number> {
  if (values.help) {
    process.stdout.write(help)
    return 0
  }
  const [rounds, limit] = [Number(values.rounds), Number(values.limit)]
  const unknown = positionals.filter((name) => !benchmarks.some((benchmark) => benchmark.name === name))
  if (unknown.length > 0 || !Number.isInteger(rounds) || rounds < 1 || !(limit > 0)) {
    process.stderr.write(unknown.length > 0 ? `there is no benchmark ${unknown.join(', ')}\n\n${help}` : help)
    return 2
  }
  const effort: Effort = { quick: values.quick, rounds: values.quick ? 1 : rounds }
  const chosen = benchmarks.filter(({ name }) => positionals.length === 0 || positionals.includes(name))
  let failed = 0
  for (const benchmark of values.page ? [] : chosen) if (!(await runAndTell(benchmark, effort, limit))) failed++
  if (!effort.quick) {
    const order = benchmarks.map(({ name }) => name)
    const results = loadResults(resultsFolder).sort((one, other) => order.indexOf(one.name) - order.indexOf(other.name))
    writePage(results, join(root, 'docs'))
  }
  return failed === 0 ? 0 : 1
}

/** Returns whether it could be measured. */
async function runAndTell(benchmark: Benchmark, effort: Effort, limitMinutes: number): Promise<boolean> {
  say(`${benchmark.name}: ${benchmark.title}`)
  try {
    const result = await run(benchmark, effort, limitMinutes)
    for (const { text, value, bound, met } of result.goals)
      say(`  ${met ? 'met' : 'NOT MET'}: ${text}: ${figure(value)} (${bound})`)
    if (!effort.quick) saveResult(result, resultsFolder)
    return true
  } catch (error) {
    const told = error instanceof Error ? (error.stack ?? error.message) : String(error)
    process.stderr.write(`${benchmark.name} failed: ${told}\n`)
    return false
  }
}

process.exit(await main())
