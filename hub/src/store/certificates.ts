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

/** How a certificate stands; undefined where it was never noted. */
export async function certificateStatus(db: Db, serial: string): Promise<CertificateStatus | undefined> {
  const row = await db
    .selectFrom('provider_certificates')
    .innerJoin('providers', 'providers.id', 'provider_certificates.provider_id')
    .select(['provider_certificates.provider_id', 'provider_certificates.revoked_at', 'providers.deleted_at'])
    .where('serial', '=', serial)
    .executeTakeFirst()
  if (row === undefined) return undefined
  return { providerId: row.provider_id, revoked: row.revoked_at !== null, providerDeleted: row.deleted_at !== null }
}
