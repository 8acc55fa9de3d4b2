import { createHash } from 'node:crypto'
import { sql, type RawBuilder } from 'kysely'
import { v7 as uuid } from 'uuid'
import {
  canonicalEntry,
  genesisHash,
  type AuditFacts,
  type AuditLink,
  type KnownHead,
  type LinkHash,
} from '../domain/audit/chain.js'
import type { Db, Tx } from './database.js'
import { rowsAs } from './rows.js'

// The audit log: entries that are written with the changes they tell of (see events.ts), and the chains that one sealer puts them in afterwards.

/** The chain of what concerns the hub itself. */
export const hubChain = '00000000-0000-0000-0000-000000000000'

export const linkHash: LinkHash = (previous, text) =>
  createHash('sha256').update(previous).update(text, 'utf8').digest()

/** An entry with its place; 0 where it has none yet. */
export interface StoredEntry extends AuditFacts {
  readonly xid: string
  readonly sequence: number
  readonly hash: Buffer | null
}

interface EntryRow {
  readonly xid: string
  readonly id: string | null
  readonly at: string
  readonly organization_id: string | null
  readonly principal: string
  readonly token_id: string
  readonly source: string
  readonly method: string
  readonly resource: string
  readonly result: 'OK' | 'DENIED'
  readonly request_id: string
}

const entryColumns = sql`e.xid::text as xid, e.id, to_char(e.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at, e.organization_id,
  e.principal, e.token_id, e.source, e.method, e.resource, e.result, e.request_id`

function toFacts(row: EntryRow & { readonly id: string }): AuditFacts {
  return {
    id: row.id,
    at: row.at,
    organizationId: row.organization_id,
    principal: row.principal,
    tokenId: row.token_id,
    source: row.source,
    method: row.method,
    resource: row.resource,
    result: row.result,
    requestId: row.request_id,
  }
}

/** Calls that were refused. */
export async function noteDenials(
  db: Db,
  denials: readonly {
    readonly identity: { readonly principal: string; readonly tokenId: string; readonly organizationId: string | null }
    readonly method: string
    readonly resource: string
    readonly source: string
    readonly requestId: string
  }[],
): Promise<void> {
  if (denials.length === 0) return
  const rows = denials.map(({ identity, method, resource, source, requestId }) => ({
    id: uuid(),
    // In the log of whoever tried: what it tried to get at is not to learn of it by where it is written.
    organization_id: identity.organizationId,
    principal: identity.principal,
    token_id: identity.tokenId,
    source,
    method,
    resource,
    request_id: requestId,
  }))
  await sql`
    insert into audit_entries (id, organization_id, principal, token_id, source, method, resource, result, request_id)
    select id, organization_id, principal, token_id, source, method, resource, 'DENIED', request_id
    from ${rowsAs('a (id uuid, organization_id uuid, principal text, token_id text, source text, method text, resource text, request_id text)', rows)}
  `.execute(db)
}

// Sealing ----------------------------------------------------------------------------------------------------------------------------

/** The end of a chain. */
export interface ChainEnd {
  /** Of the organization, or `hubChain`. */
  readonly chain: string
  readonly sequence: number
  readonly hash: Uint8Array
}

const unsealed = sql`not exists (select from audit_chain c where c.entry_xid = e.xid and c.entry_id = e.id)`

/**
 * Puts entries that are not in a chain yet into theirs, as many as `limit`, in the order of their transactions. To be called by one at a time.
 *
 * @returns the new ends of the chains that grew, and whether there may be more.
 */
