import { randomUUID } from 'node:crypto'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import { FailureCode, type Validated } from '@slipway/proto/provider/v1'
import type { OrderSample } from '../adapter.js'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import type { HubSession } from '../gateway/session.js'
import { expect, expectEqual } from '../until.js'
import { reportNumber, strikeAt } from './moments.js'
import type { Verdict } from '../gateway/gateway.js'

const needs = { capabilities: ['VALIDATE'] } as const

/** An order as Validate carries it: one that nobody will ever claim. */
async function specOf(bench: Bench, sample: OrderSample) {
  const item = await bench.order(sample)
  bench.gateway.items.delete(item.id)
  return item.desired.spec
}

/** Asks about an order, and waits for the answer. */
async function ask(bench: Bench, session: HubSession, sample?: OrderSample): Promise<Validated> {
  const validationId = randomUUID()
  const spec = sample === undefined ? undefined : await specOf(bench, sample)
  const value = { validationId, deadline: durationFromMs(10_000), ...(spec !== undefined && { spec }) }
  session.send({ case: 'validate', value })
  return session.expect('validated', (answer) => answer.validationId === validationId, 'an answer to Validate')
}

/** What is wrong with an order is known before it costs money. */
export const validateCases: readonly Case[] = [
  {
    id: 'validate/finds-nothing-wrong-with-a-good-order',
    rule: 'An order that works is answered without violations and without a failure.',
    needs,
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const { violations, failure } = await ask(bench, session, bench.description.order)
      expectEqual(violations.map(({ field, description }) => `${field}: ${description}`).join('; '), '', 'violations')
      expect(failure === undefined, `it could not be checked: ${failure?.message}`)
    },
  },
  {
    id: 'validate/names-the-field-that-is-wrong',
    rule: 'A bad order is answered with a violation that names the field and says what is wrong.',
    needs: { ...needs, described: ['badOrders'] },
    async run(bench) {
      const session = await (await bench.instance()).ready()
      for (const { title, order, field } of bench.description.badOrders ?? []) {
        const { violations } = await ask(bench, session, order)
        const found = violations.find((violation) => violation.field === field)
        const named = violations.map((violation) => violation.field).join(', ') || 'nothing'
        expect(found !== undefined, `${title}: ${field} is not named, but ${named}`)
        expect(found.description !== '', `${title}: the violation says nothing`)
      }
    },
  },
  {
    id: 'validate/makes-nothing',
    rule: 'Validate has no effect.',
    needs: { ...needs, described: ['badOrders'] },
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const before = await bench.truth()
      await ask(bench, session, bench.description.order)
      for (const { order } of bench.description.badOrders ?? []) await ask(bench, session, order)
      const after = await bench.truth()
      expectEqual(after.things.length, before.things.length, 'things that exist')
      expectEqual(after.writes, before.writes, 'calls that change something')
    },
  },
  {
    id: 'validate/agrees-with-create',
    rule: 'Whatever Validate has nothing against is made, and whatever it is against is refused.',
    needs: { ...needs, described: ['badOrders'] },
    async run(bench) {
      const instance = await bench.instance()
      const session = await instance.ready()
      const orders = [bench.description.order, ...(bench.description.badOrders ?? []).map(({ order }) => order)]
      for (const order of orders) {
        const { violations } = await ask(bench, session, order)
        const item = await bench.order(order)
        await instance.claim(item)
        await bench.released(item)
        expectEqual(item.settledAt !== undefined, violations.length === 0, `whether ${JSON.stringify(order)} was made`)
      }
    },
  },
  {
    id: 'validate/answers-many-at-once',
    rule: 'Questions that come at once are each answered, with their own id.',
    needs: { ...needs, kind: 'dynamic' },
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const answers = await Promise.all(Array.from({ length: 20 }, () => ask(bench, session, bench.description.order)))
      expect(
        answers.every(({ violations }) => violations.length === 0),
        'one of them has violations',
      )
    },
  },
  {
    id: 'validate/answers-while-it-works',
    rule: 'A question is answered while machines are made.',
    needs,
    async run(bench) {
      const instance = await bench.instance()
      const session = await instance.ready()
      const item = await bench.order()
      let answer: Validated | undefined
      const reached = strikeAt(bench, item, reportNumber(1), async (): Promise<Verdict> => {
        answer = await ask(bench, session, bench.description.order)
        return 'ack'
      })
      await instance.claim(item)
      await reached()
      expectEqual(answer?.violations.length, 0, 'violations')
      await bench.drive(item)
    },
  },
  {
    id: 'validate/says-when-it-cannot-tell',
    rule: 'An order that could not be checked is answered with the failure, and not with silence or a clean bill.',
    needs: { ...needs, faults: ['rate-limited'], kind: 'dynamic' },
    async run(bench) {
      const session = await (await bench.instance()).ready()
      await bench.inject('rate-limited')
      const { failure } = await ask(bench, session, bench.description.order)
      expect(failure !== undefined, 'it was answered as if it had been checked')
      expectEqual(FailureCode[failure.code], 'RATE_LIMITED', 'the code of the failure')
    },
  },
  {
    id: 'validate/answers-a-question-without-an-order',
    rule: 'A question that makes no sense is answered, and costs no session.',
    needs,
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const { violations, failure } = await ask(bench, session)
      expect(violations.length > 0 || failure !== undefined, 'it was found to be in order')
      await session.beats(1)
      expect(session.open, 'the session was closed for it')
    },
  },
]
