import { sql } from 'kysely'
import type { EventDraft, JsonObject } from '../domain/facts.js'
import { mergeConditions } from '../domain/request/apply-report.js'
import type { Keyring } from '../secrets/keyring.js'
import type { Db, Tx } from './database.js'
import { destroyUnneededVersions, openSecret, type ShownSecret } from './secrets.js'
import type { ProviderCredentialsRow, ProviderRow } from './tables.js'

// Which credentials a provider is to use, and which it falls back on. The newest row is wanted; while there is an older one, it is what worked before, and new sessions
// begin with it: the newest is told to them at once after that, and is proven by what they answer. The older one goes when all live sessions have said that the newest
// works, and what it held with it.

const provenCondition = 'CredentialsProven'

/** Where credentials come from. */
export type CredentialSource =
  | { readonly kind: 'own'; readonly value: JsonObject }
  | { readonly kind: 'secret'; readonly secret: ShownSecret; readonly value: JsonObject }
  | { readonly kind: 'none' }

/** What a session is told. */
export interface ProviderSettings {
  readonly version: number
  readonly config: JsonObject
  /** Secret. */
  readonly credentials: JsonObject
}

export interface KnownSettings {
  readonly wanted: ProviderSettings
  /** What new sessions begin with, while the wanted credentials are not proven. */
  readonly kept: ProviderSettings | undefined
}

/** A provider's configuration with its credentials opened: for its own sessions, and for nothing else. @throws UnsealError */
export async function readProviderSettings(db: Db, keyring: Keyring, providerId: string): Promise<KnownSettings> {
  const rows = await db
    .selectFrom('providers')
    .leftJoin('provider_credentials as c', 'c.provider_id', 'providers.id')
    .select(['providers.config', 'providers.config_version as version'])
    .select(['c.config_version', 'c.sealed', 'c.organization_id', 'c.secret_id', 'c.secret_version'])
    .where('providers.id', '=', providerId)
    .orderBy('c.config_version', 'desc')
    .execute()
  const [newest, kept] = rows
  if (newest === undefined) throw new Error(`there is no provider ${providerId}`)
  const open = async (row: typeof newest): Promise<JsonObject> => {
    if (row.sealed !== null)
      return JSON.parse(keyring.open('provider.credentials', providerId, row.sealed).toString('utf8')) as JsonObject
    if (row.organization_id === null || row.secret_id === null) return {}
    return openSecret(db, keyring, { organization_id: row.organization_id, id: row.secret_id }, row.secret_version ?? 0)
  }
  return {
    wanted: { version: newest.version, config: newest.config, credentials: await open(newest) },
    kept:
      kept === undefined
        ? undefined
        : { version: kept.config_version ?? 0, config: kept.config, credentials: await open(kept) },
  }
}

/** Has a locked provider use other credentials from that version of its configuration on. What it uses now is kept until they are proven. */
export async function setCredentials(
  tx: Tx,
  keyring: Keyring,
  provider: Pick<ProviderRow, 'id' | 'state' | 'conditions'>,
  configVersion: number,
  source: CredentialSource,
): Promise<void> {
  // What no instance has ever used is nothing to fall back on.
  const keepsNothing = source.kind === 'none' || provider.state === 'PENDING'
  const replaced = await sql<Pick<ProviderCredentialsRow, 'secret_id'>>`
    delete from provider_credentials
    where provider_id = ${provider.id}
      and (${keepsNothing} or config_version > (select min(config_version) from provider_credentials where provider_id = ${provider.id}))
    returning secret_id
  `.execute(tx)
  if (source.kind !== 'none') {
    await tx
      .insertInto('provider_credentials')
      .values({
        provider_id: provider.id,
        config_version: configVersion,
        ...(source.kind === 'own'
          ? { sealed: keyring.seal('provider.credentials', provider.id, JSON.stringify(source.value)) }
          : {
              organization_id: source.secret.organization_id,
              secret_id: source.secret.id,
              secret_version: source.secret.current_version,
            }),
      })
      .execute()
  }
  await destroyUnneededVersions(
    tx,
    replaced.rows.flatMap((row) => row.secret_id ?? []),
  )
  const pending = await isPending(tx, provider.id)
  const message = `Version ${configVersion} has yet to be reported to work by all instances; the credentials before are kept`
  await setProven(tx, provider, pending ? { proven: false, reason: 'Proving', message } : undefined)
}

async function isPending(db: Db, providerId: string): Promise<boolean> {
  const result = await sql<{ pending: boolean }>`
    select count(*) > 1 as pending from provider_credentials where provider_id = ${providerId}
  `.execute(db)
  return result.rows[0]?.pending ?? false
}

