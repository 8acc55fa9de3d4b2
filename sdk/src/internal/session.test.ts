import { create } from '@bufbuild/protobuf'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import { status } from '@grpc/grpc-js'
import { HeldSchema, NackReason, Operation, type Report } from '@slipway/proto/provider/v1'
import t from 'tap'
import { ProviderError, Stopped } from '../provider/errors.js'
import { TestCloud } from '../testing/cloud.js'
import { readySession, released, settled, setUp, startGateway, startProvider } from '../testing/provider.js'
import { until } from '../testing/until.js'
import { Lease } from './lease.js'
import { backOffMs, deferred, sleep, untilAborted, withDeadline } from './timing.js'

void t.test('presents itself, and beats as often as the hub wants', async (t) => {
  const { session } = await setUp(t, () => ({ version: '1.2.3', listingLagMs: 1_500 }), { heartbeatMs: 100 })
  t.match(session.hello, {
    protocolVersions: [1],
    sdkName: 'slipway-node',
    family: 'test-cloud',
    providerVersion: '1.2.3',
    listingLag: { seconds: 1n, nanos: 500_000_000 },
    holds: [],
  })
  t.match(session.hello.instanceId, /^[0-9a-f-]{36}$/)
  await until('five heartbeats', () => session.all('heartbeat').length >= 5)
})

void t.test('a stream that breaks loses nothing: held items are bound again, and reports said again', async (t) => {
  const goOn = deferred<void>()
  const { cloud, gateway, session, item } = await setUp(t, (cloud) => ({
    create: async (context, spec) => {
      const machine = await cloud.create(context, spec)
      await goOn.promise
      return machine
    },
  }))
  session.send(item.claimed())
  await until('the server step', () => item.stepNames.includes('server'))
  session.fail()
  const second = await gateway.session(2)
  t.match(second.hello.holds, [{ item: { id: item.id }, fence: 1n, generation: 1n }])
  t.equal(second.hello.instanceId, session.hello.instanceId)
  goOn.resolve()
  await settled(item)
  t.equal(cloud.count('create'), 1)
  t.ok(second.all('report').length > 0)
  t.equal(second.all('report')[0]?.sequence, 1n, 'each stream counts anew')
})

void t.test('a lost ack is made good on the next stream, and the step not run twice', async (t) => {
  const { cloud, gateway, session, item } = await setUp(t)
  let lost = 0
  gateway.judge = (report: Report) => {
    if (report.step?.name !== 'server' || lost > 0) return 'ack'
    lost += 1
    setImmediate(() => gateway.sessions[0]?.fail())
    return 'lose-ack'
  }
  session.send(item.claimed())
  await settled(item)
  t.equal(lost, 1)
  t.equal(cloud.count('create'), 1)
  t.equal(item.reports.filter(({ step }) => step?.name === 'server').length, 2, 'it was said twice')
  t.equal(gateway.sessions.length, 2)
})

void t.test('a stale fence stops the work at once', async (t) => {
  const stopped = deferred<unknown>()
  const { gateway, session, item } = await setUp(t, () => ({
    create: (context) =>
      new Promise((_resolve, reject) => {
        context.signal.addEventListener('abort', () => {
          stopped.resolve(context.signal.reason)
          reject(context.signal.reason as Error)
        })
        context.report({ externalId: 'x' }).catch(() => undefined)
      }),
  }))
  gateway.judge = (report) =>
    report.observed?.externalId === 'x' ? { nack: NackReason.STALE_FENCE, message: 'fence 1 is stale' } : 'ack'
  session.send(item.claimed())
  const reason = await stopped.promise
  t.ok(reason instanceof Stopped && reason.why === 'revoked')
  // What is said after it has come by the time that this one is released.
  gateway.judge = () => 'ack'
  const later = gateway.item()
  session.send(later.wish({ operation: Operation.DEPROVISION }).claimed())
  await settled(later)
  t.equal(item.outcome, undefined, 'a lost claim is not released')
})

void t.test('a revoked claim is dropped, and can be claimed again', async (t) => {
  const begun: AbortSignal[] = []
  const { cloud, session, item } = await setUp(t, (cloud) => ({
    create: async (context, spec) => {
      begun.push(context.signal)
      if (begun.length === 1) await untilAborted(new Promise(() => undefined), context.signal)
      return cloud.create(context, spec)
    },
  }))
  session.send(item.claimed())
  await until('the work to begin', () => begun.length === 1)
  session.send(item.revoked())
  await until('its signal', () => begun[0]?.aborted)
  session.send(item.claimed())
  await settled(item)
  t.equal(cloud.servers.size, 1)
})

