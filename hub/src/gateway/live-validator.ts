import { fromFailure, type OrderQuestion } from './convert.js'
import type { SessionRegistry } from './registry.js'

export interface LiveVerdict {
  readonly violations: readonly { readonly field: string; readonly description: string }[]
  /** Why the provider could not be asked, or could not tell. */
  readonly unavailable?: string
}

/** Asks a connected instance whether it would refuse an order. */
export async function validateLive(
  registry: SessionRegistry,
  providerId: string,
  question: OrderQuestion,
  deadlineMs: number,
): Promise<LiveVerdict> {
  const sessions = registry.ofProvider(providerId)
  if (sessions.length === 0)
    return { violations: [], unavailable: 'no instance of the provider is connected to this replica' }
  const able = sessions.find((session) => session.capabilities.has('VALIDATE'))
  // A provider that has nothing to check beyond its schema has nothing against the order.
  if (able === undefined) return { violations: [] }
  const validated = await able.validate(question, deadlineMs)
  if (validated === undefined)
    return { violations: [], unavailable: `the provider did not answer within ${deadlineMs} ms` }
  const violations = validated.violations.map(({ field, description }) => ({ field, description }))
  if (validated.failure === undefined) return { violations }
  const failure = fromFailure(validated.failure)
  return { violations, unavailable: `the provider could not check it: ${failure.code}: ${failure.message}` }
}
