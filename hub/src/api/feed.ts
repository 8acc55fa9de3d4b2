import type { Logger } from 'pino'
import { HubError } from '../domain/error/errors.js'
import {
  comparePositions,
  encodeRevision,
  headPosition,
  isVisible,
  origin,
  type Position,
  type Revision,
} from '../store/changes.js'
import type { Db } from '../store/database.js'
import type { Wake } from '../store/wake.js'

const batch = 1_000
const lookEveryMs = 500
/** A watcher that lags by more than this is cut off; it resumes from where it was. */
const maxLag = 10_000

/** A row with its place in the feed. */
export interface FeedRow {
  readonly xid: string
  readonly id: number
  /** The transaction that wrote it, where that is another one than it is placed by. */
  readonly writer?: string
}

/** What a watcher is given: rows in order, or none as a sign of life, and where to resume after them. */
export interface Batch<Row> {
  readonly rows: readonly Row[]
  readonly revision: string
}

const positionOf = (row: FeedRow): Position => ({ xid: BigInt(row.xid), id: row.id })

interface Subscriber<Row> {
  readonly queue: Row[]
  head: Position
  overflown: boolean
  wake: () => void
}

/**
 * One feed for all watchers of this replica: it reads what is new once, when woken and from time to time, and only while anybody watches. A watcher that resumes
 * reads the past by itself until it has caught up.
 */
export class Feed<Row extends FeedRow> {
  readonly #db: Db
  readonly #epoch: string
  readonly #log: Logger
  readonly #read: (db: Db, after: Position, limit: number) => Promise<readonly Row[]>
  readonly #subscribers = new Set<Subscriber<Row>>()
  readonly #unlisten: () => void
  #head: Position = origin
  #started: Promise<void> | undefined
  #running = false
  #again = false
  #timer: NodeJS.Timeout | undefined

  constructor(options: {
    readonly db: Db
    readonly wake: Wake
    readonly epoch: string
    readonly log: Logger
    readonly read: (db: Db, after: Position, limit: number) => Promise<readonly Row[]>
  }) {
    this.#db = options.db
    this.#epoch = options.epoch
    this.#log = options.log
    this.#read = options.read
    this.#unlisten = options.wake.on('change', () => this.#look())
  }

  stop(): void {
    this.#unlisten()
    clearTimeout(this.#timer)
  }

  /**
   * Everything after a revision, in order, once.
   *
   * @param heartbeatMs a sign of life at least this often.
   * @throws HubError SLOW_CONSUMER where the caller takes it too slowly.
   */
  async *watch(from: Revision, signal: AbortSignal, heartbeatMs: number): AsyncGenerator<Batch<Row>> {
    await (this.#started ??= this.#begin())
    const subscriber: Subscriber<Row> = { queue: [], head: this.#head, overflown: false, wake: () => undefined }
    const joinedAt = this.#head
    this.#subscribers.add(subscriber)
    const onAbort = () => subscriber.wake()
    signal.addEventListener('abort', onAbort)
    this.#look()
    try {
      let position = from.position
      let { snapshot } = from
      const unseen = (row: Row) => !isVisible(BigInt(row.writer ?? row.xid), snapshot)
      // The past, up to where this watcher joined.
      while (!signal.aborted && comparePositions(position, joinedAt) < 0) {
        const rows = await this.#read(this.#db, position, batch)
        const past = rows.filter((row) => comparePositions(positionOf(row), joinedAt) <= 0)
        const last = past.at(-1)
        position = last === undefined || past.length < rows.length || rows.length < batch ? joinedAt : positionOf(last)
        const fresh = past.filter(unseen)
        if (fresh.length > 0) yield { rows: fresh, revision: this.#revision(position, snapshot) }
      }
      if (comparePositions(position, joinedAt) < 0) return
      while (!signal.aborted) {
        if (subscriber.overflown) {
          throw new HubError('SLOW_CONSUMER', 'the watch is read too slowly; resume from its last revision', {
            metadata: { last_revision: this.#revision(position, snapshot) },
          })
        }
        const rows = subscriber.queue
          .splice(0, batch)
          .filter((row) => comparePositions(positionOf(row), from.position) > 0)
        const last = rows.at(-1)
        if (last !== undefined) position = positionOf(last)
        const fresh = rows.filter(unseen)
        // Once the feed has passed all transactions that the snapshot knew of, it says nothing any more.
        if (snapshot !== '' && position.xid >= BigInt(snapshot.split(':')[1] ?? '0')) snapshot = ''
        if (fresh.length > 0) {
          yield { rows: fresh, revision: this.#revision(position, snapshot) }
          continue
        }
        if (subscriber.queue.length > 0) continue
        const woken = await this.#sleep(subscriber, signal, heartbeatMs)
        if (!woken && !signal.aborted) {
          if (subscriber.queue.length === 0 && comparePositions(subscriber.head, position) > 0)
            position = subscriber.head
          yield { rows: [], revision: this.#revision(position, snapshot) }
        }
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
      this.#subscribers.delete(subscriber)
    }
  }

  #revision(position: Position, snapshot: string): string {
    return encodeRevision(this.#epoch, { position, snapshot })
  }

  /** Resolves with true when there is something to see, with false when the time is up. */
  #sleep(subscriber: Subscriber<Row>, signal: AbortSignal, ms: number): Promise<boolean> {
    if (signal.aborted || subscriber.queue.length > 0) return Promise.resolve(true)
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), ms)
      subscriber.wake = () => {
        clearTimeout(timer)
        resolve(true)
      }
    })
  }

  async #begin(): Promise<void> {
    try {
      this.#head = await headPosition(this.#db)
    } catch (error) {
      this.#started = undefined
      throw error
    }
  }

  #look(): void {
    if (this.#subscribers.size === 0 || this.#started === undefined) return
    if (this.#running) {
      this.#again = true
      return
    }
    this.#running = true
    void this.#readNew().finally(() => {
      this.#running = false
      clearTimeout(this.#timer)
      if (this.#again) {
        this.#again = false
        this.#look()
      } else if (this.#subscribers.size > 0) {
        this.#timer = setTimeout(() => this.#look(), lookEveryMs)
        this.#timer.unref()
      }
    })
  }

  async #readNew(): Promise<void> {
    try {
      for (;;) {
        const rows = await this.#read(this.#db, this.#head, batch)
        const last = rows.at(-1)
        if (last === undefined) return
        this.#head = positionOf(last)
        for (const subscriber of this.#subscribers) this.#deliver(subscriber, rows)
        if (rows.length < batch) return
      }
    } catch (error) {
      this.#log.warn({ err: error }, 'cannot read changes now')
    }
  }

  #deliver(subscriber: Subscriber<Row>, rows: readonly Row[]): void {
    if (subscriber.overflown) return
    if (subscriber.queue.length + rows.length > maxLag) {
      subscriber.overflown = true
      subscriber.queue.length = 0
    } else {
      for (const row of rows) subscriber.queue.push(row)
      subscriber.head = this.#head
    }
    subscriber.wake()
  }
}
