import { CompiledQuery, sql, type RawBuilder } from 'kysely'
import type { Db } from './database.js'

class Place {
  readonly name: string
  constructor(name: string) {
    this.name = name
  }
}

/** What stands for a value while a statement is put together. */
export type ValueOf<Values> = (name: keyof Values & string) => RawBuilder<unknown>

/** A statement whose text is the same each time: it is put together once, and not for each order anew. */
export function fixedStatement<Row, Values extends object>(
  build: (value: ValueOf<Values>) => RawBuilder<Row>,
): (db: Db, values: Values) => Promise<readonly Row[]> {
  let known: CompiledQuery | undefined
  return async (db, values) => {
    known ??= build((name) => sql`${new Place(name)}`).compile(db)
    const parameters = known.parameters.map((parameter) =>
      parameter instanceof Place ? values[parameter.name as keyof Values] : parameter,
    )
    const { rows } = await db.executeQuery<Row>(CompiledQuery.raw(known.sql, parameters))
    return rows
  }
}
