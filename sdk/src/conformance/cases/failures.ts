import { FailureCode, Health } from '@slipway/proto/provider/v1'
import type { FaultName } from '../adapter.js'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import type { Item } from '../gateway/item.js'
import type { Instance } from '../instance.js'
import { expect, expectEqual } from '../until.js'
import { gone } from './delete.js'
import { expectGone, pause } from './moments.js'

/** Orders a machine while a fault is on, and waits for the failure. */
async function failWith(bench: Bench, fault: FaultName) {
  const instance = await bench.instance()
  // Some faults go into the order; throttled, a rack would not even show its machines.
  if (fault !== 'rate-limited') await bench.inject(fault)
  const item = await bench.order()
  if (fault === 'rate-limited') await bench.inject(fault)
  await instance.claim(item)
  const failure = await bench.failed(item)
  await bench.released(item)
  return { instance, item, failure }
}

/** The fault is over: now it must go well. */
async function recover(bench: Bench, item: Item, instance: Instance): Promise<void> {
  await bench.inject('none')
  await bench.drive(item, [instance])
  await bench.server(item)
}

function refused(name: 'capacity' | 'quota', code: 'CAPACITY' | 'QUOTA'): Case[] {
  return [
    {
      id: `failures/${name}-is-typed`,
      rule: `A create that is refused for ${name} fails with ${code}, a message, and nothing made.`,
      needs: { faults: [name] },
      async run(bench) {
        const { item, failure } = await failWith(bench, name)
        expectEqual(FailureCode[failure.code], code, 'the code')
        expect(failure.message !== '', 'the failure says nothing')
        await expectGone(bench, item)
        expect(item.observed.createInDoubt !== true, 'a create that was refused is called in doubt')
      },
    },
    {
      id: `failures/${name}-leaves-nothing`,
      rule: `What was refused for ${name} is deprovisioned without a trace, so that the order can go elsewhere.`,
      needs: { faults: [name] },
      async run(bench) {
        const { item, instance } = await failWith(bench, name)
        item.wish(gone)
        await bench.drive(item, [instance])
        await expectGone(bench, item)
      },
    },
  ]
}

/** Failures of the cloud: typed, told, and survived. */
export const failureCases: readonly Case[] = [
  ...refused('capacity', 'CAPACITY'),
  ...refused('quota', 'QUOTA'),
  {
    id: 'failures/rate-limit-is-typed',
    rule: 'Too many calls are RATE_LIMITED, may be retried, and are over when the limit is.',
    needs: { faults: ['rate-limited', 'none'] },
    async run(bench) {
      const { item, instance, failure } = await failWith(bench, 'rate-limited')
      expectEqual(FailureCode[failure.code], 'RATE_LIMITED', 'the code')
      expect(failure.retryable, 'it is not called retryable')
      await recover(bench, item, instance)
    },
  },
  {
    id: 'failures/rate-limit-is-not-hammered',
    rule: 'While calls are refused for too many, there are not more of them.',
    needs: { faults: ['rate-limited', 'none'], described: ['listIntervalMs'] },
    async run(bench) {
      const { item, instance } = await failWith(bench, 'rate-limited')
      const before = (await bench.truth()).calls
      await pause(6_000)
      const after = (await bench.truth()).calls
      if (before !== undefined && after !== undefined)
        expect(after - before <= 60, `${after - before} calls were made in 6 s, all to be refused`)
      await recover(bench, item, instance)
    },
  },
  {
    id: 'failures/rate-limit-costs-no-session',
    rule: 'A provider that is throttled goes on to give signs of life, and says that it is not well.',
    needs: { faults: ['rate-limited', 'none'], described: ['listIntervalMs'] },
    async run(bench) {
      const instance = await bench.instance()
      const session = await instance.ready()
      await bench.inject('rate-limited')
      await session.expect(
        'heartbeat',
        ({ health }) => health === Health.DEGRADED || health === Health.UNHEALTHY,
        'a heartbeat that says so',
      )
      const sick = session.all('heartbeat').length
      await bench.inject('none')
      await bench.until('a heartbeat that says that all is well', () =>
        session
          .all('heartbeat')
          .slice(sick)
          .some(({ health }) => health === Health.HEALTHY),
      )
      expect(session.open, 'the session was closed')
    },
  },
  {
    id: 'failures/unavailable-is-retried',
    rule: 'An API that is unavailable once costs a retry, and neither the order nor a second machine.',
    needs: { faults: ['unavailable'] },
    async run(bench) {
      await bench.inject('unavailable')
      const { item } = await bench.provisioned()
      for (const { code, retryable } of item.failures) {
        expect(retryable, 'the failure is not called retryable')
        expectEqual(FailureCode[code], 'UNAVAILABLE', 'the code')
      }
      await bench.server(item)
    },
  },
  {
    id: 'failures/lost-answer-is-looked-into',
    rule: 'A create whose answer was lost after it took effect is found again, and not made again.',
    needs: { faults: ['lost-answer'] },
    async run(bench) {
      await bench.inject('lost-answer')
      const { item } = await bench.provisioned()
      for (const { retryable } of item.failures) expect(retryable, 'the failure is not called retryable')
      await bench.server(item)
    },
  },
  {
    id: 'failures/no-answer-is-looked-into',
    rule: 'A create that had no effect and no answer is made again, once that is sure.',
    needs: { faults: ['timeout-before'] },
    async run(bench) {
      await bench.inject('timeout-before')
      const { item } = await bench.provisioned()
      await bench.server(item)
    },
  },
  {
    id: 'failures/one-does-not-delay-the-others',
    rule: 'One item that fails again and again delays no other.',
    needs: { faults: ['create-fails'], kind: 'dynamic' },
    async run(bench) {
      const instance = await bench.instance()
      await bench.inject('create-fails')
      const poisoned = await bench.order()
      bench.extraData = {}
      await instance.claim(poisoned)
      const others = [await bench.order(), await bench.order(), await bench.order()]
      for (const item of others) await instance.claim(item)
      for (const item of others) await bench.drive(item)
      for (const item of others) await bench.server(item)
      await bench.released(poisoned)
    },
  },
  {
    id: 'failures/are-released',
    rule: 'After a failure that may be retried the item is released with retry_after: the credit comes back.',
    needs: { faults: ['rate-limited', 'none'] },
    async run(bench) {
      const { item } = await failWith(bench, 'rate-limited')
      expectEqual(item.outcome?.case, 'retryAfter', 'how it was released')
    },
  },
  {
    id: 'failures/of-credentials-are-typed',
    rule: 'Where every credential is refused, the provider says so with CREDENTIALS, and is unhealthy.',
    needs: { faults: ['credentials-refused'] },
    async run(bench) {
      await bench.inject('credentials-refused')
      const instance = await bench.instance({ waitForReady: false })
      const session = await instance.session(1)
      const beat = await session.expect(
        'heartbeat',
        ({ health, failure }) => health === Health.UNHEALTHY && failure?.code === FailureCode.CREDENTIALS,
        'an unhealthy heartbeat with CREDENTIALS',
      )
      expect(beat.message !== '', 'the heartbeat does not say why')
    },
  },
  {
    id: 'failures/say-that-all-is-well',
    rule: 'A provider to which nothing happens says that it is healthy.',
    basic: true,
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const { health } = await session.expect('heartbeat')
      expect(health === Health.HEALTHY || health === Health.UNSPECIFIED, `it says ${Health[health]}`)
    },
  },
]
