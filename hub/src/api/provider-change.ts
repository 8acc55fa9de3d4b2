import type * as hub from '@slipway/proto/hub/v1'
import { HubError, invalidField } from '../domain/error/errors.js'
import { parseResourceName, parseScopeName, parseSecretName, resourceName, secretName } from '../domain/names.js'
import type { Keyring } from '../secrets/keyring.js'
import type { Tx } from '../store/database.js'
import type { CredentialSource } from '../store/provider-credentials.js'
import { countLeft, countOthers, findPool } from '../store/pools.js'
import type { ProviderChange, ProviderOwner } from '../store/providers.js'
import { lockSecret, openSecret } from '../store/secrets.js'
import type { ProviderPoolRow, ProviderRow } from '../store/tables.js'
import { findOrganization, findWorkspace } from '../store/tenancy.js'
import { checkedLabels, fromObject } from './convert.js'
import { organizationNotFound, workspaceNotFound } from './not-found.js'
import { fromOrphanPolicy } from './orphan-resources.js'
import { poolNotFound } from './pool-resources.js'
import { checkAgainstSchema } from './provider-data.js'
import { secretNotFound } from './secret-resources.js'

// What an update of a provider may change, and what it is refused for.

/** What an update may name. */
export const mutableFields = [
  'config',
  'credentials',
  'credentials_secret',
  'labels',
  'annotations',
  'auto_accept_machines',
  'draining',
  'orphan_policy',
  'owner',
  'region',
  'residency',
  'pool',
] as const

/** Checks configuration and credentials against what the provider's instances have told of them. */
export function checkConfiguration(row: ProviderRow, change: ProviderChange): void {
  const known = row.state !== 'PENDING' || row.config_schema !== '' || row.data_schema !== ''
  const about = { reason: 'PROVIDER_CONFIG_INVALID' as const, provider: row.name, known }
  if (change.config !== undefined)
    checkAgainstSchema(row.config_schema, change.config, { ...about, field: 'provider.config' })
  if (change.credentials !== undefined && change.credentials.kind !== 'none')
    checkAgainstSchema(row.credentials_schema, change.credentials.value, {
      ...about,
      field: change.credentials.kind === 'own' ? 'provider.credentials' : 'provider.credentials_secret',
    })
}

/**
 * Where a provider is said to have its credentials from; undefined where that is to stay as it is. A secret that is named is locked, so that it is not deleted meanwhile:
 * call this before the provider is locked.
 *
 * @param paths of the update, or both for a new provider.
 * @throws HubError INVALID_FIELD, SECRET_NOT_FOUND.
 */
export async function credentialsOf(
  tx: Tx,
  keyring: Keyring,
  provider: hub.Provider,
  paths: ReadonlySet<string>,
  explicit: boolean,
): Promise<CredentialSource | undefined> {
  const { credentials, credentialsSecret } = provider
  const named = paths.has('credentials_secret') && (credentialsSecret !== '' || explicit)
  if (paths.has('credentials') && credentials !== undefined) {
    if (named && credentialsSecret !== '')
      throw invalidField('provider.credentials_secret', 'cannot go together with credentials; give one of the two')
    return { kind: 'own', value: fromObject(credentials) }
  }
  // Left out, credentials stay as they are: nobody can read them to give them back.
  if (!named) return undefined
  if (credentialsSecret === '') return { kind: 'none' }
  const { organization, id } = parseSecretName(credentialsSecret, 'provider.credentials_secret')
  const secret = await lockSecret(tx, organization, id, 'refer')
  if (secret === undefined) throw secretNotFound(credentialsSecret, 'provider.credentials_secret')
  return { kind: 'secret', secret, value: await openSecret(tx, keyring, secret, secret.current_version) }
}

/** The change without credentials that would be what they are already: an apply that repeats itself changes nothing. */
export function withoutSameSecret(row: ProviderRow, change: ProviderChange): ProviderChange {
  const { credentials, ...rest } = change
  if (credentials === undefined) return change
  const name =
    credentials.kind === 'secret' ? secretName(credentials.secret.organization_name, credentials.secret.name) : ''
  const same = credentials.kind === 'none' ? !row.has_credentials : name !== '' && name === row.credentials_secret
  return same ? rest : change
}

