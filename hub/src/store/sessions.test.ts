import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import t from 'tap'
import { withDatabase } from '../../testing/index.js'
import type { Tx } from './database.js'
import { introduceProvider, openSession } from './sessions.js'

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
