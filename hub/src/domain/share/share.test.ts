import fc from 'fast-check'
import t from 'tap'
import { agedLevel, ageingMs, allowsPriority, priorities, priorityLevel, priorityOf } from './priority.js'
import { takeTurn, untouchedShares, type Item, type ShareState } from './share.js'

const workspaces = ['a', 'b', 'c', 'd'] as const
type Workspace = (typeof workspaces)[number]

const anyWeights = fc.record(
  Object.fromEntries(workspaces.map((workspace) => [workspace, fc.integer({ min: 1, max: 20 })])) as Record<
    Workspace,
    fc.Arbitrary<number>
  >,
)
const anyPriority = fc.integer({ min: -1, max: 1 })

/** What comes in one round: how many of each workspace, and how many can be taken. */
const anyRound = fc.record({
  arrivals: fc.array(fc.tuple(fc.constantFrom(...workspaces), anyPriority), { maxLength: 12 }),
  credit: fc.integer({ min: 0, max: 8 }),
  passesMs: fc.integer({ min: 0, max: 60_000 }),
})
type Round = { arrivals: [Workspace, number][]; credit: number; passesMs: number }

interface Step {
  readonly waiting: readonly Item[]
  readonly taken: readonly Item[]
  readonly credit: number
  readonly nowMs: number
}

/** Runs rounds one after the other; what is not taken goes on waiting. */
function run(rounds: readonly Round[], weights: Readonly<Record<string, number>>): readonly Step[] {
  let state: ShareState = untouchedShares
  let waiting: readonly Item[] = []
  let nowMs = 0
  let count = 0
  return rounds.map(({ arrivals, credit, passesMs }) => {
    nowMs += passesMs
    const come = arrivals.map(([workspace, priority]) => ({
      id: String(count++).padStart(6, '0'),
      workspace,
      priority,
      dueAtMs: nowMs,
    }))
    const before = [...waiting, ...come]
    const turn = takeTurn(state, before, credit, (workspace) => weights[workspace] ?? 1, nowMs)
    state = turn.state
    waiting = before.filter((item) => !turn.taken.includes(item))
    return { waiting: before, taken: turn.taken, credit, nowMs }
  })
}

const anyRounds = fc.array(anyRound, { minLength: 1, maxLength: 40 }) as fc.Arbitrary<Round[]>

