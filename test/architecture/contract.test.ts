import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'

// The contract: linted, formatted, compatible with what is committed, and the generated code is what it generates.

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const bin = join(root, 'node_modules/.bin')
const env = { ...process.env, PATH: `${bin}:${process.env['PATH'] ?? ''}` }

function buf(cwd: string, ...args: string[]) {
  const run = spawnSync(join(bin, 'buf'), args, { cwd, env, encoding: 'utf8' })
  return { status: run.status, output: `${run.stdout}${run.stderr}` }
}

/** A copy of all that buf reads, to be spoilt at will. */
function copyOfContract(t: Test): string {
  const copy = mkdtempSync(join(tmpdir(), 'slipway-contract-'))
  t.teardown(() => rmSync(copy, { recursive: true, force: true }))
  for (const path of ['buf.yaml', 'buf.gen.yaml']) cpSync(join(root, path), join(copy, path))
  for (const path of ['slipway', 'google', 'external'])
    cpSync(join(root, 'proto', path), join(copy, 'proto', path), { recursive: true })
  return copy
}

function spoil(file: string, from: string, to: string): void {
  const text = readFileSync(file, 'utf8')
  if (!text.includes(from)) throw new Error(`${file} does not hold «${from}» any more: plant another fault`)
  writeFileSync(file, text.replace(from, to))
}

void t.test('the contract', async (t) => {
  execFileSync(process.execPath, ['tools/external.mjs'], { cwd: join(root, 'proto') })

  await t.test('lint', async (t) => {
    t.strictSame(buf(root, 'lint'), { status: 0, output: '' })
    const copy = copyOfContract(t)
    spoil(join(copy, 'proto/slipway/hub/v1/host.proto'), '  // Its hostname.', '  ')
    t.not(buf(copy, 'lint').status, 0, 'an uncommented field is caught')
  })

  await t.test('format', async (t) => {
    const formatted = buf(root, 'format', '-d', '--exit-code', '--path', 'proto/slipway', '--path', 'proto/google')
    t.strictSame(formatted, { status: 0, output: '' })
  })

  await t.test('breaking changes', async (t) => {
    const inGit = spawnSync('git', ['rev-parse', '--verify', 'HEAD'], { cwd: root }).status === 0
    if (inGit) {
      const against = mkdtempSync(join(tmpdir(), 'slipway-head-'))
      t.teardown(() => rmSync(against, { recursive: true, force: true }))
      execFileSync('sh', ['-c', `git archive HEAD proto buf.yaml | tar -x -C "${against}"`], { cwd: root })
      cpSync(join(root, 'proto/external'), join(against, 'proto/external'), { recursive: true })
      t.strictSame(
        buf(root, 'breaking', '--against', against),
        { status: 0, output: '' },
        'none against what is committed',
      )
    }
    const copy = copyOfContract(t)
    spoil(join(copy, 'proto/slipway/provider/v1/work.proto'), 'uint64 fence = 2;', 'string fence = 2;')
    t.not(buf(copy, 'breaking', '--against', copyOfContract(t)).status, 0, 'a changed field type is caught')
  })

  await t.test('generated code', async (t) => {
    const copy = copyOfContract(t)
    cpSync(join(root, 'proto/tools'), join(copy, 'proto/tools'), { recursive: true })
    const generated = buf(copy, 'generate')
    t.equal(generated.status, 0, generated.output)
    const files = readdirSync(join(copy, 'proto/gen'), { recursive: true, encoding: 'utf8' }).filter((file) =>
      file.endsWith('_pb.ts'),
    )
    t.ok(files.length > 15)
    for (const file of files) {
      const same =
        readFileSync(join(copy, 'proto/gen', file), 'utf8') === readFileSync(join(root, 'proto/gen', file), 'utf8')
      t.ok(same, `${file} is as generated; run \`npm run generate\` where it is not`)
    }
  })
})
