import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { root } from '../tools/processes.js'
import { findPlanted, plantedBugs } from './planted.js'
import { startServer } from './server.js'

// Wrong versions of the product, each of which must be found.

const table = join(root, 'test/planted/seeds.json')
/** Where the recorded seed does not find a planted bug any more, so many others may. */
const moreSeeds = 40

const server = await startServer(t)

// It may take longer than the runner's ordinary limit.
t.setTimeout(1_000_000)

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
