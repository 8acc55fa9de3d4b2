import { sql } from 'kysely'
import { HubError } from '../domain/error/errors.js'
import { inTransaction, type Db, type Tx } from './database.js'

/** Whom a key belongs to, what it is, and what it was used for. */
export interface IdempotencyKey {
  /** Caller and method: a key means nothing to anyone else. */
  readonly scope: string
  readonly key: string
  /** Stored with the answer, to know the request again. */
  readonly fingerprint: Buffer
  /** Whether a stored fingerprint is of this very request. */
  readonly isOf: (fingerprint: Buffer) => boolean
}

/**
 * The answer that was given for a key before.
 *
 * @throws HubError IDEMPOTENCY_KEY_REUSED where the key was used for something else.
 */
export async function findAnswer(db: Db, key: IdempotencyKey): Promise<Uint8Array | undefined> {
  const found = (await findAnswers(db, [key])).get(key)
  if (found instanceof HubError) throw found
  return found
}

/** The same for many keys: answers, or the error IDEMPOTENCY_KEY_REUSED for those that were used for something else. */
export async function findAnswers(
  db: Db,
  keys: readonly IdempotencyKey[],
): Promise<ReadonlyMap<IdempotencyKey, Uint8Array | HubError>> {
  if (keys.length === 0) return new Map()
  const stored = await sql<{ scope: string; key: string; request_hash: Buffer; response: Buffer }>`
    select scope, key, request_hash, response
    from idempotency_keys
    join unnest(${keys.map(({ scope }) => scope)}::text[], ${keys.map(({ key }) => key)}::text[]) as asked (scope, key) using (scope, key)
  `.execute(db)
  const byName = new Map(stored.rows.map((row) => [nameOf(row), row]))
  return new Map(
    keys.flatMap((key): [IdempotencyKey, Uint8Array | HubError][] => {
      const row = byName.get(nameOf(key))
      if (row === undefined) return []
      return [[key, key.isOf(row.request_hash) ? row.response : keyReused(key)]]
    }),
  )
}

/** Whoever asks with one of these keys at the same time waits until this transaction is done. */
export async function lockKeys(tx: Tx, keys: readonly IdempotencyKey[]): Promise<void> {
  if (keys.length === 0) return
  // In one order, so that nobody waits for the other in a circle.
  await sql`
    select pg_advisory_xact_lock(hash)
    from (select distinct hashtextextended(name, 0) as hash from unnest(${keys.map(nameOf)}::text[]) as name order by hash) locks
  `.execute(tx)
}

/** Stores the answers that these keys are given from here on. */
export async function storeAnswers(
  tx: Tx,
  answers: readonly { readonly key: IdempotencyKey; readonly answer: Uint8Array }[],
): Promise<void> {
  if (answers.length === 0) return
  await sql`
    insert into idempotency_keys (scope, key, request_hash, response)
    select * from unnest(
      ${answers.map(({ key }) => key.scope)}::text[], ${answers.map(({ key }) => key.key)}::text[],
      ${answers.map(({ key }) => key.fingerprint)}::bytea[], ${answers.map(({ answer }) => Buffer.from(answer))}::bytea[]
    )
  `.execute(tx)
}

function nameOf({ scope, key }: { readonly scope: string; readonly key: string }): string {
  return `${scope} ${key}`
}

function keyReused({ key }: IdempotencyKey): HubError {
  const description = 'was used before, with another request; choose a new one'
  return new HubError('IDEMPOTENCY_KEY_REUSED', `request_id «${key}» ${description}`, {
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
      const [, stored] = await Promise.all([lockKeys(tx, [key]), findAnswer(tx, key)])
      if (stored !== undefined) return { answer: stored, repeated: true }
      const answer = await work(tx)
      await storeAnswers(tx, [{ key, answer }])
      return { answer, repeated: false }
    },
    'order',
  )
}
