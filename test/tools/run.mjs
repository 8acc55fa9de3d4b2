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
      if (existsSync(raw)) process.stdout.write(`${durations(readFileSync(raw, 'utf8'))}\n`)
      if (code !== 0 && counts.failed === 0) counts.failed = 1
      resolve(counts)
    })
  })
}

/** How long it took, and which files took longest: what to look at when all takes too long. */
function durations(tap) {
  const files = [...tap.matchAll(/^(?:not )?ok \d+ - (\S+\.test\.js).*# time=([\d.]+)ms/gm)]
    .map(([, file, ms]) => ({ file, seconds: Number(ms) / 1000 }))
    .sort((a, b) => b.seconds - a.seconds)
  const sum = files.reduce((seconds, file) => seconds + file.seconds, 0)
  const slowest = files.slice(0, 12).map(({ file, seconds }) => `${seconds.toFixed(0)} s ${file}`)
  return `${files.length} files, ${(sum / 60).toFixed(1)} min; the slowest: ${slowest.join(', ')}`
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

// Each hub of a test tells here what was looked through for secrets.
const canaries = join(root, '.tap/canaries.jsonl')
mkdirSync(join(root, '.tap'), { recursive: true })
rmSync(canaries, { force: true })
process.env.SLIPWAY_CANARY_TOTALS = canaries

const total = { passed: 0, failed: 0, skipped: 0 }
const add = (counts) => {
  for (const key of Object.keys(total)) total[key] += counts[key]
}

if (positionals.length > 0) add(await runTap('Selected tests', ['--disable-coverage', ...positionals]))
else {
  const glob = (patterns) => patterns.flatMap((pattern) => globFiles(pattern)).sort()
  // On the other axis runs what knows of the database, and of the Node line: the hub, the SDK's connections, the API, and one whole system.
  const once = ['authorization', 'bench', 'chaos', 'conformance', 'lab', 'simulation'].map(
    (name) => `test/dist/${name}`,
  )
  const others = readdirSync(join(root, 'providers')).filter((name) => name !== 'simulated')
  const isOnce = (file) =>
    /^sdk\/dist\/(cli|conformance|provider)\//.test(file) ||
    (/\/(e2e|integration)\//.test(file) && !/\/(simulated|api)\.test\.js$/.test(file))
  const chosen = (directories) => glob(directories).filter((file) => !values.subset || !isOnce(file))
  const unit = chosen([
    'hub/dist',
    'sdk/dist',
    'providers/simulated/dist',
    ...(values.subset ? [] : others.map((name) => `providers/${name}/dist`)),
  ])
  const whole = chosen(['test/dist/integration', 'test/dist/e2e', ...(values.subset ? [] : once)])
  const house = values.subset ? [] : glob(['test/dist/architecture'])
  // Side by side, more at once than there are cores: most of what runs long waits more than it computes.
  if (values.subset || values['no-coverage'])
    add(await runTap('All of it', ['--disable-coverage', ...house, ...unit, ...whole]))
  else {
    const coverage = ['--allow-incomplete-coverage', '--allow-empty-coverage', '--coverage-report=text-summary']
    add(await runTap('House rules and units', [...coverage, ...house, ...unit]))
    add(await runTap('Whole systems', ['--disable-coverage', ...whole]))
  }
}
if (existsSync(canaries)) process.stdout.write(`\n${scanned(canaries)}\n`)
finish(total)

/** What all hubs together have had looked through. */
function scanned(file) {
  const sum = { hubs: 0, secrets: 0, bytes: 0, ms: 0, found: 0 }
  for (const line of readFileSync(file, 'utf8').split('\n').filter(Boolean))
    for (const [key, value] of Object.entries(JSON.parse(line))) sum[key] += value
  const mebibytes = (sum.bytes / 1024 / 1024).toFixed(1)
  return `Canaries: scanned ${sum.hubs} hubs, ${mebibytes} MiB, for ${sum.secrets} secrets in ${(sum.ms / 1000).toFixed(1)} s: ${sum.found} found`
}

/** Compiled test files below a folder. */
function globFiles(directory) {
  const path = join(root, directory)
  if (!existsSync(path)) return []
  return readdirSync(path, { recursive: true })
    .filter((file) => file.endsWith('.test.js') && !file.includes('node_modules'))
    .map((file) => join(directory, file))
}
