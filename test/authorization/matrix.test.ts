import { setMaxListeners } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { register } from 'node:module'
import type { DescMethod } from '@bufbuild/protobuf'
import { MethodOptions_IdempotencyLevel } from '@bufbuild/protobuf/wkt'
import type { TestHub } from '@slipway/hub/testing'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { Caller, methods, requestOf, subjectOf, type Outcome } from './calls.js'
import { cases, type Which } from './cases.js'
import type { Actor, Scene } from './scene.js'

// Every method × every role × own, sibling, foreign, absent and deleted. SLIPWAY_WALL_OFF takes a wall away, `policy`, `row-security` or both (`policy,row-security`), to show that
// the other one stands by itself, and that without both of them the matrix finds what leaks.

const off = new Set((process.env['SLIPWAY_WALL_OFF'] ?? '').split(',').filter((wall) => wall !== ''))
const golden = new URL('../../authorization/matrix.txt', import.meta.url)

if (off.has('policy')) {
  register(new URL('../../planted/hooks.mjs', import.meta.url), {
    data: {
      name: 'the policy layer lets everything through',
      changes: [
        {
          file: 'hub/dist/src/api/authorization.js',
          find: 'const decision = await this.#decide(permission, identity, target);',
          replace: "const decision = 'tenant';",
        },
        {
          file: 'hub/dist/src/store/scopes.js',
          find: 'const organizations = sql',
          replace: 'if (resource) return sql `true`; const organizations = sql',
        },
      ],
    },
  })
}
const { setScene } = await import('./scene.js')

/** Takes the second wall down, in this database alone. */
async function dropRowSecurity({ database }: TestHub): Promise<void> {
  await sql`
    do $$
    declare target regclass;
    begin
      for target in select c.oid::regclass from pg_class c where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace loop
        execute format('alter table %s disable row level security', target);
        execute format('grant select, insert, update, delete on %s to slipway_tenant', target);
      end loop;
    end $$
  `.execute(database.db)
}

/** What a caller is told where the database refuses what the policy has let through. */
const secondWall = 'your roles do not allow it'

interface Cell {
  readonly method: DescMethod
  readonly actor: Actor
  readonly which: Which
  readonly outcome: Outcome
}

const full = (method: DescMethod) => `${method.parent.name}/${method.name}`
/** What would no longer be there for the next one, sooner or later. Organizations and workspaces with something in them stay. */
const destroys = (method: DescMethod) =>
  /^Delete/.test(method.name) && !['organization', 'workspace'].includes(subjectOf(method).sort)

/** The calls of some actors: each makes one after the other, and all of them at the same time. */
async function tryEverything(scene: Scene, actors: readonly Actor[]): Promise<readonly Cell[]> {
  const cells = await Promise.all(actors.map((actor) => tryAs(scene, actor)))
  return cells.flat()
}

async function tryAs(scene: Scene, actor: Actor): Promise<readonly Cell[]> {
  const cells: Cell[] = []
  const caller = new Caller(scene.test.hub.apiUrl, actor.token)
  for (const method of methods) {
    for (const which of cases) {
      const own = which === 'own' || (which === 'sibling' && scene.names[subjectOf(method).sort]?.sibling !== undefined)
      // Of what is foreign nothing is made while tenants are watched.
      const theirs = which === 'foreign' && actor.hubWide && method.name === 'DeleteHost'
      const fresh = (own || theirs) && destroys(method) ? await scene.fresh(subjectOf(method).sort, which) : undefined
      const request = requestOf(method, scene.names, which, fresh)
      if (request === undefined) continue
      cells.push({ method, actor, which, outcome: await caller.call(method, request) })
    }
  }
  return cells
}

/** What an outcome says, without what the caller itself has named, and without what changes all the time. */
function said({ outcome, method, which }: Cell, scene: Scene): string {
  let text = `${outcome.code} ${outcome.reason} ${outcome.message} ${outcome.answer}`
  const { sort, parent } = subjectOf(method)
  const named = [sort, parent ?? sort, 'principal', 'workspace', 'organization'].flatMap(
    (each) => scene.names[each]?.[which] ?? [],
  )
  for (const name of named.filter((name) => name !== '').toSorted((one, other) => other.length - one.length)) {
    text = text.replaceAll(name, '<name>').replaceAll(name.slice(name.indexOf('/') + 1), '<name>')
  }
  return text.replaceAll(/"revision":"[^"]*"/g, '').replaceAll(/made-\d+/g, '<id>')
}

