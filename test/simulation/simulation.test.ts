import t from 'tap'
import { runSeeds } from './pool.js'
import type { SeedResult } from './run.js'
import { startServer } from './server.js'

// The short run that is part of every `npm test`. Long ones: npm run simulate.

const server = await startServer(t)

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