/** What an update says is to change, but for credentials: of the fields that its mask names, or without one of those that are set. */
export function changeOf(
  provider: hub.Provider,
  paths: ReadonlySet<(typeof mutableFields)[number]>,
  explicit: boolean,
): Omit<ProviderChange, 'credentials' | 'owner' | 'pool'> {
  return {
    ...(paths.has('config') && (explicit || provider.config !== undefined) && { config: fromObject(provider.config) }),
    ...(paths.has('labels') && { labels: checkedLabels(provider.labels, 'provider.labels') }),
    ...(paths.has('annotations') && { annotations: provider.annotations }),
    ...(paths.has('auto_accept_machines') && { autoAcceptMachines: provider.autoAcceptMachines }),
    ...(paths.has('draining') && { draining: provider.draining }),
    ...(paths.has('region') && { region: provider.region }),
    ...(paths.has('residency') && { residency: provider.residency }),
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

/** Without a mask, whose it is and where stays as it is where nothing is said of it. */
export function setPaths<Path extends string>(
  given: hub.Provider,
  paths: ReadonlySet<Path>,
  explicit: boolean,
): ReadonlySet<Path> {
  if (explicit) return paths
  const empty = new Set<string>(
    (['owner', 'pool', 'region', 'residency'] as const).filter((field) => given[field].length === 0),
  )
  return new Set([...paths].filter((path) => !empty.has(path)))
}

/** @throws HubError ORGANIZATION_NOT_FOUND, WORKSPACE_NOT_FOUND, INVALID_FIELD. */
export async function ownerOf(tx: Tx, name: string): Promise<ProviderOwner> {
  const { organization, workspace } = parseScopeName(name, 'provider.owner')
  if (workspace !== null) {
    const row = await findWorkspace(tx, workspace)
    if (row === undefined) throw workspaceNotFound(workspace)
    return { name, organizationId: row.organization_id, workspaceId: row.id }
  }
  if (organization === null) return { name: '', organizationId: null, workspaceId: null }
  const row = await findOrganization(tx, organization)
  if (row === undefined) throw organizationNotFound(organization)
  return { name, organizationId: row.id, workspaceId: null }
}

/** The pool that a provider is put into, which it must suit. @throws HubError POOL_NOT_FOUND, INVALID_FIELD. */
export async function poolOf(
  tx: Tx,
  name: string,
  provider: { readonly family: string; readonly region: string; readonly owner: string },
): Promise<ProviderPoolRow | undefined> {
  if (name === '') return undefined
  const pool = await findPool(tx, parseResourceName('provider_pool', name, 'provider.pool'))
  if (pool === undefined) throw poolNotFound(name, 'provider.pool')
  if (provider.owner !== '')
    throw invalidField('provider.pool', `is for providers that nobody owns, and this one is owned by ${provider.owner}`)
  if (pool.family !== provider.family)
    throw invalidField('provider.pool', `is for family ${pool.family}, and this one is of ${provider.family}`)
  if (pool.region !== '' && pool.region !== provider.region)
    throw invalidField('provider.pool', `is for region ${pool.region}; give the provider that region`)
  return pool
}

/** Whether an update is about to change whose a provider is. Then nobody may place hosts meanwhile: {@link holdPlacing} first. */
export function changesUse(row: ProviderRow, given: hub.Provider, paths: ReadonlySet<string>): boolean {
  return (
    (paths.has('owner') && given.owner !== row.owner_name) ||
    (paths.has('pool') && given.pool !== (row.pool_name === '' ? '' : resourceName('provider_pool', row.pool_name)))
  )
}

/**
 * Whose a locked provider is to be. What tenants have there stays theirs: it goes to nobody who does not own all of it.
 *
 * @throws HubError PROVIDER_IN_USE, and as {@link ownerOf} and {@link poolOf} do.
 */
export async function changeOfUse(
  tx: Tx,
  row: ProviderRow,
  given: hub.Provider,
  paths: ReadonlySet<string>,
): Promise<Pick<ProviderChange, 'owner' | 'pool'>> {
  const poolName = row.pool_name === '' ? '' : resourceName('provider_pool', row.pool_name)
  const owner = await ownerOf(tx, paths.has('owner') ? given.owner : row.owner_name)
  const region = paths.has('region') ? given.region : row.region
  const wanted = paths.has('pool') ? given.pool : poolName
  const pool = await poolOf(tx, wanted, { family: row.family, region, owner: owner.name })
  if (!changesUse(row, given, paths)) return {}
  if (row.claim_workspace_id !== null)
    throw inUse(row, `it is claimed by workspace ${row.claim_workspace_name}; release it first`)
  const left = pool === undefined ? 0 : await countLeft(tx, row.id)
  if (left > 0) throw inUse(row, `${left} servers or machines of tenants are there; release their hosts first`)
  const workspaceName = owner.workspaceId === null ? null : owner.name.slice('workspaces/'.length)
  const others = await countOthers(tx, row.id, { organizationId: owner.organizationId, workspaceName })
  if (others > 0) throw inUse(row, `${others} machine requests of other tenants are there; release their hosts first`)
  return { owner, pool: pool ?? null }
}

function inUse(row: ProviderRow, why: string): HubError {
  return new HubError('PROVIDER_IN_USE', `provider ${row.name} cannot change hands: ${why}`)
}

/** The words of an update's event. */
export function changedText(before: ProviderRow, after: ProviderRow, change: ProviderChange): string {
  const what = [
    ...(after.config_version !== before.config_version ? [`configuration version ${after.config_version}`] : []),
    ...(change.credentials === undefined
      ? []
      : [
          change.credentials.kind === 'none'
            ? 'no credentials'
            : change.credentials.kind === 'own'
              ? 'new credentials'
              : `credentials of ${after.credentials_secret}`,
        ]),
    ...(change.owner === undefined
      ? []
      : [change.owner.name === '' ? 'owned by nobody' : `owned by ${change.owner.name}`]),
    ...(change.pool === undefined || after.pool_id === before.pool_id
      ? []
      : [change.pool === null ? 'in no pool' : `in pool ${change.pool.name}`]),
  ]
  return what.length === 0 ? 'Changed' : `Changed: ${what.join(', ')}`
}
