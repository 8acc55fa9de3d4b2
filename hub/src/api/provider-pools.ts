import { create } from '@bufbuild/protobuf'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { HubError, invalidField } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { parseResourceName, resourceName } from '../domain/names.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import {
  claimEvent,
  claimFromPool,
  countLeft,
  deletePool,
  findPool,
  holdPlacing,
  insertPool,
  listPools,
  lockPool,
  releaseClaim,
  updatePool,
  type PoolContent,
} from '../store/pools.js'
import { findProvider, lockProvider } from '../store/providers.js'
import type { ProviderPoolRow, ProviderRow } from '../store/tables.js'
import { findWorkspace } from '../store/tenancy.js'
import {
  causeOf,
  checkEtag,
  createOnce,
  databaseOf,
  decodePageToken,
  maskedPaths,
  nameTaken,
  pageSize,
  readPage,
  tryOut,
  type ApiDeps,
} from './context.js'
import { workspaceNotFound } from './not-found.js'
import { fromPool, poolExhausted, poolNotFound, toPool } from './pool-resources.js'
import { immutable } from './provider-change.js'
import { presentAll } from './provider-resources.js'
import { providerNotFound } from './providers.js'

const columnsOf = {
  display_name: 'displayName',
  claim_on: 'claimOn',
  organizations: 'organizations',
  workspace_selector: 'workspaceSelector',
  included_hosts: 'includedHosts',
  trial: 'trialMs',
  idle_release: 'idleReleaseMs',
  unless_own: 'unlessOwn',
  labels: 'labels',
  annotations: 'annotations',
} as const satisfies Record<string, keyof PoolContent>
const mutable = Object.keys(columnsOf) as (keyof typeof columnsOf)[]

function event(row: ProviderPoolRow, reason: EventDraft['reason'], message: string): EventDraft {
  return { subject: resourceName('provider_pool', row.name), reason, message, severity: 'INFO' }
}

function contentOf(row: ProviderPoolRow): PoolContent {
  return {
    displayName: row.display_name,
    claimOn: row.claim_on,
    organizations: row.organizations,
    workspaceSelector: row.workspace_selector,
    includedHosts: row.included_hosts,
    trialMs: row.trial_ms,
    idleReleaseMs: row.idle_release_ms,
    unlessOwn: row.unless_own,
    labels: row.labels,
    annotations: row.annotations,
  }
}

async function createPool(
  deps: ApiDeps,
  request: hub.CreateProviderPoolRequest,
  context: HandlerContext,
): Promise<hub.CreateProviderPoolResponse> {
  const given = request.providerPool ?? create(hub.ProviderPoolSchema)
  if (given.family === '')
    throw invalidField('provider_pool.family', 'is missing; say of which family its providers are')
  const content = fromPool(given)
  const work = async (tx: Tx) => {
    const name = request.providerPoolId
    const row = await insertPool(tx, { ...content, name, family: given.family, region: given.region })
    if (row === undefined) throw nameTaken('provider_pool_id', name)
    await appendEvents(tx, causeOf(context), [event(row, 'PoolCreated', `Made, for ${row.family}`)])
    return create(hub.CreateProviderPoolResponseSchema, { providerPool: toPool(row) })
  }
  if (request.validateOnly) return tryOut(databaseOf(deps, context), work)
  return createOnce(deps, context, {
    requestId: request.requestId,
    request: { schema: hub.CreateProviderPoolRequestSchema, message: request },
    response: hub.CreateProviderPoolResponseSchema,
    wake: [],
    work,
  })
}

async function changePool(
  deps: ApiDeps,
  request: hub.UpdateProviderPoolRequest,
  context: HandlerContext,
): Promise<hub.UpdateProviderPoolResponse> {
  const given = request.providerPool ?? create(hub.ProviderPoolSchema)
  const name = parseResourceName('provider_pool', given.name, 'provider_pool.name')
  const paths = maskedPaths(request.updateMask?.paths, mutable)
  const wanted = fromPool(given)
  const row = await inTransaction(databaseOf(deps, context), async (tx) => {
    const locked = await lockPool(tx, name)
    if (locked === undefined) throw poolNotFound(given.name, 'provider_pool.name')
    checkEtag(given.etag, locked, given.name)
    if (given.family !== '' && given.family !== locked.family) throw immutable('provider_pool.family')
    if (given.region !== '' && given.region !== locked.region) throw immutable('provider_pool.region')
    const changed = Object.fromEntries([...paths].map((path) => [columnsOf[path], wanted[columnsOf[path]]]))
    if (request.validateOnly) return locked
    const updated = await updatePool(tx, locked, { ...contentOf(locked), ...changed })
    if (updated.version !== locked.version)
      await appendEvents(tx, causeOf(context), [
        event(updated, 'PoolUpdated', 'Changed; what is claimed stays as it was claimed'),
      ])
    return updated
  })
  deps.wake.signal({ kind: 'change' })
  return create(hub.UpdateProviderPoolResponseSchema, { providerPool: toPool(row) })
}

