import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'

// Envelope encryption. Every value has a data key of its own, wrapped by a key-encryption key that is never in the database.
//
// Sealed form: version (1 byte) | key id (8) | wrap nonce (12) | wrapped data key (32) | wrap tag (16) | nonce (12) | tag (16) | ciphertext.
// Both layers are AES-256-GCM, and both bind version, key id, purpose and id as associated data: what was sealed for one row opens in no other.

/** What a sealed value is for. */
export type SecretPurpose =
  'host.user-data' | 'request.user-data' | 'request.phone-home' | 'provider.credentials' | 'authority.key'

export interface Keyring {
  /** @param id of the row that the value belongs to. */
  seal(purpose: SecretPurpose, id: string, plain: string | Uint8Array): Buffer
  /** @throws {@link UnsealError} where the value is damaged, is another row's, or was sealed with a key that is not here. */
  open(purpose: SecretPurpose, id: string, sealed: Buffer): Buffer
}

/** A sealed value cannot be opened. The message says why, and never what. */
export class UnsealError extends Error {
  override readonly name = 'UnsealError'
}

const version = 1
const keyIdBytes = 8
const nonceBytes = 12
const tagBytes = 16
const keyBytes = 32
const headerBytes = 1 + keyIdBytes
const wrapBytes = nonceBytes + keyBytes + tagBytes

/**
 * A keyring of one or more key-encryption keys of 32 bytes: the first seals, all of them open.
 *
 * @throws RangeError where a key is of another length.
 */
export function makeKeyring(keys: readonly [Uint8Array, ...Uint8Array[]]): Keyring {
  const byId = new Map(keys.map((key) => [keyId(key).toString('hex'), key]))
  const [current] = keys
  for (const key of keys)
    if (key.length !== keyBytes)
      throw new RangeError(`a key-encryption key has ${keyBytes} bytes, this one ${key.length}`)
  return {
    seal: (purpose, id, plain) => {
      const header = Buffer.concat([Buffer.of(version), keyId(current)])
      const bound = associatedData(header, purpose, id)
      const dataKey = randomBytes(keyBytes)
      const wrapped = encrypt(current, dataKey, bound)
      const body = encrypt(dataKey, Buffer.from(plain), bound)
      return Buffer.concat([header, wrapped.nonce, wrapped.text, wrapped.tag, body.nonce, body.tag, body.text])
    },
    open: (purpose, id, sealed) => {
      if (sealed.length < headerBytes + wrapBytes + nonceBytes + tagBytes || sealed[0] !== version) {
        throw new UnsealError('the sealed value is damaged, or of a newer version')
      }
      const header = sealed.subarray(0, headerBytes)
      const key = byId.get(header.subarray(1).toString('hex'))
      if (key === undefined) {
        throw new UnsealError(
          `the value was sealed with key ${header.subarray(1).toString('hex')}, which this hub was not given`,
        )
      }
      const bound = associatedData(header, purpose, id)
      const wrap = sealed.subarray(headerBytes, headerBytes + wrapBytes)
      const body = sealed.subarray(headerBytes + wrapBytes)
      const dataKey = decrypt(
        key,
        wrap.subarray(0, nonceBytes),
        wrap.subarray(nonceBytes, nonceBytes + keyBytes),
        wrap.subarray(nonceBytes + keyBytes),
        bound,
      )
      return decrypt(
        dataKey,
        body.subarray(0, nonceBytes),
        body.subarray(nonceBytes + tagBytes),
        body.subarray(nonceBytes, nonceBytes + tagBytes),
        bound,
      )
    },
  }
}

/**
 * Reads a key-encryption key from text: 64 hexadecimal digits, or 32 bytes in base64.
 *
 * @throws RangeError for anything else.
 */
export function parseKey(text: string): Uint8Array {
  const trimmed = text.trim()
  if (/^[0-9a-f]{64}$/i.test(trimmed)) return Buffer.from(trimmed, 'hex')
  const bytes = Buffer.from(trimmed, 'base64')
  if (/^[A-Za-z0-9+/_-]{43}=?$/.test(trimmed) && bytes.length === keyBytes) return bytes
  throw new RangeError(
    'a key-encryption key is 64 hexadecimal digits or 32 bytes in base64; `openssl rand -hex 32` makes one',
  )
}

/** Names a key without telling anything of it. */
function keyId(key: Uint8Array): Buffer {
  return createHash('sha256').update('slipway key id').update(key).digest().subarray(0, keyIdBytes)
}

function associatedData(header: Buffer, purpose: SecretPurpose, id: string): Buffer {
  return Buffer.concat([header, Buffer.from(`${purpose}\0${id}`, 'utf8')])
}

function encrypt(key: Uint8Array, plain: Uint8Array, bound: Buffer): { nonce: Buffer; text: Buffer; tag: Buffer } {
  const nonce = randomBytes(nonceBytes)
  const cipher = createCipheriv('aes-256-gcm', key, nonce)
  cipher.setAAD(bound)
  const text = Buffer.concat([cipher.update(plain), cipher.final()])
  return { nonce, text, tag: cipher.getAuthTag() }
}

function decrypt(key: Uint8Array, nonce: Buffer, text: Buffer, tag: Buffer, bound: Buffer): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes })
  decipher.setAAD(bound)
  decipher.setAuthTag(tag)
  try {
    return Buffer.concat([decipher.update(text), decipher.final()])
  } catch (error) {
    throw new UnsealError('the sealed value was changed, or belongs to another row', { cause: error })
  }
}
