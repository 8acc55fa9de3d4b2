import { spawn, execFile, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  chownSync,
  existsSync,
  mkdirSync,
  openSync,
  closeSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeSync,
  appendFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import pg from 'pg'
import { inside } from './network.js'
import type { ProcessLine, Writer } from './history.js'

const run = promisify(execFile)

const databaseName = 'slipway'
export const postgresPort = 5432

/** The folder of initdb and postgres, or undefined where there is none. */
export function postgresBin(): string | undefined {
  const given = process.env['SLIPWAY_POSTGRES_BIN']
  if (given !== undefined && given !== '') return existsSync(join(given, 'initdb')) ? given : undefined
  const base = '/usr/lib/postgresql'
  if (!existsSync(base)) return undefined
  return readdirSync(base)
    .sort((one, other) => Number(other) - Number(one))
    .map((version) => join(base, version, 'bin'))
    .find((bin) => existsSync(join(bin, 'initdb')))
}

/** The user id of `postgres`, under which the server runs: it refuses to be root. */
export function postgresUser(): { readonly uid: number; readonly gid: number } | undefined {
  const entry = /^postgres:[^:]*:(\d+):(\d+):/m.exec(readFileSync('/etc/passwd', 'utf8'))
  return entry === null ? undefined : { uid: Number(entry[1]), gid: Number(entry[2]) }
}

/** A PostgreSQL cluster of the run's own, on a small file system of its own, in a namespace of its own. */
export class Postgres {
  readonly #party: string
  readonly #folder: string
  readonly #bin: string
  readonly #user: { readonly uid: number; readonly gid: number }
  readonly #log: Writer<ProcessLine>
  readonly #logFile: string
  #child: ChildProcess | undefined
  #because: string | undefined
  #wanted = false
  starts = 0

  private constructor(parts: {
    party: string
    folder: string
    bin: string
    user: { readonly uid: number; readonly gid: number }
    log: Writer<ProcessLine>
    logFile: string
  }) {
    this.#party = parts.party
    this.#folder = parts.folder
    this.#bin = parts.bin
    this.#user = parts.user
    this.#log = parts.log
    this.#logFile = parts.logFile
  }

  /** Makes and starts one. @param folder a mounted file system, empty. @throws where the machine lacks PostgreSQL or its user. */
  static async create(party: string, folder: string, log: Writer<ProcessLine>, logFile: string): Promise<Postgres> {
    const bin = postgresBin()
    const user = postgresUser()
    if (bin === undefined || user === undefined) throw new Error('there is no PostgreSQL, or no user postgres')
    for (const name of ['data', 'run']) mkdirSync(join(folder, name), { mode: 0o700 })
    for (const path of [folder, join(folder, 'data'), join(folder, 'run')]) chownSync(path, user.uid, user.gid)
    const postgres = new Postgres({ party, folder, bin, user, log, logFile })
    const args = [
      '-D',
      join(folder, 'data'),
      '-A',
      'trust',
      '-U',
      'postgres',
      '-E',
      'UTF8',
      '--locale=C',
      '--wal-segsize=1',
      '--no-sync',
    ]
    const [command = '', ...rest] = [...postgres.#asUser(), join(bin, 'initdb'), ...args]
    await run(command, rest)
    appendFileSync(join(folder, 'data', 'pg_hba.conf'), 'host all all 10.99.0.0/16 trust\n')
    await postgres.start()
    const client = await postgres.connect('postgres')
    await client.query(`create database ${databaseName}`)
    await client.end()
    return postgres
  }

  get url(): (host: string) => string {
    return (host) => `postgres://postgres@${host}:${postgresPort}/${databaseName}`
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  /** Starts it and waits until it answers, again and again: what a killed one left may still be in the way. @throws after `withinMs`. */
  async start(withinMs = 60_000): Promise<void> {
    const deadline = performance.now() + withinMs
    this.#wanted = true
    for (;;) {
      if (!this.running) this.#spawn()
      const client = await this.connect('postgres').catch(() => undefined)
      if (client !== undefined) {
        await client.end()
        return
      }
      if (performance.now() > deadline) throw new Error(`PostgreSQL does not start: see ${this.#logFile}`)
      await sleep(200)
    }
  }

  /** Ends the server: SIGKILL kills the postmaster alone, SIGQUIT is an immediate stop, SIGINT a fast one. */
  async end(signal: NodeJS.Signals, because: string): Promise<void> {
    this.#wanted = false
    this.#because = because
    const child = this.#child
    if (child === undefined || !this.running) return
    const exit = once(child, 'exit')
    child.kill(signal)
    const timer = setTimeout(() => child.kill('SIGKILL'), 20_000)
    await exit
    clearTimeout(timer)
  }

  /** Says beforehand that it may end by itself. It is not started again before start(). */
  expectEnd(because: string): void {
    this.#because = because
    this.#wanted = false
  }

  /** A connection through the server's socket, which no fault of the network touches. */
  async connect(database = databaseName): Promise<pg.Client> {
    const client = new pg.Client({
      host: join(this.#folder, 'run'),
      user: 'postgres',
      database,
      application_name: 'chaos',
      connectionTimeoutMillis: 3_000,
    })
    client.on('error', () => undefined)
    await client.connect()
    return client
  }

  /** Runs one statement on a connection of its own. */
  async query<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    const client = await this.connect()
    try {
      return (await client.query<Row>(text, [...values])).rows
    } finally {
      await client.end().catch(() => undefined)
    }
  }

  /** Fills its file system to the last block. @returns bytes left. */
  fillDisk(): number {
    const file = openSync(join(this.#folder, 'ballast'), 'a')
    try {
      for (const size of [1 << 20, 1 << 12]) {
        for (const block = Buffer.alloc(size, 1); ;) writeSync(file, block)
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
      try {
        for (const block = Buffer.alloc(4096, 1); ;) writeSync(file, block)
      } catch {
        // Now it is full.
      }
    } finally {
      closeSync(file)
    }
    const { bavail, bsize } = statfsSync(this.#folder)
    return bavail * bsize
  }

  freeDisk(): void {
    rmSync(join(this.#folder, 'ballast'), { force: true })
  }

  #asUser(): readonly string[] {
    const { uid, gid } = this.#user
    return ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups']
  }

  #spawn(): void {
    const settings = {
      listen_addresses: '*',
      port: String(postgresPort),
      unix_socket_directories: join(this.#folder, 'run'),
      max_connections: '60',
      shared_buffers: '32MB',
      max_wal_size: '48MB',
      min_wal_size: '8MB',
      restart_after_crash: 'on',
      log_line_prefix: '%m [%p] %a ',
    }
    const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    const [command = '', ...rest] = [
      ...inside(this.#party),
      ...this.#asUser(),
      join(this.#bin, 'postgres'),
      '-D',
      join(this.#folder, 'data'),
      ...flags,
    ]
    const output = openSync(this.#logFile, 'a')
    const child = spawn(command, rest, { stdio: ['ignore', output, output] })
    closeSync(output)
    this.#child = child
    this.starts++
    this.#log.write({ at: Date.now(), type: 'start', name: 'postgres', pid: this.pid })
    child.on('exit', (code, signal) => {
      const because = this.#because ?? (this.#wanted ? undefined : 'stop')
      const how = signal ?? String(code)
      this.#log.write({
        at: Date.now(),
        type: 'exit',
        name: 'postgres',
        pid: child.pid ?? 0,
        how,
        ...(because && { because }),
      })
    })
  }
}
