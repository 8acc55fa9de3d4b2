import { sql } from 'kysely'
import pino from 'pino'
import t from 'tap'
import { parseToken, secretMatches } from '../auth/tokens.js'
import { hostConditionTypes } from '../domain/host/conditions.js'
import type { ClassBootstrap } from '../domain/host/host.js'
import type { Failure } from '../domain/facts.js'
import { eventually, euros, organizationId, Rig, type FakeInstance } from '../../testing/reconcile-rig.js'
import { inTransaction } from '../store/database.js'
import { finishHosts, nextDueInMs, scheduleHost, takeDueHosts } from '../store/host-schedule.js'
import type { ClaimedItem } from '../store/work-items.js'
import { startLoop } from './loop.js'

const bootstrap: ClassBootstrap = {
  phoneHome: false,
  phoneHomeTimeoutMs: 900_000,
  provisionTimeoutMs: 3_600_000,
  userData: '',
}
const capacity: Failure = {
  code: 'CAPACITY',
  message: 'no more small in fsn1',
  retryable: false,
  externalCode: 'resource_unavailable',
  step: 'create-server',
}
const anyMachine = { labelSelector: '', provider: '', providerData: {} }

/** Does what is asked for: makes machines, removes them, and finishes machines' own work. */
async function obey(instance: FakeInstance, rig: Rig, items: readonly ClaimedItem[]): Promise<void> {
  for (const item of items) {
    const request = await rig.db.selectFrom('machine_requests').selectAll().where('id', '=', item.id).executeTakeFirst()
    if (request !== undefined) {
      const presence = request.operation === 'PROVISION' ? 'PRESENT' : 'ABSENT'
      await instance.report(item, {
        observed: {
          generation: item.generation,
          presence,
          ...(presence === 'PRESENT' && { externalId: `srv-${request.name}`, power: 'ON' }),
        },
        completed: { operation: request.operation, operationGeneration: request.operation_generation },
      })
      continue
    }
    const machine = await rig.machineRow(item.id)
    await instance.report(item, {
      observed: { generation: item.generation },
      ...(machine.operation !== null && {
        completed: { operation: machine.operation, operationGeneration: machine.operation_generation },
      }),
    })
  }
}

/** Claims until there is something. */
async function claimed(instance: FakeInstance): Promise<ClaimedItem> {
  const items = await eventually(
    () => instance.claim(),
    (found) => found.length > 0,
    () => 'an item to claim',
  )
  const [item] = items
  if (item === undefined || items.length > 1) throw new Error(`${items.length} items were claimed`)
  return item
}

