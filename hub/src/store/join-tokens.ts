import { sql } from 'kysely'
import { mintToken, newTokenId, parseToken, secretMatches } from '../auth/tokens.js'
import { HubError } from '../domain/error/errors.js'
import type { Db, Tx } from './database.js'
import { appendEvents, hubCause, type Cause } from './events.js'

// Join tokens: each lets one instance in, once. Only the hash of the secret is kept.

/** Makes a token for one new instance of a provider. The token is shown this once. */
export async function createJoinToken(
  tx: Tx,
  order: {
    readonly providerId: string
    readonly providerName: string
    readonly ttlMs: number
    readonly fingerprint: string
    readonly cause: Cause
  },
): Promise<{ readonly token: string; readonly expiresAt: Date }> {
  const id = newTokenId('join')
  const { token, secretHash } = mintToken('join', id, order.fingerprint)
  const row = await tx
    .insertInto('join_tokens')
    .values({
      id,
      provider_id: order.providerId,
      secret_hash: secretHash,
      created_by: order.cause.actor,
      expires_at: sql<Date>`clock_timestamp() + ${order.ttlMs} * interval '1 millisecond'`,
    })
    .returning('expires_at')
    .executeTakeFirstOrThrow()
  await appendEvents(tx, order.cause, [
    {
      subject: `providers/${order.providerName}`,
      reason: 'JoinTokenCreated',
      message: `Join token ${id} lets one instance in until ${row.expires_at.toISOString()}`,
      severity: 'INFO',
      providerId: order.providerId,
    },
  ])
  return { token, expiresAt: row.expires_at }
}

/**
 * Uses a token up. Of many who try at once, one succeeds.
 *
 * @throws HubError JOIN_TOKEN_INVALID, JOIN_TOKEN_USED, JOIN_TOKEN_EXPIRED.
 */
export async function useJoinToken(tx: Tx, token: string, usedBy: string): Promise<{ readonly providerId: string }> {
  const parsed = parseToken('join', token)
  const row =
    parsed === undefined
      ? undefined
      : await tx
          .selectFrom('join_tokens')
          .select([
            'provider_id',
            'secret_hash',
            'used_at',
            sql<boolean>`expires_at <= clock_timestamp()`.as('expired'),
          ])
          .where('id', '=', parsed.id)
          .forUpdate()
          .executeTakeFirst()
  if (parsed === undefined || row === undefined || !secretMatches(parsed.secret, row.secret_hash)) {
    throw new HubError(
      'JOIN_TOKEN_INVALID',
      'the join token is unknown or damaged; make a new one with `slipway provider token`',
    )
  }
  if (row.used_at !== null) {
    throw new HubError(
      'JOIN_TOKEN_USED',
      'the join token was used before; make a new one, and find out who used this one',
      {
        metadata: { token_id: parsed.id },
      },
    )
  }
  if (row.expired)
    throw new HubError('JOIN_TOKEN_EXPIRED', 'the join token is too old; make a new one with `slipway provider token`')
  await tx
    .updateTable('join_tokens')
    .set({ used_at: sql<Date>`clock_timestamp()`, used_by: usedBy })
    .where('id', '=', parsed.id)
    .execute()
  return { providerId: row.provider_id }
}

/** Tells a provider's timeline that someone tried a token that was used before: one of the two is not who they should be. */
export async function recordJoinTokenMisuse(db: Db, tokenId: string, by: string): Promise<void> {
  const row = await db
    .selectFrom('join_tokens')
    .innerJoin('providers', 'providers.id', 'join_tokens.provider_id')
    .select(['providers.id', 'providers.name', 'join_tokens.used_by'])
    .where('join_tokens.id', '=', tokenId)
    .executeTakeFirst()
  if (row === undefined) return
  await appendEvents(db, hubCause, [
    {
      subject: `providers/${row.name}`,
      reason: 'JoinTokenMisused',
      message: `${by} presented join token ${tokenId}, which ${row.used_by ?? 'someone'} had used before`,
      severity: 'WARNING',
      providerId: row.id,
    },
  ])
}
