import { randomUUID } from 'node:crypto'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import { Capability, FailureCode, Health as WireHealth, OrphanOutcome, ProviderKind } from '@slipway/proto/provider/v1'
import t from 'tap'
import { z } from 'zod'
import { TestCloud } from '../testing/cloud.js'
import { readySession, settled, setUp, startGateway, startProvider } from '../testing/provider.js'
import { until } from '../testing/until.js'
import { defineProvider } from './define.js'
import { ProviderError } from './errors.js'
import { jsonSchemaText, parseBySchema } from './schema.js'
import type { Context, DynamicDefinition, OwnedMachine } from './types.js'

const config = z.object({ region: z.enum(['fsn1', 'nbg1']), retries: z.number().int().default(3) })
const credentials = z.object({ token: z.string().min(3) })
const data = z.object({
  image: z.string().default('debian-13'),
  disks: z.array(z.object({ gib: z.number() })).default([]),
})

type Config = z.infer<typeof config>
type Credentials = z.infer<typeof credentials>
type Data = z.infer<typeof data>
type Definition = DynamicDefinition<Config, Credentials, Data>

/** A provider with all three schemas, which accepts every token but `refused`. */
function typed(cloud: TestCloud, seen: string[], instead: Partial<Definition> = {}) {
  return defineProvider({
    family: 'typed',
    kind: 'dynamic',
    config,
    credentials,
    data,
    check: (context) => {
      seen.push(`check ${context.credentials.token} in ${context.config.region}`)
      if (context.credentials.token === 'refused') throw new ProviderError('CREDENTIALS', 'the token is refused')
      return Promise.resolve()
    },
    create: async (context, spec) => {
      seen.push(`create ${spec.data.image} with ${context.credentials.token}`)
      return cloud.create(context, spec)
    },
    observe: (_context, externalId) => Promise.resolve({ externalId }),
    delete: () => Promise.resolve(),
    list: (context: Context<Config, Credentials>) => {
      seen.push(`list with ${context.credentials.token}`)
      return cloud.list()
    },
    ...instead,
  })
}

const good = { version: 1n, config: { region: 'fsn1' }, credentials: { token: 'good' } }

void t.test('schemas go to the hub, closed against unknown keys', async (t) => {
  const gateway = await startGateway(t)
  gateway.configure = good
  await startProvider(t, gateway, typed(new TestCloud(), []))
  const { hello } = await readySession(gateway)
  t.match(JSON.parse(hello.configSchema), {
    type: 'object',
    properties: { region: { enum: ['fsn1', 'nbg1'] } },
    required: ['region'],
    additionalProperties: false,
  })
  t.equal(
    (JSON.parse(hello.dataSchema) as { properties: { disks: { items: object } } }).properties.disks.items[
      'additionalProperties' as never
    ],
    false,
  )
  t.match(JSON.parse(hello.credentialsSchema), { additionalProperties: false })
  t.equal(hello.kind, ProviderKind.DYNAMIC)
  t.same([...hello.capabilities].sort(), [Capability.LIST, Capability.REMOVE_ORPHAN].sort())
})

void t.test('schema edge cases', async (t) => {
  t.equal(jsonSchemaText(undefined), '')
  t.match(JSON.parse(jsonSchemaText(z.looseObject({ a: z.string() }))), { additionalProperties: {} })
  t.match(JSON.parse(jsonSchemaText(z.record(z.string(), z.object({ a: z.string() })))), {
    additionalProperties: { additionalProperties: false },
  })
  const composed = { type: 'object', properties: { a: {} }, allOf: [{ properties: { b: {} } }] }
  const handMade = {
    '~standard': {
      version: 1,
      vendor: 'test',
      validate: (value: unknown) => ({ value }),
      jsonSchema: { input: () => composed },
    },
  } as const
  t.same(JSON.parse(jsonSchemaText(handMade)), composed, 'what is put together of parts is left as it is')
  t.same(await parseBySchema(undefined, {}, 'config'), { value: {} })
  t.match(await parseBySchema(undefined, { a: 1 }, 'config'), {
    violations: [{ field: 'config.a', description: /not known/ }],
  })
  t.match(await parseBySchema(config, { region: 'fsn1', regoin: 1 }, 'config'), {
    violations: [{ field: 'config.regoin' }],
  })
  t.same(await parseBySchema(config, { region: 'fsn1' }, 'config'), { value: { region: 'fsn1', retries: 3 } })
  t.match(await parseBySchema(data, { disks: [{ gib: 'x' }] }, 'spec.provider_data'), {
    violations: [{ field: 'spec.provider_data.disks[0].gib' }],
  })
})

