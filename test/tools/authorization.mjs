// `npm run test:authorization`: every method of the client API × every role × own, sibling, foreign, absent and deleted. First as it is; then with the policy layer taken away, and with
// row-level security taken away: the wall that is left must hold by itself; and then without both, where the matrix must find what leaks.
import { spawnSync } from 'node:child_process'

const matrix = new URL('../dist/authorization/matrix.test.js', import.meta.url).pathname
const runs = [
  ['', 'as it is'],
  ['row-security', 'row-level security off: caught by the policy layer'],
  ['policy', 'policy layer off: caught by row-level security'],
  ['policy,row-security', 'both off: the matrix finds the leaks'],
]
let failed = 0
for (const [off, title] of runs) {
  const env = { ...process.env, SLIPWAY_WALL_OFF: off, TAP_TIMEOUT: process.env.TAP_TIMEOUT ?? '900' }
  const { status, stdout } = spawnSync(process.execPath, [matrix], { env, encoding: 'utf8', maxBuffer: 2 ** 28 })
  const counts = /# (\d+ RPCs, .*)/.exec(stdout)?.[1] ?? 'nothing was tried'
  process.stdout.write(`${status === 0 ? 'ok    ' : 'FAILED'} ${title}: ${counts}\n`)
  if (status !== 0)
    process.stdout.write(
      `${stdout
        .split('\n')
        .filter((line) => !/^ *ok /.test(line))
        .slice(0, 80)
        .join('\n')}\n`,
    )
  failed += status === 0 ? 0 : 1
}
process.exit(failed === 0 ? 0 : 1)
