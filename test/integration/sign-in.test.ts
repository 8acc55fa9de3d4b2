import { createServer } from 'node:http'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { canary, dumpRows, findCanaries, withHub, type TestHub } from '@slipway/hub/testing'
import * as hub from '@slipway/proto/hub/v1'
import { createSlipwayClient, SlipwayError, type SlipwayClient } from '@slipway/sdk/client'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { sql } from 'kysely'
import t, { type Test } from 'tap'

// What comes of a token that is good: who it is, what that user may do, and for how long. The issuer here signs whatever it is asked to.

interface Scene {
  readonly test: TestHub
  readonly admin: SlipwayClient
  readonly anyone: SlipwayClient
  /** An ID token; each one is another. */
  readonly idToken: (claims: object) => Promise<string>
  /** Signs somebody in at `corp`, or at another issuer. */
  readonly signIn: (claims: object, issuer?: string) => Promise<hub.SignInResponse>
  readonly as: (secret: string) => SlipwayClient
}

async function setScene(t: Test): Promise<Scene> {
  const { privateKey, publicKey } = await generateKeyPair('ES256')
  const key = { ...(await exportJWK(publicKey)), kid: 'k' }
  const bases: string[] = []
  for (let n = 0; n < 3; n++) {
    const server = createServer((request, response) => {
      const url = `http://${request.headers.host ?? ''}`
      response.end(JSON.stringify(request.url === '/keys' ? { keys: [key] } : { issuer: url, jwks_uri: `${url}/keys` }))
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.teardown(() => {
      server.closeAllConnections()
      server.close()
    })
    bases.push(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  }
  const [corp = '', acme = '', strict = ''] = bases
  const common = { clientId: 'cli', allowHttp: true }
  const bindings = [
    { group: 'admins', role: 'ADMINISTRATOR' },
    { group: 'dev', role: 'OPERATOR', organization: 'acme' },
    { group: 'nowhere', role: 'OPERATOR', organization: 'absent' },
  ]
  const issuers = [
    { ...common, name: 'corp', issuer: corp, trustEmail: true, groups: { claim: 'groups', bindings } },
    { ...common, name: 'acme', issuer: acme, organization: 'acme', sessionMinutes: 30 },
    { ...common, name: 'strict', issuer: strict, signUp: false },
  ]
  const folder = mkdtempSync(join(tmpdir(), 'slipway-sign-in-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  writeFileSync(join(folder, 'issuers.json'), JSON.stringify({ issuers }))
  const test = await withHub(t, { SLIPWAY_ISSUERS_FILE: join(folder, 'issuers.json') })
  const as = (token: string) => createSlipwayClient({ baseUrl: test.hub.apiUrl, token })
  const anyone = as('')
  let count = 0
  const idToken = async (claims: object) => {
    const now = Math.floor(Date.now() / 1_000)
    return new SignJWT({ iss: corp, aud: 'cli', iat: now, exp: now + 300, jti: String(++count), ...claims })
      .setProtectedHeader({ alg: 'ES256', kid: 'k' })
      .sign(privateKey)
  }
  const urls: Readonly<Record<string, string>> = { corp, acme, strict }
  const signIn = async (claims: object, issuer = 'corp') =>
    anyone.signIn.signIn({ issuer, idToken: await idToken({ iss: urls[issuer], ...claims }) })
  const admin = as(test.token)
  await admin.organizations.createOrganization({ organizationId: 'acme', organization: {} })
  return { test, admin, anyone, idToken, signIn, as }
}

interface Refusal {
  readonly reason: string
  readonly message?: RegExp
}

async function expectRefused(t: Test, call: Promise<unknown>, wanted: Refusal, name?: string): Promise<void> {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  t.match(
    error instanceof SlipwayError ? { reason: error.reason, message: error.message } : error,
    wanted,
    name ?? wanted.reason,
  )
}

const refused: Refusal = { reason: 'SIGN_IN_REFUSED' }
const user = hub.PrincipalKind.USER

void t.test('signing in', { timeout: 900_000 }, async (t) => {
  const scene = await setScene(t)
  const { test, admin, anyone, idToken, signIn, as } = scene
  const { db } = test.database
  const rolesOf = async (secret: string) =>
    (await as(secret).system.getServerInfo({})).roleBindings
      .map(({ role, name }) => `${hub.Role[role]} ${name.replace(/\/?roleBindings.*/, '')}`.trim())
      .sort()

  await t.test('makes a user once, and finds it again', async (t) => {
    const [one, two] = await Promise.all([signIn({ sub: 'ada', name: 'Ada' }), signIn({ sub: 'ada', name: 'Eve' })])
    t.match(one.principal, /^principals\/u-[0-9a-f]{20}$/)
    t.equal(two.principal, one.principal, 'at the same time as well')
    t.not(two.secret, one.secret)
    t.match(one.secret, /^swu_/)
    const hours = (Number(one.expireTime?.seconds) - Date.now() / 1_000) / 3_600
    t.ok(hours > 7.9 && hours < 8.1, 'for eight hours')
    t.not((await signIn({ sub: 'ada' }, 'acme')).principal, one.principal, 'the same name elsewhere is somebody else')
    t.strictSame(await rolesOf(one.secret), [])
    await expectRefused(t, as(one.secret).providers.listProviders({}), { reason: 'PERMISSION_MISSING' })
  })

  await t.test('takes each token once, however many ask at the same time', async (t) => {
    const token = await idToken({ sub: 'once' })
    const tries = await Promise.allSettled(
      Array.from({ length: 8 }, () => anyone.signIn.signIn({ issuer: 'corp', idToken: token })),
    )
    t.equal(tries.filter(({ status }) => status === 'fulfilled').length, 1)
    await expectRefused(t, anyone.signIn.signIn({ issuer: 'corp', idToken: token }), {
      reason: 'ID_TOKEN_INVALID',
      message: /before/,
    })
    await expectRefused(t, anyone.signIn.signIn({ issuer: 'acme', idToken: await idToken({ sub: 'a' }) }), {
      reason: 'ID_TOKEN_INVALID',
      message: /claim iss/,
    })
    await expectRefused(t, anyone.signIn.signIn({ issuer: 'absent', idToken: token }), { reason: 'ISSUER_NOT_FOUND' })
    await expectRefused(t, anyone.signIn.signIn({ issuer: 'corp', idToken: 'x'.repeat(16_385) }), {
      reason: 'INVALID_FIELD',
    })
  })

  await t.test('tells of issuers that are for everybody', async (t) => {
    const { issuers } = await anyone.signIn.listIssuers({})
    t.strictSame(
      issuers.map(({ name }) => name),
      ['corp', 'strict'],
    )
    t.equal((await anyone.signIn.listIssuers({ issuer: 'acme' })).issuers.length, 1, 'and of another to who knows it')
  })

  await t.test('gives the roles of groups, and takes them away', async (t) => {
    const first = await signIn({ sub: 'gil', groups: ['admins', 'dev', 'nowhere'] })
    t.strictSame(await rolesOf(first.secret), ['ADMINISTRATOR', 'OPERATOR organizations/acme'])
    await admin.roleBindings.createRoleBinding({
      parent: 'organizations/acme',
      roleBinding: { principal: first.principal, role: hub.Role.VIEWER },
    })
    const second = await signIn({ sub: 'gil', groups: ['dev'] })
    t.strictSame(await rolesOf(second.secret), ['OPERATOR organizations/acme', 'VIEWER organizations/acme'])
    await expectRefused(
      t,
      as(first.secret).orphans.listOrphans({ parent: 'providers/-' }),
      { reason: 'PERMISSION_MISSING' },
      'in open sessions too',
    )
    await signIn({ sub: 'gil' })
    t.strictSame(await rolesOf(second.secret), ['VIEWER organizations/acme'], 'what a person bound stays')
    t.ok(test.log.some((line) => line.includes('a group gives a role where there is nothing')))
  })

  await t.test('leaves the hub its last administrator', async (t) => {
    const boss = await signIn({ sub: 'boss', groups: ['admins'] })
    await admin.principals.updatePrincipal({
      principal: { name: 'principals/administrator', disabled: true },
      updateMask: { paths: ['disabled'] },
    })
    const again = await signIn({ sub: 'boss' })
    t.strictSame(await rolesOf(again.secret), ['ADMINISTRATOR'])
    await as(boss.secret).principals.updatePrincipal({
      principal: { name: 'principals/administrator', disabled: false },
      updateMask: { paths: ['disabled'] },
    })
    t.strictSame(await rolesOf((await signIn({ sub: 'boss' })).secret), [], 'and no longer than that')
  })

  await t.test('lets nobody in who is disabled, and cuts what is open', async (t) => {
    const { principal, secret } = await signIn({ sub: 'mallory' })
    const change = (disabled: boolean) =>
      admin.principals.updatePrincipal({
        principal: { name: principal, disabled },
        updateMask: { paths: ['disabled'] },
      })
    const watch = as(secret).principals.watchPrincipals({ name: principal }, { timeoutMs: 0 })[Symbol.asyncIterator]()
    await expectRefused(t, watch.next(), { reason: 'PERMISSION_MISSING' }, 'who has no role watches nothing')
    const gil = await signIn({ sub: 'gil', groups: ['dev'] })
    const events = as(gil.secret).events.watchEvents({}, { timeoutMs: 0 })[Symbol.asyncIterator]()
    await events.next()
    await admin.tokens.revokeToken({ name: gil.token })
    const cut = async () => {
      for (;;) if ((await events.next()).done === true) return
    }
    await expectRefused(
      t,
      cut(),
      { reason: 'TOKEN_INVALID' },
      'a session that is revoked ends in the middle of a watch',
    )
    await change(true)
    await expectRefused(t, as(secret).system.getServerInfo({}), { reason: 'TOKEN_INVALID' })
    await expectRefused(t, signIn({ sub: 'mallory' }), refused)
    await change(false)
    t.equal((await signIn({ sub: 'mallory' })).principal, principal)
    await admin.principals.deletePrincipal({ name: principal })
    const stranger = await signIn({ sub: 'mallory' })
    t.strictSame(await rolesOf(stranger.secret), [], 'who was deleted is a stranger')
  })

  await t.test('knows whom somebody announced', async (t) => {
    const announce = async (principalId: string, identity: object, parent = '') => {
      await admin.principals.createPrincipal({ parent, principalId, principal: { kind: user } })
      const name = `${parent === '' ? '' : `${parent}/`}principals/${principalId}`
      return (await admin.identities.createIdentity({ parent: name, identity })).identity
    }
    await announce('bea', { issuer: 'corp', email: 'Bea@Corp.example' })
    const email = 'bea@corp.example'
    t.not(
      (await signIn({ sub: 'fake-1', email })).principal,
      'principals/bea',
      'not without a word that it is verified',
    )
    t.not((await signIn({ sub: 'fake-2', email, email_verified: false })).principal, 'principals/bea')
    t.not(
      (await signIn({ sub: 'ada', email, email_verified: true })).principal,
      'principals/bea',
      'whoever is known stays that',
    )
    t.equal(
      (await signIn({ sub: 'bea-1', email: 'BEA@corp.example', email_verified: true })).principal,
      'principals/bea',
    )
    t.not(
      (await signIn({ sub: 'bea-2', email, email_verified: true })).principal,
      'principals/bea',
      'only the first one',
    )
    t.equal((await signIn({ sub: 'bea-1' })).principal, 'principals/bea', 'and from then on without an address')
    await announce('cem', { issuer: 'strict', subject: 'cem-7' })
    t.equal((await signIn({ sub: 'cem-7' }, 'strict')).principal, 'principals/cem')
    await expectRefused(t, signIn({ sub: 'dan' }, 'strict'), refused, 'and nobody else, where signUp is off')
    await announce('eli', { issuer: 'corp', email: 'eli@corp.example' })
    await sql`update principal_identities set expires_at = now() - interval '1 second' where email = 'eli@corp.example'`.execute(
      db,
    )
    t.not(
      (await signIn({ sub: 'eli', email: 'eli@corp.example', email_verified: true })).principal,
      'principals/eli',
      'a link by address ends',
    )
    const refusals: readonly (readonly [string, object, string, Refusal])[] = [
      [
        'an issuer that is not trusted with addresses',
        { issuer: 'strict', email: 'x@y.example' },
        'principals/cem',
        { reason: 'INVALID_FIELD', message: /trustEmail/ },
      ],
      [
        'a subject that is somebody',
        { issuer: 'strict', subject: 'cem-7' },
        'principals/bea',
        { reason: 'NAME_TAKEN' },
      ],
      ['both', { issuer: 'corp', subject: 'x', email: 'x@y.example' }, 'principals/bea', { reason: 'INVALID_FIELD' }],
      ['neither', { issuer: 'corp' }, 'principals/bea', { reason: 'INVALID_FIELD' }],
      [
        'an unknown issuer',
        { issuer: 'absent', subject: 'x' },
        'principals/bea',
        { reason: 'INVALID_FIELD', message: /corp, acme, strict/ },
      ],
      [
        'a user of another home',
        { issuer: 'acme', subject: 'x' },
        'principals/bea',
        { reason: 'INVALID_FIELD', message: /of acme/ },
      ],
      [
        'a service account',
        { issuer: 'corp', subject: 'x' },
        'principals/administrator',
        { reason: 'INVALID_FIELD', message: /no user/ },
      ],
    ]
    for (const [name, identity, parent, error] of refusals)
      await expectRefused(t, admin.identities.createIdentity({ parent, identity }), error, name)
  })

  await t.test('is administered by owners for their own, and no further', async (t) => {
    const parent = 'organizations/acme'
    const { principal } = await signIn({ sub: 'olga' }, 'acme')
    t.match(principal, /^organizations\/acme\/principals\/u-/)
    await admin.roleBindings.createRoleBinding({ parent, roleBinding: { principal, role: hub.Role.OWNER } })
    const session = await signIn({ sub: 'olga' }, 'acme')
    const owner = as(session.secret)
    await owner.principals.createPrincipal({ parent, principalId: 'pat', principal: { kind: user } })
    const pat = `${parent}/principals/pat`
    await owner.identities.createIdentity({ parent: pat, identity: { issuer: 'acme', subject: 'pat' } })
    const patSession = await signIn({ sub: 'pat' }, 'acme')
    t.equal(patSession.principal, pat)
    await expectRefused(
      t,
      owner.identities.createIdentity({ parent: pat, identity: { issuer: 'corp', subject: 'ceo' } }),
      { reason: 'INVALID_FIELD', message: /the hub's own/ },
      'nobody lays claim to the users of an issuer of the hub',
    )
    await expectRefused(
      t,
      owner.identities.createIdentity({ parent: 'principals/bea', identity: { issuer: 'corp', subject: 'olga' } }),
      { reason: 'PERMISSION_MISSING' },
    )
    await admin.roleBindings.createRoleBinding({ roleBinding: { principal: pat, role: hub.Role.AUDITOR } })
    await expectRefused(
      t,
      owner.identities.createIdentity({ parent: pat, identity: { issuer: 'acme', subject: 'olga-2' } }),
      { reason: 'ROLE_TOO_HIGH' },
      'nor makes a way in to more than one has',
    )
    const mine = await as(patSession.secret).identities.listIdentities({ parent: pat })
    t.match(mine.identities, [{ subject: 'pat', creator: /^token\// }], 'everybody sees its own')
    await owner.identities.deleteIdentity({ name: mine.identities[0]?.name ?? '' })
    await expectRefused(
      t,
      as(patSession.secret).system.getServerInfo({}),
      { reason: 'TOKEN_INVALID' },
      'unlinked, its session ends',
    )
    t.not((await signIn({ sub: 'pat' }, 'acme')).principal, pat)
  })

  await t.test('is in the audit log, and its tokens are nowhere', async (t) => {
    const mark = canary()
    const token = await idToken({ sub: 'secret-keeper', secret: mark, hd: 'x' })
    const { secret } = await anyone.signIn.signIn({ issuer: 'corp', idToken: token })
    await expectRefused(t, anyone.signIn.signIn({ issuer: 'corp', idToken: `${token}x` }), {
      reason: 'ID_TOKEN_INVALID',
    })
    const signedIn = sql<{ principal: string; result: string; resource: string }>`
      select principal, result, resource from audit_entries where method = 'slipway.hub.v1.SignInService/SignIn'`
    const deadline = Date.now() + 30_000
    let entries = (await signedIn.execute(db)).rows
    type Entry = (typeof entries)[number]
    // What is refused is written after its answer.
    const expected: Readonly<Record<string, (entry: Entry) => boolean>> = {
      'whoever is let in': ({ result, principal, resource }) => result === 'OK' && principal === resource,
      'the disabled one': ({ result, principal }) => result === 'DENIED' && principal.startsWith('principals/u-'),
      'and a token that is none': ({ result, principal, resource }) =>
        result === 'DENIED' && principal === '' && resource === 'issuers/corp',
    }
    const missing = () => Object.entries(expected).filter(([, fits]) => !entries.some(fits))
    while (missing().length > 0 && Date.now() < deadline) entries = (await signedIn.execute(db)).rows
    t.strictSame(
      missing().map(([what]) => what),
      [],
    )
    const hay = { ...(await dumpRows(db)), log: test.log.join('\n') }
    t.strictSame(findCanaries([mark, token, secret, secret.split('_')[2] ?? ''], hay), [])
  })
})
