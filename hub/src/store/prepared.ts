import pg from 'pg'

const marked = /^\s*\/\* ([a-z-]+) \*\//
const names = new Map<string, string>()

/** The name under which a statement is prepared: statements of one text share it, and no two texts do. */
function preparedName(text: string): string | undefined {
  const known = names.get(text)
  if (known !== undefined) return known
  const mark = marked.exec(text)?.[1]
  if (mark === undefined) return undefined
  const name = `${mark}-${names.size}`
  names.set(text, name)
  return name
}

/**
 * A connection that prepares statements that begin with a comment such as `/* claim-due-items *\/`, once, and plans them once. Mark only statements whose text
 * does not depend on their parameters, and that name their columns: a prepared `select *` fails once a migration has added one.
 */
export class PreparingClient extends pg.Client {
  override query(...args: unknown[]): never {
    const run = super.query.bind(this) as unknown as (...all: unknown[]) => never
    const [text, values] = args
    if (typeof text !== 'string' || args.length !== 2 || !Array.isArray(values)) return run(...args)
    const name = preparedName(text)
    return name === undefined ? run(text, values) : run({ name, text, values })
  }
}
