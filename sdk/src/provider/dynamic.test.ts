import { durationMs } from '@bufbuild/protobuf/wkt'
import { FailureCode, Operation, PowerState, Presence, type Report } from '@slipway/proto/provider/v1'
import fc from 'fast-check'
import t from 'tap'
import { deferred, sleep } from '../internal/timing.js'
import { TestCloud } from '../testing/cloud.js'
import type { TestSession } from '../testing/gateway.js'
import type { TestItem } from '../testing/item.js'
import { readySession, released, settled, setUp, startGateway, startProvider } from '../testing/provider.js'
import { until } from '../testing/until.js'
import { ProviderError, Stopped } from './errors.js'
import { makeLogger } from './run.js'
import type { DynamicDefinition } from './types.js'
import { poll } from './work-context.js'

type Definition = DynamicDefinition<unknown, unknown, unknown>

void t.test('a machine is made in durable steps, and reported at once', async (t) => {
  const { cloud, session, item } = await setUp(t)
  session.send(item.claimed())
  await settled(item)
  t.equal(cloud.servers.size, 1)
  const server = cloud.byKey(item.desired.spec?.ownershipKey ?? '')
  t.match(item.observed, {
    presence: Presence.PRESENT,
    externalId: server?.id,
    power: PowerState.ON,
    generation: 1n,
    createInDoubt: false,
  })
  t.equal(item.observed.addresses[0]?.ip, '192.0.2.7')
  t.match(item.completions, [{ operation: Operation.PROVISION, operationGeneration: 1n }])
  t.equal(cloud.count('find'), 0, 'a first try has nothing to look for')

  const doubtAt = item.reports.findIndex(({ observed }) => observed?.createInDoubt === true)
  const stepAt = item.reports.findIndex(({ step }) => step?.name === 'server')
  t.ok(doubtAt >= 0 && doubtAt < stepAt, 'the intent is stored before the effect')
  t.equal(item.reports[stepAt]?.observed?.createInDoubt, false, 'and the doubt ends with its result')
  t.same(
    item.reports.map(({ sequence }) => sequence),
    item.reports.map((_, index) => BigInt(index + 1)),
    'sequences rise by one',
  )
})

void t.test('steps with a stored result are not run again, by whichever instance', async (t) => {
  const cloud = new TestCloud()
  const gateway = await startGateway(t)
  const item = gateway.item()
  const ran: string[] = []
  const dying = deferred<void>()
  dying.promise.catch(() => undefined)
  const instead = (second: boolean): Partial<Definition> => ({
    create: async (context, spec) => {
      const key = await context.step('key', () => {
        ran.push('key')
        return Promise.resolve({ id: 7, tags: ['a'] })
      })
      t.same(key, { id: 7, tags: ['a'] })
      const machine = await cloud.create(context, spec)
      if (!second) await dying.promise
      await context.step('volume', () => {
        ran.push('volume')
        return Promise.resolve(null)
      })
      return machine
    },
  })
  const first = await startProvider(t, gateway, cloud.provider(instead(false)))
  ;(await gateway.session()).send(item.claimed())
  await until('the server step', () => item.stepNames.includes('server'))
  dying.reject(new ProviderError('UNAVAILABLE', 'the first instance dies here'))
  await released(item)
  await first.stop()

  await startProvider(t, gateway, cloud.provider(instead(true)))
  const session = await gateway.session(2)
  await session.expect('ready', ({ capacity }) => capacity > 0)
  session.send(item.claimed())
  await settled(item)
  t.same(ran, ['key', 'volume'])
  t.equal(cloud.count('create'), 1)
  t.equal(cloud.servers.size, 1)
})