void t.test('a host on a cloud: ordered, placed, made, phoned home, released', async (t) => {
  const rig = await Rig.start(t)
  const cloud = await rig.provider('cloud', {
    offerings: [{ price: euros(5_100) }, { typeId: 'large', price: euros(9_000) }],
  })
  rig.reconcile()
  const offering = {
    family: 'simulated',
    provider: '',
    typeId: '',
    locations: [],
    providerData: { image: 'debian-12', network: 'a' },
  }
  const id = await rig.order('web-1', {
    spec: { offerings: [offering], bootstrap: { ...bootstrap, phoneHome: true, userData: 'not this one' } },
    userData: 'name: {{hostname}}\nurl: {{phone_home_url}}',
    providerData: { network: 'b' },
  })
  const placed = await rig.until(id, (host) => host.state === 'PLACED', 'PLACED')
  t.match(placed, {
    provider_name: 'cloud',
    price: { hourlyMicros: 5_100 },
    state_message: 'Waiting for an instance of provider cloud to take it up',
  })
  const [request] = await rig.requests(id)
  if (request === undefined) throw new Error('there is no request')
  t.match(request, {
    id: placed.request_id,
    name: placed.request_name,
    state: 'PENDING',
    type_id: 'small',
    location: 'fsn1',
    ownership_key: `${rig.hubId}/${request.id}`,
    host_name: 'workspaces/default/hosts/web-1',
    spec: { hostname: 'web-1.example', phoneHome: true, providerData: { image: 'debian-12', network: 'b' } },
  })
  const secrets = await rig.db
    .selectFrom('machine_request_secrets')
    .selectAll()
    .where('request_id', '=', request.id)
    .executeTakeFirstOrThrow()
  const token = rig.keyring.open('request.phone-home', request.id, secrets.phone_home_token_sealed).toString()
  t.ok(
    secretMatches(parseToken('phone-home', token)?.secret ?? '', secrets.phone_home_token_hash),
    'its token is known by its hash',
  )
  t.equal(
    rig.keyring.open('request.user-data', request.id, secrets.user_data_sealed).toString(),
    `name: web-1.example\nurl: https://hub.example/phone-home/${token}`,
  )
  const item = await claimed(cloud)
  await rig.until(id, (host) => host.state === 'PROVISIONING', 'PROVISIONING')
  await cloud.report(
    item,
    { progress: { step: 'create-server', message: 'Creating the server' }, observed: { externalId: 'srv-1' } },
    'keep',
  )
  const making = await rig.until(id, (host) => host.state_message === 'Creating the server', 'progress')
  t.equal(making.conditions.filter((condition) => condition.status === 'TRUE').length, 3, 'it is created')
  t.ok(making.machine_id, 'and its machine is known')
  await obey(cloud, rig, [item])
  const booting = await rig.until(id, (host) => host.state === 'BOOTSTRAPPING', 'BOOTSTRAPPING')
  t.equal(booting.power, 'ON')
  const { first } = await inTransaction(rig.db, async (tx) => {
    await sql`select from hosts where id = ${id} for update`.execute(tx)
    const heard = rig.phoneHome(token)
    await eventually(
      async () => (await sql`select from pg_locks where not granted`.execute(rig.db)).rows.length,
      (waiting) => waiting > 0,
      () => 'what is told of a host comes in one order: its phone-home has to wait',
    )
    return { first: heard }
  })
  t.equal(await first, true)
  t.equal(await rig.phoneHome(token), false, 'it may be said again')
  const ready = await rig.until(id, (host) => host.state === 'READY', 'READY')
  t.strictSame(
    ready.conditions.map((condition) => [condition.type, condition.status]),
    hostConditionTypes.map((type) => [type, 'TRUE']),
  )
  t.ok(ready.phone_home_at && ready.ready_at)
  await eventually(
    () => nextDueInMs(rig.db),
    (dueInMs) => dueInMs === null,
    (dueInMs) => `nothing scheduled for a host at rest, but it is due in ${dueInMs} ms`,
  )

  await rig.ask(id, 'RELEASING')
  const removal = await claimed(cloud)
  await rig.until(
    id,
    (host) => host.state_message === 'Provider cloud is removing its machine',
    'the stage of the release',
  )
  await obey(cloud, rig, [removal])
  const released = await rig.until(id, (host) => host.state === 'RELEASED', 'RELEASED')
  t.match(released, { machine_id: null, last_error: null })
  t.ok(released.released_at)
  t.strictSame(
    await rig.db.selectFrom('machine_request_secrets').selectAll().execute(),
    [],
    'its secrets are forgotten',
  )
  t.strictSame(await rig.db.selectFrom('host_secrets').selectAll().execute(), [])
  const hostReasons = [
    'HostPlaced',
    'RequestCreated',
    'RequestClaimed',
    'HostProvisioning',
    'RequestProvisioned',
    'HostBootstrapping',
    'PhonedHome',
    'HostReady',
    'RequestDeprovisioning',
    'RequestGone',
    'HostReleased',
  ]
  t.strictSame(await rig.reasons('workspaces/default/hosts/web-1'), hostReasons)
})

