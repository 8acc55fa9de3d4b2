import fc from 'fast-check'
import { sql } from 'kysely'
import t from 'tap'
import { expectRefusal } from '../../testing/expect.js'
import { withDatabase } from '../../testing/index.js'
import { HubError } from '../domain/error/errors.js'
import {
  decodeRevision,
  encodeRevision,
  headRevision,
  readChangesAfter,
  readConsistently,
  type Revision,
} from './changes.js'
import type { Db } from './database.js'

const insertClass = (name: string) => sql`insert into machine_classes (id, name) values (gen_random_uuid(), ${name})`
const setLabels = (name: string, labels: string) =>
  sql`update machine_classes set labels = ${labels}::text::jsonb where name = ${name}`

/** All that comes after a place, page by page. */
async function readAll(db: Db, from: Revision, pageSize: number) {
  const rows: { readonly name: unknown; readonly version: unknown }[] = []
  let at = from
  do {
    const page = await readChangesAfter(db, at, pageSize)
    rows.push(...page.rows.map(({ doc }) => ({ name: doc['name'], version: doc['version'] })))
    at = page.next
  } while (at.within !== undefined)
  return { rows, next: at }
}

void t.test(
  'changes of one resource come in the order in which they were made, not in that of transaction ids',
  async (t) => {
    const { db } = await withDatabase(t)
    const start = await headRevision(db)
    await insertClass('one').execute(db)
    await insertClass('two').execute(db)
    let middle = start
    await db.transaction().execute(async (early) => {
      // It has its transaction id now, and changes the same row as the other one only after that.
      await setLabels('two', '{"by": "early"}').execute(early)
      await db.transaction().execute(async (late) => setLabels('one', '{"by": "late"}').execute(late))
      middle = await readConsistently(db, (_tx, revision) => Promise.resolve(revision))
      const seen = await readAll(db, start, 100)
      t.strictSame(
        seen.rows,
        [
          { name: 'one', version: 1 },
          { name: 'two', version: 1 },
          { name: 'one', version: 2 },
        ],
        'what is committed is told, though an older transaction is open',
      )
      await setLabels('one', '{"by": "early"}').execute(early)
    })
    const rest = await readAll(db, middle, 100)
    t.strictSame(rest.rows, [
      { name: 'two', version: 2 },
      { name: 'one', version: 3 },
    ])
    const whole = await readAll(db, start, 2)
    t.equal(whole.rows.length, 5, 'in pages, too, each comes once')
    t.strictSame(
      whole.rows.filter(({ name }) => name === 'one').map(({ version }) => version),
      [1, 2, 3],
    )
    t.strictSame((await readAll(db, whole.next, 2)).rows, [])
  },
)

void t.test('a place that somebody made up is refused before the database is asked', async (t) => {
  const { db } = await withDatabase(t)
  const given = encodeRevision('epoch', await headRevision(db))
  t.strictSame(encodeRevision('epoch', decodeRevision('epoch', given)), given)
  const forged = (...parts: readonly unknown[]) =>
    Buffer.from(JSON.stringify([2, 'epoch', ...parts])).toString('base64url')
  for (const parts of [
    ['5:3:'],
    ['0:3:'],
    ['1:5:,,'],
    ['1:5:7'],
    ['3:9:5,4'],
    ['1:99999999999999999999:'],
    ['1:9223372036854775808:'],
    ['1:5:', '1:5:', 1.5],
    ['1:5:', '1:5:', 1e300],
    ['1:5:', '5:1:', 1],
    ['1:5:', "1:5:'", 1],
  ])
    await expectRefusal(
      t,
      Promise.resolve().then(() => decodeRevision('epoch', forged(...parts))),
      'INVALID_REVISION',
      JSON.stringify(parts),
    )
  await t.test('and what is not refused can be read from', async () => {
    const xids = fc.array(fc.bigInt(1n, 2n ** 63n - 1n), { minLength: 2, maxLength: 6 })
    await fc.assert(
      fc.asyncProperty(xids, fc.boolean(), async (numbers, ordered) => {
        const [xmin = 1n, ...rest] = ordered ? numbers.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0)) : numbers
        const text = `${xmin}:${rest.pop() ?? xmin}:${rest.join(',')}`
        try {
          await readChangesAfter(db, decodeRevision('epoch', forged(text)), 1)
        } catch (error) {
          return error instanceof HubError && error.reason === 'INVALID_REVISION'
        }
        return true
      }),
      { numRuns: 60 },
    )
  })
})
