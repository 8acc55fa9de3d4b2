import type { Logger } from 'pino'
import type { Keyring } from '../secrets/keyring.js'
import type { Db } from '../store/database.js'
import type { Wake } from '../store/wake.js'

export interface ReconcilerConfig {
  /** How often to look without being woken. */
  readonly sweepMs: number
  /** Leases of sessions are good for this long after the last heartbeat. */
  readonly leaseMs: number
  /** The client API's base URL as booted machines reach it. */
  readonly publicUrl: string
  /** No deadline fires within this long after the start, so that an outage of the hub is not held against anyone. Default two minutes. */
  readonly startGraceMs?: number
}

export interface ReconcilerDeps {
  readonly db: Db
  readonly wake: Wake
  readonly keyring: Keyring
  readonly log: Logger
  readonly hubId: string
  /** This process, for people, and as holder of the controllers that run once. */
  readonly replica: string
  readonly config: ReconcilerConfig
}
