import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import { startEmbeddedDatabase } from '@slipway/hub/testing/simulation'
import { findPlanted } from './planted.js'
import { runSeeds } from './pool.js'
import { describe } from './summary.js'

// `npm run simulate`: many seeds, in as many processes as there are cores.

interface Options {
  readonly seeds: number
  readonly from: number
  readonly jobs: number
  readonly journal: boolean
  readonly keepGoing: boolean
  readonly report?: string
  readonly planted?: string
  readonly record: boolean
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
  .option(
    '--planted <name>',
    'run with a planted bug, or with «all» of them in turn, until it is found; --seeds is the most to try for each',
  )
  .option('--record', 'with --planted all: write which seed found which into test/planted/seeds.json', false)
  .addHelpText(
    'after',
    '\nIt needs PostgreSQL: the server that SLIPWAY_TEST_DATABASE_URL names, else the embedded one is started. Its databases are its own, and dropped at the end.',
  )
  .parse()
  .opts<Options>()

async function main(): Promise<void> {
  const server = await startServer()
  try {
    process.exitCode = (await (options.planted === undefined
      ? simulate(server.url)
      : find(server.url, options.planted)))
      ? 0
      : 1
  } finally {
    await server.stop()
  }
}

async function simulate(server: string): Promise<boolean> {
  const startedAt = performance.now()
  const totals = await runSeeds({
    server,
    ...options,
    onSeed: (result) => {
      if (options.journal) console.log(result.journal.join('\n'))
      for (const violation of result.violations)
        console.log(
          `seed ${result.seed}, ${(violation.atMs / 1000).toFixed(3)} s: ${violation.invariant}: ${violation.message}`,
        )
      if (result.violations.length > 0)
        console.log(`replay it with: npm run simulate -- --seeds 1 --from ${result.seed} --journal`)
      return result.violations.length === 0 || options.keepGoing
    },
    onProgress: (done, violations) => console.error(`${done} of ${options.seeds} seeds, ${violations} violations`),
  })
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
  return totals.violations.length === 0 && totals.seeds === options.seeds
}

/** Tries seeds until the planted bugs are found. Returns whether all were. */
async function find(server: string, name: string): Promise<boolean> {
  const found = await findPlanted(
    { server, name, from: options.from, seeds: options.seeds, jobs: options.jobs },
    (row) =>
      console.log(
        row.seed === undefined
          ? `${row.name}: NOT FOUND in ${row.tried} seeds`
          : `${row.name}: found by seed ${row.seed}, the ${row.tried}. tried: ${row.invariant}: ${row.message.slice(0, 160)}`,
      ),
  )
  if (options.report !== undefined) writeFileSync(options.report, `${JSON.stringify(found, undefined, 2)}\n`)
  if (options.record) {
    const seeds = Object.fromEntries(found.flatMap((row) => (row.seed === undefined ? [] : [[row.name, row.seed]])))
    writeFileSync(new URL('../../planted/seeds.json', import.meta.url), `${JSON.stringify(seeds, undefined, 2)}\n`)
  }
  return found.every((row) => row.seed !== undefined)
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

await main()
