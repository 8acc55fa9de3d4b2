import { sql } from 'kysely'
import { HubError } from '../domain/error/errors.js'
import { inTransaction, type Db, type Tx } from './database.js'

/** Whom a key belongs to, what it is, and what it was used for. */
export interface IdempotencyKey {
  /** Caller and method: a key means nothing to anyone else. */
  readonly scope: string
  readonly key: string
  readonly requestHash: Buffer
}

/**
 * The answer that was given for a key before.
 *
 * @throws HubError IDEMPOTENCY_KEY_REUSED where the key was used for something else.
 */
export async function findAnswer(db: Db, key: IdempotencyKey): Promise<Uint8Array | undefined> {
  const stored = await db
    .selectFrom('idempotency_keys')
    .select(['request_hash', 'response'])
    .where('scope', '=', key.scope)
    .where('key', '=', key.key)
    .executeTakeFirst()
  if (stored === undefined) return undefined
  if (stored.request_hash.equals(key.requestHash)) return stored.response
  const description = 'was used before, with another request; choose a new one'
  throw new HubError('IDEMPOTENCY_KEY_REUSED', `request_id «${key.key}» ${description}`, {
    violations: [{ field: 'request_id', description }],
  })
}

/**
 * Does a piece of work once for a key, however often and however many at once ask for it: all get the answer of the first. Without a key it is simply done.
 *
 * @param work gives the answer as bytes; it is stored with the key in the transaction of the work.
 * @throws HubError IDEMPOTENCY_KEY_REUSED where the key was used for something else.
 */
export async function once(
  db: Db,
  key: IdempotencyKey | undefined,
  work: (tx: Tx) => Promise<Uint8Array>,
): Promise<{ readonly answer: Uint8Array; readonly repeated: boolean }> {
  if (key === undefined) return { answer: await inTransaction(db, work, 'order'), repeated: false }
  return inTransaction(
    db,
    async (tx) => {
      // Whoever asks with the same key at the same time waits here for the first to be done.
      await sql`select pg_advisory_xact_lock(hashtextextended(${`${key.scope} ${key.key}`}, 0))`.execute(tx)
      const stored = await findAnswer(tx, key)
      if (stored !== undefined) return { answer: stored, repeated: true }
      const answer = await work(tx)
      await tx
        .insertInto('idempotency_keys')
        .values({ scope: key.scope, key: key.key, request_hash: key.requestHash, response: Buffer.from(answer) })
        .execute()
      return { answer, repeated: false }
    },
    'order',
  )
}
