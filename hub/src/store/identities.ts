import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { Db, Tx } from './database.js'
import type { PrincipalIdentityRow, PrincipalRow } from './tables.js'

// Who at an issuer is which principal. An issuer and a subject are one principal's for as long as that lives; an e-mail address is only what a first sign-in is waited for by.

/** How long a first sign-in by e-mail is waited for: addresses are given to others some day. */
const waitingMs = 30 * 24 * 3_600_000

export interface NewIdentity {
  readonly principalId: string
  /** The issuer's identifier. */
  readonly issuer: string
  readonly createdBy: string
  /** One of both. */
  readonly subject?: string
  readonly email?: string
}

/** Holds off others who sign in as the same user, until the transaction ends. */
export async function lockSubject(tx: Tx, issuer: string, subject: string): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended(${JSON.stringify(['sign-in', issuer, subject])}, 0))`.execute(
    tx,
  )
}

/** Uses an ID token up. False where it was already. */
export async function takeIdToken(tx: Tx, digest: Buffer, expiresAt: Date): Promise<boolean> {
  const taken = await tx
    .insertInto('used_id_tokens')
    .values({ digest, expires_at: expiresAt })
    .onConflict((conflict) => conflict.doNothing())
    .executeTakeFirst()
  return (taken.numInsertedOrUpdatedRows ?? 0n) > 0n
}

/** An identity, and its principal, which stays as it is until the transaction ends. */
export interface KnownPerson {
  readonly identity: PrincipalIdentityRow
  readonly principal: PrincipalRow
}

async function withPrincipal(tx: Tx, identity: PrincipalIdentityRow | undefined): Promise<KnownPerson | undefined> {
  if (identity === undefined) return undefined
  const principal = await tx
    .selectFrom('principals')
    .selectAll()
    .where('id', '=', identity.principal_id)
    .where('deleted_at', 'is', null)
    .forShare()
    .executeTakeFirst()
  return principal === undefined ? undefined : { identity, principal }
}

/** Whoever signed in as this user before, or was announced as it. */
export async function findBySubject(tx: Tx, issuer: string, subject: string): Promise<KnownPerson | undefined> {
  const identity = await tx
    .selectFrom('principal_identities')
    .selectAll()
    .where('issuer', '=', issuer)
    .where('subject', '=', subject)
    .executeTakeFirst()
  return withPrincipal(tx, identity)
}

/** Gives an identity that waits for an e-mail address to the user who has it, for ever. */
export async function claimByEmail(
  tx: Tx,
  issuer: string,
  email: string,
  subject: string,
): Promise<KnownPerson | undefined> {
  const identity = await tx
    .updateTable('principal_identities as i')
    .set({ subject, expires_at: null })
    .where('i.issuer', '=', issuer)
    .where('i.email', '=', email)
    .where('i.subject', 'is', null)
    .where('i.expires_at', '>', sql<Date>`clock_timestamp()`)
    .returningAll()
    .executeTakeFirst()
  return withPrincipal(tx, identity)
}

/** Undefined where the subject, or the address that is waited for, is somebody's already. */
export async function insertIdentity(tx: Tx, identity: NewIdentity): Promise<PrincipalIdentityRow | undefined> {
  const { subject = null, email = null } = identity
  const id = uuid()
  return tx
    .insertInto('principal_identities')
    .values({
      id,
      name: `i-${id.replaceAll('-', '').slice(-12)}`,
      principal_id: identity.principalId,
      issuer: identity.issuer,
      subject,
      email,
      created_by: identity.createdBy,
      expires_at: subject === null ? sql<Date>`clock_timestamp() + ${waitingMs} * interval '1 millisecond'` : null,
    })
    .onConflict((conflict) => conflict.doNothing())
    .returningAll()
    .executeTakeFirst()
}

/** Takes away what has waited in vain. */
export async function deleteUnclaimed(db: Db): Promise<void> {
  await db
    .deleteFrom('principal_identities')
    .where('subject', 'is', null)
    .where('expires_at', '<', sql<Date>`clock_timestamp()`)
    .execute()
}

export async function noteIdentityUse(tx: Tx, id: string): Promise<void> {
  await tx
    .updateTable('principal_identities')
    .set({ last_used_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', id)
    .execute()
}

/** Oldest first. @param after id of the last one of the page before: ids rise with time. */
export async function listIdentities(
  db: Db,
  principalId: string,
  after: string,
  limit: number,
): Promise<readonly PrincipalIdentityRow[]> {
  let query = db
    .selectFrom('principal_identities')
    .selectAll()
    .where('principal_id', '=', principalId)
    .orderBy('id')
    .limit(limit)
  if (after !== '') query = query.where('id', '>', after)
  return query.execute()
}

export async function findIdentity(
  db: Db,
  principalId: string,
  name: string,
): Promise<PrincipalIdentityRow | undefined> {
  return db
    .selectFrom('principal_identities')
    .selectAll()
    .where('principal_id', '=', principalId)
    .where('name', '=', name)
    .executeTakeFirst()
}

/** Takes an identity away, and ends the sessions that it began. */
export async function deleteIdentity(tx: Tx, id: string): Promise<void> {
  await tx
    .updateTable('client_tokens')
    .set({ revoked_at: sql<Date>`coalesce(revoked_at, clock_timestamp())` })
    .where('identity_id', '=', id)
    .execute()
  await tx.deleteFrom('principal_identities').where('id', '=', id).execute()
}
