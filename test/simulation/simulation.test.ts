import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startEmbeddedDatabase } from '@slipway/hub/testing/simulation'
import t from 'tap'
import { root } from '../tools/processes.js'
import { findPlanted, plantedBugs } from './planted.js'
import { runSeeds } from './pool.js'
import type { SeedResult } from './run.js'

// The short run that is part of every `npm test`. Long ones: npm run simulate.

const table = join(root, 'test/planted/seeds.json')
/** Where the recorded seed does not find a planted bug any more, so many others may. */
const moreSeeds = 40

const server = await startServer()

async function startServer(): Promise<string> {
  const given = process.env['SLIPWAY_TEST_DATABASE_URL'] ?? ''
  if (given !== '') return given
  const folder = mkdtempSync(join(tmpdir(), 'slipway-simulation-'))
  const database = await startEmbeddedDatabase(folder)
  t.teardown(async () => {
    await database.stop()
    rmSync(folder, { recursive: true, force: true })
  })
  return database.connectionString
}

// The whole file may take longer than the runner's ordinary limit; each test has its own.
t.setTimeout(1_500_000)

void t.test('no seed breaks a promise', { timeout: 300_000 }, async (t) => {
  const totals = await runSeeds({ server, from: 1, seeds: 30, jobs: 2, onSeed: () => true })
  t.strictSame(totals.violations, [])
  t.equal(totals.seeds, 30)
  t.ok(totals.hosts >= 30 && totals.creates > 20, `${totals.hosts} hosts, ${totals.creates} machines`)
  t.ok(Object.keys(totals.faults).length >= 10, JSON.stringify(totals.faults))
})

void t.test('a seed is the same each time', { timeout: 120_000 }, async (t) => {
  const runs: SeedResult[] = []
  const onSeed = (result: SeedResult): boolean => runs.push(result) > 0
  for (const from of [5, 5]) await runSeeds({ server, from, seeds: 1, jobs: 1, journal: true, onSeed })
  // And it does not matter what ran before it.
  await runSeeds({ server, from: 3, seeds: 3, jobs: 1, journal: true, onSeed })
  const [one, two, ...others] = runs
  t.strictSame(two, one)
  t.strictSame(
    others.find(({ seed }) => seed === 5),
    one,
  )
})

void t.test('every planted bug is found', { timeout: 900_000 }, async (t) => {
  const seeds = existsSync(table) ? (JSON.parse(readFileSync(table, 'utf8')) as Record<string, number>) : {}
  const bugs = await plantedBugs()
  t.ok(bugs.length >= 15, `${bugs.length} are planted`)
  t.strictSame(
    Object.keys(seeds).sort(),
    bugs.map(({ name }) => name).sort(),
    'test/planted/seeds.json tells a seed for each: npm run simulate -- --planted all --record',
  )
  for (const { name } of bugs) {
    const look = (from: number, count: number) =>
      findPlanted({ server, name, from, seeds: count, jobs: 2 }, () => undefined)
    const [recorded] = await look(seeds[name] ?? 1, 1)
    const found = recorded?.seed === undefined ? (await look(1, moreSeeds))[0] : recorded
    t.ok(found?.seed !== undefined, `${name}: ${found?.invariant ?? ''} ${found?.message.slice(0, 100) ?? ''}`)
  }
})