void t.test('a lost answer leaves the create in doubt, and the next try looks before it creates', async (t) => {
  let lost = true
  const { cloud, session, item } = await setUp(t, (cloud) => ({
    create: async (context, spec) => {
      const id = await context.step('server', {
        run: () => {
          const server = cloud.make(spec.ownershipKey, spec.name)
          if (lost) throw new ProviderError('TIMEOUT', 'no answer')
          return Promise.resolve(server.id)
        },
        find: () => Promise.resolve(cloud.byKey(spec.ownershipKey)?.id),
      })
      return { externalId: id }
    },
  }))
  session.send(item.claimed())
  await released(item)
  t.equal(item.outcome?.case, 'retryAfter')
  t.match(item.failures, [{ code: FailureCode.TIMEOUT, message: 'no answer', retryable: true, step: 'server' }])
  t.equal(item.observed.createInDoubt, true, 'whether it exists is not known')
  lost = false
  session.send(item.claimed())
  await settled(item)
  t.equal(cloud.count('create'), 1)
  t.equal(item.observed.externalId, [...cloud.servers.keys()][0])
  t.equal(item.observed.createInDoubt, false)
})

void t.test('with a create in doubt and nothing found, it waits until the create cannot land any more', async (t) => {
  const { cloud, session, item } = await setUp(t, (cloud) => ({
    listingLagMs: 100,
    create: async (context, spec) => {
      const id = await context.step('server', {
        run: () => Promise.resolve(cloud.make(spec.ownershipKey, spec.name).id),
        find: () => Promise.resolve(cloud.byKey(spec.ownershipKey)?.id),
        timeoutMs: 400,
      })
      return { externalId: id }
    },
  }))
  // Another instance died between intent and result; its request reaches the cloud only now.
  item.observed.createInDoubt = true
  session.send(item.claimed())
  await until('the provider to say that it waits', () =>
    item.reports.find(({ progress }) => progress?.message.includes('under way')),
  )
  t.equal(cloud.count('create'), 0)
  cloud.make(item.desired.spec?.ownershipKey ?? '', 'late')
  await settled(item)
  t.equal(cloud.count('create'), 1, 'the late one is adopted')
  t.equal(cloud.servers.size, 1)
})

void t.test('a create that another instance left in doubt stays so over a try that comes to nothing', async (t) => {
  let failing = true
  const { cloud, session, item } = await setUp(t, (cloud) => ({
    create: async (context, spec) => {
      const id = await context.step('server', {
        run: () => Promise.resolve(cloud.make(spec.ownershipKey, spec.name).id),
        find: () => {
          if (failing) throw new ProviderError('QUOTA', 'not now')
          return Promise.resolve(cloud.byKey(spec.ownershipKey)?.id)
        },
        timeoutMs: 600,
      })
      return { externalId: id }
    },
  }))
  item.observed.createInDoubt = true
  session.send(item.claimed())
  await released(item)
  t.equal(item.observed.createInDoubt, true, 'nothing was found out')
  failing = false
  session.send(item.claimed())
  await until('the provider to say that it waits', () =>
    item.reports.find(({ progress }) => progress?.message.includes('under way')),
  )
  cloud.make(item.desired.spec?.ownershipKey ?? '', 'late')
  await settled(item)
  t.equal(cloud.servers.size, 1)
  t.equal(cloud.count('create'), 1, 'the late one is adopted')
})

void t.test('a delete that failed once still waits for the create that another instance left in doubt', async (t) => {
  let failing = true
  const { cloud, session, item } = await setUp(t, (cloud) => ({
    effectTimeoutMs: 600,
    delete: (_context, machine) => {
      if (failing) throw new ProviderError('QUOTA', 'not now')
      cloud.calls.push('delete')
      for (const server of cloud.servers.values())
        if (server.key === machine.ownershipKey) cloud.servers.delete(server.id)
      return Promise.resolve()
    },
  }))
  item.observed.createInDoubt = true
  item.wish({ operation: Operation.DEPROVISION, presence: Presence.ABSENT })
  session.send(item.claimed())
  await released(item)
  failing = false
  session.send(item.claimed())
  await until('the first delete', () => cloud.count('delete') === 1)
  cloud.make(item.desired.spec?.ownershipKey ?? '', 'late')
  await settled(item)
  t.equal(cloud.servers.size, 0)
})

