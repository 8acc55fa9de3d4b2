import { randomBytes, webcrypto, X509Certificate } from 'node:crypto'
import 'reflect-metadata'
import * as x509 from '@peculiar/x509'
import fc from 'fast-check'
import { sql } from 'kysely'
import t from 'tap'
import { withDatabase } from '../../testing/database.js'
import { expectRefusal } from '../../testing/expect.js'
import { defaultOrphanPolicy } from '../domain/orphan/orphan.js'
import { HubError } from '../domain/error/errors.js'
import { createLogger } from '../observe/log.js'
import { makeKeyring, UnsealError } from '../secrets/keyring.js'
import {
  authenticateClient,
  createBootstrapToken,
  mintClientToken,
  createClientToken,
  listClientTokens,
  revokeClientToken,
} from '../store/client-tokens.js'
import { createJoinToken, useJoinToken } from '../store/join-tokens.js'
import { hubCause } from '../store/events.js'
import { inTransaction } from '../store/database.js'
import { insertProvider } from '../store/providers.js'
import { Authority, readIdentity } from './authority.js'
import { mintToken, newTokenId, parseToken, secretMatches, hashSecret } from './tokens.js'

const hubId = '01890000-0000-7000-8000-00000000000a'
const providerId = '01890000-0000-7000-8000-00000000000b'

void t.test('tokens', async (t) => {
  const fingerprint = randomBytes(32).toString('hex')
  const kinds = [
    ['client', newTokenId('client'), ''],
    ['join', newTokenId('join'), fingerprint],
    ['phone-home', providerId, ''],
  ] as const
  for (const [kind, id, extra] of kinds) {
    const { token, secretHash } = mintToken(kind, id, extra)
    const parsed = parseToken(kind, token)
    t.match(parsed, { id: id.replaceAll('-', ''), extra }, kind)
    t.ok(secretMatches(parsed?.secret ?? '', secretHash))
    for (const [other] of kinds)
      if (other !== kind) t.equal(parseToken(other, token), undefined, `${kind} is no ${other} token`)
  }
  const { token } = mintToken('client', newTokenId('client'))
  fc.assert(
    fc.property(fc.nat(token.length - 1), fc.constantFrom(...'0123456789abcdef'), (at, digit) => {
      if (token[at] === digit || token[at] === '_') return true
      const parsed = parseToken('client', token.slice(0, at) + digit + token.slice(at + 1))
      return parsed === undefined
    }),
    { numRuns: 500 },
  )
  t.pass('a mistyped client token is seen by its checksum')
  fc.assert(fc.property(fc.string(), (text) => kinds.every(([kind]) => parseToken(kind, text) === undefined)))
  t.notOk(secretMatches('other', hashSecret('one')))
})

void t.test('the keyring', async (t) => {
  const key = randomBytes(32)
  const keyring = makeKeyring([key])
  const sealed = keyring.seal('host.user-data', 'a', 'secret text')
  t.equal(keyring.open('host.user-data', 'a', sealed).toString(), 'secret text')
  t.notOk(sealed.includes('secret text'))
  t.not(
    keyring.seal('host.user-data', 'a', 'x').toString('hex'),
    keyring.seal('host.user-data', 'a', 'x').toString('hex'),
    'no two sealings are alike',
  )
  t.throws(() => keyring.open('host.user-data', 'b', sealed), UnsealError, 'of another row')
  t.throws(() => keyring.open('request.user-data', 'a', sealed), UnsealError, 'for another purpose')
  t.throws(() => makeKeyring([randomBytes(32)]).open('host.user-data', 'a', sealed), /was not given/)
  for (let at = 0; at < sealed.length; at++) {
    const changed = Buffer.from(sealed)
    changed[at] = (changed[at] ?? 0) ^ 1
    if (opens(() => keyring.open('host.user-data', 'a', changed))) t.fail(`a change of byte ${at} went unseen`)
    if (opens(() => keyring.open('host.user-data', 'a', sealed.subarray(0, at))))
      t.fail(`a cut at byte ${at} went unseen`)
  }
  const rotated = makeKeyring([randomBytes(32), key])
  t.equal(rotated.open('host.user-data', 'a', sealed).toString(), 'secret text', 'an older key still opens')
})

function opens(work: () => unknown): boolean {
  try {
    work()
    return true
  } catch {
    return false
  }
}

async function csr(algorithm: webcrypto.EcKeyGenParams | webcrypto.RsaHashedKeyGenParams): Promise<Uint8Array> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: 'CN=evil hub',
    keys,
    signingAlgorithm: { ...algorithm, hash: 'SHA-256' } as webcrypto.EcdsaParams,
  })
  return new Uint8Array(request.rawData)
}

