import { sql, type RawBuilder } from 'kysely'

/**
 * Rows as a table of a statement. They travel as one JSON parameter, so that the text of the statement is the same however many there are: it can be prepared,
 * and costs one round trip. What is joined to them is looked up by its index, row by row.
 *
 * @param columns names and types as in `r (id uuid, addresses jsonb)`; JSON null is SQL null.
 */
export function rowsAs(columns: string, rows: readonly object[]): RawBuilder<unknown> {
  const name = columns.slice(0, columns.indexOf(' ('))
  // PostgreSQL takes any such function for 100 rows, and would rather read a small table from end to end than look up as many; the plan then stays while the table grows.
  // Of a limit that it cannot know it expects a tenth. Null is none.
  const noLimit = sql.raw('limit (select null::bigint)')
  return sql`(
      select * from (select * from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as ${sql.raw(columns)} ${noLimit}) ${sql.raw(name)} ${noLimit}
    ) ${sql.raw(name)}`
}
