import { sql } from 'kysely'
import t from 'tap'
import { withDatabase } from '../../testing/index.js'
import type { Db } from './database.js'
import { rowsAs } from './rows.js'

// Whatever is planned while a table is empty must do while it grows: connections keep their plans until somebody analyzes the table.

void t.test('rows that travel with a statement', async (t) => {
  const { db } = await withDatabase(t)
  await sql`create table tall (id uuid primary key, text text not null)`.execute(db)
  const wanted = Array.from({ length: 30 }, (_, index) => ({
    id: `00000000-0000-7000-8000-${String(index).padStart(12, '0')}`,
    text: `text ${index}`,
  }))
  const columns = 's (id uuid, text text)'

  await t.test('come whole', async (t) => {
    const read = await sql<{ id: string; text: string }>`select * from ${rowsAs(columns, wanted)}`.execute(db)
    t.strictSame(read.rows, wanted)
    const none = await sql`select * from ${rowsAs(columns, [])}`.execute(db)
    t.strictSame(none.rows, [])
  })

  await t.test('have a table looked up by its index, empty as it is', async (t) => {
    const joined = await plan(db, sql`select * from tall join ${rowsAs(columns, wanted)} on s.id = tall.id`)
    t.match(joined, /Index Scan using tall_pkey/)
    t.match(joined, /Index Cond/)
    const changed = await plan(
      db,
      sql`update tall set text = s.text from ${rowsAs(columns, wanted)} where s.id = tall.id`,
    )
    t.match(changed, /Index Scan using tall_pkey/)
    t.match(changed, /Index Cond/)
  })

  await t.test('and so has a list of keys', async (t) => {
    const ids = wanted.map(({ id }) => id)
    t.match(await plan(db, sql`select * from tall where id = any(${ids}::uuid[])`), /Index Cond/)
  })
})

async function plan(db: Db, statement: ReturnType<typeof sql>): Promise<string> {
  const explained = await sql<{ 'QUERY PLAN': string }>`explain ${statement}`.execute(db)
  return explained.rows.map((row) => row['QUERY PLAN']).join('\n')
}
