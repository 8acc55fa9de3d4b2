import fc from 'fast-check'
import t from 'tap'
import { timeMicros, toCents } from './cost.js'
import { priceFor } from './pricing.js'
import { usageRecords, type UsageInterval, type UsageRecord } from './usage.js'

const hour = 3_600_000
const at = (text: string) => new Date(`${text}Z`)
const price = (hourlyMicros: number, monthlyMicros = 0, setupMicros = 0) => ({
  ...{ currency: 'EUR', hourlyMicros, monthlyMicros, setupMicros },
})
const interval = (from: string, to: string | null, over: Partial<UsageInterval> = {}): UsageInterval => ({
  className: 'small',
  providerName: 'fra1',
  price: price(10_000),
  billable: true,
  poweredOn: true,
  setsUp: false,
  startedAt: at(from),
  endedAt: to === null ? null : at(to),
  ...over,
})
const amounts = (records: readonly UsageRecord[]) => records.map((record) => record.amountMicros)
const total = (records: readonly UsageRecord[]) => records.reduce((sum, record) => sum + record.amountMicros, 0)

void t.test('a host is charged from when it is ready, at the price in force, month by month', (t) => {
  const setup = price(10_000, 6_000_000, 500_000)
  const intervals = [
    interval('2026-03-31T20:00:00', '2026-03-31T21:00:00', { billable: false, poweredOn: false, price: setup }),
    interval('2026-03-31T21:00:00', '2026-04-01T01:00:00', { price: setup, setsUp: true }),
    interval('2026-04-01T01:00:00', '2026-04-01T02:00:00', { price: setup, poweredOn: false }),
    interval('2026-04-01T02:00:00', null, { price: price(20_000) }),
  ]
  const records = usageRecords(intervals, null, at('2026-04-01T04:30:00'))
  t.match(records, [
    {
      month: at('2026-03-01T00:00:00'),
      startedAt: at('2026-03-31T20:00:00'),
      endedAt: at('2026-04-01T00:00:00'),
      ...{ allocatedMs: 4 * hour, billableMs: 3 * hour, poweredOnMs: 3 * hour },
      ...{ setupMicros: 500_000, amountMicros: 530_000 },
    },
    { allocatedMs: 2 * hour, billableMs: 2 * hour, poweredOnMs: hour, setupMicros: 0, amountMicros: 20_000 },
    {
      price: price(20_000),
      startedAt: at('2026-04-01T02:00:00'),
      endedAt: at('2026-04-01T04:30:00'),
      amountMicros: 50_000,
    },
  ])
  t.strictSame(amounts(usageRecords(intervals, at('2026-04-01T00:00:00'), at('2026-04-01T01:30:00'))), [15_000])
  t.strictSame(usageRecords(intervals, at('2026-04-01T05:00:00'), at('2026-04-01T04:30:00')), [])
  t.end()
})

void t.test('a monthly price is the most, once for the whole of a month', (t) => {
  const capped = price(10_000, 1_000_000)
  const intervals = [
    interval('2026-04-01T00:00:00', '2026-04-03T00:00:00', { price: capped }),
    interval('2026-04-05T00:00:00', '2026-04-09T00:00:00', { price: capped, providerName: 'nbg1' }),
    interval('2026-04-10T00:00:00', '2026-04-20T00:00:00', { price: capped }),
  ]
  t.strictSame(amounts(usageRecords(intervals, null, at('2026-05-01T00:00:00'))), [1_000_000, 960_000])
  t.strictSame(amounts(usageRecords(intervals, at('2026-04-10T00:00:00'), at('2026-05-01T00:00:00'))), [520_000])
  const unknown = usageRecords(
    [interval('2026-04-01T00:00:00', null, { price: null })],
    null,
    at('2026-04-02T00:00:00'),
  )
  t.match(unknown, [{ price: null, allocatedMs: 24 * hour, amountMicros: 0 }])
  t.end()
})

const start = at('2026-01-20T00:00:00').getTime()
const prices = [price(10_007, 0, 333_333), price(7, 2_000), price(0, 31_000_003, 1), price(1_234_567, 90_000_000, 5)]
const anyLife = fc
  .array(
    fc.record({
      gapMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 10 * 24 * hour })),
      lengthMs: fc.integer({ min: 1, max: 40 * 24 * hour }),
      price: fc.oneof(fc.constantFrom(...prices), fc.constant(null)),
      providerName: fc.constantFrom('fra1', 'nbg1'),
      billable: fc.boolean(),
      poweredOn: fc.boolean(),
      setsUp: fc.boolean(),
    }),
    { maxLength: 8 },
  )
  .map((steps) => {
    let now = start
    return steps.map(({ gapMs, lengthMs, ...rest }, index): UsageInterval => {
      const from = now + gapMs
      now = from + lengthMs
      const endedAt = index === steps.length - 1 ? null : new Date(now)
      return { className: 'small', ...rest, startedAt: new Date(from), endedAt }
    })
  })

void t.test('however a time is split, its parts cost what the whole of it costs', (t) => {
  const anyCuts = fc.array(fc.integer({ min: 0, max: 300 * 24 * hour }), { maxLength: 12 })
  fc.assert(
    fc.property(anyLife, anyCuts, (intervals, offsets) => {
      const cuts = [...new Set(offsets)].sort((one, other) => one - other).map((offset) => new Date(start + offset))
      const end = new Date(start + 301 * 24 * hour)
      const whole = usageRecords(intervals, null, end)
      const parts = [null, ...cuts].flatMap((from, index) => usageRecords(intervals, from, cuts[index] ?? end))
      return (['amountMicros', 'setupMicros', 'allocatedMs', 'billableMs', 'poweredOnMs'] as const).every(
        (what) =>
          whole.reduce((sum, record) => sum + record[what], 0) === parts.reduce((sum, record) => sum + record[what], 0),
      )
    }),
  )
  t.end()
})

