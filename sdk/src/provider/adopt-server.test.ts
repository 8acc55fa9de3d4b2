import { create } from '@bufbuild/protobuf'
import { FailureCode, Operation, PowerState, Presence, ShapeSchema } from '@slipway/proto/provider/v1'
import t from 'tap'
import { deferred } from '../internal/timing.js'
import { TestCloud, type CloudServer } from '../testing/cloud.js'
import type { TestGateway } from '../testing/gateway.js'
import type { TestItem } from '../testing/item.js'
import { readySession, released, settled, startGateway, startProvider, type Cleanup } from '../testing/provider.js'
import { until } from '../testing/until.js'
import { ProviderError } from './errors.js'
import type { AdoptFunctions, DynamicDefinition } from './types.js'

type Functions = AdoptFunctions<unknown, unknown>
type Definition = DynamicDefinition<unknown, unknown, unknown>

const shape = { vcpus: 2, memoryMib: 4096, diskGib: 40 }

function functions(cloud: TestCloud): Functions {
  return {
    find: (_context, externalId) => {
      const server = cloud.servers.get(externalId)
      if (server === undefined) return Promise.resolve(undefined)
      const { id, key, power } = server
      return Promise.resolve({ externalId: id, ownershipKey: key, power, typeId: 'small', location: 'here', shape })
    },
    mark: (_context, { externalId, ownershipKey }) => {
      cloud.key(externalId, ownershipKey)
      return Promise.resolve()
    },
    unmark: (_context, { externalId }) => {
      cloud.key(externalId, '')
      return Promise.resolve()
    },
  }
}

interface Scene {
  readonly cloud: TestCloud
  readonly gateway: TestGateway
  readonly item: TestItem
  /** What was there before. */
  readonly server: CloudServer
  readonly definition: (over?: Partial<Functions>, rest?: Partial<Definition>) => Partial<Definition>
}

/** A server that exists already, off, and the order to adopt it. */
async function setScene(t: Cleanup): Promise<Scene> {
  const cloud = new TestCloud()
  const gateway = await startGateway(t)
  const server = cloud.make('', 'legacy')
  server.power = 'off'
  cloud.calls.length = 0
  const item = gateway.item()
  const { spec } = item.desired
  if (spec === undefined) throw new Error('the item has no order')
  spec.adoptExternalId = server.id
  item.desired.operation = Operation.ADOPT
  return {
    ...{ cloud, gateway, item, server },
    definition: (over = {}, rest = {}) => ({ adopt: { ...functions(cloud), ...over }, ...rest }),
  }
}

async function start(t: Cleanup, scene: Scene, over: Partial<Functions> = {}, rest: Partial<Definition> = {}) {
  const running = await startProvider(t, scene.gateway, scene.cloud.provider(scene.definition(over, rest)))
  const session = await readySession(scene.gateway)
  return { running, session }
}

const release = { operation: Operation.UNADOPT, presence: Presence.UNSPECIFIED }

void t.test('a server that exists is given our key, and nothing else; what it is is reported', async (t) => {
  const scene = await setScene(t)
  const { cloud, item, server } = scene
  const { session } = await start(t, scene)
  session.send(item.claimed())
  await settled(item)
  t.equal(server.key, item.desired.spec?.ownershipKey)
  t.strictSame(cloud.calls, ['key'], 'one call has changed anything')
  t.match(item.observed, {
    presence: Presence.PRESENT,
    externalId: server.id,
    power: PowerState.OFF,
    createInDoubt: false,
    hardware: { shape: { vcpus: 2, memoryMib: 4096n } },
  })
  t.match(item.completions, [{ operation: Operation.ADOPT }])
  const first = item.reports.find(({ observed }) => observed?.externalId !== undefined && observed.externalId !== '')
  t.ok(first?.completed, 'its id is told with the end of it, and not before')

  await t.test('and is kept up from there on, like any other', async (t) => {
    item.wish({ power: PowerState.ON })
    session.send(item.claimed())
    await settled(item)
    t.equal(server.power, 'on')
    t.strictSame(cloud.calls, ['key', 'on'])
  })
})

