import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import pino from 'pino'
import t, { type Test } from 'tap'
import { offerToWaiting } from '../api/free-machines.js'
import type { ClassSpec } from '../domain/host/host.js'
import { eventually, Rig, type FakeInstance, type HostOptions } from '../../testing/reconcile-rig.js'
import { inTransaction } from '../store/database.js'
import { readLanes } from '../store/machine-turns.js'
import { wishMachine } from '../store/wishes.js'

const metal: Partial<ClassSpec> = {
  offerings: [],
  machineSelector: { labelSelector: '', provider: '', providerData: {} },
}
const gpu: Partial<ClassSpec> = {
  offerings: [],
  machineSelector: { labelSelector: 'gpu', provider: '', providerData: {} },
}

interface Floor {
  readonly rig: Rig
  readonly rack: FakeInstance
  readonly order: (name: string, workspace: string, options?: HostOptions) => Promise<string>
  /** Machines come out of cleaning, one after the other; says whose hosts got them. */
  readonly free: (count: number) => Promise<readonly string[]>
  readonly waits: (id: string) => Promise<unknown>
}

async function start(t: Test): Promise<Floor> {
  const rig = await Rig.start(t)
  const rack = await rig.provider('rack', { kind: 'STATIC', family: 'metal' })
  const workspaces = new Map<string, { id: string; name: string }>()
  let machines = 0
  const order = async (name: string, workspace: string, options: HostOptions = {}) => {
    const of = workspaces.get(workspace) ?? { id: randomUUID(), name: workspace }
    workspaces.set(workspace, of)
    return rig.order(name, { spec: metal, className: 'metal', workspace: of, ...options })
  }
  const freeOne = async () => {
    const id = await rig.machine(rack, `node-${++machines}`, { state: 'MANAGEABLE' })
    await inTransaction(rig.db, (tx) =>
      wishMachine(tx, { providerId: rack.providerId, id }, { state: 'CLEANING', operation: 'CLEAN' }),
    )
    // Cleaned, and then left alone: only then may anybody have it.
    for (const done of [{ completed: { operation: 'CLEAN', operationGeneration: 1 } }, {}]) {
      const item = await eventually(
        async () => (await rack.claim()).find((claimed) => claimed.id === id),
        (claimed) => claimed !== undefined,
        () => `machine ${id} to be claimed`,
      )
      if (item === undefined) throw new Error(`machine ${id} was not claimed`)
      await rack.report(item, { observed: { generation: item.generation }, ...done })
    }
    const taken = await eventually(
      () => rig.machineRow(id),
      ({ host_name: name }) => name !== null,
      (row) => `taken; it is ${row.state}`,
    )
    return taken.host_name?.split('/')[1] ?? ''
  }
  const free = async (count: number) => {
    const got: string[] = []
    for (let index = 0; index < count; index++) got.push(await freeOne())
    return got
  }
  return {
    ...{ rig, rack, order, free },
    waits: async (id) => {
      await rig.until(id, (host) => host.state_message !== '', 'a reason to wait')
      await eventually(
        () => rig.db.selectFrom('machine_waits').selectAll().where('host_id', '=', id).execute(),
        (rows) => rows.length === 1,
        () => `host ${id} in its lane`,
      )
    },
  }
}

void t.test('machines that become free go to workspaces in turn, whoever has more that wait', async (t) => {
  const { rig, order, free, waits } = await start(t)
  rig.reconcile(2)
  const burst = await Promise.all(Array.from({ length: 30 }, (_, index) => order(`burst-${index}`, 'greedy')))
  await Promise.all(burst.map(waits))
  const few = [await order('one', 'modest'), await order('two', 'modest')]
  await Promise.all(few.map(waits))
  t.strictSame(await free(5), ['greedy', 'modest', 'greedy', 'modest', 'greedy'])
  const left = await rig.db.selectFrom('machine_waits').select('host_id').execute()
  t.equal(left.length, 27, 'who has a machine waits no more')

  await waits(await order('soon', 'urgent', { priority: 1 }))
  t.strictSame(await free(1), ['urgent'], 'the urgent first')

  const lanes = await inTransaction(rig.db, (tx) => readLanes(tx, 3))
  t.strictSame(
    lanes.map(({ waiting }) => waiting.length),
    [3],
    'of those who wait for the same, no more are read than there may be machines for',
  )
})

