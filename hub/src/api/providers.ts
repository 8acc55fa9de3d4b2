import { create } from '@bufbuild/protobuf'
import { durationMs } from '@bufbuild/protobuf/wkt'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { ProviderKind } from '@slipway/proto/provider/v1'
import { HubError, invalidField } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { parseResourceName, resourceName } from '../domain/names.js'
import { matchesLabels, parseLabelSelector } from '../domain/selector.js'
import { releaseHolds } from '../store/capacity-holds.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import { createJoinToken } from '../store/join-tokens.js'
import { holdPlacing } from '../store/pools.js'
import {
  countProviderUse,
  deleteProvider,
  findProvider,
  findShownProvider,
  insertProvider,
  listProviders,
  listShownProviders,
  lockProvider,
  updateProvider,
  type ProviderListFilter,
} from '../store/providers.js'
import type { ProviderRow } from '../store/tables.js'
import {
  causeOf,
  checkEtag,
  createOnce,
  databaseOf,
  decodePageToken,
  maskedPaths,
  pageSize,
  readPage,
  scopesOfCall,
  tryOut,
  type ApiDeps,
} from './context.js'
import { checkedLabels, fromKind, fromObject, nameOf, toTime } from './convert.js'
import { fromOrphanPolicy } from './orphan-resources.js'
import {
  changedText,
  changeOf,
  changeOfUse,
  changesUse,
  checkConfiguration,
  credentialsOf,
  immutable,
  mutableFields,
  ownerOf,
  poolOf,
  refusePolicy,
  setPaths,
  withoutSameSecret,
} from './provider-change.js'
import { presentAll, presentTo, toProvider } from './provider-resources.js'
import { watchResources, type WatchParts } from './watch.js'

const defaultTtlMs = 3_600_000
const stateNumbers = {
  PENDING: hub.ProviderState.PENDING,
  CONNECTED: hub.ProviderState.CONNECTED,
  DISCONNECTED: hub.ProviderState.DISCONNECTED,
  DRAINING: hub.ProviderState.DRAINING,
} as const

export function providerNotFound(name: string): HubError {
  return new HubError('PROVIDER_NOT_FOUND', `there is no provider ${name}; \`slipway get providers\` lists them`, {
    metadata: { provider: name },
  })
}

function filterOf(filter: hub.ProviderFilter | undefined): ProviderListFilter {
  parseLabelSelector(filter?.labelSelector ?? '')
  return {
    states: (filter?.states ?? []).flatMap((state) => nameOf(stateNumbers, state) ?? []),
    families: filter?.families ?? [],
    labelSelector: filter?.labelSelector ?? '',
  }
}

function matches(filter: ProviderListFilter, name: string, row: ProviderRow): boolean {
  const state = row.draining ? 'DRAINING' : row.state
  return (
    (name === '' || row.name === name) &&
    (filter.states.length === 0 || filter.states.includes(state)) &&
    (filter.families.length === 0 || filter.families.includes(row.family)) &&
    matchesLabels(parseLabelSelector(filter.labelSelector), row.labels)
  )
}

function changedMeanwhile(name: string): HubError {
  return new HubError(
    'ETAG_MISMATCH',
    `${name} has changed while it was being changed; read it again and redo the change`,
  )
}

function event(row: Pick<ProviderRow, 'id' | 'name'>, reason: EventDraft['reason'], message: string): EventDraft {
  return { subject: resourceName('provider', row.name), reason, message, severity: 'INFO', providerId: row.id }
}

