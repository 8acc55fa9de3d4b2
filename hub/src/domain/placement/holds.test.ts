import fc from 'fast-check'
import t from 'tap'
import type { Shape } from '../facts.js'
import { holdOn, holds, isHoldCode, marketOf, type CapacityHold, type HeldPlace } from './holds.js'
import { blamesPlace, decayed, describeFailures, failingLevel, failureHalfLifeMs } from './reliability.js'

const shapeOf = (vcpus: number, memoryMib: number): Shape => ({
  vcpus,
  memoryMib,
  diskGib: 0,
  diskClass: '',
  architecture: '',
})
const hold = (over: Partial<CapacityHold> = {}): CapacityHold => ({
  ...{ code: 'CAPACITY', provider: 'a', typeId: 'small', location: 'x', market: '', shape: shapeOf(2, 4) },
  ...{ until: '2026-01-01T00:00:00.000Z', reason: 'CAPACITY: none' },
  ...over,
})
const place = (over: Partial<HeldPlace> = {}): HeldPlace => ({
  typeId: 'small',
  location: 'x',
  market: '',
  shape: shapeOf(2, 4),
  ...over,
})

void t.test('capacity is short of one type in one location and market', async (t) => {
  t.ok(holds(hold(), place()))
  t.notOk(holds(hold(), place({ location: 'y' })))
  t.notOk(holds(hold(), place({ typeId: 'large', shape: shapeOf(4, 8) })))
  t.notOk(holds(hold(), place({ market: 'spot' })), 'what spot lacks may be had otherwise, and the other way round')
  t.ok(holds(hold({ market: 'spot' }), place({ market: 'spot' })))
})

void t.test('a quota is everywhere, and holds what needs as much', async (t) => {
  const quota = hold({ code: 'QUOTA', location: '' })
  t.ok(holds(quota, place({ location: 'y' })))
  t.ok(holds(quota, place({ typeId: 'large', shape: shapeOf(4, 8) })))
  t.notOk(holds(quota, place({ typeId: 'tiny', shape: shapeOf(1, 2) })), 'it may still fit')
  t.ok(holds(quota, place({ typeId: 'unknown', shape: null })))
  t.ok(holds(hold({ code: 'QUOTA', shape: null }), place({ typeId: 'tiny', shape: shapeOf(1, 2) })))
  t.notOk(holds(quota, place({ market: 'spot' })), 'markets have quotas of their own')
})

void t.test('what is held for the longest is told', async (t) => {
  const late = hold({ code: 'QUOTA', until: '2026-02-01T00:00:00.000Z' })
  const anyHold = fc.record({
    typeId: fc.constantFrom('small', 'large'),
    location: fc.constantFrom('x', 'y'),
    until: fc.constantFrom('2026-01-01T00:00:00.000Z', '2026-03-01T00:00:00.000Z'),
  })
  t.equal(holdOn(place(), [hold(), late]), late)
  t.equal(holdOn(place(), []), undefined)
  fc.assert(
    fc.property(fc.array(anyHold), (given) => {
      const all = given.map((one) => hold(one))
      return JSON.stringify(holdOn(place(), all)) === JSON.stringify(holdOn(place(), [...all].reverse()))
    }),
  )
  t.strictSame([marketOf({ market: 'spot' }), marketOf({}), marketOf({ market: 1 })], ['spot', '', ''])
  t.ok(isHoldCode('QUOTA') && !isHoldCode('TIMEOUT'))
})

void t.test('how often creates fail', async (t) => {
  t.equal(failingLevel(null), 0)
  t.equal(failingLevel({ failures: 1, creates: 1 }), 0, 'once is no habit')
  t.equal(failingLevel({ failures: 2, creates: 100 }), 0)
  t.equal(failingLevel({ failures: 20, creates: 100 }), 1)
  t.equal(failingLevel({ failures: 3, creates: 3 }), 2)
  t.match(describeFailures({ failures: 3.2, creates: 1 }), '3 of the latest 3')
  t.ok(blamesPlace('TIMEOUT') && blamesPlace('CAPACITY') && !blamesPlace('QUOTA') && !blamesPlace('INVALID_SPEC'))
  t.equal(decayed(4, failureHalfLifeMs), 2)
  const anyFailures = fc.record({ failures: fc.double({ min: 0, max: 50, noNaN: true }), creates: fc.nat(200) })
  fc.assert(
    fc.property(anyFailures, fc.nat(10 * failureHalfLifeMs), fc.nat(100), (seen, ageMs, more) => {
      const older = { ...seen, failures: decayed(seen.failures, ageMs) }
      const busier = { ...seen, creates: seen.creates + more }
      const worse = { ...seen, failures: seen.failures + 1 }
      return (
        failingLevel(older) <= failingLevel(seen) &&
        failingLevel(busier) <= failingLevel(seen) &&
        failingLevel(worse) >= failingLevel(seen)
      )
    }),
  )
})
