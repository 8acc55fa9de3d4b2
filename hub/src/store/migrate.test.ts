import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { sql } from 'kysely'
import t from 'tap'
import { withEmptyDatabase } from '../../testing/database.js'
import { printSchema } from '../../testing/schema.js'
import { migrate, readMigrations, schemaStatus } from './migrate.js'

const schemaFile = new URL('../../../migrations/schema.txt', import.meta.url)

void t.test('migrations may be run by any number at once', async (t) => {
  const { db } = await withEmptyDatabase(t)
  t.match(await schemaStatus(db), { kind: 'behind', version: 0 })
  const runs = await Promise.all(Array.from({ length: 9 }, () => migrate(db)))
  const names = readMigrations().map((migration) => migration.name)
  t.strictSame(runs.flat().sort(), names, 'each was applied by one of them')
  t.match(await schemaStatus(db), { kind: 'current', version: names.length })

  const schema = await printSchema(db)
  // `npm run schema-dump -w hub` rewrites it.
  if (process.env['UPDATE_SCHEMA'] === '1') writeFileSync(schemaFile, schema)
  t.equal(schema, existsSync(schemaFile) ? readFileSync(schemaFile, 'utf8') : '', 'the schema is the one on record')
})

void t.test('a migration that was changed, fails, or is newer is told apart', async (t) => {
  const { db } = await withEmptyDatabase(t)
  const [first] = readMigrations()
  if (first === undefined) return t.fail('there are no migrations')
  const broken = {
    version: 2,
    name: '0002_broken',
    breaking: false,
    statements: 'create table t (); select nonsense;',
    checksum: 'x',
  }
  await t.rejects(migrate(db, [first, broken]), /0002_broken failed, and nothing of it was kept/)
  t.match(await schemaStatus(db, [first]), { kind: 'behind', version: 0 }, 'nothing was kept')
  await migrate(db, [first])
  await t.rejects(migrate(db, [{ ...first, checksum: 'other' }]), /was changed after it was applied/)
  for (const breaking of [false, true]) {
    await sql`
      insert into schema_migrations (version, name, breaking, checksum) values (7, 'later', ${breaking}, 'x')
      on conflict (version) do update set breaking = excluded.breaking
    `.execute(db)
    t.match(await schemaStatus(db, [first]), { kind: 'ahead', unknown: ['later'], breaking })
  }
})

void t.test(
  'every table is behind row-level security, and the roles of the hub own nothing and bypass nothing',
  async (t) => {
    const { db } = await withEmptyDatabase(t)
    await migrate(db)
    const bare = await sql<{ name: string }>`
    select c.relname as name from pg_class c
    where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace and c.relname <> 'schema_migrations'
      and (not c.relrowsecurity or not exists (select from pg_policies p where p.tablename = c.relname and p.roles = '{slipway_hub}'))
  `.execute(db)
    t.strictSame(bare.rows, [], 'a migration that makes a table calls protect_table for it')
    const roles = await sql<object>`
    select rolname, rolsuper, rolbypassrls, rolcreaterole, rolcanlogin,
           (select count(*)::int from pg_class c where c.relowner = r.oid) as owned
    from pg_roles r where rolname in ('slipway_hub', 'slipway_tenant') order by rolname
  `.execute(db)
    const powerless = { rolsuper: false, rolbypassrls: false, rolcreaterole: false, rolcanlogin: false, owned: 0 }
    t.strictSame(roles.rows, [
      { rolname: 'slipway_hub', ...powerless },
      { rolname: 'slipway_tenant', ...powerless },
    ])
  },
)
