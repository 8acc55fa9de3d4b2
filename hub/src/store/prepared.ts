import type { Socket } from 'node:net'
import { sql } from 'kysely'
import pg from 'pg'
import { uuidPattern } from '../domain/names.js'

/** A statement is prepared once its text has come this often: what comes once would only fill the memory of the database. */
const preparedAfter = 3
/** Bounds what each connection keeps prepared. */
const maxPrepared = 500
/** No statement of the hub's own is longer; lists of values are. */
const maxTextLength = 9_000

const seen = new Map<string, number>()
const names = new Map<string, string>()
/** Grows when a migration has changed what prepared statements return: then all are prepared anew, under other names. */
let epoch = 0

/**
 * Marks a statement that is planned anew each time, by what it asks for this time: a plan for anything would read a million rows to find one, or look up a third of them
 * one by one. For `modifyFront` of a query.
 */
export const plannedAnew = sql`/* planned anew */`

/** The name under which a statement is prepared: statements of one text share it, and no two texts do. */
function preparedName(text: string): string | undefined {
  const known = names.get(text)
  if (known !== undefined) return `${known}-${epoch}`
  if (text.includes('/* planned anew */')) return undefined
  if (names.size >= maxPrepared || text.length > maxTextLength) return undefined
  const times = (seen.get(text) ?? 0) + 1
  if (times < preparedAfter) {
    if (seen.size > 10 * maxPrepared) seen.clear()
    seen.set(text, times)
    return undefined
  }
  seen.delete(text)
  const name = `slipway-${names.size}`
  names.set(text, name)
  return `${name}-${epoch}`
}

/** Whether a statement failed because a migration has changed what it returns since it was prepared. */
export function isOutdatedPlan(error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.code === '0A000' && /cached plan/.test(error.message)
}

/** Has all statements prepared anew, on every connection. */
export function forgetPlans(): void {
  epoch += 1
}

const uuid = new RegExp(`^${uuidPattern}$`)

/**
 * An array of ids or of whole numbers as PostgreSQL reads it, without the quotes that the driver puts around each element: there is less to write, to send
 * and to read. Anything else is left to the driver.
 */
function arrayLiteral(value: unknown): unknown {
  if (!Array.isArray(value)) return value
  const plain = value.every((element) =>
    typeof element === 'string' ? uuid.test(element) : Number.isSafeInteger(element),
  )
  return plain ? `{${value.join(',')}}` : (value as unknown)
}

/**
 * A connection that prepares the statements that come again and again, so that PostgreSQL parses and plans them once. Statements that are
 * started together travel together: none waits for the answer to the one before it.
 */
export class PreparingClient extends pg.Client {
  constructor(config?: string | pg.ClientConfig) {
    super({
      ...(typeof config === 'string' ? { connectionString: config } : config),
      pipeline: true,
    })
  }

  #corked = false

  override query(...args: unknown[]): never {
    this.#writeTogether()
    const run = super.query.bind(this) as unknown as (...all: unknown[]) => never
    const [text, given] = args
    if (typeof text !== 'string' || args.length !== 2 || !Array.isArray(given) || given.length === 0)
      return run(...args)
    const values = given.map(arrayLiteral)
    const name = preparedName(text)
    if (name === undefined) return run(text, values)
    const running = run({ name, text, values }) as unknown as Promise<unknown>
    const again = (error: unknown): never => {
      // It did nothing; in a transaction, which has failed with it, all of it is to be run again.
      if (!isOutdatedPlan(error) || this.getTransactionStatus() !== 'I') throw error
      forgetPlans()
      return this.query(text, values)
    }
    return running.catch(again) as never
  }

  /** What is sent in this turn of the event loop leaves in one write. */
  #writeTogether(): void {
    if (this.#corked) return
    this.#corked = true
    const { stream } = (this as unknown as { readonly connection: { readonly stream: Socket } }).connection
    stream.cork()
    process.nextTick(() => {
      this.#corked = false
      stream.uncork()
    })
  }
}