void t.test('shares', async (t) => {
  await t.test('leave nothing undone that could be done', async () => {
    fc.assert(
      fc.property(anyRounds, anyWeights, (rounds, weights) =>
        run(rounds, weights).every(({ waiting, taken, credit }) => taken.length === Math.min(credit, waiting.length)),
      ),
    )
  })

  await t.test('never put what is less urgent, as it has aged, before what is more so', async () => {
    fc.assert(
      fc.property(anyRounds, anyWeights, (rounds, weights) =>
        run(rounds, weights).every(({ waiting, taken, nowMs }) => {
          const level = (item: Item) => agedLevel(item.priority, nowMs - item.dueAtMs)
          const left = waiting.filter((item) => !taken.includes(item))
          return left.every((item) => taken.every((each) => level(each) >= level(item)))
        }),
      ),
    )
  })

  await t.test('give each that waits its part, however others come', async () => {
    // Between two workspaces that both wait all the time, over any stretch of time, what each got per weight differs by no more than one item of each.
    fc.assert(
      fc.property(
        anyWeights,
        fc.array(
          fc.record({
            credit: fc.integer({ min: 1, max: 8 }),
            // The others come and go as they like.
            others: fc.array(fc.constantFrom('c', 'd'), { maxLength: 10 }),
          }),
          { minLength: 1, maxLength: 30 },
        ),
        (weights, rounds) => {
          const backlog = rounds.reduce((sum, { credit }) => sum + credit, 0) + 1
          const first = ['a', 'b'].flatMap((workspace) =>
            Array.from({ length: backlog }, (): [Workspace, number] => [workspace as Workspace, 0]),
          )
          const steps = run(
            rounds.map(({ credit, others }, index) => ({
              arrivals: [
                ...(index === 0 ? first : []),
                ...others.map((each): [Workspace, number] => [each as Workspace, 0]),
              ],
              credit,
              passesMs: 0,
            })),
            weights,
          )
          return stretches(steps.map(({ taken }) => taken)).every((taken) => {
            const part = (workspace: Workspace) =>
              taken.filter((item) => item.workspace === workspace).length / weights[workspace]
            return Math.abs(part('a') - part('b')) <= 1 / weights.a + 1 / weights.b + 1e-9
          })
        },
      ),
    )
  })

  await t.test('starve nobody: whatever others do, an item goes within a time that is known', async () => {
    // Three others send ten high ones a round each, for ever; one item of the lowest priority comes once.
    const weights = { a: 1, b: 20, c: 20, d: 20 }
    const flood = ['b', 'c', 'd'].flatMap((workspace) =>
      Array.from({ length: 10 }, (): [Workspace, number] => [workspace as Workspace, 1]),
    )
    const rounds: Round[] = Array.from({ length: 200 }, (_, index) => ({
      arrivals: [...(index === 0 ? [['a', -1] as [Workspace, number]] : []), ...flood],
      credit: 3,
      passesMs: 10_000,
    }))
    const steps = run(rounds, weights)
    const served = steps.find(({ taken }) => taken.some((item) => item.workspace === 'a'))
    t.ok(served, 'it goes')
    t.ok((served?.nowMs ?? Infinity) <= 2 * ageingMs + 300_000, `after ${served?.nowMs} ms`)
  })

  await t.test('hold nothing against whoever was alone', async () => {
    const alone = Array.from({ length: 100 }, (_, index): Item => item(`a-${index}`, 'a'))
    const before = takeTurn(untouchedShares, alone, 50, () => 1, 1)
    t.strictSame(before.state, untouchedShares)
    const both = [...alone.slice(50), ...Array.from({ length: 50 }, (_, index) => item(`b-${index}`, 'b'))]
    const { taken } = takeTurn(before.state, both, 20, () => 1, 1)
    t.equal(taken.filter(({ workspace }) => workspace === 'a').length, 10)
  })

  await t.test('owe nothing to whoever was away', async () => {
    let state: ShareState = untouchedShares
    const waiting = [
      ...Array.from({ length: 500 }, (_, index) => item(`a-${index}`, 'a')),
      ...Array.from({ length: 500 }, (_, index) => item(`b-${index}`, 'b')),
    ]
    const turn = takeTurn(state, waiting, 200, () => 1, 1)
    state = turn.state
    const left = waiting.filter((each) => !turn.taken.includes(each))
    const came = Array.from({ length: 500 }, (_, index) => item(`c-${index}`, 'c'))
    const { taken } = takeTurn(state, [...left, ...came], 30, () => 1, 1)
    const of = (workspace: string) => taken.filter((each) => each.workspace === workspace).length
    t.ok(of('c') <= 11 && of('c') >= 10, `${of('c')} of 30`)
  })
})

void t.test('priorities', async (t) => {
  for (const priority of priorities) t.equal(priorityOf(priorityLevel(priority)), priority)
  t.throws(() => priorityOf(2), RangeError)
  t.equal(agedLevel(-1, ageingMs), 0)
  t.equal(agedLevel(-1, 10 * ageingMs), 1, 'no higher than the highest')
  const range = { priority: 0, maxPriority: 1 }
  t.ok(allowsPriority(range, 0, false) && allowsPriority(range, -1, false) && allowsPriority(range, 1, true))
  t.notOk(allowsPriority(range, 1, false), 'not without the right to put orders first')
  t.notOk(allowsPriority({ priority: 0, maxPriority: 0 }, 1, true), 'not beyond what the workspace may')
})

function item(id: string, workspace: string): Item {
  return { id, workspace, priority: 0, dueAtMs: 0 }
}

/** What was taken over every stretch of rounds. */
function stretches(rounds: readonly (readonly Item[])[]): readonly (readonly Item[])[] {
  return rounds.flatMap((_, from) =>
    rounds.slice(from).map((__, length) => rounds.slice(from, from + length + 1).flat()),
  )
}
