import { setTimeout as sleep } from 'node:timers/promises'
import { CompiledQuery, Kysely, PostgresDialect, sql, Transaction, type DatabaseConnection } from 'kysely'
import pg from 'pg'
import type { Scopes } from '../domain/access/decide.js'
import { HubError } from '../domain/error/errors.js'
import { failpoint, PlantedFault, type TransactionPoint } from '../observe/failpoint.js'
import { forgetPlans, isOutdatedPlan, PreparingClient } from './prepared.js'
import type { Tables } from './tables.js'

/** Anything that statements run on: the pool, or one transaction. */
export type Db = Kysely<Tables>
export type Tx = Transaction<Tables>

// All bigint columns are counters that stay far below 2^53; xid8 stays text.
pg.types.setTypeParser(pg.types.builtins.INT8, Number)

/** SQLSTATEs after which the whole transaction may simply be run again. */
const retryStates = new Set(['40001', '40P01'])
const maxTries = 6
/** A statement is refused because one before it, in the same transaction, has failed. */
const inFailedTransaction = '25P02'

/** The SQLSTATE of a PostgreSQL error, or undefined for anything else. */
export function sqlState(thrown: unknown): string | undefined {
  return thrown instanceof pg.DatabaseError ? thrown.code : undefined
}

/** The name of the violated constraint or unique index, for errors that have one. */
export function violatedConstraint(thrown: unknown): string | undefined {
  return thrown instanceof pg.DatabaseError ? thrown.constraint : undefined
}

/**
 * SQLSTATEs of a database that is away or ends what it was asked to do. Class 08: connection; 53: no more disk, memory or connections; 25P03 and 25P04: a transaction stood
 * still, or lasted, for too long, as in a process that was stopped; 57014: a statement took too long; 57P01 to 57P03: shutting down, crashed, starting; 57P05: a connection
 * stood still for too long; 58030: it cannot read or write. https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
const lossStates = /^(08...|53...|25P0[34]|57014|57P0[1235]|58030)$/

/** Whether the database could not be reached, went away in the middle, or has no room. What was under way may or may not be committed. */
export function isConnectionLoss(thrown: unknown): boolean {
  if (thrown instanceof PlantedFault) return true
  const state = sqlState(thrown)
  if (state !== undefined) return lossStates.test(state)
  if (!(thrown instanceof Error)) return false
  const code = 'code' in thrown ? String(thrown.code) : ''
  return (
    /^(ECONNREFUSED|ECONNRESET|EHOSTUNREACH|ENETUNREACH|EPIPE|ENOENT|ETIMEDOUT)$/.test(code) ||
    /connection terminated|timeout exceeded when trying to connect|Connection ended|is not queryable/i.test(
      thrown.message,
    )
  )
}

/** Whether the same may well succeed a moment later: the database is away, or others were in the way each time that it was tried. */
export function isPassing(thrown: unknown): boolean {
  return isConnectionLoss(thrown) || retryStates.has(sqlState(thrown) ?? '')
}

/** What a caller is told of {@link isPassing}; undefined for anything else. */
export function unavailableDatabase(thrown: unknown): HubError | undefined {
  if (!isPassing(thrown)) return undefined
  return new HubError('DATABASE_UNAVAILABLE', 'the database does not answer; try again', {
    retryAfterMs: 1_000,
    cause: thrown,
  })
}

export interface DatabaseOptions {
  readonly connectionString: string
  /** Connections at most. Default 10. */
  readonly poolSize?: number
  /** PostgreSQL ends a transaction that stands still for this long, in ms. Default 30,000. */
  readonly idleInTransactionMs?: number
  /** The role that each connection takes on: one that owns nothing and sees what row-level security lets it see. Absent: the login's own, as migrations need it. */
  readonly role?: 'slipway_hub' | 'slipway_tenant'
  /** Called for errors of idle connections; they are replaced by themselves. */
  readonly onIdleError?: (error: Error) => void
}

