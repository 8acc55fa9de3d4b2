import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { sql } from 'kysely'
import type { Db, Tx } from './database.js'

// Forward-only migrations. All that is not yet applied is applied in one transaction, under a lock: any number of hubs may try at once.

/** An arbitrary number that all hubs agree on. */
const migrationLock = 0x51_1b_a7_02

export interface Migration {
  readonly version: number
  readonly name: string
  /** A hub that does not know it must not run on a database that has it. */
  readonly breaking: boolean
  readonly statements: string
  readonly checksum: string
}

/** How a database stands to this hub's migrations. */
export type SchemaStatus =
  | { readonly kind: 'current'; readonly version: number }
  | { readonly kind: 'behind'; readonly version: number; readonly pending: readonly string[] }
  /** The database is of a newer hub. */
  | {
      readonly kind: 'ahead'
      readonly version: number
      readonly unknown: readonly string[]
      readonly breaking: boolean
    }

/** A migration cannot be applied, or was changed after it was. */
export class MigrationError extends Error {
  override readonly name = 'MigrationError'
}

/** The migrations that this hub brings, in order. @throws MigrationError where a file does not say whether it is breaking, or numbers have gaps. */
export function readMigrations(directory: string = migrationsDirectory()): readonly Migration[] {
  const files = readdirSync(directory).filter((file) => /^\d{4}_[a-z0-9_]+\.sql$/.test(file))
  return files.sort().map((file, index) => {
    const statements = readFileSync(join(directory, file), 'utf8')
    const mark = /^--! (breaking|compatible)\n/.exec(statements)?.[1]
    if (mark === undefined) throw new MigrationError(`${file} must begin with «--! breaking» or «--! compatible»`)
    const version = Number(file.slice(0, 4))
    if (version !== index + 1)
      throw new MigrationError(`${file} should have number ${index + 1}: migrations are numbered without gaps`)
    return {
      version,
      name: file.replace(/\.sql$/, ''),
      breaking: mark === 'breaking',
      statements,
      checksum: createHash('sha256').update(statements).digest('hex'),
    }
  })
}

/** Finds hub/migrations from the compiled module and from a bundle beside it. */
function migrationsDirectory(): string {
  return join(dirname(fileURLToPath(import.meta.url)), '../../../migrations')
}

interface Applied {
  readonly version: number
  readonly name: string
  readonly breaking: boolean
  readonly checksum: string
}

/** Applies what is missing. Returns the names of what was applied. @throws MigrationError. */
export async function migrate(db: Db, migrations: readonly Migration[] = readMigrations()): Promise<readonly string[]> {
  return db.transaction().execute(async (tx) => {
    await sql`select pg_advisory_xact_lock(${migrationLock})`.execute(tx)
    await sql`
      create table if not exists schema_migrations (
        version integer primary key,
        name text not null,
        breaking boolean not null,
        checksum text not null,
        applied_at timestamptz not null default now()
      )
    `.execute(tx)
    const applied = await listApplied(tx)
    refuseChanged(applied, migrations)
    const pending = migrations.filter((migration) => !applied.some((row) => row.version === migration.version))
    for (const migration of pending) await apply(tx, migration)
    return pending.map((migration) => migration.name)
  })
}

async function apply(tx: Tx, migration: Migration): Promise<void> {
  try {
    await sql.raw(migration.statements).execute(tx)
  } catch (error) {
    throw new MigrationError(
      `migration ${migration.name} failed, and nothing of it was kept: ${error instanceof Error ? error.message : String(error)}`,
      {
        cause: error,
      },
    )
  }
  await sql`
    insert into schema_migrations (version, name, breaking, checksum)
    values (${migration.version}, ${migration.name}, ${migration.breaking}, ${migration.checksum})
  `.execute(tx)
}

/** Compares a database with this hub's migrations. @throws MigrationError where an applied migration was changed since. */
export async function schemaStatus(db: Db, migrations: readonly Migration[] = readMigrations()): Promise<SchemaStatus> {
  const exists = await sql<{ exists: boolean }>`select to_regclass('schema_migrations') is not null as exists`.execute(
    db,
  )
  const applied = exists.rows[0]?.exists === true ? await listApplied(db) : []
  refuseChanged(applied, migrations)
  const version = applied.at(-1)?.version ?? 0
  const pending = migrations.filter((migration) => !applied.some((row) => row.version === migration.version))
  const unknown = applied.filter((row) => !migrations.some((migration) => migration.version === row.version))
  if (unknown.length > 0) {
    return {
      kind: 'ahead',
      version,
      unknown: unknown.map((row) => row.name),
      breaking: unknown.some((row) => row.breaking),
    }
  }
  if (pending.length > 0) return { kind: 'behind', version, pending: pending.map((migration) => migration.name) }
  return { kind: 'current', version }
}

async function listApplied(db: Db | Tx): Promise<readonly Applied[]> {
  const result =
    await sql<Applied>`select version, name, breaking, checksum from schema_migrations order by version`.execute(db)
  return result.rows
}

function refuseChanged(applied: readonly Applied[], migrations: readonly Migration[]): void {
  for (const row of applied) {
    const migration = migrations.find((candidate) => candidate.version === row.version)
    if (migration === undefined || migration.checksum === row.checksum) continue
    throw new MigrationError(
      `migration ${row.name} was changed after it was applied; migrations go forward only: add a new one`,
    )
  }
}