void t.test('no place: told once for each reason, and placed as soon as there is one', async (t) => {
  const rig = await Rig.start(t)
  rig.reconcile()
  const id = await rig.order('web-1')
  const alone = await rig.until(id, (host) => host.state_message !== '', 'a reason')
  t.match(alone, { state: 'ORDERED', state_message: /no provider offers its class/ })
  const cloud = await rig.provider('cloud', { offerings: [{ available: false }] })
  await rig.until(id, (host) => host.conditions[1]?.reason === 'OfferingUnavailable', 'another reason')
  await rig.db.updateTable('offerings').set({ available: true }).where('provider_id', '=', cloud.providerId).execute()
  await rig.until(id, (host) => host.state === 'PLACED', 'PLACED')
  t.strictSame(
    (await rig.reasons('workspaces/default/hosts/web-1')).filter((reason) => reason === 'HostWaiting').length,
    2,
  )
})

void t.test('a place that has none: the next best one, once the first is proven gone', async (t) => {
  const rig = await Rig.start(t)
  const cheap = await rig.provider('cheap', { offerings: [{ price: euros(1) }] })
  const dear = await rig.provider('dear', { offerings: [{ price: euros(2) }] })
  rig.reconcile()
  const id = await rig.order('web-1')
  const item = await claimed(cheap)
  await cheap.report(item, { failure: capacity })
  const waiting = await rig.until(id, (host) => host.attempts.length === 1, 'an attempt')
  t.ok(['PLACED', 'PROVISIONING'].includes(waiting.state))
  t.match(waiting, { last_error: { code: 'CAPACITY', externalCode: 'resource_unavailable' } })
  t.equal((await rig.requests(id)).length, 1, 'nothing is begun while something may be left')
  await obey(cheap, rig, [await claimed(cheap)])
  await obey(dear, rig, [await claimed(dear)])
  const ready = await rig.until(id, (host) => host.state === 'READY', 'READY')
  t.match(ready, {
    provider_name: 'dear',
    last_error: null,
    attempts: [{ provider: 'cheap', typeId: 'small', error: { code: 'CAPACITY' } }],
  })
  const reasons = (await rig.reasons('workspaces/default/hosts/web-1')).filter(
    (reason) => reason !== 'HostProvisioning',
  )
  const first = [
    'HostPlaced',
    'RequestCreated',
    'RequestClaimed',
    'RequestFailed',
    'RequestDeprovisioning',
    'RequestGone',
  ]
  const second = ['HostPlaced', 'RequestCreated', 'RequestClaimed', 'RequestProvisioned', 'HostReady']
  t.strictSame(reasons, [...first, 'HostReplaced', ...second])
})

void t.test('what waiting cannot cure: ERROR, and a retry goes from the start once nothing is left', async (t) => {
  const rig = await Rig.start(t)
  const cloud = await rig.provider('cloud')
  rig.reconcile()
  const id = await rig.order('web-1')
  await cloud.report(await claimed(cloud), { failure: { ...capacity, code: 'INVALID_SPEC', message: 'no such image' } })
  const failed = await rig.until(id, (host) => host.state === 'ERROR', 'ERROR')
  t.match(failed, {
    state_message: 'INVALID_SPEC in step create-server: no such image',
    last_error: { code: 'INVALID_SPEC' },
  })
  await rig.ask(id, 'ORDERED')
  await rig.until(id, (host) => host.state_message.startsWith('Placed again once'), 'the retry waits')
  t.equal((await rig.requests(id)).length, 1)
  await obey(cloud, rig, [await claimed(cloud)])
  await rig.until(id, (host) => host.state === 'PLACED', 'placed again')
  await obey(cloud, rig, [await claimed(cloud)])
  const ready = await rig.until(id, (host) => host.state === 'READY', 'READY')
  t.equal(ready.attempts.length, 1, 'what went wrong before is kept')
})

