// `npm test`: everything, on a machine that has nothing but Node and npm. Installs, builds, and runs the suite; ends with one line
// `N passed, N failed, N skipped`, and exits non-zero where a test failed, or where one was skipped in CI.
//
// Options: --subset            what knows of the database or of the Node line: for the second of each
//          --no-coverage       the same tests, faster
//          --summary FILE      writes the three counts to FILE as JSON
//          -- FILES…           only these compiled test files
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

const root = new URL('../../', import.meta.url).pathname
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    subset: { type: 'boolean', default: false },
    'no-coverage': { type: 'boolean', default: false },
    summary: { type: 'string' },
  },
})

const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm'

function must(title, command, args, env = {}) {
  process.stdout.write(`\n# ${title}\n`)
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } })
  if (status === 0) return
  process.stderr.write(`\n${title} failed${error ? `: ${error.message}` : ''}\n`)
  finish({ passed: 0, failed: 1, skipped: 0 })
}

function installed() {
  const marker = join(root, 'node_modules/.package-lock.json')
  return existsSync(marker) && statSync(marker).mtimeMs >= statSync(join(root, 'package-lock.json')).mtimeMs
}

function finish(counts) {
  if (values.summary) writeFileSync(values.summary, JSON.stringify(counts))
  process.stdout.write(`\n${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`)
  const skipsFail = process.env.CI === 'true' && counts.skipped > 0
  if (skipsFail) process.stderr.write('In CI a skipped test is a failed one: install what it names.\n')
  process.exit(counts.failed > 0 || skipsFail || counts.passed === 0 ? 1 : 0)
}

/** Runs tap over the given compiled files, or all; counts leaf assertions of its raw output. */
function runTap(title, args) {
  process.stdout.write(`\n# ${title}\n`)
  const results = join(root, '.tap/slipway')
  mkdirSync(results, { recursive: true })
  const raw = join(results, `${title.replaceAll(/\W+/g, '-')}.tap`)
  rmSync(raw, { force: true })
  const tap = join(root, 'node_modules/.bin/tap')
  return new Promise((resolve) => {
    const child = spawn(tap, ['run', '--reporter=terse', `--output-file=${raw}`, ...args], {
      cwd: root,
      stdio: 'inherit',
    })
    child.on('close', async (code) => {
      const counts = existsSync(raw) ? await count(raw) : { passed: 0, failed: 0, skipped: 0, skips: [] }
      for (const skip of counts.skips) process.stdout.write(`SKIPPED: ${skip}\n`)
      if (code !== 0 && counts.failed === 0) counts.failed = 1
      resolve(counts)
    })
  })
}

async function count(file) {
  const require = createRequire(join(root, 'node_modules/tap/package.json'))
  const { Parser } = await import(require.resolve('tap-parser').replace('/commonjs/', '/esm/'))
  const counts = { passed: 0, failed: 0, skipped: 0, skips: [] }
  const watch = (parser) => {
    let last
    parser.on('child', (child) => {
      last = child
      watch(child)
    })
    parser.on('assert', (result) => {
      const wasParent = last !== undefined
      last = undefined
      if (result.skip || result.todo) {
        counts.skipped++
        counts.skips.push(`${result.fullname || result.name}: ${result.skip || result.todo}`)
      } else if (!wasParent) {
        counts[result.ok ? 'passed' : 'failed']++
        if (!result.ok) process.stdout.write(`FAILED: ${result.fullname || result.name}\n`)
      } else if (!result.ok) counts.failedParents = true
    })
  }
  const parser = new Parser()
  watch(parser)
  parser.end(readFileSync(file))
  if (counts.failedParents && counts.failed === 0) counts.failed = 1
  return counts
}

if (!installed()) must('Installing from package-lock.json', npm, ['ci'])
must('Building', npm, ['run', '--silent', 'build'])

const total = { passed: 0, failed: 0, skipped: 0 }
const add = (counts) => {
  for (const key of Object.keys(total)) total[key] += counts[key]
}

if (positionals.length > 0) add(await runTap('Selected tests', ['--disable-coverage', ...positionals]))
else {
  const glob = (patterns) => patterns.flatMap((pattern) => globFiles(pattern)).sort()
  // On the other axis runs what knows of the database, and of the Node line: hub, SDK, and whole systems with the simulated provider.
  const once = ['bench', 'chaos', 'conformance', 'simulation'].map((name) => `test/dist/${name}`)
  const others = readdirSync(join(root, 'providers')).filter((name) => name !== 'simulated')
  const isOnce = (file) =>
    file.startsWith('sdk/dist/conformance/') || others.some((name) => file.includes(`/e2e/${name}`))
  const chosen = (directories) => glob(directories).filter((file) => !values.subset || !isOnce(file))
  const unit = chosen([
    'hub/dist',
    'sdk/dist',
    'providers/simulated/dist',
    ...(values.subset ? [] : others.map((name) => `providers/${name}/dist`)),
  ])
  const whole = chosen(['test/dist/integration', 'test/dist/e2e', ...(values.subset ? [] : once)])
  const house = values.subset ? [] : glob(['test/dist/architecture'])
  const coverage =
    values.subset || values['no-coverage']
      ? ['--disable-coverage']
      : ['--allow-incomplete-coverage', '--allow-empty-coverage', '--coverage-report=text-summary']
  if (house.length > 0) add(await runTap('House rules', ['--disable-coverage', ...house]))
  // In CI nothing competes for the cores but the tests themselves.
  const jobs = process.env.CI === 'true' ? ['--jobs=1'] : []
  add(await runTap('Unit and integration tests', [...coverage, ...jobs, ...unit]))
  if (whole.length > 0) add(await runTap('Whole-system tests', ['--disable-coverage', '--jobs=1', ...whole]))
}
finish(total)

/** Compiled test files below a folder. */
function globFiles(directory) {
  const path = join(root, directory)
  if (!existsSync(path)) return []
  return readdirSync(path, { recursive: true })
    .filter((file) => file.endsWith('.test.js') && !file.includes('node_modules'))
    .map((file) => join(directory, file))
}
