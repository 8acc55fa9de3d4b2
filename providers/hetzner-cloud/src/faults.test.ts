import { ProviderError } from '@slipway/sdk'
import t from 'tap'
import { collected, scene, settings } from '../testing/scene.js'
import { machineSpec } from '../testing/work.js'
import { hetznerCloudProvider } from './provider.js'

// What goes wrong out there, and what it costs to look.

t.setTimeout(280_000)

void t.test('a create whose answer is lost is found by the next try, also before any listing shows it', async (t) => {
  const { emulator, provider, work } = await scene(t)
  emulator.faults.listingLagMs = 150
  emulator.faults.planCall('POST', /^\/servers$/, 'lost')
  const item = work()
  const spec = machineSpec('a')
  await t.rejects(provider.create(item.context(), spec), { code: 'TIMEOUT' })
  item.attempt = 2
  const made = await provider.create(item.context(), spec)
  t.equal(emulator.ledger.created('server').length, 1)
  t.equal(String(emulator.ledger.live('server')[0]?.id), made.externalId)
  t.equal(emulator.faults.pending, 0)
})

void t.test('a volume whose answer is lost is found, and attached', async (t) => {
  const { emulator, provider, work } = await scene(t)
  emulator.faults.planCall('POST', /^\/volumes$/, 'lost')
  emulator.faults.planAction('attach_volume', { code: 'server_error', message: 'broken' })
  const item = work()
  const spec = machineSpec('a', { volumes: [{ sizeGib: 10, automount: false }] })
  await t.rejects(provider.create(item.context(), spec), { code: 'TIMEOUT' })
  item.attempt = 2
  const { externalId } = await provider.create(item.context(), spec)
  t.equal(emulator.ledger.created('volume').length, 1)
  t.equal(emulator.project.servers.get(Number(externalId))?.view.volumes?.length, 1)
  await provider.delete(item.context(), { externalId, ownershipKey: spec.ownershipKey, name: spec.name })
  t.strictSame(emulator.ledger.live(), [])
})

void t.test('what somebody else has is left alone', async (t) => {
  const { emulator, provider, work } = await scene(t)
  const [foreign] = emulator.plant([{ name: 'a', labels: { 'slipway/hub': 'other', 'slipway/request': 'a' } }])
  const item = work()
  const spec = machineSpec('a')
  await t.rejects(provider.create(item.context(), spec), { code: 'CONFLICT', retryable: false })
  await provider.delete(item.context(), { ownershipKey: spec.ownershipKey, name: 'a' })
  await provider.delete(item.context(), { externalId: String(foreign), ownershipKey: spec.ownershipKey, name: 'a' })
  t.equal(emulator.ledger.live('server').length, 1)
  emulator.plant([{ name: 'unlabelled' }, { name: 'half', labels: { 'slipway/hub': 'hub' } }])
  t.match(await collected(provider.list(item.context())), [{ ownershipKey: 'other/a' }])
})

void t.test('refusals and failed actions are told by their kind', async (t) => {
  const { emulator, provider, work } = await scene(t)
  const { faults } = emulator
  const outcome = async (name: string) =>
    provider.create(work().context(), machineSpec(name)).then(
      () => 'made',
      (thrown: unknown) =>
        thrown instanceof ProviderError ? `${thrown.code} ${thrown.externalCode} ${thrown.retryable}` : thrown,
    )
  faults.setCapacity('fsn1', 0)
  t.equal(await outcome('full'), 'CAPACITY resource_unavailable false')
  faults.setCapacity('fsn1', 1_000)
  for (const [code, status, expected] of [
    ['placement_error', 422, 'CAPACITY placement_error false'],
    ['resource_limit_exceeded', 403, 'QUOTA resource_limit_exceeded false'],
    ['forbidden', 403, 'CREDENTIALS forbidden true'],
    ['maintenance', 403, 'UNAVAILABLE maintenance true'],
    ['invalid_input', 422, 'INVALID_SPEC invalid_input false'],
    ['server_error', 500, 'UNAVAILABLE server_error true'],
    ['locked', 423, 'CONFLICT locked true'],
  ] as const) {
    faults.planCall('POST', /^\/servers$/, { status, code })
    t.equal(await outcome(code.replace('_', '-')), expected, code)
  }
  faults.limits.primary_ip_limit = 1
  t.equal(await outcome('no-addresses'), 'QUOTA resource_limit_exceeded false')
  faults.limits.primary_ip_limit = 1_000
  faults.planAction('create_server', { code: 'resource_unavailable', message: 'none left' })
  t.equal(await outcome('late-capacity'), 'CAPACITY resource_unavailable false')
  faults.planAction('create_server', { code: 'action_failed', message: 'broken' })
  t.equal(await outcome('broken'), 'INTERNAL action_failed false')
  faults.planAction('start_server', { code: 'action_failed', message: 'would not start' })
  t.equal(await outcome('slow-starter'), 'made', 'a start that failed is tried again')
  t.equal(faults.pending, 0)
})

