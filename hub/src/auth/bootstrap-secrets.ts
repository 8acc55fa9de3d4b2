import { renderUserData } from '../domain/host/bootstrap.js'
import type { ClassBootstrap } from '../domain/host/host.js'
import type { Keyring } from '../secrets/keyring.js'
import { mintToken } from './tokens.js'

/** A phone-home token outlives every deadline by this: a host that is late is late, and not locked out. */
const phoneHomeMarginMs = 24 * 3_600_000

/** What a request keeps sealed for its machine. */
export interface BootstrapSecrets {
  readonly userDataSealed: Buffer
  readonly phoneHomeTokenHash: Buffer
  readonly phoneHomeTokenSealed: Buffer
  readonly phoneHomeExpiresAt: Date
}

/**
 * Mints the one-time token of a machine that is to be set up, and renders its user-data with it. A token that was minted before is worth nothing once these are
 * stored.
 *
 * @param options.userData as the order or its class gives it.
 */
export function makeBootstrapSecrets(
  keyring: Keyring,
  options: {
    readonly requestId: string
    readonly hostname: string
    readonly bootstrap: ClassBootstrap
    readonly userData: string
    /** The client API's base URL as booted machines reach it. */
    readonly publicUrl: string
    readonly now: Date
  },
): BootstrapSecrets {
  const { requestId, hostname, bootstrap, now } = options
  const { token, secretHash } = mintToken('phone-home', requestId)
  const rendered = renderUserData(options.userData, {
    hostname,
    phoneHomeUrl: `${options.publicUrl}/phone-home/${token}`,
    phoneHomeToken: token,
  })
  const goodForMs = bootstrap.provisionTimeoutMs + bootstrap.phoneHomeTimeoutMs + phoneHomeMarginMs
  return {
    userDataSealed: keyring.seal('request.user-data', requestId, rendered),
    phoneHomeTokenHash: secretHash,
    phoneHomeTokenSealed: keyring.seal('request.phone-home', requestId, token),
    phoneHomeExpiresAt: new Date(now.getTime() + goodForMs),
  }
}
