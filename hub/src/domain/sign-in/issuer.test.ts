import fc from 'fast-check'
import t from 'tap'
import { IssuerConfigError, parseIssuers } from './issuer.js'

const good = { name: 'corp', issuer: 'https://login.example', clientId: 'cli' }
const parse = (...issuers: readonly object[]) => parseIssuers({ issuers })

void t.test('issuers', async (t) => {
  await t.test('what is not said has sound defaults', async (t) => {
    const [issuer] = parse(good)
    t.match(issuer, {
      displayName: 'corp',
      audiences: ['cli'],
      scopes: ['openid', 'profile', 'email'],
      subjectClaim: 'sub',
      listed: true,
      signUp: true,
      trustEmail: false,
      allowHttp: false,
      organization: null,
      groups: undefined,
      sessionMs: 8 * 3_600_000,
    })
    t.equal(parse({ ...good, organization: 'acme' })[0]?.listed, false, 'who its tenants are is not for everybody')
    t.notOk(issuer?.algorithms.some((algorithm) => algorithm === 'none' || algorithm.startsWith('HS')))
  })

  const bindings = (...given: readonly object[]) => ({ groups: { claim: 'groups', bindings: given } })
  const refused: readonly (readonly [string, readonly object[], RegExp])[] = [
    ['an unknown setting', [{ ...good, cleintId: 'x' }], /\/issuers\/0 .*cleintId/],
    ['a missing one', [{ name: 'corp', issuer: 'https://login.example' }], /clientId/],
    ['plain HTTP', [{ ...good, issuer: 'http://login.example' }], /https:\/\//],
    [
      'plain HTTP that is allowed, but not here',
      [{ ...good, issuer: 'http://login.example', allowHttp: true }],
      /loopback/,
    ],
    ['a name that only looks local', [{ ...good, issuer: 'http://127.0.0.1.example', allowHttp: true }], /loopback/],
    ['localhost, which is a name', [{ ...good, issuer: 'http://localhost:1', allowHttp: true }], /loopback/],
    ['a URL with a password', [{ ...good, issuer: 'https://a:b@login.example' }], /no user/],
    ['a URL with a query', [{ ...good, issuer: 'https://login.example/?a=b' }], /query/],
    ['another scheme', [{ ...good, issuer: 'file:///etc/passwd' }], /URL like/],
    ['HMAC', [{ ...good, algorithms: ['HS256'] }], /algorithms/],
    ['no signature', [{ ...good, algorithms: ['none'] }], /algorithms/],
    ['a subject that changes', [{ ...good, subjectClaim: 'email' }], /somebody else/],
    ['scopes without openid', [{ ...good, scopes: ['email'] }], /openid/],
    ['key origins that are no origins', [{ ...good, keyOrigins: ['https://keys.example/path'] }], /keyOrigins/],
    ['one name twice', [good, { ...good, issuer: 'https://other.example' }], /twice/],
    ['one issuer twice', [good, { ...good, name: 'other' }], /twice/],
    ['an unknown role', [{ ...good, ...bindings({ group: 'a', role: 'KING' }) }], /role.*OWNER/],
    ['a role of nowhere', [{ ...good, ...bindings({ group: 'a', role: 'OWNER' }) }], /organization; name it/],
    [
      'a role of the hub somewhere',
      [{ ...good, ...bindings({ group: 'a', role: 'AUDITOR', organization: 'acme' }) }],
      /whole hub/,
    ],
    [
      'a role of the hub in a workspace',
      [{ ...good, ...bindings({ group: 'a', role: 'AUDITOR', workspace: 'web' }) }],
      /workspace/,
    ],
    [
      "a role elsewhere by an organization's issuer",
      [{ ...good, organization: 'acme', ...bindings({ group: 'a', role: 'OWNER', organization: 'other' }) }],
      /that of acme/,
    ],
    [
      "a role of the hub by an organization's issuer",
      [{ ...good, organization: 'acme', ...bindings({ group: 'a', role: 'ADMINISTRATOR' }) }],
      /that of acme/,
    ],
  ]
  for (const [name, issuers, message] of refused)
    await t.test(`${name} is refused`, async (t) => {
      t.throws(() => parse(...issuers), { name: 'IssuerConfigError', message })
    })

  await t.test('whatever the file holds, it is parsed or refused in words', async () => {
    fc.assert(
      fc.property(fc.oneof(fc.jsonValue(), fc.record({ issuers: fc.array(fc.jsonValue()) })), (content) => {
        try {
          parseIssuers(content)
          return true
        } catch (error) {
          return error instanceof IssuerConfigError && error.message !== ''
        }
      }),
    )
  })
})
