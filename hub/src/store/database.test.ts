import { sql } from 'kysely'
import t from 'tap'
import { withDatabase } from '../../testing/index.js'
import { isConnectionLoss } from './database.js'

void t.test('a connection that is lost between two statements of a transaction', async (t) => {
  const { db } = await withDatabase(t)
  const lost = db.transaction().execute(async (tx) => {
    const own = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(tx)
    await sql`select pg_terminate_backend(${own.rows[0]?.pid})`.execute(db)
    // The loss is noticed while nothing is under way; an error event that nobody hears would end the process here.
    for (;;) {
      const alive = await sql`select from pg_stat_activity where pid = ${own.rows[0]?.pid}`.execute(db)
      if (alive.rows.length === 0) break
    }
    await new Promise((resolve) => setImmediate(resolve))
    await sql`select 1`.execute(tx)
  })
  const error: unknown = await lost.catch((error: unknown) => error)
  t.ok(isConnectionLoss(error), `the transaction fails, and the process lives: ${String(error)}`)
  const after = await sql<{ one: number }>`select 1 as one`.execute(db)
  t.strictSame(after.rows, [{ one: 1 }], 'the next statement has another connection')
})
