import { fork, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command, InvalidArgumentError } from 'commander'
import { startEmbeddedDatabase } from '@slipway/hub/testing/simulation'
import type { SeedResult } from './run.js'
import { dropDatabase } from './setup.js'
import { addUp, describe, type Totals } from './summary.js'

// `npm run simulate`: many seeds, in as many processes as there are cores.

interface Options {
  readonly seeds: number
  readonly from: number
  readonly jobs: number
  readonly journal: boolean
  readonly keepGoing: boolean
  readonly report?: string
}

function wholeNumber(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('Give a whole number.')
  return Number(text)
}

const options = new Command('npm run simulate --')
  .description(
    'Runs the hub and the SDK in virtual time, with faults drawn from seeds, and holds them against the invariants.\n' +
      'Exits with 1 where a seed broke one, and prints the command that replays it.',
  )
  .option('--seeds <n>', 'how many', wholeNumber, 200)
  .option('--from <n>', 'the first one', wholeNumber, 1)
  .option('--jobs <n>', 'processes at once', wholeNumber, availableParallelism())
  .option('--journal', 'print what happened in each seed', false)
  .option('--keep-going', 'go on after a violation', false)
  .option('--report <file>', 'write the figures there as JSON')
  .addHelpText(
    'after',
    '\nIt needs PostgreSQL: the server that SLIPWAY_TEST_DATABASE_URL names, else the embedded one is started. Its databases are its own, and dropped at the end.',
  )
  .parse()
  .opts<Options>()

async function main(): Promise<void> {
  const server = await startServer()
  const startedAt = performance.now()
  const totals = await runAll(server.url).finally(() => server.stop())
  const seconds = (performance.now() - startedAt) / 1000
  console.log(
    describe(totals, {
      ...options,
      seconds,
      machine: `${cpus()[0]?.model ?? '?'}, ${options.jobs} processes, Node ${process.version}`,
    }),
  )
  if (options.report !== undefined)
    writeFileSync(options.report, `${JSON.stringify({ from: options.from, seconds, ...totals }, undefined, 2)}\n`)
  process.exitCode = totals.violations.length > 0 || totals.seeds < options.seeds ? 1 : 0
}

async function startServer(): Promise<{ readonly url: string; stop(): Promise<void> }> {
  const given = process.env['SLIPWAY_TEST_DATABASE_URL'] ?? ''
  if (given !== '') return { url: given, stop: () => Promise.resolve() }
  const folder = mkdtempSync(join(tmpdir(), 'slipway-simulation-'))
  const database = await startEmbeddedDatabase(folder)
  return {
    url: database.connectionString,
    stop: async () => {
      await database.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function runAll(server: string): Promise<Totals> {
  const totals = addUp()
  let next = options.from
  let stopped = false
  const last = options.from + options.seeds - 1
  const jobs = Math.max(1, Math.min(options.jobs, options.seeds))
  const children = new Set<ChildProcess>()
  const end = (): void => {
    stopped = true
    for (const child of children) child.kill()
  }
  process.once('SIGINT', end).once('SIGTERM', end)
  const progress = setInterval(
    () => console.error(`${totals.seeds} of ${options.seeds} seeds, ${totals.violations.length} violations`),
    15_000,
  )
  const names = Array.from({ length: jobs }, (_, index) => `slipway_simulation_${process.pid}_${index}`)
  try {
    await Promise.all(
      names.map(
        (database) =>
          new Promise<void>((resolve, reject) => {
            const child = fork(
              fileURLToPath(new URL('worker.js', import.meta.url)),
              [JSON.stringify({ server, database })],
              {
                env: { ...process.env, ...(options.journal && { SLIPWAY_SIMULATION_JOURNAL: '1' }) },
              },
            )
            children.add(child)
            const feed = (): void => void child.send(stopped || next > last ? 'end' : next++)
            child.on('message', (message: 'ready' | SeedResult) => {
              if (message !== 'ready') take(message)
              feed()
            })
            child.on('exit', (code, signal) => {
              children.delete(child)
              if (code === 0 || stopped) resolve()
              else reject(new Error(`a worker ended with ${signal ?? String(code)}`))
            })
          }),
      ),
    )
  } finally {
    clearInterval(progress)
    for (const name of names) await dropDatabase(server, name)
  }
  return totals

  function take(result: SeedResult): void {
    totals.add(result)
    if (options.journal) console.log(result.journal.join('\n'))
    if (result.violations.length === 0) return
    for (const violation of result.violations)
      console.log(
        `seed ${result.seed}, ${(violation.atMs / 1000).toFixed(3)} s: ${violation.invariant}: ${violation.message}`,
      )
    console.log(`replay it with: npm run simulate -- --seeds 1 --from ${result.seed} --journal`)
    if (!options.keepGoing) stopped = true
  }
}

await main()