/** Opens a pool. Nothing connects before the first statement. */
export function openDatabase(options: DatabaseOptions): Db {
  const { role } = options
  // All statements are short. Those with limits that are not known beforehand look dear, and compiling one would take longer than a thousand of it.
  // What is planned while a table is small stays planned so while it grows, until somebody analyzes it: reading it from end to end is for where there is no index.
  const settings = `set jit = off; set enable_seqscan = off${role === undefined ? '' : `; set role ${role}`}`
  const pool = new pg.Pool({
    connectionString: options.connectionString,
    max: options.poolSize ?? 10,
    connectionTimeoutMillis: 10_000,
    // A transaction that is left open holds its rows, and every later change back from all watchers: end it.
    idle_in_transaction_session_timeout: options.idleInTransactionMs ?? 30_000,
    statement_timeout: 60_000,
    application_name: 'slipway-hub',
    Client: PreparingClient,
    // By the pool itself, which waits for it, whatever its type says: where this fails, it gives the connection up. Kysely would leave it taken for good.
    onConnect: (client): unknown => client.query(settings),
  })
  pool.on('error', (error) => options.onIdleError?.(error))
  // The pool listens to idle connections alone. One that is lost between two statements of a transaction would end the process; as it is, its next statement fails.
  pool.on('connect', (client) => client.on('error', () => undefined))
  return new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) })
}

/** What one call may see and change, for row-level security. */
export interface Reach {
  readonly read: Scopes
  readonly write: Scopes
  /** The token of the call: what it alone may see, such as its idempotency keys, is kept under this. */
  readonly tokenId: string
  /** Whose token it is: itself, its tokens and its roles it may see in any case. Empty: nobody's. */
  readonly principalId: string
}

interface Limit {
  readonly pool: Db
  /** Tells the transaction how far it reaches, until its end. */
  readonly setup: CompiledQuery
}

const limits = new WeakMap<object, Limit>()
const setupText = `select set_config('slipway.read_organizations', $1, true), set_config('slipway.read_workspaces', $2, true),
  set_config('slipway.write_organizations', $3, true), set_config('slipway.write_workspaces', $4, true), set_config('slipway.token', $5, true),
  set_config('slipway.principal', $6, true)`

/**
 * The database as one call of a tenant reaches it. Each of its transactions, and each statement that stands alone, says first how far it reaches, in the same round trip; what
 * says nothing reaches nothing.
 *
 * @param pool of connections with the role `slipway_tenant`.
 */
export function reachingOnly(pool: Db, { read, write, tokenId, principalId }: Reach): Db {
  const values = [read.organizationIds, read.workspaces, write.organizationIds, write.workspaces].map((names) =>
    names.join(','),
  )
  const setup = CompiledQuery.raw(setupText, [...values, tokenId, principalId])
  const provider = {
    provideConnection: <R>(run: (connection: DatabaseConnection) => Promise<R>): Promise<R> =>
      pool.getExecutor().provideConnection((connection) => run(oneByOne(connection, setup))),
  }
  const none = {} as never
  const db = new Kysely<Tables>({
    config: none,
    dialect: none,
    driver: none,
    executor: pool.getExecutor().withConnectionProvider(provider),
  })
  limits.set(db, { pool, setup })
  return db
}

/** Makes each statement a transaction of its own that says first how far it reaches. All of it travels together. */
function oneByOne(connection: DatabaseConnection, setup: CompiledQuery): DatabaseConnection {
  return {
    executeQuery: async <R>(query: CompiledQuery) => {
      const sent = [
        connection.executeQuery(CompiledQuery.raw('begin')),
        connection.executeQuery(setup),
        connection.executeQuery<R>(query),
        // Where one of them failed, this rolls back.
        connection.executeQuery(CompiledQuery.raw('commit')),
      ] as const
      const failed = (await Promise.allSettled(sent)).find((outcome) => outcome.status === 'rejected')
      if (failed !== undefined) throw failed.reason
      return sent[2]
    },
    streamQuery: () => {
      throw new Error('rows are not streamed here')
    },
  }
}

export interface TransactionOptions {
  /**
   * What `work` starts first only reads and locks. It then travels together with the BEGIN, which saves a round trip: should the BEGIN alone fail, nothing has been
   * written outside of a transaction, and nothing more is started.
   */
  readonly readsFirst?: boolean
}

/**
 * Runs `work` in a READ COMMITTED transaction, again where PostgreSQL asks for it (serialization failure, deadlock, a plan that a migration has outdated).
 * So `work` must have no effect but its statements. Statements that it starts together are executed in the order in which they were started, and
 * cost one round trip.
 *
 * @param point what it is for, as a place for planted faults on either side of the commit.
 */
export async function inTransaction<T>(
  db: Db,
  work: (tx: Tx) => Promise<T>,
  point?: TransactionPoint,
  options: TransactionOptions = {},
): Promise<T> {
  return untilDone(async () => {
    const result = await transact(
      db,
      async (tx) => {
        const done = await work(tx)
        if (point !== undefined) await failpoint(`hub.${point}.before-commit`)
        return done
      },
      options.readsFirst ?? false,
    )
    if (point !== undefined) await failpoint(`hub.${point}.after-commit`)
    return result
  })
}

