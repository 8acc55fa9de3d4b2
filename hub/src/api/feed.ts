import type { Logger } from 'pino'
import { HubError } from '../domain/error/errors.js'
import {
  encodeRevision,
  headRevision,
  isVisible,
  laterSnapshot,
  type FeedPage,
  type Revision,
} from '../store/changes.js'
import type { Db } from '../store/database.js'
import type { Wake } from '../store/wake.js'

const page = 1_000
const defaultLookEveryMs = 500
/** A watcher that lags by more than this is cut off; it resumes from where it was. */
const maxLag = 10_000

/** A row with its place in the feed. */
export interface FeedRow {
  readonly xid: string
  readonly id: number
}

/** What a watcher is given: rows in order, or none as a sign of life, and where to resume after them. */
export interface Batch<Row> {
  readonly rows: readonly Row[]
  readonly revision: string
}

/** All that a snapshot shows beyond the one before. */
interface Step<Row> {
  readonly rows: readonly Row[]
  readonly snapshot: string
}

interface Subscriber<Row> {
  readonly steps: Step<Row>[]
  /** A later snapshot, which shows nothing new beyond the steps. */
  quietUntil: string | undefined
  waiting: number
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
  readonly #read: (db: Db, after: Revision, limit: number) => Promise<FeedPage<Row>>
  readonly #subscribers = new Set<Subscriber<Row>>()
  readonly #lookEveryMs: number
  readonly #unlisten: () => void
  #seen = ''
  #started: Promise<void> | undefined
  #running = false
  #again = false
  #timer: NodeJS.Timeout | undefined

  constructor(options: {
    readonly db: Db
    readonly wake: Wake
    readonly epoch: string
    readonly log: Logger
    readonly read: (db: Db, after: Revision, limit: number) => Promise<FeedPage<Row>>
    /** How often to look without being woken, in ms. */
    readonly lookEveryMs?: number
  }) {
    this.#db = options.db
    this.#epoch = options.epoch
    this.#log = options.log
    this.#read = options.read
    this.#lookEveryMs = options.lookEveryMs ?? defaultLookEveryMs
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
    const subscriber: Subscriber<Row> = {
      ...{ steps: [], quietUntil: undefined, waiting: 0, overflown: false },
      wake: () => undefined,
    }
    this.#subscribers.add(subscriber)
    const onAbort = () => subscriber.wake()
    signal.addEventListener('abort', onAbort)
    this.#look()
    try {
      // The past, up to a snapshot that is later than where this watcher joined: what the feed has beyond that comes by itself. One in whose midst it resumes is of before.
      let at = from
      let isLater = false
      while (at.within !== undefined || !isLater) {
        if (signal.aborted) return
        isLater ||= at.within === undefined
        const { rows, next } = await this.#read(this.#db, at, page)
        at = next
        if (rows.length > 0) yield { rows, revision: this.#revision(at) }
      }
      yield* this.#follow(subscriber, at.seen, signal, heartbeatMs)
    } finally {
      signal.removeEventListener('abort', onAbort)
      this.#subscribers.delete(subscriber)
    }
  }

  async *#follow(
    subscriber: Subscriber<Row>,
    from: string,
    signal: AbortSignal,
    heartbeatMs: number,
  ): AsyncGenerator<Batch<Row>> {
    let seen = from
    while (!signal.aborted) {
      if (subscriber.overflown) {
        throw new HubError('SLOW_CONSUMER', 'the watch is read too slowly; resume from its last revision', {
          metadata: { last_revision: this.#revision({ seen }) },
        })
      }
      const step = subscriber.steps.shift()
      if (step === undefined) {
        const woken = await this.#sleep(subscriber, signal, heartbeatMs)
        if (subscriber.steps.length === 0 && subscriber.quietUntil !== undefined)
          seen = laterSnapshot(seen, subscriber.quietUntil)
        if (!woken && !signal.aborted) yield { rows: [], revision: this.#revision({ seen }) }
        continue
      }
      subscriber.waiting -= step.rows.length
      const later = laterSnapshot(seen, step.snapshot)
      const fresh = step.rows.filter((row) => !isVisible(BigInt(row.xid), seen))
      for (let index = 0; index < fresh.length; index += page) {
        const rows = fresh.slice(index, index + page)
        const last = rows.at(-1)
        const within = index + page < fresh.length && last !== undefined
        const at = within ? { seen, within: { snapshot: step.snapshot, id: last.id } } : { seen: later }
        yield { rows, revision: this.#revision(at) }
      }
      seen = later
    }
  }

  #revision(revision: Revision): string {
    return encodeRevision(this.#epoch, revision)
  }

  /** Resolves with true when there is something to see, with false when the time is up. */
  #sleep(subscriber: Subscriber<Row>, signal: AbortSignal, ms: number): Promise<boolean> {
    if (signal.aborted || subscriber.steps.length > 0) return Promise.resolve(true)
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
      this.#seen = (await headRevision(this.#db)).seen
    } catch (error) {
      this.#started = undefined
      throw error
    }
  }

  #look(): void {
    if (this.#subscribers.size === 0 || this.#started === undefined || this.#seen === '') return
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
        this.#timer = setTimeout(() => this.#look(), this.#lookEveryMs)
        this.#timer.unref()
      }
    })
  }

  async #readNew(): Promise<void> {
    try {
      const rows: Row[] = []
      let at: Revision = { seen: this.#seen }
      do {
        const read = await this.#read(this.#db, at, page)
        rows.push(...read.rows)
        at = read.next
      } while (at.within !== undefined)
      if (at.seen === this.#seen) return
      this.#seen = at.seen
      for (const subscriber of this.#subscribers) this.#deliver(subscriber, { rows, snapshot: at.seen })
    } catch (error) {
      this.#log.warn({ err: error }, 'cannot read changes now')
    }
  }

  #deliver(subscriber: Subscriber<Row>, step: Step<Row>): void {
    if (subscriber.overflown) return
    const last = subscriber.steps.at(-1)
    if (step.rows.length === 0) {
      // Nothing new to say but that time has passed.
      if (last === undefined) subscriber.quietUntil = step.snapshot
      else subscriber.steps[subscriber.steps.length - 1] = { rows: last.rows, snapshot: step.snapshot }
      return
    }
    if (subscriber.waiting + step.rows.length > maxLag) {
      subscriber.overflown = true
      subscriber.steps.length = 0
    } else {
      subscriber.steps.push(step)
      subscriber.waiting += step.rows.length
    }
    subscriber.wake()
  }
}
