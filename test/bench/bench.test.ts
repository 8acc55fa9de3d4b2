import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { root } from '../tools/processes.js'
import { judge, measure } from './harness/results.js'
import { figure, latencies, median } from './harness/stats.js'

// That the benchmarks work; what they measure is measured by `npm run bench`.

async function bench(...args: string[]): Promise<{ readonly code: unknown; readonly output: string }> {
  const child = spawn(process.execPath, [join(root, 'test/dist/bench/main.js'), ...args], { cwd: root })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()))
  const [code] = (await once(child, 'close')) as [unknown]
  return { code, output }
}

// The whole file may take longer than the runner's ordinary limit; each test has its own.
t.setTimeout(600_000)

void t.test('figures', (t) => {
  t.equal(median([3, 1, 2]), 2)
  t.equal(median([4, 1, 3, 2]), 2.5)
  t.strictSame([0.0012345, 1.2345, 12.345, 123.45, 12_345, Number.NaN].map(figure), [
    '0.001',
    '1.23',
    '12.3',
    '123',
    '12,345',
    '–',
  ])
  const times = latencies(
    'page',
    Array.from({ length: 1_000 }, (_, index) => index),
  )
  t.ok(Math.abs((times['page p50 ms'] ?? 0) - 500) <= 1 && Math.abs((times['page p99 ms'] ?? 0) - 990) <= 1, times)
  t.end()
})

void t.test('contenders take turns, and ratios are of figures of one round', async (t) => {
  const order: string[] = []
  const contender = (series: string, values: readonly number[]) => ({
    series,
    case: 'one',
    run: (round: number) => {
      order.push(`${series} ${round}`)
      return Promise.resolve({ 'jobs/s': values[round] ?? 0 })
    },
  })
  const rows = await measure(
    [contender('hub', [10, 40, 90]), contender('bare', [10, 20, 30])],
    { quick: false, rounds: 3 },
    () => undefined,
  )
  t.strictSame(order, ['hub 0', 'bare 0', 'hub 1', 'bare 1', 'hub 2', 'bare 2'])
  const goal = { text: 'as many', series: 'hub', case: 'one', metric: 'jobs/s' }
  t.match(judge({ ...goal, of: 'bare', atLeast: 2 }, rows), { value: 2, met: true })
  t.match(judge({ ...goal, of: 'bare', atLeast: 2.1 }, rows), { value: 2, met: false })
  t.match(judge({ ...goal, atMost: 39 }, rows), { value: 40, met: false })
})

void t.test('a quick run of every sort', { timeout: 280_000 }, async (t) => {
  const results = join(root, 'test/bench/results')
  const before = existsSync(results) ? readdirSync(results) : []
  const own = () => readdirSync(tmpdir()).filter((name) => name.startsWith('slipway-bench-'))
  const folders = own()
  const { code, output } = await bench('--quick', 'lifecycle', 'claim', 'report', 'list', 'watch')
  t.equal(code, 0, output)
  for (const line of [
    /hub, 1 at a time: {2}lifecycles\/s [1-9]/,
    /bare prototype, 1 at a time: {2}lifecycles\/s [1-9]/,
    /graphile-worker, batch 100: {2}jobs\/s [1-9]/,
    /pg-boss, batch 100: {2}jobs\/s [1-9]/,
    /hub, 1 stream: {2}reports\/s [1-9]/,
    /client API, first page: {2}page p50 ms [0-9]/,
    /hub, 10 watchers: {2}deliveries\/s [1-9]/,
  ])
    t.match(output, line)
  t.strictSame(existsSync(results) ? readdirSync(results) : [], before, 'it writes nothing')
  t.strictSame(own(), folders, 'and leaves nothing')
})

void t.test('what it cannot do', async (t) => {
  const { code, output } = await bench('nonsense')
  t.equal(code, 2)
  t.match(output, /there is no benchmark nonsense/)
})
