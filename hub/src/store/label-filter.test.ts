import fc from 'fast-check'
import { sql } from 'kysely'
import t from 'tap'
import { withDatabase } from '../../testing/index.js'
import { matchesLabels, parseLabelSelector } from '../domain/selector.js'
import { labelConditions } from './label-filter.js'
import { machineLabels } from './machines.js'

const key = fc.constantFrom('rack', 'zone', 'serial')
const value = fc.constantFrom('a', 'b', 'c')
const requirement = fc.oneof(
  fc.tuple(key, value).map(([name, wanted]) => `${name}=${wanted}`),
  fc.tuple(key, value).map(([name, wanted]) => `${name}!=${wanted}`),
  fc.tuple(key, fc.uniqueArray(value, { minLength: 1 })).map(([name, wanted]) => `${name} in (${wanted.join(',')})`),
  fc.tuple(key, fc.uniqueArray(value, { minLength: 1 })).map(([name, wanted]) => `${name} notin (${wanted.join(',')})`),
  key,
  key.map((name) => `!${name}`),
)
const selector = fc.array(requirement, { maxLength: 4 }).map((parts) => parts.join(','))
const labels = fc.dictionary(key, value, { maxKeys: 3 })

void t.test('the database finds what a selector means', async (t) => {
  const { db } = await withDatabase(t)
  const property = fc.asyncProperty(selector, fc.array(labels, { minLength: 1, maxLength: 20 }), async (text, all) => {
    const conditions = labelConditions(sql.ref('labels'), text)
    const found = await sql<{ matches: boolean }>`
      select ${conditions.length === 0 ? sql`true` : sql.join(conditions, sql` and `)} as matches
      from jsonb_array_elements(${JSON.stringify(all)}::jsonb) with ordinality as given (labels, place)
      order by place
    `.execute(db)
    const expected = all.map((given) => matchesLabels(parseLabelSelector(text), given))
    t.strictSame(
      found.rows.map((row) => row.matches),
      expected,
      text,
    )
  })
  await fc.assert(property, { numRuns: 300 })
})

void t.test('machines are found by their labels through the index', async (t) => {
  const { db } = await withDatabase(t)
  await db.transaction().execute(async (tx) => {
    await sql`set local enable_seqscan = off`.execute(tx)
    for (const text of ['rack=a', 'rack=a,zone=b', 'rack in (a, b)']) {
      const plan = await sql<{ 'QUERY PLAN': string }>`
        explain select * from machines where ${sql.join(labelConditions(machineLabels, text), sql` and `)}
      `.execute(tx)
      t.match(plan.rows.map((row) => row['QUERY PLAN']).join('\n'), /machines_by_labels/, text)
    }
  })
})