void t.test('after the wait with nothing found, it creates', async (t) => {
  const { cloud, session, item } = await setUp(t, (cloud) => ({
    create: async (context, spec) => {
      const id = await context.step('server', {
        run: () => Promise.resolve(cloud.make(spec.ownershipKey, spec.name).id),
        find: () => {
          cloud.calls.push('find')
          return Promise.resolve(undefined)
        },
        timeoutMs: 200,
      })
      return { externalId: id, power: 'on' }
    },
    observe: (_context, externalId) => Promise.resolve({ externalId }),
  }))
  item.observed.createInDoubt = true
  const before = performance.now()
  session.send(item.claimed())
  await settled(item)
  t.ok(performance.now() - before >= 200, 'no sooner than the effect may take')
  t.equal(cloud.count('find'), 2)
  t.equal(cloud.count('create'), 1)
})

void t.test('a definite refusal leaves no doubt, and is told with what the cloud said', async (t) => {
  const { session, item } = await setUp(t, () => ({
    create: async (context) => {
      await context.step('server', {
        run: () =>
          Promise.reject(new ProviderError('CAPACITY', 'no cx22 in fsn1', { externalCode: 'resource_unavailable' })),
        find: () => Promise.resolve(undefined),
      })
      return { externalId: 'never' }
    },
  }))
  session.send(item.claimed())
  await released(item)
  t.match(item.failures, [
    { code: FailureCode.CAPACITY, retryable: false, externalCode: 'resource_unavailable', step: 'server' },
  ])
  t.equal(item.observed.createInDoubt, false)
  t.same(item.stepNames, [])
})

void t.test('an effect that takes too long is given up, and stays in doubt', async (t) => {
  const { session, item } = await setUp(t, () => ({
    create: async (context) => {
      await context.step('server', {
        run: () => new Promise<string>(() => undefined),
        find: () => Promise.resolve(undefined),
        timeoutMs: 50,
      })
      return { externalId: 'never' }
    },
  }))
  session.send(item.claimed())
  await released(item)
  t.match(item.failures, [{ code: FailureCode.TIMEOUT, retryable: true }])
  t.equal(item.observed.createInDoubt, true)
})

void t.test('a changed wish aborts what runs, but lets a running effect finish', async (t) => {
  const effect = deferred<void>()
  const begun = deferred<void>()
  let aborted: unknown
  let working: AbortSignal | undefined
  const { cloud, session, item } = await setUp(t, (cloud) => ({
    create: async (context, spec) => {
      working = context.signal
      const id = await context
        .step('server', {
          run: async (signal) => {
            begun.resolve()
            await effect.promise
            t.notOk(signal.aborted, 'the effect is not interrupted by a changed wish')
            return cloud.make(spec.ownershipKey, spec.name).id
          },
          find: () => Promise.resolve(cloud.byKey(spec.ownershipKey)?.id),
        })
        .catch((error: unknown) => {
          aborted = error
          throw error
        })
      return { externalId: id }
    },
  }))
  session.send(item.claimed())
  await begun.promise
  session.send(item.wish({ operation: Operation.DEPROVISION, presence: Presence.ABSENT }).changed())
  await until('the change to be heard', () => working?.aborted)
  effect.resolve()
  await settled(item)
  t.ok(aborted instanceof Stopped && aborted.why === 'changed')
  t.ok(item.stepNames.includes('server'), 'its result is stored')
  t.equal(cloud.servers.size, 0, 'and what it made is deleted')
  t.equal(item.observed.presence, Presence.ABSENT)
  t.match(item.completions, [{ operation: Operation.DEPROVISION, operationGeneration: 2n }])
})

