import fc from 'fast-check'
import t from 'tap'
import { parseIssuers, type IssuerConfig } from './issuer.js'
import { bindingKey, compareBindings, normalEmail, readPerson, type Claims, type Person } from './person.js'

const groups = ['admins', 'dev', 'ops', '__proto__', 'constructor', '']
const mapped = [
  { group: 'admins', role: 'ADMINISTRATOR' },
  { group: 'dev', role: 'OPERATOR', organization: 'acme' },
  { group: 'dev', role: 'VIEWER', organization: 'acme', workspace: 'acme-web' },
  { group: 'ops', role: 'OPERATOR', organization: 'acme' },
]

function issuerWith(settings: object = {}): IssuerConfig {
  const [issuer] = parseIssuers({
    issuers: [
      {
        name: 'corp',
        issuer: 'https://login.example',
        clientId: 'cli',
        groups: { claim: 'groups', bindings: mapped },
        ...settings,
      },
    ],
  })
  if (issuer === undefined) throw new Error('no issuer was parsed')
  return issuer
}

function personOf(issuer: IssuerConfig, claims: Claims): Person {
  const reading = readPerson(issuer, claims)
  if (reading.kind === 'refused') throw new Error(reading.why)
  return reading.person
}

const anyClaims = fc
  .dictionary(
    fc.oneof(
      fc.constantFrom('sub', 'name', 'email', 'email_verified', 'groups', '_claim_names', 'hd', '__proto__'),
      fc.string(),
    ),
    fc.jsonValue(),
  )
  .map((claims) => claims as Claims)

void t.test('whatever an issuer says of somebody', async (t) => {
  await t.test('is read, or refused, and never throws', async () => {
    const issuer = issuerWith({ requiredClaims: { hd: ['corp.example', 'sub.example'] } })
    fc.assert(
      fc.property(anyClaims, (claims) => {
        const reading = readPerson(issuer, claims)
        if (reading.kind === 'refused') return reading.why !== ''
        const { subject, displayName, email } = reading.person
        return (
          subject === claims['sub'] &&
          subject !== '' &&
          displayName !== '' &&
          (email === undefined || claims['email_verified'] === true)
        )
      }),
      { numRuns: 2_000 },
    )
  })

  await t.test('its subject decides who it is, and nothing else does', async () => {
    const issuer = issuerWith()
    fc.assert(
      fc.property(fc.string({ minLength: 1, maxLength: 255 }), anyClaims, (subject, claims) => {
        const reading = readPerson(issuer, { ...claims, sub: subject })
        return reading.kind === 'refused' || reading.person.subject === subject
      }),
    )
  })

  await t.test('an address counts where it is verified, and in small letters', async (t) => {
    const issuer = issuerWith()
    const email = 'Ada@Corp.example'
    t.equal(personOf(issuer, { sub: 'a', email, email_verified: true }).email, 'ada@corp.example')
    for (const verified of [false, 'true', 1, undefined, null])
      t.equal(personOf(issuer, { sub: 'a', email, email_verified: verified }).email, undefined, String(verified))
    for (const odd of ['ada', 'a@b@c', 'аda@corp.example', 'a b@c', '', 7, ['a@b'], `${'a'.repeat(260)}@b`])
      t.equal(normalEmail(odd), undefined, String(odd).slice(0, 20))
  })

  await t.test('required claims hold for single values and for lists', async (t) => {
    const issuer = issuerWith({ requiredClaims: { hd: ['one', 'two'], level: 2 } })
    const kind = (claims: Claims) => readPerson(issuer, { sub: 'a', ...claims }).kind
    t.equal(kind({ hd: 'two', level: 2 }), 'person')
    t.equal(kind({ hd: ['zero', 'one'], level: [2] }), 'person')
    for (const claims of [
      {},
      { hd: 'one' },
      { hd: 'three', level: 2 },
      { hd: 'one', level: '2' },
      { hd: ['onetwo'], level: 2 },
    ])
      t.equal(kind(claims), 'refused', JSON.stringify(claims))
    t.equal(readPerson(issuerWith({ requiredClaims: { toString: 'x' } }), { sub: 'a' }).kind, 'refused')
  })

  await t.test('names that control a terminal are cleaned', async (t) => {
    const { displayName } = personOf(issuerWith(), { sub: 'a', name: '\u001b[31mEve\u202e \n' })
    t.equal(displayName, '[31mEve')
    for (const subject of ['a\n', '', 7, undefined, 'x'.repeat(256)])
      t.equal(readPerson(issuerWith(), { sub: subject }).kind, 'refused', JSON.stringify(subject))
  })
})

void t.test('groups', async (t) => {
  await t.test('give exactly the roles that are mapped, each once', async () => {
    const issuer = issuerWith()
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.constantFrom(...groups), fc.string(), fc.jsonValue())), (member) => {
        const { bindings } = personOf(issuer, { sub: 'a', groups: member })
        const expected = new Set(
          mapped
            .filter(({ group }) => member.includes(group))
            .map(({ role, organization = null, workspace = null }) => JSON.stringify([role, organization, workspace])),
        )
        const given = bindings.map(bindingKey)
        return (
          given.length === new Set(given).size &&
          given.every((key) => expected.has(key)) &&
          given.length === expected.size
        )
      }),
    )
  })

  await t.test('may be one, may lie deeper, and may be missing', async (t) => {
    t.equal(personOf(issuerWith(), { sub: 'a', groups: 'admins' }).bindings.length, 1)
    t.equal(personOf(issuerWith(), { sub: 'a' }).bindings.length, 0)
    const deep = issuerWith({ groups: { claim: ['realm_access', 'roles'], bindings: mapped } })
    t.equal(personOf(deep, { sub: 'a', realm_access: { roles: ['dev'] } }).bindings.length, 2)
    t.equal(personOf(deep, { sub: 'a', 'realm_access.roles': ['dev'] }).bindings.length, 0)
    t.equal(personOf(deep, { sub: 'a', realm_access: [{ roles: ['dev'] }] }).bindings.length, 0)
  })

  await t.test('that are told by reference refuse the sign-in instead of taking roles away', async (t) => {
    const reading = readPerson(issuerWith(), { sub: 'a', _claim_names: { groups: 'src1' } })
    t.match(reading, { kind: 'refused', why: /too many/ })
  })

  await t.test('comparing leads from what is held to what is wanted, and then to nothing', async () => {
    const binding = fc.constantFrom(
      ...mapped.map(({ group, role, organization = null, workspace = null }) => ({
        group,
        role: role as 'ADMINISTRATOR',
        organization,
        workspace,
      })),
    )
    const distinct = fc.uniqueArray(binding, { selector: bindingKey })
    fc.assert(
      fc.property(distinct, distinct, (held, wanted) => {
        const { add, remove } = compareBindings(held, wanted)
        const after = [...held.filter((each) => !remove.includes(each)), ...add]
        const rest = compareBindings(after, wanted)
        const same = new Set(after.map(bindingKey))
        return rest.add.length === 0 && rest.remove.length === 0 && wanted.every((each) => same.has(bindingKey(each)))
      }),
    )
  })
})
