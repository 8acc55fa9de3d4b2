import { sql } from 'kysely'
import { mintToken, newTokenId, parseBearer, secretMatches, type BearerKind } from '../auth/tokens.js'
import type { Grant } from '../domain/access/decide.js'
import { principalName } from '../domain/names.js'
import { inTransaction, type Db } from './database.js'
import type { PrincipalRow } from './tables.js'

// Bearer tokens of the client API, and whom they speak for. Only the hash of a secret is kept.

/** Speaks for the hub itself: made with the schema, for tokens that are made on the hub's own machine. */
export const administratorId = '00000000-0000-7000-8000-000000000003'

export interface ClientToken {
  readonly id: string
  readonly name: string
  readonly createdAt: Date
  readonly expiresAt: Date | null
  readonly lastUsedAt: Date | null
  readonly revokedAt: Date | null
}

export interface TokenRow extends ClientToken {
  readonly principalId: string
  /** Its resource name. */
  readonly principal: string
  /** Null: the principal is the hub's own. */
  readonly organizationId: string | null
  readonly ended: boolean
}

/** A token that is stored nowhere yet. Secret. */
export interface MintedToken {
  readonly id: string
  readonly token: string
  readonly secretHash: Buffer
}

/** Makes up a token, and stores nothing. @param kind what it begins with says whom it speaks for. */
export function mintClientToken(kind: BearerKind = 'client'): MintedToken {
  const id = newTokenId(kind)
  return { id, ...mintToken(kind, id) }
}

/** Makes a token. It is shown this once. @param ttlMs absent: it does not expire. */
export async function createClientToken(
  db: Db,
  order: {
    readonly name: string
    readonly ttlMs?: number
    readonly bootstrap?: boolean
    /** Absent: the hub's own administrator. */
    readonly principal?: Pick<PrincipalRow, 'id' | 'kind'>
    readonly createdBy?: string
    /** By which identity its session is begun; absent: it is no session. */
    readonly identityId?: string
    /** Of the principal's kind. Absent: one is minted. */
    readonly minted?: MintedToken
  },
): Promise<{ readonly id: string; readonly token: string; readonly expiresAt: Date | null }> {
  const { id, token, secretHash } = order.minted ?? mintClientToken(kindFor(order.principal))
  const { expires_at: expiresAt } = await db
    .insertInto('client_tokens')
    .values({
      id,
      secret_hash: secretHash,
      name: order.name,
      bootstrap: order.bootstrap ?? false,
      principal_id: order.principal?.id ?? administratorId,
      created_by: order.createdBy ?? 'hub',
      identity_id: order.identityId ?? null,
      expires_at:
        order.ttlMs === undefined ? null : sql<Date>`clock_timestamp() + ${order.ttlMs} * interval '1 millisecond'`,
    })
    .returning('expires_at')
    .executeTakeFirstOrThrow()
  return { id, token, expiresAt }
}

/** Tokens for anybody else than the administrator begin in a way that a hub from before there were principals refuses. */
function kindFor(principal: Pick<PrincipalRow, 'id' | 'kind'> | undefined): BearerKind {
  if (principal === undefined || principal.id === administratorId) return 'client'
  return principal.kind === 'USER' ? 'user' : 'service'
}

/** An arbitrary number that all replicas agree on. */
const bootstrapLock = 0x51_1b_a7_03

/**
 * Makes the first token of a database, once, however many replicas start at the same time. Undefined where there was one already.
 *
 * @param minted what is to be the first token. Where it is not known whether that was stored, the same may be tried again.
 */
export async function createBootstrapToken(db: Db, minted = mintClientToken()): Promise<string | undefined> {
  return inTransaction(db, async (tx) => {
    await sql`select pg_advisory_xact_lock(${bootstrapLock})`.execute(tx)
    const existing = await tx
      .selectFrom('client_tokens')
      .select('id')
      .orderBy(sql`id = ${minted.id}`, 'desc')
      .limit(1)
      .executeTakeFirst()
    if (existing !== undefined) return existing.id === minted.id ? minted.token : undefined
    return (await createClientToken(tx, { name: 'bootstrap', bootstrap: true, minted })).token
  })
}

/** Who calls, and what it may do. */
export interface Identity {
  readonly tokenId: string
  readonly tokenName: string
  readonly expiresAt: Date | null
  readonly principalId: string
  /** Its resource name. */
  readonly principal: string
  readonly organizationId: string | null
  readonly grants: readonly Grant[]
}

interface IdentityRow {
  readonly token_id: string
  readonly token_name: string
  readonly secret_hash: Buffer
  readonly expires_at: Date | null
  readonly principal_id: string
  readonly principal_name: string
  readonly organization_id: string | null
  readonly organization_name: string | null
  readonly grants: readonly Grant[]
}

