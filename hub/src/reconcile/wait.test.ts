import { sql } from 'kysely'
import t from 'tap'
import { v7 as uuid } from 'uuid'
import { eventually, Rig } from '../../testing/reconcile-rig.js'
import type { ReportFacts } from '../domain/request/apply-report.js'
import type { ClassSpec } from '../domain/host/host.js'
import { inTransaction } from '../store/database.js'
import { takeCallbacks } from '../store/machine-waits.js'
import { wishMachine } from '../store/wishes.js'

const metal: Partial<ClassSpec> = {
  offerings: [],
  machineSelector: { labelSelector: '', provider: 'rack', providerData: {} },
}
const waiting = (operation: string, operationGeneration: number, timeoutMs: number) => ({
  waiting: { operation, operationGeneration, timeoutMs, message: 'the agent' },
})

async function cleaningMachine(rig: Rig) {
  const instance = await rig.provider('rack', { kind: 'STATIC' })
  const id = await rig.machine(instance, 'slot-1', { state: 'CLEANING' })
  await inTransaction(rig.db, (tx) => wishMachine(tx, { providerId: instance.providerId, id }, { operation: 'CLEAN' }))
  return { instance, id }
}

/** A machine that an order has just taken, and the claim of its request. */
async function machineOfHost(rig: Rig) {
  const instance = await rig.provider('rack', { kind: 'STATIC' })
  const id = await rig.machine(instance, 'slot-1')
  rig.reconcile(1, { leaseMs: 4_000 })
  const host = await rig.order('web-1', { spec: metal })
  await rig.until(host, ({ state }) => state === 'PLACED', 'a place')
  const [item] = await instance.claim()
  if (item === undefined) throw new Error('nothing was claimed')
  return { instance, id, host, item }
}

async function letWaitEnd(rig: Rig, id: string): Promise<void> {
  await sql`update machines set waiting_until_at = clock_timestamp() - interval '1 second' where id = ${id}`.execute(
    rig.db,
  )
}

void t.test('a wipe that nobody hears of any more is quarantined, whoever held it', async (t) => {
  const rig = await Rig.start(t)
  const { instance, id } = await cleaningMachine(rig)
  const [item] = await instance.claim()
  if (item === undefined) throw new Error('nothing was claimed')
  await instance.report(item, waiting('CLEAN', 1, 3_600_000))
  t.match(await rig.machineRow(id), { state: 'CLEAN_WAIT', waiting_for: 'the agent' })
  rig.reconcile(1, { leaseMs: 4_000 })
  t.strictSame(await instance.claim(), [], 'nobody has to hold it')
  await letWaitEnd(rig, id)
  const failed = await eventually(
    () => rig.machineRow(id),
    ({ state }) => state === 'CLEAN_FAILED',
    ({ state }) => `it is ${state}`,
  )
  t.match(failed, { operation: null, waiting_until_at: null, last_error: { code: 'TIMEOUT', retryable: false } })
  const reasons = await rig.reasons(`machines/${failed.name}`)
  t.ok(reasons.includes('MachineWaitOver') && reasons.includes('MachineFailed'), String(reasons))
})

void t.test('its own word brings a machine back at any instance, and that of others does not', async (t) => {
  const rig = await Rig.start(t)
  const { instance, id } = await cleaningMachine(rig)
  const [item] = await instance.claim()
  if (item === undefined) throw new Error('nothing was claimed')
  await instance.report(item, waiting('CLEAN', 1, 3_600_000))
  const other = uuid()
  await rig.session(instance.providerId, other)
  const call = (provider: string, slot: string) => inTransaction(rig.db, (tx) => takeCallbacks(tx, provider, [slot]))
  t.equal(await call(instance.providerId, 'slot-2'), 0)
  t.equal(await call(uuid(), 'slot-1'), 0, 'another provider knows nothing of it')
  t.equal(await call(instance.providerId, 'slot-1'), 1)
  t.equal(await call(instance.providerId, 'slot-1'), 0, 'once is enough')
  const [again] = await instance.claim()
  t.ok(again !== undefined && again.fence > item.fence, 'under a higher fence')
  await t.rejects(
    instance.report(item, { completed: { operation: 'CLEAN', operationGeneration: 1 } }, 'keep'),
    /is over/,
  )
  if (again === undefined) return
  await instance.report(again, { completed: { operation: 'CLEAN', operationGeneration: 1 } })
  t.match(await rig.machineRow(id), { state: 'AVAILABLE', waiting_until_at: null })
})

