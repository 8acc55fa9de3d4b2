import { sql } from 'kysely'
import pino from 'pino'
import t from 'tap'
import { withDatabase } from '../../testing/index.js'
import { decodeRevision, headRevision, readChangesAfter } from '../store/changes.js'
import { Wake } from '../store/wake.js'
import { Feed } from './feed.js'

void t.test('a watch that resumes in the midst of a page is told what came after that page was begun', async (t) => {
  const { db } = await withDatabase(t)
  const epoch = 'epoch'
  const pageSize = 3
  const order = async (from: number, to: number) => {
    for (let number = from; number <= to; number++)
      await sql`insert into machine_classes (id, name) values (gen_random_uuid(), ${`class-${number}`})`.execute(db)
  }
  const log = pino({ level: 'silent' })
  const feed = new Feed({
    db,
    wake: new Wake(),
    epoch,
    log,
    read: (db, after) => readChangesAfter(db, after, pageSize),
  })
  t.teardown(() => feed.stop())
  const start = await headRevision(db)
  await order(0, 9)
  const first = await readChangesAfter(db, start, pageSize)
  t.ok(first.next.within, 'there is more to be had')
  await order(10, 14)

  const ended = new AbortController()
  // The feed has gone on to here for somebody else.
  const other = feed.watch(await headRevision(db), ended.signal, 10)
  await other.next()
  const told: unknown[] = []
  let last = first.next
  for await (const { rows, revision } of feed.watch(first.next, ended.signal, 1_000)) {
    if (told.length === 0) await order(15, 15)
    told.push(...rows.map(({ doc }) => doc['name']))
    last = decodeRevision(epoch, revision)
    if (told.at(-1) === 'class-15') ended.abort()
  }
  t.strictSame(
    told,
    Array.from({ length: 13 }, (_, index) => `class-${index + pageSize}`),
  )
  t.strictSame((await readChangesAfter(db, last, pageSize)).rows, [], 'and nothing is told after its last revision')
})
