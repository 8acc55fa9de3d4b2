import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { crc32 } from 'node:zlib'

// Tokens. Their prefix tells people and secret scanners what they are; their secret is random enough that a plain hash of it can be stored.

/**
 * `client`, `user`, `service`: for callers of the client API; the first speaks for the hub's own administrator, the others for a user or a service account. `join`: lets one provider instance in. `phone-home`: a booted
 * machine's first word.
 */
export type TokenKind = BearerKind | 'join' | 'phone-home'
export type BearerKind = 'client' | 'user' | 'service'

export interface ParsedToken {
  readonly id: string
  readonly secret: string
  /** join: SHA-256 of the authority's public key, so that the instance trusts this hub and no other. Else empty. */
  readonly extra: string
}

const bearerForm = (prefix: string) => ({
  prefix,
  form: new RegExp(`^${prefix}_(?<id>[0-9a-f]{16})_(?<secret>[0-9a-f]{64})_(?<extra>[0-9a-f]{8})$`),
})
const forms: Readonly<Record<TokenKind, { readonly prefix: string; readonly form: RegExp }>> = {
  client: bearerForm('swc'),
  user: bearerForm('swu'),
  service: bearerForm('sws'),
  join: { prefix: 'swj', form: /^swj_(?<id>[0-9a-f]{24})_(?<secret>[0-9a-f]{64})_(?<extra>[0-9a-f]{64})$/ },
  'phone-home': { prefix: 'swb', form: /^swb_(?<id>[0-9a-f]{32})_(?<secret>[0-9a-f]{64})(?<extra>)$/ },
}

const bearerKinds: readonly BearerKind[] = ['client', 'user', 'service']
const idBytes: Readonly<Record<TokenKind, number>> = { client: 8, user: 8, service: 8, join: 12, 'phone-home': 16 }

function isBearer(kind: TokenKind): kind is BearerKind {
  return bearerKinds.some((candidate) => candidate === kind)
}

/** A new id for a token. Phone-home tokens take their request's id instead. */
export function newTokenId(kind: BearerKind | 'join'): string {
  return randomBytes(idBytes[kind]).toString('hex')
}

/**
 * Makes a token. Only the hash of its secret is to be stored.
 *
 * @param id lower-case hexadecimal; for phone-home tokens the request's UUID, with or without dashes.
 * @param extra join: the authority's fingerprint.
 */
export function mintToken(
  kind: TokenKind,
  id: string,
  extra = '',
): { readonly token: string; readonly secretHash: Buffer } {
  const secret = randomBytes(32).toString('hex')
  const plainId = id.replaceAll('-', '')
  const start = `${forms[kind].prefix}_${plainId}_${secret}`
  const token = isBearer(kind) ? `${start}_${checksum(start)}` : kind === 'join' ? `${start}_${extra}` : start
  if (parseToken(kind, token) === undefined) throw new RangeError(`«${id}» is no id for a ${kind} token`)
  return { token, secretHash: hashSecret(secret) }
}

/** Takes a token apart. Undefined for anything that was never one, mistyped ones included. */
export function parseToken(kind: TokenKind, text: string): ParsedToken | undefined {
  const match = forms[kind].form.exec(text.trim())
  const { id, secret, extra } = match?.groups ?? {}
  if (id === undefined || secret === undefined || extra === undefined) return undefined
  if (!isBearer(kind)) return { id, secret, extra }
  return checksum(`${forms[kind].prefix}_${id}_${secret}`) === extra ? { id, secret, extra: '' } : undefined
}

/** Takes a token of a caller of the client API apart, whichever sort it is. */
export function parseBearer(text: string): (ParsedToken & { readonly kind: BearerKind }) | undefined {
  for (const kind of bearerKinds) {
    const parsed = parseToken(kind, text)
    if (parsed !== undefined) return { ...parsed, kind }
  }
  return undefined
}

export function hashSecret(secret: string): Buffer {
  return createHash('sha256').update(secret, 'utf8').digest()
}

/** Compares in constant time. */
export function secretMatches(secret: string, hash: Buffer): boolean {
  const candidate = hashSecret(secret)
  return candidate.length === hash.length && timingSafeEqual(candidate, hash)
}

function checksum(text: string): string {
  return crc32(text).toString(16).padStart(8, '0')
}
