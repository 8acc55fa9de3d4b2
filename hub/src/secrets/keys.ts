import { keyBytes, makeKeyring, type Keyring } from './keyring.js'

// Key-encryption keys as they are given to a hub: a text with one on each line. The first seals, all of them open. A line is a key itself, or a key that some service
// has wrapped and can unwrap: `SCHEME:REST`. The service is asked once, at the start; from then on the key is in this process's memory alone, and sealing costs no call.

/** A service that keeps a key which it never gives away, and unwraps ours with it. */
export interface KeyUnwrapper {
  /** Lines that begin with this and a colon are its own. */
  readonly scheme: string
  /** @param wrapped what follows the colon. @returns the 32 bytes. @throws KeyError. */
  unwrap(wrapped: string): Promise<Uint8Array>
}

/** A key-encryption key cannot be used. The message says which and why, and never shows it. */
export class KeyError extends Error {
  override readonly name = 'KeyError'
}

/**
 * Reads key-encryption keys and makes a keyring of them. Empty lines and those that begin with `#` count for nothing.
 *
 * @throws KeyError.
 */
export async function readKeyring(text: string, unwrappers: readonly KeyUnwrapper[]): Promise<Keyring> {
  const lines = text
    .split(/[\r\n]+/)
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
  const keys = await Promise.all(lines.map((line, index) => readKey(line, `key ${index + 1}`, unwrappers)))
  const [first, ...rest] = keys
  if (first === undefined) throw new KeyError('there is no key-encryption key; `openssl rand -hex 32` makes one')
  try {
    return makeKeyring([first, ...rest])
  } catch (error) {
    throw new KeyError(error instanceof Error ? error.message : String(error))
  }
}

async function readKey(line: string, which: string, unwrappers: readonly KeyUnwrapper[]): Promise<Uint8Array> {
  const unwrapper = unwrappers.find(({ scheme }) => line.startsWith(`${scheme}:`))
  if (unwrapper === undefined) return parseKey(line, which)
  const key = await unwrapper.unwrap(line.slice(unwrapper.scheme.length + 1))
  if (key.length !== keyBytes)
    throw new KeyError(`${which}: what ${unwrapper.scheme} unwrapped has ${key.length} bytes, and not ${keyBytes}`)
  return key
}

/** Reads a key from text: 64 hexadecimal digits, or 32 bytes in base64. @throws KeyError for anything else. */
function parseKey(text: string, which: string): Uint8Array {
  if (/^[0-9a-f]{64}$/i.test(text)) return Buffer.from(text, 'hex')
  const bytes = Buffer.from(text, 'base64')
  if (/^[A-Za-z0-9+/_-]{43}=?$/.test(text) && bytes.length === keyBytes) return bytes
  throw new KeyError(
    `${which} is neither 64 hexadecimal digits nor 32 bytes in base64; \`openssl rand -hex 32\` makes one`,
  )
}
