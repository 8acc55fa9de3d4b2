import { sql, type RawBuilder } from 'kysely'

/**
 * Rows as a table of a statement. They travel as one JSON parameter, so that the text of the statement is the same however many there are: it can be prepared,
 * and costs one round trip.
 *
 * @param columns names and types as in `r (id uuid, addresses jsonb)`; JSON null is SQL null.
 */
export function rowsAs(columns: string, rows: readonly object[]): RawBuilder<unknown> {
  return sql`jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as ${sql.raw(columns)}`
}
