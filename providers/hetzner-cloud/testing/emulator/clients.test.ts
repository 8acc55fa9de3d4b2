import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { Emulator } from './emulator.js'

// Clients that are not ours, unmodified, against the emulator: if it had a dialect of its own, they would not speak it. Debian's are older than the API is
// now, so the emulator is lenient with what the description does not know any more; each such thing is named here.

// The whole file may take longer than the runner's ordinary limit on a busy machine.
t.setTimeout(280_000)

const run = promisify(execFile)
const python = '/usr/bin/python3'
const script = fileURLToPath(new URL('../../../testing/clients/lifecycle.py', import.meta.url))

function missing(name: string, command: string, args: readonly string[]): string | false {
  if (spawnSync(command, args).status === 0) return false
  return `no independent client was heard: install the Debian package ${name}`
}

/** Skipped where the client is not installed; in CI that is a failure. */
function clientTest(name: string, isMissing: string | false, test: (t: Test) => Promise<void>): void {
  if (isMissing !== false && process.env['CI'] === 'true') void t.test(name, async (t) => void t.fail(isMissing))
  else void t.test(name, { skip: isMissing, timeout: 120_000 }, test)
}

async function start(t: Test) {
  const emulator = await Emulator.start({ lenient: true })
  t.teardown(() => emulator.close())
  const env = { ...process.env, HCLOUD_ENDPOINT: emulator.endpoint, HCLOUD_TOKEN: emulator.token }
  return { emulator, env }
}

/** What an older client says otherwise than the description has it now, and how often does not matter. */
function strictDifferences({ violations }: Emulator): readonly string[] {
  return [...new Set(violations)].sort()
}

async function refused(t: Test, work: Promise<unknown>, why: RegExp): Promise<void> {
  const said = await work.then(
    () => 'not refused',
    (thrown: unknown) => String((thrown as { stderr?: string }).stderr),
  )
  t.match(said, why)
}

clientTest('hcloud-cli', missing('hcloud-cli', 'hcloud', ['version']), async (t) => {
  const { emulator, env } = await start(t)
  const folder = mkdtempSync(join(tmpdir(), 'slipway-hcloud-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  // Its own settings of whoever runs this must play no part.
  const hcloud = async (...args: readonly string[]) =>
    (await run('hcloud', args, { env: { ...env, HOME: folder, HCLOUD_CONFIG: join(folder, 'cli.toml') } })).stdout
  const key = join(folder, 'key')
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key])
  await hcloud('ssh-key', 'create', '--name', 'key', '--public-key-from-file', `${key}.pub`)
  t.match(
    await hcloud('ssh-key', 'list', '-o', 'noheader'),
    spawnSync('ssh-keygen', ['-E', 'md5', '-lf', `${key}.pub`])
      .stdout.toString()
      .split(' ')[1]
      ?.replace('MD5:', ''),
  )
  t.match(await hcloud('server-type', 'list'), /cx22/)
  t.match(await hcloud('image', 'list'), /debian-12/)
  const order = ['--type', 'cx22', '--image', 'debian-12', '--location', 'fsn1', '--ssh-key', 'key']
  await hcloud('server', 'create', '--name', 'cli-1', ...order, '--label', 'by=cli')
  t.match(await hcloud('server', 'list', '-l', 'by=cli', '-o', 'noheader'), /cli-1\s+running/)
  await hcloud('server', 'poweroff', 'cli-1')
  t.match(await hcloud('server', 'list', '-o', 'noheader'), /cli-1\s+off/)
  await hcloud('server', 'poweron', 'cli-1')
  await hcloud('server', 'rebuild', 'cli-1', '--image', 'ubuntu-24.04')
  t.match(await hcloud('server', 'describe', 'cli-1'), /OS flavor:\s+ubuntu/)
  await hcloud('server', 'reboot', 'cli-1')
  await hcloud('server', 'enable-rescue', 'cli-1')
  await hcloud('volume', 'create', '--name', 'data', '--size', '10', '--server', 'cli-1')
  await hcloud('network', 'create', '--name', 'net', '--ip-range', '10.0.0.0/16')
  await hcloud(...'network add-subnet net --network-zone eu-central --type cloud --ip-range 10.0.0.0/24'.split(' '))
  await hcloud('server', 'attach-to-network', 'cli-1', '--network', 'net')
  t.match(await hcloud('server', 'describe', 'cli-1'), /IP:\s+10\.0\./)
  await hcloud('server', 'enable-protection', 'cli-1', 'delete', 'rebuild')
  await refused(t, hcloud('server', 'delete', 'cli-1'), /protected/)
  await hcloud('server', 'disable-protection', 'cli-1', 'delete', 'rebuild')
  await hcloud('server', 'delete', 'cli-1')
  // It does not wait for the end of a deletion.
  const deadlineMs = performance.now() + 10_000
  while ((await hcloud('server', 'list', '-o', 'noheader')) !== '') t.ok(performance.now() < deadlineMs, 'soon gone')
  for (const [kind, name] of [
    ['volume', 'data'],
    ['network', 'net'],
    ['ssh-key', 'key'],
  ] as const)
    await hcloud(kind, 'delete', name)
  await refused(t, hcloud('datacenter', 'list'), /deprecated_api_endpoint/)
  t.strictSame(emulator.ledger.live(), [])
  t.strictSame(strictDifferences(emulator), [
    'request GET /actions: page: not described',
    'request GET /server_types: sort: not described',
    'request POST /networks/{id}/actions/add_subnet: body: data must NOT have additional properties',
    'request POST /servers/{id}/actions/rebuild: body: data/image must be string',
    'request POST /servers: body: data/image must be string, data/ssh_keys/0 must be string',
  ])
})

clientTest('python3-hcloud', missing('python3-hcloud', python, ['-c', 'import hcloud']), async (t) => {
  const { emulator, env } = await start(t)
  const { stdout } = await run(python, [script], { env })
  const said = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { what: string; value: unknown })
  t.strictSame(Object.fromEntries(said.map(({ what, value }) => [what, value])), {
    created: ['running', 'debian-12'],
    listed: ['python-1'],
    off: 'off',
    on: 'running',
    rebuilt: ['running', 'ubuntu-24.04'],
    attached: true,
    refused: 'uniqueness_error',
    left: [],
  })
  t.strictSame(emulator.ledger.live(), [])
  t.strictSame(strictDifferences(emulator), [])
})