void t.test('a creation that is stuck times out, and goes on when it is asked for again', async (t) => {
  const { emulator, provider, work } = await scene(t, { config: { actionTimeoutMs: 700 } })
  emulator.faults.planAction('create_server', 'stuck')
  const item = work()
  await t.rejects(provider.create(item.context(), machineSpec('a')), { code: 'TIMEOUT' })
  const [server] = emulator.ledger.live('server')
  await t.rejects(
    provider.delete(item.context(), { externalId: String(server?.id), ownershipKey: 'hub/a', name: 'a' }),
    { code: 'CONFLICT', externalCode: 'locked' },
    'a delete waits for the lock, and is tried again later',
  )
  emulator.project.dropActionsOf('server', server?.id ?? 0)
  await provider.delete(item.context(), { externalId: String(server?.id), ownershipKey: 'hub/a', name: 'a' })
  t.strictSame(emulator.ledger.live(), [])
})

void t.test('addresses that the API leaves behind are deleted', async (t) => {
  const { emulator, provider, work } = await scene(t)
  const item = work()
  const made = await provider.create(item.context(), machineSpec('a'))
  item.last = { externalId: made.externalId, ...(made.attributes !== undefined && { attributes: made.attributes }) }
  const kept = [...emulator.project.primaryIps.values()]
  emulator.vanish(Number(made.externalId))
  for (const ip of kept) emulator.project.add('primary_ip', emulator.project.primaryIps, { ...ip, assignee_id: null })
  await provider.delete(item.context(), { externalId: made.externalId, ownershipKey: 'hub/a', name: 'a' })
  t.strictSame(emulator.ledger.live(), [])
})

void t.test('a volume that outlived its server is listed, and deleted by its key', async (t) => {
  const { emulator, provider, work, owned } = await scene(t)
  const spec = machineSpec('a', { volumes: [{ sizeGib: 10, automount: false }] })
  const { externalId } = await provider.create(work().context(), spec)
  emulator.vanish(Number(externalId))
  t.match(await owned(), [{ kind: 'volume', ownershipKey: 'hub/a' }])
  await provider.delete(work().context(), { ownershipKey: 'hub/a', name: 'a-1' })
  t.strictSame(emulator.ledger.live(), [])
})

void t.test('a token that is revoked in flight ends the attempt at once', async (t) => {
  const { emulator, provider, work } = await scene(t, {
    emulator: { durations: { create: 60_000 } },
    config: { actionTimeoutMs: 50_000 },
  })
  const item = work()
  const making = provider.create(item.context(), machineSpec('a'))
  while (item.reports.length === 0) await new Promise((resolve) => setTimeout(resolve, 10))
  emulator.tokens.clear()
  await t.rejects(making, { code: 'CREDENTIALS', retryable: true })
})

void t.test('fifty servers at once cost few calls each, and a fleet is listed in pages', async (t) => {
  const { emulator, provider, work } = await scene(t, { emulator: { durations: { create: 1_500, start: 500 } } })
  const settled = work()
  await provider.validate?.(settled.context(), machineSpec('m'))
  const before = emulator.ledger.calls.length
  await Promise.all(
    Array.from({ length: 50 }, async (_, index) => provider.create(work().context(), machineSpec(`m-${index}`))),
  )
  const calls = emulator.ledger.calls.slice(before)
  const polls = calls.filter(({ path }) => path === '/actions').length
  t.ok(calls.length <= 50 * 4, `${calls.length} calls, ${polls} of them for the actions of all`)
  t.ok(polls < 50, 'actions are asked for together')
  const listed = emulator.ledger.calls.length
  t.equal((await collected(provider.list(settled.context()))).length, 50)
  t.equal(emulator.ledger.calls.length - listed, 2)
})

void t.test('two processes share the budget of a project without knowing of one another', async (t) => {
  // Two calls a second come back.
  const one = await scene(t, { emulator: { callsPerHour: 7_200 } })
  const { emulator } = one
  const other = hetznerCloudProvider(settings)
  const made = await one.provider.create(one.work().context(), machineSpec('a'))
  emulator.plant(Array.from({ length: 500 }, () => ({ labels: { 'slipway/hub': 'hub', 'slipway/request': 'x' } })))
  const another = one.work().context()
  await other.observe(another, made.externalId)
  // A little above what looking around must leave to the others, for which it has to wait then.
  emulator.rateLimit.drain(7_200 * 0.2 + 6)
  const listings = [one.provider, other].map(async (provider) => collected(provider.list(another)))
  await one.provider.power?.(one.work().context(), made.externalId, 'off')
  const atPower = emulator.ledger.calls.filter(({ path }) => path === '/servers').length
  t.ok(atPower < 22, `power was switched while ${atPower} of 22 pages were read`)
  for (const listing of listings) t.equal((await listing).length, 501)
  t.equal(emulator.rateLimit.refused, 0, 'neither was ever refused')
})
