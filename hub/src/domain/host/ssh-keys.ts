import { HubError, type FieldViolation } from '../error/errors.js'

/** All keys of a host together. */
export const maxSshKeysBytes = 64 * 1024

const minRsaBits = 2048
/** Larger ones OpenSSH itself does not take. */
const maxRsaBits = 16_384

const oneLine = 'one line as in a .pub file: type, base64 and, if you like, a comment'

/** What a key says of itself in its base64 body, after its type. */
type Reader = (body: Body) => string | undefined

/** The sorts of keys that may log in, by their type. */
const readers: Readonly<Record<string, Reader>> = {
  'ssh-ed25519': (body) => readEd25519(body),
  'ssh-rsa': (body) => readRsa(body),
  'ecdsa-sha2-nistp256': (body) => readEcdsa(body, 'nistp256', 32),
  'ecdsa-sha2-nistp384': (body) => readEcdsa(body, 'nistp384', 48),
  'ecdsa-sha2-nistp521': (body) => readEcdsa(body, 'nistp521', 66),
  'sk-ssh-ed25519@openssh.com': (body) => readEd25519(body) ?? readApplication(body),
  'sk-ecdsa-sha2-nistp256@openssh.com': (body) => readEcdsa(body, 'nistp256', 32) ?? readApplication(body),
}

const knownTypes = Object.keys(readers).join(', ')

/**
 * Checks keys that are to log in: each one line of an OpenSSH public key (RFC 4253 section 6.6, RFC 5656 section 3.1, RFC 8709 section 4, and OpenSSH's PROTOCOL.u2f), as
 * in a `.pub` file. What is refused is never repeated: it may be a private key.
 *
 * @param field to complain about, for example `host.ssh_public_keys`.
 * @throws HubError INVALID_FIELD with a violation for each key that will not do.
 */
export function checkSshKeys(keys: readonly string[], field: string): void {
  const violations: FieldViolation[] = []
  const seen = new Map<string, number>()
  for (const [index, key] of keys.entries()) {
    const found = problemOf(key)
    const body = key.split(' ')[1] ?? ''
    const twin = seen.get(body)
    const description =
      found ?? (twin === undefined ? undefined : `is the same key as [${twin}]; leave one of them out`)
    if (description !== undefined) violations.push({ field: `${field}[${index}]`, description })
    else seen.set(body, index)
  }
  const bytes = keys.reduce((sum, key) => sum + Buffer.byteLength(key), 0)
  if (bytes > maxSshKeysBytes)
    violations.push({
      field,
      description: `come to ${bytes} bytes together, and may be ${maxSshKeysBytes}; shorten comments or leave some out`,
    })
  if (violations.length === 0) return
  const said = violations.map((violation) => `${violation.field}: ${violation.description}`).join('; ')
  throw new HubError('INVALID_FIELD', said, { violations })
}

/** What is wrong with a key and what to do; undefined: nothing. It holds nothing of the key. */
function problemOf(key: string): string | undefined {
  if (looksPrivate(key))
    return 'is a private key, or a part of one: give the public one, which is in the file that ends in .pub; and make a new pair, since this one has been shown'
  if (/-----? ?BEGIN /.test(key))
    return `is in another format than OpenSSH's; convert it with ssh-keygen -i -f FILE, and give ${oneLine}`
  // All that some reader takes for the end of a line, and what no terminal should be sent.
  if (/[\p{Cc}\u2028\u2029]/u.test(key))
    return `holds a line break or another control character; give each key by itself, as ${oneLine}`
  const [type = '', body = ''] = key.split(' ', 2)
  const reader = Object.hasOwn(readers, type) ? readers[type] : undefined
  if (reader === undefined) return typeProblem(key, type)
  const bytes = Buffer.from(body, 'base64')
  // Node's own decoder skips what it does not know.
  if (body === '' || bytes.toString('base64') !== body)
    return `has no valid base64 after its type; give ${oneLine}, whole and without other spaces`
  const reading = new Body(bytes)
  if (reading.string()?.toString('latin1') !== type)
    return `is of another type in its base64 than ${type}; copy the key anew from its .pub file`
  const wrong = reader(reading)
  if (wrong !== undefined) return wrong
  return reading.isAtEnd ? undefined : 'is longer than a key of its type; copy it anew from its .pub file'
}

function typeProblem(key: string, type: string): string {
  if (type === 'ssh-dss') return `is a DSA key, which OpenSSH takes no more; make one of ${knownTypes}`
  if (/^[a-z0-9-]+-cert-v01@openssh\.com$/.test(type))
    return 'is a certificate; give the key that it certifies, or have the user-data trust its authority'
  const isElsewhere = key.split(/[ ,"]+/).some((word) => Object.hasOwn(readers, word))
  if (isElsewhere)
    return `has options or something else before its type; give ${oneLine}, and what needs options in the user-data`
  return `is no OpenSSH public key of a type that may log in; give ${oneLine}, of one of ${knownTypes}`
}

/** PEM of any sort, PuTTY's format, and the body of OpenSSH's format without its frame (it begins with the base64 of `openssh-key-v1`). */
function looksPrivate(key: string): boolean {
  return /PRIVATE[ -]KEY|PuTTY-User-Key-File|Private-Lines|b3BlbnNzaC1rZXktdjE/i.test(key)
}

function readEd25519(body: Body): string | undefined {
  return body.string()?.length === 32 ? undefined : damaged
}

function readRsa(body: Body): string | undefined {
  const exponent = body.positive()
  const modulus = body.positive()
  if (exponent === undefined || modulus === undefined) return damaged
  // Below 3 it encrypts nothing, and an even one has no inverse.
  if ((exponent.at(-1) ?? 0) % 2 === 0 || (exponent.length === 1 && (exponent[0] ?? 0) < 3)) return damaged
  const bits = modulus.length * 8 - Math.clz32(modulus[0] ?? 0) + 24
  if (bits < minRsaBits)
    return `is an RSA key of ${bits} bits, and ${minRsaBits} is the least; make another with ssh-keygen -t ed25519`
  return bits > maxRsaBits
    ? `is an RSA key of ${bits} bits, and OpenSSH takes ${maxRsaBits} at most; make another with ssh-keygen -t ed25519`
    : undefined
}

function readEcdsa(body: Body, curve: string, bytes: number): string | undefined {
  if (body.string()?.toString('latin1') !== curve) return damaged
  const point = body.string()
  // Uncompressed, as RFC 5656 has it.
  return point?.length === 1 + 2 * bytes && point[0] === 4 ? undefined : damaged
}

function readApplication(body: Body): string | undefined {
  return (body.string()?.length ?? 0) > 0 ? undefined : damaged
}

const damaged = 'is damaged; copy it anew from its .pub file'

/** Reads SSH's data types (RFC 4251 section 5), one after the other. */
class Body {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length
  }

  /** Undefined: there is none, or it is cut off. */
  string(): Buffer | undefined {
    const start = this.#at + 4
    if (start > this.#bytes.length) return undefined
    const end = start + this.#bytes.readUInt32BE(this.#at)
    if (end > this.#bytes.length) return undefined
    this.#at = end
    return this.#bytes.subarray(start, end)
  }

  /** An mpint above 0, without the zero that leads it where its highest bit is set. */
  positive(): Buffer | undefined {
    const bytes = this.string()
    const [first, second] = bytes ?? []
    if (bytes === undefined || first === undefined || first >= 0x80) return undefined
    if (first !== 0) return bytes
    return second !== undefined && second >= 0x80 ? bytes.subarray(1) : undefined
  }
}
