import {
  ScalarType,
  type DescField,
  type DescMessage,
  type DescMethod,
  type JsonObject,
  type JsonValue,
} from '@bufbuild/protobuf'
import { MethodOptions_IdempotencyLevel } from '@bufbuild/protobuf/wkt'
import { canary, encodeRevision } from '@slipway/hub/testing'
import t, { type Test } from 'tap'
import { Caller, methods, requestOf } from './calls.js'
import { setScene, type Scene } from './scene.js'

// Callers that mean no good: whatever they say, each method answers or refuses in words, and nobody learns of another tenant.

const deep = Array.from({ length: 28 }).reduce<JsonObject>((inner) => ({ inner }), {})

/** What strings are made to say, in turn. */
const texts: readonly string[] = [
  '\0',
  "'; drop table hosts; --",
  'a\0b',
  `${'x'.repeat(70_000)}`,
  'а-web',
  "a in ('b) or (1=1",
  '../../organizations/foreign',
  '%00%27',
  '9'.repeat(40),
  'organizations/foreign/secrets/key',
  '\u202eown\u2066',
  '-1',
]
const numbers: readonly JsonValue[] = [-1, 2_147_483_647, -2_147_483_648]
const longNumbers: readonly JsonValue[] = ['-1', '9223372036854775807', '-9223372036854775808']
const wellKnown: Readonly<Record<string, readonly JsonValue[]>> = {
  'google.protobuf.Struct': [deep, { 'a\0': 1 }, { a: '\0' }, { __proto__: { a: 1 }, constructor: 1e308 }],
  'google.protobuf.Timestamp': ['0001-01-01T00:00:00Z', '9999-12-31T23:59:59.999999999Z'],
  'google.protobuf.Duration': ['-315576000000s', '315576000000s', '0.000000001s'],
  'google.protobuf.FieldMask': ['name,uid,etag,secret', 'x.y.z'],
}

type Mutation = { readonly path: readonly (string | number)[]; readonly values: readonly JsonValue[] }

/** Every value in a message of that type that may be chosen, how deep it may be. */
function mutations(desc: DescMessage, path: readonly (string | number)[] = []): readonly Mutation[] {
  if (path.length > 6) return []
  return desc.fields.flatMap((field): readonly Mutation[] => {
    const at = [...path, field.localName]
    // What is secret is looked for afterwards wherever it may not be: it must be said in no other place.
    if (field.proto.options?.debugRedact === true)
      return [
        {
          path: at,
          values: field.fieldKind === 'message' ? [{ 'a\0': canary() }, { a: canary() }] : [`${canary()}\0`, canary()],
        },
      ]
    switch (field.fieldKind) {
      case 'map':
        return [
          { path: [...at, 'key'], values: texts },
          { path: [...at, "k'\0"], values: ['v'] },
        ]
      case 'list':
        return field.listKind === 'message' ? mutations(field.message, [...at, 0]) : ofScalar(field, [...at, 0])
      case 'message': {
        const values = wellKnown[field.message.typeName]
        return values === undefined ? mutations(field.message, at) : [{ path: at, values }]
      }
      default:
        return ofScalar(field, at)
    }
  })
}

function ofScalar(field: DescField, path: readonly (string | number)[]): readonly Mutation[] {
  const scalar = 'scalar' in field ? field.scalar : undefined
  if (field.fieldKind === 'enum' || ('enum' in field && field.enum != null)) return [{ path, values: [99] }]
  switch (scalar) {
    case ScalarType.STRING:
      return [{ path, values: texts }]
    case ScalarType.INT32:
    case ScalarType.SINT32:
      return [{ path, values: numbers }]
    case ScalarType.UINT32:
      return [{ path, values: [4_294_967_295] }]
    case ScalarType.INT64:
    case ScalarType.SINT64:
      return [{ path, values: longNumbers }]
    case ScalarType.UINT64:
      return [{ path, values: ['18446744073709551615'] }]
    default:
      return []
  }
}

/** A request with another value in one place. */
function changed(request: JsonValue, [key, ...rest]: readonly (string | number)[], value: JsonValue): JsonValue {
  if (key === undefined) return value
  if (typeof key === 'number') {
    const list = Array.isArray(request) ? [...request] : []
    list[key] = changed(list[key] ?? null, rest, value)
    return list
  }
  const object = typeof request === 'object' && request !== null && !Array.isArray(request) ? request : {}
  return { ...object, [key]: changed(object[key] ?? null, rest, value) }
}

/** What takes something away comes last. */
const order = (method: DescMethod): number => (/^(Delete|Release|Forget|Revoke|Remove)/.test(method.name) ? 1 : 0)