void t.test('what Welcome calls lost is stopped; what it binds and nobody holds is given back', async (t) => {
  const begun = deferred<AbortSignal>()
  const { gateway, session, item } = await setUp(t, () => ({
    create: async (context) => {
      begun.resolve(context.signal)
      return untilAborted(new Promise(() => undefined), context.signal)
    },
  }))
  session.send(item.claimed())
  const signal = await begun.promise
  const stray = gateway.item()
  stray.fence = 4n
  gateway.welcome = (hello) => ({ lost: hello.holds, bound: [create(HeldSchema, { item: stray.ref, fence: 4n })] })
  session.fail()
  const second = await gateway.session(2)
  await until('the loss to be felt', () => signal.aborted)
  t.equal((signal.reason as Stopped).why, 'revoked')
  const release = await second.expect('release')
  t.match(release, { item: { id: stray.id }, fence: 4n, outcome: { case: 'retryAfter' } })
})

void t.test('a hub that drains is left for another replica, and nothing is interrupted', async (t) => {
  const goOn = deferred<void>()
  const { gateway, session, item, cloud } = await setUp(t, (cloud) => ({
    create: async (context, spec) => {
      const machine = await cloud.create(context, spec)
      await goOn.promise
      return machine
    },
  }))
  session.send(item.claimed())
  await until('the server step', () => item.stepNames.includes('server'))
  const late = gateway.item()
  session.send({ case: 'drain', value: { reason: 'rolling restart', deadline: durationFromMs(200) } }, late.claimed())
  const second = await gateway.session(2)
  t.match(second.hello.holds, [{ item: { id: item.id } }])
  await until('the first stream to be closed', () => session.over)
  await until('the late claim to be given back', () => late.outcome?.case === 'retryAfter')
  goOn.resolve()
  await settled(item)
  t.equal(cloud.count('create'), 1)
  t.equal(gateway.sessions.length, 2)
})

void t.test('a stream that is being left has no say any more in what is held', async (t) => {
  const { gateway, session, item, cloud } = await setUp(t)
  // The hub binds the item to the new stream, and only then reads the report that came over the old one.
  gateway.judge = (report, from) => {
    if (report.step?.name !== 'server' || from !== session) return 'ack'
    session.send({ case: 'drain', value: { reason: 'rolling restart' } })
    return 'ignore'
  }
  gateway.welcome = (hello) => {
    const sequence = session.all('report').at(-1)?.sequence ?? 0n
    session.send(
      { case: 'nack', value: { sequence, reason: NackReason.STALE_FENCE } },
      { case: 'revoked', value: { item: item.ref, fence: item.fence, reason: 'bound elsewhere' } },
    )
    return { bound: hello.holds }
  }
  session.send(item.claimed())
  await settled(item)
  t.equal(cloud.count('create'), 1)
  t.equal(gateway.sessions[1]?.all('report')[0]?.step?.name, 'server', 'it was said again')
})

void t.test('what breaks the contract fails its own attempt, and never the session', async (t) => {
  const { gateway, session, item } = await setUp(t, (cloud) => ({
    listIntervalMs: 20,
    list: async function* () {
      yield { externalId: 'x', ownershipKey: 'k'.repeat(300) }
      await Promise.resolve()
    },
    create: async (context, spec) => {
      if (spec.typeId === 'bad') await context.report({ externalId: 'x'.repeat(600) })
      return cloud.create(context, spec)
    },
  }))
  const bad = gateway.item()
  session.send(bad.wish({ spec: { ...bad.desired.spec, typeId: 'bad' } as never }).claimed(), item.claimed())
  await settled(item)
  await released(bad)
  t.match(bad.failures, [{ message: /breaks the contract.*external_id/s, retryable: false }])
  await session.expect('heartbeat', ({ message }) => message.includes('ownership_key'))
  t.notOk(session.over)
  const odd = new TestCloud().provider({ version: 'v'.repeat(100) })
  const running = await startProvider(t, gateway, odd)
  await t.rejects(running.ended, { name: 'FinalError', reason: 'HELLO_INVALID', message: /provider_version/ })
})

