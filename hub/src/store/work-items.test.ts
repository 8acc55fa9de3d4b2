import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { v7 as uuid } from 'uuid'
import { Rig } from '../../testing/reconcile-rig.js'
import { settleItems, type SettledEntry } from './reports.js'
import { claimDueItems, takeChangedWishes, takeHeldItems, type ClaimedItem } from './work-items.js'

/** Hosts that are placed with one provider, whose requests nobody has claimed. */
async function placed(t: Test, count: number) {
  const rig = await Rig.start(t)
  const cloud = await rig.provider('cloud')
  rig.reconcile()
  const hosts: string[] = []
  for (let index = 0; index < count; index++) hosts.push(await rig.order(`web-${index}`))
  for (const id of hosts) await rig.until(id, (host) => host.state === 'PLACED', 'PLACED')
  const claim = (credit: number) =>
    claimDueItems(rig.db, [{ sessionId: cloud.sessionId, providerId: cloud.providerId, credit }])
  const settled = (item: ClaimedItem, change: Partial<SettledEntry> = {}): SettledEntry => ({
    sessionId: cloud.sessionId,
    providerId: cloud.providerId,
    providerName: 'cloud',
    itemId: item.id,
    fence: item.fence,
    body: { kind: 'settled', generation: item.generation },
    ...change,
  })
  return { rig, cloud, hosts, claim, settled }
}

void t.test('a claim takes requests up, once', async (t) => {
  const { rig, cloud, hosts, claim, settled } = await placed(t, 3)
  const { items, takenUp } = await claim(2)
  t.equal(items.length, 2)
  t.ok(items.every((item) => item.fence === 1 && item.attempt === 0))
  t.strictSame(new Set(takenUp.map(({ id }) => id)), new Set(items.map(({ id }) => id)))
  for (const request of takenUp) {
    t.match(request, { state: 'PROVISIONING', created_at: Date, provider_name: 'cloud', generation: 1 })
    t.ok(Buffer.isBuffer(request.userDataSealed) && Buffer.isBuffer(request.phoneHomeTokenSealed))
    const reasons = await rig.reasons(`machineRequests/${request.name}`)
    t.equal(reasons.filter((reason) => reason === 'RequestClaimed').length, 1)
  }
  t.equal((await claim(10)).items.length, 1, 'what is left')
  t.strictSame(await claim(10), { items: [], takenUp: [] })

  const ids = items.map(({ id }) => id)
  const held = await takeHeldItems(rig.db, [cloud.sessionId])
  t.equal(held.items.length, 3)
  t.strictSame(held.takenUp, [], 'they are under way already')
  t.strictSame(await takeChangedWishes(rig.db, [cloud.sessionId]), { items: [], takenUp: [] })
  await settleItems(
    rig.db,
    items.map((item) => settled(item)),
  )
  await sql`update work_items set due_at = now() where id = any(${ids}::uuid[])`.execute(rig.db)
  const again = await claim(10)
  t.strictSame(again.takenUp, [])
  t.ok(again.items.length === 2 && again.items.every((item) => item.fence === 2))
  t.equal(hosts.length, 3)
})

void t.test('claims are ended by their holder alone', async (t) => {
  const { rig, cloud, claim, settled } = await placed(t, 5)
  const { items } = await claim(5)
  const [own, stale, foreign, newer, kept] = items
  if (!own || !stale || !foreign || !newer || !kept) throw new Error('there are too few claims')
  await sql`update work_items set generation = generation + 1 where id = ${newer.id}`.execute(rig.db)
  const unknown = uuid()
  const { results, wake } = await settleItems(rig.db, [
    settled(own),
    settled(stale, { fence: stale.fence - 1 }),
    settled(foreign, { providerId: uuid() }),
    settled(newer),
    settled(kept, { sessionId: uuid() }),
    settled(own, { itemId: unknown }),
  ])
  t.strictSame(
    results.map((result) => (result.ok ? 'ok' : result.reason)),
    ['ok', 'STALE_FENCE', 'UNKNOWN_ITEM', 'ok', 'STALE_FENCE', 'UNKNOWN_ITEM'],
  )
  t.strictSame(wake, [{ kind: 'work', providerId: cloud.providerId }], 'a newer wish is due at once')
  const held = await sql<{ id: string }>`select id from work_items where session_id is not null`.execute(rig.db)
  t.strictSame(new Set(held.rows.map(({ id }) => id)), new Set([stale.id, foreign.id, kept.id]))
  const due = await sql<{ id: string }>`select id from work_items where due_at <= now()`.execute(rig.db)
  t.ok(due.rows.some(({ id }) => id === newer.id))
  t.notOk(due.rows.some(({ id }) => id === own.id))
})