void t.test('a change of price splits the time, and what does not matter to the price does not', (t) => {
  fc.assert(
    fc.property(anyLife, fc.integer({ min: 1, max: 100 * 24 * hour }), (intervals, cutMs) => {
      const to = new Date(start + 200 * 24 * hour)
      const cut = new Date(start + cutMs)
      // The same life, with every interval cut in two where its power changed and its price did not.
      const finer = intervals.flatMap((one) => {
        if (one.startedAt >= cut || (one.endedAt !== null && one.endedAt <= cut)) return [one]
        return [
          { ...one, endedAt: cut },
          { ...one, startedAt: cut, setsUp: false, poweredOn: !one.poweredOn },
        ]
      })
      if (total(usageRecords(finer, null, to)) !== total(usageRecords(intervals, null, to))) return false
      // Reckoned again from scratch: each price by itself, each month by itself.
      const expected = new Map<string, { ms: number; month: Date; once: number; price: UsageInterval['price'] }>()
      for (const one of intervals) {
        if (!one.billable) continue
        const end = Math.min(one.endedAt?.getTime() ?? Infinity, to.getTime())
        for (let from = one.startedAt.getTime(), first = true; from < end; first = false) {
          const day = new Date(from)
          const next = Math.min(end, Date.UTC(day.getUTCFullYear(), day.getUTCMonth() + 1))
          const key = `${day.toISOString().slice(0, 7)} ${one.providerName} ${JSON.stringify(one.price)}`
          const sum = expected.get(key) ?? { ms: 0, month: day, once: 0, price: one.price }
          sum.ms += next - from
          if (first && one.setsUp) sum.once += one.price?.setupMicros ?? 0
          expected.set(key, sum)
          from = next
        }
      }
      const sums = [...expected.values()].map((sum) =>
        sum.price === null ? 0 : timeMicros(sum.price, sum.ms, sum.month) + sum.once,
      )
      return total(usageRecords(intervals, null, to)) === sums.reduce((all, sum) => all + sum, 0)
    }),
  )
  t.end()
})

void t.test('cents are rounded once, at the end', (t) => {
  const records = usageRecords(
    [interval('2026-04-01T00:00:00', '2026-04-01T01:30:00')],
    null,
    at('2026-04-02T00:00:00'),
  )
  t.strictSame(
    records.map((record) => toCents(record.amountMicros)),
    [2],
    '1.5 cents',
  )
  t.end()
})

void t.test('a bill is what the price list says, to the cent', (t) => {
  const micros = fc.integer({ min: 0, max: 100_000_000 })
  const listed = fc.record({ hourlyMicros: fc.integer({ min: 1, max: 100_000_000 }), setupMicros: micros })
  const hosts = fc.array(
    fc.record({ fromMs: fc.integer({ min: 0, max: 80 * 24 * hour }), ms: fc.integer({ min: 0, max: 40 * 24 * hour }) }),
    { minLength: 1, maxLength: 8 },
  )
  fc.assert(
    fc.property(listed, fc.integer({ min: 0, max: 10_000 }), hosts, (entry, discountBasisPoints, lives) => {
      const place = { className: 'large', provider: 'cloud', family: 'f', typeId: 't', location: 'l' }
      const list = { currency: 'EUR', monthlyMicros: 0, ...entry }
      const any = { className: 'large', provider: '', typeId: '', location: '', family: '' }
      const price = priceFor({ agreed: [], listed: [{ ...any, price: list }], discountBasisPoints }, place, null)
      const records = lives.flatMap(({ fromMs, ms }) => {
        const [startedAt, endedAt] = [new Date(start + fromMs), new Date(start + fromMs + ms)]
        const life = { className: 'large', providerName: 'cloud', price, billable: true, poweredOn: true, setsUp: true }
        return usageRecords([{ ...life, startedAt, endedAt }], null, new Date(start + 365 * 24 * hour))
      })
      // Reckoned as a person would, in whole fractions of a millionth, and never rounded.
      const off = BigInt(10_000 - discountBasisPoints)
      const [hourly, setup] = [list.hourlyMicros, list.setupMicros].map((each) => (BigInt(each) * off) / 10_000n)
      const msPerHour = 3_600_000n
      const exact = lives.reduce(
        (sum, { ms }) => sum + (hourly ?? 0n) * BigInt(ms) + (ms > 0 ? (setup ?? 0n) * msPerHour : 0n),
        0n,
      )
      const billed = records.reduce((sum, record) => sum + record.amountMicros, 0)
      // Each line is rounded to the millionth, and by no more than half of one.
      const slack = (BigInt(records.length) * msPerHour) / 2n
      const difference = BigInt(billed) * msPerHour - exact
      const cents = (amount: bigint) => (amount * 2n + msPerHour * 10_000n) / (msPerHour * 20_000n)
      const printed = BigInt(toCents(billed))
      return (
        difference <= slack &&
        difference >= -slack &&
        (printed === cents(exact) || printed === cents(exact + slack) || printed === cents(exact - slack))
      )
    }),
    { numRuns: 300 },
  )
  t.end()
})
