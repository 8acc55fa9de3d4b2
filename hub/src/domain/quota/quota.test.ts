import fc from 'fast-check'
import t from 'tap'
import { monthEnd, monthStart, monthsWithin, timeMicros, toCents } from '../price/cost.js'
import {
  carriedCharge,
  chargeOf,
  excessOf,
  limitKinds,
  noCharge,
  releasedCharge,
  spentBy,
  type Demand,
  type Limit,
} from './quota.js'

const price = { currency: 'EUR', hourlyMicros: 7_000, monthlyMicros: 4_000_000, setupMicros: 1_000_000 }
const limit: Limit = {
  id: 'l',
  quota: 'organizations/o/quotas/q',
  organizationId: 'o',
  workspaceId: null,
  kind: 'HOSTS',
  className: '',
  family: '',
  currency: '',
  maximum: 10,
  used: 0,
}
const demand: Demand = {
  organizationId: 'o',
  workspaceId: 'w',
  className: 'small',
  vcpus: 2,
  memoryMib: 4096,
  place: { family: 'cloud', price, free: false },
}
const at = (text: string) => new Date(`${text}Z`)

void t.test('what counts is by the kind of limit, and only where it is about such hosts', (t) => {
  const now = at('2026-04-16T00:00:00')
  const amount = (over: Partial<Limit>, of: Partial<Demand> = {}) =>
    chargeOf({ ...limit, ...over }, { ...demand, ...of }, now).amount
  t.equal(amount({}), 1)
  t.equal(amount({ kind: 'VCPUS' }), 2)
  t.equal(amount({ kind: 'MEMORY_MIB' }), 4096)
  t.equal(amount({ kind: 'HOURLY_MICROS', currency: 'EUR' }), 7_000)
  t.equal(amount({ kind: 'MONTHLY_MICROS', currency: 'EUR' }), 1_000_000 + 15 * 24 * 7_000, 'set-up, and half of April')
  t.equal(amount({ workspaceId: 'w' }), 1)
  t.equal(amount({ workspaceId: 'other' }), 0)
  t.equal(amount({ organizationId: 'other' }), 0)
  t.equal(amount({ className: 'large' }), 0)
  t.equal(amount({ family: 'rack' }), 0)
  t.equal(amount({ family: 'cloud' }, { place: null }), 0, 'counted when there is a place')
  t.equal(amount({ kind: 'HOURLY_MICROS', currency: 'EUR' }, { place: null }), 0)
  t.end()
})

void t.test('an order is refused for what it adds, and for money that cannot be told', (t) => {
  const now = at('2026-04-16T00:00:00')
  const excess = (over: Partial<Limit>, of: Partial<Demand> = {}) =>
    excessOf({ ...limit, ...over }, { ...demand, ...of }, now)?.message
  t.equal(excess({ used: 9 }), undefined)
  t.match(excess({ used: 10 }), /allows 10 hosts; 10 are taken, and this would be 1 more/)
  t.match(excess({ kind: 'VCPUS', used: 9, className: 'small' }), /allows 10 vCPUs of class small/)
  const money = { kind: 'HOURLY_MICROS', currency: 'EUR', maximum: 10_000 } as const
  t.equal(excess({ ...money, used: 3_000 }), undefined, 'to the last millionth')
  t.match(
    excess({ ...money, used: 3_001 }),
    /allows 0\.01 EUR an hour; 0\.003001 EUR is taken, and this would be 0\.007 EUR more/,
  )
  const place = { family: 'cloud', price: null, free: false }
  t.match(excess(money, { place }), /no known price/)
  t.equal(excess(money, { place: { ...place, free: true } }), undefined, 'what costs nothing is within any budget')
  t.match(excess({ ...money, currency: 'USD' }), /budget in USD, and the price is in EUR/)
  t.equal(excess({ ...money, family: 'rack', currency: 'USD' }), undefined, 'which is not about such hosts')
  t.equal(
    excessOf({ ...limit, used: 20 }, demand, now, { ...noCharge, amount: 1 }),
    undefined,
    'what counts already stays',
  )
  t.end()
})

void t.test('a monthly budget: what is spent stays spent, and the next month begins anew', (t) => {
  const monthly: Limit = { ...limit, kind: 'MONTHLY_MICROS', currency: 'EUR', maximum: 1e9 }
  const placed = at('2026-04-16T00:00:00')
  const charge = chargeOf(monthly, demand, placed)
  t.equal(chargeOf(monthly, demand, at('2026-04-20T00:00:00'), charge), charge, 'the same price goes on')
  const dayLater = at('2026-04-17T00:00:00')
  t.equal(spentBy(charge, dayLater), 1_000_000 + 24 * 7_000)
  const released = releasedCharge(charge, dayLater)
  t.strictSame(released, { amount: 1_168_000, settled: 1_168_000, running: null })
  const dearer = { ...price, hourlyMicros: 14_000, monthlyMicros: 0, setupMicros: 0 }
  const moved = chargeOf(
    monthly,
    { ...demand, place: { family: 'cloud', price: dearer, free: false } },
    dayLater,
    charge,
  )
  t.equal(moved.amount, 1_168_000 + 14 * 24 * 14_000, 'and what is ahead, at the new price')
  const may = at('2026-05-03T12:00:00')
  t.equal(carriedCharge(charge, may).amount, 4_000_000, 'May has 744 hours: the monthly price is the most')
  t.strictSame(carriedCharge(released, may), noCharge)
  t.end()
})

