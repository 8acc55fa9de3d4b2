import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'kysely'
import t from 'tap'
import { headRevision, readChangesAfter } from './changes.js'
import { inTransaction, openDatabase, type Db } from './database.js'
import { startEmbeddedDatabase } from './embedded.js'
import { migrate } from './migrate.js'

const insertClass = (name: string) => sql`insert into machine_classes (id, name) values (gen_random_uuid(), ${name})`

async function currentXid(db: Db): Promise<bigint> {
  const result = await sql<{ xid: string }>`select pg_current_xact_id()::text as xid`.execute(db)
  return BigInt(result.rows[0]?.xid ?? '0')
}

/** Ends PostgreSQL as a crash does: nothing more is written. */
function crash(folder: string): void {
  const [pid] = readFileSync(join(folder, 'cluster', 'postmaster.pid'), 'utf8').split('\n')
  process.kill(Number(pid), 'SIGQUIT')
}

void t.test('a crash of the database hides no change from a watch that goes on after it', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'slipway-crash-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const unset = await startEmbeddedDatabase(folder)
  const owner = openDatabase({ connectionString: unset.connectionString, onIdleError: () => undefined })
  await migrate(owner)
  // Nothing is written but by commits, from the next start on.
  await sql`alter system set wal_writer_delay = '10s'`.execute(owner)
  await owner.destroy()
  await unset.stop()
  const before = await startEmbeddedDatabase(folder)
  const db = openDatabase({ connectionString: before.connectionString, onIdleError: () => undefined })
  await insertClass('before').execute(db)
  let undone = 0n
  const failing = inTransaction(db, async (tx) => {
    await insertClass('undone').execute(tx)
    undone = await currentXid(tx)
    throw new Error('undone')
  })
  await t.rejects(failing, /undone/)
  const place = await headRevision(db)
  crash(folder)
  await db.destroy()
  await before.stop()

  const after = await startEmbeddedDatabase(folder)
  t.teardown(() => after.stop())
  const again = openDatabase({ connectionString: after.connectionString })
  t.teardown(() => again.destroy())
  const given: bigint[] = []
  for (let number = 0; given.every((xid) => xid < undone); number++) {
    given.push(
      await inTransaction(again, async (tx) => {
        await insertClass(`after-${number}`).execute(tx)
        return currentXid(tx)
      }),
    )
  }
  t.ok(given.includes(undone), `transaction id ${undone} is given again: ${given.join(', ')}`)
  const { rows } = await readChangesAfter(again, place, 1_000)
  t.strictSame(
    rows.map(({ doc }) => doc['name']),
    given.map((_, number) => `after-${number}`),
  )
})
