import fc from 'fast-check'
import t from 'tap'
import { RateBudget, rateHeadersOf, type Urgency } from './rate-budget.js'

const { signal } = new AbortController()

/** Takes what is let through at once. */
async function taken(budget: RateBudget, urgency: Urgency, most: number): Promise<number> {
  let count = 0
  const stop = new AbortController()
  const calls = Array.from({ length: most }, () =>
    budget.take(urgency, stop.signal).then(
      () => (count += 1),
      () => undefined,
    ),
  )
  await new Promise(setImmediate)
  stop.abort()
  await Promise.all(calls)
  return count
}

void t.test('says how it stands', async (t) => {
  let nowMs = 0
  const budget = new RateBudget(() => nowMs)
  t.strictSame(budget.state, { limit: 3_600, remaining: 3_600, resetsInMs: 0 })
  await budget.take('urgent', new AbortController().signal)
  budget.done({ limit: 3_600, remaining: 3_000 })
  t.strictSame(budget.state, { limit: 3_600, remaining: 3_000, resetsInMs: 600_000 })
  nowMs += 100_000
  t.strictSame(budget.state, { limit: 3_600, remaining: 3_100, resetsInMs: 500_000 })
})

void t.test('reads the headers, and nothing else', async (t) => {
  const headers = (limit: string, remaining: string) =>
    new Headers({ 'RateLimit-Limit': limit, 'RateLimit-Remaining': remaining })
  t.strictSame(rateHeadersOf(headers('3600', '12')), { limit: 3_600, remaining: 12 })
  t.equal(rateHeadersOf(new Headers()), undefined)
  for (const [limit, remaining] of [
    ['0', '1'],
    ['-1', '1'],
    ['many', '1'],
    ['3600', ''],
  ] as const)
    t.equal(rateHeadersOf(headers(limit, remaining)), undefined, `${limit} ${remaining}`)
})

void t.test('lets the documented limit through before it has heard anything, and gives back steadily', async (t) => {
  let nowMs = 0
  const budget = new RateBudget(() => nowMs)
  t.equal(await taken(budget, 'urgent', 4_000), 3_600)
  nowMs += 10_000
  t.equal(await taken(budget, 'urgent', 100), 10, 'one a second')
})

void t.test('each urgency leaves its share to those above', async (t) => {
  const budget = new RateBudget(() => 0)
  t.equal(await taken(budget, 'background', 4_000), 2_880, 'a fifth is left')
  t.equal(await taken(budget, 'normal', 4_000), 540, 'a twentieth is left')
  t.equal(await taken(budget, 'urgent', 4_000), 180)
})

void t.test('believes the headers: others spend of the same budget', async (t) => {
  const budget = new RateBudget(() => 0)
  await budget.take('urgent', signal)
  budget.done({ limit: 3_600, remaining: 3 })
  t.equal(budget.left, 3)
  t.equal(await taken(budget, 'urgent', 10), 3)
  t.ok(budget.nextInMs > 0)
})

void t.test('counts calls under way that the header may not have counted', async (t) => {
  const budget = new RateBudget(() => 0)
  for (let call = 0; call < 5; call += 1) await budget.take('urgent', signal)
  budget.done({ limit: 7_200, remaining: 10 })
  t.equal(budget.left, 6)
})

void t.test('urgent calls go first once there is something again', async (t) => {
  const budget = new RateBudget()
  await budget.take('urgent', signal)
  budget.done({ limit: 3_600, remaining: 719 })
  const order: string[] = []
  const looking = budget.take('background', signal).then(() => order.push('background'))
  budget.exhausted()
  const deleting = budget.take('urgent', signal).then(() => order.push('urgent'))
  budget.done({ limit: 3_600, remaining: 3_600 })
  await Promise.all([looking, deleting])
  t.strictSame(order, ['urgent', 'background'])
})

void t.test('what would wait too long is told so, and when to come again', async (t) => {
  const budget = new RateBudget(() => 0)
  await budget.take('urgent', signal)
  budget.done({ limit: 3_600, remaining: 0 })
  for (const [urgency, seconds] of [
    ['normal', 181],
    ['background', 721],
  ] as const)
    await t.rejects(budget.take(urgency, signal), {
      code: 'RATE_LIMITED',
      retryable: true,
      retryAfterMs: seconds * 1_000 + 50,
      message: new RegExp(`${urgency} can be made in ${seconds + 1} s`),
    })
})

void t.test('who gives up while waiting costs nothing', async (t) => {
  const budget = new RateBudget(() => 0)
  await budget.take('urgent', signal)
  budget.done({ limit: 3_600, remaining: 0 })
  const patience = new AbortController()
  const waiting = budget.take('urgent', patience.signal)
  patience.abort(new Error('enough'))
  await t.rejects(waiting, /enough/)
  await t.rejects(budget.take('urgent', AbortSignal.abort(new Error('before'))), /before/)
  t.equal(budget.left, 0)
})

void t.test('waits for what comes back', async (t) => {
  const budget = new RateBudget()
  await budget.take('urgent', signal)
  // Ten a second come back.
  budget.done({ limit: 36_000, remaining: 0 })
  const startedAtMs = performance.now()
  await budget.take('urgent', signal)
  t.ok(performance.now() - startedAtMs >= 99)
})

void t.test('never lets through more than an honest API would', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ waitMs: fc.nat(20_000), calls: fc.nat(400), others: fc.nat(50) }), { maxLength: 30 }),
      async (steps) => {
        let nowMs = 0
        let bucket = 3_600
        const budget = new RateBudget(() => nowMs)
        for (const { waitMs, calls, others } of steps) {
          nowMs += waitMs
          bucket = Math.min(3_600, bucket + waitMs / 1_000)
          const made = await taken(budget, 'urgent', calls)
          if (made > bucket + 1e-6) return false
          bucket -= made
          // Other instances spend too, and the answers to our calls tell.
          if (made > 0) bucket -= Math.min(Math.floor(bucket), others)
          for (let call = 0; call < made; call += 1) budget.done({ limit: 3_600, remaining: Math.floor(bucket) })
        }
        return true
      },
    ),
  )
})
