import type { EventDraft, Failure } from '../domain/facts.js'
import type { BudgetFacts, Health } from '../domain/provider/provider.js'
import { mergeConditions, nextLastError } from '../domain/request/apply-report.js'
import type { Db, Tx } from './database.js'
import { appendEvents } from './events.js'
import { recordConfiguredVersions, recordRefusedCredentials, settleCredentials } from './provider-credentials.js'
import { recordHealth, recordWellness, requireSession, type HealthReport } from './sessions.js'

// What instances say of their provider as a whole.

export interface KnownProvider {
  readonly id: string
  readonly name: string
}

export interface HealthSaid {
  readonly health: Health
  readonly message: string
  readonly failure: Failure | undefined
  readonly budgets: readonly BudgetFacts[]
}

/** Stores how an instance is doing, and tells of the provider's health where that changes with it. The error stays until all is well. */
export async function recordInstanceHealth(
  tx: Tx,
  sessionId: string,
  provider: KnownProvider,
  said: HealthSaid,
  now: Date,
): Promise<void> {
  await requireSession(tx, sessionId)
  const recorded = await recordHealth(tx, reportOf(sessionId, provider, said, now))
  if (recorded === undefined) return
  if (said.failure !== undefined) await keepError(tx, provider, said.failure, now)
  else if (recorded.after === 'HEALTHY') {
    await tx
      .updateTable('providers')
      .set({ last_error: null })
      .where('id', '=', provider.id)
      .where('last_error', 'is not', null)
      .execute()
  }
  if (recorded.before === recorded.after) return
  const well = recorded.after === 'HEALTHY'
  await appendEvents(tx, { actor: `providers/${provider.name}`, requestId: '' }, [
    event(
      provider,
      well ? 'ProviderHealthy' : 'ProviderUnhealthy',
      well ? 'INFO' : 'ERROR',
      `Health is ${recorded.after}: ${said.message}`,
    ),
  ])
}

function reportOf(sessionId: string, provider: KnownProvider, said: HealthSaid, now: Date): HealthReport {
  const { health, message, budgets } = said
  return { sessionId, providerId: provider.id, health, message, budgets, now }
}

/** Stores that an instance is well where that says nothing new of its provider; otherwise {@link recordInstanceHealth} is to follow. */
export async function recordIfWell(
  tx: Tx,
  sessionId: string,
  provider: KnownProvider,
  said: HealthSaid,
  now: Date,
): Promise<boolean> {
  if (said.health !== 'HEALTHY' || said.failure !== undefined) return false
  return recordWellness(tx, reportOf(sessionId, provider, said, now))
}

async function keepError(tx: Tx, provider: KnownProvider, failure: Failure, now: Date): Promise<void> {
  const row = await tx.selectFrom('providers').select('last_error').where('id', '=', provider.id).executeTakeFirst()
  const before = row?.last_error ?? null
  const repeated = before !== null && before.code === failure.code && before.message === failure.message
  const lastError = nextLastError(failure, repeated ? before.attempts + 1 : 1, now)
  await tx
    .updateTable('providers')
    .set({ last_error: JSON.stringify(lastError) })
    .where('id', '=', provider.id)
    .execute()
}

/** Stores an instance's answer to a new configuration. */
export async function recordConfigurationAnswer(
  tx: Tx,
  sessionId: string,
  provider: KnownProvider,
  answer: { readonly version: number; readonly ok: boolean; readonly failure: Failure | undefined },
  now: Date,
): Promise<void> {
  const message = answer.ok
    ? `Version ${answer.version} is in use`
    : `Version ${answer.version} was refused: ${answer.failure?.message ?? 'no reason given'}`
  await requireSession(tx, sessionId)
  const row = await tx
    .selectFrom('providers')
    .select('conditions')
    .where('id', '=', provider.id)
    .forNoKeyUpdate()
    .executeTakeFirst()
  if (row === undefined) return
  const conditions = mergeConditions(
    row.conditions,
    [{ type: 'Configured', status: answer.ok ? 'TRUE' : 'FALSE', reason: answer.ok ? 'Accepted' : 'Refused', message }],
    now,
  )
  await tx
    .updateTable('providers')
    .set({ conditions: JSON.stringify(conditions) })
    .where('id', '=', provider.id)
    .execute()
  if (answer.ok) await recordConfiguredVersions(tx, [{ sessionId, version: answer.version }])
  else await recordRefusedCredentials(tx, { id: provider.id, conditions }, message)
  const settled = answer.ok ? await settleCredentials(tx, provider.id) : []
  await appendEvents(tx, { actor: `providers/${provider.name}`, requestId: '' }, [
    event(
      provider,
      answer.ok ? 'ConfigurationAccepted' : 'ConfigurationRefused',
      answer.ok ? 'INFO' : 'ERROR',
      message,
    ),
    ...settled,
  ])
}

/** The version of a provider's configuration, or undefined where the provider was deleted. */
export async function liveConfigVersion(db: Db, providerId: string): Promise<number | undefined> {
  const row = await db
    .selectFrom('providers')
    .select('config_version')
    .where('id', '=', providerId)
    .where('deleted_at', 'is', null)
    .executeTakeFirst()
  return row?.config_version
}

/** Takes note of an enrolment. Returns the provider's name, or undefined where it was deleted. */
export async function recordEnrolment(tx: Tx, providerId: string, instance: string): Promise<string | undefined> {
  const provider = await tx
    .selectFrom('providers')
    .select('name')
    .where('id', '=', providerId)
    .where('deleted_at', 'is', null)
    .executeTakeFirst()
  if (provider === undefined) return undefined
  await appendEvents(tx, { actor: `providers/${provider.name}`, requestId: '' }, [
    event({ id: providerId, name: provider.name }, 'InstanceEnrolled', 'INFO', `Instance ${instance} enrolled`),
  ])
  return provider.name
}

function event(
  provider: KnownProvider,
  reason: EventDraft['reason'],
  severity: EventDraft['severity'],
  message: string,
): EventDraft {
  return { subject: `providers/${provider.name}`, reason, severity, message, providerId: provider.id }
}