export async function sealEntries(
  tx: Tx,
  epoch: string,
  limit: number,
): Promise<{ readonly ends: readonly ChainEnd[]; readonly more: boolean }> {
  // Everything of transactions before this one is committed, or never will be: what is sealed of them now is all that there is.
  const horizon = await sql<{ xmin: string }>`select pg_snapshot_xmin(pg_current_snapshot())::text as xmin`.execute(tx)
  const found = await sql<EntryRow & { readonly id: string }>`
    select ${entryColumns} from audit_entries e, audit_cursor k
    where e.xid >= case when k.epoch = ${epoch}::uuid then k.sealed_before else '0'::xid8 end and ${unsealed}
    order by e.xid, e.id
    limit ${limit}
  `.execute(tx)
  const ends = await readEnds(tx, [...new Set(found.rows.map((row) => row.organization_id ?? hubChain))])
  const links = found.rows.map((row) => {
    const chain = row.organization_id ?? hubChain
    const end = ends.get(chain) ?? { chain, sequence: 0, hash: genesisHash }
    const sequence = end.sequence + 1
    const hash = linkHash(end.hash, canonicalEntry(sequence, toFacts(row)))
    ends.set(chain, { chain, sequence, hash })
    return { chain, sequence, entry_xid: row.xid, entry_id: row.id, hash: Buffer.from(hash).toString('hex') }
  })
  if (links.length > 0) {
    await sql`
      insert into audit_chain (chain, sequence, entry_xid, entry_id, hash)
      select chain, sequence, entry_xid::text::xid8, entry_id, decode(hash, 'hex')
      from ${rowsAs('l (chain uuid, sequence bigint, entry_xid text, entry_id uuid, hash text)', links)}
    `.execute(tx)
  }
  const more = found.rows.length === limit
  if (!more && horizon.rows[0] !== undefined) {
    await sql`update audit_cursor set sealed_before = ${horizon.rows[0].xmin}::xid8, epoch = ${epoch}::uuid`.execute(tx)
  }
  return { ends: [...ends.values()], more }
}

/** Where chains end: a chain that was cut off goes on after what was signed of it, so that the gap stays. */
async function readEnds(tx: Tx, chains: readonly string[]): Promise<Map<string, ChainEnd>> {
  if (chains.length === 0) return new Map()
  const found = await sql<{ chain: string; sequence: number; hash: Buffer }>`
    select distinct on (chain) chain, sequence, hash from (
      (select distinct on (chain) chain, sequence, hash from audit_chain where chain = any(${[...chains]}::uuid[]) order by chain, sequence desc)
      union all
      (select distinct on (chain) chain, sequence, hash from audit_heads where chain = any(${[...chains]}::uuid[]) order by chain, sequence desc)
    ) ends order by chain, sequence desc
  `.execute(tx)
  return new Map(found.rows.map((row) => [row.chain, row]))
}

export interface SignedHead extends ChainEnd {
  readonly signedAt: Date
  readonly signature: Buffer
}

export async function insertHeads(tx: Tx, heads: readonly SignedHead[]): Promise<void> {
  if (heads.length === 0) return
  await tx
    .insertInto('audit_heads')
    .values(
      heads.map(({ chain, sequence, hash, signedAt, signature }) => ({
        chain,
        sequence,
        hash: Buffer.from(hash),
        signed_at: signedAt,
        signature,
      })),
    )
    .onConflict((conflict) => conflict.doNothing())
    .execute()
}

// Reading ----------------------------------------------------------------------------------------------------------------------------

