import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

// The formatter and the linter, and a fault for each that it must find.

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')

function run(command: string, ...args: string[]) {
  const result = spawnSync(join(root, 'node_modules/.bin', command), args, { cwd: root, encoding: 'utf8' })
  return { status: result.status, output: `${result.stdout}${result.stderr}` }
}

void t.test('formatting', { timeout: 300_000 }, async (t) => {
  const checked = run('prettier', '--check', '--log-level', 'warn', '.')
  t.equal(checked.status, 0, checked.output)
  const folder = mkdtempSync(join(root, 'test/unformatted-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  writeFileSync(join(folder, 'planted.ts'), 'export const a   =  1;\n')
  t.not(run('prettier', '--check', join(folder, 'planted.ts')).status, 0, 'an unformatted file is caught')
})

void t.test('lint', { timeout: 600_000 }, async (t) => {
  const checked = run('eslint', '--quiet', '.')
  t.equal(checked.status, 0, checked.output)
  const planted = spawnSync(
    join(root, 'node_modules/.bin/eslint'),
    ['--stdin', '--stdin-filename', join(root, 'hub/src/domain/facts.ts')],
    {
      cwd: root,
      encoding: 'utf8',
      input: 'async function work(): Promise<void> {}\nexport function start(): void {\n  work()\n}\n',
    },
  )
  t.match(planted.stdout, /no-floating-promises/, 'a floating promise is caught')
})