void t.test('new settings are proven before the old ones are dropped', async (t) => {
  const seen: string[] = []
  const cloud = new TestCloud()
  const gateway = await startGateway(t)
  gateway.configure = good
  await startProvider(t, gateway, typed(cloud, seen))
  const session = await readySession(gateway)
  t.ok(seen.includes('check good in fsn1'))

  session.send({ case: 'configure', value: { ...good, version: 2n, credentials: { token: 'refused' } } })
  t.match(await session.expect('configured', ({ version }) => version === 2n), {
    ok: false,
    failure: { code: FailureCode.CREDENTIALS, message: 'the token is refused' },
  })
  session.send({
    case: 'configure',
    value: { version: 3n, config: { region: 'mars', extra: 1 }, credentials: { token: 'good' } },
  })
  const refused = await session.expect('configured', ({ version }) => version === 3n)
  t.match(refused, { ok: false, failure: { code: FailureCode.INVALID_SPEC, message: /config\.extra/ } })
  t.notOk(JSON.stringify(refused.failure?.message).includes('good'))

  const item = gateway.item()
  session.send(item.claimed())
  await settled(item)
  t.ok(seen.includes('create debian-13 with good'), 'those before are still in use')

  session.send({ case: 'configure', value: { ...good, version: 4n, credentials: { token: 'rotated' } } })
  t.match(await session.expect('configured', ({ version }) => version === 4n), { ok: true })
  const second = gateway.item()
  session.send(second.claimed())
  await settled(second)
  t.ok(seen.includes('create debian-13 with rotated'))
  session.send({ case: 'configure', value: { ...good, version: 4n } })
  await until(
    'the repetition to be answered',
    () => session.all('configured').filter(({ version }) => version === 4n).length === 2,
  )
})

void t.test('with settings that cannot be used it takes no work, says why, and recovers', async (t) => {
  const seen: string[] = []
  const gateway = await startGateway(t)
  gateway.configure = { version: 1n, config: { region: 'mars' }, credentials: { token: 'good' } }
  await startProvider(t, gateway, typed(new TestCloud(), seen))
  const session = await gateway.session()
  const beat = await session.expect('heartbeat', ({ health }) => health === WireHealth.UNHEALTHY)
  t.match(beat, { message: /config\.region/, failure: { code: FailureCode.INVALID_SPEC } })
  t.ok(session.all('ready').every(({ capacity }) => capacity === 0))
  const item = gateway.item()
  session.send({
    case: 'validate',
    value: { validationId: 'v0', ...(item.desired.spec !== undefined && { spec: item.desired.spec }) },
  })
  t.match(await session.expect('validated'), { failure: { code: FailureCode.UNAVAILABLE } })
  session.send(item.claimed())
  await until('it to be given back', () => item.outcome?.case === 'retryAfter')
  session.send({ case: 'configure', value: { ...good, version: 2n } })
  await session.expect('ready', ({ capacity }) => capacity === 10)
  await session.expect('heartbeat', ({ health }) => health === WireHealth.HEALTHY)
})

void t.test('refused credentials are one unhealthy provider, which recovers by itself', async (t) => {
  let revoked = true
  const gateway = await startGateway(t)
  gateway.configure = good
  const check = (): Promise<void> =>
    revoked ? Promise.reject(new ProviderError('CREDENTIALS', 'revoked')) : Promise.resolve()
  await startProvider(t, gateway, typed(new TestCloud(), [], { check, listIntervalMs: 20 }))
  const session = await gateway.session()
  t.match(await session.expect('heartbeat', ({ health }) => health === WireHealth.UNHEALTHY), {
    failure: { code: FailureCode.CREDENTIALS },
  })
  t.same(session.all('inventory'), [], 'it lists nothing that it cannot prove')
  revoked = false
  const beats = session.all('heartbeat').length
  await until('it to be healthy again', () =>
    session
      .all('heartbeat')
      .slice(beats)
      .some(({ health }) => health === WireHealth.HEALTHY),
  )
  await session.expect('inventory', ({ complete }) => complete)
})

