import fc from 'fast-check'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { v7 as uuid } from 'uuid'
import { organizationId, Rig } from '../../testing/reconcile-rig.js'
import { ageingMs } from '../domain/share/priority.js'
import { takeTurn, untouchedShares, type Item, type ShareState } from '../domain/share/share.js'
import { inTransaction, type Db } from './database.js'
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
  t.strictSame(await claim(10), { contested: [], items: [], takenUp: [] })

  const ids = items.map(({ id }) => id)
  const held = await takeHeldItems(rig.db, [cloud])
  t.equal(held.items.length, 3)
  t.strictSame(held.takenUp, [], 'they are under way already')
  t.strictSame(await takeChangedWishes(rig.db, [cloud]), { contested: [], items: [], takenUp: [] })
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

void t.test('nobody is given what is paused, whether one workspace waits or several do', async (t) => {
  const rig = await Rig.start(t)
  const { providerId, sessionId } = await rig.provider('paused')
  const claim = () => claimDueItems(rig.db, [{ sessionId, providerId, credit: 10 }])
  const lanes = [await makeWorkspace(rig.db, 'one', 1), await makeWorkspace(rig.db, 'other', 1)]
  const wait = async (workspace: Weighted | undefined, paused: boolean): Promise<string> => {
    const id = uuid()
    const item = { provider_id: providerId, id, kind: 'MACHINE_REQUEST', due_at: new Date(0) } as const
    await rig.db
      .insertInto('work_items')
      .values({ ...item, workspace_id: workspace?.id ?? uuid(), paused })
      .execute()
    return id
  }
  const held = [await wait(lanes[0], true), await wait(lanes[1], true)]
  t.strictSame(await claim(), { contested: [], items: [], takenUp: [] })
  const first = await wait(lanes[0], false)
  const alone = await claim()
  t.strictSame([alone.contested, alone.items.map(({ id }) => id)], [[], [first]], 'what is paused competes with nobody')
  const both = new Set([await wait(lanes[0], false), await wait(lanes[1], false)])
  const shared = await claim()
  t.strictSame([shared.contested, new Set(shared.items.map(({ id }) => id))], [[providerId], both])
  await rig.db.updateTable('work_items').set({ paused: false }).where('id', 'in', held).execute()
  t.strictSame(new Set((await claim()).items.map(({ id }) => id)), new Set(held), 'and goes when it is not any more')
})

void t.test('several workspaces share a provider as domain/share says', async (t) => {
  const rig = await Rig.start(t)
  const random = fc.sample(
    fc.record({
      seed: fc.integer(),
      weights: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 4, maxLength: 4 }),
    }),
    { numRuns: 12, seed: 20_261 },
  )
  for (const [round, { seed, weights }] of random.entries()) {
    const provider = await rig.provider(`shared-${round}`)
    const workspaces = await Promise.all(
      weights.map((weight, index) => makeWorkspace(rig.db, `w-${round}-${index}`, weight)),
    )
    await compareWithModel(t, rig.db, provider, workspaces, seed)
  }
})

interface Weighted {
  readonly id: string
  readonly weight: number
}

async function makeWorkspace(db: Db, name: string, weight: number): Promise<Weighted> {
  const id = uuid()
  await db
    .insertInto('workspaces')
    .values({ organization_id: organizationId, organization_name: 'default', id, name, weight })
    .execute()
  return { id, weight }
}

void t.test('a claim does not read what else waits, however much that is', async (t) => {
  const rig = await Rig.start(t)
  const { providerId, sessionId } = await rig.provider('cloud')
  await sql`
    insert into work_items (provider_id, id, kind, due_at, workspace_id)
    select ${providerId}, gen_random_uuid(), 'MACHINE_REQUEST', now() - n * interval '1 s', ${uuid()} from generate_series(1, 5000) n
  `.execute(rig.db)
  // As autovacuum does: what is planned knows how much there is.
  await sql`vacuum analyze work_items`.execute(rig.db)
  const read = async (tx: Db) => {
    const result = await sql<{ scanned: number; fetched: number }>`
      select seq_tup_read as scanned, idx_tup_fetch as fetched from pg_stat_xact_user_tables where relname = 'work_items'
    `.execute(tx)
    return result.rows[0] ?? { scanned: NaN, fetched: NaN }
  }
  await inTransaction(rig.db, async (tx) => {
    for (const sessions of [[sessionId], [sessionId, await addSession(tx, sessionId)]]) {
      // More than the five for which PostgreSQL plans anew.
      for (let turn = 0; turn < 8; turn++) {
        const before = await read(tx)
        const { items } = await claimDueItems(
          tx,
          sessions.map((one) => ({ sessionId: one, providerId, credit: 3 })),
        )
        const after = await read(tx)
        t.equal(items.length, 3 * sessions.length)
        t.equal(after.scanned, before.scanned, 'nothing is read from end to end')
        t.ok(after.fetched - before.fetched < 100, `a few are looked up: ${after.fetched - before.fetched}`)
      }
    }
  })
})

