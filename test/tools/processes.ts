import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { randomBytes } from 'node:crypto'
import { openDatabase, readKeyring, secretPart, tellingTeardown, Witness } from '@slipway/hub/testing'
import pg from 'pg'
import type { Test } from 'tap'
import { freePort } from './free-port.js'

// Real processes for whole-system tests: hubs, providers and the command line, as their users start them. Whatever a test starts is ended with it.

export const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')

/** Leases are short here, so that what a killed process held is free soon. */
const shortLeases = { SLIPWAY_LEASE: '3s', SLIPWAY_HEARTBEAT: '1s', SLIPWAY_SWEEP: '200ms' }

/** Waits until `check` gives something other than undefined or false. @throws after `timeoutMs`, with what it waited for. */
export async function until<Result>(
  what: string,
  check: () => Promise<Result | undefined | false> | Result | undefined | false,
  timeoutMs = 60_000,
): Promise<Result> {
  const deadline = performance.now() + timeoutMs
  let last: unknown
  for (;;) {
    try {
      const result = await check()
      if (result !== undefined && result !== false) return result
    } catch (error) {
      last = error
    }
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`, { cause: last })
    await sleep(50)
  }
}

/** A folder of the test's own. */
export function temporaryFolder(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'slipway-e2e-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }))
  return folder
}

/** A process under test. Its output goes to a file, which is shown where the test fails. */
export class Process {
  readonly name: string
  readonly logFile: string
  readonly #argv: readonly string[]
  readonly #within: readonly string[]
  readonly #env: NodeJS.ProcessEnv
  #child: ChildProcess

  /** @param within what stands before node's own command line: a program that becomes what it is given. */
  constructor(
    t: Test,
    name: string,
    folder: string,
    argv: readonly string[],
    env: NodeJS.ProcessEnv = {},
    within: readonly string[] = [],
  ) {
    this.name = name
    this.#within = within
    this.logFile = join(folder, `${name}.log`)
    this.#argv = argv
    this.#env = { ...process.env, ...shortLeases, ...env }
    this.#child = this.#spawn({})
    t.teardown(async () => {
      await this.end('SIGTERM')
      if (!t.passing()) t.comment(`${name}: ${this.output().split('\n').slice(-60).join('\n')}`)
    })
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  output(): string {
    return readFileSync(this.logFile, 'utf8')
  }

  /** Sends a signal and waits for the end; after 20 s it is killed. */
  async end(signal: NodeJS.Signals): Promise<void> {
    if (!this.running) return
    const exit = once(this.#child, 'exit')
    this.#child.kill(signal)
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 20_000)
    await exit
    clearTimeout(timer)
  }

  /** Waits until it has ended by itself, and says how. */
  async ended(timeoutMs = 60_000): Promise<string> {
    await until(`the end of ${this.name}`, () => !this.running, timeoutMs)
    return this.#child.signalCode ?? String(this.#child.exitCode)
  }

  start(env: NodeJS.ProcessEnv = {}): void {
    if (this.running) throw new Error(`${this.name} runs already`)
    this.#child = this.#spawn(env)
  }

  #spawn(env: NodeJS.ProcessEnv): ChildProcess {
    const log = openSync(this.logFile, 'a')
    const [program = process.execPath, ...args] = [...this.#within, process.execPath, ...this.#argv]
    return spawn(program, args, {
      cwd: root,
      env: { ...this.#env, ...env },
      stdio: ['ignore', log, log],
    })
  }
}

export interface CliResult {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Variables of a hub, or what makes them of its database's address: undefined where that is embedded. */
export type Environment = NodeJS.ProcessEnv | ((database: string | undefined) => Promise<NodeJS.ProcessEnv>)

/** A hub, with a command line that is logged in to it. */
export class Slipway {
  readonly folder: string
  readonly url: string
  readonly gateway: string
  readonly token: string
  readonly hub: Process
  /** Where its database is; undefined: embedded, for this hub alone. */
  readonly database: string | undefined
  /** Looks on, and fails the test where a secret turns up in a log, a row, or what the command line prints. */
  readonly witness: Witness
  readonly #env: NodeJS.ProcessEnv
  readonly #t: Test
  #replicas = 1

  private constructor(
    t: Test,
    parts: {
      folder: string
      url: string
      gateway: string
      token: string
      hub: Process
      database: string | undefined
      witness: Witness
      env: NodeJS.ProcessEnv
    },
  ) {
    this.#t = t
    this.folder = parts.folder
    this.url = parts.url
    this.gateway = parts.gateway
    this.token = parts.token
    this.hub = parts.hub
    this.database = parts.database
    this.witness = parts.witness
    this.#env = parts.env
  }

  /** Starts a hub: on a fresh database of SLIPWAY_TEST_DATABASE_URL where that is set, else on its embedded one. */
  static async start(t: Test, env: Environment = {}): Promise<Slipway> {
    const folder = temporaryFolder(t)
    const [api, gateway] = [await freePort(), await freePort()]
    const tokenFile = join(folder, 'token')
    const database = await freshDatabase(t)
    const shared =
      database === undefined ? {} : { DATABASE_URL: database, SLIPWAY_KEY: randomBytes(32).toString('hex') }
    const given = typeof env === 'function' ? await env(database) : env
    const witness = lookOn(t, folder, { ...shared, ...given })
    const where = database === undefined ? ['dev', '--data-dir', join(folder, 'hub')] : ['serve', '--migrate']
    const hub = new Process(
      t,
      'hub',
      folder,
      [
        join(root, 'hub/bin/slipway-hub.js'),
        ...where,
        '--listen',
        `127.0.0.1:${api}`,
        '--gateway-listen',
        `127.0.0.1:${gateway}`,
        '--bootstrap-token-file',
        tokenFile,
      ],
      { ...shared, ...given },
    )
    const url = `http://127.0.0.1:${api}`
    await until('the hub', async () => {
      if (!hub.running) throw new Error(`the hub ended: ${hub.output()}`)
      return (await fetch(`${url}/readyz`)).ok
    })
    const token = readFileSync(tokenFile, 'utf8').trim()
    witness.needles.add('the first token', secretPart(token))
    const slipway = new Slipway(t, {
      folder,
      url,
      gateway: `127.0.0.1:${gateway}`,
      token,
      hub,
      database,
      witness,
      env: shared,
    })
    await slipway.ok('login', '--server', url, '--token-file', tokenFile)
    return slipway
  }

  /** Starts one more replica on the same database; undefined where that is embedded. */
  async startReplica(
    env: NodeJS.ProcessEnv = {},
  ): Promise<{ readonly hub: Process; readonly url: string } | undefined> {
    if (this.database === undefined) return undefined
    const [api, gateway] = [await freePort(), await freePort()]
    this.#replicas += 1
    const hub = new Process(
      this.#t,
      `hub-${this.#replicas}`,
      this.folder,
      [
        join(root, 'hub/bin/slipway-hub.js'),
        'serve',
        '--listen',
        `127.0.0.1:${api}`,
        '--gateway-listen',
        `127.0.0.1:${gateway}`,
      ],
      { ...this.#env, ...env },
    )
    const url = `http://127.0.0.1:${api}`
    await until('the replica', async () => {
      if (!hub.running) throw new Error(`the replica ended: ${hub.output()}`)
      return (await fetch(`${url}/readyz`)).ok
    })
    return { hub, url }
  }

  /** Orders a host, and sends the same order again until it is answered. */
  async keepOrdering(name: string, machineClass: string): Promise<void> {
    const body = JSON.stringify({
      parent: 'workspaces/default',
      hostId: name,
      requestId: `order-${name}`,
      host: { machineClass: `machineClasses/${machineClass}` },
    })
    await until(`an answer to the order of ${name}`, async () => {
      const response = await fetch(`${this.url}/slipway.hub.v1.HostService/CreateHost`, {
        method: 'POST',
        headers: { authorization: `Bearer ${this.token}`, 'content-type': 'application/json' },
        body,
        signal: AbortSignal.timeout(10_000),
      })
      return response.ok
    })
  }

  /** Runs the command line to its end. */
  async cli(...args: readonly string[]): Promise<CliResult> {
    const child = spawn(process.execPath, [join(root, 'sdk/bin/slipway.js'), ...args], {
      cwd: root,
      env: { ...process.env, SLIPWAY_CONFIG: join(this.folder, 'cli.yaml'), NO_COLOR: '1' },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let [stdout, stderr] = ['', '']
    child.stdout.on('data', (data: Buffer) => (stdout += data.toString()))
    child.stderr.on('data', (data: Buffer) => (stderr += data.toString()))
    const [code] = (await once(child, 'close')) as [number]
    // What is printed to be kept is a secret from then on; all else must hold none.
    if (/^(provider token|token create)$/.test(args.slice(0, 2).join(' ')))
      for (const [token] of stdout.matchAll(/\bsw[a-z]_[0-9a-f]+_\S+?(?=["\s]|$)/g))
        this.witness.needles.add(args.join(' '), secretPart(token))
    else this.witness.keep(stdout + stderr)
    return { code, stdout, stderr }
  }

  /** Runs the command line and gives what it printed. @throws unless it ended with 0. */
  async ok(...args: readonly string[]): Promise<string> {
    const result = await this.cli(...args)
    if (result.code !== 0)
      throw new Error(`slipway ${args.join(' ')} ended with ${result.code}\n${result.stdout}${result.stderr}`)
    return result.stdout.trim()
  }

  /** The same with `-o json`, parsed. */
  async json<Result>(...args: readonly string[]): Promise<Result> {
    return JSON.parse(await this.ok(...args, '-o', 'json')) as Result
  }

  /** Applies documents, given as objects. */
  async apply(...documents: readonly object[]): Promise<string> {
    const file = join(this.folder, `apply-${randomBytes(4).toString('hex')}.yaml`)
    for (const document of documents) noteSecrets(this.witness, document)
    writeFileSync(file, documents.map((document) => JSON.stringify(document)).join('\n---\n'))
    return this.ok('apply', '-f', file)
  }

  /** Adds a provider. */
  async addProvider(
    name: string,
    family: string,
    kind: 'static' | 'dynamic',
    options: { config?: object; credentials?: object; autoAccept?: boolean } = {},
  ): Promise<void> {
    const args = ['provider', 'add', name, '--family', family, '--kind', kind]
    if (options.config !== undefined) {
      const file = join(this.folder, `${name}-config.json`)
      writeFileSync(file, JSON.stringify(options.config))
      args.push('--config-file', file)
    }
    if (options.credentials !== undefined) {
      const file = join(this.folder, `${name}-credentials.json`)
      writeFileSync(file, JSON.stringify(options.credentials), { mode: 0o600 })
      noteSecrets(this.witness, options)
      args.push('--credentials-file', file)
    }
    if (options.autoAccept === true) args.push('--auto-accept')
    await this.ok(...args)
  }

  /** Starts an instance of a provider with a join token of its own, and waits until it is connected. */
  async startProvider(
    name: string,
    script: string,
    args: readonly string[] = [],
    options: { env?: NodeJS.ProcessEnv; instance?: string; within?: readonly string[] } = {},
  ): Promise<Process> {
    const instance = options.instance ?? name
    const state = join(this.folder, instance)
    mkdirSync(state, { recursive: true })
    const tokenFile = join(state, 'join-token')
    writeFileSync(tokenFile, await this.ok('provider', 'token', name), { mode: 0o600 })
    const provider = new Process(
      this.#t,
      instance,
      this.folder,
      [join(root, script), '--gateway', this.gateway, '--join-token-file', tokenFile, '--state-dir', state, ...args],
      options.env,
      options.within,
    )
    await until(`provider ${name}`, async () => {
      if (!provider.running) throw new Error(`provider ${name} ended: ${provider.output()}`)
      return (await this.json<{ state: string }>('get', 'provider', name)).state === 'PROVIDER_STATE_CONNECTED'
    })
    return provider
  }
}

/** Notes what a document says in confidence. */
function noteSecrets(witness: Witness, document: object): void {
  const { kind, data, credentials, userData } = document as Readonly<Record<string, unknown>>
  witness.needles.addAll('credentials', credentials)
  witness.needles.addAll('userData', userData)
  if (kind === 'Secret') witness.needles.addAll('data', data)
}

/** Once all processes have ended: looks through their logs and the rows for what was sealed, and what was told. An embedded database has ended with them. */
function lookOn(t: Test, folder: string, env: NodeJS.ProcessEnv): Witness {
  const witness = new Witness()
  const key = env['SLIPWAY_KEY'] ?? ''
  for (const line of key.split('\n')) witness.needles.add('a key-encryption key', line)
  tellingTeardown(t, async () => {
    // What wraps keys is a service that has ended by now.
    const keyring = key === '' ? undefined : await readKeyring(key, []).catch(() => undefined)
    const connectionString = env['DATABASE_URL']
    const db = connectionString === undefined ? undefined : openDatabase({ connectionString, poolSize: 1 })
    try {
      if (db !== undefined) await witness.searchDatabase(db, keyring)
    } finally {
      await db?.destroy()
    }
    for (const file of readdirSync(folder).filter((name) => name.endsWith('.log')))
      witness.search(file, readFileSync(join(folder, file)))
    witness.finish()
  })
  return witness
}

/** A database of the test's own on SLIPWAY_TEST_DATABASE_URL, dropped with it; undefined where that is not set. */
async function freshDatabase(t: Test): Promise<string | undefined> {
  const server = process.env['SLIPWAY_TEST_DATABASE_URL']
  if (server === undefined || server === '') return undefined
  const name = `slipway_e2e_${randomBytes(6).toString('hex')}`
  const run = async (statement: string) => {
    const client = new pg.Client({ connectionString: server })
    await client.connect()
    await client.query(statement)
    await client.end()
  }
  await run(`create database ${name}`)
  t.teardown(() => run(`drop database if exists ${name} with (force)`))
  const url = new URL(server)
  url.pathname = `/${name}`
  return url.toString()
}