void t.test('release: before anyone has claimed, and in the midst of provisioning', async (t) => {
  const rig = await Rig.start(t)
  const rack = await rig.provider('rack', { kind: 'STATIC', family: 'metal' })
  const machineId = await rig.machine(rack, 'node-1')
  rig.reconcile()
  const early = await rig.order('early', { spec: { offerings: [], machineSelector: anyMachine } })
  await rig.until(early, (host) => host.state === 'PLACED', 'PLACED')
  t.match(await rig.machineRow(machineId), {
    state: 'PROVISIONING',
    host_id: early,
    host_name: 'workspaces/default/hosts/early',
  })
  await rig.ask(early, 'RELEASING')
  await rig.until(early, (host) => host.state === 'RELEASED', 'RELEASED')
  t.match(
    await rig.machineRow(machineId),
    { state: 'AVAILABLE', host_id: null, request_id: null },
    'nobody had touched it: it needs no wipe',
  )
  t.match(await rig.requests(early), [{ state: 'GONE', presence: 'ABSENT' }])
  t.strictSame(await rack.claim(), [], 'and there is nothing to be done')

  const late = await rig.order('late', { spec: { offerings: [], machineSelector: anyMachine } })
  const making = await claimed(rack)
  await rig.until(late, (host) => host.state === 'PROVISIONING', 'PROVISIONING')
  await rig.ask(late, 'RELEASING')
  const changed = await claimed(rack)
  t.equal(changed.id, making.id, 'its holder is told')
  t.ok(changed.generation > making.generation)
  await obey(rack, rig, [changed])
  await rig.until(late, (host) => host.state === 'RELEASED', 'RELEASED')
  t.match(
    await rig.machineRow(machineId),
    { state: 'CLEANING', operation: 'CLEAN', host_id: null },
    'what was touched is wiped',
  )
  await obey(rack, rig, [await claimed(rack)])
  await eventually(
    () => rig.machineRow(machineId),
    (machine) => machine.state === 'AVAILABLE',
    (machine) => `AVAILABLE, but it is ${machine.state}`,
  )
  await obey(rack, rig, await rack.claim())
  const next = await rig.order('next', { spec: { offerings: [], machineSelector: anyMachine } })
  await rig.until(next, (host) => host.state === 'PLACED' && host.machine_id === machineId, 'the next host on it')
})

void t.test('a machine that stays silent is replaced twice; then it is over', async (t) => {
  const rig = await Rig.start(t)
  const cloud = await rig.provider('cloud')
  rig.reconcile()
  const id = await rig.order('web-1', {
    spec: { bootstrap: { ...bootstrap, phoneHome: true, phoneHomeTimeoutMs: 30 } },
  })
  for (const round of [1, 2, 3]) {
    await obey(cloud, rig, [await claimed(cloud)])
    await rig.until(id, (host) => host.attempts.length === round, `attempt ${round} is over`)
    if (round < 3) t.equal((await rig.host(id)).state, 'BOOTSTRAPPING', 'it is not in ERROR while there is hope')
    await obey(cloud, rig, [await claimed(cloud)])
  }
  const failed = await rig.until(id, (host) => host.state === 'ERROR', 'ERROR')
  t.match(failed.last_error, { code: 'TIMEOUT', step: 'phone-home', message: /did not phone home within 0.03 s/ })
  t.equal((await rig.requests(id)).length, 3)
  t.equal((await rig.reasons('workspaces/default/hosts/web-1')).filter((reason) => reason === 'HostReplaced').length, 2)
})