void t.test(`the authorization matrix${off.size === 0 ? '' : `, without ${[...off].join(' and ')}`}`, async (t) => {
  const scene = await setScene(t)
  if (off.has('row-security')) await dropRowSecurity(scene.test)
  const before = await scene.foreignRows()
  // Tenants first: whoever has a role of the whole hub may well change what is another tenant's.
  const tenants = await tryEverything(
    scene,
    scene.actors.filter(({ hubWide }) => !hubWide),
  )
  const changed = (await scene.foreignRows()) !== before
  if (off.size < 2) await t.test('live watches tell nobody of another tenant', async (t) => watchEverything(t, scene))
  const hubWide = await tryEverything(
    scene,
    scene.actors.filter((actor) => actor.hubWide),
  )
  const cells = [...tenants, ...hubWide]
  t.comment(
    `${methods.length} RPCs, ${scene.actors.length} roles, ${cases.length} cases: ${cells.length} calls${off.size === 0 ? '' : `, without ${[...off].join(' and ')}`}`,
  )
  const leaks = cells.filter(({ actor, outcome }) => !actor.hubWide && /foreign/.test(outcome.answer))
  if (off.size === 2) {
    t.ok(leaks.length > 0, `without any wall, ${leaks.length} calls of tenants show what is another's`)
    t.ok(changed, 'and change it')
    return
  }
  t.strictSame(
    leaks.map(
      (cell) => `${full(cell.method)} as ${cell.actor.name} of ${cell.which}: ${cell.outcome.answer.slice(0, 300)}`,
    ),
    [],
    'no tenant is shown what is another’s',
  )
  t.notOk(changed, 'nothing of another tenant was changed')
  if (off.has('policy')) return
  await t.test('foreign and absent look the same', async (t) => {
    const differ = cells.filter((cell) => {
      if (cell.which !== 'foreign' || cell.actor.hubWide) return false
      const absent = cells.find(
        (other) => other.which === 'absent' && other.actor === cell.actor && other.method === cell.method,
      )
      return absent === undefined || said(absent, scene) !== said(cell, scene)
    })
    t.strictSame(
      differ.map((cell) => `${full(cell.method)} as ${cell.actor.name}: ${said(cell, scene)}`),
      [],
    )
  })
  if (off.size > 0) return
  await t.test('every call makes sense, and is judged by the policy', (t) => {
    const list = (which: (cell: Cell) => boolean) =>
      cells
        .filter(which)
        .map((cell) => `${full(cell.method)} as ${cell.actor.name} of ${cell.which}: ${said(cell, scene)}`)
    t.strictSame(
      list(({ outcome, which }) => outcome.code === 'InvalidArgument' && which === 'own'),
      [],
      'what is refused for its form has asked nothing of the policy',
    )
    t.strictSame(
      list(({ outcome }) => outcome.code === 'Internal' || outcome.message === secondWall),
      [],
      'what the database refuses, the policy should have',
    )
    t.end()
  })
  await t.test('every method that changed something is in the audit log', async (t) => checkAudit(t, scene, cells))
  const text = draw(scene, cells)
  if (process.env['UPDATE_GOLDEN'] === '1') writeFileSync(golden, text)
  t.equal(text, existsSync(golden) ? readFileSync(golden, 'utf8') : '', 'the matrix is the one on record')
})

void t.test('every method has a rule, and a case', async (t) => {
  t.ok(methods.length > 70)
  for (const method of methods) t.doesNotThrow(() => subjectOf(method), `${full(method)} is tried`)
})

