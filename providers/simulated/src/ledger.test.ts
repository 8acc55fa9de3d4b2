import { fork, type ChildProcess } from 'node:child_process'
import { appendFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import type { Fact, Line } from './facts.js'
import { hasLedger, Ledger, type Reducer } from './ledger.js'
import { readLines, readWorld } from './report.js'
import { StillClock, tempDir, until } from './testing/world.js'
import { kindOfWorld } from './world.js'

const listing: Reducer<Line[]> = { initial: () => [], apply: (lines, line) => void lines.push(line) }

const fileOf = (dir: string) => join(dir, 'ledger.jsonl')
const fact = (id: string): Fact => ({ fact: 'call.repeated', id })
const ids = (lines: readonly Line[]) => lines.map((line) => ('id' in line ? line.id : ''))

void t.test('numbers are without gaps, and time never falls', (t) => {
  const dir = tempDir(t)
  const clock = new StillClock()
  t.notOk(hasLedger(dir))
  const ledger = new Ledger(dir, listing, { clock: clock.read })
  const startMs = clock.nowMs
  ledger.commit(() => fact('a'))
  clock.nowMs -= 3_600_000
  ledger.commit(() => fact('b'))
  clock.nowMs += 250
  const line = ledger.commit(() => fact('c'))
  t.equal(line?.atMs, startMs + 250, 'time goes on from where it was, after a step back')
  t.same(
    ledger.state.map(({ seq, atMs }) => [seq, atMs]),
    [
      [1, startMs],
      [2, startMs],
      [3, startMs + 250],
    ],
  )
  t.equal(
    ledger.commit(() => undefined),
    undefined,
  )
  t.equal(ledger.seq, 3)
  ledger.close()
  t.same(ids(readWhole(dir)), ['a', 'b', 'c'])
  t.end()
})

void t.test('a decision is taken again where another writer was faster', (t) => {
  const dir = tempDir(t)
  const [one, two] = [new Ledger(dir, listing), new Ledger(dir, listing)]
  let asked = 0
  const line = one.commit((state) => {
    if (asked++ === 0) two.commit(() => fact('of two'))
    return fact(`after ${state.length}`)
  })
  t.equal(asked, 2)
  t.match(line, { seq: 2, id: 'after 1', by: one.writer })
  t.same(ids(two.catchUp()), ['of two', 'after 1'])
  t.same(two.leftovers, { torn: 0, lost: 1 }, 'the line that came second is void for everybody')
  one.close()
  two.close()
  t.end()
})

void t.test('garbage is passed over, and never swallows what follows', (t) => {
  const dir = tempDir(t)
  const ledger = new Ledger(dir, listing)
  ledger.commit(() => fact('a'))
  appendFileSync(fileOf(dir), '{"seq":2,"atMs":5,"by":"x","fact":"call.rep')
  ledger.commit(() => fact('b'))
  appendFileSync(fileOf(dir), 'null\n7\n{"seq":3}\n\n\xff\xfe\n{"seq":"3","atMs":1,"by":"x","fact":"x"}\n')
  appendFileSync(fileOf(dir), `${JSON.stringify({ seq: 9, atMs: 5, by: 'x', ...fact('after a gap') })}\n`)
  ledger.commit(() => fact('c'))
  t.same(ids(ledger.state), ['a', 'b', 'c'])
  t.same(ledger.leftovers, { torn: 6, lost: 1 })
  ledger.close()
  t.same(ids(readWhole(dir)), ['a', 'b', 'c'])
  t.end()
})

void t.test('a torn piece that another writer leaves between looking and appending costs one try', (t) => {
  const dir = tempDir(t)
  const ledger = new Ledger(dir, listing)
  let asked = 0
  ledger.commit(() => {
    if (asked++ === 0) appendFileSync(fileOf(dir), '{"torn":')
    return fact('a')
  })
  t.equal(asked, 2)
  t.same(ids(readWhole(dir)), ['a'])
  ledger.close()
  t.end()
})

void t.test('cut at any byte, a ledger keeps every whole line and can be written on', (t) => {
  const dir = tempDir(t)
  const source = new Ledger(dir, listing)
  for (const id of ['a', 'b', 'ü', 'd']) source.commit(() => fact(id))
  source.close()
  const bytes = readFileSync(fileOf(dir))
  const cut = tempDir(t)
  for (let length = 0; length <= bytes.length; length++) {
    writeFileSync(fileOf(cut), bytes.subarray(0, length))
    const whole = bytes.subarray(0, length).toString('latin1').split('\n').length - 1
    const ledger = new Ledger(cut, listing)
    if (ledger.state.length !== whole) t.fail(`cut at ${length}: ${ledger.state.length} lines, not ${whole}`)
    ledger.commit(() => fact('after'))
    ledger.close()
    const read = readWhole(cut)
    // A line that lacks nothing but its end is whole, once the next writer has ended it.
    const complete = bytes[length] === 0x0a ? whole + 1 : whole
    if (read.length !== complete + 1 || ids(read).at(-1) !== 'after') t.fail(`cut at ${length}: ${ids(read).join()}`)
  }
  t.pass(`${bytes.length} cuts`)
  t.end()
})

void t.test('a ledger that is cut short under its reader is refused', (t) => {
  const dir = tempDir(t)
  const ledger = new Ledger(dir, listing)
  ledger.commit(() => fact('a'))
  truncateSync(fileOf(dir), 3)
  t.throws(() => ledger.catchUp(), /cut short/)
  ledger.close()
  t.end()
})

void t.test(
  'several writers, crashes and torn pieces, in any order: all read the same, and what was told holds',
  (t) => {
    const maxLineLength = 64
    const action = fc.oneof(
      fc.record({ kind: fc.constant('commit' as const), writer: fc.nat(2) }),
      fc.record({ kind: fc.constant('overtaken' as const), writer: fc.nat(2), by: fc.nat(2) }),
      fc.record({ kind: fc.constant('tear' as const), text: fc.string({ unit: 'binary', maxLength: 30 }) }),
      fc.record({ kind: fc.constant('tear-line' as const), at: fc.nat(maxLineLength) }),
      fc.record({ kind: fc.constant('restart' as const), writer: fc.nat(2) }),
    )
    const killed = 'x'
    const wholeLine = { kind: 'tear-line' as const, at: maxLineLength }
    type Action = typeof action extends fc.Arbitrary<infer Value> ? Value : never
    const endedByTheNextWriter: [Action[]][] = [
      [[wholeLine, { kind: 'commit', writer: 0 }]],
      [[wholeLine, { kind: 'overtaken', writer: 0, by: 1 }]],
      [[wholeLine, { kind: 'restart', writer: 1 }, { kind: 'commit', writer: 1 }]],
    ]
    fc.assert(
      fc.property(fc.array(action, { maxLength: 40 }), (actions) => {
        const dir = tempDir(t)
        const writers = [0, 1, 2].map(() => new Ledger(dir, listing))
        const told: string[] = []
        let asked = 0
        const commit = (writer: number, meanwhile?: () => void) => {
          const id = `fact ${asked++} "é\n`
          let first = true
          writers[writer]?.commit(() => {
            if (first) meanwhile?.()
            first = false
            return fact(id)
          })
          told.push(id)
        }
        for (const step of actions) {
          if (step.kind === 'commit') commit(step.writer)
          else if (step.kind === 'overtaken') commit(step.writer, () => commit(step.by))
          else if (step.kind === 'tear') appendFileSync(fileOf(dir), step.text)
          else if (step.kind === 'tear-line')
            appendFileSync(
              fileOf(dir),
              JSON.stringify({ seq: told.length + 1, atMs: 1, by: killed, ...fact('no') }).slice(0, step.at),
            )
          else {
            writers[step.writer]?.close()
            writers[step.writer] = new Ledger(dir, listing)
          }
        }
        const read = readWhole(dir)
        for (const writer of writers) {
          if (JSON.stringify(writer.catchUp()) !== JSON.stringify(read)) return false
          writer.close()
        }
        // A killed writer's line may lack nothing but its end, and then it holds, though nobody was told.
        const ofLiving = ids(read.filter(({ by }) => by !== killed))
        const isWhole = ofLiving.sort().join() === told.slice().sort().join()
        return isWhole && read.every(({ seq }, index) => seq === index + 1)
      }),
      { numRuns: 60, examples: endedByTheNextWriter },
    )
    t.pass()
    t.end()
  },
)

void t.test(
  'two processes at once, one killed again and again: one cloud, at its capacity and never above',
  async (t) => {
    const dir = tempDir(t)
    const program = new URL('./testing/hammer.js', import.meta.url)
    const children = new Set<ChildProcess>()
    t.teardown(() => children.forEach((child) => child.kill('SIGKILL')))
    const start = (name: string) => {
      const child = fork(program, [dir, name], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
      children.add(child)
      const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
      const sent = { told: 0 }
      child.on('message', () => sent.told++)
      return { child, exited, sent }
    }
    const steady = start('steady')
    for (let round = 0; round < 3; round++) {
      const victim = start(`victim-${round}`)
      await until('the victim to be at work', () => victim.sent.told >= 5)
      victim.child.kill('SIGKILL')
      await victim.exited
    }
    await until('the steady one to have done its work', () => steady.sent.told >= 60)
    steady.child.kill('SIGTERM')
    t.equal(await steady.exited, 0)

    const report = readWorld(dir)
    t.ok(report.totals.maxLive <= 5, `at most 5 servers fit: ${report.totals.maxLive}`)
    t.equal(report.totals.maxLiveByOwner, 1, 'a name is never taken twice')
    t.ok(report.totals.creates >= 20)
    t.ok((report.refusals['out-of-capacity'] ?? 0) > 0, 'the limit was reached')
    const lines = readLines(dir)
    t.ok(new Set(lines.map(({ by }) => by)).size >= 3, 'several processes have written')
    t.ok(
      lines.every(({ seq, atMs }, index) => seq === index + 1 && atMs >= (lines[index - 1]?.atMs ?? 0)),
      'numbers and time never fall',
    )
  },
)

void t.test('a folder without a world says so', (t) => {
  const dir = tempDir(t)
  t.throws(() => kindOfWorld(dir), /holds no simulated world/)
  writeFileSync(fileOf(dir), '')
  t.throws(() => readWorld(dir), /without a first line/)
  t.throws(() => readLines(dir), /without a first line/)
  t.end()
})

function readWhole(dir: string): Line[] {
  const ledger = new Ledger(dir, listing, { readOnly: true })
  ledger.close()
  return ledger.state
}