void t.test('while its provider is out of reach no deadline fires', async (t) => {
  const rig = await Rig.start(t)
  const cloud = await rig.provider('cloud')
  rig.reconcile()
  const id = await rig.order('web-1', {
    spec: { bootstrap: { ...bootstrap, provisionTimeoutMs: 1 } },
    placement: { maxHourlyMicros: 10_000 },
  })
  const failed = await rig.until(id, (host) => host.state === 'ERROR', 'ERROR')
  t.match(failed, { last_error: { code: 'TIMEOUT' }, attempts: [{ final: true }] })
  t.match(
    await rig.requests(id),
    [{ state: 'GONE', last_error: { code: 'TIMEOUT' } }],
    'nobody had claimed it: it is gone at once',
  )

  const other = await rig.order('web-2', { spec: { bootstrap: { ...bootstrap, provisionTimeoutMs: 1_000 } } })
  await claimed(cloud)
  await rig.db
    .updateTable('sessions')
    .set({ expires_at: new Date(0) })
    .execute()
  await rig.until(other, (host) => host.state_message.includes('out of reach'), 'the silence is seen')
  t.match(await rig.host(other), { state: 'PROVISIONING', last_error: null })
})

void t.test(
  'sessions that run out: their work is free, and their provider is out of reach until one is back',
  async (t) => {
    const rig = await Rig.start(t)
    const cloud = await rig.provider('cloud')
    rig.reconcile()
    await rig.order('web-1')
    const item = await claimed(cloud)
    await rig.db
      .updateTable('sessions')
      .set({ expires_at: new Date(Date.now() - 1) })
      .where('id', '=', cloud.sessionId)
      .execute()
    const provider = () =>
      rig.db.selectFrom('providers').selectAll().where('id', '=', cloud.providerId).executeTakeFirstOrThrow()
    const state = (wanted: string) =>
      eventually(
        provider,
        (row) => row.state === wanted,
        (row) => `${wanted}, but it is ${row.state}`,
      )
    await state('DISCONNECTED')
    const free = await rig.db.selectFrom('work_items').selectAll().where('id', '=', item.id).executeTakeFirstOrThrow()
    t.match(free, { session_id: null, fence: item.fence })
    t.ok(free.due_at)
    t.match(await rig.db.selectFrom('sessions').selectAll().execute(), [{ end_reason: 'expired' }])
    await rig.session(cloud.providerId, organizationId)
    await state('CONNECTED')
    t.strictSame(
      await rig.reasons('providers/cloud').then((all) => all.filter((reason) => reason.startsWith('Provider'))),
      ['ProviderDisconnected', 'ProviderConnected'],
    )
  },
)