void t.test('a changed wish of the same operation goes on with the steps that are stored', async (t) => {
  const waiting = deferred<void>()
  let polls = 0
  const { cloud, session, item } = await setUp(t, (cloud) => ({
    create: async (context, spec) => {
      const machine = await cloud.create(context, spec)
      polls += 1
      if (polls === 1) waiting.resolve()
      return context.poll(() => Promise.resolve(polls > 1 ? machine : undefined), { initialDelayMs: 1 })
    },
  }))
  session.send(item.claimed())
  await waiting.promise
  session.send(item.wish({ power: PowerState.OFF }).changed())
  await settled(item)
  t.equal(cloud.count('create'), 1)
  t.equal(polls, 2)
  t.equal(item.observed.power, PowerState.OFF)
  t.equal(item.observed.generation, 2n)
})

void t.test('power converges, and each reboot happens once', async (t) => {
  const { cloud, session, item } = await setUp(t)
  session.send(item.claimed())
  await settled(item)
  session.send(item.wish({ power: PowerState.OFF }).claimed())
  await settled(item)
  t.same(
    cloud.calls.filter((call) => call === 'off' || call === 'on'),
    ['off'],
  )
  t.equal(item.observed.power, PowerState.OFF)
  session.send(item.wish({ power: PowerState.ON, reboots: 2n }).claimed())
  await settled(item)
  t.same(cloud.calls.slice(-3), ['on', 'reboot', 'reboot'])
  t.equal(item.observed.rebootsDone, 2n)
  session.send(item.claimed())
  await settled(item)
  t.equal(cloud.count('reboot'), 2, 'what was done is not done again')
  t.equal(cloud.count('create'), 1)
  session.send(item.wish({ power: PowerState.OFF, reboots: 3n }).claimed())
  await settled(item)
  t.equal(cloud.count('reboot'), 2, 'a machine that is to be off has nothing to restart')
  t.equal(item.observed.rebootsDone, 3n)
})

void t.test('a reboot is counted before the next one begins', async (t) => {
  let fail = false
  const { cloud, session, item } = await setUp(t, (cloud) => ({
    power: (_context, id, wish) => {
      if (fail && cloud.count('reboot') === 1) throw new ProviderError('UNAVAILABLE', 'not now')
      return cloud.power(id, wish)
    },
  }))
  session.send(item.claimed())
  await settled(item)
  fail = true
  session.send(item.wish({ reboots: 2n }).claimed())
  await released(item)
  t.equal(item.observed.rebootsDone, 1n)
  fail = false
  session.send(item.claimed())
  await settled(item)
  t.equal(cloud.count('reboot'), 2)
})

void t.test('a power step runs each time that power is switched', async (t) => {
  const { cloud, session, item } = await setUp(t, (cloud) => ({
    power: async (context, id, wish) => {
      await context.step('switch', async () => {
        await cloud.power(id, wish)
        return null
      })
    },
  }))
  session.send(item.claimed())
  await settled(item)
  for (const power of [PowerState.OFF, PowerState.ON, PowerState.OFF]) {
    session.send(item.wish({ power }).claimed())
    await settled(item)
  }
  t.same(
    cloud.calls.filter((call) => call === 'off' || call === 'on'),
    ['off', 'on', 'off'],
  )
})

