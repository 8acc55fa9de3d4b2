import { create } from '@bufbuild/protobuf'
import { durationFromMs, durationMs } from '@bufbuild/protobuf/wkt'
import * as hub from '@slipway/proto/hub/v1'
import { HubError } from '../domain/error/errors.js'
import { parseResourceName, resourceName } from '../domain/names.js'
import { parseLabelSelector } from '../domain/selector.js'
import type { ClaimTime } from '../domain/pool/pool.js'
import type { PoolContent, ShownPool } from '../store/pools.js'
import type { ProviderPoolRow } from '../store/tables.js'
import { checkedLabels, nameOf, toTime } from './convert.js'

// Pools between rows and protobuf.

const claimNumbers = {
  WORKSPACE_CREATED: hub.ClaimTime.WORKSPACE_CREATED,
  FIRST_ORDER: hub.ClaimTime.FIRST_ORDER,
  MANUAL: hub.ClaimTime.MANUAL,
} as const satisfies Record<ClaimTime, hub.ClaimTime>

export function poolNotFound(name: string, field = 'name'): HubError {
  const description = `there is no provider pool ${name}; \`slipway get providerpools\` lists them`
  return new HubError('POOL_NOT_FOUND', description, {
    metadata: { provider_pool: name },
    violations: [{ field, description }],
  })
}

export function poolExhausted(pool: Pick<ProviderPoolRow, 'name'>): HubError {
  return new HubError(
    'POOL_EXHAUSTED',
    `pool ${pool.name} has no provider left; add one to it, or release one that is not needed`,
    { metadata: { provider_pool: resourceName('provider_pool', pool.name) } },
  )
}

export function toPool(row: ShownPool): hub.ProviderPool {
  return create(hub.ProviderPoolSchema, {
    name: resourceName('provider_pool', row.name),
    uid: row.id,
    displayName: row.display_name,
    family: row.family,
    region: row.region,
    claimOn: claimNumbers[row.claim_on],
    organizations: row.organizations.map((name) => resourceName('organization', name)),
    workspaceSelector: row.workspace_selector,
    ...(row.included_hosts !== null && { includedHosts: row.included_hosts }),
    ...(row.trial_ms !== null && { trial: durationFromMs(row.trial_ms) }),
    ...(row.idle_release_ms !== null && { idleRelease: durationFromMs(row.idle_release_ms) }),
    unlessOwn: row.unless_own,
    labels: { ...row.labels },
    annotations: { ...row.annotations },
    providers: row.providers,
    claimed: row.claimed,
    createTime: toTime(row.created_at),
    updateTime: toTime(row.updated_at),
    etag: String(row.version),
  })
}

/** @throws HubError INVALID_FIELD, INVALID_LABEL_SELECTOR. */
export function fromPool(given: hub.ProviderPool): PoolContent {
  parseLabelSelector(given.workspaceSelector)
  return {
    displayName: given.displayName,
    claimOn: nameOf(claimNumbers, given.claimOn) ?? 'FIRST_ORDER',
    organizations: given.organizations.map((name, index) =>
      parseResourceName('organization', name, `provider_pool.organizations[${index}]`),
    ),
    workspaceSelector: given.workspaceSelector,
    includedHosts: given.includedHosts ?? null,
    trialMs: given.trial === undefined ? null : Math.round(durationMs(given.trial)),
    idleReleaseMs: given.idleRelease === undefined ? null : Math.round(durationMs(given.idleRelease)),
    unlessOwn: given.unlessOwn,
    labels: checkedLabels(given.labels, 'provider_pool.labels'),
    annotations: given.annotations,
  }
}