void t.test('an installation that nobody hears of any more gives its host up, and its machine is wiped', async (t) => {
  const rig = await Rig.start(t)
  const { instance, id, host, item } = await machineOfHost(rig)
  await instance.report(item, waiting('PROVISION', 1, 3_600_000))
  t.match(await rig.machineRow(id), { state: 'PROVISION_WAIT' })
  await letWaitEnd(rig, id)
  await rig.until(host, ({ state }) => state === 'ERROR', 'the host to say so')
  t.match(await rig.machineRow(id), { state: 'PROVISION_FAILED', waiting_until_at: null })
  const removal = await eventually(
    () => instance.claim(),
    (items) => items.length > 0,
    () => 'the removal',
  )
  const [remove] = removal
  if (remove === undefined) return
  await instance.report(remove, {
    observed: { presence: 'ABSENT' },
    completed: { operation: 'DEPROVISION', operationGeneration: 2 },
  })
  t.match(await rig.machineRow(id), { state: 'CLEANING', operation: 'CLEAN', request_id: null })
})

void t.test(
  'what a machine’s own item says in one batch with its request’s leaves alone what that has moved',
  async (t) => {
    const rig = await Rig.start(t)
    const { instance, id, host, item } = await machineOfHost(rig)
    await instance.report(item, waiting('PROVISION', 1, 3_600_000), 'keep')
    // As after maintenance: its provider is to look at it.
    await inTransaction(rig.db, (tx) => wishMachine(tx, { providerId: instance.providerId, id }, {}))
    const [own] = await instance.claim()
    t.equal(own?.id, id)
    if (own === undefined) return
    const made: ReportFacts = {
      observed: { presence: 'PRESENT', externalId: 'slot-1', attributes: { image: 'debian' } },
      completed: { operation: 'PROVISION', operationGeneration: 1 },
    }
    const seen: ReportFacts = {
      observed: { power: 'ON', conditions: [{ type: 'Seen', status: 'TRUE', reason: 'Looked', message: '' }] },
    }
    await instance.reportAll([
      [item, made],
      [own, seen],
    ])
    t.match(await rig.machineRow(id), {
      state: 'ACTIVE',
      waiting_until_at: null,
      waiting_for: '',
      attributes: { image: 'debian' },
      power: 'ON',
      conditions: [{ type: 'Seen' }],
    })
    await rig.until(host, ({ state }) => state !== 'PLACED' && state !== 'PROVISIONING', 'the host to go on')
  },
)

void t.test('while its provider is out of reach, or a person holds it, no machine is late', async (t) => {
  const rig = await Rig.start(t)
  const { instance, id } = await cleaningMachine(rig)
  const [item] = await instance.claim()
  if (item === undefined) throw new Error('nothing was claimed')
  await instance.report(item, waiting('CLEAN', 1, 3_600_000))
  await rig.db
    .updateTable('machines')
    .set({ paused_at: new Date(), hold_at: new Date() })
    .where('id', '=', id)
    .execute()
  await letWaitEnd(rig, id)
  rig.reconcile(1, { leaseMs: 4_000 })
  // Another machine's wait, which began later, is over: by then this one's was looked at, too.
  const second = await rig.machine(instance, 'slot-2', { state: 'CLEANING' })
  await inTransaction(rig.db, (tx) =>
    wishMachine(tx, { providerId: instance.providerId, id: second }, { operation: 'CLEAN' }),
  )
  const [other] = await instance.claim()
  if (other === undefined) throw new Error('nothing was claimed')
  await instance.report(other, waiting('CLEAN', 1, 3_600_000))
  await letWaitEnd(rig, second)
  await eventually(
    () => rig.machineRow(second),
    ({ state }) => state === 'CLEAN_FAILED',
    ({ state }) => `it is ${state}`,
  )
  t.match(await rig.machineRow(id), { state: 'CLEAN_WAIT' })
})