/**
 * Runs one statement, which is a transaction in itself and costs one round trip, again where PostgreSQL asks for it.
 *
 * @param point what it is for, as a place for planted faults before it and behind it.
 */
export async function inStatement<T>(db: Db, statement: (db: Db) => Promise<T>, point: TransactionPoint): Promise<T> {
  return untilDone(async () => {
    await failpoint(`hub.${point}.before-commit`)
    const result = await statement(db)
    await failpoint(`hub.${point}.after-commit`)
    return result
  })
}

async function untilDone<T>(run: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await run()
    } catch (error) {
      const outdated = isOutdatedPlan(error)
      if (outdated) forgetPlans()
      if (attempt >= maxTries || !(outdated || retryStates.has(sqlState(error) ?? ''))) throw error
      await sleep(Math.random() * 2 ** attempt * 5)
    }
  }
}

/** Runs reads on one connection: those that are started together cost one round trip. */
export function onOneConnection<T>(db: Db, reads: (connection: Db) => Promise<T>): Promise<T> {
  if (limits.has(db)) return transact(db, reads, true)
  return db.getExecutor().provideConnection((connection) => reads(over(db, connection, () => true)))
}

/** Runs reads under one snapshot. */
export function inSnapshot<T>(db: Db, reads: (tx: Tx) => Promise<T>): Promise<T> {
  return transact(db, reads, true, 'begin isolation level repeatable read')
}

/** One transaction. Kysely's own would hold each statement back until the one before it is answered. */
function transact<T>(db: Db, work: (tx: Tx) => Promise<T>, readsFirst: boolean, begin = 'begin'): Promise<T> {
  const limit = limits.get(db)
  return (limit?.pool ?? db).getExecutor().provideConnection(async (lent) => {
    const connection = tellingWhatFailed(lent)
    let open = true
    const begun = Promise.all([
      connection.executeQuery(CompiledQuery.raw(begin)),
      limit === undefined ? undefined : connection.executeQuery(limit.setup),
    ]).catch((error: unknown) => {
      open = false
      throw error
    })
    if (!readsFirst) await begun
    try {
      const [result] = await Promise.all([work(over(db, connection, () => open)), begun])
      open = false
      await connection.executeQuery(CompiledQuery.raw('commit'))
      return result
    } catch (error) {
      open = false
      // Where this fails, the connection is lost, and the transaction with it; what failed first tells more.
      await connection.executeQuery(CompiledQuery.raw('rollback')).catch(() => undefined)
      throw error
    }
  })
}

/**
 * Within a transaction, what fails because something before it has failed tells of that instead: of statements that travel together, whoever is told first must know
 * whether it was a deadlock, or a full disk.
 */
function tellingWhatFailed(connection: DatabaseConnection): DatabaseConnection {
  let cause: unknown
  const underWay = new Set<Promise<unknown>>()
  return {
    executeQuery: async <R>(query: CompiledQuery) => {
      const running = connection.executeQuery<R>(query)
      underWay.add(running)
      try {
        return await running
      } catch (error) {
        if (sqlState(error) !== inFailedTransaction) cause = error
        // Answers come in order, but the way up to here is longer for some than for others.
        else if (cause === undefined) await Promise.allSettled(underWay)
        throw cause ?? error
      } finally {
        underWay.delete(running)
      }
    },
    streamQuery: (...args) => connection.streamQuery(...args),
  }
}

/** Statements over one connection, none of which waits for another. */
function over(db: Db, connection: DatabaseConnection, isOpen: () => boolean): Tx {
  const provider = {
    provideConnection: async <R>(run: (connection: DatabaseConnection) => Promise<R>): Promise<R> => {
      // It would be executed outside of any transaction, or in somebody else's.
      if (!isOpen()) throw new Error('the transaction is over')
      return run(connection)
    },
  }
  // Only its executor is ever asked: a transaction begins no other one.
  const none = {} as never
  return new Transaction<Tables>({
    config: none,
    dialect: none,
    driver: none,
    executor: db.getExecutor().withConnectionProvider(provider),
  })
}

/** The database's clock: the only one that times are compared by. */
export async function databaseTime(db: Db): Promise<Date> {
  const result = await sql<{ now: Date }>`select clock_timestamp() as now`.execute(db)
  const row = result.rows[0]
  if (row === undefined) throw new Error('the database told no time')
  return row.now
}
