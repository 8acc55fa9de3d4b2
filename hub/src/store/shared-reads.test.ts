import { sql } from 'kysely'
import t from 'tap'
import { withDatabase } from '../../testing/index.js'
import type { Settled } from './batcher.js'
import { openDatabase, type Db } from './database.js'
import { SharedReads } from './shared-reads.js'

const ok = <T>(result: T): Settled<T> => ({ ok: true, result })

/** Doubles numbers, and says on which connection. */
async function double(
  connection: Db,
  items: readonly number[],
): Promise<readonly Settled<{ value: number; pid: number }>[]> {
  const { rows } = await sql<{ value: number; pid: number }>`
    select n * 2 as value, pg_backend_pid() as pid from unnest(${[...items]}::int[]) with ordinality as i (n, place) order by place
  `.execute(connection)
  return rows.map(ok)
}

void t.test('reads of several kinds that come together share one round, and one connection', async (t) => {
  const { db } = await withDatabase(t)
  const rounds: string[] = []
  const reads = new SharedReads(db)
  const numbers = reads.kind<number, { value: number; pid: number }>((connection, items) => {
    rounds.push(`numbers ${items.join(' ')}`)
    return double(connection, items)
  })
  const names = reads.kind<string, string>((_, items) => {
    rounds.push(`names ${items.join(' ')}`)
    return Promise.resolve(items.map((item) => ok(item.toUpperCase())))
  })
  const first = [numbers(1), names('a'), numbers(2)] as const
  const [one, name, two] = await Promise.all(first)
  t.match([one.value, name, two.value], [2, 'A', 4])
  t.equal(one.pid, two.pid)
  t.strictSame(rounds, ['numbers 1 2', 'names a'])

  rounds.length = 0
  const early = numbers(3)
  await new Promise((resolve) => setImmediate(resolve))
  await new Promise((resolve) => setImmediate(resolve))
  const late = [names('b'), numbers(4), names('c')] as const
  t.equal((await early).value, 6)
  t.match(await Promise.all(late), ['B', { value: 8 }, 'C'])
  t.strictSame(rounds, ['numbers 3', 'numbers 4', 'names b c'], 'what comes meanwhile goes into the next')
})

void t.test('more than fits into a round goes into the next one, in its order', async (t) => {
  const { db } = await withDatabase(t)
  const sizes: number[] = []
  const numbers = new SharedReads(db).kind<number, { value: number; pid: number }>((connection, items) => {
    sizes.push(items.length)
    return double(connection, items)
  })
  const results = await Promise.all(Array.from({ length: 450 }, (_, n) => numbers(n)))
  t.strictSame(
    results.map(({ value }) => value),
    results.map((_, n) => n * 2),
  )
  t.strictSame(sizes, [200, 200, 50])
})

void t.test('what fails does so for those who asked for it', async (t) => {
  const { db } = await withDatabase(t)
  const reads = new SharedReads(db)
  const fine = reads.kind<number, { value: number; pid: number }>(double)
  const picky = reads.kind<number, number>(async (connection, items) => {
    const { rows } = await sql<{ value: number }>`select 6 / n as value from unnest(${[...items]}::int[]) n`.execute(
      connection,
    )
    return rows.map(({ value }) => ok(value))
  })
  const outcomes = await Promise.allSettled([picky(1), fine(1), picky(0), picky(3)])
  t.strictSame(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'fulfilled', 'rejected', 'fulfilled'],
  )
  t.match(outcomes[2], { reason: /division by zero/ })
  t.equal(await picky(2), 3, 'and it goes on')
})

void t.test('where no connection can be had, all are told', async (t) => {
  const db = openDatabase({ connectionString: 'postgres://nobody@127.0.0.1:1/none', poolSize: 1 })
  t.teardown(() => db.destroy())
  const reads = new SharedReads(db)
  const one = reads.kind<number, { value: number; pid: number }>(double)
  const other = reads.kind<number, { value: number; pid: number }>(double)
  const outcomes = await Promise.allSettled([one(1), other(2)])
  for (const outcome of outcomes) t.match(outcome, { status: 'rejected', reason: { code: 'ECONNREFUSED' } })
})
