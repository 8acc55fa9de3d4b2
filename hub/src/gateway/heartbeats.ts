import type { Logger } from 'pino'
import { failpoint } from '../observe/failpoint.js'
import type { Db } from '../store/database.js'
import { extendSessions } from '../store/sessions.js'

/** Extends the leases of all sessions that were heard of since the last time, in one statement, however many they are. */
export class Heartbeats {
  readonly #db: Db
  readonly #leaseMs: number
  readonly #log: Logger
  readonly #onLost: (sessionId: string) => void
  readonly #heard = new Set<string>()
  readonly #timer: NodeJS.Timeout
  #flushing = false

  /** @param onLost called for sessions whose lease is over by the database's clock, whatever this replica believed. */
  constructor(options: {
    readonly db: Db
    readonly leaseMs: number
    readonly log: Logger
    readonly onLost: (sessionId: string) => void
  }) {
    this.#db = options.db
    this.#leaseMs = options.leaseMs
    this.#log = options.log
    this.#onLost = options.onLost
    this.#timer = setInterval(() => void this.flush(), Math.max(50, options.leaseMs / 20))
    this.#timer.unref()
  }

  heard(sessionId: string): void {
    this.#heard.add(sessionId)
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  async flush(): Promise<void> {
    if (this.#flushing || this.#heard.size === 0) return
    this.#flushing = true
    const ids = [...this.#heard]
    this.#heard.clear()
    try {
      await failpoint('hub.heartbeat.before-store')
      const extended = await extendSessions(this.#db, ids, this.#leaseMs)
      await failpoint('hub.heartbeat.after-store')
      for (const id of ids) if (!extended.has(id)) this.#onLost(id)
    } catch (error) {
      // Heard is heard: the extension is only late. If it comes too late, the next one says so.
      for (const id of ids) this.#heard.add(id)
      this.#log.warn({ err: error, sessions: ids.length }, 'cannot store heartbeats now')
    } finally {
      this.#flushing = false
    }
  }
}
