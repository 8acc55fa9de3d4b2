import pg from 'pg'
import { real } from './real.js'
import type { Node, Scheduler } from './scheduler.js'

// A real PostgreSQL beneath simulated connections. One statement runs at a time, at the moment that the scheduler gives it; one that waits for a lock is known to wait,
// and goes on when whoever holds the lock lets go. Its clock is the scheduler's: schema `sim` comes before pg_catalog and has a clock of its own.

export const connectionOptions = '-c search_path=public,sim,pg_catalog -c synchronous_commit=off'

/** The database's clock goes on in such steps: to set it costs a statement. */
const clockGrainMs = 25

interface Outcome {
  readonly result?: pg.QueryResult
  readonly error?: Error
}

/** How often statements were run, by text, and under which name they are prepared. */
const known = new Map<string, { times: number; readonly name: string }>()

/** The hub's statements come again and again, in all seeds: to plan them anew each time would cost more than to run them. */
function nameOf(text: string): string | undefined {
  const statement = known.get(text) ?? { times: 0, name: `s${known.size}` }
  known.set(text, statement)
  statement.times += 1
  return statement.times < 3 ? undefined : statement.name
}

const isBegin = (text: string): boolean => /^(begin|start transaction)/i.test(text)
const isEnd = (text: string): boolean => /^(commit|rollback)/i.test(text)

function nothingOf(command: string): pg.QueryResult {
  return { command, rowCount: 0, oid: 0, fields: [], rows: [] }
}

/** One real connection. */
class Backend {
  readonly client: pg.Client
  /** What was set on it when it was opened, for good. */
  readonly settings: string
  pid = 0
  #begin = ''

  constructor(url: string, settings: string) {
    this.settings = settings
    this.client = new pg.Client({
      connectionString: url,
      // Who of those that wait for each other is refused is not left to chance: see `#endsOrWaits`.
      options: `${connectionOptions} -c deadlock_timeout=1h`,
      pipeline: true,
    })
    // What breaks is told by the statements.
    this.client.on('error', () => undefined)
  }

  async open(): Promise<void> {
    await this.client.connect()
    const { rows } = await this.client.query<{ pid: number }>('select pg_backend_pid() as pid')
    this.pid = rows[0]?.pid ?? 0
    if (this.settings !== '') await this.client.query(this.settings)
  }

  async run(text: string, values: readonly unknown[]): Promise<Outcome> {
    // Beginning a transaction does nothing before its first statement: the two go together, which saves a round trip.
    if (isBegin(text)) {
      this.#begin = text
      return { result: nothingOf('BEGIN') }
    }
    if (this.#begin !== '') {
      const begin = this.#begin
      this.#begin = ''
      // What was begun and ended with nothing between needs no database.
      if (isEnd(text)) return { result: nothingOf(text.toUpperCase()) }
      void this.client.query(begin)
    }
    try {
      const name = isEnd(text) || /^(set|savepoint)/i.test(text) ? undefined : nameOf(text)
      return { result: await this.client.query({ text, values: [...values], ...(name !== undefined && { name }) }) }
    } catch (error) {
      return { error: error as Error }
    }
  }

  /** Ends whatever is open. */
  async reset(): Promise<void> {
    this.#begin = ''
    await this.client.query('rollback')
  }
}

/** Whether a statement changes records: outside of a transaction it then commits by itself. */
function writes(text: string): boolean {
  return /\b(insert into|update|delete from)\b/i.test(text)
}

export function connectionLost(): Error {
  return new Error('Connection terminated unexpectedly')
}

function deadlocked(): Error {
  return Object.assign(new Error('deadlock detected'), { code: '40P01' })
}

/** How often what goes wrong between a hub and its database. */
export interface DatabaseFaults {
  /** Share of commits, and of statements that commit by themselves, whose answer is lost. */
  lostCommitAnswers: number
  /** Share of statements that take long. */
  slowStatements: number
}

export class SimDatabase {
  readonly #url: string
  readonly #control: pg.Client
  /** By what was set on them. */
  readonly #free = new Map<string, Backend[]>()
  readonly #pools = new Set<SimPool>()
  readonly #waiting = new Set<SimConnection>()
  /** Some have waited for each other, and one of them was refused: what it had locked is free. */
  #circleBroken = false
  /** Of all backends that there are. Whatever else works in the server holds nobody up for long. */
  readonly #pids = new Set<number>()
  faults: DatabaseFaults = { lostCommitAnswers: 0, slowStatements: 0 }
  down = false
  statements = 0
  #clockMs = 0
  #scheduler: Scheduler | undefined

