import { pino } from 'pino'
import t, { type Test } from 'tap'
import { answer, answerIfAny, Api } from '../../src/api/client.js'
import { isApiError } from '../../src/api/errors.js'
import { listAll } from '../../src/api/paging.js'
import { Emulator, readOnlyToken, type EmulatorOptions } from './emulator.js'
import { labelMatcher } from './listing.js'
import { Actions } from '../../src/api/actions.js'

// The whole file may take longer than the runner's ordinary limit on a busy machine.
t.setTimeout(280_000)

const { signal } = new AbortController()
const waiting = { timeoutMs: 20_000, signal, urgency: 'normal' as const }
const log = pino({ level: 'silent' })
const publicKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmulatedEmulatedEmulatedEmulatedEmulatedEmul tester'

async function start(t: Test, options: EmulatorOptions = {}) {
  const emulator = await Emulator.start(options)
  t.teardown(() => emulator.close())
  const api = new Api({ endpoint: emulator.endpoint, token: emulator.token, timeoutMs: 10_000, log })
  return { emulator, api, client: api.as('normal'), actions: new Actions(api) }
}

function order(name: string, more: object = {}) {
  return { body: { name, server_type: 'cx22', image: 'debian-12', location: 'fsn1', ...more } }
}

async function refusedWith(t: Test, call: Promise<unknown>, apiCode: string): Promise<void> {
  const code = await call.then(
    () => 'not at all',
    (thrown: unknown) => (isApiError(thrown) ? thrown.apiCode : thrown),
  )
  t.equal(code, apiCode, `refused: ${apiCode}`)
}

void t.test('emulates every operation that is described', async (t) => {
  const { emulator } = await start(t)
  t.strictSame(emulator.missing, [])
})

