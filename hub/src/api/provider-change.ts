import type * as hub from '@slipway/proto/hub/v1'
import { HubError, invalidField } from '../domain/error/errors.js'
import type { JsonObject } from '../domain/facts.js'
import type { ProviderChange } from '../store/providers.js'
import type { ProviderRow } from '../store/tables.js'
import { checkedLabels, fromObject } from './convert.js'
import { fromOrphanPolicy } from './orphan-resources.js'
import { checkAgainstSchema } from './provider-data.js'

// What an update of a provider may change, and what it is refused for.

/** What an update may name. */
export const mutableFields = [
  'config',
  'credentials',
  'labels',
  'annotations',
  'auto_accept_machines',
  'draining',
  'orphan_policy',
] as const

/** Checks configuration and credentials against what the provider's instances have told of them. */
export function checkConfiguration(row: ProviderRow, change: ProviderChange): void {
  const known = row.state !== 'PENDING' || row.config_schema !== '' || row.data_schema !== ''
  const about = { reason: 'PROVIDER_CONFIG_INVALID' as const, provider: row.name, known }
  if (change.config !== undefined)
    checkAgainstSchema(row.config_schema, change.config, { ...about, field: 'provider.config' })
  if (change.credentials !== undefined)
    checkAgainstSchema(row.credentials_schema, change.credentials, { ...about, field: 'provider.credentials' })
}

/** What an update says is to change: of the fields that its mask names, or without one of those that are set. */
export function changeOf(
  provider: hub.Provider,
  paths: ReadonlySet<(typeof mutableFields)[number]>,
  explicit: boolean,
): ProviderChange {
  const credentials: JsonObject | undefined =
    provider.credentials === undefined ? undefined : fromObject(provider.credentials)
  return {
    ...(paths.has('config') && (explicit || provider.config !== undefined) && { config: fromObject(provider.config) }),
    // Left out, credentials stay as they are: nobody can read them to give them back.
    ...(paths.has('credentials') && credentials !== undefined && { credentials }),
    ...(paths.has('labels') && { labels: checkedLabels(provider.labels, 'provider.labels') }),
    ...(paths.has('annotations') && { annotations: provider.annotations }),
    ...(paths.has('auto_accept_machines') && { autoAcceptMachines: provider.autoAcceptMachines }),
    ...(paths.has('draining') && { draining: provider.draining }),
    ...(paths.has('orphan_policy') &&
      (explicit || provider.orphanPolicy !== undefined) && { orphanPolicy: fromOrphanPolicy(provider.orphanPolicy) }),
  }
}

/** @throws HubError INVALID_FIELD for a policy about orphans where there can be none. */
export function refusePolicy(provider: hub.Provider, kind: ProviderRow['kind']): void {
  if (provider.orphanPolicy === undefined || kind === 'DYNAMIC') return
  throw invalidField(
    'provider.orphan_policy',
    'is for dynamic providers; a static one creates nothing that could be left over',
  )
}

/** The refusal of a change of what is set once. */
export function immutable(field: string): HubError {
  return new HubError('FIELD_IMMUTABLE', `${field}: it cannot be changed; make a new one instead`, {
    violations: [{ field, description: 'cannot be changed; make a new one instead' }],
  })
}

/** The words of an update's event. */
export function changedText(before: ProviderRow, after: ProviderRow, change: ProviderChange): string {
  const what = [
    ...(after.config_version !== before.config_version ? [`configuration version ${after.config_version}`] : []),
    ...(change.credentials === undefined ? [] : ['new credentials']),
  ]
  return what.length === 0 ? 'Changed' : `Changed: ${what.join(', ')}`
}
