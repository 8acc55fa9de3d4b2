import t from 'tap'
import { OrphanRig } from '../../testing/orphan-rig.js'
import { insertWorkItem } from '../store/wishes.js'
import { inTransaction } from '../store/database.js'

// What listings say of machines that are wished for, on a real database.

async function scene(t: Parameters<typeof OrphanRig.start>[0]) {
  const rig = await OrphanRig.start(t)
  const { db } = rig.rig
  const cloud = await rig.provider('cloud')
  const { id, key } = await rig.request(cloud, 'PROVISIONED', { externalId: 'srv-1' })
  const listed = [{ externalId: 'srv-1', ownershipKey: key }]
  const longAgo = new Date(Date.now() - 3_600_000)
  await db
    .updateTable('machine_requests')
    .set({ presence: 'PRESENT', provisioned_at: longAgo })
    .where('id', '=', id)
    .execute()
  await inTransaction(db, (tx) => insertWorkItem(tx, { providerId: cloud.id, id, kind: 'MACHINE_REQUEST' }))
  const settle = () => db.updateTable('work_items').set({ due_at: null }).where('id', '=', id).execute()
  const isDue = async () =>
    (await db.selectFrom('work_items').select('due_at').where('id', '=', id).executeTakeFirstOrThrow()).due_at !== null
  const presence = async () =>
    (await db.selectFrom('machine_requests').select('presence').where('id', '=', id).executeTakeFirstOrThrow()).presence
  const setPresence = (to: 'PRESENT' | 'ABSENT') =>
    db.updateTable('machine_requests').set({ presence: to }).where('id', '=', id).execute()
  await settle()
  return { rig, db, cloud, id, listed, settle, isDue, presence, setPresence }
}

void t.test('a machine that two listings in a row lack is looked at, and not taken for gone', async (t) => {
  const { rig, cloud, listed, settle, isDue, presence } = await scene(t)
  await rig.list(cloud, listed)
  await rig.list(cloud, [])
  t.notOk(await isDue(), 'once may be chance')
  await rig.list(cloud, listed)
  await rig.list(cloud, [])
  t.notOk(await isDue(), 'nor twice with a sighting between')
  await rig.list(cloud, [], { complete: false })
  t.notOk(await isDue(), 'what was not read to its end proves nothing')
  await rig.list(cloud, [])
  t.ok(await isDue())
  t.equal(await presence(), 'PRESENT', 'these listings may be older than the machine')
  t.strictSame(await rig.reasons(), [])

  await settle()
  await rig.list(cloud, [])
  t.notOk(await isDue(), 'its provider has just looked')
  await rig.list(cloud, [])
  t.ok(await isDue(), 'and does so again where it goes on being missed')
})

void t.test('a machine that was taken for gone, and is listed, is looked at', async (t) => {
  const { rig, cloud, listed, isDue, presence, setPresence } = await scene(t)
  await setPresence('ABSENT')
  await rig.list(cloud, [])
  await rig.list(cloud, [])
  t.notOk(await isDue(), 'that it is gone is known')
  await rig.list(cloud, listed)
  t.ok(await isDue())
  t.equal(await presence(), 'ABSENT', 'its holder will say')
})

void t.test('what somebody holds is left to them, and what is young may be missing', async (t) => {
  const { rig, db, cloud, id, listed, isDue } = await scene(t)
  await db
    .updateTable('machine_requests')
    .set({ provisioned_at: new Date(Date.now() + 60_000) })
    .where('id', '=', id)
    .execute()
  for (let pass = 0; pass < 3; pass++) await rig.list(cloud, [])
  t.notOk(await isDue())
  await rig.list(cloud, listed)
  const { session_id: session } = await db
    .selectFrom('sessions')
    .select('id as session_id')
    .where('provider_id', '=', cloud.id)
    .executeTakeFirstOrThrow()
  await db
    .updateTable('machine_requests')
    .set({ provisioned_at: new Date(Date.now() - 3_600_000) })
    .where('id', '=', id)
    .execute()
  await db.updateTable('work_items').set({ session_id: session }).where('id', '=', id).execute()
  for (let pass = 0; pass < 3; pass++) await rig.list(cloud, [])
  t.notOk(await isDue())
})