void t.test('eight reconcilers on one database: everything is placed once', async (t) => {
  const rig = await Rig.start(t)
  const cloud = await rig.provider('cloud', {
    offerings: [
      { typeId: 'few', price: euros(1), remaining: 7 },
      { typeId: 'many', price: euros(2) },
    ],
  })
  const rack = await rig.provider('rack', { kind: 'STATIC', family: 'metal' })
  const machines = 25
  for (let number = 0; number < machines; number++) await rig.machine(rack, `node-${number}`)
  const dynamic: string[] = []
  const fixed: string[] = []
  for (let number = 0; number < 60; number++) dynamic.push(await rig.order(`cloud-${number}`))
  for (let number = 0; number < machines + 5; number++) {
    fixed.push(await rig.order(`metal-${number}`, { spec: { offerings: [], machineSelector: anyMachine } }))
  }
  rig.reconcile(8)
  for (let round = 0; round < 30; round++) rig.wake.signal({ kind: 'host' })
  const count = (states: readonly string[]) =>
    rig.db
      .selectFrom('hosts')
      .select((select) => select.fn.countAll<number>().as('count'))
      .where('state', 'in', states as 'PLACED'[])
      .executeTakeFirstOrThrow()
  await eventually(
    () => count(['PLACED']),
    (row) => row.count === dynamic.length + machines,
    (row) => `all hosts placed, but only ${row.count} are`,
  )
  await eventually(
    () => rig.db.selectFrom('hosts').select('state_message').where('state', '=', 'ORDERED').execute(),
    (rows) => rows.length === 5 && rows.every((row) => row.state_message.startsWith('No place for it now: rack')),
    (rows) => JSON.stringify(rows),
  )
  const requests = await rig.db.selectFrom('machine_requests').selectAll().execute()
  t.equal(requests.length, dynamic.length + machines)
  t.equal(new Set(requests.map((request) => request.host_id)).size, requests.length, 'each host once')
  const allocated = await rig.db.selectFrom('machines').selectAll().execute()
  t.equal(new Set(allocated.map((machine) => machine.request_id)).size, machines, 'each machine once')
  for (const machine of allocated) {
    const request = requests.find((row) => row.id === machine.request_id)
    t.match(machine, { state: 'PROVISIONING', host_id: request?.host_id, id: request?.machine_id })
  }
  const few = requests.filter((request) => request.type_id === 'few').length
  t.ok(few >= 7, `${few} of the type of which there were 7`)
  t.equal((await rig.db.selectFrom('work_items').selectAll().execute()).length, requests.length)
  t.equal(
    (await rig.db.selectFrom('events').selectAll().where('reason', '=', 'HostPlaced').execute()).length,
    requests.length,
  )

  // And all the way, with a release of half of them thrown in at whatever stage they are.
  for (const id of [...dynamic, ...fixed].filter((_, index) => index % 2 === 0)) await rig.ask(id, 'RELEASING')
  await eventually(
    async () => {
      await obey(cloud, rig, await cloud.claim())
      await obey(rack, rig, await rack.claim())
      return (await count(['READY', 'RELEASED'])).count
    },
    (rested) => rested === dynamic.length + fixed.length,
    (rested) => `all at rest, but only ${rested} are`,
  )
  t.match(
    await rig.db.selectFrom('machine_requests').selectAll().where('state', 'not in', ['PROVISIONED', 'GONE']).execute(),
    [],
  )
})

void t.test('a host that cannot be dealt with delays no other', async (t) => {
  const rig = await Rig.start(t)
  const cloud = await rig.provider('cloud')
  const poisoned = await rig.order('poisoned', {
    spec: { offerings: [], machineSelector: { ...anyMachine, labelSelector: 'a in (' } },
  })
  const well = await rig.order('well')
  rig.reconcile()
  await rig.until(well, (host) => host.state === 'PLACED', 'the other one is placed')
  const aside = await rig.until(poisoned, (host) => (host.last_error?.attempts ?? 0) >= 2, 'tried again')
  t.match(aside, { state: 'ORDERED', last_error: { code: 'INTERNAL', retryable: true } })
  t.notMatch(JSON.stringify(aside.last_error), 'a in (', 'its insides are for the log')
  await rig.ask(poisoned, 'RELEASING')
  await rig.until(poisoned, (host) => host.state === 'RELEASED', 'it can still be released')
  t.equal((await cloud.claim()).length, 1)
})

void t.test('what nobody would look at again is found', async (t) => {
  const rig = await Rig.start(t)
  const rack = await rig.provider('rack', { kind: 'STATIC', family: 'metal' })
  const cloud = await rig.provider('cloud')
  const lostMachine = await rig.machine(rack, 'node-1', { state: 'CLEANING' })
  const lostHost = await rig.order('web-1')
  await rig.db.deleteFrom('host_schedule').execute()
  rig.reconcile()
  await rig.until(lostHost, (host) => host.state === 'PLACED', 'a host that was not scheduled')
  const cleaning = await claimed(rack)
  t.equal(cleaning.id, lostMachine, 'a machine without work')
  t.match(await rig.machineRow(lostMachine), { state: 'CLEANING', operation: 'CLEAN' })
  await rig.db.updateTable('work_items').set({ due_at: null }).where('provider_id', '=', cloud.providerId).execute()
  await obey(cloud, rig, [await claimed(cloud)])
  await rig.until(lostHost, (host) => host.state === 'READY', 'READY, though its work was lost for a while')
})

