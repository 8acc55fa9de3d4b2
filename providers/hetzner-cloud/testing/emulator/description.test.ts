import { existsSync, readFileSync } from 'node:fs'
import t from 'tap'
import { Checker, committedDescription, type Description } from './description.js'

// What both sides are checked against: the structure of the vendor's description, and not a word of its prose.

const file = (path: string) => new URL(`../../../${path}`, import.meta.url)

t.setTimeout(120_000)

interface Tools {
  readonly readFull: (folder: string) => unknown
  readonly amend: (full: unknown) => unknown
  readonly reduce: (full: unknown, operations: readonly string[], schemas: object) => Description
}
interface Scope {
  readonly operations: readonly string[]
  readonly schemas: object
}

const scope = JSON.parse(readFileSync(file('tools/scope.json'), 'utf8')) as Scope
const folder = process.env['SLIPWAY_SPECS'] ?? ''

void t.test('has the operations in use, and no prose', async (t) => {
  const description = committedDescription()
  t.strictSame([...new Checker(description).operations].sort(), [...scope.operations].sort())
  const texts: string[] = []
  JSON.stringify(description, (key, value: unknown) => {
    if (
      ['description', 'summary', 'title', 'example', 'examples'].includes(key) &&
      typeof value === 'string' &&
      value !== ''
    )
      texts.push(value)
    return value
  })
  t.strictSame(texts, ['Hetzner Cloud API: structure of the operations in use'], 'and the one title is ours')
  t.notMatch(JSON.stringify(description), /datacenter"/, 'what the vendor removed in 2026 is gone')
})

// Where the vendor's own description is at hand.
if (existsSync(folder))
  void t.test('is what the vendor describes', async (t) => {
    const { readFull, amend, reduce } = (await import(file('tools/reduce.mjs').href)) as Tools
    t.strictSame(
      committedDescription(),
      JSON.parse(JSON.stringify(reduce(amend(readFull(folder)), scope.operations, scope.schemas))),
    )
  })

void t.test('finds what is not described', async (t) => {
  const checker = new Checker(committedDescription())
  const list = checker.match('GET', '/servers')?.operation
  const none = { path: {}, body: undefined }
  t.strictSame(list?.refusesRequest({ ...none, query: new URLSearchParams('page=1&per_page=50&sort=id:asc') }), [])
  t.match(list?.refusesRequest({ ...none, query: new URLSearchParams('nope=1') }), [/nope: not described/])
  t.match(list?.refusesRequest({ ...none, query: new URLSearchParams('page=x') }), [/page/])
  const make = checker.match('POST', '/servers')?.operation
  const body = { name: 'a', server_type: 'cx22', image: 'debian-12' }
  const asked = (more: object) =>
    make?.refusesRequest({ path: {}, query: new URLSearchParams(), body: { ...body, ...more } })
  t.strictSame(asked({}), [])
  t.match(asked({ datacenter: 'fsn1-dc14' }), [/additional properties/], 'what was removed')
  t.match(asked({ image: 1 }), [/string/])
  t.match(make?.refusesAnswer(201, { server: {} }), [/required/])
  t.match(make?.refusesAnswer(302, undefined), [/302: not described/])
  t.equal(checker.match('GET', '/datacenters'), undefined)
  t.equal(checker.match('GET', '/servers/actions')?.operation.name, 'GET /servers/actions', 'before /servers/{id}')
})