/** Those of some tokens that are good, with whom they speak for. */
async function readIdentities(db: Db, ids: readonly string[]): Promise<readonly IdentityRow[]> {
  const found = await sql<IdentityRow>`
    select t.id as token_id, t.name as token_name, t.secret_hash, t.expires_at, p.id as principal_id, p.name as principal_name,
           p.organization_id, p.organization_name,
           coalesce((
             select jsonb_agg(jsonb_build_object('role', b.role, 'organizationId', b.organization_id, 'workspace', b.workspace_name)
                              order by b.role, b.organization_id, b.workspace_name)
             from role_bindings b where b.principal_id = p.id
           ), '[]') as grants
    from client_tokens t
    join principals p on p.id = t.principal_id
    where t.id = any(${[...ids]}::text[]) and t.revoked_at is null and (t.expires_at is null or t.expires_at > clock_timestamp())
      and p.deleted_at is null and not p.disabled
  `.execute(db)
  return found.rows
}

function toIdentity(row: IdentityRow): Identity {
  return {
    tokenId: row.token_id,
    tokenName: row.token_name,
    expiresAt: row.expires_at,
    principalId: row.principal_id,
    principal: principalName(row.organization_name, row.principal_name),
    organizationId: row.organization_id,
    grants: row.grants,
  }
}

/** Whose token it is; undefined where it is unknown, damaged, expired or revoked, or its principal is not let in: which of these is nobody's business. */
export async function authenticateClient(db: Db, text: string): Promise<Identity | undefined> {
  const parsed = parseBearer(text)
  if (parsed === undefined) return undefined
  const [row] = await readIdentities(db, [parsed.id])
  return row === undefined || !secretMatches(parsed.secret, row.secret_hash) ? undefined : toIdentity(row)
}

/** What has become of tokens that were good before: those that still are. */
export async function recheckTokens(db: Db, ids: readonly string[]): Promise<ReadonlyMap<string, Identity>> {
  const rows = await readIdentities(db, ids)
  return new Map(rows.map((row) => [row.token_id, toIdentity(row)]))
}

/** Notes when tokens were used last. */
export async function noteTokenUse(db: Db, uses: ReadonlyMap<string, Date>): Promise<void> {
  if (uses.size === 0) return
  await sql`
    update client_tokens t set last_used_at = u.at
    from unnest(${[...uses.keys()]}::text[], ${[...uses.values()].map((at) => at.toISOString())}::timestamptz[]) as u (id, at)
    where t.id = u.id and (t.last_used_at is null or t.last_used_at < u.at)
  `.execute(db)
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

/** Ends a token. Returns whether there was one. */
export async function revokeClientToken(db: Db, id: string): Promise<boolean> {
  const result = await db
    .updateTable('client_tokens')
    .set({ revoked_at: sql<Date>`coalesce(revoked_at, clock_timestamp())` })
    .where('id', '=', id)
    .executeTakeFirst()
  return result.numUpdatedRows > 0n
}

function tokens(db: Db) {
  return db
    .selectFrom('client_tokens as t')
    .innerJoin('principals as p', 'p.id', 't.principal_id')
    .select([
      't.id',
      't.name',
      't.created_at as createdAt',
      't.expires_at as expiresAt',
      't.last_used_at as lastUsedAt',
      't.revoked_at as revokedAt',
      't.principal_id as principalId',
      'p.name as principalName',
      'p.organization_name as organizationName',
      'p.organization_id as organizationId',
      sql<boolean>`t.revoked_at is not null or coalesce(t.expires_at <= clock_timestamp(), false)`.as('ended'),
    ])
}

function toTokenRow({
  principalName: name,
  organizationName,
  ...row
}: Omit<TokenRow, 'principal'> & {
  readonly principalName: string
  readonly organizationName: string | null
}): TokenRow {
  return { ...row, principal: principalName(organizationName, name) }
}

export async function findToken(db: Db, id: string): Promise<TokenRow | undefined> {
  const row = await tokens(db).where('t.id', '=', id).executeTakeFirst()
  return row === undefined ? undefined : toTokenRow(row)
}

export interface TokenListFilter {
  /** Empty: of any principal. */
  readonly principalId: string
  readonly showEnded: boolean
  /** Those of principals of these organizations, and of this principal; undefined: all. */
  readonly within: { readonly organizationIds: readonly string[]; readonly principalId: string } | undefined
}

/** Newest first. @param after creation (ISO 8601) and id of the last one of the page before. */
export async function listTokens(
  db: Db,
  filter: TokenListFilter,
  after: readonly [string, string] | undefined,
  limit: number,
): Promise<readonly TokenRow[]> {
  // A page token carries milliseconds, and PostgreSQL keeps microseconds.
  const created = sql<Date>`date_trunc('milliseconds', t.created_at)`
  let query = tokens(db).orderBy(created, 'desc').orderBy('t.id', 'desc').limit(limit)
  const { within } = filter
  if (within !== undefined) {
    query = query.where(
      sql<boolean>`(p.organization_id = any(${[...within.organizationIds]}::uuid[]) or p.id = ${within.principalId}::uuid)`,
    )
  }
  if (filter.principalId !== '') query = query.where('t.principal_id', '=', filter.principalId)
  if (!filter.showEnded)
    query = query.where(
      sql<boolean>`t.revoked_at is null and (t.expires_at is null or t.expires_at > clock_timestamp())`,
    )
  if (after !== undefined)
    query = query.where(sql<boolean>`(${created}, t.id) < (${after[0]}::timestamptz, ${after[1]})`)
  return (await query.execute()).map(toTokenRow)
}