/** Two values of each place for everybody: a NUL where there may be one, and another that is some other one at each place. */
function attacks(scene: Scene): readonly { readonly method: DescMethod; readonly request: JsonValue }[] {
  let turn = 0
  return methods
    .toSorted((one, other) => order(one) - order(other))
    .flatMap((method) => {
      const request = requestOf(method, scene.names, 'own') ?? {}
      return mutations(method.input).flatMap(({ path, values }) => {
        const chosen = new Set([values[0] ?? null, values[++turn % values.length] ?? null])
        return [...chosen].map((value) => ({ method, request: changed(request, path, value) }))
      })
    })
}

async function inTurns<Item>(
  items: readonly Item[],
  lanes: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const rest = items.values()
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      for (const item of rest) await work(item)
    }),
  )
}

void t.test('hostile callers', { timeout: 1_500_000 }, async (t) => {
  const scene = await setScene(t)
  const admin = new Caller(scene.test.hub.apiUrl, scene.test.token)
  const owner = scene.actors.find(({ name }) => /owner/.test(name))
  if (owner === undefined) throw new Error('nobody owns anything')
  const tenant = new Caller(scene.test.hub.apiUrl, owner.token)

  await t.test('cursors that were made up, or are of others', async (t) => cursors(t, scene, admin, tenant))
  await t.test('versions, filters and references tell nothing of others', async (t) => probes(t, scene, tenant))

  await t.test('whatever stands in a request, it is answered in words', async (t) => {
    const all = attacks(scene)
    const before = scene.test.log.length
    const broken: string[] = []
    await inTurns(all, 6, async ({ method, request }) => {
      const text = JSON.stringify(request)
      for (const caller of [tenant, admin]) {
        const outcome = await caller.call(method, request).catch((error: unknown) => ({
          ...{ code: 'not sent', reason: '', message: String(error), answer: '' },
        }))
        if (outcome.code === 'Internal' || outcome.code === 'Unknown' || outcome.reason === 'INTERNAL')
          broken.push(`${method.name} ${text.slice(0, 200)}: ${outcome.code} ${outcome.message}`)
        // Its own audit log tells what it tried.
        if (caller === tenant && /foreign/.test(outcome.answer) && !/foreign|AuditEntries/.test(method.name + text))
          broken.push(`${method.name} ${text.slice(0, 200)} shows ${outcome.answer.slice(0, 200)}`)
      }
    })
    const defects = scene.test.log.slice(before).filter((line) => /"msg":"call failed"/.test(line))
    t.comment(`${all.length} requests of ${methods.length} methods, by two callers`)
    t.ok(all.length > 1_000)
    t.strictSame([...new Set(broken)].slice(0, 40), [])
    t.strictSame(
      [
        ...new Set(
          defects.map((line) => (/"method":"([^"]*)".*?"message":"([^"]*)"/.exec(line) ?? [line]).slice(1).join(': ')),
        ),
      ],
      [],
      'and the hub calls nothing a defect of its own',
    )
    t.match(await admin.call(method('HostService', 'ListHosts'), { parent: 'workspaces/-' }), { kind: 'ok' })
  })
})

function method(service: string, name: string): DescMethod {
  const found = methods.find((each) => each.parent.name === service && each.name === name)
  if (found === undefined) throw new Error(`there is no ${service}/${name}`)
  return found
}

async function cursors(t: Test, scene: Scene, admin: Caller, tenant: Caller): Promise<void> {
  const lists = methods.filter(({ input, name }) => /^List/.test(name) && 'pageToken' in input.field)
  t.ok(lists.length > 20, `${lists.length} lists`)
  for (const list of lists) {
    const request = (requestOf(list, scene.names, 'own') ?? {}) as JsonObject
    const page = await admin.call(list, { ...request, pageSize: 1 })
    const given = (JSON.parse(page.answer || '[{}]') as { nextPageToken?: string }[])[0]?.nextPageToken ?? ''
    const forged = [
      Buffer.from(JSON.stringify(['x', 'y', 'z'])).toString('base64url'),
      Buffer.from(JSON.stringify([JSON.stringify(['x', 'NaN']), 'AAAA'])).toString('base64url'),
      ...(given === '' ? [] : [given.slice(0, -4), resigned(given)]),
    ]
    for (const pageToken of forged) {
      const outcome = await tenant.call(list, { ...request, pageToken })
      t.ok(['INVALID_PAGE_TOKEN', 'PERMISSION_MISSING'].includes(outcome.reason), `${list.name}: ${outcome.reason}`)
    }
    if (given === '') continue
    const others = await tenant.call(list, { ...request, pageSize: 1, pageToken: given })
    t.notMatch(others.answer, /foreign/, `${list.name} with a page token of the administrator`)
  }
  const watches = methods.filter(({ name }) => /^Watch/.test(name))
  for (const watch of watches)
    for (const revision of [
      'x',
      Buffer.from('[2,"x","5:3:"]').toString('base64url'),
      encodeRevision('x', { seen: '1:2:' }),
    ]) {
      const request = (requestOf(watch, scene.names, 'own') ?? {}) as JsonObject
      const outcome = await tenant.call(watch, { ...request, revision })
      t.ok(
        ['INVALID_REVISION', 'REVISION_COMPACTED', 'PERMISSION_MISSING'].includes(outcome.reason),
        `${watch.name}: ${outcome.code} ${outcome.reason} ${outcome.message}`,
      )
    }
}

