import { createHash, randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import fc from 'fast-check'
import t from 'tap'
import { makeKeyring, secretVersionId, UnsealError, wrappingKeyId } from './keyring.js'
import { KeyError, readKeyring } from './keys.js'
import { transitUnwrapper } from './transit.js'

const [one, other] = [randomBytes(32), randomBytes(32)]
const id = secretVersionId('o', 's', 1)

void t.test('what is sealed opens where it belongs, and nowhere else', (t) => {
  const keyring = makeKeyring([one])
  const text = fc.uint8Array({ maxLength: 300 })
  const ids = fc.tuple(fc.uuid(), fc.uuid(), fc.integer({ min: 1, max: 9 }))
  fc.assert(
    fc.property(text, ids, ids, (plain, [organization, secret, version], [another, thing, number]) => {
      const own = secretVersionId(organization, secret, version)
      const sealed = keyring.seal('secret.data', own, plain)
      if (!keyring.open('secret.data', own, sealed).equals(plain)) return false
      const foreign = [
        secretVersionId(another, secret, version),
        secretVersionId(organization, thing, version),
        secretVersionId(organization, secret, version + number),
      ]
      return foreign.every((wrong) => fails(() => keyring.open('secret.data', wrong, sealed)))
    }),
  )
  const sealed = keyring.seal('secret.data', id, 'text')
  t.throws(() => keyring.open('provider.credentials', id, sealed), UnsealError, 'for another purpose')
  for (let at = 0; at < sealed.length; at++) {
    const changed = Buffer.from(sealed)
    changed[at] = (changed[at] ?? 0) ^ 1
    if (!fails(() => keyring.open('secret.data', id, changed))) t.fail(`a change of byte ${at} went unseen`)
    if (!fails(() => makeKeyring([other, one]).rewrap('secret.data', id, changed)))
      t.fail(`a value with byte ${at} changed was wrapped anew`)
  }
  t.end()
})

function fails(work: () => unknown): boolean {
  try {
    work()
    return false
  } catch (error) {
    return error instanceof UnsealError
  }
}

void t.test('a data key is wrapped anew, and the value stays as it is', (t) => {
  const sealed = makeKeyring([one]).seal('secret.data', id, 'text')
  const both = makeKeyring([other, one])
  const wrapped = both.rewrap('secret.data', id, sealed)
  if (wrapped === undefined) return t.fail('it was not wrapped anew')
  t.equal(wrappingKeyId(wrapped), both.activeKeyId)
  t.ok(wrapped.subarray(69).equals(sealed.subarray(69)), 'nonce, tag and ciphertext are the same')
  t.equal(makeKeyring([other]).open('secret.data', id, wrapped).toString(), 'text', 'the old key is needed no more')
  t.throws(() => makeKeyring([one]).open('secret.data', id, wrapped), /was not given/)
  t.equal(both.rewrap('secret.data', id, wrapped), undefined, 'once is enough')
  t.throws(() => both.rewrap('secret.data', secretVersionId('o', 's', 2), sealed), UnsealError, 'of another row')
  t.end()
})

void t.test('values of the first form are read, and leave it when they are wrapped anew', (t) => {
  const key = Buffer.alloc(32, 7)
  // Sealed by the version before, with that key.
  const old = Buffer.from(
    '01399dcb0c519a5852e52f6e7342ef135cf12125d288eec076d5e6e4304315aa820dd17c974c9f57d0ed677040174d9fcad5cb7a1ae9d9576404578f6bcd' +
      '8d6a7931d13d9d931d00a25d8108a4e936dffa40c847afdafbbfd42d1f5f4bd72838890025f7126bb31965',
    'hex',
  )
  t.equal(makeKeyring([key]).open('host.user-data', 'a', old).toString(), 'old text')
  t.throws(() => makeKeyring([key]).open('host.user-data', 'b', old), UnsealError)
  const anew = makeKeyring([one, key]).rewrap('host.user-data', 'a', old)
  t.equal(anew?.[0], 2)
  t.equal(
    makeKeyring([one])
      .open('host.user-data', 'a', anew ?? Buffer.of())
      .toString(),
    'old text',
  )
  t.end()
})

void t.test('a digest knows the same data again, under any key that is here, and is of use to nobody else', (t) => {
  const [old, both, apart] = [makeKeyring([one]), makeKeyring([other, one]), makeKeyring([other])]
  fc.assert(
    fc.property(fc.uint8Array(), fc.uint8Array(), (data, another) => {
      const digest = old.digest(data)
      const isSame = Buffer.from(data).equals(Buffer.from(another))
      return (
        both.isDigestOf(digest, data) &&
        both.isDigestOf(digest, another) === isSame &&
        !apart.isDigestOf(digest, data) &&
        !apart.digest(data).equals(digest)
      )
    }),
  )
  const digest = old.digest(Buffer.from('guess me'))
  t.equal(digest.subarray(0, 8).toString('hex'), old.activeKeyId)
  t.notOk(digest.includes(createHash('sha256').update('guess me').digest()), 'it is no plain hash')
  for (let at = 0; at < digest.length; at++) {
    const changed = Buffer.from(digest)
    changed[at] = (changed[at] ?? 0) ^ 1
    if (old.isDigestOf(changed, Buffer.from('guess me'))) t.fail(`a change of byte ${at} went unseen`)
  }
  t.notOk(old.isDigestOf(Buffer.alloc(0), Buffer.alloc(0)))
  t.notOk(old.isDigestOf(digest.subarray(0, 30), Buffer.from('guess me')))
  t.end()
})

void t.test('keys come one on each line, the first one active', async (t) => {
  const text = `# rotated in spring\n${other.toString('base64')}\n\n${one.toString('hex')}\n`
  const keyring = await readKeyring(text, [])
  t.equal(keyring.keyIds.length, 2)
  t.equal(keyring.activeKeyId, makeKeyring([other]).activeKeyId)
  for (const [wrong, pattern] of [
    ['', /there is no key-encryption key/],
    ['short', /key 1 is neither/],
    [`${one.toString('hex')}\n${one.toString('base64')}`, /given twice/],
    ['transit:transit/slipway:vault:v1:x', /VAULT_ADDR/],
  ] as const)
    await t.rejects(readKeyring(wrong, [transitUnwrapper(undefined)]), pattern)
  const thrown: unknown = await readKeyring('not-a-key-but-secret', []).catch((error: unknown) => error)
  t.ok(thrown instanceof KeyError)
  t.notMatch(String(thrown), /secret/, 'what was given is not shown')
})

void t.test('a wrapped key is unwrapped by the Transit engine, once', async (t) => {
  const asked: unknown[] = []
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      asked.push([request.url, request.headers['x-vault-token'], JSON.parse(Buffer.concat(chunks).toString())])
      const known = request.url === '/v1/mount/transit/decrypt/slipway'
      response.writeHead(known ? 200 : 403, { 'content-type': 'application/json' })
      response.end(JSON.stringify(known ? { data: { plaintext: one.toString('base64') } } : { errors: ['no'] }))
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  const unwrapper = transitUnwrapper({ address, token: 'root' })
  const keyring = await readKeyring('transit:mount/transit/slipway:vault:v1:abc=', [unwrapper])
  t.equal(keyring.activeKeyId, makeKeyring([one]).activeKeyId)
  t.strictSame(asked, [['/v1/mount/transit/decrypt/slipway', 'root', { ciphertext: 'vault:v1:abc=' }]])
  await t.rejects(readKeyring('transit:transit/other:vault:v1:abc', [unwrapper]), /HTTP 403/)
  await t.rejects(readKeyring('transit:nonsense', [unwrapper]), /must be of the form/)
  server.close()
  const gone = transitUnwrapper({ address: 'http://127.0.0.1:1', token: 'root' })
  await t.rejects(readKeyring('transit:transit/slipway:vault:v1:abc', [gone]), /cannot be reached/)
})