void t.test('a server from its order to its end, with all that belongs to it', async (t) => {
  const { emulator, client, actions } = await start(t)
  const subnets = [{ type: 'cloud' as const, ip_range: '10.1.0.0/24', network_zone: 'eu-central' }]
  const { network } = await answer(
    client.POST('/networks', { body: { name: 'net', ip_range: '10.1.0.0/16', subnets } }),
  )
  const { firewall } = await answer(client.POST('/firewalls', { body: { name: 'fw', rules: [] } }))
  const { placement_group: group } = await answer(
    client.POST('/placement_groups', { body: { name: 'spread', type: 'spread' } }),
  )
  const { ssh_key: key } = await answer(client.POST('/ssh_keys', { body: { name: 'key', public_key: publicKey } }))
  const { volume, action: making } = await answer(
    client.POST('/volumes', { body: { name: 'data', size: 10, location: 'fsn1' } }),
  )
  await actions.finished([making], waiting)

  const made = await answer(
    client.POST(
      '/servers',
      order('web', {
        ssh_keys: [key.name],
        networks: [network?.id],
        firewalls: [{ firewall: firewall?.id }],
        placement_group: group.id,
        volumes: [volume.id],
        labels: { app: 'web' },
      }),
    ),
  )
  t.match(made.server, { status: 'initializing', locked: true })
  t.equal(made.root_password, null)
  await actions.finished([made.action, ...made.next_actions], waiting)
  const path = { id: made.server.id }
  const { server } = await answer(client.GET('/servers/{id}', { params: { path } }))
  t.match(server, { status: 'running', locked: false, volumes: [volume.id], private_net: [{ network: network?.id }] })

  await t.test('its power', async (t) => {
    for (const [command, status] of [
      ['poweroff', 'off'],
      ['poweron', 'running'],
      ['reboot', 'running'],
      ['reset', 'running'],
    ] as const) {
      const { action } = await answer(client.POST(`/servers/{id}/actions/${command}`, { params: { path } }))
      await actions.finished([action], waiting)
      t.match(await answer(client.GET('/servers/{id}', { params: { path } })), { server: { status } }, command)
    }
    emulator.faults.planAction('reboot_server', 'stuck')
    await answer(client.POST('/servers/{id}/actions/reboot', { params: { path } }))
    t.match(await answer(client.GET('/servers/{id}', { params: { path } })), { server: { locked: true } })
    await refusedWith(t, answer(client.POST('/servers/{id}/actions/reset', { params: { path } })), 'locked')
    emulator.project.dropActionsOf('server', path.id)
  })

  await t.test('rebuilding, rescue, backups, images, protection', async (t) => {
    const image = { params: { path }, body: { image: 'ubuntu-24.04' } }
    const { action: rebuilding } = await answer(client.POST('/servers/{id}/actions/rebuild', image))
    await actions.finished([rebuilding as never], waiting)
    t.match(await answer(client.GET('/servers/{id}', { params: { path } })), {
      server: { image: { name: 'ubuntu-24.04' } },
    })
    const { action: rescuing } = await answer(
      client.POST('/servers/{id}/actions/enable_rescue', { params: { path }, body: {} }),
    )
    await actions.finished([rescuing as never], waiting)
    const { action: backing } = await answer(client.POST('/servers/{id}/actions/enable_backup', { params: { path } }))
    await actions.finished([backing], waiting)
    const snapshot = await answer(client.POST('/servers/{id}/actions/create_image', { params: { path }, body: {} }))
    await actions.finished([snapshot.action as never], waiting)
    const both = { params: { path }, body: { delete: true, rebuild: true } }
    await actions.finished(
      [(await answer(client.POST('/servers/{id}/actions/change_protection', both))).action],
      waiting,
    )
    const { server } = await answer(client.GET('/servers/{id}', { params: { path } }))
    t.match(server, { rescue_enabled: true, backup_window: '22-02', protection: { delete: true } })
    await refusedWith(t, answer(client.DELETE('/servers/{id}', { params: { path } })), 'protected')
    const none = { params: { path }, body: { delete: false, rebuild: false } }
    await actions.finished(
      [(await answer(client.POST('/servers/{id}/actions/change_protection', none))).action],
      waiting,
    )
  })

  const { action: deleting } = await answer(client.DELETE('/servers/{id}', { params: { path } }))
  await actions.finished([deleting as never], waiting)
  t.equal(await answerIfAny(client.GET('/servers/{id}', { params: { path } })), undefined)
  t.strictSame(emulator.ledger.live('primary_ip'), [], 'its addresses went with it')
  t.equal((await answer(client.GET('/volumes/{id}', { params: { path: { id: volume.id } } }))).volume.server, null)
  t.strictSame(emulator.violations, [])
})

void t.test('refuses as the API does', async (t) => {
  const { emulator, client, api } = await start(t)
  const refused = (more: object, apiCode: string) =>
    refusedWith(t, answer(client.POST('/servers', order('x', more))), apiCode)
  await answer(client.POST('/servers', order('taken')))
  await refused({ name: 'taken' }, 'uniqueness_error')
  await refused({ name: 'not a hostname' }, 'invalid_input')
  await refused({ server_type: 'cx11' }, 'resource_unavailable')
  await refused({ server_type: 'nope' }, 'invalid_input')
  await refused({ server_type: 'cx22', location: 'ash' }, 'invalid_input')
  await refused({ image: 'nope' }, 'invalid_input')
  await refused({ ssh_keys: ['nobody'] }, 'invalid_input')
  await refused({ labels: { 'hetzner.cloud/x': 'y' } }, 'invalid_input')
  await refused({ user_data: 'x'.repeat(32 * 1024 + 1) }, 'invalid_input')
  await refused({ unknown: true }, 'invalid_input')
  emulator.faults.setCapacity('fsn1', 0)
  await refused({}, 'resource_unavailable')
  emulator.faults.limits.server_limit = 1
  await refused({ location: 'nbg1' }, 'resource_limit_exceeded')
  await refusedWith(t, answer(client.GET('/datacenters' as never)), 'deprecated_api_endpoint')
  const other = (token: string) => new Api({ endpoint: emulator.endpoint, token, timeoutMs: 1_000, log }).as('normal')
  await refusedWith(t, answer(other('wrong').GET('/servers')), 'unauthorized')
  await refusedWith(t, answer(other(readOnlyToken).POST('/servers', order('ro'))), 'token_readonly')
  t.ok(await answer(other(readOnlyToken).GET('/servers')))
  t.strictSame(emulator.violations.length, 1, 'the field that is not described')
  t.equal(api.budget.left > 0, true)
})

