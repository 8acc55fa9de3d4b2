import fc from 'fast-check'
import { sql } from 'kysely'
import t from 'tap'
import { withDatabase } from '../../testing/index.js'
import { matchesLabels, parseLabelSelector } from '../domain/selector.js'
import type { Db } from './database.js'
import { listMachines, type MachineListFilter } from './machines.js'

const providerId = '00000000-0000-7000-8000-0000000000aa'
const all: MachineListFilter = { states: [], providers: [], labelSelector: '', showGone: false }

const key = fc.constantFrom('rack', 'zone', 'row')
const value = fc.constantFrom('a', 'b')
const labels = fc.dictionary(key, value, { maxKeys: 3 })
const machine = fc.record({ provider_labels: labels, labels })
/** What becomes of a machine behind its beginning: other labels, or its record's end. */
const change = fc.oneof(
  { weight: 3, arbitrary: machine },
  { weight: 1, arbitrary: fc.constantFrom('stays' as const, 'goes' as const) },
)
const clause = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(key, value).map(([name, wanted]) => `${name}=${wanted}`) },
  fc.tuple(key, value).map(([name, wanted]) => `${name}!=${wanted}`),
  fc.tuple(key).map(([name]) => `${name} in (a,b)`),
  key,
)
const selector = fc.array(clause, { minLength: 1, maxLength: 4 }).map((parts) => parts.join(','))

void t.test('machines are listed by their labels', async (t) => {
  const { db } = await withDatabase(t)
  await sql`insert into providers (id, name, family, kind) values (${providerId}, 'p', 'p', 'STATIC')`.execute(db)

  const property = fc.asyncProperty(
    fc.array(fc.tuple(machine, change), { minLength: 1, maxLength: 12 }),
    fc.array(selector, { minLength: 1, maxLength: 5 }),
    (machines, selectors) =>
      // One transaction, because a commit for each machine would be most of the test.
      db.transaction().execute(async (tx) => {
        await sql`delete from machines`.execute(tx)
        const left = new Map<string, Readonly<Record<string, string>>>()
        for (const [index, [first, later]] of machines.entries()) {
          const name = `m-${String(index).padStart(2, '0')}`
          await sql`
          insert into machines (provider_id, id, name, provider_name, static, external_id, state, provider_labels, labels)
          values (${providerId}, gen_random_uuid(), ${name}, 'p', true, ${name}, 'AVAILABLE', ${JSON.stringify(first.provider_labels)}, ${JSON.stringify(first.labels)})
        `.execute(tx)
          if (later === 'goes') {
            await sql`delete from machines where name = ${name}`.execute(tx)
            continue
          }
          const last = later === 'stays' ? first : later
          if (later !== 'stays')
            await sql`
            update machines set provider_labels = ${JSON.stringify(last.provider_labels)}, labels = ${JSON.stringify(last.labels)}
            where name = ${name}
          `.execute(tx)
          left.set(name, { ...last.provider_labels, ...last.labels })
        }
        for (const text of selectors) {
          const expected = [...left]
            .filter(([, own]) => matchesLabels(parseLabelSelector(text), own))
            .map(([name]) => name)
          const found: string[] = []
          for (;;) {
            const page = await listMachines(tx, { ...all, labelSelector: text }, found.at(-1) ?? '', 2)
            if (page.length === 0) break
            found.push(...page.map(({ name }) => name))
          }
          t.strictSame(found, expected, text)
        }
      }),
  )
  await fc.assert(property, { numRuns: 60 })
})

void t.test('a page of machines with a label is read from where it begins, by the hub under its role', async (t) => {
  const { db } = await withDatabase(t)
  await sql`insert into providers (id, name, family, kind) values (${providerId}, 'p', 'p', 'STATIC')`.execute(db)
  await sql`
    insert into machines (provider_id, id, name, provider_name, static, external_id, state, provider_labels)
    select ${providerId}::uuid, gen_random_uuid(), 'm-' || lpad(i::text, 6, '0'), 'p', true, 'x' || i, 'AVAILABLE',
           jsonb_build_object('serial', 's' || i, 'rack', 'r' || i % 20, 'zone', 'z' || i % 3)
    from generate_series(1, 20000) i
  `.execute(db)
  await sql`vacuum analyze machines, machine_labels`.execute(db)
  await db.transaction().execute(async (tx) => {
    await sql`set local role slipway_hub`.execute(tx)
    // Where several are named, how many have each of them is looked up first.
    for (const [labelSelector, atMost] of [
      ['serial=s77', 10],
      ['rack=r3', 200],
      ['zone=z1', 200],
      ['rack=r3,zone=z1', 7_667 + 500],
      ['zone=z1,rack=r3,serial=s43', 7_668 + 10],
      ['rack=r3,zone!=z1', 1_000 + 500],
    ] as const) {
      const before = await rowsRead(tx)
      const page = await listMachines(tx, { ...all, labelSelector }, '', 50)
      t.ok(page.length > 0)
      const read = (await rowsRead(tx)) - before
      t.ok(read <= atMost, `${labelSelector}: ${read} entries of indexes and rows read`)
    }
  })
})

void t.test('labels of a provider that read alike, and long ones, keep no machine out', async (t) => {
  const { db } = await withDatabase(t)
  await sql`insert into providers (id, name, family, kind) values (${providerId}, 'p', 'p', 'STATIC')`.execute(db)
  const odd = { 'a=b': 'c', a: 'b=c', long: 'x'.repeat(5_000), rack: 'r1' }
  await sql`
    insert into machines (provider_id, id, name, provider_name, static, external_id, state, provider_labels)
    values (${providerId}, gen_random_uuid(), 'm', 'p', true, 'm', 'AVAILABLE', ${JSON.stringify(odd)})
  `.execute(db)
  await sql`update machines set provider_labels = ${JSON.stringify({ ...odd, rack: 'r2' })}`.execute(db)
  const named = async (labelSelector: string) =>
    (await listMachines(db, { ...all, labelSelector }, '', 10)).map(({ name }) => name)
  t.strictSame([await named('rack=r1'), await named('rack=r2'), await named('a=b')], [[], ['m'], []])
})

/** How many entries of indexes, and rows from end to end, this transaction has read so far. */
async function rowsRead(tx: Db): Promise<number> {
  const read = await sql<{ n: number }>`
    select coalesce(sum(pg_stat_get_xact_tuples_returned(oid)), 0)::int as n from pg_class where relname ~ '^machine(s|_labels)' and relkind in ('r', 'i')
  `.execute(tx)
  return read.rows[0]?.n ?? 0
}
