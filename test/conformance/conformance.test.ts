import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { allCases, loadAdapter, runConformance, type CaseResult } from '@slipway/sdk/conformance'
import t, { type Test } from 'tap'
import { families, Unsupported, type Target } from './families.js'

// The providers of this repository, and one that is made from proto/ alone, against the conformance kit.

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')

t.setTimeout(1_800_000)

/** The rest of the kit is `npm run conformance`: it takes its time. */
type CaseSet = 'basic' | 'rack'

/** Runs the kit against one target. */
async function run(target: Target, set: CaseSet): Promise<readonly CaseResult[]> {
  const adapter = await loadAdapter(target.adapter)
  const { results } = await runConformance({
    adapter,
    description: await adapter.describe(),
    command: target.command,
    cases: allCases.filter(({ id, basic }) => basic === true || (set === 'rack' && /^(rack|left-alone)\//.test(id))),
    jobs: 4,
    waitMs: 60_000,
  })
  return results
}

/** Holds where nothing failed, and enough was there to be told. */
async function conforms(t: Test, family: string, set: CaseSet, atLeast: number): Promise<void> {
  let targets: readonly Target[]
  try {
    targets = families[family]?.() ?? []
  } catch (error) {
    if (!(error instanceof Unsupported)) throw error
    // In CI the suite as a whole fails for a test that was skipped.
    t.pass('skipped', { skip: error.message })
    return
  }
  for (const target of targets) {
    const results = await run(target, set)
    const failed = results.filter(({ outcome }) => outcome === 'failed')
    for (const { id, reason = '', transcript } of failed) t.fail(`${target.name}: ${id}: ${reason}`, { transcript })
    const passed = results.filter(({ outcome }) => outcome === 'passed').length
    t.ok(passed >= atLeast, `${target.name} passes ${passed} cases`)
    t.comment(
      `${target.name}: ${passed} passed, ${failed.length} failed, ${results.length - passed - failed.length} skipped`,
    )
  }
}

// Dynamic providers on the SDK: the skeleton, by its own run in template.test.ts, and one behind an API. What QEMU runs is tried by providers/qemu and test/e2e.
void t.test('simulated static machines pass the basic set, and the cases of a rack', (t) =>
  conforms(t, 'simulated-rack', 'rack', 60),
)

void t.test('the Hetzner Cloud provider passes the basic set', (t) => conforms(t, 'hetzner-cloud', 'basic', 45))

void t.test('bare machines pass the basic set', (t) => conforms(t, 'bare-metal', 'basic', 40))

void t.test('a provider that is made from proto/ alone passes the basic set', (t) => conforms(t, 'python', 'basic', 45))

void t.test('the command', (t) => {
  const call = (...args: string[]) =>
    spawnSync(process.execPath, [join(root, 'sdk/bin/slipway-conformance.js'), ...args], { encoding: 'utf8' })
  const listed = call('--list', '--set', 'basic')
  t.equal(listed.status, 0)
  t.match(listed.stdout, /handshake\/opens-a-session {2}\(basic\)\n[\s\S]*\n\d+ cases\n$/)
  t.equal(call('--only', 'no/such-case').status, 2)
  t.match(call('--adapter', '/no/such/adapter.js', '--', 'true'), { status: 2, stderr: /cannot be loaded/ })
  t.match(call('--adapter', 'x.js'), { status: 2, stderr: /after --/ })
  const hopeless = call('--adapter', families['simulated-cloud']?.()[0]?.adapter ?? '', '--wait', '1', '--', 'false')
  t.equal(hopeless.status, 1, 'a provider that does not even start fails')
  t.match(hopeless.stdout, /no session was opened\n[\s\S]*\n0 passed, 1 failed, \d+ skipped\n$/)
  t.end()
})