/** Another instance of the provider of a session. Returns its session. */
async function addSession(db: Db, sessionId: string): Promise<string> {
  const id = uuid()
  await sql`
    insert into sessions
    select (jsonb_populate_record(s, jsonb_build_object('id', ${id}::text, 'instance_id', ${uuid()}::text, 'instance_name', ${`instance-${id}`}::text))).*
    from sessions s where id = ${sessionId}
  `.execute(db)
  return id
}

void t.test('what is due goes to whoever asks, one to each in turn, and never to two', async (t) => {
  const rig = await Rig.start(t)
  const clouds = [await rig.provider('cloud-a'), await rig.provider('cloud-b')]
  for (const sessionsOfEach of [1, 2, 3]) {
    const asking = []
    for (const { providerId, sessionId } of clouds) {
      const sessions = [sessionId]
      while (sessions.length < sessionsOfEach) sessions.push(await addSession(rig.db, sessionId))
      asking.push(...sessions.map((one, index) => ({ providerId, sessionId: one, credit: 4 + index })))
    }
    // Beside one session each nobody else asks: that is the simple case.
    const ended =
      sessionsOfEach === 1 ? [] : [{ providerId: clouds[0]?.providerId ?? '', sessionId: uuid(), credit: 100 }]
    await sql`delete from work_items`.execute(rig.db)
    await sql`
      insert into work_items (provider_id, id, kind, due_at)
      select provider_id, gen_random_uuid(), 'MACHINE_REQUEST', now() - n * interval '1 s'
      from unnest(${clouds.map(({ providerId }) => providerId)}::uuid[], array[7, 100]) as p (provider_id, waiting), generate_series(1, p.waiting) n
    `.execute(rig.db)
    const { items } = await claimDueItems(rig.db, [...asking, ...ended])
    t.equal(new Set(items.map(({ id }) => id)).size, items.length, 'each once')
    for (const [index, { providerId }] of clouds.entries()) {
      const here = asking.filter((one) => one.providerId === providerId)
      const wanted = here.reduce((sum, { credit }) => sum + credit, 0)
      const given = items.filter((item) => item.providerId === providerId)
      t.equal(given.length, Math.min(wanted, index === 0 ? 7 : 100), 'as many as are wanted, or are there')
      const counts = here.map(({ sessionId }) => given.filter((item) => item.sessionId === sessionId).length)
      t.equal(
        counts.reduce((sum, count) => sum + count, 0),
        given.length,
        'and nobody who does not ask gets any',
      )
      t.ok(
        here.every(({ credit }, one) => (counts[one] ?? 0) <= credit),
        'nor more than wanted',
      )
      if (given.length < wanted)
        t.ok(Math.max(...counts) - Math.min(...counts) <= 1, `one in turn: ${counts.join(' ')}`)
      const overtaken = await sql<{ there: boolean }>`
        select exists (
          select from work_items waits join work_items goes using (provider_id)
          where provider_id = ${providerId} and waits.session_id is null and goes.session_id is not null and waits.due_at < goes.due_at
        ) as there
      `.execute(rig.db)
      t.notOk(overtaken.rows[0]?.there, 'the oldest first')
    }
  }
})

