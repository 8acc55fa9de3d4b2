import { sql } from 'kysely'
import t from 'tap'
import { withDatabase, withEmptyDatabase } from '../../testing/index.js'
import {
  inSnapshot,
  inTransaction,
  isConnectionLoss,
  onOneConnection,
  openDatabase,
  reachingOnly,
  type Db,
  type Tx,
} from './database.js'

void t.test('a connection that is lost between two statements of a transaction', async (t) => {
  const { db } = await withDatabase(t)
  const lost = inTransaction(db, async (tx) => {
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

void t.test('a connection that cannot be made ready is given up, and holds no place of the pool', async (t) => {
  const { url } = await withEmptyDatabase(t)
  const role = `role_of_nobody_${process.pid}` as 'slipway_hub'
  const db = openDatabase({ connectionString: url, poolSize: 1, role })
  t.teardown(() => db.destroy())
  for (const time of ['first', 'second', 'third'])
    await t.rejects(sql`select 1`.execute(db), { message: /role_of_nobody/ }, `the ${time} time`)
})

void t.test('arrays reach the database as they are, whoever writes them', async (t) => {
  const { db } = await withDatabase(t)
  const id = '00000000-0000-7000-8000-000000000001'
  const arrays = [
    ...[[], [id], [id, id], ['null'], ['NULL', id], [null], [id, null], ['a,b', '{}', '"', '\\', ' ', '']],
    ...[[`${id},${id}`], [`${id} `], [`${id}\n`], [`{${id}}`]],
  ]
  for (const given of arrays) {
    const { rows } = await sql<{ got: unknown }>`select ${given}::text[] as got`.execute(db)
    t.strictSame(rows[0]?.got, given)
  }
  for (const given of [[], [0, -1, 2_147_483_647], [1, null]]) {
    const { rows } = await sql<{ got: unknown }>`select ${given}::int[] as got`.execute(db)
    t.strictSame(rows[0]?.got, given)
  }
  const fractions = await sql<{ got: unknown }>`select ${[0.5, 2]}::float8[] as got`.execute(db)
  t.strictSame(fractions.rows[0]?.got, [0.5, 2])
  await t.rejects(sql`select ${[`${id},${id}`]}::uuid[]`.execute(db), { code: '22P02' }, 'one id is one id')
})

void t.test('statements of a transaction that are started together', async (t) => {
  const { db } = await withDatabase(t)
  await sql`create table lines (place serial, text text unique)`.execute(db)
  const write = (text: string) => (tx: Tx) => sql`insert into lines (text) values (${text})`.execute(tx)
  await t.test('are executed in their order', async (t) => {
    const texts = Array.from({ length: 50 }, (_, index) => `line ${index}`)
    await inTransaction(db, (tx) => Promise.all(texts.map((text) => write(text)(tx))))
    const stored = await sql<{ text: string }>`select text from lines order by place`.execute(db)
    t.strictSame(
      stored.rows.map((row) => row.text),
      texts,
    )
  })

  await t.test('are all undone where one fails, and leave nothing open', async (t) => {
    await t.rejects(
      inTransaction(db, (tx) => Promise.all(['new 1', 'line 7', 'new 2'].map((text) => write(text)(tx)))),
      { code: '23505' },
    )
    const stored = await sql<{ n: number }>`select count(*)::int as n from lines where text like 'new%'`.execute(db)
    t.strictSame(stored.rows, [{ n: 0 }])
    const open = await sql<{ n: number }>`
      select count(*)::int as n from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'
    `.execute(db)
    t.strictSame(open.rows, [{ n: 0 }])
  })

  await t.test('all tell of the one that failed, whichever is listened to first', async (t) => {
    const toldInReverse = async (tx: Tx, first: (tx: Tx) => Promise<unknown>, second: (tx: Tx) => Promise<unknown>) => {
      const [one, other] = [first(tx), second(tx)]
      one.catch(() => undefined)
      await other
      await one
    }
    await t.rejects(
      inTransaction(db, (tx) => toldInReverse(tx, write('line 7'), write('new 3'))),
      { code: '23505' },
    )

    // One that is prepared hears of its failure a few turns later than one that is not, though it was answered before.
    const prepared = (tx: Tx) => sql`select 1 / ${0}::int`.execute(tx)
    for (let time = 0; time < 6; time++) {
      await t.rejects(
        inTransaction(db, (tx) => Promise.all([prepared(tx), sql`select 1`.execute(tx)])),
        { code: '22012' },
        `time ${time}`,
      )
    }

    await sql`create sequence tries`.execute(db)
    await sql`create function fails_once() returns void language plpgsql as
      $$ begin if nextval('tries') = 1 then raise 'try again' using errcode = '40P01'; end if; end $$`.execute(db)
    const failsOnce = (tx: Tx) => sql`select fails_once()`.execute(tx)
    await inTransaction(db, (tx) => toldInReverse(tx, failsOnce, write('after a deadlock')))
    const stored = await sql`select from lines where text = 'after a deadlock'`.execute(db)
    t.equal(stored.rows.length, 1, 'and so a deadlock is tried again')
  })

  await t.test('are refused once the transaction is over', async (t) => {
    let late: Promise<unknown> = Promise.resolve()
    let kept: Tx | undefined
    await inTransaction(db, (tx) => {
      kept = tx
      return write('in time')(tx)
    })
    if (kept !== undefined) late = write('too late')(kept)
    await t.rejects(late, { message: 'the transaction is over' })
  })
})

void t.test('statements that were prepared before a migration', async (t) => {
  const { db } = await withDatabase(t)
  await sql`create table growing (id int)`.execute(db)
  await sql`insert into growing values (1)`.execute(db)
  const read = () =>
    inTransaction(db, async (tx) => (await sql<object>`select * from growing where id = ${1}`.execute(tx)).rows)
  for (let round = 0; round < 5; round++) t.strictSame(await read(), [{ id: 1 }])
  const prepared = await sql`select from pg_prepared_statements where statement like 'select * from growing%'`.execute(
    db,
  )
  t.equal(prepared.rows.length, 1, 'what repeats is prepared')
  await sql`alter table growing add column size int`.execute(db)
  t.strictSame(await read(), [{ id: 1, size: null }], 'are prepared anew in a transaction')
  await sql`alter table growing add column name text`.execute(db)
  const alone = await sql<object>`select * from growing where id = ${1}`.execute(db)
  t.strictSame(alone.rows, [{ id: 1, size: null, name: null }], 'and by themselves')
})

void t.test('the database as one call of a tenant reaches it', async (t) => {
  const { db, url } = await withDatabase(t)
  const pool = openDatabase({
    connectionString: url,
    role: 'slipway_tenant',
    poolSize: 1,
    onIdleError: () => undefined,
  })
  t.teardown(() => pool.destroy())
  const { id } = await db.selectFrom('organizations').select('id').executeTakeFirstOrThrow()
  const nowhere = { organizationIds: [], workspaces: [] }
  const reach = (organizationIds: readonly string[], more: object = {}) =>
    reachingOnly(pool, {
      read: { organizationIds, workspaces: [] },
      write: nowhere,
      tokenId: 'x',
      principalId: '',
      ...more,
    })
  const names = async (reader: Db) =>
    (await reader.selectFrom('workspaces').select('name').execute()).map((row) => row.name)
  const own = reach([id])
  t.strictSame(await names(own), ['default'], 'a statement that stands alone')
  t.strictSame(await names(reach([])), [], 'another call on the same connection')
  t.strictSame(await names(pool), [], 'what says nothing sees nothing')
  t.strictSame(await inTransaction(own, (tx) => names(tx)), ['default'], 'a transaction')
  t.strictSame(await inSnapshot(own, (tx) => names(tx)), ['default'], 'a snapshot')
  t.strictSame(await onOneConnection(own, (connection) => names(connection)), ['default'], 'reads on one connection')
  t.strictSame(await names(pool), [], 'and nothing stays behind on the connection')
  const rename = sql`update workspaces set display_name = 'x' where name = 'default' returning 1`
  t.equal((await rename.execute(own)).rows.length, 0, 'what may be read may not therefore be changed')
  const writing = reach([id], { write: { organizationIds: [], workspaces: ['default'] } })
  t.equal((await rename.execute(writing)).rows.length, 1)
  await t.rejects(sql`select * from providers`.execute(own), { code: '42501' }, 'what is no tenant’s is refused')
  t.strictSame(await names(own), ['default'], 'a statement that failed leaves the connection in order')
})
