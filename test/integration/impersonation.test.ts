import { randomUUID } from 'node:crypto'
import { create } from '@bufbuild/protobuf'
import { withHub, type TestHub } from '@slipway/hub/testing'
import {
  Health,
  HeartbeatSchema,
  HelloSchema,
  InventorySchema,
  ItemKind,
  ItemRefSchema,
  ProviderKind,
  ProviderMessageSchema,
  ProviderService,
  ReadySchema,
  ReportSchema,
  SessionRequestSchema,
  type HubMessage,
  type ProviderMessage,
  type SessionResponse,
} from '@slipway/proto/provider/v1'
import { createSlipwayClient } from '@slipway/sdk/client'
import { enrol, openClient, openStream, parseGateway, parseJoinToken, type Identity } from '@slipway/sdk/testing'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { until } from '../tools/processes.js'

// A provider that claims to be another: who it is stands in its certificate alone, whatever it says of itself.

const family = 'simulated'

class Stream {
  readonly heard: HubMessage[] = []
  error: string | undefined
  readonly #send: (body: ProviderMessage['body']) => void

  constructor(t: Test, test: TestHub, identity: Identity) {
    const gateway = parseGateway(test.hub.gatewayAddress)
    const client = openClient({ gateway, caPems: identity.caPems, client: identity, keepaliveMs: 20_000 })
    const stream = openStream(client, ProviderService.method.session)
    stream.on('error', (error) => (this.error = error.message))
    stream.on('data', (frame: SessionResponse) => this.heard.push(...frame.messages))
    this.#send = (body) =>
      stream.write(create(SessionRequestSchema, { messages: [create(ProviderMessageSchema, { body })] }))
    const beating = setInterval(() => {
      if (this.welcomed) this.#send({ case: 'heartbeat', value: create(HeartbeatSchema, { health: Health.HEALTHY }) })
    }, 1_000)
    t.teardown(() => {
      clearInterval(beating)
      stream.cancel()
      client.close()
    })
  }

  get welcomed(): boolean {
    return this.error === undefined && this.heard.some(({ body }) => body.case === 'welcome')
  }

  /** Says Hello, as if it held an item. */
  hello(instanceName: string, held?: { readonly id: string; readonly fence: bigint }): void {
    this.#send({
      case: 'hello',
      value: create(HelloSchema, {
        protocolVersions: [1],
        instanceId: randomUUID(),
        instanceName,
        sdkName: 'test',
        family,
        kind: ProviderKind.DYNAMIC,
        holds: held === undefined ? [] : [{ item: itemOf(held.id), fence: held.fence, generation: 1n }],
      }),
    })
  }

  say(body: ProviderMessage['body']): void {
    this.#send(body)
  }

  async first<Case extends HubMessage['body']['case']>(kind: Case) {
    return until(`the hub to say ${String(kind)}`, () => {
      if (this.error !== undefined) throw new Error(this.error)
      return this.heard.map(({ body }) => body).find((body) => body.case === kind) as
        Extract<HubMessage['body'], { case: Case }> | undefined
    })
  }
}

const itemOf = (id: string) => create(ItemRefSchema, { kind: ItemKind.MACHINE_REQUEST, id })

async function start(t: Test) {
  const test = await withHub(t)
  const admin = createSlipwayClient({ baseUrl: test.hub.apiUrl, token: test.token })
  const add = (providerId: string) =>
    admin.providers.createProvider({
      providerId,
      provider: {
        family,
        kind: ProviderKind.DYNAMIC,
        config: { of: providerId },
        credentials: { token: `${providerId} cleartext` },
      },
    })
  await add('alpha')
  await add('beta')
  const enrolled = async (provider: string, name: string) => {
    const { joinToken } = await admin.providers.createJoinToken({ provider: `providers/${provider}` })
    return enrol(parseGateway(test.hub.gatewayAddress), parseJoinToken(joinToken), name)
  }
  return { test, admin, add, enrolled }
}

