import type { Logger } from 'pino'
import type { Session } from '../internal/session.js'
import type { Budgets, Urgency } from './budgets.js'
import type { Health } from './health.js'
import type { AnyDefinition, Snapshot } from './settings.js'
import type { Telling } from './telling.js'
import type { Context } from './types.js'

/** What all parts of one running provider share. */
export interface Runtime {
  readonly definition: AnyDefinition
  readonly session: Session
  readonly budgets: Budgets
  readonly health: Health
  readonly log: Logger
  readonly telling: Telling
  /** The provider's resource name. */
  readonly provider: string
  /** The hub's id, known from the first Welcome on. */
  readonly hubId: () => string
}

/** What every function of the author gets. */
export function makeContext(
  runtime: Runtime,
  settings: Snapshot,
  urgency: Urgency,
  signal: AbortSignal,
  log = runtime.log,
): Context<unknown, unknown> {
  return {
    config: settings.config,
    credentials: settings.credentials,
    provider: runtime.provider,
    hubId: runtime.hubId(),
    signal,
    log,
    budget: (name) => runtime.budgets.take(name, urgency, signal),
    event: (event) => runtime.telling.event(event),
    calledBack: (externalId) => runtime.telling.calledBack(externalId),
  }
}