/** Shows on a locked provider how its credentials stand; undefined: there is nothing to prove. */
async function setProven(
  tx: Tx,
  provider: Pick<ProviderRow, 'id' | 'conditions'>,
  standing: { readonly proven: boolean; readonly reason: string; readonly message: string } | undefined,
): Promise<void> {
  const conditions =
    standing === undefined
      ? provider.conditions.filter(({ type }) => type !== provenCondition)
      : mergeConditions(
          provider.conditions,
          [
            {
              type: provenCondition,
              status: standing.proven ? 'TRUE' : 'FALSE',
              reason: standing.reason,
              message: standing.message,
            },
          ],
          new Date(),
        )
  await tx
    .updateTable('providers')
    .set({ conditions: JSON.stringify(conditions) })
    .where('id', '=', provider.id)
    .execute()
}

/** Has all providers that use a locked secret use its current version. @returns them as they are now. */
export async function rotateUsers(tx: Tx, keyring: Keyring, secret: ShownSecret): Promise<readonly ProviderRow[]> {
  const users = await lockUsers(tx, secret)
  const rotated: ProviderRow[] = []
  for (const { row } of users) {
    const updated = await tx
      .updateTable('providers')
      .set({ config_version: row.config_version + 1 })
      .where('id', '=', row.id)
      .returningAll()
      .executeTakeFirstOrThrow()
    await setCredentials(tx, keyring, row, updated.config_version, { kind: 'secret', secret, value: {} })
    rotated.push(updated)
  }
  return rotated
}

/** Locks the providers whose wanted credentials are of a secret. */
export async function lockUsers(tx: Tx, secret: ShownSecret): Promise<readonly { readonly row: ProviderRow }[]> {
  const rows = await tx
    .selectFrom('providers')
    .selectAll()
    .where('deleted_at', 'is', null)
    .where(
      sql<boolean>`exists (
        select 1 from provider_credentials c
        where c.provider_id = providers.id and c.organization_id = ${secret.organization_id} and c.secret_id = ${secret.id}
          and c.config_version = (select max(n.config_version) from provider_credentials n where n.provider_id = providers.id)
      )`,
    )
    .orderBy('id')
    .forNoKeyUpdate()
    .execute()
  return rows.map((row) => ({ row }))
}

/** Takes note of the version of its configuration that each of some sessions works with. */
export async function recordConfiguredVersions(
  db: Db,
  sessions: readonly { readonly sessionId: string; readonly version: number }[],
): Promise<void> {
  // In one order, so that nobody waits in a circle.
  const sorted = sessions.toSorted((one, other) => (one.sessionId < other.sessionId ? -1 : 1))
  await sql`
    update sessions s set configured_version = greatest(s.configured_version, c.version)
    from unnest(${sorted.map(({ sessionId }) => sessionId)}::uuid[], ${sorted.map(({ version }) => version)}::bigint[]) as c (id, version)
    where s.id = c.id
  `.execute(db)
}

/** Takes note that a locked provider's new credentials do not work. */
export async function recordRefusedCredentials(
  tx: Tx,
  provider: Pick<ProviderRow, 'id' | 'conditions'>,
  message: string,
): Promise<void> {
  if (await isPending(tx, provider.id)) await setProven(tx, provider, { proven: false, reason: 'Refused', message })
}

/**
 * Lets go of the credentials before, where every live session of a provider works with the new ones, and there is one; and destroys what only they needed.
 *
 * @param providerId undefined: of all providers.
 * @returns what to tell of it.
 */
export async function settleCredentials(tx: Tx, providerId?: string): Promise<readonly EventDraft[]> {
  const due = await sql<{ id: string; version: number }>`
    select p.id, n.version
    from (
      select provider_id, max(config_version) as version from provider_credentials group by provider_id having count(*) > 1
    ) n
    join providers p on p.id = n.provider_id
    where (${providerId ?? null}::uuid is null or p.id = ${providerId ?? null}::uuid)
      and exists (select 1 from sessions s where s.provider_id = p.id and s.ended_at is null and s.expires_at > clock_timestamp())
      and not exists (
        select 1 from sessions s
        where s.provider_id = p.id and s.ended_at is null and s.expires_at > clock_timestamp() and s.configured_version < n.version
      )
    order by p.id
    for no key update of p
  `.execute(tx)
  const events: EventDraft[] = []
  for (const { id, version } of due.rows) {
    const dropped = await sql<Pick<ProviderCredentialsRow, 'secret_id'>>`
      delete from provider_credentials where provider_id = ${id} and config_version < ${version}::bigint returning secret_id
    `.execute(tx)
    if (dropped.rows.length === 0 || (await isPending(tx, id))) continue
    const provider = await tx
      .selectFrom('providers')
      .select(['id', 'name', 'conditions'])
      .where('id', '=', id)
      .executeTakeFirstOrThrow()
    const message = `All instances work with the credentials of version ${version}; those before are destroyed`
    await setProven(tx, provider, { proven: true, reason: 'Proven', message })
    await destroyUnneededVersions(
      tx,
      dropped.rows.flatMap((row) => row.secret_id ?? []),
    )
    events.push({
      subject: `providers/${provider.name}`,
      reason: 'CredentialsProven',
      message,
      severity: 'INFO',
      providerId: id,
    })
  }
  return events
}
