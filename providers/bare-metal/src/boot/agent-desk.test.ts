import t from 'tap'
import type { Inventory } from '../agent/protocol.js'
import { AgentDesk } from './agent-desk.js'

const inventory = {} as Inventory
const job = {
  order: { kind: 'inspect', id: 'inspect-1' },
  authority: { item: 'machines/m1', operation: 'inspect', generation: '1', fence: '1' },
  confirm: () => Promise.resolve(1_000),
  stands: () => true,
} as const

void t.test('the first word of an agent is passed on until something is ordered, ever more seldom', (t) => {
  let nowMs = 0
  const toldAtMs: number[] = []
  const desk = new AgentDesk(
    () => 3_600_000,
    () => nowMs,
    () => void toldAtMs.push(nowMs),
  )
  const askUntil = (untilMs: number): void => {
    for (; nowMs <= untilMs; nowMs += 1_000) desk.order('m1', 'boot-1', nowMs)
  }
  desk.arrive('m1', 'boot-1', nowMs)
  desk.inventory('m1', 'boot-1', inventory, nowMs)
  t.strictSame(toldAtMs, [0], 'at once')
  askUntil(200_000)
  t.strictSame(toldAtMs, [0, 2_000, 6_000, 14_000, 30_000, 62_000, 122_000, 182_000])

  const takeBack = desk.assign('m1', job)
  askUntil(400_000)
  desk.inventory('m1', 'boot-1', inventory, nowMs)
  takeBack('done')
  askUntil(600_000)
  t.equal(toldAtMs.length, 8, 'what was taken up is not told again')

  desk.arrive('m1', 'boot-2', nowMs)
  desk.order('m1', 'boot-2', nowMs)
  t.equal(toldAtMs.length, 8, 'a new boot has said nothing yet')
  desk.inventory('m1', 'boot-2', inventory, nowMs)
  t.equal(toldAtMs.length, 9)
  desk.dismiss('m1', 'power-off')
  askUntil(700_000)
  t.equal(toldAtMs.length, 9, 'one that is sent away is not spoken of')
  t.end()
})
