import t from 'tap'
import { haveMoved } from './budgets.js'

void t.test('budgets are stored when they have moved by a tenth, or to nothing', async (t) => {
  const api = (remaining: number, limit = 3_600, name = 'api') => ({ name, limit, remaining, resetsInMs: 1_000 })
  t.equal(haveMoved([], []), false)
  t.equal(haveMoved([], [api(3_600)]), true, 'what is new is told')
  t.equal(haveMoved([api(3_600)], []), true)
  t.equal(haveMoved([api(3_600)], [api(3_300)]), false)
  t.equal(haveMoved([api(3_600)], [api(3_240)]), true)
  t.equal(haveMoved([api(3_240)], [api(3_241)]), false, 'to and fro costs nothing')
  t.equal(haveMoved([api(12)], [api(0)]), true)
  t.equal(haveMoved([api(0)], [api(3)]), true)
  t.equal(haveMoved([api(3_600)], [api(3_600, 7_200)]), true)
  t.equal(haveMoved([api(3_600)], [api(3_600, 3_600, 'other')]), true)
  t.equal(haveMoved([api(3, 4)], [api(3, 4)]), false, 'a small limit moves by whole calls')
  t.equal(haveMoved([api(3, 4)], [api(2, 4)]), true)
})
