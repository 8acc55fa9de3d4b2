import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { createHash, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { access, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { TestAuthority } from '@slipway/sdk/testing'
import type { BmcSecret, RedfishSettings } from '../../src/power/settings.js'
import { RedfishDriver } from '../../src/power/redfish/driver.js'

const run = promisify(execFile)
const requirements = fileURLToPath(new URL('../../../testing/bmc/requirements.txt', import.meta.url))
const cache = fileURLToPath(new URL('../../../../../node_modules/.cache/', import.meta.url))

/**
 * Where sushy-tools and sushy of PyPI are, an emulator of Redfish and a client of it that are not ours. They are installed once, into a folder of their own.
 * @throws Error where there is no Python with venv, or no way to PyPI.
 */
export async function sushyTools(): Promise<string> {
  const folder =
    process.env['SLIPWAY_SUSHY_DIR'] ??
    join(cache, `slipway-sushy-${createHash('sha256').update(readFileSync(requirements)).digest('hex').slice(0, 8)}`)
  if (await exists(join(folder, 'bin', 'sushy-emulator'))) return folder
  await mkdir(join(folder, '..'), { recursive: true })
  const building = await mkdtemp(`${folder}-`)
  try {
    await run('python3', ['-m', 'venv', building], { timeout: 300_000 })
    await run(join(building, 'bin', 'pip'), ['install', '--quiet', '--requirement', requirements], { timeout: 300_000 })
    // Its programs name the folder that they were installed in; it is started by way of Python, which does not mind.
    await rename(building, folder)
  } catch (error) {
    await rm(building, { recursive: true, force: true })
    if (!(await exists(join(folder, 'bin', 'sushy-emulator')))) throw error
  }
  return folder
}

/** Runs the scene of clients/lifecycle.py by sushy, and gives what it saw. */
export async function runSushyClient(endpoint: string, authorityFile: string, login: BmcSecret): Promise<unknown> {
  const script = fileURLToPath(new URL('../../../testing/bmc/clients/lifecycle.py', import.meta.url))
  const python = join(await sushyTools(), 'bin', 'python3')
  const env = { ...process.env, REDFISH_PASSWORD: login.password }
  const { stdout } = await run(python, [script, endpoint, login.username, authorityFile], { env, timeout: 200_000 })
  return JSON.parse(stdout)
}

export interface SushyEmulator {
  readonly settings: RedfishSettings
  readonly secret: BmcSecret
  close(): Promise<void>
}

const secret: BmcSecret = { username: 'admin', password: 'an-emulated-one' }
const identity = '27946b59-9e44-4fa7-8e91-f3527a1ef094'

export interface SushyPlan {
  /** What to start, in which folder. */
  readonly command: readonly [string, ...string[]]
  readonly folder: string
  readonly settings: RedfishSettings
  readonly secret: BmcSecret
}

/**
 * Writes the files of an emulator with its own fake driver, whose power changes some seconds after it was asked for.
 * @param options.notifyUrl where it is to tell (PUT, with its whole system) what it was asked for and when its power has changed.
 */
export async function planSushyEmulator(
  folder: string,
  options: { readonly address: string; readonly port: number; readonly uuid: string; readonly notifyUrl?: string },
): Promise<SushyPlan> {
  const { address, port, uuid } = options
  const python = join(await sushyTools(), 'bin', 'python3')
  const { keyPem, certificatePem } = await (await TestAuthority.create('Test BMCs')).serverCertificate('localhost')
  const hash = await run(python, [
    '-c',
    `import bcrypt; print(bcrypt.hashpw(b"${secret.password}", bcrypt.gensalt(4)).decode())`,
  ])
  await writeFile(join(folder, 'key.pem'), keyPem, { mode: 0o600 })
  await writeFile(join(folder, 'certificate.pem'), certificatePem)
  await writeFile(join(folder, 'users'), `${secret.username}:${hash.stdout.trim()}\n`)
  await writeFile(join(folder, 'config'), configuration(folder, uuid, options.notifyUrl))
  const program = ['-c', 'from sushy_tools.emulator.main import main; main()', '--fake']
  const files = ['--config', 'config', '--ssl-certificate', 'certificate.pem', '--ssl-key', 'key.pem']
  return {
    command: [python, ...program, ...files, '-i', address, '-p', String(port)],
    folder,
    settings: {
      kind: 'redfish',
      endpoint: `https://${address}:${port}`,
      system: uuid,
      tls: { fingerprint: new X509Certificate(certificatePem).fingerprint256.replaceAll(':', '').toLowerCase() },
      timeoutMs: 30_000,
    },
    secret,
  }
}

/** Starts one on this host's loopback. */
export async function startSushyEmulator(): Promise<SushyEmulator> {
  const folder = await mkdtemp(join(tmpdir(), 'slipway-sushy-'))
  const plan = await planSushyEmulator(folder, { address: '127.0.0.1', port: await freePort(), uuid: identity })
  const [program, ...args] = plan.command
  const child = spawn(program, args, { stdio: 'ignore', cwd: folder })
  const close = async (): Promise<void> => {
    await end(child)
    await rm(folder, { recursive: true, force: true })
  }
  try {
    await untilItAnswers(plan.settings)
  } catch (error) {
    await close()
    throw error
  }
  return { settings: plan.settings, secret, close }
}

function configuration(folder: string, uuid: string, notifyUrl: string | undefined): string {
  return `SUSHY_EMULATOR_AUTH_FILE = '${folder}/users'
SUSHY_EMULATOR_STATE_DIR = '${folder}'
SUSHY_EMULATOR_FAKE_SYSTEMS = [{'uuid': '${uuid}', 'name': 'fake', 'power_state': 'Off',
  'external_notifier': ${notifyUrl === undefined ? 'False' : 'True'}, 'nics': [{'mac': '00:5c:52:31:3a:9c', 'ip': '172.22.0.100'}]}]
EXTERNAL_NOTIFICATION_URL = '${notifyUrl ?? 'http://127.0.0.1:9'}'
`
}

async function untilItAnswers(settings: RedfishSettings): Promise<void> {
  const driver = new RedfishDriver(settings, secret)
  const deadline = performance.now() + 120_000
  try {
    for (;;) {
      try {
        await driver.readPower(AbortSignal.timeout(30_000))
        return
      } catch (error) {
        if (performance.now() > deadline) throw error
        await delay(100)
      }
    }
  } finally {
    await driver.close()
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  await new Promise<void>((resolve) => server.close(() => resolve()))
  return typeof address === 'object' && address !== null ? address.port : 0
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
