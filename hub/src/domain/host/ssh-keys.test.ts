import { generateKeyPairSync, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { HubError } from '../error/errors.js'
import { checkSshKeys, maxSshKeysBytes } from './ssh-keys.js'

const field = 'host.ssh_public_keys'

const string = (value: string | Buffer) => {
  const bytes = Buffer.from(value as string)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}
const mpint = (bytes: Buffer) => string((bytes[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.from([0]), bytes]) : bytes)
const line = (type: string, ...parts: readonly Buffer[]) =>
  `${type} ${Buffer.concat([string(type), ...parts]).toString('base64')}`

const ed25519 = (bytes = randomBytes(32)) => line('ssh-ed25519', string(bytes))
const skEd25519 = () => line('sk-ssh-ed25519@openssh.com', string(randomBytes(32)), string('ssh:'))
const point = (bytes: number) => string(Buffer.concat([Buffer.from([4]), randomBytes(2 * bytes)]))
const ecdsa = (curve: string, bytes: number) => line(`ecdsa-sha2-${curve}`, string(curve), point(bytes))
const skEcdsa = () => line('sk-ecdsa-sha2-nistp256@openssh.com', string('nistp256'), point(32), string('ssh:'))
const rsa = (bits: number, exponent = Buffer.from([1, 0, 1])) => {
  const modulus = randomBytes(Math.ceil(bits / 8))
  const top = (bits - 1) % 8
  modulus[0] = ((modulus[0] ?? 0) & ((1 << top) - 1)) | (1 << top)
  return line('ssh-rsa', mpint(exponent), mpint(modulus))
}

const makers = [
  () => ed25519(),
  skEd25519,
  skEcdsa,
  () => ecdsa('nistp256', 32),
  () => ecdsa('nistp384', 48),
  () => ecdsa('nistp521', 66),
  () => rsa(2048),
  () => rsa(3072),
  () => rsa(4095),
]
const aKey = fc.constantFrom(...makers).map((make) => make())
const aComment = fc.string({ unit: 'grapheme' }).filter((text) => !/[\p{Cc}\u2028\u2029]/u.test(text))

/** What is said of keys, by field. */
function complaints(keys: readonly string[]): Record<string, string> {
  try {
    checkSshKeys(keys, field)
    return {}
  } catch (error) {
    if (!(error instanceof HubError)) throw error
    t.equal(error.reason, 'INVALID_FIELD')
    return Object.fromEntries(error.violations.map((violation) => [violation.field, violation.description]))
  }
}

void t.test('keys of each type pass, with whatever comment', async (t) => {
  for (const make of makers) t.same(complaints([make(), `${make()} me@home, on my laptop – "x"`]), {})
  fc.assert(fc.property(aKey, aComment, (key, comment) => Object.keys(complaints([`${key} ${comment}`])).length === 0))
  t.same(complaints([]), {})
})

void t.test("keys that Node's own cryptography made pass", async (t) => {
  const { n, e } = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ format: 'jwk' })
  const { x } = generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' })
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-521' }).publicKey.export({ format: 'jwk' })
  const of = (value: string | undefined) => Buffer.from(value ?? '', 'base64url')
  t.same(
    complaints([
      line('ssh-rsa', mpint(of(e)), mpint(of(n))),
      ed25519(of(x)),
      line('ecdsa-sha2-nistp521', string('nistp521'), string(Buffer.concat([Buffer.from([4]), of(ec.x), of(ec.y)]))),
    ]),
    {},
  )
})

void t.test('a damaged body never passes', async () => {
  const damage = fc.record({ key: aKey, at: fc.nat(), kind: fc.constantFrom('cut', 'more', 'letter', 'base64') })
  fc.assert(
    fc.property(damage, ({ key, at, kind }) => {
      const [type = '', base64 = ''] = key.split(' ')
      const body = Buffer.from(base64, 'base64')
      const broken =
        kind === 'cut'
          ? body.subarray(0, at % body.length).toString('base64')
          : kind === 'more'
            ? Buffer.concat([body, Buffer.from([at % 256])]).toString('base64')
            : kind === 'letter'
              ? `${base64.slice(0, at % base64.length)}*${base64.slice((at % base64.length) + 1)}`
              : `${base64}A`
      return Object.keys(complaints([`${type} ${broken}`])).length === 1
    }),
  )
})

void t.test('a body of another type than is said in front never passes', async () => {
  fc.assert(
    fc.property(aKey, aKey, (key, other) => {
      const [type = ''] = key.split(' ')
      const [otherType = '', body = ''] = other.split(' ')
      fc.pre(type !== otherType)
      return /another type/.test(complaints([`${type} ${body}`])[`${field}[0]`] ?? '')
    }),
  )
})

