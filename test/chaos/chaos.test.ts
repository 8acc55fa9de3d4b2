import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { root, until } from '../tools/processes.js'
import { kinds } from './kinds.js'
import { planFaults } from './plan.js'
import type { RunReport } from './report.js'
import { whatIsMissing } from './sandbox.js'
import { parties } from './topology.js'

// The short run that is part of every `npm test`: a fixed seed, one minute, a fault every other second. Long runs: npm run chaos.

const main = join(root, 'test/dist/chaos/main.js')
const seed = '20'
const missing = whatIsMissing()
const skip = missing.length > 0 && `chaos needs ${missing.join(', ')}`

function scratch(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'slipway-chaos-test-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** What a run of this process id has left on the machine: folders, mounts, processes; and namespaces of anybody by the names of its parties. */
function leftovers(pid: number | undefined): readonly string[] {
  const mark = `slipway-chaos-${pid}-`
  const mounts = readFileSync('/proc/mounts', 'utf8').split('\n')
  const namespaces = existsSync('/run/netns') ? readdirSync('/run/netns') : []
  return [
    ...readdirSync(tmpdir()).filter((name) => name.startsWith(mark)),
    ...mounts.filter((line) => line.includes(mark)),
    ...namespaces.filter((name) => parties.includes(name)),
    ...readdirSync('/proc').filter((name) => /^\d+$/.test(name) && environmentOf(name).includes(mark)),
  ]
}

function environmentOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8')
  } catch {
    return ''
  }
}

// The whole file may take longer than the runner's ordinary limit; each test has its own.
t.setTimeout(900_000)

void t.test('one minute of faults breaks no promise', { skip, timeout: 290_000 }, async (t) => {
  const folder = scratch(t)
  const report = join(folder, 'report.json')
  const args = ['--seed', seed, '--minutes', '0.6', '--fault-every', '1800', '--floor', '60', '--report', report]
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (said += data.toString()))
  const [code] = (await once(child, 'close')) as [number]
  t.equal(code, 0, said)
  const run = JSON.parse(readFileSync(report, 'utf8')) as RunReport
  t.equal(run.verdict, 'passed')
  const [round] = run.rounds
  t.strictSame(round?.violations, [])
  t.ok((round?.acknowledged ?? 0) > 50, `${round?.acknowledged} acknowledged operations`)
  t.ok((round?.watch.resumed ?? 0) > 0, 'watches were resumed')
  t.comment(said.split('\n').slice(-60).join('\n'))
  t.strictSame(leftovers(child.pid), [], 'nothing is left on the machine')
})

void t.test('a run that is interrupted leaves nothing behind', { skip, timeout: 120_000 }, async (t) => {
  const child = spawn(process.execPath, [main, '--seed', seed, '--minutes', '5'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let said = ''
  child.stdout.on('data', (data: Buffer) => (said += data.toString()))
  await until('the run to be under way', () => /faults in/.test(said), 60_000)
  const exit = once(child, 'exit')
  t.not(leftovers(child.pid).length, 0, 'while it runs there is something to be left')
  child.kill('SIGINT')
  const [code] = (await exit) as [number]
  t.equal(code, 130)
  t.strictSame(leftovers(child.pid), [], 'no process, mount, namespace or folder')
})

void t.test(
  'a run with too little traffic, or too few effective faults, is void',
  { skip, timeout: 200_000 },
  async (t) => {
    const folder = scratch(t)
    const args = ['--seed', seed, '--minutes', '0.1', '--kinds', 'kill:watcher', '--floor', '1000000', '--keep', folder]
    const run = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', timeout: 190_000 })
    t.equal(run.status, 3, run.stdout + run.stderr)
    t.match(run.stdout, /VOID .*below the floor of 1000000/)
  },
)

void t.test('the schedule follows from the seed alone', async (t) => {
  const options = { seed: 5, forMs: 600_000, everyMs: 2_000, kinds: [], has: new Set(['libfaketime']) }
  const plan = planFaults(options)
  t.strictSame(planFaults(options), plan)
  t.notSame(planFaults({ ...options, seed: 6 }), plan)
  t.same(new Set(plan.map(({ kind }) => kind)), new Set(kinds.map(({ name }) => name)), 'ten minutes have every kind')
  t.ok(planFaults({ ...options, kinds: ['pg'] }).every(({ kind }) => kind.startsWith('pg')))
  t.throws(() => planFaults({ ...options, kinds: ['meteor'] }), /no kind of fault meteor/)
  t.notOk(planFaults({ ...options, has: new Set() }).some(({ kind }) => kind.startsWith('clock')))
})

void t.test('wrong use is refused, with help', async (t) => {
  for (const args of [['--seed', 'x'], ['--nonsense'], ['--resume']]) {
    const run = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' })
    t.equal(run.status, 2, args.join(' '))
    t.match(run.stderr, /--fault-every/)
  }
  t.match(spawnSync(process.execPath, [main, '--help'], { encoding: 'utf8' }), {
    status: 0,
    stdout: /SLIPWAY_CHAOS_NODE_ARGS/,
  })
})