void t.test('an API that is down degrades first, and is unhealthy when it stays down', async (t) => {
  let down = true
  const { session } = await setUp(t, (cloud) => ({
    listIntervalMs: 10,
    list: () => {
      if (down) throw new ProviderError('INTERNAL', 'no answer that makes sense')
      return cloud.list()
    },
  }))
  await session.expect('heartbeat', ({ health }) => health === WireHealth.DEGRADED)
  down = false
  const beats = session.all('heartbeat').length
  await until('it to be healthy again', () =>
    session
      .all('heartbeat')
      .slice(beats)
      .some(({ health }) => health === WireHealth.HEALTHY),
  )
})

void t.test('newer settings in a Welcome that fail leave those before in use', async (t) => {
  const seen: string[] = []
  const gateway = await startGateway(t)
  gateway.configure = good
  await startProvider(t, gateway, typed(new TestCloud(), seen))
  const session = await readySession(gateway)
  gateway.configure = { ...good, version: 2n, credentials: { token: 'refused' } }
  session.fail()
  const second = await readySession(gateway, 2)
  await second.expect('heartbeat', ({ health }) => health === WireHealth.DEGRADED || health === WireHealth.UNHEALTHY)
  const item = gateway.item()
  second.send(item.claimed())
  await settled(item)
  t.ok(seen.includes('create debian-13 with good'))
})

void t.test('an order is checked by its schema, then by the provider, without effect', async (t) => {
  const gateway = await startGateway(t)
  gateway.configure = good
  const validate: Definition['validate'] = (context, spec) => {
    if (spec.typeId === 'slow') return new Promise(() => undefined)
    if (spec.typeId === 'broken') throw new ProviderError('UNAVAILABLE', 'the API is down')
    const violation = { field: 'spec.type_id', description: `there is no ${spec.typeId} in ${context.config.region}` }
    return Promise.resolve(spec.typeId === 'small' ? [] : [violation])
  }
  const cloud = new TestCloud()
  await startProvider(t, gateway, typed(cloud, [], { validate }))
  const session = await readySession(gateway)
  t.ok(session.hello.capabilities.includes(Capability.VALIDATE))
  const ask = async (validationId: string, spec: object) => {
    session.send({
      case: 'validate',
      value: { validationId, spec: { ownershipKey: 'h/r', name: 'm', ...spec }, deadline: durationFromMs(100) },
    })
    return session.expect('validated', (answer) => answer.validationId === validationId)
  }
  t.match(await ask('1', { typeId: 'small', providerData: { image: 'x' } }), { violations: [], failure: undefined })
  t.match(await ask('2', { typeId: 'huge' }), {
    violations: [{ field: 'spec.type_id', description: 'there is no huge in fsn1' }],
  })
  t.match(await ask('3', { typeId: 'small', providerData: { imgae: 'x' } }), {
    violations: [{ field: 'spec.provider_data.imgae' }],
  })
  t.match(await ask('4', { typeId: 'slow' }), { failure: { code: FailureCode.TIMEOUT } })
  t.match(await ask('5', { typeId: 'broken' }), { failure: { code: FailureCode.UNAVAILABLE } })

  const item = gateway.item()
  item.wish({ spec: { ...item.desired.spec, typeId: 'huge' } as never })
  session.send(item.claimed())
  await until('the refusal', () => item.failures.length > 0)
  t.match(item.failures[0], {
    code: FailureCode.INVALID_SPEC,
    retryable: false,
    step: 'validate',
    message: /no huge in fsn1/,
  })
  t.equal(cloud.servers.size, 0, 'nothing was made of a bad order')
})