void t.test('nothing of what is refused is repeated', async () => {
  const aSecret = fc.uint8Array({ minLength: 32, maxLength: 64 }).map((bytes) => Buffer.from(bytes).toString('base64'))
  const aShape = fc.constantFrom(
    (secret: string) => `-----BEGIN OPENSSH PRIVATE KEY-----\n${secret}\n-----END OPENSSH PRIVATE KEY-----`,
    (secret: string) => `-----BEGIN ${'RSA '}PRIVATE KEY----- ${secret} -----END ${'RSA '}PRIVATE KEY-----`,
    (secret: string) => `PuTTY-User-Key-File-3: ssh-ed25519 Private-Lines: 1 ${secret}`,
    (secret: string) => `b3BlbnNzaC1rZXktdjEAAAAABG5vbmU${secret}`,
    (secret: string) => secret,
    (secret: string) => `ssh-ed25519 ${secret}`,
    (secret: string) => `${secret} ssh-ed25519 AAAA`,
  )
  fc.assert(
    fc.property(aSecret, aShape, (secret, shape) => {
      const said = JSON.stringify(complaints([shape(secret)]))
      return said !== '{}' && !said.includes(secret.slice(0, 12))
    }),
  )
})

void t.test('what is refused, and what is said of it', async (t) => {
  const key = ed25519()
  const told: readonly (readonly [string, RegExp])[] = [
    ['', /no OpenSSH public key/],
    ['-----BEGIN OPENSSH PRIVATE KEY-----', /private key.*ends in \.pub.*make a new pair/],
    ['---- BEGIN SSH2 PUBLIC KEY ----', /ssh-keygen -i/],
    ['-----BEGIN PUBLIC KEY-----', /ssh-keygen -i/],
    [`${key}\n`, /line break/],
    [`${key} a\u2028b`, /line break/],
    [`${key} a\u0085b`, /line break/],
    [`${key} \u001b[31m`, /line break/],
    [`${key}\n${ed25519()}`, /each key by itself/],
    [`no-pty ${key}`, /options/],
    [`command="/bin/true",no-pty ${key}`, /options/],
    [` ${key}`, /options or something else before/],
    [key.replace(' ', '  '), /base64/],
    [key.replace(' ', '\t'), /line break or another control character/],
    [key.split(' ')[0] ?? '', /base64/],
    [key.slice(0, -1), /base64/],
    ['ssh-dss AAAAB3NzaC1kc3M=', /DSA/],
    ['ssh-ed25519-cert-v01@openssh.com AAAA', /certificate/],
    ['toString AAAA', /no OpenSSH public key/],
    [rsa(1024), /RSA key of 1024 bits, and 2048/],
    [rsa(2047), /RSA key of 2047 bits/],
    [rsa(16_385), /16385 bits, and OpenSSH takes 16384/],
    [rsa(2048, Buffer.from([1])), /damaged/],
    [rsa(2048, Buffer.from([1, 0, 0])), /damaged/],
    [line('ssh-rsa', string(Buffer.from([0xff])), mpint(randomBytes(256))), /damaged/],
    [line('ssh-rsa', mpint(Buffer.from([3])), string(Buffer.alloc(257))), /damaged/],
    [ed25519(randomBytes(31)), /damaged/],
    [line('ecdsa-sha2-nistp256', string('nistp384'), point(32)), /damaged/],
    [line('ecdsa-sha2-nistp256', string('nistp256'), string(Buffer.alloc(65, 2))), /damaged/],
    [line('sk-ssh-ed25519@openssh.com', string(randomBytes(32)), string('')), /damaged/],
  ]
  for (const [given, expected] of told) {
    const said = complaints([ed25519(), given])
    t.same(Object.keys(said), [`${field}[1]`], `one complaint about ${JSON.stringify(given.slice(0, 30))}`)
    t.match(said[`${field}[1]`], expected)
  }
})

void t.test('each that will not do is named; the same key twice is one too many, whatever its comments', async (t) => {
  const [one, two] = [ed25519(), rsa(2048)]
  t.same(Object.keys(complaints(['x', one, `${one} again`, two, 'y'])), [`${field}[0]`, `${field}[2]`, `${field}[4]`])
  t.match(complaints([one, two, `${one} again`])[`${field}[2]`], /same key as \[0\]/)
})

void t.test('together they are not longer than user-data may be', async (t) => {
  const long = (bytes: number) => {
    const key = ed25519()
    return `${key} ${'c'.repeat(bytes - key.length - 1)}`
  }
  const quarter = maxSshKeysBytes / 4
  t.same(complaints([long(quarter), long(quarter), long(quarter), long(quarter)]), {})
  t.match(complaints([long(quarter), long(quarter), long(quarter), long(quarter + 1)]), { [field]: /65537.*65536/ })
})
