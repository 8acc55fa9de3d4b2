import type { Configured, Heartbeat } from '@slipway/proto/provider/v1'
import { inTransaction } from '../store/database.js'
import {
  recordConfigurationAnswer,
  recordIfWell,
  recordInstanceHealth,
  type KnownProvider,
} from '../store/provider-facts.js'
import { fromBudgets, fromFailure, fromHealth } from './convert.js'
import type { GatewayDeps } from './deps.js'

/** Stores a change of an instance's health. */
export async function recordHeartbeatFacts(
  deps: GatewayDeps,
  sessionId: string,
  provider: KnownProvider,
  heartbeat: Heartbeat,
): Promise<void> {
  const said = {
    health: fromHealth(heartbeat.health),
    message: heartbeat.message,
    failure: heartbeat.failure === undefined ? undefined : fromFailure(heartbeat.failure),
    budgets: fromBudgets(heartbeat.budgets),
  }
  const now = new Date()
  const known = await inTransaction(deps.db, (tx) => recordIfWell(tx, sessionId, provider, said, now), 'health')
  if (!known) await inTransaction(deps.db, (tx) => recordInstanceHealth(tx, sessionId, provider, said, now), 'health')
  deps.wake.signal({ kind: 'change' })
}

/** Stores an instance's answer to a new configuration. */
export async function recordConfigured(
  deps: GatewayDeps,
  sessionId: string,
  provider: KnownProvider,
  configured: Configured,
): Promise<void> {
  const answer = {
    version: Number(configured.version),
    ok: configured.ok,
    failure: configured.failure === undefined ? undefined : fromFailure(configured.failure),
  }
  await inTransaction(deps.db, (tx) => recordConfigurationAnswer(tx, sessionId, provider, answer, new Date()), 'health')
  deps.wake.signal({ kind: 'change' })
}
