import fc from 'fast-check'
import t from 'tap'
import { decideExpiry, warningAt, type ExpiringHost } from './expiry.js'

const createdAt = new Date('2030-01-01T00:00:00Z')
const after = (ms: number) => new Date(createdAt.getTime() + ms)
const hour = 3_600_000
const host: ExpiringHost = { state: 'READY', protected: false, expiresAt: after(20 * hour), createdAt, conditions: [] }

void t.test('a host is warned of, and then released', (t) => {
  t.match(decideExpiry(host, after(hour)), {
    release: false,
    news: undefined,
    lookAt: after(19 * hour),
    conditions: [],
  })
  const warned = decideExpiry(host, after(19 * hour))
  t.match(warned, { release: false, news: 'HostExpiring', lookAt: host.expiresAt })
  t.match(warned.conditions, [{ type: 'Expiring', status: 'TRUE', reason: 'ExpiresSoon' }])
  const again = decideExpiry({ ...host, conditions: warned.conditions }, after(19.5 * hour))
  t.match(again, { news: undefined, conditions: warned.conditions }, 'it is said once')
  t.match(decideExpiry({ ...host, conditions: warned.conditions }, after(20 * hour)), {
    release: true,
    news: 'HostExpired',
    lookAt: null,
  })
  t.end()
})

void t.test('protection wins, and what was extended is warned of anew', (t) => {
  const held = decideExpiry({ ...host, protected: true }, after(21 * hour))
  t.match(held, { release: false, news: 'HostExpiryHeld', lookAt: null })
  t.match(held.conditions, [{ status: 'TRUE', reason: 'Protected' }])
  t.match(decideExpiry({ ...host, conditions: held.conditions }, after(22 * hour)), { release: true })
  const extended = decideExpiry({ ...host, expiresAt: after(50 * hour), conditions: held.conditions }, after(22 * hour))
  t.match(extended, { release: false, news: undefined, lookAt: after(49 * hour) })
  t.match(extended.conditions, [{ status: 'FALSE', reason: 'Extended' }])
  const never = decideExpiry({ ...host, expiresAt: null, conditions: held.conditions }, after(22 * hour))
  t.match(never, { release: false, lookAt: null, conditions: [{ status: 'FALSE' }] })
  t.end()
})

void t.test('whatever there is', (t) => {
  const anyHost = fc.record({
    state: fc.constantFrom<ExpiringHost['state']>('ORDERED', 'READY', 'ERROR', 'RELEASING', 'RELEASED'),
    protected: fc.boolean(),
    expiresAt: fc.option(fc.integer({ min: 0, max: 100 * hour }).map(after)),
    createdAt: fc.constant(createdAt),
    conditions: fc.constant([]),
  })
  fc.assert(
    fc.property(anyHost, fc.integer({ min: 0, max: 200 * hour }), (each, ms) => {
      const decision = decideExpiry(each, after(ms))
      const due = each.expiresAt !== null && each.expiresAt.getTime() <= after(ms).getTime()
      const live = each.state !== 'RELEASING' && each.state !== 'RELEASED'
      const again = decideExpiry({ ...each, conditions: decision.conditions }, after(ms))
      return (
        // Never early, never a protected one, and at once where it is due.
        decision.release === (due && live && !each.protected) &&
        // Never looked at again before now, and never asleep while there is an end to come.
        (decision.lookAt === null || decision.lookAt.getTime() > after(ms).getTime()) &&
        (decision.lookAt !== null) === (live && each.expiresAt !== null && !due) &&
        again.news === undefined &&
        JSON.stringify(again.conditions) === JSON.stringify(decision.conditions)
      )
    }),
    { numRuns: 5_000 },
  )
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1_000 * hour }), (lifeMs) => {
      const leadMs = lifeMs - (warningAt(after(lifeMs), createdAt).getTime() - createdAt.getTime())
      return leadMs <= hour && leadMs <= Math.ceil(lifeMs / 10)
    }),
  )
  t.end()
})