void t.test('faults strike as planned, and the ledger knows the truth', async (t) => {
  const { emulator, client, actions } = await start(t)
  emulator.faults.planCall('POST', /^\/servers$/, 'lost')
  await t.rejects(answer(client.POST('/servers', order('lost'))), { code: 'TIMEOUT' })
  t.equal(emulator.ledger.live('server').length, 1)
  emulator.faults.planCall('POST', /^\/servers$/, 'dropped')
  await t.rejects(answer(client.POST('/servers', order('dropped'))), { code: 'TIMEOUT' })
  t.equal(emulator.ledger.live('server').length, 1)
  emulator.faults.planCall('POST', /^\/servers$/, { status: 503, code: 'unavailable' })
  await t.rejects(answer(client.POST('/servers', order('down'))), { code: 'UNAVAILABLE' })
  emulator.faults.planAction('create_server', { code: 'server_error', message: 'broken' })
  const failing = await answer(client.POST('/servers', order('failing')))
  await t.rejects(actions.finished([failing.action, ...failing.next_actions], waiting), { code: 'UNAVAILABLE' })
  emulator.faults.planAction('create_server', 'stuck')
  const stuck = await answer(client.POST('/servers', order('stuck')))
  await t.rejects(actions.finished([stuck.action], { ...waiting, timeoutMs: 600 }), { code: 'TIMEOUT' })
  t.equal(emulator.faults.pending, 0)
})

void t.test('listings lag behind', async (t) => {
  const { emulator, client } = await start(t)
  emulator.faults.listingLagMs = 60_000
  const { server } = await answer(client.POST('/servers', order('late')))
  t.strictSame((await answer(client.GET('/servers'))).servers, [])
  t.ok(await answer(client.GET('/servers/{id}', { params: { path: { id: server.id } } })))
})

void t.test('ten thousand servers are paged, and selected by label', async (t) => {
  const { emulator, client } = await start(t)
  emulator.plant(Array.from({ length: 10_000 }, (_, index) => ({ labels: { half: String(index % 2) } })))
  let count = 0
  const read = async (query: { page: number; per_page: number }) => {
    const { servers, meta } = await answer(
      client.GET('/servers', { params: { query: { ...query, sort: ['id:asc'], label_selector: 'half=1' } } }),
    )
    return { items: servers, meta }
  }
  for await (const { labels } of listAll(read)) count += labels['half'] === '1' ? 1 : 0
  t.equal(count, 5_000)
  t.equal(emulator.ledger.calls.length, 101)
  t.strictSame(emulator.violations, [])
})

void t.test('the rate limit is kept, told, and waited for', async (t) => {
  const { emulator, client, api } = await start(t, { callsPerHour: 72_000 })
  await answer(client.GET('/servers'))
  emulator.rateLimit.drain(0)
  const startedAtMs = performance.now()
  await answer(api.as('urgent').GET('/servers'))
  t.ok(performance.now() - startedAtMs > 40, 'it waited')
  t.ok(emulator.rateLimit.refused > 0)
})

void t.test('label selectors', async (t) => {
  const labels = { env: 'production', type: 'web', 'example.com/my': 'label', bare: '' }
  const cases: readonly (readonly [string, boolean])[] = [
    ['', true],
    ['env=production', true],
    ['env==production,type!=database', true],
    ['env=testing', false],
    ['env', true],
    ['!env', false],
    ['!nothing', true],
    ['nothing', false],
    ['env in (testing, production)', true],
    ['env notin (testing,production)', false],
    ['env in (testing,staging),type', false],
    ['example.com/my=label', true],
    ['bare=', true],
    ['nothing!=x', true],
  ]
  for (const [selector, selects] of cases) t.equal(labelMatcher(selector)(labels), selects, selector)
  t.throws(() => labelMatcher('a b'), { code: 'invalid_input' })
  t.throws(() => labelMatcher('!a=b'), { code: 'invalid_input' })
})