void t.test('the authority', async (t) => {
  const { db } = await withDatabase(t)
  const keyring = makeKeyring([randomBytes(32)])
  const [one, two] = await Promise.all([Authority.load(db, keyring, hubId), Authority.load(db, keyring, hubId)])
  t.equal(one.fingerprint, two.fingerprint, 'replicas that start at once have one authority')
  await t.rejects(Authority.load(db, makeKeyring([randomBytes(32)]), hubId), UnsealError, 'its key is sealed')

  const csrDer = await csr({ name: 'ECDSA', namedCurve: 'P-256' })
  const issued = await one.issueProviderCertificate({ csrDer, providerId, instanceName: 'x' })
  const identity = readIdentity(issued.certificateDer)
  t.strictSame(identity, { hubId, providerId, serial: issued.serial })
  const certificate = new X509Certificate(issued.certificateDer)
  t.notMatch(certificate.subject, /evil/, 'the hub chooses every name')
  t.ok(certificate.verify(new X509Certificate(one.caDer[0] ?? new Uint8Array()).publicKey))
  const weak = await csr({
    name: 'RSASSA-PKCS1-v1_5',
    modulusLength: 1024,
    publicExponent: new Uint8Array([1, 0, 1]),
    hash: 'SHA-256',
  })
  const refused = (csrDer: Uint8Array) => one.issueProviderCertificate({ csrDer, providerId, instanceName: '' })
  await expectRefusal(t, refused(weak), 'CSR_INVALID')
  await expectRefusal(t, refused(randomBytes(200)), 'CSR_INVALID')
  const tampered = Buffer.from(csrDer)
  tampered[tampered.length - 3] = (tampered[tampered.length - 3] ?? 0) ^ 1
  await expectRefusal(t, refused(tampered), 'CSR_INVALID')
  t.equal(readIdentity(one.caDer[0] ?? new Uint8Array()), undefined, 'the authority itself is no provider')
  const gateway = await one.issueGatewayCertificate(['hub.example', '192.0.2.7'])
  t.match(
    new X509Certificate(gateway.certificatePem).subjectAltName,
    /gateway\.slipway\.internal.*hub\.example.*192\.0\.2\.7/,
  )
})

void t.test('join tokens let one in, once', async (t) => {
  const { db } = await withDatabase(t)
  const keyring = makeKeyring([randomBytes(32)])
  const provider = await inTransaction(db, (tx) =>
    insertProvider(tx, keyring, {
      name: 'p',
      family: 'simulated',
      kind: 'DYNAMIC',
      config: {},
      credentials: { kind: 'own', value: { apiToken: 'canary-credential' } },
      labels: {},
      annotations: {},
      autoAcceptMachines: false,
      draining: false,
      orphanPolicy: defaultOrphanPolicy,
      region: '',
      residency: [],
      owner: { name: '', organizationId: null, workspaceId: null },
      pool: undefined,
    }),
  )
  const make = (ttlMs: number) =>
    inTransaction(db, (tx) =>
      createJoinToken(tx, {
        providerId: provider.id,
        providerName: 'p',
        ttlMs,
        fingerprint: 'ab'.repeat(32),
        cause: hubCause,
      }),
    )
  const { token } = await make(60_000)
  const tries = await Promise.allSettled(
    Array.from({ length: 20 }, (_, index) => inTransaction(db, (tx) => useJoinToken(tx, token, `instance ${index}`))),
  )
  t.equal(tries.filter((result) => result.status === 'fulfilled').length, 1, 'of twenty at once, one is let in')
  t.ok(
    tries.every(
      (result) =>
        result.status === 'fulfilled' ||
        (result.reason instanceof HubError && result.reason.reason === 'JOIN_TOKEN_USED'),
    ),
  )
  const expired = await make(1)
  // A token of one millisecond is too old as soon as the database's clock has moved on.
  await sql`select pg_sleep(0.01)`.execute(db)
  await expectRefusal(
    t,
    inTransaction(db, (tx) => useJoinToken(tx, expired.token, 'late')),
    'JOIN_TOKEN_EXPIRED',
  )
  await expectRefusal(
    t,
    inTransaction(db, (tx) => useJoinToken(tx, `swj_${'0'.repeat(24)}_${'0'.repeat(64)}_${'0'.repeat(64)}`, 'x')),
    'JOIN_TOKEN_INVALID',
  )
})

void t.test('client tokens', async (t) => {
  const { db } = await withDatabase(t)
  const first = await Promise.all([createBootstrapToken(db), createBootstrapToken(db), createBootstrapToken(db)])
  t.equal(first.filter((token) => token !== undefined).length, 1, 'replicas that start at once make one first token')
  const fresh = await withDatabase(t)
  const minted = mintClientToken()
  t.equal(await createBootstrapToken(fresh.db, minted), minted.token)
  t.equal(await createBootstrapToken(fresh.db, minted), minted.token, 'whose answer was lost gets it by asking again')
  t.equal(await createBootstrapToken(fresh.db), undefined)
  t.match(await authenticateClient(fresh.db, minted.token), { tokenName: 'bootstrap' })
  const { id, token } = await createClientToken(db, { name: 'ci', ttlMs: 60_000 })
  t.match(await authenticateClient(db, token), { tokenId: id, tokenName: 'ci' })
  t.ok(await revokeClientToken(db, id))
  t.equal(await authenticateClient(db, token), undefined)
  t.notOk(await revokeClientToken(db, 'nobody'))
  t.equal((await listClientTokens(db)).length, 2)
})

void t.test('the log keeps secrets to itself', async (t) => {
  const lines: string[] = []
  const log = createLogger({ level: 'trace', destination: { write: (line) => lines.push(line) } })
  const { token } = mintToken('client', newTokenId('client'))
  log.info(
    { token, nested: { credentials: { a: 'canary' }, deep: { password: 'canary' } } },
    `a token ${token} in a text`,
  )
  log.error({ err: new Error(`refused ${token}`) }, 'an error')
  const text = lines.join('')
  t.notMatch(text, /canary/)
  t.notOk(text.includes(token))
})
