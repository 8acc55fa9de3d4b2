import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

// From `npm create` to a passing kit: so many steps, and no edit between them.

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const modules = join(root, 'node_modules')

t.setTimeout(1_200_000)

function run(cwd: string, command: string, ...args: string[]) {
  const env = { ...process.env }
  // The tests of the skeleton are not ours: they run by another runner.
  for (const name of Object.keys(env)) if (name.startsWith('TAP') || name.startsWith('NODE_TEST')) delete env[name]
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, env, encoding: 'utf8', maxBuffer: 64 * 1024 ** 2 })
  return { status, output: `${stdout}${stderr}` }
}

/** What `npm install` would bring, from what is installed here already: tests need no network. */
function install(folder: string): void {
  for (const name of ['@slipway/sdk', 'zod', '@types/node', 'typescript', '.bin']) {
    const target = join(folder, 'node_modules', name)
    mkdirSync(dirname(target), { recursive: true })
    symlinkSync(realpathSync(join(modules, name)), target)
  }
}

function sourcesOf(folder: string): ReadonlyMap<string, string> {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const paths = files.map((entry) => join(entry.parentPath ?? entry.path, entry.name))
  const own = paths.filter((path) => !/\/(node_modules|dist)\//.test(path))
  return new Map(own.map((path) => [path.slice(folder.length + 1), readFileSync(path, 'utf8')]))
}

/** All of it takes its time, and is told of in docs/providers/conformance.md. */
const chosen = ['--set', 'basic']

void t.test('from nothing to a passing kit', (t) => {
  const parent = mkdtempSync(join(tmpdir(), 'slipway-template-'))
  t.teardown(() => rmSync(parent, { recursive: true, force: true }))
  const folder = join(parent, 'acme-cloud')
  const steps: [string, () => { readonly status: number | null; readonly output: string }][] = [
    ['npm create slipway-provider acme-cloud', () => run(root, 'npm', 'create', 'slipway-provider', '--', folder)],
    ['npm install', () => (install(folder), { status: 0, output: '' })],
    ['npm test', () => run(folder, 'npm', 'test')],
    ['npm run conformance', () => run(folder, 'npm', 'run', 'conformance', '--', '--jobs', '4', ...chosen)],
  ]
  let made: ReadonlyMap<string, string> | undefined
  for (const [step, take] of steps) {
    const { status, output } = take()
    t.equal(status, 0, step, { output: output.slice(-4_000) })
    made ??= sourcesOf(folder)
    if (step.endsWith('conformance')) {
      const [, passed, failed] = /\n(\d+) passed, (\d+) failed, \d+ skipped\n/.exec(output) ?? []
      t.equal(failed, '0')
      t.ok(Number(passed) >= 45, `${passed} cases passed`)
    }
  }
  t.equal(steps.length, 4, 'steps from nothing to a passing kit')
  t.strictSame([...sourcesOf(folder)], [...(made ?? [])], 'nothing was edited on the way')
  for (const name of ['Dockerfile', '.gitignore', '.github/workflows/ci.yml', 'src/config.ts', 'src/provider.test.ts'])
    t.ok(made?.has(name), `there is a ${name}`)
  const left = [...(made ?? [])].filter(([, text]) => text.includes('my-cloud')).map(([name]) => name)
  t.strictSame(left, [], 'no file still has the name of the template')
  t.match(made?.get('src/provider.ts'), /family: 'acme-cloud'/)
  t.end()
})

void t.test('what cannot be made is said', (t) => {
  const program = join(root, 'sdk/create-provider/bin/create-slipway-provider.js')
  t.match(run(root, process.execPath, program), { status: 2, output: /^usage: / })
  t.match(run(root, process.execPath, program, '/tmp/Not A Family'), { status: 2, output: /no family name/ })
  t.match(run(root, process.execPath, program, root.replace(/\/$/, '') + '/sdk'), { status: 1, output: /not empty/ })
  t.end()
})
