import type { Keyring } from '../secrets/keyring.js'
import { Batcher } from '../store/batcher.js'
import { readCertificates, type CertificateStatus } from '../store/certificates.js'
import type { Db } from '../store/database.js'
import { readProviderSettings, recordConfiguredVersions, type KnownSettings } from '../store/provider-credentials.js'
import { SharedReads } from '../store/shared-reads.js'

/** What instances are answered by that say Hello: for all that do so at the same time, as after a restart, in one round trip each. */
export class HelloReads {
  /** What is known of a certificate, by its serial number; undefined: nothing. */
  readonly certificate: (serial: string) => Promise<CertificateStatus | undefined>
  /** A provider's configuration and credentials. */
  readonly settings: (providerId: string) => Promise<KnownSettings>
  readonly #configured: Batcher<{ readonly sessionId: string; readonly version: number }, void>

  constructor(db: Db, keyring: Keyring) {
    const reads = new SharedReads(db)
    this.certificate = reads.kind(async (connection, serials) => {
      const known = await readCertificates(connection, serials)
      return serials.map((serial) => ({ ok: true, result: known.get(serial) }))
    })
    this.settings = reads.kind(async (connection, providerIds) => {
      const known = new Map(
        await Promise.all(
          [...new Set(providerIds)].map(
            async (id) => [id, await readProviderSettings(connection, keyring, id)] as const,
          ),
        ),
      )
      return providerIds.map((id) => {
        const settings = known.get(id)
        return settings === undefined
          ? { ok: false, error: new Error(`there is no provider ${id}`) }
          : { ok: true, result: settings }
      })
    })
    this.#configured = new Batcher<{ readonly sessionId: string; readonly version: number }, void>({
      max: 200,
      work: async (sessions) => {
        await recordConfiguredVersions(db, sessions)
        return sessions.map(() => ({ ok: true, result: undefined }))
      },
    })
  }

  /** Stores the version of the configuration that a session works with. */
  configured(session: { readonly sessionId: string; readonly version: number }): Promise<void> {
    return this.#configured.submit(session)
  }
}
