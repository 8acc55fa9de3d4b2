import { sql } from 'kysely'
import { inTransaction, type Db, type Tx } from './database.js'

/** An arbitrary number that all replicas agree on: whoever holds the lock makes the first authority. */
const firstAuthorityLock = 0x51_1b_a7_01

export interface StoredAuthority {
  readonly id: string
  readonly certificateDer: Buffer
  readonly keySealed: Buffer
}

/** The authorities in use, the newest first. Makes the first one, once, however many replicas start at the same time. */
export async function ensureAuthorities(
  db: Db,
  makeFirst: () => Promise<StoredAuthority>,
): Promise<readonly StoredAuthority[]> {
  const existing = await listAuthorities(db)
  if (existing.length > 0) return existing
  return inTransaction(db, async (tx) => {
    await sql`select pg_advisory_xact_lock(${firstAuthorityLock})`.execute(tx)
    const meanwhile = await listAuthorities(tx)
    if (meanwhile.length > 0) return meanwhile
    const first = await makeFirst()
    await tx
      .insertInto('certificate_authorities')
      .values({ id: first.id, certificate_der: first.certificateDer, key_sealed: first.keySealed })
      .execute()
    return [first]
  })
}

async function listAuthorities(db: Db | Tx): Promise<readonly StoredAuthority[]> {
  const rows = await db
    .selectFrom('certificate_authorities')
    .select(['id', 'certificate_der', 'key_sealed'])
    .where('retired_at', 'is', null)
    .orderBy('created_at', 'desc')
    .execute()
  return rows.map((row) => ({ id: row.id, certificateDer: row.certificate_der, keySealed: row.key_sealed }))
}
