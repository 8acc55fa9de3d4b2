import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startEmbeddedDatabase } from '@slipway/hub/testing'
import pg from 'pg'
import type { Effort } from './benchmark.js'
import { Child } from './child.js'

/** What benchmarks run on: a PostgreSQL, a folder, and processes. Whatever was made is ended and removed with it, in reverse order. */
export class Bed {
  readonly folder: string
  readonly effort: Effort
  readonly serverUrl: string
  readonly serverVersion: string
  readonly #closers: (() => Promise<unknown>)[] = []

  private constructor(folder: string, effort: Effort, serverUrl: string, serverVersion: string) {
    this.folder = folder
    this.effort = effort
    this.serverUrl = serverUrl
    this.serverVersion = serverVersion
  }

  /** On the PostgreSQL of SLIPWAY_BENCH_DATABASE_URL, or on one of its own. */
  static async make(effort: Effort): Promise<Bed> {
    const folder = mkdtempSync(join(tmpdir(), 'slipway-bench-'))
    const given = process.env['SLIPWAY_BENCH_DATABASE_URL'] ?? ''
    const own = given === '' ? await startEmbeddedDatabase(join(folder, 'database')) : undefined
    const url = own?.connectionString ?? given
    const [row] = await query<{ version: string }>(url, `select current_setting('server_version') as version`)
    const bed = new Bed(folder, effort, url, row?.version ?? 'unknown')
    bed.onClose(async () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }))
    if (own !== undefined) {
      bed.onClose(async () => {
        // The database does not keep this process alive; its end has to.
        const alive = setInterval(() => undefined, 1_000)
        await own.stop()
        clearInterval(alive)
      })
    }
    return bed
  }

  onClose(closer: () => Promise<unknown>): void {
    this.#closers.push(closer)
  }

  /** The small number in a quick run, the large one otherwise. */
  size(full: number, quick: number): number {
    return this.effort.quick ? quick : full
  }

  /** An empty database, dropped at the end. Gives its connection string. */
  async freshDatabase(): Promise<string> {
    const name = `slipway_bench_${randomBytes(5).toString('hex')}`
    await query(this.serverUrl, `create database ${name}`)
    this.onClose(() => query(this.serverUrl, `drop database if exists ${name} with (force)`))
    const url = new URL(this.serverUrl)
    url.pathname = `/${name}`
    return url.toString()
  }

  /** Connections of this process, ended with the bed. */
  pool(connectionString: string, max: number): pg.Pool {
    const pool = new pg.Pool({ connectionString, max })
    // `end` does not wait for the last goodbye, and the database is dropped right after: nobody is left to mind.
    pool.on('error', () => undefined)
    pool.on('connect', (client) => client.on('error', () => undefined))
    this.onClose(() => pool.end())
    return pool
  }

  /** A process of this machine's Node, ended with the bed. */
  spawn(name: string, argv: readonly string[], env: NodeJS.ProcessEnv = {}): Child {
    const child = new Child(name, this.folder, argv, env)
    this.onClose(() => child.stop())
    return child
  }

  async close(): Promise<void> {
    for (const closer of this.#closers.splice(0).reverse()) {
      await closer().catch((error: unknown) => process.stderr.write(`cleaning up: ${String(error)}\n`))
    }
  }
}

/** Runs statements on a connection of their own. */
export async function query<Row extends pg.QueryResultRow>(url: string, ...statements: string[]): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    let rows: Row[] = []
    for (const statement of statements) rows = (await client.query<Row>(statement)).rows
    return rows
  } finally {
    await client.end()
  }
}
