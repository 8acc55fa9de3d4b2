import { sql } from 'kysely'
import { mintToken, newTokenId, parseToken, secretMatches } from '../auth/tokens.js'
import { inTransaction, type Db } from './database.js'

// Bearer tokens of the client API. Only the hash of the secret is kept.

export interface ClientToken {
  readonly id: string
  readonly name: string
  readonly createdAt: Date
  readonly expiresAt: Date | null
  readonly lastUsedAt: Date | null
  readonly revokedAt: Date | null
}

/** Makes a token. It is shown this once. @param ttlMs absent: it does not expire. */
export async function createClientToken(
  db: Db,
  order: { readonly name: string; readonly ttlMs?: number; readonly bootstrap?: boolean },
): Promise<{ readonly id: string; readonly token: string }> {
  const id = newTokenId('client')
  const { token, secretHash } = mintToken('client', id)
  await db
    .insertInto('client_tokens')
    .values({
      id,
      secret_hash: secretHash,
      name: order.name,
      bootstrap: order.bootstrap ?? false,
      expires_at:
        order.ttlMs === undefined ? null : sql<Date>`clock_timestamp() + ${order.ttlMs} * interval '1 millisecond'`,
    })
    .execute()
  return { id, token }
}

/** An arbitrary number that all replicas agree on. */
const bootstrapLock = 0x51_1b_a7_03

/** Makes the first token of a database, once, however many replicas start at the same time. Undefined where there was one already. */
export async function createBootstrapToken(db: Db): Promise<string | undefined> {
  return inTransaction(db, async (tx) => {
    await sql`select pg_advisory_xact_lock(${bootstrapLock})`.execute(tx)
    const existing = await tx.selectFrom('client_tokens').select('id').limit(1).executeTakeFirst()
    if (existing !== undefined) return undefined
    return (await createClientToken(tx, { name: 'bootstrap', bootstrap: true })).token
  })
}

/** Whose token it is; undefined where it is unknown, damaged, expired or revoked: which of these is nobody's business. */
export async function authenticateClient(
  db: Db,
  text: string,
): Promise<{ readonly id: string; readonly name: string } | undefined> {
  const parsed = parseToken('client', text)
  if (parsed === undefined) return undefined
  const row = await db
    .selectFrom('client_tokens')
    .select(['id', 'name', 'secret_hash'])
    .where('id', '=', parsed.id)
    .where('revoked_at', 'is', null)
    .where((where) =>
      where.or([where('expires_at', 'is', null), where('expires_at', '>', sql<Date>`clock_timestamp()`)]),
    )
    .executeTakeFirst()
  if (row === undefined || !secretMatches(parsed.secret, row.secret_hash)) return undefined
  await db
    .updateTable('client_tokens')
    .set({ last_used_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', parsed.id)
    .where((where) =>
      where.or([
        where('last_used_at', 'is', null),
        where('last_used_at', '<', sql<Date>`clock_timestamp() - interval '1 minute'`),
      ]),
    )
    .execute()
  return { id: row.id, name: row.name }
}

/** All tokens, the newest first. */
export async function listClientTokens(db: Db): Promise<readonly ClientToken[]> {
  const rows = await db.selectFrom('client_tokens').selectAll().orderBy('created_at', 'desc').execute()
  return rows.map((row) => ({
    id: row.id,
    name: row.name,
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    lastUsedAt: row.last_used_at,
    revokedAt: row.revoked_at,
  }))
}

/** Ends a token for good. False where there is none of that id. */
export async function revokeClientToken(db: Db, id: string): Promise<boolean> {
  const result = await db
    .updateTable('client_tokens')
    .set({ revoked_at: sql<Date>`coalesce(revoked_at, clock_timestamp())` })
    .where('id', '=', id)
    .executeTakeFirst()
  return result.numUpdatedRows > 0n
}
