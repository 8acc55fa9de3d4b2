import { createHash } from 'node:crypto'
import { decodeProtectedHeader, errors, jwtVerify, type JWTPayload } from 'jose'
import { HubError } from '../domain/error/errors.js'
import type { IssuerConfig } from '../domain/sign-in/issuer.js'
import type { Claims } from '../domain/sign-in/person.js'
import type { IssuerKeys } from './issuer-keys.js'

// ID tokens: what an issuer says to one client of who has just signed in. OpenID Connect Core 1.0, section 3.1.3.7.

/** How far the clocks of an issuer and of the hub may be apart. */
const clockSkewMs = 60_000
/** A token is exchanged right after the sign-in, or not at all. */
const maxAgeMs = 10 * 60_000
const maxTokenBytes = 16 * 1024

export interface VerifiedIdToken {
  readonly claims: Claims
  /** Of what is signed: the same for every spelling of one token. */
  readonly digest: Buffer
  /** When it would be refused for its age alone. */
  readonly usableUntil: Date
}

/**
 * Verifies a token of an issuer.
 *
 * @param now for tests.
 * @throws HubError ID_TOKEN_INVALID, ISSUER_UNAVAILABLE.
 */
export async function verifyIdToken(
  issuer: IssuerConfig,
  keys: IssuerKeys,
  token: string,
  now = new Date(),
): Promise<VerifiedIdToken> {
  if (Buffer.byteLength(token) > maxTokenBytes) throw invalid(`is over ${maxTokenBytes} bytes`)
  refuseOtherTypes(token)
  try {
    const { payload } = await jwtVerify(token, (header, input) => keys.find(header, input), {
      issuer: issuer.issuer,
      audience: [...issuer.audiences],
      algorithms: [...issuer.algorithms],
      requiredClaims: ['iss', 'aud', 'exp', 'iat'],
      maxTokenAge: maxAgeMs / 1_000,
      clockTolerance: clockSkewMs / 1_000,
      currentDate: now,
    })
    refuseOtherUses(payload)
    refuseOtherParties(issuer, payload)
    return {
      claims: payload,
      digest: createHash('sha256')
        .update(token.slice(0, token.lastIndexOf('.')), 'utf8')
        .digest(),
      usableUntil: new Date(now.getTime() + maxAgeMs + 2 * clockSkewMs),
    }
  } catch (error) {
    if (error instanceof errors.JOSEError) throw invalid(complaintOf(error), error)
    throw error
  }
}

function invalid(complaint: string, cause?: unknown): HubError {
  return new HubError('ID_TOKEN_INVALID', `the ID token ${complaint}; sign in again`, { cause })
}

/** A logout token, a signed request, an access token (RFC 9068) and the like name what they are. */
function refuseOtherTypes(token: string): void {
  let type: unknown
  try {
    type = decodeProtectedHeader(token).typ
  } catch (error) {
    throw invalid('is malformed', error)
  }
  if (type !== undefined && (typeof type !== 'string' || type.toUpperCase() !== 'JWT'))
    throw invalid(`is of another type («${JSON.stringify(type).slice(0, 40)}»)`)
}

/** What an access token has that looks like an ID token otherwise: `typ` is Keycloak's, `token_use` Amazon Cognito's. `events` is that of logout tokens. */
function refuseOtherUses(claims: JWTPayload): void {
  const { typ, token_use: use, events } = claims
  if ((typ !== undefined && typ !== 'ID') || (use !== undefined && use !== 'id') || events !== undefined)
    throw invalid('is none: an access token, or another one')
}

/** A token for several is good for as long as all of them are known, and it is said to whom it was given. */
function refuseOtherParties({ audiences }: IssuerConfig, { aud, azp }: JWTPayload): void {
  const meant = Array.isArray(aud) ? aud : [aud]
  if (!meant.every((audience) => audience !== undefined && audiences.includes(audience)))
    throw invalid('is for others too, whom this hub does not know')
  if (azp === undefined ? meant.length > 1 : typeof azp !== 'string' || !audiences.includes(azp))
    throw invalid('was given to another client (azp)')
}

function complaintOf(error: errors.JOSEError): string {
  if (error instanceof errors.JWTExpired) return 'is too old'
  if (error instanceof errors.JWTClaimValidationFailed)
    return `has a claim ${error.claim} that is missing, or not for this hub, or of another time`
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'is not signed by the issuer'
  if (error instanceof errors.JOSEAlgNotAllowed) return 'is signed in a way that is not allowed'
  if (error instanceof errors.JWKSNoMatchingKey) return 'is signed with a key that the issuer does not have'
  if (error instanceof errors.JWKSMultipleMatchingKeys) return 'does not say which key it is signed with'
  return 'is malformed'
}