void t.test('a session is of the provider in its certificate, whatever it calls itself', async (t) => {
  const { test, admin, enrolled } = await start(t)
  const { db } = test.database
  await admin.machineClasses.createMachineClass({
    machineClassId: 'small',
    machineClass: { shape: { vcpus: 1 }, offerings: [{ provider: 'providers/beta', typeId: 'small' }] },
  })
  const beta = new Stream(t, test, await enrolled('beta', 'beta-1'))
  beta.hello('beta-1')
  await beta.first('welcome')
  beta.say({ case: 'ready', value: create(ReadySchema, { capacity: 5 }) })
  await admin.hosts.createHost({
    parent: 'workspaces/default',
    hostId: 'web',
    host: { machineClass: 'machineClasses/small' },
  })
  const claimed = await beta.first('claimed')
  const id = claimed.value.item?.id ?? ''

  // It has alpha's certificate, and says it is beta, which holds that request.
  const alpha = new Stream(t, test, await enrolled('alpha', 'providers/beta'))
  alpha.hello('beta-1', { id, fence: claimed.value.fence })
  const welcome = await alpha.first('welcome')
  t.match(welcome.value, { provider: 'providers/alpha', configure: { config: { of: 'alpha' } }, bound: [] })
  t.match(welcome.value.lost, [{ item: { id } }], 'it is not given what it says that it holds')
  t.notMatch(JSON.stringify(welcome.value, bigints), /beta cleartext/)
  const before = await rowOf(test, id)

  alpha.say({ case: 'ready', value: create(ReadySchema, { capacity: 5 }) })
  alpha.say({
    case: 'report',
    value: create(ReportSchema, {
      sequence: 1n,
      item: itemOf(id),
      fence: claimed.value.fence,
      generation: 1n,
      observed: { generation: 1n, externalId: 'stolen' },
    }),
  })
  const nack = await alpha.first('nack')
  t.equal(nack.value.sequence, 1n, 'what it says of the other is refused')
  alpha.say({
    case: 'inventory',
    value: create(InventorySchema, {
      listingId: randomUUID(),
      final: true,
      complete: true,
      resources: [{ kind: 'server', externalId: 'stolen', ownershipKey: String(before?.['ownership_key']) }],
    }),
  })
  // Its own words come through in order: once this one is answered, so is all before it.
  alpha.say({
    case: 'report',
    value: create(ReportSchema, { sequence: 2n, item: itemOf(randomUUID()), fence: 1n, generation: 1n }),
  })
  await until('the last word to be answered', () =>
    alpha.heard.some(({ body }) => body.case === 'nack' && body.value.sequence === 2n),
  )
  t.strictSame(await rowOf(test, id), before, 'nothing of it has changed')
  t.notOk(
    alpha.heard.some(({ body }) => body.case === 'claimed'),
    'it is given none of its work',
  )
  const foreign =
    await sql`select from orphans o join providers p on p.id = o.provider_id where p.name = 'beta'`.execute(db)
  t.equal(foreign.rows.length, 0)
  const { provider } = await admin.providers.getProvider({ name: 'providers/beta' })
  t.strictSame(
    provider?.sessions.map(({ instanceName }) => instanceName),
    ['beta-1'],
    'the other has the one instance that is its own',
  )
})

void t.test('join tokens and certificates are of one provider, and end with it', async (t) => {
  const { test, admin, add, enrolled } = await start(t)
  const gateway = parseGateway(test.hub.gatewayAddress)
  const { joinToken } = await admin.providers.createJoinToken({ provider: 'providers/alpha' })
  const identity = await enrol(gateway, parseJoinToken(joinToken), 'providers/beta')
  t.equal(identity.provider, 'providers/alpha', 'a token makes an instance of its own provider')
  t.match(await failure(enrol(gateway, parseJoinToken(joinToken), 'again')), { reason: 'JOIN_TOKEN_USED' })

  const unused = (await admin.providers.createJoinToken({ provider: 'providers/alpha' })).joinToken
  await admin.providers.deleteProvider({ name: 'providers/alpha' })
  await add('alpha')
  t.match(await failure(enrol(gateway, parseJoinToken(unused), 'late')), { reason: 'JOIN_TOKEN_INVALID' })
  const old = new Stream(t, test, identity)
  old.hello('old')
  await until('it to be refused', () => old.error !== undefined)
  t.match(old.error, /revoked|deleted/, 'the new provider of that name is another one')
  t.notOk(old.heard.some(({ body }) => body.case === 'welcome'))

  const fresh = new Stream(t, test, await enrolled('alpha', 'fresh'))
  fresh.hello('fresh')
  t.match((await fresh.first('welcome')).value, { provider: 'providers/alpha' })

  // A certificate that names another provider than the one it was made out to is nobody's.
  const forged = await enrolled('beta', 'forged')
  await sql`
    update provider_certificates set provider_id = (select id from providers where name = 'alpha' and deleted_at is null)
    where instance_name = 'forged'
  `.execute(test.database.db)
  const mixed = new Stream(t, test, forged)
  mixed.hello('forged')
  await until('it to be refused', () => mixed.error !== undefined)
  t.match(mixed.error, /revoked/)
})

/** What a call fails with. */
const failure = (call: Promise<unknown>) =>
  call.then(
    () => undefined,
    (error: unknown) => error,
  )

const bigints = (_: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value)

async function rowOf(test: TestHub, id: string): Promise<Record<string, unknown> | undefined> {
  const { rows } = await sql<Record<string, unknown>>`
    select r.ownership_key, r.state, r.external_id, r.version, w.session_id, w.fence
    from machine_requests r join work_items w on w.id = r.id where r.id = ${id}::uuid
  `.execute(test.database.db)
  return rows[0]
}