void t.test('by weight', async (t) => {
  const { rig, order, free, waits } = await start(t)
  const workspaces = await Promise.all(
    ['light', 'heavy'].map((name) => order(`${name}-0`, name).then((id) => rig.host(id))),
  )
  for (const row of workspaces)
    await rig.db
      .insertInto('workspaces')
      .values({
        id: row.workspace_id,
        organization_id: row.organization_id,
        organization_name: 'default',
        name: row.workspace_name,
        weight: row.workspace_name === 'heavy' ? 3 : 1,
      })
      .execute()
  rig.reconcile()
  const more = await Promise.all(
    ['light', 'heavy'].flatMap((name) => Array.from({ length: 9 }, (_, index) => order(`${name}-${index + 1}`, name))),
  )
  await Promise.all([...workspaces.map(({ id }) => id), ...more].map(waits))
  const got = await free(8)
  t.equal(got.filter((name) => name === 'heavy').length, 6)
})

void t.test('who comes anew does not take what others wait for', async (t) => {
  const { rig, rack, order, waits } = await start(t)
  rig.reconcile()
  const patient = await order('patient', 'modest')
  await waits(patient)
  // It comes out of a person's hands: nobody says so.
  const id = await rig.machine(rack, 'found')
  const newcomer = await order('newcomer', 'greedy')
  await rig.until(patient, (host) => host.state === 'PLACED', 'the machine, for it waited first')
  t.equal((await rig.machineRow(id)).host_id, patient)
  await waits(newcomer)
  t.equal((await rig.host(newcomer)).state, 'ORDERED')
  const elsewhere = await rig.machine(rack, 'gpu', { labels: { gpu: 'yes' } })
  const other = await order('other', 'greedy', { spec: gpu, className: 'gpu' })
  const taken = await eventually(
    () => rig.machineRow(elsewhere),
    (row) => row.host_id !== null,
    () => 'taken',
  )
  t.equal(taken.host_id, newcomer, 'who waits for any machine goes before who comes for this one')
  await waits(other)
})

void t.test('who cannot take a machine when its turn comes lets others go first', async (t) => {
  const { rig, order, free, waits } = await start(t)
  rig.reconcile()
  const affinities = [{ side: 'NEAR', domain: 'PROVIDER', labelSelector: 'app=absent', required: true }] as const
  const picky = await Promise.all(
    [1, 2, 3].map((index) => order(`picky-${index}`, 'picky', { placement: { affinities } })),
  )
  await Promise.all(picky.map(waits))
  await waits(await order('easy', 'modest'))
  t.strictSame(await free(1), ['modest'])
  t.match(await rig.host(picky[0] ?? ''), { state: 'ORDERED' })
})

void t.test('a host that is released while it waits leaves its lane', async (t) => {
  const { rig, order, waits } = await start(t)
  rig.reconcile()
  const id = await order('leaving', 'modest')
  await waits(id)
  await rig.ask(id, 'RELEASING')
  await rig.until(id, (host) => host.state === 'RELEASED', 'released')
  t.strictSame(await rig.db.selectFrom('machine_waits').selectAll().execute(), [])
})

void t.test('a machine that a person lets go of is for those who wait, at once', async (t) => {
  const { rig, rack, order, waits } = await start(t)
  const stop = rig.reconcile()
  const id = await rig.machine(rack, 'node-1')
  await rig.db.updateTable('machines').set({ cordoned: true }).where('id', '=', id).execute()
  const host = await order('web-1', 'one')
  await waits(host)
  await stop()
  await sql`update host_schedule set due_at = clock_timestamp() + interval '1 h' where host_id = ${host}`.execute(
    rig.db,
  )
  const isDue = async () => {
    const result = await sql<{ due: boolean }>`
      select due_at <= clock_timestamp() as due from host_schedule where host_id = ${host}
    `.execute(rig.db)
    return result.rows[0]?.due
  }
  const offer = async () =>
    offerToWaiting({ db: rig.db, wake: rig.wake, log: pino({ level: 'silent' }) }, await rig.machineRow(id))
  await offer()
  t.equal(await isDue(), false, 'while it is cordoned it is not to be had')
  await rig.db.updateTable('machines').set({ cordoned: false }).where('id', '=', id).execute()
  await offer()
  t.equal(await isDue(), true)
  rig.reconcile()
  await rig.until(host, (row) => row.state === 'PLACED', 'the host has it')
  t.match(await rig.machineRow(id), { host_name: /web-1/ })
})
