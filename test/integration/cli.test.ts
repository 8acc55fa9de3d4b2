import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { withHub, type TestHub } from '@slipway/hub/testing'
import t, { type Test } from 'tap'

// The command line against a whole hub: what it prints in each form, held against golden files (UPDATE_GOLDEN=1 rewrites them), and how it ends.

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const golden = join(root, 'test/integration/golden')

interface Result {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

class Cli {
  readonly folder: string
  readonly test: TestHub

  constructor(t: Test, test: TestHub) {
    this.folder = mkdtempSync(join(tmpdir(), 'slipway-cli-'))
    this.test = test
    t.teardown(() => rmSync(this.folder, { recursive: true, force: true }))
  }

  async run(args: readonly string[], input = '', env: Readonly<Record<string, string>> = {}): Promise<Result> {
    const child = spawn(process.execPath, [join(root, 'sdk/bin/slipway.js'), ...args], {
      env: { PATH: process.env['PATH'], HOME: this.folder, SLIPWAY_CONFIG: join(this.folder, 'config.yaml'), ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    let [stdout, stderr] = ['', '']
    child.stdout.on('data', (data: Buffer) => (stdout += data.toString()))
    child.stderr.on('data', (data: Buffer) => (stderr += data.toString()))
    child.stdin.end(input)
    const [code] = (await once(child, 'close')) as [number]
    return { code, stdout, stderr }
  }
}

/** What differs from run to run, by its sort. */
function settled(text: string): string {
  return text
    .replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, 'UUID')
    .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME')
    .replace(/\btoken\/[0-9a-f]{16}\b/g, 'token/ID')
    .replace(/127\.0\.0\.1:\d+/g, 'ADDRESS')
    .replace(/\b\d+[smhd](\d+[smhd])?\b/g, 'SPAN')
    .replace(/ {2,}/g, '  ')
}

function expectGolden(t: Test, name: string, text: string): void {
  const file = join(golden, `${name}.txt`)
  if (process.env['UPDATE_GOLDEN'] === '1') {
    mkdirSync(golden, { recursive: true })
    writeFileSync(file, settled(text))
  }
  t.equal(settled(text), existsSync(file) ? readFileSync(file, 'utf8') : `(there is no ${file})`, name)
}

const forms = ['table', 'wide', 'json', 'yaml', 'name'] as const

const documents = `
kind: Provider
name: cloud
family: simulated
kind2: x
`
const goodDocuments = `
kind: MachineClass
name: small
shape: { vcpus: 2, memoryMib: 4096, diskGib: 40 }
offerings:
  - family: simulated
    typeId: sim-small
labels: { tier: test }
---
kind: MachineClass
name: large
shape: { vcpus: 8, memoryMib: 16384 }
`

t.setTimeout(900_000)

void t.test('the command line', { timeout: 900_000 }, async (t) => {
  const test = await withHub(t)
  const cli = new Cli(t, test)
  const ok = async (...args: string[]) => {
    const result = await cli.run(args)
    t.equal(result.code, 0, `slipway ${args.join(' ')}: ${result.stderr}`)
    return result
  }

  await t.test('log in', async (t) => {
    t.match(await cli.run(['get', 'hosts']), { code: 4, stderr: /slipway login/ }, 'without a hub it says how')
    const wrong = await cli.run(['login', '--server', test.hub.apiUrl, '--token-file', '-'], 'swc_wrong')
    t.match(wrong, { code: 4, stderr: /reason: TOKEN_INVALID/ })
    const login = await cli.run(
      ['login', '--server', test.hub.apiUrl, '--token-file', '-', '--name', 'test'],
      test.token,
    )
    t.match(login, { code: 0, stdout: /as bootstrap/ })
    t.equal(statSync(join(cli.folder, 'config.yaml')).mode & 0o777, 0o600, 'tokens are for their owner alone')
    for (const form of ['table', 'json', 'yaml', 'name']) {
      const { stdout } = await ok('context', 'list', '-o', form)
      t.notOk(stdout.includes(test.token), 'and are not shown')
      expectGolden(t, `context-list-${form}`, stdout)
    }
    for (const form of forms) expectGolden(t, `whoami-${form}`, settledHost((await ok('whoami', '-o', form)).stdout))
  })

  await t.test('tenants, and who may do what', async (t) => {
    await ok('organization', 'create', 'acme', '--display-name', 'Acme')
    await ok('workspace', 'create', 'acme-web', '--organization', 'acme')
    await ok('principal', 'create', 'acme/deploy')
    await ok('principal', 'create', 'acme/ada', '--user', '--display-name', 'Ada')
    await ok('role', 'bind', 'host-creator', 'acme/deploy', '--in-workspace', 'acme-web')
    await ok('role', 'bind', 'owner', 'acme/ada', '--organization', 'acme')
    t.match(await cli.run(['role', 'bind', 'king', 'acme/ada']), { code: 2, stderr: /host-creator/ })
    const made = await ok('token', 'create', 'acme/deploy', '--ttl', '1h')
    t.match(made.stdout, /^sws_\S+\n$/, 'the token alone goes to standard output')
    const hidden = (text: string) =>
      text.replaceAll(/\b[0-9a-f]{16}\b/g, 'ID').replaceAll(/\bb-[0-9a-f]{12}\b/g, 'b-ID')
    for (const word of ['organizations', 'workspaces', 'principals', 'rolebindings'])
      for (const form of forms)
        expectGolden(t, `get-${word}-${form}`, hidden((await ok('get', word, '-o', form)).stdout))
    // When a token was used last is noted in batches: whether it is known yet is a matter of time.
    expectGolden(t, 'get-tokens-name', hidden((await ok('get', 'tokens', '-o', 'name')).stdout))
    t.match((await ok('get', 'tokens')).stdout, /acme\/deploy +valid +never +deploy/)
    const env = { SLIPWAY_SERVER: test.hub.apiUrl, SLIPWAY_TOKEN: made.stdout.trim() }
    t.match(await cli.run(['get', 'workspaces', '-o', 'name'], '', env), {
      code: 0,
      stdout: /^workspaces\/acme-web\n$/,
    })
    t.match(await cli.run(['get', 'orphans'], '', env), { code: 4, stderr: /PERMISSION_MISSING/ })
    t.match(await cli.run(['get', 'workspace', 'default'], '', env), { code: 3 })
    const id = made.stdout.split('_')[1] ?? ''
    t.match(await ok('token', 'revoke', id), { stdout: /revoked/ })
    t.match(await cli.run(['get', 'workspaces'], '', env), { code: 4, stderr: /TOKEN_INVALID/ })
    const head = join(cli.folder, 'head.json')
    for (const deadline = Date.now() + 30_000; Date.now() < deadline;) {
      const { stdout } = await cli.run(['audit', 'list', '--organization', 'acme'])
      if (!stdout.includes('unsealed')) break
    }
    const listed = await ok('audit', 'list', '--organization', 'acme')
    t.match(listed.stdout, /CreateToken {2}tokens\/[0-9a-f]+ {2}by administrator {2}from 127\.0\.0\.1/)
    const exported = await ok('audit', 'export', '--organization', 'acme', '--head', head)
    t.match(JSON.parse(exported.stdout.split('\n')[0] ?? ''), { sequence: '1', hash: /^[0-9a-f]{64}$/ })
    t.match(await ok('audit', 'verify', '--organization', 'acme', '--head', head), {
      stdout: /entries are as they were sealed/,
    })
  })

  await t.test('apply says what it did', async (t) => {
    const file = join(cli.folder, 'documents.yaml')
    writeFileSync(file, documents)
    t.match(
      await cli.run(['apply', '-f', file]),
      { code: 2, stderr: /documents\.yaml:5: .*kind2/ },
      'an unknown key, by line',
    )
    writeFileSync(file, goodDocuments)
    expectGolden(t, 'apply-created', (await ok('apply', '-f', file)).stdout)
    expectGolden(t, 'apply-unchanged', (await ok('apply', '-f', file, '--exit-code')).stdout)
    writeFileSync(file, goodDocuments.replace('vcpus: 8', 'vcpus: 16'))
    const diff = await cli.run(['diff', '-f', file])
    t.equal(diff.code, 7, 'diff ends with 7 where something differs')
    expectGolden(t, 'diff', diff.stdout)
    const changed = await cli.run(['apply', '-f', file, '--exit-code'])
    t.equal(changed.code, 7)
    expectGolden(t, 'apply-configured', changed.stdout)
    for (const form of ['json', 'yaml', 'name']) {
      expectGolden(t, `apply-${form}`, (await ok('apply', '-f', file, '-o', form)).stdout)
    }
  })

  await t.test('every resource in every form', { timeout: 400_000 }, async (t) => {
    await ok('provider', 'add', 'cloud', '--family', 'simulated', '--kind', 'dynamic')
    await plantOrphan(test)
    const keyFile = join(cli.folder, 'token.txt')
    writeFileSync(keyFile, 'a-token-to-hide\n')
    writeFileSync(join(cli.folder, 'same.yaml'), 'apiToken: a-token-to-hide\n')
    await ok('secret', 'create', 'cloud', '--key-file', `apiToken=${keyFile}`, '--description', 'a token')
    for (const resource of [
      'providers',
      'secrets',
      'machineclasses',
      'machines',
      'machinerequests',
      'hosts',
      'orphans',
    ]) {
      for (const form of forms)
        expectGolden(t, `get-${resource}-${form}`, (await ok('get', resource, '-o', form)).stdout)
    }
    for (const form of forms) {
      expectGolden(t, `get-one-${form}`, (await ok('get', 'machineclass', 'small', '-o', form)).stdout)
      const { stdout } = await ok('events', 'machineclass/small', '-o', form)
      expectGolden(t, `events-${form}`, stdout.replaceAll(/token\/[0-9a-f]{16}/g, 'token/ID'))
    }
    expectGolden(t, 'describe', (await ok('describe', 'machineclass', 'small')).stdout)
    const unchanged = await ok('secret', 'rotate', 'cloud', '--data-file', keyFile.replace('token.txt', 'same.yaml'))
    t.match(unchanged.stdout, /cloud +default +1/, 'the same again is no new version')
    const file = join(cli.folder, 'secret.yaml')
    writeFileSync(file, 'kind: Secret\nname: default/cloud\ndata: { apiToken: a-token-to-hide }\n')
    t.match((await ok('apply', '-f', file, '-o', 'json')).stdout, /unchanged/)
    writeFileSync(file, 'kind: Secret\nname: cloud\ndata: { apiToken: another }\n')
    t.match((await ok('apply', '-f', file)).stdout, /secret\/cloud configured/)
    t.match((await ok('get', 'secret', 'cloud')).stdout, /cloud +default +2/)
    t.match(await cli.run(['secret', 'create', 'x']), { code: 2, stderr: /--data-file or --key-file/ })
    t.match(await cli.run(['delete', 'secret', 'cloud', '--yes']), { code: 0, stdout: /secret\/cloud deleted/ })
    t.match(await cli.run(['get', 'secret', 'cloud']), { code: 3, stderr: /SECRET_NOT_FOUND/ })
    const policy = ['--mode', 'remove', '--min-age', '90m', '--max-per-pass', '3', '--max-percent', '20']
    const set = await ok('provider', 'orphans', 'cloud', ...policy, '-o', 'json')
    t.strictSame((JSON.parse(set.stdout) as { orphanPolicy: object }).orphanPolicy, {
      mode: 'ORPHAN_MODE_REMOVE',
      minAge: '5400s',
      maxPerPass: 3,
      maxPercent: 20,
    })
    const one = await ok('provider', 'orphans', 'cloud', '--mode', 'report', '-o', 'json')
    t.match(JSON.parse(one.stdout), { orphanPolicy: { mode: 'ORPHAN_MODE_REPORT', minAge: '5400s' } }, 'the rest stays')
    const drained = await ok('provider', 'drain', 'cloud', '-o', 'json')
    t.match(JSON.parse(drained.stdout), { draining: true })
    const token = await ok('provider', 'token', 'cloud')
    t.match(token.stdout, /^swj_[0-9a-f]+_[0-9a-f]+_[0-9a-f]+\n$/, 'the token, and nothing else')
  })

  await t.test('orphans are kept and removed', async (t) => {
    const show = async (...args: string[]) => JSON.parse((await ok(...args, '-o', 'json')).stdout) as object
    const name = 'o-0123456789ab'
    t.match(await show('orphan', 'keep', name, '--reason', 'evidence'), { keptFor: 'evidence', keptBy: /^token\// })
    expectGolden(t, 'orphan-kept-wide', (await ok('get', 'orphan', `cloud/${name}`, '-o', 'wide')).stdout)
    t.notMatch(await show('orphan', 'unkeep', name), { keptBy: /./ })
    const refused = await cli.run(['orphan', 'remove', name, '--yes'])
    t.match(refused, { code: 1, stderr: /ORPHAN_REMOVAL_UNSUPPORTED/ }, 'no instance has ever connected')
    await test.database.db
      .updateTable('providers')
      .set({ capabilities: JSON.stringify(['REMOVE_ORPHAN']) })
      .execute()
    t.equal((await cli.run(['orphan', 'remove', name])).code, 2, 'nobody can be asked')
    const ordered = await ok('orphan', 'remove', name, '--yes')
    expectGolden(t, 'orphan-removing', ordered.stdout.replaceAll(/token\/[0-9a-f]{16}/g, 'token/ID'))
    t.match(await show('orphan', 'keep', name, '--reason', 'after all'), { state: 'ORPHAN_STATE_KEPT' })
    t.match((await ok('events', `orphan/${name}`)).stdout, /^(?!.*OrphanSeen)/)
    t.match((await ok('__complete', 'orphan', 'remove', '')).stdout, /^o-0123456789ab\n$/)
    t.equal((await cli.run(['get', 'orphan', 'o-none'])).code, 3)
    t.match(await cli.run(['get', 'orphans', '--watch']), { code: 2, stderr: /cannot be watched/ })
    t.match(await cli.run(['delete', 'orphan', name, '--yes']), { code: 2, stderr: /orphan remove/ })
    expectGolden(t, 'help-machine-console', (await ok('machine', 'console', '--help')).stdout)
    expectGolden(t, 'help-host-order', (await ok('host', 'order', '--help')).stdout)
    expectGolden(t, 'help-orphan', (await ok('orphan', '--help')).stdout)
    expectGolden(t, 'help-provider-orphans', (await ok('provider', 'orphans', '--help')).stdout)
  })

  await t.test('exit codes tell what happened', async (t) => {
    const code = async (...args: string[]) => (await cli.run(args)).code
    t.equal(await code('get', 'host', 'none'), 3)
    t.equal(await code('get', 'nonsense'), 2)
    t.equal(await code('get', 'hosts', '-o', 'nonsense'), 2)
    t.equal(await code('host', 'order', 'x', '--class', 'none'), 3)
    t.equal(await code('host', 'order', 'x'), 2)
    t.equal(
      await code('wait', 'host/none', '--for', 'ready', '--timeout', '1s'),
      5,
      'what is not there yet is waited for',
    )
    t.equal(await code('host', 'release', 'none'), 2, 'nobody can be asked')
    t.equal(await code('get', 'hosts', '--server', 'http://127.0.0.1:1'), 8)
    const refused = await cli.run(['host', 'order', 'x', '--class', 'none', '-o', 'json'])
    t.match(JSON.parse(refused.stderr), { reason: 'CLASS_NOT_FOUND' }, 'errors are JSON where JSON is asked for')
    t.notMatch(refused.stderr, / at .*\.js/)
  })

  await t.test('help, version and completion', async (t) => {
    expectGolden(t, 'help', (await ok('--help')).stdout)
    t.match((await ok('version', '-o', 'json')).stdout, /"version": "\d/)
    for (const shell of ['bash', 'zsh', 'fish'])
      expectGolden(t, `completion-${shell}`, (await ok('completion', shell)).stdout)
    t.match((await ok('__complete', 'get', 'machinec')).stdout, /^machineclasses\n$/)
    t.match((await ok('__complete', 'describe', 'machineclass', '')).stdout, /large\nsmall/)
  })
})

/** The replica is named for the machine that the test runs on. */
function settledHost(text: string): string {
  return text.replace(/(replica"?: "?)[\w.-]+/, '$1REPLICA')
}

/** What a complete listing of the provider would have left behind. */
async function plantOrphan(test: TestHub): Promise<void> {
  const { db } = test.database
  const { id } = await db.selectFrom('providers').select('id').executeTakeFirstOrThrow()
  const { hub_id: hubId } = await db.selectFrom('hub_meta').select('hub_id').executeTakeFirstOrThrow()
  const requestId = randomUUID()
  const now = new Date()
  await db
    .insertInto('orphans')
    .values({
      ...{ provider_id: id, provider_name: 'cloud', id: randomUUID(), name: 'o-0123456789ab' },
      ...{ kind: 'server', external_id: 'srv-1', external_name: 'web-1' },
      ...{ ownership_key: `${hubId}/${requestId}`, request_id: requestId },
      ...{ first_seen_at: now, last_seen_at: now, last_listing_id: randomUUID(), sightings: 4 },
      ...{ keep_reason: 'POLICY_REPORTS', keep_message: "the provider's policy is to report" },
    })
    .execute()
}