void t.test('what is not to be adopted is refused for good, and nothing is touched', async (t) => {
  const cases: readonly (readonly [string, FailureCode, (scene: Scene) => void])[] = [
    ['another hub has it', FailureCode.CONFLICT, ({ server }) => void (server.key = 'other-hub/x')],
    ['another request has it', FailureCode.CONFLICT, ({ server }) => void (server.key = 'hub/x')],
    ['there is none', FailureCode.INVALID_SPEC, ({ cloud }) => cloud.servers.clear()],
    ['it is of another type', FailureCode.INVALID_SPEC, ({ item }) => void (specOf(item).typeId = 'large')],
    ['it is elsewhere', FailureCode.INVALID_SPEC, ({ item }) => void (specOf(item).location = 'there')],
  ]
  for (const [title, code, spoil] of cases) {
    await t.test(title, async (t) => {
      const scene = await setScene(t)
      const { cloud, item, server } = scene
      spoil(scene)
      const key = server.key
      const { session } = await start(t, scene)
      session.send(item.claimed())
      await released(item)
      t.match(item.failures, [{ code, retryable: false }])
      t.notMatch(item.failures[0]?.message, /other-hub|hub\/x/, 'whose key it is is not said')
      // The hub gives the request up then.
      item.attempt = 0
      item.wish(release)
      session.send(item.claimed())
      await settled(item)
      t.match(item.completions, [{ operation: Operation.UNADOPT }])
      t.equal(server.key, key)
      t.strictSame(cloud.calls, [], 'nothing was called that changes anything')
    })
  }
})

void t.test('one that answers to another spelling of its id is not adopted twice', async (t) => {
  const scene = await setScene(t)
  const { cloud, item, server } = scene
  specOf(item).adoptExternalId = `0${server.id}`
  const own = functions(cloud)
  const { session } = await start(t, scene, { find: (context) => own.find(context, server.id) })
  session.send(item.claimed())
  await released(item)
  t.match(item.failures, [{ code: FailureCode.INVALID_SPEC, retryable: false }])
  t.equal(server.key, '')
})

void t.test('without a type, shapes are compared', async (t) => {
  const scene = await setScene(t)
  const { cloud, item } = scene
  specOf(item).shape = create(ShapeSchema, { vcpus: 1, memoryMib: 4096n })
  const own = functions(cloud)
  const { session } = await start(t, scene, {
    find: async (context, id) => {
      const found = await own.find(context, id)
      if (found === undefined) return undefined
      const { typeId: _type, ...rest } = found
      return rest
    },
  })
  session.send(item.claimed())
  await released(item)
  t.match(item.failures, [{ code: FailureCode.INVALID_SPEC, message: /2 vCPUs and 4096 MiB, not the 1/ }])
})

void t.test('an answer that was lost is looked into, also by another instance', async (t) => {
  const scene = await setScene(t)
  const { cloud, item, server, gateway } = scene
  const { running, session } = await start(t, scene, {
    mark: (_context, { externalId, ownershipKey }) => {
      cloud.key(externalId, ownershipKey)
      throw new ProviderError('TIMEOUT', 'no answer')
    },
  })
  session.send(item.claimed())
  await released(item)
  t.match(item.failures, [{ code: FailureCode.TIMEOUT, retryable: true, step: 'mark' }])
  t.equal(item.observed.createInDoubt, true, 'whether the key is on it is not known')
  await running.stop()
  await startProvider(t, gateway, cloud.provider(scene.definition()))
  const second = await readySession(gateway, 2)
  second.send(item.claimed())
  await settled(item)
  t.equal(server.key, item.desired.spec?.ownershipKey)
  t.strictSame(cloud.calls, ['key'], 'it was put on once')
  t.equal(item.observed.createInDoubt, false)
})

void t.test('whoever was faster keeps it', async (t) => {
  const scene = await setScene(t)
  const { cloud, item, server } = scene
  const { session } = await start(t, scene, {
    mark: (_context, { externalId }) => {
      // Another hub has put its key on it right after ours.
      cloud.key(externalId, 'other-hub/x')
      return Promise.resolve()
    },
  })
  session.send(item.claimed())
  await released(item)
  t.match(item.failures, [{ code: FailureCode.CONFLICT, retryable: false }])
  item.wish(release)
  session.send(item.claimed())
  await settled(item)
  t.equal(server.key, 'other-hub/x')
})

