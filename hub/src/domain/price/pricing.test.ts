import fc from 'fast-check'
import t from 'tap'
import { discounted, entryFor, priceFor, type PriceEntry } from './pricing.js'

const price = (hourlyMicros: number, monthlyMicros = 0, setupMicros = 0) => ({
  currency: 'EUR',
  hourlyMicros,
  monthlyMicros,
  setupMicros,
})
const any: PriceEntry = { className: '', provider: '', typeId: '', location: '', family: '', price: price(1) }
const place = { className: 'small', provider: 'fra1', family: 'cloud', typeId: 'cx22', location: 'fsn1' }

void t.test('the entry that says the most about a place holds', (t) => {
  const entries = [
    any,
    { ...any, family: 'cloud', price: price(2) },
    { ...any, location: 'fsn1', price: price(3) },
    { ...any, className: 'small', price: price(4) },
    { ...any, provider: 'fra1', typeId: 'cx22', location: 'fsn1', family: 'cloud', price: price(5) },
    { ...any, className: 'large', provider: 'fra1', price: price(6) },
  ]
  const hourly = (over: Partial<typeof place>) => entryFor(entries, { ...place, ...over })?.price.hourlyMicros
  t.equal(hourly({}), 4, 'the class before all else')
  t.equal(hourly({ className: 'other' }), 5)
  t.equal(hourly({ className: 'other', provider: 'nbg1' }), 3)
  t.equal(hourly({ className: 'other', location: 'x' }), 2)
  t.equal(hourly({ className: 'other', family: 'rack', location: 'x' }), 1)
  t.equal(entryFor(entries.slice(5), place), undefined)
  t.end()
})

void t.test('an agreement goes before the list, and the discount is for the rest', (t) => {
  const pricing = {
    agreed: [{ ...any, className: 'small', price: price(100) }],
    listed: [{ ...any, className: 'large', price: price(999, 555, 7) }],
    discountBasisPoints: 1_250,
  }
  t.strictSame(priceFor(pricing, place, price(500)), price(100), 'as agreed')
  t.strictSame(priceFor(pricing, { ...place, className: 'large' }, price(500)), price(874, 485, 6), 'rounded down')
  t.strictSame(priceFor(pricing, { ...place, className: 'other' }, price(500)), price(437))
  t.equal(priceFor(pricing, { ...place, className: 'other' }, null), null, 'what is not known stays so')
  t.end()
})

void t.test('a discount never makes anything dearer, nor less than nothing', (t) => {
  const micros = fc.integer({ min: 0, max: 9_000_000_000_000 })
  fc.assert(
    fc.property(micros, micros, micros, fc.integer({ min: 0, max: 10_000 }), (hourly, monthly, setup, points) => {
      const before = price(hourly, monthly, setup)
      const after = discounted(before, points)
      return (['hourlyMicros', 'monthlyMicros', 'setupMicros'] as const).every((part) => {
        const exact = (BigInt(before[part]) * BigInt(10_000 - points)) / 10_000n
        return after[part] >= 0 && after[part] <= before[part] && BigInt(after[part]) === exact
      })
    }),
  )
  t.end()
})