void t.test('what was made under a wish that changed is deleted, though no listing shows it yet', async (t) => {
  const effect = deferred<void>()
  const begun = deferred<void>()
  const listingLagMs = 300
  let madeAtMs = 0
  const { cloud, session, item } = await setUp(t, (cloud) => ({
    listingLagMs,
    create: async (context, spec) => {
      const externalId = await context.step('server', {
        run: async () => {
          begun.resolve()
          await effect.promise
          madeAtMs = performance.now()
          return cloud.make(spec.ownershipKey, spec.name).id
        },
        find: () => Promise.resolve(undefined),
      })
      return { externalId }
    },
    delete: (_context, machine) => {
      cloud.calls.push('delete')
      const listed = performance.now() - madeAtMs >= listingLagMs
      for (const server of cloud.servers.values())
        if ((listed && server.key === machine.ownershipKey) || server.id === machine.externalId)
          cloud.servers.delete(server.id)
      return Promise.resolve()
    },
  }))
  session.send(item.claimed())
  await begun.promise
  session.send(item.wish({ operation: Operation.DEPROVISION, presence: Presence.ABSENT }).changed())
  effect.resolve()
  await settled(item)
  t.equal(cloud.count('create'), 1)
  t.equal(cloud.servers.size, 0)
  t.equal(item.observed.presence, Presence.ABSENT)
})

void t.test('deprovisioning deletes, reports the absence, and is repeatable', async (t) => {
  const { cloud, session, item } = await setUp(t)
  session.send(item.claimed())
  await settled(item)
  session.send(item.wish({ operation: Operation.DEPROVISION, presence: Presence.ABSENT }).claimed())
  await settled(item)
  t.equal(cloud.servers.size, 0)
  t.equal(item.observed.presence, Presence.ABSENT)
  session.send(item.claimed())
  await settled(item)
  t.equal(cloud.count('delete'), 1, 'a completed operation is not done again')
})

void t.test('what nobody ever began is not deleted, what was begun is', async (t) => {
  const { cloud, session, item, gateway } = await setUp(t)
  session.send(item.wish({ operation: Operation.DEPROVISION, presence: Presence.ABSENT }).claimed())
  await settled(item)
  t.equal(cloud.count('delete'), 0)
  t.equal(item.observed.presence, Presence.ABSENT)

  const begun = gateway.item()
  session.send(begun.claimed())
  await until('the begin to be stored', () => begun.observed.conditions.some(({ type }) => type === 'CreateBegun'))
  await settled(begun)
  // A hub that counts no attempts and has lost the rest: the begin alone must be enough.
  begun.observed = { ...begun.observed, externalId: '', presence: Presence.UNSPECIFIED, createInDoubt: false }
  begun.attempt = 0
  session.send(begun.wish({ operation: Operation.DEPROVISION, presence: Presence.ABSENT }).claimed())
  await settled(begun)
  t.equal(cloud.count('delete'), 1)
})

void t.test('a delete with a create in doubt is repeated once the create cannot land any more', async (t) => {
  const { cloud, session, item } = await setUp(t, () => ({ effectTimeoutMs: 300 }))
  item.observed.createInDoubt = true
  session.send(item.wish({ operation: Operation.DEPROVISION, presence: Presence.ABSENT }).claimed())
  await until('the first delete', () => cloud.count('delete') === 1)
  cloud.make(item.desired.spec?.ownershipKey ?? '', 'late')
  await settled(item)
  t.equal(cloud.count('delete'), 2)
  t.equal(cloud.servers.size, 0)
  t.equal(item.observed.createInDoubt, false)
})

void t.test('a machine that vanished is told and not made again', async (t) => {
  const { cloud, session, item } = await setUp(t)
  session.send(item.claimed())
  await settled(item)
  cloud.servers.clear()
  session.send(item.wish({ power: PowerState.ON }).claimed())
  await released(item)
  t.equal(item.observed.presence, Presence.ABSENT)
  t.match(item.failures, [{ message: /is gone/, retryable: false }])
  t.equal(cloud.count('create'), 1)
})

void t.test('transient failures of a look are repeated before they count', async (t) => {
  let failures = 2
  const { session, item } = await setUp(t, (cloud) => ({
    observe: (_context, id) => {
      failures -= 1
      if (failures >= 0) throw new ProviderError('UNAVAILABLE', 'a moment, please')
      return Promise.resolve(cloud.servers.has(id) ? { externalId: id, power: 'on' as const } : undefined)
    },
  }))
  session.send(item.claimed())
  await settled(item)
  session.send(item.wish({}).claimed())
  await settled(item)
  t.equal(failures, -1)
  t.same(item.failures, [])
})