/** A token with another place in it, and the signature of the one that was given. */
function resigned(token: string): string {
  const [text = '', signature] = JSON.parse(Buffer.from(token, 'base64url').toString()) as [string, string]
  const [list, ...key] = JSON.parse(text) as unknown[]
  const moved = JSON.stringify([list, ...key.map(() => '')])
  return Buffer.from(JSON.stringify([moved, signature])).toString('base64url')
}

/** Foreign and absent, with all that makes a hub look closer: they must look the same. */
async function probes(t: Test, { names }: Scene, tenant: Caller): Promise<void> {
  const plain = (outcome: object, name: string) =>
    JSON.stringify(outcome)
      .replaceAll(/revision[^,}]*/g, '')
      .replaceAll(name, '<name>')
      .replaceAll(name.slice(name.lastIndexOf('/') + 1), '<id>')
  const both = async (what: string, sort: string, request: (name: string) => [DescMethod, JsonObject]) => {
    const [foreign = '', absent = ''] = [names[sort]?.foreign, names[sort]?.absent]
    t.ok(foreign !== '' && absent !== '', `there is a foreign ${sort}`)
    const [one, other] = [await tenant.call(...request(foreign)), await tenant.call(...request(absent))]
    t.equal(plain(one, foreign), plain(other, absent), what)
    t.notMatch(one.answer, /of foreign/)
  }
  const updates = methods.filter(
    ({ name, idempotency }) => /^Update/.test(name) && idempotency !== MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS,
  )
  for (const update of updates) {
    const field = update.input.fields.find(
      (each) => each.fieldKind === 'message' && each.message.name === update.name.slice(6),
    )
    const sort = Object.keys(names).find((each) => each === (field?.name ?? '').replaceAll('_', ''))
    if (field === undefined || sort === undefined || names[sort]?.foreign === undefined) continue
    for (const etag of ['0', '1', '2', 'x'])
      await both(`${update.name} with etag ${etag}`, sort, (name) => [
        update,
        {
          [field.localName]: { name, etag, displayName: 'x' },
          ...('validateOnly' in update.input.field && { validateOnly: true }),
        },
      ])
  }
  const events = method('EventService', 'ListEvents')
  await both('events about it', 'host', (subject) => [events, { filter: { subject } }])
  await both('events about a secret', 'secret', (subject) => [events, { filter: { subject } }])
  const order = method('HostService', 'CreateHost')
  const own = names['workspace']?.own ?? ''
  const host = { machineClass: 'machineClasses/small' }
  await both('an order in a workspace', 'workspace', (parent) => [
    order,
    { parent, hostId: 'p', host, validateOnly: true },
  ])
  await both('an order in a workspace, again under a key', 'workspace', (parent) => [
    order,
    { parent, hostId: 'p', host, requestId: 'web' },
  ])
  const bind = method('RoleBindingService', 'CreateRoleBinding')
  await both('a role for a principal', 'principal', (principal) => [
    bind,
    { parent: names['organization']?.own ?? '', roleBinding: { principal, role: 'ROLE_VIEWER' } },
  ])
  await both('what was done to it', 'host', (resource) => [
    method('AuditService', 'ListAuditEntries'),
    { parent: names['organization']?.own ?? '', filter: { resource } },
  ])
  await both('usage of a workspace', 'workspace', (parent) => [method('UsageService', 'ListUsage'), { parent }])
  const look = await tenant.call(order, { parent: own, hostId: 'раypal', host })
  t.equal(look.reason, 'INVALID_FIELD', 'names have letters of one alphabet')
  for (const labelSelector of ["a='b' or 1=1", 'a in (b', "a=b'; drop table hosts; --", 'a=\\'])
    t.equal(
      (await tenant.call(method('HostService', 'ListHosts'), { parent: own, filter: { labelSelector } })).reason,
      'INVALID_LABEL_SELECTOR',
      labelSelector,
    )
}
