import fc from 'fast-check'
import t from 'tap'
import { monotonicMs, sleep } from '../internal/timing.js'
import { Budget, Budgets, type Urgency } from './budgets.js'

const never = new AbortController().signal

void t.test('never more than the limit in any window, whoever asks when', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 5, max: 20 }),
      fc.array(fc.integer({ min: 0, max: 6 }), { minLength: 1, maxLength: 12 }),
      async (limit, windowMs, gaps) => {
        const budget = new Budget(limit, windowMs)
        const grants: number[] = []
        const waiting: Promise<void>[] = []
        for (const gap of gaps) {
          await sleep(gap)
          waiting.push(budget.take('normal', never).then(() => void grants.push(monotonicMs())))
        }
        await Promise.all(waiting)
        // A grant is seen a moment after it is made, so neighbours may look closer than they are by that moment.
        for (let index = limit; index < grants.length; index += 1) {
          if ((grants[index] ?? 0) - (grants[index - limit] ?? 0) < windowMs - 2) return false
        }
        return true
      },
    ),
    { numRuns: 15 },
  )
  t.pass('held for all')
})

void t.test('urgent work goes first, and background last', async (t) => {
  const budget = new Budget(1, 20)
  await budget.take('normal', never)
  const order: Urgency[] = []
  const take = (urgency: Urgency): Promise<void> => budget.take(urgency, never).then(() => void order.push(urgency))
  await Promise.all([take('background'), take('normal'), take('urgent')])
  t.same(order, ['urgent', 'normal', 'background'])
})

void t.test('waiting ends with the signal, and takes nothing', async (t) => {
  const budget = new Budget(1, 50)
  await budget.take('normal', never)
  const controller = new AbortController()
  const reason = new Error('no longer wanted')
  const waiting = budget.take('urgent', controller.signal)
  controller.abort(reason)
  await t.rejects(waiting, reason)
  await t.rejects(budget.take('urgent', controller.signal), reason)
  await budget.take('normal', never)
  t.equal(budget.state().remaining, 0)
})

void t.test('says what is left', async (t) => {
  let now = 1_000
  const budget = new Budget(3, 100, () => now)
  t.same(budget.state(), { limit: 3, remaining: 3, resetsInMs: 0 })
  await budget.take('normal', never)
  now += 40
  await budget.take('normal', never)
  t.same(budget.state(), { limit: 3, remaining: 1, resetsInMs: 100 })
  now += 70
  t.same(budget.state(), { limit: 3, remaining: 2, resetsInMs: 30 })
  t.throws(() => new Budget(0, 100), RangeError)
  await t.rejects(new Budgets().take('nope', 'urgent', never), /no budget "nope"/)
})
