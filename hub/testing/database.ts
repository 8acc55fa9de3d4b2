import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import type { Test } from 'tap'
import { openDatabase, type Db } from '../src/store/database.js'
import { startEmbeddedDatabase } from '../src/store/embedded.js'
import { migrate } from '../src/store/migrate.js'

// Databases for tests. Each is fresh, migrated and dropped with its test: on the server that SLIPWAY_TEST_DATABASE_URL names, or else on an embedded one that the
// test process starts once.

export interface TestDatabase {
  readonly db: Db
  /** Its connection string, for processes of its own. */
  readonly url: string
}

let embedded: Promise<string> | undefined

/** A fresh database with the newest schema. */
export async function withDatabase(t: Test): Promise<TestDatabase> {
  const database = await withEmptyDatabase(t)
  await migrate(database.db)
  return database
}

/** A fresh database with nothing in it. */
export async function withEmptyDatabase(t: Test): Promise<TestDatabase> {
  const server = await serverUrl(t)
  const name = `slipway_test_${randomBytes(6).toString('hex')}`
  await administer(server, `create database ${name}`)
  const url = new URL(server)
  url.pathname = `/${name}`
  const db = openDatabase({ connectionString: url.toString(), poolSize: 10, onIdleError: () => undefined })
  t.teardown(async () => {
    await db.destroy()
    await administer(server, `drop database if exists ${name} with (force)`)
  })
  return { db, url: url.toString() }
}

async function serverUrl(t: Test): Promise<string> {
  const given = process.env['SLIPWAY_TEST_DATABASE_URL']
  if (given !== undefined && given !== '') return given
  embedded ??= startOnce(t)
  return embedded
}

async function startOnce(t: Test): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'slipway-testdb-'))
  const database = await startEmbeddedDatabase(folder)
  let root = t
  while (root.parent !== undefined) root = root.parent as unknown as Test
  root.teardown(async () => {
    // The database does not keep the process alive; its end has to.
    const alive = setInterval(() => undefined, 1_000)
    await database.stop()
    clearInterval(alive)
    rmSync(folder, { recursive: true, force: true })
  })
  return database.connectionString
}

async function administer(server: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: server })
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}