void t.test('a failure says when to try again, and a defect of one item touches no other', async (t) => {
  const { session, item, gateway, cloud } = await setUp(t, (cloud) => ({
    create: (context, spec) => {
      if (spec.typeId === 'bad') throw new TypeError('undefined is not a function')
      if (spec.typeId === 'busy') throw new ProviderError('RATE_LIMITED', 'slow down', { retryAfterMs: 1_500 })
      return cloud.create(context, spec)
    },
  }))
  const bad = gateway.item().wish({ spec: { ...item.desired.spec, typeId: 'bad' } as never })
  const busy = gateway.item().wish({ spec: { ...item.desired.spec, typeId: 'busy' } as never })
  session.send(bad.claimed(), busy.claimed(), item.claimed())
  await settled(item)
  await released(bad)
  await released(busy)
  t.match(bad.failures, [{ code: FailureCode.INTERNAL, message: 'undefined is not a function', retryable: true }])
  t.match(busy.failures, [{ code: FailureCode.RATE_LIMITED }])
  t.equal(busy.outcome?.case === 'retryAfter' ? durationMs(busy.outcome.value) : 0, 1_500)
  t.equal(cloud.servers.size, 1)
})

void t.test('misuse of steps is told plainly', async (t) => {
  const cases: [string, (context: Parameters<Definition['create']>[0]) => Promise<unknown>, RegExp][] = [
    ['name', (context) => context.step('Not A Name', () => Promise.resolve(1)), /is no step name/],
    ['reserved', (context) => context.step('sdk-x', () => Promise.resolve(1)), /not beginning with sdk-/],
    [
      'size',
      (context) => context.step('big', () => Promise.resolve('x'.repeat(300_000))),
      /store an id and not the thing/,
    ],
    ['json', (context) => context.step('big', () => Promise.resolve(1n as never)), /cannot be said in JSON/],
    ['budget', (context) => context.budget('none'), /no budget "none" is declared/],
    [
      'address',
      (context) => context.report({ addresses: [{ type: 'public', ip: '192.0.2.7/24' }] }),
      /is not an IP address/,
    ],
  ]
  const { session, gateway } = await setUp(t, () => ({
    create: async (context, spec) => {
      await cases.find(([name]) => name === spec.typeId)?.[1](context)
      return { externalId: 'never' }
    },
  }))
  for (const [name, , message] of cases) {
    const item = gateway.item()
    session.send(item.wish({ spec: { ...item.desired.spec, typeId: name } as never }).claimed())
    await released(item)
    t.match(item.failures[0]?.message, message, name)
  }
})

void t.test('progress reaches the hub, and never waits', async (t) => {
  const { session, item } = await setUp(t, (cloud) => ({
    create: async (context, spec) => {
      context.progress('half of it', 50)
      return cloud.create(context, spec)
    },
  }))
  session.send(item.claimed())
  await settled(item)
  t.ok(
    item.reports.some((report: Report) => report.progress?.message === 'half of it' && report.progress.percent === 50),
  )
})

type Fault = 'lost-before' | 'lost-after' | 'lands-late' | 'refused' | 'ack-lost' | 'claim-lost'