export async function findHead(db: Db, chain: string): Promise<SignedHead | undefined> {
  const row = await db
    .selectFrom('audit_heads')
    .selectAll()
    .where('chain', '=', chain)
    .orderBy('sequence', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row === undefined ? undefined : { ...row, signedAt: row.signed_at }
}

/** All ends of a chain that were ever signed, by place. */
export async function listHeads(db: Db, chain: string): Promise<readonly KnownHead[]> {
  return db
    .selectFrom('audit_heads')
    .select(['sequence', 'hash'])
    .where('chain', '=', chain)
    .orderBy('sequence')
    .execute()
}

/** The links of a chain after a place, in order. */
export async function readLinks(db: Db, chain: string, after: number, limit: number): Promise<readonly AuditLink[]> {
  const found = await sql<EntryRow & { readonly sequence: number; readonly hash: Buffer }>`
    select c.sequence, c.hash, ${entryColumns}
    from audit_chain c left join audit_entries e on e.xid = c.entry_xid and e.id = c.entry_id
    where c.chain = ${chain}::uuid and c.sequence > ${after}
    order by c.sequence
    limit ${limit}
  `.execute(db)
  return found.rows.map(({ id, ...row }) => ({
    sequence: row.sequence,
    hash: row.hash,
    entry: id === null ? undefined : toFacts({ ...row, id }),
  }))
}

export interface AuditListFilter {
  readonly principal: string
  readonly resource: string
  readonly method: string
  readonly result: 'OK' | 'DENIED' | undefined
  readonly since: Date | undefined
}

function asked({ principal, resource, method, result, since }: AuditListFilter): RawBuilder<boolean> {
  const conditions = [
    ...(principal === '' ? [] : [sql`e.principal = ${principal}`]),
    ...(resource === '' ? [] : [sql`e.resource = ${resource}`]),
    ...(method === '' ? [] : [sql`(e.method = ${method} or split_part(e.method, '/', 2) = ${method})`]),
    ...(result === undefined ? [] : [sql`e.result = ${result}`]),
    ...(since === undefined ? [] : [sql`e.at >= ${since}`]),
  ]
  return conditions.length === 0 ? sql<boolean>`true` : sql<boolean>`(${sql.join(conditions, sql` and `)})`
}

const ofChain = (chain: string) =>
  chain === hubChain ? sql`e.organization_id is null` : sql`e.organization_id = ${chain}::uuid`

/** What is not sealed yet, newest first. @param after transaction and id of the last one of the page before. */
export async function listUnsealed(
  db: Db,
  chain: string,
  filter: AuditListFilter,
  after: readonly [string, string] | undefined,
  limit: number,
): Promise<readonly StoredEntry[]> {
  const bound = after === undefined ? sql`true` : sql`(e.xid, e.id) < (${after[0]}::xid8, ${after[1]}::uuid)`
  const found = await sql<EntryRow & { readonly id: string }>`
    select ${entryColumns} from audit_entries e, audit_cursor k
    where e.xid >= k.sealed_before and ${ofChain(chain)} and ${unsealed} and ${bound} and ${asked(filter)}
    order by e.xid desc, e.id desc
    limit ${limit}
  `.execute(db)
  return found.rows.map((row) => ({ ...toFacts(row), xid: row.xid, sequence: 0, hash: null }))
}

/** What is sealed. @param after place of the last one of the page before; undefined: from the end that it begins at. */
export async function listSealed(
  db: Db,
  chain: string,
  filter: AuditListFilter,
  order: { readonly ascending: boolean; readonly after: number | undefined },
  limit: number,
): Promise<readonly StoredEntry[]> {
  const { ascending, after } = order
  const bound = after === undefined ? sql`true` : ascending ? sql`c.sequence > ${after}` : sql`c.sequence < ${after}`
  const found = await sql<EntryRow & { readonly id: string; readonly sequence: number; readonly hash: Buffer }>`
    select c.sequence, c.hash, ${entryColumns}
    from audit_chain c join audit_entries e on e.xid = c.entry_xid and e.id = c.entry_id
    where c.chain = ${chain}::uuid and ${bound} and ${asked(filter)}
    order by c.sequence ${ascending ? sql`asc` : sql`desc`}
    limit ${limit}
  `.execute(db)
  return found.rows.map((row) => ({ ...toFacts(row), xid: row.xid, sequence: row.sequence, hash: row.hash }))
}

/** How many entries wait to be sealed, and those that stand beside the chain though everything of their time was sealed. */
export async function countBeside(
  db: Db,
  chain: string,
): Promise<{
  readonly waiting: number
  readonly inserted: readonly { readonly id: string; readonly sequence: number }[]
}> {
  const waiting = await sql<{ n: number }>`
    select count(*)::int as n from audit_entries e, audit_cursor k where e.xid >= k.sealed_before and ${ofChain(chain)} and ${unsealed}
  `.execute(db)
  const inserted = await sql<{ id: string; sequence: number }>`
    select e.id, coalesce((
      select max(c.sequence) from audit_chain c where c.chain = ${chain}::uuid and c.entry_xid <= e.xid
    ), 0) as sequence
    from audit_entries e, audit_cursor k
    where e.xid < k.sealed_before and ${ofChain(chain)} and ${unsealed}
    order by e.xid, e.id
    limit 100
  `.execute(db)
  return { waiting: waiting.rows[0]?.n ?? 0, inserted: inserted.rows }
}
