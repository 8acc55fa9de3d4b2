import type { Configure } from '@slipway/proto/provider/v1'
import { ProviderError } from './errors.js'
import { parseBySchema } from './schema.js'
import type { ProviderDefinition, Violation } from './types.js'

export type AnyDefinition = ProviderDefinition<unknown, unknown, unknown>

/** Configuration and credentials, taken together: a function that began with one pair ends with it. */
export interface Snapshot {
  readonly version: bigint
  readonly config: unknown
  /** Secret. */
  readonly credentials: unknown
}

/** Reads configuration and credentials by the author's schemas. @throws ProviderError that names every field, and no value. */
export async function parseSettings(definition: AnyDefinition, configure: Configure): Promise<Snapshot> {
  const config = await parseBySchema(definition.config, configure.config ?? {}, 'config')
  const credentials = await parseBySchema(definition.credentials, configure.credentials ?? {}, 'credentials')
  const violations = [config, credentials].flatMap((parsed) => ('violations' in parsed ? parsed.violations : []))
  if ('violations' in config || 'violations' in credentials) {
    const code = 'violations' in config ? 'INVALID_SPEC' : 'CREDENTIALS'
    throw new ProviderError(code, sayViolations(violations), { retryable: false })
  }
  return { version: configure.version, config: config.value, credentials: credentials.value }
}

/** All that is wrong, in one line for people. */
export function sayViolations(violations: readonly Violation[]): string {
  return violations.map(({ field, description }) => `${field}: ${description}`).join('; ')
}