export function providerService(deps: ApiDeps, parts: WatchParts): ServiceImpl<typeof hub.ProviderService> {
  const present = (context: HandlerContext, rows: readonly ProviderRow[]): Promise<hub.Provider[]> => {
    const within = scopesOfCall(context)
    return within === undefined ? presentAll(deps.db, rows) : presentTo(deps.db, rows, within)
  }
  const insert = async (
    tx: Tx,
    request: hub.CreateProviderRequest,
    cause: ReturnType<typeof causeOf>,
  ): Promise<hub.CreateProviderResponse> => {
    const given = request.provider ?? create(hub.ProviderSchema)
    const row = await insertProvider(tx, deps.keyring, {
      name: request.providerId,
      family: given.family,
      kind: fromKind(given.kind),
      config: fromObject(given.config),
      credentials: (await credentialsOf(tx, deps.keyring, given, new Set(mutableFields), false)) ?? { kind: 'none' },
      labels: checkedLabels(given.labels, 'provider.labels'),
      annotations: given.annotations,
      autoAcceptMachines: given.autoAcceptMachines,
      draining: given.draining,
      orphanPolicy: fromOrphanPolicy(given.orphanPolicy),
      region: given.region,
      residency: given.residency,
      owner: await ownerOf(tx, given.owner),
      pool: await poolOf(tx, given.pool, given),
    })
    await appendEvents(tx, cause, [event(row, 'ProviderAdded', `Added as ${row.kind.toLowerCase()} ${row.family}`)])
    return create(hub.CreateProviderResponseSchema, { provider: toProvider(row) })
  }
  return {
    async createProvider(request, context) {
      if (request.provider?.family === '')
        throw invalidField('provider.family', 'is missing; say which kind of API is behind it')
      if (request.provider?.kind === ProviderKind.UNSPECIFIED)
        throw invalidField('provider.kind', 'is missing; say whether it is static or dynamic')
      if (request.provider !== undefined) refusePolicy(request.provider, fromKind(request.provider.kind))
      if (
        (await findProvider(databaseOf(deps, context), request.providerId)) !== undefined &&
        request.requestId === ''
      ) {
        throw new HubError('NAME_TAKEN', `provider_id: ${request.providerId} is in use; choose another name`, {
          violations: [{ field: 'provider_id', description: 'is in use; choose another name' }],
        })
      }
      if (request.validateOnly) return tryOut(databaseOf(deps, context), (tx) => insert(tx, request, causeOf(context)))
      return createOnce(deps, context, {
        requestId: request.requestId,
        request: { schema: hub.CreateProviderRequestSchema, message: request },
        response: hub.CreateProviderResponseSchema,
        wake: [],
        work: (tx) => insert(tx, request, causeOf(context)),
      })
    },

    async getProvider(request, context) {
      const name = parseResourceName('provider', request.name)
      const within = scopesOfCall(context)
      if (within === undefined) {
        const row = await findProvider(deps.db, name)
        if (row === undefined) throw providerNotFound(name)
        return { provider: (await presentAll(deps.db, [row]))[0] }
      }
      const shown = await findShownProvider(databaseOf(deps, context), name, within)
      if (shown === undefined) throw providerNotFound(name)
      return { provider: (await presentTo(deps.db, [shown], within))[0] }
    },

    async listProviders(request, context) {
      const filter = filterOf(request.filter)
      const list = JSON.stringify(['providers', filter])
      const after = decodePageToken(deps, request.pageToken, list)
      const from = String(after?.[0] ?? '')
      const common = { size: pageSize(request.pageSize), list, keyOf: (row: { readonly name: string }) => [row.name] }
      const within = scopesOfCall(context)
      if (within === undefined) {
        const page = await readPage(deps, context, {
          ...common,
          read: (tx, limit) => listProviders(tx, filter, from, limit),
        })
        const { rows, nextPageToken, revision } = page
        return { providers: await presentAll(deps.db, rows), nextPageToken, revision }
      }
      const page = await readPage(deps, context, {
        ...common,
        read: (tx, limit) => listShownProviders(tx, { ...filter, within }, from, limit),
      })
      const { rows, nextPageToken, revision } = page
      return { providers: await presentTo(deps.db, rows, within), nextPageToken, revision }
    },

    async updateProvider(request, context) {
      const given = request.provider ?? create(hub.ProviderSchema)
      const name = parseResourceName('provider', given.name, 'provider.name')
      const explicit = request.updateMask !== undefined
      const paths = setPaths(given, maskedPaths(request.updateMask?.paths, mutableFields), explicit)
      const before = await findProvider(databaseOf(deps, context), name)
      if (before === undefined) throw providerNotFound(name)
      if (given.family !== '' && given.family !== before.family) throw immutable('provider.family')
      if (given.kind !== ProviderKind.UNSPECIFIED && fromKind(given.kind) !== before.kind)
        throw immutable('provider.kind')
      refusePolicy(given, before.kind)
      const row = await inTransaction(databaseOf(deps, context), async (tx) => {
        const moves = changesUse(before, given, paths)
        if (moves) await holdPlacing(tx)
        const credentials = await credentialsOf(tx, deps.keyring, given, paths, explicit)
        const locked = await lockProvider(tx, name)
        if (locked === undefined) throw providerNotFound(name)
        checkEtag(given.etag, locked, given.name)
        // Somebody has changed it since it was looked at first: hosts may be placed there at this moment.
        if (!moves && changesUse(locked, given, paths)) throw changedMeanwhile(given.name)
        const change = withoutSameSecret(locked, {
          ...changeOf(given, paths, explicit),
          ...(credentials !== undefined && { credentials }),
          ...(await changeOfUse(tx, locked, given, paths)),
        })
        checkConfiguration(locked, change)
        if (request.validateOnly) return locked
        const updated = await updateProvider(tx, deps.keyring, locked, change)
        const drains = updated.draining !== locked.draining
        await appendEvents(tx, causeOf(context), [
          ...(locked.orphan_stopped_at !== null && updated.orphan_stopped_at === null
            ? [event(updated, 'OrphanRemovalResumed', 'Its orphan policy was set anew; removal goes on')]
            : []),
          ...(updated.version === locked.version && change.credentials === undefined
            ? []
            : [event(updated, 'ProviderUpdated', changedText(locked, updated, change))]),
          ...(drains
            ? [
                event(
                  updated,
                  updated.draining ? 'ProviderDraining' : 'ProviderUndrained',
                  updated.draining ? 'It gets no new orders' : 'It gets new orders again',
                ),
              ]
            : []),
        ])
        return updated
      })
      deps.wake.signal({ kind: 'provider', providerId: row.id }, { kind: 'change' }, { kind: 'host' })
      return { provider: (await presentAll(deps.db, [row]))[0] }
    },

    async deleteProvider(request, context) {
      const name = parseResourceName('provider', request.name)
      const deleted = await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockProvider(tx, name)
        if (locked === undefined) {
          if (request.allowMissing) return undefined
          throw providerNotFound(name)
        }
        checkEtag(request.etag, locked, request.name)
        const use = await countProviderUse(tx, locked.id)
        if (use.requests + use.machines > 0) {
          throw new HubError(
            'PROVIDER_IN_USE',
            `provider ${name} has ${use.requests} machine requests and ${use.machines} machines; drain it, and release or remove them first`,
            {
              metadata: { machine_requests: String(use.requests), machines: String(use.machines) },
            },
          )
        }
        const orphans = await deleteProvider(tx, locked.id)
        const text =
          orphans === 0 ? 'Deleted' : `Deleted; ${orphans} orphans of it may still exist, and are looked for no more`
        await appendEvents(tx, causeOf(context), [event(locked, 'ProviderDeleted', text)])
        return locked.id
      })
      if (deleted !== undefined) deps.wake.signal({ kind: 'provider', providerId: deleted }, { kind: 'change' })
      return {}
    },

    async *watchProviders(request, context) {
      const name = request.name === '' ? '' : parseResourceName('provider', request.name)
      const filter = filterOf(request.filter)
      const named = (row: ProviderRow) => name === '' || row.name === name
      const within = scopesOfCall(context)
      // What a tenant is shown lacks columns that are only read for those who may see them.
      const existing = async (tx: Tx, after: string, limit: number) =>
        within === undefined
          ? listProviders(tx, filter, after, limit)
          : ((await listShownProviders(tx, { ...filter, within }, after, limit)) as readonly ProviderRow[])
      const watched = watchResources<ProviderRow>(parts, context, {
        resource: 'provider',
        revision: request.revision,
        matches: (row) => matches(filter, name, row),
        existing: async (tx, last, limit) => (await existing(tx, last?.name ?? '', limit)).filter(named),
      })
      for await (const { changes, revision, synced } of watched) {
        const providers = await present(
          context,
          changes.map(({ row }) => row),
        )
        yield {
          changes: changes.map(({ type }, index) => ({ type, provider: providers[index] })),
          revision,
          synced,
        }
      }
    },

    async createJoinToken(request, context) {
      const name = parseResourceName('provider', request.provider, 'provider')
      const ttlMs = request.ttl === undefined ? defaultTtlMs : Math.round(durationMs(request.ttl))
      const made = await inTransaction(databaseOf(deps, context), async (tx) => {
        const row = await lockProvider(tx, name)
        if (row === undefined) throw providerNotFound(name)
        return createJoinToken(tx, {
          providerId: row.id,
          providerName: row.name,
          ttlMs,
          fingerprint: deps.authority.fingerprint,
          cause: causeOf(context),
        })
      })
      deps.wake.signal({ kind: 'change' })
      return { joinToken: made.token, expireTime: toTime(made.expiresAt), gatewayAddress: deps.config.gatewayAdvertise }
    },

    async releaseHolds(request, context) {
      const name = parseResourceName('provider', request.name)
      const released = await inTransaction(databaseOf(deps, context), async (tx) => {
        const row = await lockProvider(tx, name)
        if (row === undefined) throw providerNotFound(name)
        const count = await releaseHolds(tx, row.id, { typeId: request.typeId, location: request.location })
        if (count > 0) {
          const what = [request.typeId, request.location].filter((part) => part !== '').join(' in ')
          const text = `${count === 1 ? 'One hold' : `${count} holds`}${what === '' ? '' : ` on ${what}`} ended: it is offered again`
          await appendEvents(tx, causeOf(context), [event(row, 'CapacityReleased', text)])
        }
        return count
      })
      if (released > 0) deps.wake.signal({ kind: 'change' })
      return { released }
    },
  }
}
