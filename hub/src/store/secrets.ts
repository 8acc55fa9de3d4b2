import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { JsonObject, Labels } from '../domain/facts.js'
import { secretVersionId, type Keyring } from '../secrets/keyring.js'
import type { Db, Tx } from './database.js'
import { labelConditions } from './label-filter.js'
import type { SecretRow, SecretVersionRow } from './tables.js'

// Secrets and their versions. What a version holds is sealed, and bound to its organization, its secret and its number.

/** How many destroyed versions of a secret are remembered. */
const rememberedVersions = 10

/** A secret with its organization's name. */
export interface ShownSecret extends SecretRow {
  readonly organization_name: string
}

export interface SecretContent {
  readonly description: string
  readonly labels: Labels
  readonly annotations: Labels
}

function shown(db: Db) {
  return db
    .selectFrom('secrets as s')
    .innerJoin('organizations as o', 'o.id', 's.organization_id')
    .selectAll('s')
    .select('o.name as organization_name')
}

export async function insertSecret(
  tx: Tx,
  keyring: Keyring,
  secret: SecretContent & {
    readonly organizationId: string
    readonly organizationName: string
    readonly name: string
    readonly data: JsonObject
    readonly createdBy: string
  },
): Promise<ShownSecret> {
  const row = await tx
    .insertInto('secrets')
    .values({
      organization_id: secret.organizationId,
      id: uuid(),
      name: secret.name,
      description: secret.description,
      labels: JSON.stringify(secret.labels),
      annotations: JSON.stringify(secret.annotations),
    })
    .returningAll()
    .executeTakeFirstOrThrow()
  await insertVersion(tx, keyring, row, 1, secret.data, secret.createdBy)
  return { ...row, organization_name: secret.organizationName }
}

async function insertVersion(
  tx: Tx,
  keyring: Keyring,
  row: SecretRow,
  version: number,
  data: JsonObject,
  createdBy: string,
): Promise<void> {
  const id = secretVersionId(row.organization_id, row.id, version)
  await tx
    .insertInto('secret_versions')
    .values({
      organization_id: row.organization_id,
      secret_id: row.id,
      version,
      sealed: keyring.seal('secret.data', id, JSON.stringify(data)),
      created_by: createdBy,
    })
    .execute()
}

export async function findSecret(db: Db, organization: string, name: string): Promise<ShownSecret | undefined> {
  return shown(db).where('o.name', '=', organization).where('s.name', '=', name).executeTakeFirst()
}

/**
 * Locks a secret: to change it, or to refer to it, which keeps it from being deleted meanwhile. Secrets are locked before providers.
 */
export async function lockSecret(
  tx: Tx,
  organization: string,
  name: string,
  why: 'change' | 'refer',
): Promise<ShownSecret | undefined> {
  const query = shown(tx).where('o.name', '=', organization).where('s.name', '=', name)
  return (why === 'change' ? query.forUpdate('s') : query.forShare('s')).executeTakeFirst()
}

/** @param after organization and name of the last one of the page before. */
export async function listSecrets(
  db: Db,
  filter: {
    /** Undefined: all. */
    readonly organization: string | undefined
    /** Undefined: all. */
    readonly organizationIds: readonly string[] | undefined
    readonly labelSelector: string
  },
  after: readonly [string, string] | undefined,
  limit: number,
): Promise<readonly ShownSecret[]> {
  let query = shown(db).orderBy('o.name').orderBy('s.name').limit(limit)
  if (filter.organization !== undefined) query = query.where('o.name', '=', filter.organization)
  if (filter.organizationIds !== undefined)
    query = query.where(sql<boolean>`s.organization_id = any(${[...filter.organizationIds]}::uuid[])`)
  if (after !== undefined) query = query.where(sql<boolean>`(o.name, s.name) > (${after[0]}, ${after[1]})`)
  for (const condition of labelConditions(sql.ref('s.labels'), filter.labelSelector)) query = query.where(condition)
  return query.execute()
}

/** What needs a secret. */
export interface SecretUse {
  readonly secret_id: string
  readonly provider_name: string
  readonly version: number
  /** The version that the provider falls back on; null: none, or what it falls back on is not of this secret. */
  readonly kept_version: number | null
  /** The provider's credentials are not proven yet. */
  readonly pending: boolean
  /** Of its sessions. */
  readonly live: number
  /** Of its live sessions: those that have not yet said that the new ones work. */
  readonly behind: number
}

export interface SecretDetails {
  readonly versions: readonly Omit<SecretVersionRow, 'sealed'>[]
  readonly uses: readonly SecretUse[]
}

