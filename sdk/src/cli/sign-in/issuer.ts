import type { Configuration } from 'openid-client'
import type { Issuer } from '@slipway/proto/hub/v1'
import { CliError, exitCodes } from '../failure.js'

// What both ways to sign in need: the issuer as its own metadata describes it, and its refusals in words.

/** The library is loaded by who signs in. */
export const openid = () => import('openid-client')

/** Reads an issuer's metadata. @throws CliError. */
export async function discover(issuer: Issuer): Promise<Configuration> {
  const url = checkedUrl(issuer.issuer, 'the address of the issuer')
  const { discovery, allowInsecureRequests, None, ClientSecretPost } = await openid()
  const secret = issuer.publicClientSecret
  try {
    return await discovery(
      url,
      issuer.clientId,
      undefined,
      secret === '' ? None() : ClientSecretPost(secret),
      url.protocol === 'http:' ? { execute: [allowInsecureRequests] } : undefined,
    )
  } catch (error) {
    throw explained(error, `cannot sign in at ${issuer.issuer}`)
  }
}

/**
 * A URL to be shown to somebody, or opened: HTTPS, or HTTP on this very machine. Whatever else an issuer may name stays shut.
 *
 * @throws CliError.
 */
export function checkedUrl(text: string, what: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const local = url?.protocol === 'http:' && (/^127\.\d+\.\d+\.\d+$/.test(url.hostname) || url.hostname === '[::1]')
  if (url !== undefined && (url.protocol === 'https:' || local)) return url
  throw new CliError(exitCodes.auth, `${what} is not one to be trusted: ${printable(text)}`)
}

/** A text of somebody else's for a terminal: without what would move its cursor or colour it. */
export function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 500)
}

interface Refusal {
  readonly error: string
  readonly error_description?: string
}

/** Words for what an issuer refuses: RFC 6749 section 5.2, RFC 8628 section 3.5. */
const refusals: Readonly<Record<string, string>> = {
  access_denied: 'the sign-in was refused or broken off there',
  expired_token: 'the code is too old; log in again',
  invalid_grant: 'the issuer does not know the code, or it was used before; log in again',
  unauthorized_client: 'the issuer does not allow its client this way to sign in; try --browser or --device',
}

/** Makes a CliError of what the library threw. */
export function explained(error: unknown, what: string): CliError {
  if (error instanceof CliError) return error
  const refusal = refusalOf(error)
  if (refusal !== undefined) {
    const words = refusals[refusal.error] ?? printable(refusal.error_description ?? '')
    return new CliError(exitCodes.auth, `${what}: ${words === '' ? '' : `${words} `}(${printable(refusal.error)})`)
  }
  const causes: string[] = []
  for (let cause = error; cause instanceof Error; cause = cause.cause) causes.push(printable(cause.message))
  const code = isNetworkFailure(error) ? exitCodes.unavailable : exitCodes.auth
  return new CliError(code, `${what}: ${causes.length === 0 ? printable(String(error)) : causes.join(': ')}`)
}

function refusalOf(error: unknown): Refusal | undefined {
  return error instanceof Error && 'error' in error && typeof error.error === 'string'
    ? (error as unknown as Refusal)
    : undefined
}

/** Whether the issuer was not reached at all. */
export function isNetworkFailure(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (
      'code' in cause &&
      /^(ECONNREFUSED|ECONNRESET|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|UND_ERR_\w+|OAUTH_TIMEOUT)$/.test(String(cause.code))
    )
      return true
  }
  return false
}