void t.test('the work goes on while the hub is away, and is handed in when it is back', async (t) => {
  const { cloud, gateway, session, item } = await setUp(t, (cloud) => ({
    create: async (context, spec) => {
      gateway.close()
      return cloud.create(context, spec)
    },
  }))
  session.send(item.claimed())
  await until('the stream to break', () => session.over)
  t.equal(cloud.count('create'), 0, 'no effect begins without the word of the hub')
  await gateway.listen()
  await settled(item)
  t.equal(cloud.count('create'), 1)
})

void t.test('a lease that runs out with no hub ends all that is held', async (t) => {
  const begun = deferred<AbortSignal>()
  const { gateway, session, item } = await setUp(
    t,
    () => ({
      create: (context) => {
        begun.resolve(context.signal)
        return untilAborted(new Promise(() => undefined), context.signal)
      },
    }),
    { heartbeatMs: 100, leaseMs: 400 },
  )
  session.send(item.claimed())
  const signal = await begun.promise
  gateway.close()
  await until('the claim to be over', () => signal.aborted)
  t.match((signal.reason as Stopped).message, /lease ran out/)
  await gateway.listen()
  const second = await gateway.session(2)
  t.same(second.hello.holds, [], 'what may be another’s by now is not named')
})

void t.test('a process that stood still asks what is still its own before it goes on', async (t) => {
  const { session, gateway } = await setUp(t, () => ({}), { heartbeatMs: 60, leaseMs: 300 })
  await session.expect('heartbeat')
  // The event loop stands still for longer than the acting share of the lease.
  const end = performance.now() + 350
  while (performance.now() < end);
  await gateway.session(2)
  t.ok(session.over)
})

void t.test('a hub that cannot store for the moment is told again', async (t) => {
  const { gateway, session, item } = await setUp(t)
  let refusals = 2
  gateway.judge = () => (refusals-- > 0 ? { nack: NackReason.UNAVAILABLE } : 'ack')
  session.send(item.claimed())
  await settled(item)
  t.ok(refusals < 0)
})

void t.test('a report that makes no sense to the hub fails the attempt, and not the process', async (t) => {
  const { gateway, session, item } = await setUp(t)
  gateway.judge = (report) =>
    report.step?.name === 'server' ? { nack: NackReason.INVALID, message: 'no such thing' } : 'ack'
  session.send(item.claimed())
  await released(item)
  t.match(item.failures, [{ message: /the hub refused a report: no such thing/, retryable: false }])
})

void t.test('ends where going on makes no sense, and says why', async (t) => {
  for (const [code, reason, message] of [
    [status.FAILED_PRECONDITION, 'FAMILY_MISMATCH', /another family or kind/],
    [status.FAILED_PRECONDITION, 'VERSION_UNSUPPORTED', /upgrade the older one/],
    [status.PERMISSION_DENIED, 'CERTIFICATE_REVOKED', /enrol again/],
    [status.PERMISSION_DENIED, 'PROVIDER_DELETED', /deleted at the hub/],
  ] as const) {
    const gateway = await startGateway(t)
    gateway.refuseHello = () => ({ code, reason })
    const running = await startProvider(t, gateway, new TestCloud().provider())
    await t.rejects(running.ended, { name: 'FinalError', reason, message })
  }
  const gateway = await startGateway(t)
  gateway.welcome = () => ({ protocolVersion: 9 })
  const running = await startProvider(t, gateway, new TestCloud().provider())
  await t.rejects(running.ended, { name: 'FinalError', reason: 'VERSION_UNSUPPORTED' })
})

void t.test('a certificate revoked in mid-session ends it too, and everything else connects again', async (t) => {
  const { gateway, running } = await setUp(t)
  gateway.sessions[0]?.fail({ code: status.INTERNAL, reason: 'INTERNAL' })
  const second = await readySession(gateway, 2)
  second.fail({ code: status.PERMISSION_DENIED, reason: 'CERTIFICATE_REVOKED' })
  await t.rejects(running.ended, { name: 'FinalError', reason: 'CERTIFICATE_REVOKED' })
})