void t.test('hosts whose machine vanished, and came back', async (t) => {
  const rig = await Rig.start(t)
  const cloud = await rig.provider('cloud')
  rig.reconcile()
  const id = await rig.order('web-1')
  await obey(cloud, rig, [await claimed(cloud)])
  await rig.until(id, (host) => host.state === 'READY', 'READY')
  const see = async (presence: 'PRESENT' | 'ABSENT') => {
    await inTransaction(rig.db, async (tx) => {
      await tx.updateTable('machine_requests').set({ presence }).where('host_id', '=', id).execute()
      await scheduleHost(tx, { organizationId, hostId: id })
    })
    rig.wake.signal({ kind: 'host' })
  }
  await see('ABSENT')
  const lost = await rig.until(id, (host) => host.state === 'ERROR', 'ERROR')
  t.match(lost.state_message, 'vanished outside of Slipway')
  await see('PRESENT')
  await rig.until(id, (host) => host.state === 'READY', 'READY again')
})

void t.test('the schedule: what happens while a host is looked at is not forgotten', async (t) => {
  const rig = await Rig.start(t)
  const id = await rig.order('web-1')
  const key = { organizationId, hostId: id }
  const [taken] = await takeDueHosts(rig.db, 10, 60_000)
  if (taken === undefined) throw new Error('nothing was taken')
  t.strictSame(await takeDueHosts(rig.db, 10, 60_000), [], 'it is taken once')
  await inTransaction(rig.db, (tx) => scheduleHost(tx, key, new Date(Date.now() + 120_000)))
  await inTransaction(rig.db, (tx) => scheduleHost(tx, key))
  await inTransaction(rig.db, (tx) => finishHosts(tx, [{ ...taken, inMs: null }]))
  const [again] = await takeDueHosts(rig.db, 10, 0)
  t.equal(again?.hostId, id, 'it is due again')
  const [third] = await takeDueHosts(rig.db, 10, 60_000)
  t.equal(third?.hostId, id, 'and so it is where whoever took it dies')
  if (third === undefined) return
  await inTransaction(rig.db, (tx) => finishHosts(tx, [{ ...third, inMs: 5_000 }]))
  const dueInMs = await nextDueInMs(rig.db)
  t.ok(dueInMs !== null && dueInMs > 1_000 && dueInMs <= 5_000, `due in ${dueInMs} ms`)
  await sql`update host_schedule set due_at = clock_timestamp()`.execute(rig.db)
  const [last] = await takeDueHosts(rig.db, 10, 60_000)
  if (last !== undefined) await inTransaction(rig.db, (tx) => finishHosts(tx, [{ ...last, inMs: null }]))
  t.equal(await nextDueInMs(rig.db), null, 'and at rest it is not scheduled at all')
})

void t.test('a loop: no wake-up is lost, trouble is survived, and stopping waits', async (t) => {
  const log = pino({ level: 'silent' })
  let rounds = 0
  let finished = 0
  const gates: (() => void)[] = []
  const loop = startLoop(log, 'a test', async () => {
    rounds++
    await new Promise<void>((resolve) => gates.push(resolve))
    finished++
    if (rounds === 2) throw new Error('trouble')
    return 3_600_000
  })
  const round = (number: number) =>
    eventually(
      async () => gates.length,
      (length) => length === number,
      (length) => `round ${number}, but there were ${length}`,
    )
  await round(1)
  loop.wake()
  gates[0]?.()
  await round(2)
  gates[1]?.()
  await eventually(
    async () => finished,
    (count) => count === 2,
    () => 'the trouble',
  )
  loop.wake()
  await round(3)
  let stopped = false
  const stopping = loop.stop().then(() => (stopped = true))
  await new Promise((resolve) => setImmediate(resolve))
  t.notOk(stopped, 'what runs is waited for')
  gates[2]?.()
  await stopping
  t.equal(rounds, 3, 'and nothing is begun after')
})
