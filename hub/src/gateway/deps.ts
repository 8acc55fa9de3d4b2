import type { Logger } from 'pino'
import type { Authority } from '../auth/authority.js'
import type { Keyring } from '../secrets/keyring.js'
import type { Db } from '../store/database.js'
import type { OrphanTimes } from '../store/orphan-facts.js'
import type { Wake } from '../store/wake.js'

export interface GatewayConfig {
  /** Address to listen on. */
  readonly gatewayHost: string
  /** 0: a free one. */
  readonly gatewayPort: number
  /** DNS names and IP addresses that instances may use to reach this replica; they go into its certificate. */
  readonly gatewayNames: readonly string[]
  /** Where other replicas reach this one's gateway, host:port. Empty: where it listens. */
  readonly replicaAddress: string
  /** The client API's base URL as booted machines reach it. */
  readonly publicUrl: string
  /** A lease is good for this long after the last heartbeat. */
  readonly leaseMs: number
  /** Heartbeats are wanted at least this often. */
  readonly heartbeatMs: number
  /** How often to look for work without being woken. */
  readonly sweepMs: number
  /** Added to the times that providers tell of their own, before something may be called an orphan and removed. */
  readonly orphanGraceMs: number
  /** The policy removes no orphan for this long after a restore of the database. */
  readonly orphanRestoreGraceMs: number
  /** An instance has this long to remove an orphan; then the order is given again. */
  readonly orphanRemovalTimeoutMs: number
  /** How often a silent console is said to be silent. */
  readonly watchHeartbeatMs: number
  /** A frame may be this large. */
  readonly maxMessageBytes: number
}

/** The times by which orphans are judged. */
export function orphanTimes(config: GatewayConfig): OrphanTimes {
  return { graceMs: config.orphanGraceMs, restoreGraceMs: config.orphanRestoreGraceMs }
}

export interface GatewayDeps {
  readonly db: Db
  readonly wake: Wake
  readonly keyring: Keyring
  readonly authority: Authority
  readonly config: GatewayConfig
  readonly log: Logger
  readonly hubId: string
  /** This process, for people. */
  readonly replica: string
}
