import { sql } from 'kysely'
import type { Db, Tx } from './database.js'

/** Takes note of a provider certificate. What was not noted is not trusted, whoever signed it. */
export async function recordCertificate(
  tx: Tx,
  certificate: {
    readonly serial: string
    readonly providerId: string
    readonly instanceName: string
    readonly notAfter: Date
  },
): Promise<void> {
  await tx
    .insertInto('provider_certificates')
    .values({
      serial: certificate.serial,
      provider_id: certificate.providerId,
      instance_name: certificate.instanceName,
      not_after: certificate.notAfter,
    })
    .execute()
}

export interface CertificateStatus {
  readonly providerId: string
  readonly revoked: boolean
  readonly providerDeleted: boolean
}

/** What is known of certificates, by their serial numbers. */
export async function readCertificates(
  db: Db,
  serials: readonly string[],
): Promise<ReadonlyMap<string, CertificateStatus>> {
  const rows = await db
    .selectFrom('provider_certificates')
    .innerJoin('providers', 'providers.id', 'provider_certificates.provider_id')
    .select(['serial', 'provider_certificates.provider_id', 'provider_certificates.revoked_at', 'providers.deleted_at'])
    .where(sql<boolean>`serial = any(${[...new Set(serials)]}::text[])`)
    .execute()
  return new Map(
    rows.map((row) => [
      row.serial,
      { providerId: row.provider_id, revoked: row.revoked_at !== null, providerDeleted: row.deleted_at !== null },
    ]),
  )
}
