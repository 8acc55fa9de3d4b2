import { fileURLToPath } from 'node:url'
import t from 'tap'
import { allCases } from './cases/index.js'
import { opening } from './cases/opening.js'
import { describeResult } from './report/people.js'
import { toJunit } from './report/junit.js'
import { toTap } from './report/tap.js'
import { runConformance, type CaseResult } from './runner.js'
import { folderAdapter } from './testing/adapter.js'
import { defects } from './testing/defects.js'

// The kit itself: a provider with nothing wrong passes, and each of many defects is seen by the case that is there for it.

const program = fileURLToPath(new URL('./testing/main.js', import.meta.url))

/** Providers at once: they wait for the most part. */
const atOnce = 4

/** Runs some cases against the provider with one defect, or none. */
async function run(defect: string, ids: readonly string[]): Promise<readonly CaseResult[]> {
  const cases = allCases.filter(({ id }) => ids.includes(id))
  const { results } = await runConformance({
    adapter: folderAdapter,
    description: await folderAdapter.describe(),
    command: [process.execPath, program, defect],
    cases,
    jobs: atOnce,
    waitMs: 8_000,
  })
  return results.filter(({ id }) => id !== opening.id)
}

const expected = Object.entries(defects)

t.setTimeout(1_200_000)

void t.test('each case has a name of its own, and says what must hold', async (t) => {
  t.equal(new Set(allCases.map(({ id }) => id)).size, allCases.length)
  for (const { id, rule } of allCases) {
    t.match(id, /^[a-z]+\/[a-z0-9-]+$/)
    t.match(rule, /^[A-Z].*\.$/, id)
  }
  t.ok(allCases.length >= 120, `there are ${allCases.length} cases`)
  t.ok(allCases.filter(({ basic }) => basic).length >= 40)
})

void t.test('with nothing wrong, every case passes that a defect would fail', async (t) => {
  const results = await run('sound', Object.values(defects))
  t.equal(results.length, new Set(Object.values(defects)).size)
  for (const { id, outcome, reason = '', transcript = '' } of results)
    t.equal(outcome, 'passed', `${id} ${reason}`, outcome === 'passed' ? {} : { transcript })
})

void t.test('each defect fails the case that is there for it', async (t) => {
  const waiting = [...expected]
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [defect, id] = next
      const [result] = await run(defect, [id])
      t.equal(result?.outcome, 'failed', `a provider that ${defect.replaceAll('-', ' ')} fails ${id}`, {
        reason: result?.reason,
        transcript: result?.outcome === 'failed' ? undefined : result?.transcript,
      })
      t.comment(`${defect}: ${result?.reason}`)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, work))
})

void t.test('reports show what was not right, to people and to programs', (t) => {
  const rule = 'Something holds.'
  const transcript = 'hub: says <this> & "that" \u0007\nkit: ends'
  const results: CaseResult[] = [
    { id: 'a/passes', rule, outcome: 'passed', durationMs: 1_234, transcript },
    { id: 'a/fails', rule, outcome: 'failed', reason: 'expected <1>, got "2"', durationMs: 5, transcript },
    { id: 'b/cannot-tell', rule, outcome: 'skipped', reason: 'no # here', durationMs: 0 },
  ]
  const tap = toTap(results)
  t.match(tap, /^TAP version 14\n1\.\.3\nok 1 - a\/passes\n/)
  t.match(tap, /\nnot ok 2 - a\/fails\n {2}---\n[\s\S]*expected <1>[\s\S]*\n {2}\.\.\.\n/)
  t.match(tap, /\nok 3 - b\/cannot-tell # SKIP no {3}here\n/)
  const junit = toJunit(results, 'kit')
  t.match(junit, /<testsuites name="kit" tests="3" failures="1" skipped="1"/)
  t.match(junit, /<testsuite name="kit\.a" tests="2" failures="1"/)
  t.match(junit, /message="expected &lt;1&gt;, got &quot;2&quot;">hub: says &lt;this&gt; &amp; /)
  t.notOk(junit.includes('\u0007'), 'no character that XML forbids')
  const [passed = '', failed = '', skipped = ''] = results.map(describeResult)
  t.equal(passed, 'pass  a/passes  (1.2 s)')
  t.match(failed, /rule: Something holds\.\n +why: {2}expected <1>, got "2"\n +\| hub: says/)
  t.equal(skipped, 'skip  b/cannot-tell  no # here')
  t.end()
})
