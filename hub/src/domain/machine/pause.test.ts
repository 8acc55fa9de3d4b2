import fc from 'fast-check'
import t from 'tap'
import {
  beginHold,
  beginMaintenance,
  endHold,
  endMaintenance,
  noPauses,
  putOff,
  type PauseChange,
  type Pauses,
} from './pause.js'

const start = Date.UTC(2026, 0, 1)
const at = (ms: number) => new Date(start + ms)
const person = (ms: number) => ({ by: 'token/a', bySystem: false, reason: 'a disk is changed', at: at(ms) })
const system = (ms: number, by = 'providers/rack') => ({ by, bySystem: true, reason: 'PowerContested', at: at(ms) })

void t.test('what a person began only a person ends, and the system ends only its own', async (t) => {
  const byPerson = beginMaintenance(noPauses, person(0)).pauses
  t.strictSame(endMaintenance(byPerson, system(1), at(1)).pauses, byPerson)
  t.equal(endMaintenance(byPerson, person(1), at(1)).pauses.maintenance, null)
  t.strictSame(beginMaintenance(byPerson, system(1)).pauses, byPerson, 'the system takes nothing over')

  const bySystem = beginMaintenance(noPauses, system(0)).pauses
  t.strictSame(endMaintenance(bySystem, system(1, 'providers/other'), at(1)).pauses, bySystem)
  t.equal(endMaintenance(bySystem, system(1), at(1)).pauses.maintenance, null)
  const taken = beginMaintenance(bySystem, person(5)).pauses
  t.match(taken.maintenance, { bySystem: false, by: 'token/a', at: at(0) }, 'a person takes it over, since when it was')
  t.strictSame(endMaintenance(taken, system(6), at(6)).pauses, taken)
})

void t.test('hold and maintenance combine: it goes on when neither is left', async (t) => {
  const held = beginHold(noPauses, person(0))
  t.equal(held.begins, true)
  const both = beginMaintenance(held.pauses, person(10))
  t.equal(both.begins, false)
  const one = endHold(both.pauses, at(20))
  t.match(one, { resumedAfterMs: undefined, pauses: { pausedAt: at(0) } })
  t.match(endMaintenance(one.pauses, person(30), at(30)), { resumedAfterMs: 30, pauses: { pausedAt: null } })
  t.strictSame(endHold(noPauses, at(1)).resumedAfterMs, undefined)
})

const doing = fc.record({
  what: fc.constantFrom('hold', 'unhold', 'begin', 'end', 'begin-system', 'end-system', 'nothing'),
  afterMs: fc.integer({ min: 0, max: 10_000 }),
})

function apply(pauses: Pauses, what: string, ms: number): PauseChange {
  switch (what) {
    case 'hold':
      return beginHold(pauses, person(ms))
    case 'unhold':
      return endHold(pauses, at(ms))
    case 'begin':
      return beginMaintenance(pauses, person(ms))
    case 'end':
      return endMaintenance(pauses, person(ms), at(ms))
    case 'begin-system':
      return beginMaintenance(pauses, system(ms))
    case 'end-system':
      return endMaintenance(pauses, system(ms), at(ms))
    default:
      return { pauses, resumedAfterMs: undefined, begins: false }
  }
}

void t.test('a deadline has as much time left after a pause as before, whatever was done in which order', async (t) => {
  fc.assert(
    fc.property(fc.array(doing, { maxLength: 30 }), (doings) => {
      let pauses: Pauses = noPauses
      let nowMs = 0
      let runMs = 0
      let deadline = at(100_000)
      for (const { what, afterMs } of doings) {
        if (pauses.pausedAt === null) runMs += afterMs
        nowMs += afterMs
        const before = pauses.pausedAt !== null
        const change = apply(pauses, what, nowMs)
        pauses = change.pauses
        const paused = pauses.maintenance !== null || pauses.hold !== null
        if ((pauses.pausedAt !== null) !== paused) return false
        if (change.begins !== (!before && paused)) return false
        if ((change.resumedAfterMs !== undefined) !== (before && !paused)) return false
        if (change.resumedAfterMs !== undefined) deadline = putOff(deadline, change.resumedAfterMs)
      }
      // While it is paused, what has passed since then does not count.
      const standsAtMs = pauses.pausedAt === null ? start + nowMs : pauses.pausedAt.getTime()
      return deadline.getTime() - standsAtMs === 100_000 - runMs
    }),
  )
  t.pass()
})

void t.test('a clock that was set back makes no deadline come sooner', async (t) => {
  const { pauses } = beginHold(noPauses, person(1_000))
  t.equal(endHold(pauses, at(0)).resumedAfterMs, 0)
})
