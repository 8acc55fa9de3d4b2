import type { JsonObject } from '../domain/facts.js'
import type { Keyring } from '../secrets/keyring.js'
import type { Db } from './database.js'

/** A provider's configuration with its credentials opened: for its own sessions, and for nothing else. */
export async function readProviderSecrets(
  db: Db,
  keyring: Keyring,
  providerId: string,
): Promise<{ readonly version: number; readonly config: JsonObject; readonly credentials: JsonObject }> {
  const row = await db
    .selectFrom('providers')
    .leftJoin('provider_credentials', 'provider_credentials.provider_id', 'providers.id')
    .select(['providers.config', 'providers.config_version', 'provider_credentials.sealed'])
    .where('providers.id', '=', providerId)
    .executeTakeFirstOrThrow()
  const credentials =
    row.sealed === null
      ? {}
      : (JSON.parse(keyring.open('provider.credentials', providerId, row.sealed).toString('utf8')) as JsonObject)
  return { version: row.config_version, config: row.config, credentials }
}