void t.test('an adoption that is given up takes our key off, and never deletes', async (t) => {
  await t.test('after it was complete', async (t) => {
    const scene = await setScene(t)
    const { cloud, item, server } = scene
    const { session } = await start(t, scene)
    session.send(item.claimed())
    await settled(item)
    item.wish(release)
    session.send(item.claimed())
    await settled(item)
    t.equal(server.key, '')
    t.strictSame(cloud.calls, ['key', 'key'])
    t.match(item.completions, [{ operation: Operation.ADOPT }, { operation: Operation.UNADOPT }])
  })

  await t.test('while the key is being put on it', async (t) => {
    const scene = await setScene(t)
    const { cloud, item, server } = scene
    const gate = deferred<void>()
    const { session } = await start(t, scene, {
      mark: async (_context, { externalId, ownershipKey }) => {
        await gate.promise
        cloud.key(externalId, ownershipKey)
      },
    })
    session.send(item.claimed())
    await until('it to begin', () => item.observed.createInDoubt === true)
    item.wish(release)
    session.send(item.changed())
    gate.resolve()
    await settled(item)
    t.equal(server.key, '')
    t.notOk(cloud.calls.includes('delete'))
  })

  await t.test('after a crash in between, with a key that lands late', async (t) => {
    const scene = await setScene(t)
    const { cloud, item, server } = scene
    const { session } = await start(t, scene, {}, { effectTimeoutMs: 600 })
    // Another instance had begun, and died; its call reaches the cloud only now.
    item.observed.createInDoubt = true
    item.wish(release)
    session.send(item.claimed())
    await until('the provider to say that it waits', () =>
      item.reports.find(({ progress }) => progress?.message.includes('on its way')),
    )
    cloud.key(server.id, specOf(item).ownershipKey)
    await settled(item)
    t.equal(server.key, '')
    t.notOk(cloud.calls.includes('delete'))
  })

  await t.test('where the server is gone, or was given to somebody else', async (t) => {
    for (const become of ['gone', 'given'] as const) {
      const scene = await setScene(t)
      const { cloud, item, server } = scene
      const { session } = await start(t, scene)
      session.send(item.claimed())
      await settled(item)
      if (become === 'gone') cloud.servers.delete(server.id)
      else cloud.key(server.id, 'other-hub/x')
      item.wish(release)
      session.send(item.claimed())
      await settled(item)
      t.equal(server.key, become === 'gone' ? specOf(item).ownershipKey : 'other-hub/x')
      t.notOk(cloud.calls.includes('delete'))
    }
  })
})

void t.test('software that cannot adopt leaves the server alone, and says so', async (t) => {
  const scene = await setScene(t)
  const { cloud, gateway, item } = scene
  await startProvider(t, gateway, cloud.provider())
  const session = await readySession(gateway)
  item.observed.createInDoubt = true
  item.wish(release)
  session.send(item.claimed())
  await released(item)
  t.match(item.failures, [{ code: FailureCode.INTERNAL, retryable: true }])
  t.strictSame(cloud.calls, [])
})

void t.test('an order is checked against the server, without any effect', async (t) => {
  const scene = await setScene(t)
  const { cloud, item, server } = scene
  const { session } = await start(t, scene)
  const ask = async (id: string, change: object, validationId: string) => {
    const spec = { typeId: 'small', location: 'here', ...change, adoptExternalId: id }
    session.send({ case: 'validate', value: { validationId, spec } })
    return session.expect('validated', (answer) => answer.validationId === validationId)
  }
  t.strictSame((await ask(server.id, {}, 'a')).violations.length, 0)
  t.match((await ask('nobody', {}, 'b')).violations, [{ field: 'spec.adopt_external_id' }])
  t.match((await ask(server.id, { typeId: 'large' }, 'c')).violations, [{ field: 'spec.type_id' }])
  cloud.key(server.id, specOf(item).ownershipKey)
  t.match(
    (await ask(server.id, {}, 'd')).violations,
    [{ field: 'spec.adopt_external_id' }],
    'before it is ordered no key is ours',
  )
  t.strictSame(cloud.calls, ['key'])
})

function specOf({ desired }: TestItem) {
  if (desired.spec === undefined) throw new Error('the item has no order')
  return desired.spec
}