void t.test('however the faults fall, there is never a second machine', async (t) => {
  const fault = fc.constantFrom<Fault>('lost-before', 'lost-after', 'lands-late', 'refused', 'ack-lost', 'claim-lost')
  const gateway = await startGateway(t)
  const cloud = new TestCloud()
  const faults = new Map<string, Fault[]>()
  const items = new Map<string, TestItem>()
  let session: TestSession | undefined
  const provider = cloud.provider({
    create: async (context, spec) => {
      const id = await context.step('server', {
        run: async () => {
          const next = faults.get(spec.ownershipKey)?.shift()
          if (next === 'refused') throw new ProviderError('RATE_LIMITED', 'not now')
          if (next === 'lost-before') throw new ProviderError('UNAVAILABLE', 'no answer')
          if (next === 'claim-lost') session?.send(items.get(spec.ownershipKey)?.revoked() ?? { case: undefined })
          // Whoever lost the claim does not know it yet: its request reaches the cloud all the same.
          if (next === 'lands-late' || next === 'claim-lost') await sleep(20)
          if (next === 'ack-lost') lostAcks += 1
          const server = cloud.make(spec.ownershipKey, spec.name)
          if (next === 'lost-after' || next === 'lands-late') throw new ProviderError('TIMEOUT', 'no answer')
          return server.id
        },
        find: () => Promise.resolve(cloud.byKey(spec.ownershipKey)?.id),
        timeoutMs: 60,
      })
      return { externalId: id, power: 'on' }
    },
  })
  let lostAcks = 0
  gateway.judge = (report) => {
    if (report.step?.name !== 'server' || lostAcks === 0) return 'ack'
    lostAcks -= 1
    setImmediate(() => gateway.sessions.at(-1)?.fail())
    return 'lose-ack'
  }
  await startProvider(t, gateway, provider)
  await readySession(gateway)
  await fc.assert(
    fc.asyncProperty(fc.array(fault, { maxLength: 4 }), async (planned) => {
      const item = gateway.item()
      const key = item.desired.spec?.ownershipKey ?? ''
      faults.set(key, [...planned])
      items.set(key, item)
      for (let round = 0; item.settledAt === undefined; round += 1) {
        if (round > 20) return false
        session = await until('a live session', () => gateway.sessions.findLast(({ over }) => !over))
        await session.expect('ready', ({ capacity }) => capacity > 0)
        const { fence } = item
        session.send(item.claimed())
        await until('the claim to end', () => item.outcome !== undefined || item.wasRevoked(fence + 1n))
      }
      return [...cloud.servers.values()].filter((server) => server.key === key).length === 1
    }),
    { numRuns: 12 },
  )
  t.pass('held for all')
})

void t.test('polling is patient with what passes, and ends with what does not', async (t) => {
  const controller = new AbortController()
  const context = { signal: controller.signal }
  let looks = 0
  const third = (): Promise<string | undefined> => {
    looks += 1
    if (looks === 1) throw new ProviderError('RATE_LIMITED', 'slow down', { retryAfterMs: 5 })
    return Promise.resolve(looks === 3 ? 'here' : undefined)
  }
  t.equal(await poll(context, third, { initialDelayMs: 1 }), 'here')
  const broken = (): Promise<never> => Promise.reject(new TypeError('a defect'))
  await t.rejects(poll(context, broken, { initialDelayMs: 1 }), { message: 'a defect' })
  const down = (): Promise<never> => Promise.reject(new ProviderError('UNAVAILABLE', 'down'))
  await t.rejects(poll(context, down, { initialDelayMs: 1, timeoutMs: 20, what: 'the server to run' }), {
    code: 'TIMEOUT',
    message: 'the server to run did not come within 20 ms; the last look failed: down',
  })
  const endless = poll(context, () => new Promise<undefined>(() => undefined))
  controller.abort(new Stopped('changed', 'the wish has changed'))
  await t.rejects(endless, { name: 'Stopped' })
})

void t.test('secrets stay out of the log', async (t) => {
  const lines: string[] = []
  const log = makeLogger('info', { write: (line: string) => lines.push(line) })
  log.info(
    { credentials: { token: 'hunter2' }, spec: { bootstrap: { userData: 'hunter2' } }, answer: { apiKey: 'hunter2' } },
    'hello',
  )
  t.equal(lines.length, 1)
  t.notMatch(lines[0], /hunter2/)
  t.match(lines[0], /hello/)
})
