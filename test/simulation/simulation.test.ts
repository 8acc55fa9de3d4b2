import t from 'tap'
import { runSeeds } from './pool.js'
import type { SeedResult } from './run.js'
import { startServer } from './server.js'

// The short run that is part of every `npm test`. Long ones: npm run simulate.

const server = await startServer(t)

// The whole file may take longer than the runner's ordinary limit; each test has its own.
t.setTimeout(1_500_000)

const first = new Map<number, SeedResult>()

void t.test('no seed breaks a promise', { timeout: 300_000 }, async (t) => {
  const onSeed = (result: SeedResult): boolean => first.set(result.seed, result).size > 0
  const totals = await runSeeds({ server, from: 1, seeds: 30, jobs: 2, journal: true, onSeed })
  t.strictSame(totals.violations, [])
  t.equal(totals.seeds, 30)
  t.ok(totals.hosts >= 30 && totals.creates > 20, `${totals.hosts} hosts, ${totals.creates} machines`)
  t.ok(Object.keys(totals.faults).length >= 10, JSON.stringify(totals.faults))
})

void t.test('a seed is the same each time, whatever ran before it in its process', { timeout: 300_000 }, async (t) => {
  let keepers = 0
  const onSeed = (result: SeedResult): boolean => {
    t.strictSame(result, first.get(result.seed), `seed ${result.seed}`)
    if (result.journal.some((line) => line.includes('keeper: '))) keepers += 1
    return true
  }
  await runSeeds({ server, from: 3, seeds: 12, jobs: 1, journal: true, onSeed })
  // In the one before it a hub's clock is ahead of the time.
  await runSeeds({ server, from: 6, seeds: 1, jobs: 1, journal: true, onSeed })
  t.ok(keepers > 0, 'somebody pauses machines in some of them')
})
