import fc from 'fast-check'
import t from 'tap'
import type { PowerState, WantedPower } from './driver.js'
import * as rules from './rules.js'

const some: rules.PowerRules = { ...rules.defaultPowerRules, intervalMs: 1_000, contestWindowMs: 60_000 }
const at = (wanted: WantedPower, claimed = true): rules.PowerRecord => rules.wish(rules.newRecord(0), wanted, claimed)
const kinds = ({ news }: rules.Verdict): readonly string[] => news.map(({ kind }) => kind)

void t.test('power as wanted is nothing to speak of', (t) => {
  for (const power of ['on', 'off'] as const) {
    const verdict = rules.read(at(power), power, 5, some, 10)
    t.match(verdict, { news: [], correct: false, record: { power, confirmed: true, nextAtMs: 1_005 } })
  }
  t.end()
})

void t.test('wanted off and found on is corrected, up to the cap of the pass', (t) => {
  const first = rules.read(at('off'), 'on', 0, some, 1)
  t.equal(first.correct, true)
  t.same(kinds(first), ['changed-outside'])
  const second = rules.read(at('off'), 'on', 0, some, 0)
  t.equal(second.correct, false)
  t.same(kinds(second), ['changed-outside', 'correction-delayed'])
  const later = rules.read(second.record, 'on', 1_000, some, 0)
  t.same(kinds(later), [], 'said once')
  t.equal(rules.read(later.record, 'on', 2_000, some, 1).correct, true)
  t.end()
})

void t.test('a reading made for another purpose corrects nothing, and has the watching come at once', (t) => {
  const verdict = rules.read(at('off'), 'on', 7, some)
  t.match(verdict, { correct: false, record: { nextAtMs: 7, delayed: false } })
  t.end()
})

void t.test('who switches it on again and again is not fought', (t) => {
  let record = at('off')
  for (let round = 0; round < some.correctionsPerMachine; round += 1) {
    const verdict = rules.read(record, 'on', round * 1_000, some, 10)
    t.equal(verdict.correct, true)
    record = rules.read(rules.corrected(verdict.record, round * 1_000), 'off', round * 1_000 + 500, some, 10).record
  }
  const enough = rules.read(record, 'on', 10_000, some, 10)
  t.same([enough.correct, kinds(enough), enough.record.contested], [false, ['changed-outside', 'contested'], true])
  t.same(kinds(rules.read(enough.record, 'on', 20_000, some, 10)), [], 'and it is said once')
  t.equal(rules.read(enough.record, 'off', 21_000, some, 10).record.contested, false, 'until it is as wanted')
  t.equal(rules.read(rules.resume(enough.record), 'on', 22_000, some, 10).correct, true, 'or a person says so')
  t.equal(rules.wish(enough.record, 'on', false).contested, false, 'or something else is wanted')
  const muchLater = rules.read({ ...record, power: 'off' }, 'on', 100_000, some, 10)
  t.equal(muchLater.correct, true, 'or it was long ago')
  t.end()
})

void t.test('wanted on and found off is never switched on', (t) => {
  const running = rules.read(at('on'), 'on', 0, some, 10).record
  const verdict = rules.read(running, 'off', 1_000, some, 10)
  t.same([verdict.correct, kinds(verdict), verdict.record.contested], [false, ['changed-outside', 'contested'], true])
  const beingSwitchedOn = rules.read(at('on', false), 'off', 0, some, 10)
  t.same(
    [kinds(beingSwitchedOn), beingSwitchedOn.record.contested],
    [[], false],
    'what was never on was not taken away',
  )
  t.end()
})

void t.test('where nothing is wanted, changes are told and left alone', (t) => {
  const seen = rules.read(at('any'), 'on', 0, some, 10)
  t.same(kinds(seen), [], 'the first reading is no change')
  const verdict = rules.read(seen.record, 'off', 1_000, some, 10)
  t.match(verdict, { correct: false, news: [{ kind: 'changed-outside', from: 'on', to: 'off' }] })
  t.equal(verdict.record.contested, false)
  t.end()
})

void t.test('a BMC that lies stays sick while it does', (t) => {
  const lied = rules.failed(rules.read(at('off'), 'on', 0, some, 10).record, 'ignored', 0, some, 0.5)
  const verdict = rules.read(lied, 'on', 10_000, some, 10)
  t.match(verdict, { correct: true, news: [], record: { failures: 1, ignoring: true } })
  const again = rules.failed(verdict.record, 'ignored', 10_000, some, 0.5)
  t.equal(again.nextAtMs, 10_000 + 2 * some.firstBackOffMs)
  const honest = rules.read(again, 'off', 30_000, some, 10)
  t.match(honest, { news: [{ kind: 'recovered' }], record: { failures: 0, ignoring: false } })
  t.end()
})

void t.test('back-off doubles, has an end, and is long where the login is refused', (t) => {
  let record = at('any')
  const waits: number[] = []
  for (let round = 0; round < 12; round += 1) {
    record = rules.failed(record, 'unreachable', 0, some, 0.5)
    waits.push(record.nextAtMs)
  }
  t.same(waits.slice(0, 3), [5_000, 10_000, 20_000])
  t.equal(waits.at(-1), some.maxBackOffMs)
  t.equal(rules.failed(at('any'), 'wrong-password', 0, some, 0.5).nextAtMs, some.loginBackOffMs)
  t.same(kinds(rules.read(record, 'on', 0, some, 0)), ['recovered'])
  t.end()
})

const power = fc.constantFrom<PowerState>('on', 'off', 'unknown')
const step = fc.oneof(
  fc.record({ do: fc.constant('read' as const), power, left: fc.nat(2) }),
  fc.record({
    do: fc.constant('wish' as const),
    wanted: fc.constantFrom<WantedPower>('on', 'off', 'any'),
    claimed: fc.boolean(),
  }),
  fc.record({
    do: fc.constant('fail' as const),
    kind: fc.constantFrom('unreachable' as const, 'ignored' as const, 'wrong-password' as const),
  }),
  fc.record({ do: fc.constant('resume' as const) }),
)

void t.test('whatever happens, only a machine wanted off is corrected, not too often, and time goes on', (t) => {
  const property = fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
    let record = rules.newRecord(0)
    let now = 0
    const done: number[] = []
    for (const one of steps) {
      now += 1_000
      if (one.do === 'wish') record = rules.wish(record, one.wanted, one.claimed)
      else if (one.do === 'fail') record = rules.failed(record, one.kind, now, some, 0.5)
      else if (one.do === 'resume') {
        record = rules.resume(record)
        done.length = 0
      } else {
        const before = record
        const verdict = rules.read(before, one.power, now, some, one.left)
        record = verdict.record
        if (verdict.correct) {
          if (before.wanted !== 'off' || one.power !== 'on' || one.left === 0 || before.contested) return false
          done.push(now)
          if (done.filter((atMs) => now - atMs < some.contestWindowMs).length > some.correctionsPerMachine) return false
          record = rules.corrected(record, now)
        }
      }
      if (one.do !== 'wish' && one.do !== 'resume' && record.nextAtMs <= now) return false
    }
    return true
  })
  fc.assert(property, { numRuns: 2_000 })
  t.end()
})
