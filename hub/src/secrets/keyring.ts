import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createSecretKey,
  hkdfSync,
  randomBytes,
  timingSafeEqual,
  type KeyObject,
} from 'node:crypto'

// Envelope encryption. Every value has a data key of its own, wrapped by a key-encryption key that is never in the database.
//
// Sealed form: version (1 byte) | key id (8) | wrap nonce (12) | wrapped data key (32) | wrap tag (16) | nonce (12) | tag (16) | ciphertext.
// Both layers are AES-256-GCM and bind what the value is for and whose it is as associated data: what was sealed for one row opens in no other. Form 2 binds the key's
// id to the wrapping alone, so that a data key can be wrapped anew and the value itself stays as it is; form 1 bound it to both, and is only read.

/** What a sealed value is for. */
export type SecretPurpose =
  | 'host.user-data'
  | 'host-set.user-data'
  | 'request.user-data'
  | 'request.phone-home'
  | 'provider.credentials'
  | 'authority.key'
  | 'secret.data'

export interface Keyring {
  /** The id of the key that seals, as hexadecimal digits. It tells nothing of the key. */
  readonly activeKeyId: string
  /** The ids of all keys, the active one first. */
  readonly keyIds: readonly string[]
  /** @param id of the row that the value belongs to; see {@link secretVersionId} for those with longer keys. */
  seal(purpose: SecretPurpose, id: string, plain: string | Uint8Array): Buffer
  /** @throws {@link UnsealError} where the value is damaged, is another row's, or was sealed with a key that is not here. */
  open(purpose: SecretPurpose, id: string, sealed: Buffer): Buffer
  /**
   * The same value with its data key wrapped by the active key; undefined where it is already.
   *
   * @throws UnsealError as `open` does.
   */
  rewrap(purpose: SecretPurpose, id: string, sealed: Buffer): Buffer | undefined
  /** A digest by which the same data is known again, and which tells nobody without the key anything: guesses cannot be tried on it. Begins with the id of the active key. */
  digest(data: Uint8Array): Buffer
  /** Whether a digest was made of this data. False where its key is not here any more. */
  isDigestOf(digest: Uint8Array, data: Uint8Array): boolean
}

/** A sealed value cannot be opened. The message says why, and never what. */
export class UnsealError extends Error {
  override readonly name = 'UnsealError'
}

/** What the data of a version of a secret is bound to. */
export function secretVersionId(organizationId: string, secretId: string, version: number): string {
  return `${organizationId}/${secretId}/${version}`
}

/** The id of the key that wraps a sealed value, as hexadecimal digits. */
export function wrappingKeyId(sealed: Buffer): string {
  return sealed.subarray(1, headerBytes).toString('hex')
}

const currentForm = 2
const boundToKeyForm = 1
const keyIdBytes = 8
const nonceBytes = 12
const tagBytes = 16
export const keyBytes = 32
const headerBytes = 1 + keyIdBytes
const wrapBytes = nonceBytes + keyBytes + tagBytes

/**
 * A keyring of one or more key-encryption keys of 32 bytes: the first seals, all of them open.
 *
 * @throws RangeError where a key is of another length, or given twice.
 */
export function makeKeyring(keys: readonly [Uint8Array, ...Uint8Array[]]): Keyring {
  for (const key of keys)
    if (key.length !== keyBytes)
      throw new RangeError(`a key-encryption key has ${keyBytes} bytes, this one ${key.length}`)
  const active = keptKey(keys[0])
  const byId = new Map([active, ...keys.slice(1).map(keptKey)].map((key) => [key.id.toString('hex'), key]))
  if (byId.size < keys.length) throw new RangeError('the same key-encryption key is given twice')
  const activeHeader = Buffer.concat([Buffer.of(currentForm), active.id])
  const activeKeyId = active.id.toString('hex')

  const seal = (purpose: SecretPurpose, id: string, plain: string | Uint8Array): Buffer => {
    const dataKey = randomBytes(keyBytes)
    const body = encrypt(createSecretKey(dataKey), Buffer.from(plain), boundToBody(activeHeader, purpose, id))
    return Buffer.concat([wrap(active.wrapping, activeHeader, dataKey, purpose, id), body])
  }
  const openParts = (purpose: SecretPurpose, id: string, sealed: Buffer) => {
    const form = sealed[0]
    if (
      sealed.length < headerBytes + wrapBytes + nonceBytes + tagBytes ||
      (form !== currentForm && form !== boundToKeyForm)
    )
      throw new UnsealError('the sealed value is damaged, or of a newer version')
    const header = sealed.subarray(0, headerBytes)
    const key = byId.get(wrappingKeyId(sealed))
    if (key === undefined)
      throw new UnsealError(`the value was sealed with key ${wrappingKeyId(sealed)}, which this hub was not given`)
    const dataKey = unwrap(
      key.wrapping,
      sealed.subarray(headerBytes, headerBytes + wrapBytes),
      boundTo(header, purpose, id),
    )
    return { header, dataKey, body: sealed.subarray(headerBytes + wrapBytes) }
  }
  const open = (purpose: SecretPurpose, id: string, sealed: Buffer): Buffer => {
    const { header, dataKey, body } = openParts(purpose, id, sealed)
    return decrypt(createSecretKey(dataKey), body, boundToBody(header, purpose, id))
  }
  return {
    activeKeyId,
    keyIds: [...byId.keys()],
    seal,
    open,
    rewrap: (purpose, id, sealed) => {
      if (sealed[0] === currentForm && wrappingKeyId(sealed) === activeKeyId) return undefined
      if (sealed[0] === boundToKeyForm) return seal(purpose, id, open(purpose, id, sealed))
      const { dataKey, body } = openParts(purpose, id, sealed)
      // The value itself is tried as well: what does not open today must not be passed on as if it did.
      decrypt(createSecretKey(dataKey), body, boundToBody(activeHeader, purpose, id))
      return Buffer.concat([wrap(active.wrapping, activeHeader, dataKey, purpose, id), body])
    },
    digest: (data) => digestOf(active, data),
    isDigestOf: (digest, data) => {
      const key = byId.get(Buffer.from(digest.subarray(0, keyIdBytes)).toString('hex'))
      if (key === undefined) return false
      const expected = digestOf(key, data)
      return digest.length === expected.length && timingSafeEqual(digest, expected)
    },
  }
}