async function deletePoolNamed(
  deps: ApiDeps,
  request: hub.DeleteProviderPoolRequest,
  context: HandlerContext,
): Promise<void> {
  const name = parseResourceName('provider_pool', request.name)
  await inTransaction(databaseOf(deps, context), async (tx) => {
    const locked = await lockPool(tx, name)
    if (locked === undefined) {
      if (request.allowMissing) return
      throw poolNotFound(request.name)
    }
    checkEtag(request.etag, locked, request.name)
    if (locked.providers > 0)
      throw new HubError(
        'POOL_IN_USE',
        `${request.name} has ${locked.providers} providers; take them out of it first`,
        {
          metadata: { providers: String(locked.providers) },
        },
      )
    await deletePool(tx, locked)
    await appendEvents(tx, causeOf(context), [event(locked, 'PoolDeleted', 'Deleted')])
  })
  deps.wake.signal({ kind: 'change' })
}

async function claim(deps: ApiDeps, request: hub.ClaimProviderRequest, context: HandlerContext): Promise<ProviderRow> {
  const poolName = parseResourceName('provider_pool', request.name)
  const workspaceName = parseResourceName('workspace', request.workspace, 'workspace')
  const row = await inTransaction(databaseOf(deps, context), async (tx) => {
    const pool = await findPool(tx, poolName)
    if (pool === undefined) throw poolNotFound(request.name)
    const workspace = await findWorkspace(tx, workspaceName)
    if (workspace === undefined) throw workspaceNotFound(workspaceName)
    const claimed = await claimFromPool(tx, pool, workspace)
    if (claimed.kind === 'exhausted') throw poolExhausted(pool)
    if (claimed.fresh)
      await appendEvents(tx, causeOf(context), [
        claimEvent(claimed.provider, workspace, 'ProviderClaimed', `Claimed of pool ${pool.name} by hand`),
      ])
    return claimed.provider
  })
  // Hosts may be waiting for just that.
  deps.wake.signal({ kind: 'change' }, { kind: 'host' })
  return row
}

async function release(
  deps: ApiDeps,
  request: hub.ReleaseProviderRequest,
  context: HandlerContext,
): Promise<ProviderRow> {
  const name = parseResourceName('provider', request.name)
  const row = await inTransaction(databaseOf(deps, context), async (tx) => {
    await holdPlacing(tx)
    const locked = await lockProvider(tx, name)
    if (locked === undefined) throw providerNotFound(name)
    if (locked.pool_id === null) throw invalidField('name', `${request.name} is of no pool, and claimed by nobody`)
    if (locked.claim_workspace_id === null) return locked
    const left = await countLeft(tx, locked.id)
    if (left > 0)
      throw new HubError(
        'PROVIDER_IN_USE',
        `${request.name} still has ${left} servers or machines of workspace ${locked.claim_workspace_name}; release its hosts first`,
        { metadata: { left: String(left) } },
      )
    await appendEvents(tx, causeOf(context), await releaseClaim(tx, locked, 'by hand'))
    return (await findProvider(tx, name)) ?? locked
  })
  deps.wake.signal({ kind: 'change' }, { kind: 'host' })
  return row
}

export function providerPoolService(deps: ApiDeps): ServiceImpl<typeof hub.ProviderPoolService> {
  const detailed = async (row: ProviderRow) => (await presentAll(deps.db, [row]))[0]
  return {
    createProviderPool: (request, context) => createPool(deps, request, context),

    async getProviderPool(request, context) {
      const row = await findPool(databaseOf(deps, context), parseResourceName('provider_pool', request.name))
      if (row === undefined) throw poolNotFound(request.name)
      return { providerPool: toPool(row) }
    },

    async listProviderPools(request, context) {
      const list = 'providerPools'
      const after = decodePageToken(deps, request.pageToken, list)
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) => listPools(tx, String(after?.[0] ?? ''), limit),
        keyOf: (row) => [row.name],
      })
      return { providerPools: page.rows.map(toPool), nextPageToken: page.nextPageToken }
    },

    updateProviderPool: (request, context) => changePool(deps, request, context),

    async deleteProviderPool(request, context) {
      await deletePoolNamed(deps, request, context)
      return {}
    },

    async claimProvider(request, context) {
      return { provider: await detailed(await claim(deps, request, context)) }
    },

    async releaseProvider(request, context) {
      return { provider: await detailed(await release(deps, request, context)) }
    },
  }
}
