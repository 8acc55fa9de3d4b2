import { CompiledQuery, sql, type RawBuilder } from 'kysely'
import type { Db } from './database.js'

class Placeholder {
  readonly name: string
  constructor(name: string) {
    this.name = name
  }
}

/** What stands for a value while a statement is put together. */
export type ValueOf<Values> = (name: keyof Values & string) => RawBuilder<unknown>

/**
 * A statement whose text is the same each time: it is put together once in the life of the process, and not for each order anew.
 *
 * @param build puts it together; it is given what stands for each value, as often as it asks. What it writes in itself stays as it was the first time.
 * @returns what runs it with other values, on the pool or in a transaction, and gives its rows. @throws what the database says of it, as any statement does.
 */
export function fixedStatement<Row, Values extends object>(
  build: (value: ValueOf<Values>) => RawBuilder<Row>,
): (db: Db, values: Values) => Promise<readonly Row[]> {
  let known: CompiledQuery | undefined
  return async (db, values) => {
    known ??= build((name) => sql`${new Placeholder(name)}`).compile(db)
    const parameters = known.parameters.map((parameter) =>
      parameter instanceof Placeholder ? values[parameter.name as keyof Values] : parameter,
    )
    const { rows } = await db.executeQuery<Row>(CompiledQuery.raw(known.sql, parameters))
    return rows
  }
}
