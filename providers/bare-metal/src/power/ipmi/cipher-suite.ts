import { createCipheriv, createDecipheriv, createHmac, randomBytes, timingSafeEqual } from 'node:crypto'

/** The cipher suites that are spoken; IPMI 2.0, table 22-20. Suite 0 (no cryptography at all) and suites without encryption are not. */
export type CipherSuiteId = 3 | 17

export interface CipherSuite {
  readonly id: CipherSuiteId
  readonly hash: 'sha1' | 'sha256'
  /** Numbers of the algorithms; IPMI 2.0, tables 13-17, 13-18 and 13-19. */
  readonly authentication: number
  readonly integrity: number
  readonly confidentiality: number
  /** What RAKP 2 and 3 carry. */
  readonly digestBytes: number
  /** What RAKP 4 and each packet of a session carry: the digest, cut off. */
  readonly codeBytes: number
}

const suites: Readonly<Record<CipherSuiteId, CipherSuite>> = {
  3: { id: 3, hash: 'sha1', authentication: 1, integrity: 1, confidentiality: 1, digestBytes: 20, codeBytes: 12 },
  17: { id: 17, hash: 'sha256', authentication: 3, integrity: 4, confidentiality: 1, digestBytes: 32, codeBytes: 16 },
}

export function cipherSuite(id: CipherSuiteId): CipherSuite {
  return suites[id]
}

/** What a session is protected with. */
export interface SessionKeys {
  readonly suite: CipherSuite
  /** For integrity. */
  readonly k1: Buffer
  /** For AES-CBC-128. */
  readonly k2: Buffer
}

/** Passwords and K_G are keys of 20 bytes, filled up with zeros. */
export const keyBytes = 20

export function hmac(suite: CipherSuite, key: Uint8Array, ...parts: readonly Uint8Array[]): Buffer {
  const mac = createHmac(suite.hash, key)
  for (const part of parts) mac.update(part)
  return mac.digest()
}

/** Makes the keys of a session of its session integrity key; IPMI 2.0, section 13.32. */
export function deriveKeys(suite: CipherSuite, sik: Uint8Array): SessionKeys {
  return {
    suite,
    k1: hmac(suite, sik, Buffer.alloc(keyBytes, 1)),
    k2: hmac(suite, sik, Buffer.alloc(keyBytes, 2)).subarray(0, 16),
  }
}

/** The code that a packet ends with. */
export function integrityCode({ suite, k1 }: SessionKeys, covered: Uint8Array): Buffer {
  return hmac(suite, k1, covered).subarray(0, suite.codeBytes)
}

/** Compares without telling by its duration where the difference is. */
export function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && timingSafeEqual(left, right)
}

const blockBytes = 16

/** Encrypts a payload with AES-CBC-128 and IPMI's own padding (1, 2, 3, …, count); IPMI 2.0, section 13.29. */
export function encryptPayload(k2: Uint8Array, payload: Uint8Array, iv: Uint8Array = randomBytes(blockBytes)): Buffer {
  const padBytes = blockBytes - 1 - (payload.length % blockBytes)
  const cipher = createCipheriv('aes-128-cbc', k2, iv).setAutoPadding(false)
  const trailer = Buffer.from([...Array.from({ length: padBytes }, (_, index) => index + 1), padBytes])
  return Buffer.concat([iv, cipher.update(payload), cipher.update(trailer), cipher.final()])
}

/**
 * Undoes {@link encryptPayload}. The padding's bytes are not compared, because the packet's code was verified before and some BMCs fill them otherwise.
 * @returns undefined where the lengths cannot be.
 */
export function decryptPayload(k2: Uint8Array, sealed: Uint8Array): Buffer | undefined {
  if (sealed.length < 2 * blockBytes || sealed.length % blockBytes !== 0) return undefined
  const decipher = createDecipheriv('aes-128-cbc', k2, sealed.subarray(0, blockBytes)).setAutoPadding(false)
  const plain = Buffer.concat([decipher.update(sealed.subarray(blockBytes)), decipher.final()])
  const padBytes = plain[plain.length - 1] ?? blockBytes
  return padBytes < blockBytes ? plain.subarray(0, plain.length - 1 - padBytes) : undefined
}
