import type { Logger } from 'pino'
import { noteDenials } from '../store/audit.js'
import type { Db } from '../store/database.js'
import type { Denial } from './authorization.js'

const everyMs = 1_000
/** More than these are not worth a row each: the log has a line for every one. */
const maxPending = 1_000

/** Writes refused calls into the audit log, gathered: there is no change for them to be committed with. */
export class DenialLog {
  readonly #db: Db
  readonly #log: Logger
  #pending: Denial[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(db: Db, log: Logger) {
    this.#db = db
    this.#log = log
  }

  note(denial: Denial): void {
    if (this.#pending.length >= maxPending) return
    this.#pending.push(denial)
    this.#timer ??= setTimeout(() => void this.#write(), everyMs).unref()
  }

  async stop(): Promise<void> {
    clearTimeout(this.#timer)
    await this.#write()
  }

  async #write(): Promise<void> {
    this.#timer = undefined
    const denials = this.#pending
    this.#pending = []
    try {
      await noteDenials(this.#db, denials)
    } catch (error) {
      this.#log.warn({ err: error, denials: denials.length }, 'refused calls are not in the audit log')
    }
  }
}