  private constructor(url: string, control: pg.Client) {
    this.#url = url
    this.#control = control
  }

  static async open(url: string): Promise<SimDatabase> {
    const control = new pg.Client({ connectionString: url, options: connectionOptions })
    control.on('error', () => undefined)
    await control.connect()
    return new SimDatabase(url, control)
  }

  async close(): Promise<void> {
    for (const backend of [...this.#free.values()].flat()) await backend.client.end()
    await this.#control.end()
  }

  get scheduler(): Scheduler {
    if (this.#scheduler === undefined) throw new Error('no simulation is running')
    return this.#scheduler
  }

  /** Begins with the records as they were set up. */
  async begin(scheduler: Scheduler): Promise<void> {
    this.#scheduler = scheduler
    this.faults = { lostCommitAnswers: 0, slowStatements: 0 }
    this.down = false
    this.statements = 0
    this.#clockMs = 0
    await this.#setClock()
    await this.#control.query('select sim.reset()')
  }

  /** Ends all that the seed has left open. */
  async end(): Promise<void> {
    for (const pool of [...this.#pools]) await pool.cut(false)
    this.#pools.clear()
    this.#scheduler = undefined
  }

  /** Asks the records, beside all that is simulated. */
  async look<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    return (await this.#control.query<Row>(text, [...values])).rows
  }

  pool(node: Node, size: number): SimPool {
    const pool = new SimPool(this, node, size)
    this.#pools.add(pool)
    node.onKill.push(() => {
      this.#pools.delete(pool)
      // Whatever was sent before the end still arrives, or does not.
      this.scheduler.schedule(0, () => pool.cut(this.scheduler.random.chance(0.5)), 'world')
    })
    return pool
  }

  pools(): readonly SimPool[] {
    return [...this.#pools]
  }

  /** One that nobody uses. Few of them serve many connections, a transaction at a time: each plans anew what a seed begins with. */
  async backend(settings: string): Promise<Backend> {
    const free = this.#free.get(settings)?.pop()
    if (free !== undefined) return free
    const backend = new Backend(this.#url, settings)
    await backend.open()
    this.#pids.add(backend.pid)
    return backend
  }

  giveBack(backend: Backend): void {
    const free = this.#free.get(backend.settings) ?? []
    this.#free.set(backend.settings, free)
    free.push(backend)
  }

  /** Runs a statement to its end, or until it is known to wait for a lock. */
  async execute(connection: SimConnection, text: string, values: readonly unknown[]): Promise<void> {
    this.statements += 1
    await this.#setClock()
    // Locks are let go of at the end of transactions, and of statements that stand alone.
    let letsGo = isEnd(text) || (!connection.inTransaction && !isBegin(text))
    if (!connection.inTransaction && /^set /i.test(text)) {
      connection.settings = text
      connection.outcome = { result: nothingOf('SET') }
      await connection.deliver(text)
      letsGo = false
    } else {
      const backend = await connection.hold()
      const running = backend.run(text, values)
      connection.running = running
      void running.then((outcome) => (connection.outcome = outcome))
      if (await this.#endsOrWaits(connection, 4)) await connection.deliver(text)
      else {
        connection.waitingText = text
        this.#waiting.add(connection)
      }
    }
    if (letsGo || this.#circleBroken) await this.lookAtWaiting()
  }

  async #setClock(): Promise<void> {
    const wallMs = this.scheduler.trueWallMs()
    const clockMs = wallMs - (wallMs % clockGrainMs)
    if (clockMs === this.#clockMs) return
    this.#clockMs = clockMs
    await this.#control.query('select setval($1, $2)', ['sim.clock', clockMs])
  }

  /** Delivers to those whose lock has come free. */
  async lookAtWaiting(): Promise<void> {
    this.#circleBroken = false
    for (let again = true; again;) {
      again = false
      for (const connection of [...this.#waiting]) {
        if (!this.#waiting.has(connection)) continue
        if (!(await this.#endsOrWaits(connection, 0))) continue
        this.#waiting.delete(connection)
        await connection.deliver(connection.waitingText)
        again = true
      }
    }
  }

  async cancel(connection: SimConnection): Promise<void> {
    this.#waiting.delete(connection)
    if (connection.running === undefined) return
    if (connection.outcome === undefined)
      await this.#control.query('select pg_cancel_backend($1)', [connection.backend.pid])
    await connection.running
  }

  /** Of one that waited before it can be asked at once; one that was just sent is most likely answered in a moment. */
  async #endsOrWaits(connection: SimConnection, firstPauseMs: number): Promise<boolean> {
    const { running } = connection
    for (let pauseMs = firstPauseMs; ; pauseMs = 1) {
      if (connection.outcome !== undefined) return true
      let timer: NodeJS.Timeout | undefined
      if (pauseMs > 0)
        await Promise.race([running, new Promise<void>((resolve) => (timer = real.setTimeout(resolve, pauseMs)))])
      real.clearTimeout(timer)
      if (connection.outcome !== undefined) return true
      const { pid } = connection.backend
      if ((await this.#blockersOf(pid)).length === 0) continue
      // PostgreSQL would refuse the one of a circle whose time is up first. Here it is the one that closes it, in each run of the seed.
      if (await this.#waitsInCircle(pid)) {
        await this.#control.query('select pg_cancel_backend($1)', [pid])
        await running
        connection.outcome = { error: deadlocked() }
        this.#circleBroken = true
        return true
      }
      if (connection.outcome === undefined) return false
    }
  }

  async #blockersOf(pid: number): Promise<number[]> {
    const rows = await this.look<{ pids: number[] }>('select pg_blocking_pids($1) as pids', [pid])
    return rows[0]?.pids.filter((blocker) => this.#pids.has(blocker)) ?? []
  }

  async #waitsInCircle(pid: number): Promise<boolean> {
    const seen = new Set<number>()
    const next = [pid]
    for (let at = next.pop(); at !== undefined; at = next.pop()) {
      for (const blocker of await this.#blockersOf(at)) {
        if (blocker === pid) return true
        if (!seen.has(blocker)) next.push(blocker)
        seen.add(blocker)
      }
    }
    return false
  }
}

/** What Kysely takes for a pool of pg. */
export class SimPool {
  readonly database: SimDatabase
  readonly node: Node
  readonly #size: number
  readonly #open = new Set<SimConnection>()
  readonly #idle: SimConnection[] = []
  readonly #queue: {
    readonly resolve: (connection: SimConnection) => void
    readonly reject: (error: Error) => void
  }[] = []
  /** Nothing gets through between this process and the database. */
  unreachable = false

  constructor(database: SimDatabase, node: Node, size: number) {
    this.database = database
    this.node = node
    this.#size = size
  }

  connect(): Promise<SimConnection> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ resolve, reject })
      this.#serve()
    })
  }

  async end(): Promise<void> {
    await this.cut(false)
  }

  giveBack(connection: SimConnection): void {
    if (connection.broken) this.#open.delete(connection)
    else this.#idle.push(connection)
    this.#serve()
  }

  /**
   * Breaks all connections.
   *
   * @param arrives whether what was sent last still arrives and is executed.
   */
  async cut(arrives: boolean): Promise<void> {
    const connections = [...this.#open]
    this.#open.clear()
    this.#idle.length = 0
    for (const connection of connections) await connection.cut(arrives)
    await this.database.lookAtWaiting()
  }

  /** Ends transactions that stand still, as PostgreSQL does after its limit. */
  async endIdleTransactions(): Promise<void> {
    for (const connection of [...this.#open]) {
      if (!connection.inTransaction || connection.busy) continue
      this.#open.delete(connection)
      await connection.cut(false)
    }
    await this.database.lookAtWaiting()
  }

  #serve(): void {
    const { scheduler } = this.database
    while (this.#queue.length > 0) {
      if (this.unreachable || this.database.down) {
        const waiting = this.#queue.shift()
        const refused = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })
        scheduler.schedule(scheduler.random.between(1, 2_000), () => waiting?.reject(refused), this.node)
        continue
      }
      const idle = this.#idle.pop()
      if (idle !== undefined) {
        this.#queue.shift()?.resolve(idle)
        continue
      }
      if (this.#open.size >= this.#size) return
      const waiting = this.#queue.shift()
      const connection = new SimConnection(this)
      this.#open.add(connection)
      scheduler.schedule(
        scheduler.random.between(0.5, 5),
        () => {
          if (!this.node.alive) return
          scheduler.schedule(0.1, () => waiting?.resolve(connection), this.node)
        },
        'world',
      )
    }
  }
}

/** What Kysely takes for a client of pg. */
export class SimConnection {
  readonly pool: SimPool
  broken = false
  inTransaction = false
  busy = false
  running: Promise<Outcome> | undefined
  outcome: Outcome | undefined
  waitingText = ''
  /** What was set on it. */
  settings = ''
  #backend: Backend | undefined
  #sent: { readonly text: string; readonly values: readonly unknown[] } | undefined
  #settle: ((outcome: Outcome) => void) | undefined
  readonly #queue: (() => void)[] = []

  constructor(pool: SimPool) {
    this.pool = pool
  }

  get backend(): Backend {
    if (this.#backend === undefined) throw new Error('nothing is under way on the connection')
    return this.#backend
  }

  /** Takes a backend, until the transaction ends. */
  async hold(): Promise<Backend> {
    this.#backend ??= await this.pool.database.backend(this.settings)
    return this.#backend
  }

  query(text: string, values: readonly unknown[] = []): Promise<pg.QueryResult> {
    return new Promise((resolve, reject) => {
      const settle = ({ result, error }: Outcome): void => {
        this.#settle = undefined
        this.busy = false
        if (result !== undefined) resolve(result)
        else reject(error ?? connectionLost())
        this.#queue.shift()?.()
      }
      const send = (): void => this.#send({ text, values }, settle)
      if (this.busy) this.#queue.push(send)
      else send()
    })
  }

  release(): void {
    this.pool.giveBack(this)
  }

  /** The answer goes on its way. */
  async deliver(text: string): Promise<void> {
    const { database, node } = this.pool
    const { scheduler } = database
    const outcome = this.outcome ?? {}
    this.running = undefined
    const commits = /^commit/i.test(text) || (!this.inTransaction && writes(text))
    if (isBegin(text)) this.inTransaction = true
    if (isEnd(text)) this.inTransaction = false
    if (commits && scheduler.random.chance(database.faults.lostCommitAnswers)) {
      scheduler.note(
        `${node.name}: the answer to ${/^commit/i.test(text) ? 'a commit' : 'what commits by itself'} is lost`,
      )
      await this.#break()
      return
    }
    if (!this.inTransaction && this.#backend !== undefined) {
      database.giveBack(this.#backend)
      this.#backend = undefined
    }
    scheduler.schedule(
      this.#latencyMs(),
      () => this.#settle?.(this.broken ? { error: connectionLost() } : outcome),
      node,
    )
  }

  async cut(arrives: boolean): Promise<void> {
    if (this.broken) return
    if (arrives && this.#sent !== undefined && this.running === undefined) await this.#execute()
    await this.#break()
  }

  async #execute(): Promise<void> {
    const sent = this.#sent
    this.#sent = undefined
    if (sent === undefined || this.broken) return
    this.outcome = undefined
    await this.pool.database.execute(this, sent.text, sent.values)
  }

  async #break(): Promise<void> {
    const { database, node } = this.pool
    this.broken = true
    this.#sent = undefined
    const backend = this.#backend
    if (backend !== undefined) {
      await database.cancel(this)
      await backend.reset()
      this.#backend = undefined
      database.giveBack(backend)
    }
    database.scheduler.schedule(
      database.scheduler.random.between(0.1, 5),
      () => this.#settle?.({ error: connectionLost() }),
      node,
    )
  }

  #send(
    sent: { readonly text: string; readonly values: readonly unknown[] },
    settle: (outcome: Outcome) => void,
  ): void {
    const { database, node } = this.pool
    const { scheduler } = database
    this.busy = true
    this.#settle = settle
    if (this.broken) {
      scheduler.schedule(0.1, () => settle({ error: connectionLost() }), node)
      return
    }
    this.#sent = sent
    scheduler.schedule(this.#latencyMs(), () => (this.#sent === sent ? this.#execute() : undefined), 'world')
  }

  #latencyMs(): number {
    const { random } = this.pool.database.scheduler
    if (random.chance(this.pool.database.faults.slowStatements)) return random.between(10, 1_500)
    return random.between(0.05, 1)
  }
}