/** A key-encryption key, and what is derived of it once: as objects, which are handed to OpenSSL faster than bytes. */
interface KeptKey {
  readonly id: Buffer
  readonly wrapping: KeyObject
  /** Derived for digests alone (RFC 5869). */
  readonly digesting: KeyObject
}

function keptKey(key: Uint8Array): KeptKey {
  const derived = Buffer.from(hkdfSync('sha256', key, '', 'slipway digest', keyBytes))
  return { id: keyIdOf(key), wrapping: createSecretKey(key), digesting: createSecretKey(derived) }
}

/** The key's id, and an HMAC. */
function digestOf({ id, digesting }: KeptKey, data: Uint8Array): Buffer {
  return Buffer.concat([id, createHmac('sha256', digesting).update(data).digest()])
}

/** Names a key without telling anything of it. */
function keyIdOf(key: Uint8Array): Buffer {
  return createHash('sha256').update('slipway key id').update(key).digest().subarray(0, keyIdBytes)
}

/** What a wrapped data key is bound to. */
function boundTo(header: Buffer, purpose: SecretPurpose, id: string): Buffer {
  return Buffer.concat([header, Buffer.from(`${purpose}\0${id}`, 'utf8')])
}

/** What a value is bound to: from form 2 on, to no key-encryption key. */
function boundToBody(header: Buffer, purpose: SecretPurpose, id: string): Buffer {
  return boundTo(header[0] === boundToKeyForm ? header : header.subarray(0, 1), purpose, id)
}

/** Header, nonce, wrapped data key and tag. */
function wrap(key: KeyObject, header: Buffer, dataKey: Buffer, purpose: SecretPurpose, id: string): Buffer {
  const nonce = randomBytes(nonceBytes)
  const cipher = createCipheriv('aes-256-gcm', key, nonce)
  cipher.setAAD(boundTo(header, purpose, id))
  const text = Buffer.concat([cipher.update(dataKey), cipher.final()])
  return Buffer.concat([header, nonce, text, cipher.getAuthTag()])
}

function unwrap(key: KeyObject, wrapped: Buffer, bound: Buffer): Buffer {
  const nonce = wrapped.subarray(0, nonceBytes)
  const text = wrapped.subarray(nonceBytes, nonceBytes + keyBytes)
  return decipher(key, nonce, text, wrapped.subarray(nonceBytes + keyBytes), bound)
}

/** Nonce, tag and ciphertext. */
function encrypt(key: KeyObject, plain: Uint8Array, bound: Buffer): Buffer {
  const nonce = randomBytes(nonceBytes)
  const cipher = createCipheriv('aes-256-gcm', key, nonce)
  cipher.setAAD(bound)
  const text = Buffer.concat([cipher.update(plain), cipher.final()])
  return Buffer.concat([nonce, cipher.getAuthTag(), text])
}

function decrypt(key: KeyObject, body: Buffer, bound: Buffer): Buffer {
  const nonce = body.subarray(0, nonceBytes)
  return decipher(
    key,
    nonce,
    body.subarray(nonceBytes + tagBytes),
    body.subarray(nonceBytes, nonceBytes + tagBytes),
    bound,
  )
}

function decipher(key: KeyObject, nonce: Buffer, text: Buffer, tag: Buffer, bound: Buffer): Buffer {
  const opening = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes })
  opening.setAAD(bound)
  opening.setAuthTag(tag)
  try {
    return Buffer.concat([opening.update(text), opening.final()])
  } catch (error) {
    throw new UnsealError('the sealed value was changed, or belongs to another row', { cause: error })
  }
}
