import { connect } from 'node:net'
import { withHub, type TestHub } from '@slipway/hub/testing'
import { createSlipwayClient, follow, SlipwayError, type SlipwayClient } from '@slipway/sdk/client'
import t, { type Test } from 'tap'

// The client API of a whole hub: bad input, generic clients, pages, watches.

const parent = 'workspaces/default'

/** What a call was refused with. */
async function refusal(call: Promise<unknown>): Promise<SlipwayError> {
  try {
    await call
  } catch (error) {
    if (error instanceof SlipwayError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

async function start(t: Test): Promise<{ readonly test: TestHub; readonly client: SlipwayClient }> {
  const test = await withHub(t)
  return { test, client: createSlipwayClient({ baseUrl: test.hub.apiUrl, token: test.token }) }
}

async function json(test: TestHub, method: string, body: string, token = test.token) {
  const response = await fetch(`${test.hub.apiUrl}/slipway.hub.v1.${method}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body,
  })
  return { status: response.status, body: (await response.json()) as Record<string, unknown> }
}

/** A provider with an offering, as an instance would have told of it. */
async function offered(test: TestHub, client: SlipwayClient): Promise<void> {
  const { db } = test.database
  await client.providers.createProvider({ providerId: 'cloud', provider: { family: 'simulated', kind: 2 } })
  const schema = JSON.stringify({ type: 'object', properties: { image: { type: 'string' } } })
  await db.updateTable('providers').set({ state: 'CONNECTED', data_schema: schema }).execute()
  const { id } = await db.selectFrom('providers').select('id').executeTakeFirstOrThrow()
  const shape = { vcpus: 2, memoryMib: 4096, diskGib: 40, diskClass: '', architecture: 'amd64' }
  await db
    .insertInto('offerings')
    .values({
      ...{ provider_id: id, type_id: 'small', location: 'a', shape: JSON.stringify(shape) },
      ...{ price: null, available: true, remaining: null, held_until: null, held_reason: null },
    })
    .execute()
  await client.machineClasses.createMachineClass({
    machineClassId: 'small',
    machineClass: { shape: { vcpus: 1 }, offerings: [{ family: 'simulated', typeId: 'small' }] },
  })
}

void t.test('bad input gets its own status, and stores nothing', async (t) => {
  const { test, client } = await start(t)
  const order = (hostId: string, host: object, more: object = {}) =>
    client.hosts.createHost({ parent, hostId, host, ...more })
  const refused = async (call: Promise<unknown>, wanted: object) => t.match(await refusal(call), wanted)

  await refused(order('a', { machineClass: 'machineClasses/none' }), {
    reason: 'CLASS_NOT_FOUND',
    violations: [{ field: 'host.machine_class' }],
  })
  await client.machineClasses.createMachineClass({
    machineClassId: 'nowhere',
    machineClass: { shape: { vcpus: 1 }, offerings: [{ family: 'unknown-cloud', typeId: 'x' }] },
  })
  await refused(order('a', { machineClass: 'machineClasses/nowhere' }), { reason: 'CLASS_NOT_OFFERED' })
  await offered(test, client)
  const small = { machineClass: 'machineClasses/small' }
  await refused(order('a', { ...small, providerData: { imagee: 'x' } }), {
    reason: 'PROVIDER_DATA_INVALID',
    violations: [{ field: 'host.provider_data.imagee' }],
  })
  await refused(order('a', { ...small, providerData: { image: 7 } }), { reason: 'PROVIDER_DATA_INVALID' })
  await refused(order('Not A Label', small), { reason: 'INVALID_FIELD', violations: [{ field: 'host_id' }] })
  await refused(order('a', {}), { reason: 'INVALID_FIELD' })
  await refused(client.hosts.createHost({ parent: 'workspaces/none', hostId: 'a', host: small }), {
    reason: 'WORKSPACE_NOT_FOUND',
  })
  await refused(client.hosts.listHosts({ parent, filter: { labelSelector: 'a in (' } }), {
    reason: 'INVALID_LABEL_SELECTOR',
  })
  await refused(client.hosts.listHosts({ parent, pageToken: 'x' }), { reason: 'INVALID_PAGE_TOKEN' })
  t.match(await json(test, 'HostService/ListHosts', '{"parent": "workspaces/default", "nonsense": 1}'), {
    status: 400,
    body: { message: /nonsense/ },
  })
  t.match(await json(test, 'HostService/ListHosts', '{}', 'swc_wrong'), { status: 401 })
  const large = await json(test, 'HostService/ListHosts', JSON.stringify({ parent, pageToken: 'x'.repeat(5_000_000) }))
  t.match(large, { status: 429, body: { code: 'resource_exhausted', message: /4194304/ } })
  t.equal((await client.hosts.listHosts({ parent })).hosts.length, 0, 'nothing was stored')

  await order('a', { ...small, labels: { zone: 'x' } }, { requestId: 'one' })
  t.equal((await order('a', { ...small, labels: { zone: 'x' } }, { requestId: 'one' })).host?.labels['zone'], 'x')
  await refused(order('a', small, { requestId: 'one' }), { reason: 'IDEMPOTENCY_KEY_REUSED' })
  await refused(order('a', small), { reason: 'NAME_TAKEN', violations: [{ field: 'host_id' }] })
  const same = await Promise.all(
    Array.from({ length: 20 }, () => order('b', small, { requestId: 'two' }).then((answer) => answer.host?.uid)),
  )
  t.equal(new Set(same).size, 1, 'one key, one host, however many ask at once')
  await refused(client.hosts.updateHost({ host: { name: `${parent}/hosts/a`, etag: '0' } }), {
    reason: 'ETAG_MISMATCH',
  })
  await refused(client.machineClasses.deleteMachineClass({ name: 'machineClasses/small' }), { reason: 'CLASS_IN_USE' })
  await refused(client.hosts.getHost({ name: `${parent}/hosts/none` }), { reason: 'HOST_NOT_FOUND' })
  const changes = await test.database.db.selectFrom('changes').selectAll().execute()
  const secret = test.token.slice(24, 60)
  t.notOk((JSON.stringify(changes) + test.log.join('')).includes(secret), 'the token is in no row and no log')
})

void t.test('lists come in pages, and page tokens are bound to their list', async (t) => {
  const { client } = await start(t)
  for (let index = 0; index < 7; index++) {
    await client.machineClasses.createMachineClass({
      machineClassId: `c${index}`,
      machineClass: { shape: { vcpus: index + 1 }, labels: { even: String(index % 2 === 0) } },
    })
  }
  const names: string[] = []
  let pageToken = ''
  do {
    const page = await client.machineClasses.listMachineClasses({ pageSize: 3, pageToken })
    names.push(...page.machineClasses.map((machineClass) => machineClass.name))
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  t.equal(new Set(names).size, 7)
  const even = await client.machineClasses.listMachineClasses({ filter: { labelSelector: 'even=true' } })
  t.equal(even.machineClasses.length, 4)
  const first = await client.machineClasses.listMachineClasses({ pageSize: 3 })
  const other = { pageSize: 3, pageToken: first.nextPageToken, filter: { labelSelector: 'even=true' } }
  t.match(await refusal(client.machineClasses.listMachineClasses(other)), { reason: 'INVALID_PAGE_TOKEN' })
})

void t.test('changes of one row come in their order, whichever transaction began first', async (t) => {
  const { test, client } = await start(t)
  for (const machineClassId of ['one', 'other'])
    await client.machineClasses.createMachineClass({ machineClassId, machineClass: { shape: { vcpus: 1 } } })
  const { revision } = await client.machineClasses.listMachineClasses({})
  const { db } = test.database
  const say = (tx: typeof db, name: string, displayName: string) =>
    tx.updateTable('machine_classes').set({ display_name: displayName }).where('name', '=', name).execute()
  const seen: string[] = []
  // Begins first, and so has the lower transaction id, and changes the row after the other one has.
  await db.transaction().execute(async (early) => {
    await say(early, 'other', 'first')
    await db.transaction().execute((late) => say(late, 'one', 'second'))
    await say(early, 'one', 'third')
  })
  const stop = new AbortController()
  const watch = client.machineClasses.watchMachineClasses({ revision }, { signal: stop.signal, timeoutMs: 0 })
  for await (const { changes } of watch) {
    seen.push(...changes.map(({ machineClass }) => machineClass?.displayName ?? ''))
    if (seen.length >= 3) break
  }
  stop.abort()
  t.strictSame(
    seen.filter((displayName) => displayName !== 'first'),
    ['second', 'third'],
  )
  t.equal(seen.length, 3)
})

void t.test('a transaction that stands still holds no watcher up', async (t) => {
  const { test, client } = await start(t)
  const { revision } = await client.machineClasses.listMachineClasses({})
  const { db } = test.database
  await db.transaction().execute(async (still) => {
    await still.updateTable('workspaces').set({ name: 'default' }).execute()
    await client.machineClasses.createMachineClass({ machineClassId: 'seen', machineClass: { shape: { vcpus: 1 } } })
    const stop = new AbortController()
    for await (const { changes } of client.machineClasses.watchMachineClasses(
      { revision },
      { signal: AbortSignal.any([stop.signal, AbortSignal.timeout(20_000)]), timeoutMs: 0 },
    )) {
      if (changes.some(({ machineClass }) => machineClass?.name === 'machineClasses/seen')) break
    }
    stop.abort()
  })
  t.pass('it was told while the other transaction was open')
})

void t.test('a watch tells every change once, in order, over cuts and from a list', async (t) => {
  const { test, client } = await start(t)
  const stop = new AbortController()
  const list = await client.machineClasses.listMachineClasses({})
  const seen: string[] = []
  const watching = (async () => {
    const updates = follow(
      // Each stream is cut after a moment; the watch goes on from its last revision.
      (revision, signal) =>
        client.machineClasses.watchMachineClasses(
          { revision },
          { signal: AbortSignal.any([signal, AbortSignal.timeout(60)]), timeoutMs: 0 },
        ),
      (change) => change.machineClass,
      { signal: stop.signal, revision: list.revision },
    )
    for await (const { change } of updates) {
      if (change !== undefined) seen.push(`${change.resource.name} ${change.resource.displayName}`)
      if (change?.resource.displayName === 'last') return
    }
  })()
  const { db } = test.database
  const write = async (writer: number, round: number) =>
    db.transaction().execute(async (tx) => {
      const name = `w${writer}-${round}`
      await tx
        .insertInto('machine_classes')
        .values({ id: crypto.randomUUID(), name, display_name: `${writer} ${round}`, deleted_at: null })
        .execute()
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 15))
      if (round % 5 === 4) throw new Error('rolled back')
    })
  await Promise.all(
    Array.from({ length: 8 }, async (_, writer) => {
      for (let round = 0; round < 15; round++) await write(writer, round).catch(() => undefined)
    }),
  )
  await client.machineClasses.createMachineClass({
    machineClassId: 'last',
    machineClass: { displayName: 'last', shape: { vcpus: 1 } },
  })
  const timer = setTimeout(() => stop.abort(), 60_000)
  await watching
  clearTimeout(timer)
  t.equal(seen.length, 8 * 12 + 1, 'every committed change')
  t.equal(new Set(seen).size, seen.length, 'and each of them once')
  const rows = await db.selectFrom('changes').select(['doc']).execute()
  const committed = rows.map(({ doc }) => `machineClasses/${String(doc['name'])} ${String(doc['display_name'])}`)
  t.strictSame([...seen].sort(), committed.sort(), 'and nothing that was rolled back')
  const nonsense = (async () => {
    for await (const _ of client.machineClasses.watchMachineClasses({ revision: 'nonsense' })) return
  })()
  t.match(await refusal(nonsense), { reason: 'INVALID_REVISION' })
})

void t.test('many watches of one client end with one signal, and nothing is said of it', async (t) => {
  const warnings: string[] = []
  const listen = (warning: Error) => warnings.push(`${warning.name}: ${warning.message}`)
  process.on('warning', listen)
  t.teardown(() => process.off('warning', listen))
  const { test, client } = await start(t)
  const stop = new AbortController()
  let synced = 0
  let watching: Promise<void>[] = []
  const all = new Promise<void>((resolve) => {
    const watch = async () => {
      const updates = follow(
        (revision, signal) => client.providers.watchProviders({ revision }, { signal, timeoutMs: 0 }),
        (change) => change.provider,
        { signal: stop.signal },
      )
      for await (const update of updates) if (update.synced && update.change === undefined && ++synced === 30) resolve()
    }
    watching = Array.from({ length: 30 }, watch)
  })
  await all
  for (let index = 0; index < 40; index++)
    await client.providers.createProvider({ providerId: `p-${index}`, provider: { family: 'simulated', kind: 2 } })
  stop.abort()
  await Promise.all(watching)
  // Whatever is written to a watcher that is gone is written by now: this is answered after it.
  await client.providers.createProvider({ providerId: 'last', provider: { family: 'simulated', kind: 2 } })
  t.strictSame(warnings, [], 'no warning of listeners that pile up')
  const errors = test.log
    .map((line) => JSON.parse(line) as { level: unknown })
    .filter(({ level }) => level === 50 || level === 'error')
  t.strictSame(errors, [], 'a watcher that goes away is no error')
})

void t.test('an etag of a provider covers what clients write, and not what its instances tell', async (t) => {
  const { test, client } = await start(t)
  await offered(test, client)
  const name = 'providers/cloud'
  const read = (await client.providers.getProvider({ name })).provider
  await test.database.db
    .updateTable('providers')
    .set({ health: 'DEGRADED', health_message: 'slow', state: 'DISCONNECTED' })
    .execute()
  const mask = { updateMask: { paths: ['labels'] } }
  const updated = await client.providers.updateProvider({
    provider: { name, etag: read?.etag ?? '', labels: { tier: 'one' } },
    ...mask,
  })
  t.not(updated.provider?.etag, read?.etag, 'its own change moves it')
  t.match(
    await refusal(
      client.providers.updateProvider({ provider: { name, etag: read?.etag ?? '', labels: { tier: 'two' } }, ...mask }),
    ),
    { reason: 'ETAG_MISMATCH' },
  )
})

void t.test('a client that never reads holds nobody up, and memory stays flat', { timeout: 120_000 }, async (t) => {
  const { test, client } = await start(t)
  const url = new URL(test.hub.apiUrl)
  const socket = connect(Number(url.port), url.hostname)
  t.teardown(() => socket.destroy())
  socket.pause()
  const body = Buffer.from('{}')
  const frame = Buffer.concat([Buffer.from([0, 0, 0, 0, body.length]), body])
  const head = [
    'POST /slipway.hub.v1.MachineClassService/WatchMachineClasses HTTP/1.1',
    `host: ${url.host}`,
    `authorization: Bearer ${test.token}`,
    'content-type: application/connect+json',
    'connect-protocol-version: 1',
    `content-length: ${frame.length}`,
  ]
  socket.write(Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), frame]))
  await client.machineClasses.createMachineClass({ machineClassId: 'one', machineClass: { shape: { vcpus: 1 } } })
  const before = process.memoryUsage().heapUsed
  for (let round = 0; round < 15; round++) {
    const many = Array.from({ length: 1_000 }, (_, index) => ({
      id: crypto.randomUUID(),
      name: `many-${round}-${index}`,
      display_name: 'y'.repeat(500),
      deleted_at: null,
    }))
    await test.database.db.insertInto('machine_classes').values(many).execute()
  }
  const one = await client.machineClasses.getMachineClass({ name: 'machineClasses/one' })
  t.equal(one.machineClass?.name, 'machineClasses/one', 'others are served')
  t.ok(process.memoryUsage().heapUsed - before < 300 * 1024 * 1024, 'memory stays within bounds')
})

void t.test('plain HTTP and JSON', async (t) => {
  const { test, client } = await start(t)
  await offered(test, client)
  await client.hosts.createHost({ parent, hostId: 'web-1', host: { machineClass: 'machineClasses/small' } })
  const { status, body } = await json(test, 'HostService/ListHosts', '{"parent": "workspaces/default"}')
  t.match({ status, body }, { status: 200, body: { hosts: [{ name: 'workspaces/default/hosts/web-1' }] } })
  for (const [path, wanted] of [
    ['/healthz', 200],
    ['/readyz', 200],
    ['/nothing', 404],
    ['/phone-home/x', 405],
  ] as const) {
    t.equal((await fetch(`${test.hub.apiUrl}${path}`)).status, wanted, path)
  }
  t.equal((await fetch(`${test.hub.apiUrl}/phone-home/swb_wrong`, { method: 'POST' })).status, 401)
})
