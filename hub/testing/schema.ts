import { sql } from 'kysely'
import type { Db } from '../src/store/database.js'

const parts = [
  sql<{ line: string }>`
    select format('table %s: %s %s%s%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
             case when a.attnotnull then ' not null' else '' end,
             case when a.attidentity <> '' then ' identity' when d.adbin is not null then ' default ' || pg_get_expr(d.adbin, d.adrelid) else '' end) as line
    from pg_attribute a join pg_class c on c.oid = a.attrelid left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
    where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace and a.attnum > 0 and not a.attisdropped
    order by c.relname, a.attnum`,
  sql<{ line: string }>`
    select format('constraint %s.%s: %s', c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid)) as line
    from pg_constraint c where c.connamespace = 'public'::regnamespace and c.contype <> 'n' order by 1`,
  sql<{ line: string }>`
    select format('index %s', indexdef) as line from pg_indexes where schemaname = 'public' order by 1`,
  sql<{ line: string }>`
    select pg_get_triggerdef(t.oid) as line from pg_trigger t where not t.tgisinternal order by 1`,
  sql<{ line: string }>`
    select pg_get_functiondef(p.oid) as line from pg_proc p where p.pronamespace = 'public'::regnamespace order by 1`,
]

/** A schema as text, the same from every version of PostgreSQL: pg_dump's differs between them. */
export async function printSchema(db: Db): Promise<string> {
  const lines: string[] = []
  for (const part of parts) lines.push(...(await part.execute(db)).rows.map((row) => row.line))
  return `${lines.join('\n')}\n`
}
