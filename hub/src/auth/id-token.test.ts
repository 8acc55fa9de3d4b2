import { createHmac, createPublicKey, type JsonWebKey as NodeJwk } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exportJWK, generateKeyPair, importJWK, SignJWT, UnsecuredJWT, type JWK } from 'jose'
import pino from 'pino'
import t, { type Test } from 'tap'
import { parseIssuers, type IssuerConfig } from '../domain/sign-in/issuer.js'
import type { Claims } from '../domain/sign-in/person.js'
import { verifyIdToken } from './id-token.js'
import { IssuerKeys, type KeyTiming } from './issuer-keys.js'

// Hostile tokens and ailing issuers. The issuer here does nothing but hand out what a case says.

const log = pino({ level: 'silent' })
type Answer = (response: ServerResponse) => void

class Publisher {
  url = ''
  keys: JWK[] = []
  asked: string[] = []
  /** Answers by path, in place of the honest ones. */
  instead = new Map<string, Answer>()
  readonly #server = createServer((request, response) => {
    const path = request.url ?? ''
    this.asked.push(path)
    const answer = this.instead.get(path)
    if (answer !== undefined) return answer(response)
    const body =
      path === '/keys'
        ? { keys: this.keys.map(({ d: _d, p: _p, q: _q, dp: _dp, dq: _dq, qi: _qi, ...open }) => open) }
        : { issuer: this.url, jwks_uri: `${this.url}/keys` }
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  })

  static async start(t: Test): Promise<Publisher> {
    const publisher = new Publisher()
    await publisher.listen(0)
    t.teardown(() => publisher.stop())
    return publisher
  }

  async listen(port: number): Promise<void> {
    this.#server.listen(port, '127.0.0.1')
    await once(this.#server, 'listening')
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  async stop(): Promise<void> {
    if (!this.#server.listening) return
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }
}

async function newKey(kid: string, algorithm: 'RS256' | 'ES256' | 'Ed25519' = 'RS256'): Promise<JWK> {
  const { privateKey } = await generateKeyPair(algorithm, { extractable: true })
  return { ...(await exportJWK(privateKey)), kid, alg: algorithm, use: 'sig' }
}

interface Scene {
  readonly publisher: Publisher
  readonly issuer: IssuerConfig
  readonly keys: IssuerKeys
  readonly key: JWK
  readonly sign: (claims?: Claims, header?: object, key?: JWK) => Promise<string>
  readonly verify: (token: string, now?: Date) => ReturnType<typeof verifyIdToken>
}

async function setScene(t: Test, timing: Partial<KeyTiming> = {}, settings: object = {}): Promise<Scene> {
  const publisher = await Publisher.start(t)
  const key = await newKey('one')
  publisher.keys = [key]
  const [issuer] = parseIssuers({
    issuers: [
      { name: 'corp', issuer: publisher.url, clientId: 'cli', audiences: ['console'], allowHttp: true, ...settings },
    ],
  })
  if (issuer === undefined) throw new Error('no issuer')
  const keys = new IssuerKeys(issuer, log, timing)
  const sign = async (claims: Claims = {}, header: object = {}, by = key) => {
    const now = Math.floor(Date.now() / 1_000)
    return new SignJWT({ iss: publisher.url, aud: 'cli', sub: 'ada', iat: now, exp: now + 300, ...claims })
      .setProtectedHeader({ alg: by.alg ?? '', kid: by.kid ?? '', ...header })
      .sign(await importJWK(by, by.alg ?? ''))
  }
  return { publisher, issuer, keys, key, sign, verify: (token, now) => verifyIdToken(issuer, keys, token, now) }
}

const invalid = (message: RegExp) => ({ name: 'HubError', reason: 'ID_TOKEN_INVALID', message })
const unavailable = { name: 'HubError', reason: 'ISSUER_UNAVAILABLE' }
const seconds = (ms: number) => Math.floor((Date.now() + ms) / 1_000)

void t.test('a good token is taken', async (t) => {
  const { publisher, sign, verify, key } = await setScene(t)
  const { claims, digest } = await verify(await sign({ azp: 'cli', nonce: 'x' }))
  t.match(claims, { sub: 'ada', iss: publisher.url })
  t.equal(digest.length, 32)
  t.ok(await verify(await sign({ aud: ['console'] })), 'of another client that is named')
  t.ok(await verify(await sign({ aud: ['cli', 'console'], azp: 'console' })), 'for both')
  t.ok(await verify(await sign({ typ: 'ID' }, { typ: 'JWT' })), "Keycloak's")
  t.ok(await verify(await sign({ token_use: 'id' })), "Cognito's")
  t.ok(await verify(await sign({}, { kid: undefined })), 'without a key id, where there is one key')
  for (const algorithm of ['ES256', 'Ed25519'] as const) {
    const other = await newKey(algorithm, algorithm)
    publisher.keys = [key, other]
    const scene = await setScene(t)
    scene.publisher.keys = [other]
    t.ok(await scene.verify(await scene.sign({}, {}, other)), algorithm)
  }
})

void t.test('hostile tokens', async (t) => {
  const scene = await setScene(t)
  const { publisher, sign, verify, key } = scene
  await verify(await sign())
  const before = publisher.asked.length
  const stranger = await newKey('one')
  const { d: _d, p: _p, q: _q, dp: _dp, dq: _dq, qi: _qi, ...openKey } = key
  const pem = createPublicKey({ key: openKey as NodeJwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' })
  const encoded = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const claims = { iss: publisher.url, aud: 'cli', sub: 'ada', iat: seconds(0), exp: seconds(300_000) }
  const hmac = (secret: string | Buffer) => {
    const input = `${encoded({ alg: 'HS256', kid: 'one' })}.${encoded(claims)}`
    return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`
  }
  const [, payload = '', signature = ''] = (await sign()).split('.')
  const cases: readonly (readonly [string, string, RegExp])[] = [
    ['unsigned (alg none)', new UnsecuredJWT(claims).encode(), /not allowed|malformed/],
    [
      'unsigned, in other letters',
      `${encoded({ alg: 'nOnE', kid: 'one' })}.${encoded(claims)}.`,
      /not allowed|malformed/,
    ],
    ['HS256 with the public key as its secret', hmac(pem), /not allowed/],
    ['HS256 with the JWK as its secret', hmac(JSON.stringify(openKey)), /not allowed/],
    ['signed by somebody else under a known key id', await sign({}, {}, stranger), /not signed by the issuer/],
    ['with its own key in the header', await sign({}, { jwk: openKey }, stranger), /not signed by the issuer/],
    [
      'with an address of keys in the header',
      await sign({}, { jku: `${publisher.url}/evil`, kid: 'one' }, stranger),
      /not signed/,
    ],
    [
      'with an unknown critical extension',
      `${encoded({ alg: 'RS256', kid: 'one', crit: ['x'], x: 1 })}.${payload}.${signature}`,
      /malformed/,
    ],
    ['of another issuer', await sign({ iss: 'https://elsewhere.example' }), /claim iss/],
    ['of the issuer with a slash', await sign({ iss: `${publisher.url}/` }), /claim iss/],
    ['for another client', await sign({ aud: 'another' }), /claim aud/],
    ['for nobody', await sign({ aud: [] }), /claim aud/],
    ['for this client and an unknown one', await sign({ aud: ['cli', 'another'], azp: 'cli' }), /others too/],
    ['for both without saying to whom it was given', await sign({ aud: ['cli', 'console'] }), /azp/],
    ['given to another client', await sign({ azp: 'another' }), /azp/],
    ['expired', await sign({ iat: seconds(-500_000), exp: seconds(-120_000) }), /too old/],
    ['without an end', await sign({ exp: undefined }), /claim exp/],
    ['without a beginning', await sign({ iat: undefined }), /claim iat/],
    ['too old, though it lasts', await sign({ iat: seconds(-3_600_000), exp: seconds(3_600_000) }), /too old/],
    ['of tomorrow (nbf)', await sign({ nbf: seconds(3_600_000) }), /claim nbf/],
    ['made tomorrow (iat)', await sign({ iat: seconds(3_600_000), exp: seconds(7_200_000) }), /claim iat/],
    ['an access token by its type', await sign({}, { typ: 'at+jwt' }), /another type/],
    ['a logout token by its type', await sign({}, { typ: 'logout+jwt' }), /another type/],
    ['a logout token by its claims', await sign({ events: { x: {} } }), /none/],
    ["Keycloak's access token", await sign({ typ: 'Bearer' }), /none/],
    ["Cognito's access token", await sign({ token_use: 'access' }), /none/],
    [
      'of another signature',
      `${encoded({ alg: 'RS256', kid: 'one' })}.${encoded({ ...claims, sub: 'eve' })}.${signature}`,
      /not signed/,
    ],
    ['too large', await sign({ filler: 'x'.repeat(20_000) }), /over 16384 bytes/],
    ['no token', 'hello', /malformed/],
    ['nothing', '', /malformed/],
    ['encrypted', 'a.b.c.d.e', /malformed/],
  ]
  for (const [name, token, message] of cases) {
    await t.rejects(verify(token), invalid(message), name)
  }
  t.equal(publisher.asked.length, before, 'and none of them has made the hub ask for anything')
  const skewed = await sign({ iat: seconds(30_000), exp: seconds(300_000) })
  t.ok(await verify(skewed), 'clocks may be half a minute apart')
  t.ok(await verify(await sign(), new Date(Date.now() + 345_000)), 'on either side')
  await t.rejects(verify(await sign(), new Date(Date.now() + 400_000)), invalid(/too old/))
})

void t.test('one token spelt in two ways has one digest', async (t) => {
  const { sign, verify } = await setScene(t)
  const token = await sign()
  const [header = '', payload = '', signature = ''] = token.split('.')
  // 256 bytes of an RSA signature end within a character: its last bits are nobody's.
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const last = alphabet.indexOf(signature.at(-1) ?? '')
  const other = `${header}.${payload}.${signature.slice(0, -1)}${alphabet[last ^ 1] ?? ''}`
  t.not(other, token)
  const digests = await Promise.all([token, other].map(async (each) => (await verify(each)).digest.toString('hex')))
  t.equal(digests[0], digests[1])
})

void t.test("an issuer's keys", async (t) => {
  await t.test('are fetched once for all that ask, and kept', async (t) => {
    const { publisher, sign, verify } = await setScene(t)
    const token = await sign()
    await Promise.all(Array.from({ length: 20 }, () => verify(token)))
    t.strictSame(publisher.asked, ['/.well-known/openid-configuration', '/keys'])
  })

  await t.test('change: a new one is fetched, an old one is no good any more', async (t) => {
    const { publisher, sign, verify, key } = await setScene(t, { cooldownMs: 0 })
    await verify(await sign())
    const next = await newKey('two', 'ES256')
    publisher.keys = [next]
    t.ok(await verify(await sign({}, {}, next)))
    await t.rejects(verify(await sign({}, {}, key)), invalid(/does not have/))
  })

  await t.test('that are made up cause one fetch in a while', async (t) => {
    const { publisher, sign, verify, key } = await setScene(t, { cooldownMs: 60_000 })
    await verify(await sign())
    for (let n = 0; n < 10; n++)
      await t.rejects(verify(await sign({}, { kid: `made-up-${n}` }, key)), unavailable, 'it may be new: try again')
    t.equal(publisher.asked.length, 2)
    t.ok(await verify(await sign()), 'known ones are good meanwhile')
  })

  await t.test('that are known are good while the issuer is away, for a time', async (t) => {
    const { publisher, sign, verify, key } = await setScene(t, { refreshMs: 0, cooldownMs: 0, staleMs: 60_000 })
    await verify(await sign())
    await publisher.stop()
    t.ok(await verify(await sign()))
    await t.rejects(verify(await sign({}, { kid: 'new' }, key)), unavailable, 'of unknown ones nobody can tell')
    const strict = await setScene(t, { refreshMs: 0, cooldownMs: 0, staleMs: 0 })
    await strict.verify(await strict.sign())
    await strict.publisher.stop()
    await t.rejects(strict.verify(await strict.sign()), unavailable, 'and then no more')
  })

  await t.test('that cannot be had are no fault of the token', async (t) => {
    const bad: readonly (readonly [string, string, Answer])[] = [
      ['refused', '/keys', (response) => response.writeHead(500).end()],
      ['no JSON', '/keys', (response) => response.writeHead(200).end('<html>')],
      ['no keys', '/keys', (response) => response.writeHead(200).end('{"keys": 1}')],
      ['endless', '/keys', (response) => response.writeHead(200).end(`"${'x'.repeat(600 * 1024)}"`)],
      ['silent', '/keys', () => undefined],
      ['elsewhere', '/keys', (response) => response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end()],
      [
        'of another issuer',
        '/.well-known/openid-configuration',
        (response) =>
          response
            .writeHead(200)
            .end('{"issuer": "https://elsewhere.example", "jwks_uri": "https://elsewhere.example/keys"}'),
      ],
    ]
    for (const [name, path, answer] of bad) {
      const { publisher, sign, verify } = await setScene(t, { cooldownMs: 0, timeoutMs: 500 })
      publisher.instead.set(path, answer)
      await t.rejects(verify(await sign()), unavailable, name)
      publisher.instead.clear()
      t.ok(await verify(await sign()), `${name}: and it gets well again`)
    }
  })

  await t.test('are fetched from where the configuration allows it, and nowhere else', async (t) => {
    const elsewhere = await Publisher.start(t)
    const refused = await setScene(t, { cooldownMs: 0 })
    const pointing: (from: Publisher) => Answer = (from) => (response) =>
      response.writeHead(200).end(JSON.stringify({ issuer: from.url, jwks_uri: `${elsewhere.url}/keys` }))
    refused.publisher.instead.set('/.well-known/openid-configuration', pointing(refused.publisher))
    elsewhere.keys = [refused.key]
    await t.rejects(refused.verify(await refused.sign()), unavailable)
    t.strictSame(elsewhere.asked, [], 'an address that the issuer names is not asked')
    const allowed = await setScene(t, {}, { keyOrigins: [elsewhere.url] })
    allowed.publisher.instead.set('/.well-known/openid-configuration', pointing(allowed.publisher))
    elsewhere.keys = [allowed.key]
    t.ok(await allowed.verify(await allowed.sign()))
  })

  await t.test('a shared secret among them is not used', async (t) => {
    const { publisher, sign, verify } = await setScene(t, { cooldownMs: 0 })
    publisher.keys = [{ kty: 'oct', k: 'c2VjcmV0', kid: 'one', alg: 'HS256' }]
    await t.rejects(verify(await sign()), invalid(/does not have/))
  })
})
