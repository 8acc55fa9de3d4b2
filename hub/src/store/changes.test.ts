import { sql } from 'kysely'
import t from 'tap'
import { withDatabase } from '../../testing/index.js'
import { isVisible, origin, readChangesAfter, readConsistently } from './changes.js'

const insertClass = (name: string) => sql`insert into machine_classes (id, name) values (gen_random_uuid(), ${name})`
const setLabels = (name: string, labels: string) =>
  sql`update machine_classes set labels = ${labels}::text::jsonb where name = ${name}`

void t.test(
  'changes of one resource are in the order in which they were made, not in that of transaction ids',
  async (t) => {
    const { db } = await withDatabase(t)
    await insertClass('one').execute(db)
    await insertClass('two').execute(db)
    let snapshot = ''
    await db.transaction().execute(async (early) => {
      // It has its transaction id now, and changes the same row as the other one only after that.
      await setLabels('two', '{"by": "early"}').execute(early)
      await db.transaction().execute(async (late) => setLabels('one', '{"by": "late"}').execute(late))
      await readConsistently(db, async (_tx, revision) => {
        snapshot = revision.snapshot
        return Promise.resolve()
      })
      const seen = await readChangesAfter(db, origin, 100)
      t.ok(
        seen.every(({ doc }) => doc['version'] === 1),
        'nothing is read past a transaction that is open',
      )
      await setLabels('one', '{"by": "early"}').execute(early)
    })
    const changes = await readChangesAfter(db, origin, 100)
    const ofOne = changes.filter(({ doc }) => doc['name'] === 'one')
    t.strictSame(
      ofOne.map(({ doc }) => doc['version']),
      [1, 2, 3],
    )
    t.strictSame(
      ofOne.map(({ writer }) => isVisible(BigInt(writer), snapshot)),
      [true, true, false],
      'a list from before shows what was committed by then, and nothing else',
    )
  },
)