/** The versions of some secrets, and what needs them. */
export async function readSecretDetails(
  db: Db,
  secrets: readonly SecretRow[],
): Promise<ReadonlyMap<string, SecretDetails>> {
  if (secrets.length === 0) return new Map()
  const ids = secrets.map((secret) => secret.id)
  const [versions, uses] = await Promise.all([
    db
      .selectFrom('secret_versions')
      .select(['organization_id', 'secret_id', 'version', 'created_at', 'created_by', 'destroyed_at'])
      .where('secret_id', 'in', ids)
      .orderBy('version')
      .execute(),
    readUses(db, ids),
  ])
  return new Map(
    ids.map((id) => [
      id,
      {
        versions: versions.filter((version) => version.secret_id === id),
        uses: uses.filter((use) => use.secret_id === id),
      },
    ]),
  )
}

async function readUses(db: Db, ids: readonly string[]): Promise<readonly SecretUse[]> {
  const result = await sql<SecretUse>`
    select used.secret_id, p.name as provider_name, used.version,
           case when used.kept < used.version then used.kept end as kept_version, newest.count > 1 as pending,
           (select count(*) from sessions s where s.provider_id = p.id and s.ended_at is null and s.expires_at > clock_timestamp())::int as live,
           (select count(*) from sessions s where s.provider_id = p.id and s.ended_at is null and s.expires_at > clock_timestamp()
              and s.configured_version < newest.config_version)::int as behind
    from (
      select secret_id, provider_id, max(secret_version) as version, min(secret_version) as kept
      from provider_credentials
      where secret_id = any(${[...ids]}::uuid[])
      group by secret_id, provider_id
    ) used
    join providers p on p.id = used.provider_id
    join lateral (
      select count(*) as count, max(c.config_version) as config_version from provider_credentials c where c.provider_id = p.id
    ) newest on true
    order by p.name
  `.execute(db)
  return result.rows
}

/** What a version of a secret holds. @throws UnsealError; Error where the version is destroyed. */
export async function openSecret(
  db: Db,
  keyring: Keyring,
  secret: { readonly organization_id: string; readonly id: string },
  version: number,
): Promise<JsonObject> {
  const row = await db
    .selectFrom('secret_versions')
    .select('sealed')
    .where('organization_id', '=', secret.organization_id)
    .where('secret_id', '=', secret.id)
    .where('version', '=', version)
    .executeTakeFirst()
  if (row === undefined || row.sealed === null)
    throw new Error(`version ${version} of secret ${secret.id} is not stored any more`)
  const id = secretVersionId(secret.organization_id, secret.id, version)
  return JSON.parse(keyring.open('secret.data', id, row.sealed).toString('utf8')) as JsonObject
}

/** Changes what is not secret of a locked secret. */
export async function updateSecret(tx: Tx, row: ShownSecret, content: SecretContent): Promise<ShownSecret> {
  const updated = await tx
    .updateTable('secrets')
    .set({
      description: content.description,
      labels: JSON.stringify(content.labels),
      annotations: JSON.stringify(content.annotations),
    })
    .where('organization_id', '=', row.organization_id)
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
  return { ...updated, organization_name: row.organization_name }
}

/** Stores a new version of a locked secret, and makes it the current one. */
export async function addSecretVersion(
  tx: Tx,
  keyring: Keyring,
  row: ShownSecret,
  data: JsonObject,
  createdBy: string,
): Promise<ShownSecret> {
  const version = row.current_version + 1
  await insertVersion(tx, keyring, row, version, data, createdBy)
  const updated = await tx
    .updateTable('secrets')
    .set({ current_version: version })
    .where('organization_id', '=', row.organization_id)
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
  return { ...updated, organization_name: row.organization_name }
}

/** Destroys what nothing needs any more: versions that are not the current one and that no provider refers to. @returns their secrets and numbers. */
export async function destroyUnneededVersions(
  tx: Tx,
  secretIds: readonly string[],
): Promise<readonly { readonly secretId: string; readonly version: number }[]> {
  if (secretIds.length === 0) return []
  const destroyed = await sql<{ secretId: string; version: number }>`
    update secret_versions v
    set sealed = null, destroyed_at = clock_timestamp()
    from secrets s
    where v.secret_id = any(${[...secretIds]}::uuid[]) and s.organization_id = v.organization_id and s.id = v.secret_id
      and v.version < s.current_version and v.sealed is not null
      and not exists (
        select 1 from provider_credentials c
        where c.organization_id = v.organization_id and c.secret_id = v.secret_id and c.secret_version = v.version
      )
    returning v.secret_id as "secretId", v.version
  `.execute(tx)
  await sql`
    delete from secret_versions v using secrets s
    where v.secret_id = any(${[...secretIds]}::uuid[]) and s.organization_id = v.organization_id and s.id = v.secret_id
      and v.destroyed_at is not null and v.version < s.current_version - ${rememberedVersions}
  `.execute(tx)
  return destroyed.rows
}

/** Deletes a locked secret, and all that it ever held. Nothing may refer to it. */
export async function deleteSecret(tx: Tx, row: SecretRow): Promise<void> {
  await tx.deleteFrom('secrets').where('organization_id', '=', row.organization_id).where('id', '=', row.id).execute()
}