void t.test('a listing is complete only where every page was read', async (t) => {
  let fail = true
  const { session } = await setUp(t, (cloud) => ({
    listIntervalMs: 10,
    list: async function* () {
      yield { externalId: 'one', ownershipKey: 'k', kind: 'volume' } satisfies OwnedMachine
      if (fail) throw new ProviderError('INTERNAL', 'page 2 is missing')
      yield* cloud.list()
    },
  }))
  const partial = await session.expect('inventory', ({ final }) => final)
  t.notOk(partial.complete)
  fail = false
  const complete = await session.expect('inventory', (part) => part.complete)
  t.not(complete.listingId, partial.listingId)
  t.match(complete.resources, [{ externalId: 'one', ownershipKey: 'k', kind: 'volume' }])
})

void t.test('a listing that a broken stream tore is not complete', async (t) => {
  let torn = false
  const gateway = await startGateway(t)
  const provider = new TestCloud().provider({
    listIntervalMs: 20,
    list: async function* () {
      for (let index = 0; index < 600; index += 1) yield { externalId: `s-${index}`, ownershipKey: 'k' }
      if (!torn) {
        torn = true
        gateway.sessions[0]?.fail()
        await until('the next stream', () => gateway.sessions.length === 2)
        await gateway.sessions[1]?.expect('ready')
      }
      yield { externalId: 'last', ownershipKey: 'k' }
    },
  })
  await startProvider(t, gateway, provider)
  const second = await gateway.session(2)
  await second.expect('inventory', ({ complete }) => complete)
  for (const parts of groupBy(second.all('inventory')).values()) {
    const whole = parts.at(-1)?.complete === true
    if (whole)
      t.equal(
        parts.reduce((sum, part) => sum + part.resources.length, 0),
        601,
      )
  }
})

function groupBy<Part extends { readonly listingId: string }>(parts: readonly Part[]): Map<string, Part[]> {
  const groups = new Map<string, Part[]>()
  for (const part of parts) groups.set(part.listingId, [...(groups.get(part.listingId) ?? []), part])
  return groups
}

void t.test('offerings are told, with prices to the millionth', async (t) => {
  const { session } = await setUp(t, () => ({
    offerings: () =>
      Promise.resolve([
        {
          typeId: 'cx22',
          location: 'fsn1',
          shape: { vcpus: 2, memoryMib: 4096, diskGib: 40 },
          price: { currency: 'EUR', hourlyMicros: 5_900n },
          available: true,
          remaining: 3,
        },
      ]),
  }))
  t.match((await session.expect('offerings')).offerings, [
    {
      typeId: 'cx22',
      location: 'fsn1',
      available: true,
      remaining: 3,
      price: { currency: 'EUR', hourlyMicros: 5_900n, monthlyMicros: 0n },
    },
  ])
  t.ok(session.hello.capabilities.includes(Capability.OFFERINGS))
  t.ok(session.hello.capabilities.includes(Capability.POWER))
})