/** Every watch of every tenant is open while the other tenant changes, and then its own. */
async function watchEverything(t: Test, scene: Scene): Promise<void> {
  const stop = new AbortController()
  setMaxListeners(0, stop.signal)
  const heard: { readonly by: string; readonly text: string }[] = []
  const ended: Promise<void>[] = []
  for (const actor of scene.actors.filter(({ hubWide, token }) => !hubWide && token !== '')) {
    const caller = new Caller(scene.test.hub.apiUrl, actor.token)
    for (const method of methods.filter(({ methodKind }) => methodKind === 'server_streaming')) {
      const listen = async () => {
        for await (const text of caller.watch(method, allOf(method), stop.signal))
          heard.push({ by: `${actor.name} ${full(method)}`, text })
      }
      ended.push(listen().catch(() => undefined))
    }
  }
  const update = async (of: string, mark: string) => {
    const { admin } = scene
    const labels = { mark }
    const updateMask = { paths: ['labels'] }
    await admin.organizations.updateOrganization({ organization: { name: `organizations/${of}`, labels }, updateMask })
    await admin.workspaces.updateWorkspace({ workspace: { name: `workspaces/${of}-a`, labels }, updateMask })
    await admin.principals.updatePrincipal({
      principal: { name: `organizations/${of}/principals/member`, labels },
      updateMask,
    })
    await admin.hosts.updateHost({ host: { name: `workspaces/${of}-a/hosts/web`, labels }, updateMask })
    await sql`update machines set labels = ${JSON.stringify(labels)}::jsonb where host_name = ${`workspaces/${of}-a/hosts/web`}`.execute(
      scene.test.database.db,
    )
  }
  const open = () =>
    heard.some(({ by, text }) => by === 'viewer@workspace HostService/WatchHosts' && text.includes('"synced":true'))
  await until(open, 'watches begin')
  await update('foreign', 'theirs')
  await update('own', 'ours')
  // Changes come in their order: who has heard of the second has been told all that it will be told of the first.
  for (const watcher of ['WatchHosts', 'WatchWorkspaces'])
    for (const who of ['viewer@workspace', 'owner@organization'])
      await until(
        () => heard.some(({ by, text }) => by.startsWith(who) && by.endsWith(watcher) && text.includes('"ours"')),
        `${who} hears of its own change by ${watcher}`,
      )
  stop.abort()
  await Promise.all(ended)
  t.strictSame(
    heard.filter(({ text }) => /foreign|theirs/.test(text)),
    [],
  )
  t.ok(heard.length > 20, `${heard.length} messages were heard`)
}

function allOf(method: DescMethod): { readonly parent?: string } {
  if (!method.input.fields.some((field) => field.localName === 'parent')) return {}
  return { parent: method.name === 'WatchHosts' ? 'workspaces/-' : 'organizations/-' }
}

async function until(holds: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + 60_000
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`in vain waited until ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** Methods that change nothing where they succeed, or nothing more. */
const changesNothing = new Set(['PhoneHome', 'RevokeToken', 'ReleaseHolds'])

async function checkAudit(t: Test, scene: Scene, cells: readonly Cell[]): Promise<void> {
  const found = await sql<{
    method: string
    result: string
  }>`select distinct method, result from audit_entries`.execute(scene.test.database.db)
  const audited = new Set(found.rows.filter(({ result }) => result === 'OK').map(({ method }) => method.split('/')[1]))
  const read = MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS
  for (const method of methods) {
    if (method.idempotency === read || method.methodKind !== 'unary' || changesNothing.has(method.name)) continue
    const done = cells.some((cell) => cell.method === method && cell.outcome.code === 'OK')
    if (done) t.ok(audited.has(method.name), `${full(method)} is audited`)
  }
  t.ok(
    found.rows.some(({ result }) => result === 'DENIED'),
    'what was refused is, too',
  )
}

/** The matrix as text: a line for each method and case, with what became of it for each role. */
function draw(scene: Scene, cells: readonly Cell[]): string {
  const shapes = { ok: 'ok', denied: '-', hidden: '.', unauthenticated: '!' } as const
  const names = scene.actors.map(({ name }) => name)
  const lines = [
    'ok: let through · -: PERMISSION_DENIED · .: NOT_FOUND · !: UNAUTHENTICATED',
    '',
    ['method'.padEnd(44), 'case'.padEnd(8), ...names].join(' '),
  ]
  for (const method of methods) {
    for (const which of cases) {
      const row = names.map((name) =>
        cells.find((cell) => cell.method === method && cell.which === which && cell.actor.name === name),
      )
      if (row.every((cell) => cell === undefined)) continue
      const shown = row.map((cell, index) =>
        (cell === undefined ? ' ' : shapes[cell.outcome.kind]).padEnd(names[index]?.length ?? 0),
      )
      lines.push([full(method).padEnd(44), which.padEnd(8), ...shown].join(' ').trimEnd())
    }
  }
  return `${lines.join('\n')}\n`
}
