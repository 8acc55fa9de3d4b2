import { sql } from 'kysely'
import t from 'tap'
import { withDatabase } from '../../testing/index.js'
import { ControllerLost, holdController, releaseController, underController } from './controllers.js'

void t.test('a controller is held by one replica, under a fence that rises', async (t) => {
  const { db } = await withDatabase(t)
  const tries = await Promise.all(
    Array.from({ length: 20 }, (_, replica) => holdController(db, 'sweep', `replica-${replica}`, 60_000)),
  )
  const held = tries.flatMap((lease, replica) =>
    lease === undefined ? [] : [{ lease, replica: `replica-${replica}` }],
  )
  t.equal(held.length, 1)
  const [first] = held
  if (first === undefined) return
  t.equal(await holdController(db, 'sweep', 'another', 60_000), undefined)
  t.ok(await holdController(db, 'trim', 'another', 60_000), 'each controller has a lease of its own')

  const again = await holdController(db, 'sweep', first.replica, 60_000)
  t.equal(again?.fence, first.lease.fence, 'who holds it extends it')
  t.ok((again?.heldMs ?? 0) > 0)

  await sql`update controllers set expires_at = clock_timestamp() - interval '1 second' where name = 'sweep'`.execute(
    db,
  )
  const late = await holdController(db, 'sweep', first.replica, 60_000)
  t.equal(late?.fence, first.lease.fence + 1, 'after a gap even the same replica begins anew')
  t.ok((late?.heldMs ?? 1e9) < 1_000)
  if (late === undefined) return

  await releaseController(db, late)
  const next = await holdController(db, 'sweep', 'another', 60_000)
  t.equal(next?.fence, late.fence + 1)
})

void t.test('nothing is written under a fence that is over', async (t) => {
  const { db } = await withDatabase(t)
  const old = await holdController(db, 'sweep', 'paused', 60_000)
  if (old === undefined) throw new Error('nobody holds it')
  const rename = (lease: typeof old, name: string) =>
    underController(db, lease, (tx) => tx.updateTable('workspaces').set({ name }).execute())
  await rename(old, 'by-the-holder')
  await sql`update controllers set expires_at = clock_timestamp()`.execute(db)
  await t.rejects(rename(old, 'too-late'), ControllerLost, 'its time has run out, though nobody has taken over')
  const now = await holdController(db, 'sweep', 'other', 60_000)
  await t.rejects(rename(old, 'by-the-old-one'), ControllerLost)
  await t.rejects(rename({ ...old, fence: old.fence + 2 }, 'by-nobody'), ControllerLost)
  t.match(await db.selectFrom('workspaces').select('name').execute(), [{ name: 'by-the-holder' }])
  if (now === undefined) throw new Error('the other one does not hold it')
  await rename(now, 'by-the-new-one')
  t.match(await db.selectFrom('workspaces').select('name').execute(), [{ name: 'by-the-new-one' }])
})

void t.test('a lease that is being written under is not taken over before the write has ended', async (t) => {
  const { db } = await withDatabase(t)
  const lease = await holdController(db, 'sweep', 'writer', 60_000)
  if (lease === undefined) throw new Error('nobody holds it')
  let taken: number | undefined
  let taking: Promise<void> | undefined
  await underController(db, lease, async (tx) => {
    taking = holdController(db, 'sweep', 'writer', 60_000).then((next) => {
      taken = next?.fence
    })
    await sql`select pg_sleep(0.05)`.execute(tx)
    t.equal(taken, undefined)
  })
  await taking
  t.equal(taken, lease.fence)
})