void t.test('time is charged exactly', (t) => {
  const anyPrice = fc.record({
    currency: fc.constant('EUR'),
    hourlyMicros: fc.integer({ min: 0, max: 1_000_000_000 }),
    monthlyMicros: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 500_000_000_000 })),
    setupMicros: fc.constant(0),
  })
  const anyTime = fc.date({ min: at('2020-01-01T00:00:00'), max: at('2035-01-01T00:00:00'), noInvalidDate: true })
  fc.assert(
    fc.property(anyPrice, anyTime, (some, time) => {
      const [start, end] = [monthStart(time).getTime(), monthEnd(time).getTime()]
      const used = Math.min(time.getTime() - start, end - start)
      const cost = timeMicros(some, used, time)
      const whole = timeMicros(some, end - start, time)
      const within = cost >= 0 && cost <= whole && Number.isInteger(cost)
      const capped = some.monthlyMicros === 0 || whole <= some.monthlyMicros
      const exact =
        some.hourlyMicros === 0 || (some.monthlyMicros > 0 && cost === some.monthlyMicros)
          ? true
          : Math.abs(cost - (some.hourlyMicros * used) / 3_600_000) <= 1
      return within && capped && exact
    }),
  )
  fc.assert(
    fc.property(anyTime, fc.integer({ min: 1, max: 400 * 86_400_000 }), (from, length) => {
      const to = new Date(from.getTime() + length)
      const months = monthsWithin(from, to)
      const whole = months.reduce((sum, part) => sum + part.to.getTime() - part.from.getTime(), 0)
      const meet = months.every((part, index) => index === 0 || months[index - 1]?.to.getTime() === part.from.getTime())
      const inside = months.every(
        (part) => part.month <= part.from && part.to.getTime() <= monthEnd(part.from).getTime() && part.from < part.to,
      )
      return whole === length && meet && inside
    }),
  )
  // Clocks in Europe go forward on 2026-03-29 and back on 2026-10-25; in UTC both months are as long as ever.
  const hourly = { currency: 'EUR', hourlyMicros: 1, monthlyMicros: 0, setupMicros: 0 }
  for (const [month, hours] of [
    ['2026-03-10', 744],
    ['2026-10-10', 744],
    ['2026-02-10', 672],
    ['2028-02-10', 696],
  ] as const) {
    const day = at(`${month}T00:00:00`)
    t.equal(timeMicros(hourly, monthEnd(day).getTime() - monthStart(day).getTime(), day), hours)
  }
  t.equal(
    timeMicros({ ...hourly, hourlyMicros: 0, monthlyMicros: 31_000_000 }, 86_400_000, at('2026-03-10T00:00:00')),
    1_000_000,
  )
  t.equal(toCents(14_999), 1)
  t.equal(toCents(15_000), 2)
  t.end()
})

void t.test('whatever comes and goes, a limit is what its charges add up to, and is never passed', (t) => {
  const kinds = fc.constantFrom(...limitKinds)
  const step = fc.record({
    host: fc.integer({ min: 0, max: 5 }),
    release: fc.boolean(),
    hourly: fc.integer({ min: 1, max: 9_000 }),
    hours: fc.integer({ min: 0, max: 90 }),
  })
  fc.assert(
    fc.property(
      kinds,
      fc.integer({ min: 1, max: 20_000_000 }),
      fc.array(step, { maxLength: 40 }),
      (kind, maximum, steps) => {
        const money = kind === 'HOURLY_MICROS' || kind === 'MONTHLY_MICROS'
        let book: Limit = { ...limit, kind, maximum, currency: money ? 'EUR' : '' }
        const charges = new Map<number, ReturnType<typeof chargeOf>>()
        let now = at('2026-04-01T00:00:00')
        for (const { host, release, hourly, hours } of steps) {
          now = new Date(Math.min(now.getTime() + hours * 3_600_000, at('2026-04-30T23:59:59').getTime()))
          const before = charges.get(host) ?? noCharge
          const some = { ...demand, place: { family: 'cloud', price: { ...price, hourlyMicros: hourly }, free: false } }
          if (!release && excessOf(book, some, now, before) !== undefined) continue
          const after = release
            ? kind === 'MONTHLY_MICROS'
              ? releasedCharge(before, now)
              : noCharge
            : chargeOf(book, some, now, before)
          book = { ...book, used: book.used + after.amount - before.amount }
          charges.set(host, after)
          const sum = [...charges.values()].reduce((total, { amount }) => total + amount, 0)
          if (sum !== book.used || book.used > maximum) return false
        }
        return true
      },
    ),
  )
  t.end()
})