void t.test('an orphan is removed only where its key is ours and still on it, and the hub is told', async (t) => {
  const { cloud, gateway, session, item } = await setUp(t, (cloud) => ({
    effectTimeoutMs: 7_000,
    delete: (_context, machine) => {
      cloud.calls.push(`delete ${machine.externalId}`)
      if (machine.name === 'stuck') throw new ProviderError('UNAVAILABLE', 'the API is down', { retryAfterMs: 3_000 })
      cloud.servers.delete(machine.externalId ?? '')
      return Promise.resolve()
    },
  }))
  t.match(session.hello.effectTimeout, durationFromMs(7_000))
  const key = `${gateway.hubId}/7e6c8f4e-0000-4000-8000-000000000000`
  const orphan = cloud.make(key, 'orphan')
  const foreign = cloud.make('another-hub/1', 'foreign')
  const untagged = cloud.make('', 'untagged')
  const order = async (externalId: string, ownershipKey: string, over: { name?: string; kind?: string } = {}) => {
    const orderId = randomUUID()
    const resource = { kind: 'server', externalId, ownershipKey, name: 'x', ...over }
    session.send({ case: 'removeOrphan', value: { resource, orderId, deadline: durationFromMs(5_000) } })
    return session.expect('orphanRemoval', (answer) => answer.orderId === orderId)
  }
  t.match(await order(foreign.id, foreign.key), { outcome: OrphanOutcome.KEY_MISMATCH, message: /not of this hub/ })
  t.match(await order(foreign.id, key), { outcome: OrphanOutcome.KEY_MISMATCH, message: /another-hub\/1/ })
  t.match(await order(untagged.id, key), { outcome: OrphanOutcome.KEY_MISMATCH, message: /none/ })
  t.match(await order('nothing', key), { outcome: OrphanOutcome.ALREADY_GONE })
  t.match(await order(orphan.id, key, { kind: 'volume' }), { outcome: OrphanOutcome.ALREADY_GONE })
  t.match(await order(orphan.id, key, { name: 'stuck' }), {
    outcome: OrphanOutcome.FAILED,
    failure: { code: FailureCode.UNAVAILABLE, message: 'the API is down', retryAfter: { seconds: 3n } },
  })
  t.match(await order(orphan.id, key), { outcome: OrphanOutcome.REMOVED })
  t.same([...cloud.servers.keys()], [foreign.id, untagged.id])
  t.same(
    cloud.calls.filter((call) => call.startsWith('delete')),
    [`delete ${orphan.id}`, `delete ${orphan.id}`],
  )

  // What is being worked on is no orphan, whatever the order says.
  session.send(item.claimed())
  await settled(item)
  const held = gateway.item()
  const heldKey = `${gateway.hubId}/${held.id}`
  const server = cloud.make(heldKey, 'held')
  gateway.judge = () => 'ignore'
  session.send(held.claimed())
  await session.expect('report', (report) => report.item?.id === held.id)
  t.match(await order(server.id, heldKey), { outcome: OrphanOutcome.HELD })
  t.ok(cloud.servers.has(server.id))
})

void t.test('an order to remove an orphan ends in time, and one of an older hub gets no answer', async (t) => {
  const { cloud, gateway, session } = await setUp(t, (cloud) => ({
    delete: (context, machine) => {
      cloud.calls.push(`delete ${machine.externalId}`)
      if (machine.name === 'slow')
        return new Promise<void>((_resolve, reject) =>
          context.signal.addEventListener('abort', () => reject(new Error('x'))),
        )
      cloud.servers.delete(machine.externalId ?? '')
      return Promise.resolve()
    },
  }))
  const key = `${gateway.hubId}/7e6c8f4e-0000-4000-8000-000000000000`
  const orphan = cloud.make(key, 'orphan')
  const resource = { kind: 'server', externalId: orphan.id, ownershipKey: key }
  const orderId = randomUUID()
  const slow = { resource: { ...resource, name: 'slow' }, orderId, deadline: durationFromMs(200) }
  session.send({ case: 'removeOrphan', value: slow })
  t.match(await session.expect('orphanRemoval'), {
    orderId,
    outcome: OrphanOutcome.FAILED,
    failure: { code: FailureCode.TIMEOUT },
  })
  session.send({ case: 'removeOrphan', value: { resource: { ...resource, name: 'x' } } })
  await until('the orphan to go', () => !cloud.servers.has(orphan.id))
  t.equal(session.all('orphanRemoval').length, 1)
})

void t.test('budgets are told with each heartbeat', async (t) => {
  let asked = 0
  const { session, item } = await setUp(
    t,
    (cloud) => ({
      budgets: { api: { limit: 5, windowMs: 60_000 } },
      rateBudgets: () => {
        if (asked++ === 0) throw new Error('a defect')
        return [{ name: 'vendor', limit: 3_600, remaining: 3_599.7, resetsInMs: 1_000 }]
      },
      create: async (context, spec) => {
        await context.budget('api')
        await context.budget('api')
        return cloud.create(context, spec)
      },
    }),
    { heartbeatMs: 50 },
  )
  session.send(item.claimed())
  await settled(item)
  t.match(await session.expect('heartbeat', ({ budgets }) => budgets.length === 2 && budgets[0]?.remaining === 3), {
    budgets: [
      { name: 'api', limit: 5 },
      { name: 'vendor', limit: 3_600, remaining: 3_599, resetsIn: { seconds: 1n } },
    ],
  })
})