void t.test('stops in good order: finishes an effect, hands back the rest, and says so', async (t) => {
  const effect = deferred<void>()
  const begun = deferred<void>()
  const { cloud, running, session, item, gateway } = await setUp(t, (cloud) => ({
    create: async (context, spec) => {
      if (spec.typeId === 'slow') await context.poll(() => Promise.resolve(undefined))
      const id = await context.step('server', {
        run: async () => {
          begun.resolve()
          await effect.promise
          return cloud.make(spec.ownershipKey, spec.name).id
        },
        find: () => Promise.resolve(undefined),
      })
      await context.poll(() => Promise.resolve(undefined))
      return { externalId: id }
    },
  }))
  const slow = gateway.item()
  slow.wish({ spec: { ...slow.desired.spec, typeId: 'slow' } as never })
  session.send(item.claimed(), slow.claimed())
  await begun.promise
  const stopping = running.stop()
  await released(slow)
  t.equal(slow.outcome?.case, 'retryAfter')
  await session.expect('ready', ({ capacity }) => capacity === 0)
  t.equal(item.outcome, undefined, 'the effect is waited for')
  effect.resolve()
  await stopping
  await until('the release', () => item.outcome?.case === 'retryAfter')
  t.ok(item.stepNames.includes('server'))
  t.equal(cloud.count('create'), 1)
  await until('the stream to end', () => session.over)
  t.same(slow.failures, [])
})

void t.test('a long inventory is said in parts that fit, without holding up the heartbeats', async (t) => {
  const count = 2_300
  const { session } = await setUp(t, () => ({
    list: async function* () {
      for (let index = 0; index < count; index += 1)
        yield { externalId: `s-${index}`, ownershipKey: 'k', name: 'x'.repeat(200) }
      await Promise.resolve()
    },
  }))
  await session.expect('inventory', ({ final }) => final)
  const parts = session.all('inventory')
  t.equal(new Set(parts.map(({ listingId }) => listingId)).size, 1)
  t.ok(parts.every(({ resources }) => resources.length <= 1_000))
  t.same(
    parts.flatMap(({ resources }) => resources.map(({ externalId }) => externalId)),
    Array.from({ length: count }, (_, index) => `s-${index}`),
  )
  t.equal(parts.at(-1)?.complete, true)
})

void t.test('a hub that does not read makes the provider wait, and not grow', async (t) => {
  const sent: number[] = []
  const { session } = await setUp(t, () => ({
    listIntervalMs: 1,
    list: async function* () {
      sent.push(performance.now())
      for (let index = 0; index < 500; index += 1)
        yield { externalId: `s-${index}`, ownershipKey: 'k', name: 'x'.repeat(250) }
      await Promise.resolve()
    },
  }))
  await session.expect('inventory', ({ final }) => final)
  session.pause()
  let before = -1
  // It has stopped when nothing new was listed for a good while; each listing takes a few milliseconds.
  for (let rounds = 0; before !== sent.length; rounds += 1) {
    before = sent.length
    await sleep(250)
    t.ok(rounds < 40, 'it must stop')
    if (rounds >= 40) break
  }
  t.comment(`stopped after ${sent.length} listings`)
  t.ok(sent.length < 1_000)
})

void t.test('the holder’s lease ends before the hub’s', async (t) => {
  const lease = new Lease()
  t.ok(lease.hasExpired(0), 'there is none before the first Welcome')
  t.notOk(lease.mayAct(0))
  lease.renew(1_000, 900)
  t.ok(lease.mayAct(1_599))
  t.notOk(lease.mayAct(1_600))
  t.notOk(lease.hasExpired(1_899))
  t.ok(lease.hasExpired(1_900))
  lease.renew(500)
  t.ok(lease.hasExpired(1_900), 'an older sign of life takes nothing back and gives nothing')
  t.ok(lease.covers(1_000, 1_599))
  t.notOk(lease.covers(1_000, 1_600))
})

void t.test('waits and deadlines end when they are told to', async (t) => {
  const controller = new AbortController()
  const reason = new Error('enough')
  setImmediate(() => controller.abort(reason))
  await t.rejects(sleep(60_000, controller.signal), reason)
  await t.rejects(sleep(60_000, controller.signal), reason)
  await t.rejects(untilAborted(new Promise(() => undefined), controller.signal), reason)
  const late = (): Error => new ProviderError('TIMEOUT', 'late')
  await t.rejects(
    withDeadline(5, new AbortController().signal, late, () => new Promise(() => undefined)),
    { code: 'TIMEOUT' },
  )
  await t.rejects(
    withDeadline(5_000, controller.signal, late, () => Promise.resolve(1)),
    reason,
  )
  t.equal(await withDeadline(5_000, new AbortController().signal, late, () => Promise.resolve(1)), 1)
  for (let attempt = 0; attempt < 60; attempt += 1) {
    const delay = backOffMs(attempt, 250, 30_000)
    t.ok(delay >= 0 && delay <= Math.min(30_000, 250 * 2 ** attempt))
  }
})