void t.test(
  'items that others change while they are claimed go once, to one, as they are then, and none is left',
  async (t) => {
    const rig = await Rig.start(t)
    const { providerId, sessionId } = await rig.provider('busy')
    const holders = [sessionId, await addSession(rig.db, sessionId), await addSession(rig.db, sessionId)]
    const lanes = [await makeWorkspace(rig.db, 'one', 1), await makeWorkspace(rig.db, 'other', 1)]
    for (const workspaces of [lanes.slice(0, 1), lanes]) {
      const waiting = 300
      await sql`delete from work_items`.execute(rig.db)
      await sql`
      insert into work_items (provider_id, id, kind, due_at, workspace_id)
      select ${providerId}, gen_random_uuid(), 'MACHINE_REQUEST', now(), w.id
      from unnest(${workspaces.map(({ id }) => id)}::uuid[]) as w (id), generate_series(1, ${waiting / workspaces.length}::int)
    `.execute(rig.db)
      const claimed: ClaimedItem[] = []
      const over = () => claimed.length >= waiting
      const deadline = Date.now() + 60_000
      const claimer = async (holder: string) => {
        while (!over() && Date.now() < deadline)
          claimed.push(...(await claimDueItems(rig.db, [{ sessionId: holder, providerId, credit: 5 }])).items)
      }
      let changes = 0
      const changer = async () => {
        while (!over() && Date.now() < deadline) {
          const changed = await sql`
          update work_items set generation = generation + 1
          where session_id is null and id in (select id from work_items where session_id is null order by random() limit 1)
        `.execute(rig.db)
          changes += Number(changed.numAffectedRows)
        }
      }
      await Promise.all([...holders.map(claimer), changer(), changer()])
      t.ok(changes > 0)
      t.equal(claimed.length, waiting, 'none is left, and none goes twice')
      const { rows } = await sql<{ id: string; sessionId: string; fence: number; generation: number; sent: number }>`
      select id, session_id as "sessionId", fence, generation, sent_generation as sent from work_items
    `.execute(rig.db)
      const stored = new Map(rows.map((row) => [row.id, row]))
      for (const { id, sessionId, generation } of claimed)
        t.strictSame(
          stored.get(id),
          { id, sessionId, fence: 1, generation, sent: generation },
          'its holder has the newest wish',
        )
    }
  },
)

/** Claims from the database and from the model, round by round, with work coming in between: both take the same. */
async function compareWithModel(
  t: Test,
  db: Db,
  { providerId, sessionId }: { readonly providerId: string; readonly sessionId: string },
  workspaces: readonly Weighted[],
  seed: number,
): Promise<void> {
  const weights = new Map(workspaces.map(({ id, weight }) => [id, weight]))
  const anyItem = fc.record({
    workspace: fc.constantFrom(...workspaces.map(({ id }) => id)),
    priority: fc.integer({ min: -1, max: 1 }),
    waitedMs: fc.integer({ min: 1_000, max: 3 * ageingMs }),
  })
  const anyRounds = fc.array(
    fc.record({ items: fc.array(anyItem, { maxLength: 30 }), credit: fc.integer({ min: 1, max: 25 }) }),
    {
      minLength: 4,
      maxLength: 8,
    },
  )
  const nowMs = Date.now()
  let state: ShareState = untouchedShares
  let waiting: readonly Item[] = []
  let contested = 0
  for (const { items, credit } of fc.sample(anyRounds, { numRuns: 1, seed })[0] ?? []) {
    // Well away from where something ages while the test runs.
    const come = items.map(({ workspace, priority, waitedMs }) => ({
      id: uuid(),
      workspace,
      priority,
      dueAtMs: nowMs - Math.floor(waitedMs / ageingMs) * ageingMs - ageingMs / 2 - (waitedMs % 1_000),
    }))
    await sql`
      insert into work_items (provider_id, id, kind, due_at, workspace_id, priority)
      select ${providerId}, i.id, 'MACHINE_REQUEST', i.due_at, i.workspace_id, i.priority
      from unnest(
        ${come.map(({ id }) => id)}::uuid[], ${come.map(({ dueAtMs }) => new Date(dueAtMs))}::timestamptz[],
        ${come.map(({ workspace }) => workspace)}::uuid[], ${come.map(({ priority }) => priority)}::smallint[]
      ) as i (id, due_at, workspace_id, priority)
    `.execute(db)
    waiting = [...waiting, ...come]
    // What lies behind an item that was not looked at comes with the next claim, as the dispatcher asks for it.
    for (let left = Math.min(credit, waiting.length); left > 0;) {
      const claims = await claimDueItems(db, [{ sessionId, providerId, credit: left }])
      const turn = takeTurn(state, waiting, claims.items.length, (workspace) => weights.get(workspace) ?? 1, nowMs)
      t.ok(claims.items.length > 0, 'something goes where anything waits')
      t.strictSame(new Set(claims.items.map(({ id }) => id)), new Set(turn.taken.map(({ id }) => id)))
      if (claims.items.length === 0) break
      contested += claims.contested.length
      left -= claims.items.length
      state = turn.state
      waiting = waiting.filter((item) => !turn.taken.includes(item))
    }
    const passes = await db.selectFrom('work_shares').selectAll().where('provider_id', '=', providerId).execute()
    t.equal(passes.length, state.passes.size)
    for (const { workspace_id: workspace, pass } of passes)
      t.ok(Math.abs(pass - (state.passes.get(workspace) ?? 0)) < 1e-6, 'and has it cost the same')
  }
  t.ok(contested > 0)
}
