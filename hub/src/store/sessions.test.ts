import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import t from 'tap'
import { withDatabase } from '../../testing/index.js'
import { inTransaction, type Tx } from './database.js'
import { introduceProvider, openSession, recordHealth, recordWellness, type HealthReport } from './sessions.js'

void t.test(
  'instances of one provider that say Hello at one moment do not wait for one another in a circle',
  async (t) => {
    const { db } = await withDatabase(t)
    const providerId = randomUUID()
    await sql`insert into providers (id, name, family, kind) values (${providerId}, 'cloud', 'test', 'DYNAMIC')`.execute(
      db,
    )
    const open = (tx: Tx) =>
      openSession(
        tx,
        {
          id: randomUUID(),
          providerId,
          instanceId: randomUUID(),
          instanceName: 'one',
          replica: 'hub',
          sdk: 'test',
          providerVersion: '1',
          certificateSerial: '1',
          leaseMs: 10_000,
        },
        [],
      )
    const said = {
      capabilities: [],
      configSchema: '',
      credentialsSchema: '',
      dataSchema: '',
      listingLagMs: 0,
      effectTimeoutMs: 60_000,
    }
    // All have stored their session before any goes on.
    let opened = 0
    let go: () => void = () => undefined
    const allOpened = new Promise<void>((resolve) => (go = resolve))
    const hello = () =>
      db.transaction().execute(async (tx) => {
        await open(tx)
        if (++opened === 3) go()
        await allOpened
        return introduceProvider(tx, providerId, said)
      })
    const results = await Promise.allSettled([hello(), hello(), hello()])
    t.strictSame(
      results.map((result) => (result.status === 'fulfilled' ? 'done' : String(result.reason))),
      ['done', 'done', 'done'],
    )
  },
)

void t.test('whoever is well says so beside whoever is not, in any order, and the provider is well', async (t) => {
  const { db } = await withDatabase(t)
  const providerId = randomUUID()
  await sql`insert into providers (id, name, family, kind, health) values (${providerId}, 'cloud', 'test', 'DYNAMIC', 'HEALTHY')`.execute(
    db,
  )
  const sessionIds = [randomUUID(), randomUUID()] as const
  for (const id of sessionIds)
    await inTransaction(db, (tx) =>
      openSession(
        tx,
        {
          ...{ id, providerId, instanceId: randomUUID(), instanceName: 'one', replica: 'hub', sdk: 'test' },
          ...{ providerVersion: '1', certificateSerial: '1', leaseMs: 60_000 },
        },
        [],
      ),
    )
  const report = (sessionId: string, health: HealthReport['health']): HealthReport => ({
    ...{ sessionId, providerId, health, message: '', budgets: [], now: new Date() },
  })
  const [good, bad] = sessionIds
  const say = (tx: Tx) => recordWellness(tx, report(good, 'HEALTHY'))
  const complain = (tx: Tx) => recordHealth(tx, report(bad, 'UNHEALTHY'))
  const provider = async () =>
    (await db.selectFrom('providers').select('health').where('id', '=', providerId).executeTakeFirstOrThrow()).health
  /** Until somebody waits for a row that another has locked. */
  const untilBlocked = async () => {
    for (;;) {
      const waiting =
        await sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`.execute(
          db,
        )
      if (waiting.rows.length > 0) return
    }
  }
  const oneAfterTheOther = async <First, Second>(
    first: (tx: Tx) => Promise<First>,
    second: (tx: Tx) => Promise<Second>,
  ): Promise<readonly [First, Second]> => {
    let later: Promise<Second> | undefined
    const result = await inTransaction(db, async (tx) => {
      const done = await first(tx)
      later = inTransaction(db, second)
      await untilBlocked()
      return done
    })
    if (later === undefined) throw new Error('the second never began')
    return [result, await later]
  }

  await t.test('the good word first', async (t) => {
    const [known, recorded] = await oneAfterTheOther(say, complain)
    t.ok(known, 'nothing new of the provider')
    t.match(recorded, { before: 'HEALTHY', after: 'HEALTHY' }, 'the complaint sees it')
    t.equal(await provider(), 'HEALTHY')
  })

  await t.test('the complaint first', async (t) => {
    await sql`update sessions set health = 'UNHEALTHY'`.execute(db)
    const [recorded, known] = await oneAfterTheOther(complain, say)
    t.match(recorded, { after: 'UNHEALTHY' })
    t.notOk(known, 'the provider is to be reckoned anew')
    const again = await inTransaction(db, (tx) => recordHealth(tx, report(good, 'HEALTHY')))
    t.match(again, { before: 'UNHEALTHY', after: 'HEALTHY' })
    t.equal(await provider(), 'HEALTHY')
  })

  await t.test('an error that is remembered is not passed over', async (t) => {
    await sql`update providers set last_error = '{}'`.execute(db)
    t.notOk(await inTransaction(db, say))
  })

  await t.test('a session that is over says nothing', async (t) => {
    await sql`update sessions set ended_at = now()`.execute(db)
    await t.rejects(inTransaction(db, say), /is over/)
  })
})
