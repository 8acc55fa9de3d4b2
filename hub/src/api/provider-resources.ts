import { create, type MessageInitShape } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import * as wire from '@slipway/proto/provider/v1'
import type { Scopes } from '../domain/access/decide.js'
import { resourceName } from '../domain/names.js'
import { holds } from '../domain/placement/holds.js'
import type { StoredBudget } from '../domain/provider/provider.js'
import type { StoredHold } from '../store/capacity-holds.js'
import type { Db } from '../store/database.js'
import { findProvidersById, readProviderDetails, type ProviderDetails, type ShownProvider } from '../store/providers.js'
import type { OfferingRow, ProviderRow } from '../store/tables.js'
import {
  capabilityNumbers,
  failureNumbers,
  healthNumbers,
  toConditions,
  toKind,
  toLastError,
  toObject,
  toPrice,
  toShape,
  toTime,
} from './convert.js'
import { toOrphanPolicy } from './orphan-resources.js'

// Providers as resources: all of them for whoever runs them, and of what is somebody else's what is needed to choose it.

const connections = {
  PENDING: hub.ProviderState.PENDING,
  CONNECTED: hub.ProviderState.CONNECTED,
  DISCONNECTED: hub.ProviderState.DISCONNECTED,
}

/** What everybody sees who may use it. Changes from before there were owners lack the columns. */
function shownFields(row: ShownProvider, details?: ProviderDetails) {
  const { claim } = details ?? {}
  return {
    name: resourceName('provider', row.name),
    uid: row.id,
    family: row.family,
    kind: toKind(row.kind),
    labels: { ...row.labels },
    draining: row.draining,
    owner: row.owner_name ?? '',
    region: row.region ?? '',
    residency: [...(row.residency ?? [])],
    state: row.draining ? hub.ProviderState.DRAINING : connections[row.state],
    health: healthNumbers[row.health],
    capabilities: row.capabilities.map((capability) => capabilityNumbers[capability]),
    dataSchema: row.data_schema,
    ...(claim !== undefined && {
      claim: {
        workspace: resourceName('workspace', claim.workspace_name),
        claimTime: toTime(claim.claimed_at),
        trialEndTime: toTime(claim.trial_ends_at),
        ...(claim.included_hosts !== null && { includedHosts: claim.included_hosts }),
      },
    }),
    offeringsTime: toTime(row.offerings_at),
    offerings: (details?.offerings ?? []).map((offering) =>
      create(wire.OfferingSchema, {
        typeId: offering.type_id,
        location: offering.location,
        shape: toShape(offering.shape),
        price: toPrice(offering.price),
        available: offering.available && !isHeldBack(offering, details?.holds ?? []),
        ...(offering.remaining !== null && { remaining: offering.remaining }),
      }),
    ),
    createTime: toTime(row.created_at),
    updateTime: toTime(row.updated_at),
    etag: String(row.version),
  } satisfies MessageInitShape<typeof hub.ProviderSchema>
}

export function toProvider(row: ProviderRow, details?: ProviderDetails): hub.Provider {
  return create(hub.ProviderSchema, {
    ...shownFields(row, details),
    config: toObject(row.config),
    annotations: { ...row.annotations },
    autoAcceptMachines: row.auto_accept_machines,
    pool: (row.pool_name ?? '') === '' ? '' : resourceName('provider_pool', row.pool_name),
    healthMessage: row.health_message,
    conditions: toConditions(row.conditions),
    lastError: toLastError(row.last_error),
    configSchema: row.config_schema,
    configVersion: BigInt(row.config_version),
    ...(row.kind === 'DYNAMIC' && { orphanPolicy: toOrphanPolicy(row) }),
    orphanRemovalStopTime: toTime(row.orphan_stopped_at),
    hasCredentials: row.has_credentials,
    // Changes from before there were secrets lack the column.
    credentialsSecret: row.credentials_secret ?? '',
    ...(details !== undefined && { capacity: toCapacity(details), holds: details.holds.map(toHold) }),
    sessions: (details?.sessions ?? []).map((session) => ({
      sessionId: session.id,
      instanceId: session.instance_id,
      instanceName: session.instance_name,
      replica: session.replica,
      sdk: session.sdk,
      providerVersion: session.provider_version,
      capacity: session.capacity,
      held: session.held,
      connectTime: toTime(session.connected_at),
      heartbeatTime: toTime(session.heartbeat_at),
      budgets: session.budgets.map(toBudget),
    })),
  })
}

/** Whether an offering is held back in the ordinary market. */
function isHeldBack({ type_id: typeId, location, shape }: OfferingRow, stored: readonly StoredHold[]): boolean {
  const place = { typeId, location, shape, market: '' }
  return stored.some((hold) => holds({ ...hold, provider: hold.toldName, until: hold.heldUntil.toISOString() }, place))
}

function toHold(hold: StoredHold): MessageInitShape<typeof hub.CapacityHoldSchema> {
  return {
    code: failureNumbers[hold.code],
    ...{ typeId: hold.typeId, location: hold.location, market: hold.market, reason: hold.reason },
    provider: resourceName('provider', hold.toldName),
    holdTime: toTime(hold.heldAt),
    expireTime: toTime(hold.heldUntil),
  }
}

function toCapacity({ sessions, waiting, machines, availableMachines }: ProviderDetails) {
  return {
    capacity: sessions.reduce((sum, session) => sum + session.capacity, 0),
    held: sessions.reduce((sum, session) => sum + session.held, 0),
    waiting,
    machines,
    availableMachines,
  }
}

/** Whether a provider belongs to one of these places: whoever is in charge there sees all of it. */
function isOwned(row: ShownProvider, { organizationIds, workspaces }: Scopes): boolean {
  const workspace = row.owner_workspace_id === null ? undefined : row.owner_name.slice('workspaces/'.length)
  return (
    (row.owner_organization_id !== null && organizationIds.includes(row.owner_organization_id)) ||
    (workspace !== undefined && workspaces.includes(workspace))
  )
}

/** Providers for whoever may see everything. */
export async function presentAll(db: Db, rows: readonly ProviderRow[]): Promise<hub.Provider[]> {
  const details = await readProviderDetails(
    db,
    rows.map((row) => row.id),
  )
  return rows.map((row) => toProvider(row, details.get(row.id)))
}

/**
 * Providers as a tenant may see them, in their order.
 *
 * @param db the hub's own: it is asked for more of those alone that the caller has been shown.
 */
export async function presentTo(db: Db, rows: readonly ShownProvider[], scopes: Scopes): Promise<hub.Provider[]> {
  const owned = rows.filter((row) => isOwned(row, scopes)).map((row) => row.id)
  const details = await readProviderDetails(
    db,
    rows.map((row) => row.id),
  )
  const whole = new Map((await findProvidersById(db, owned)).map((row) => [row.id, row]))
  return rows.map((row) => {
    const own = whole.get(row.id)
    return own === undefined
      ? create(hub.ProviderSchema, shownFields(row, details.get(row.id)))
      : toProvider(own, details.get(row.id))
  })
}

/** One that an older hub has stored says nothing of when. */
function toBudget({ name, limit, remaining, resetsInMs = 0, toldAt }: Partial<StoredBudget>) {
  const at = toldAt === undefined ? null : new Date(toldAt)
  return {
    name: name ?? '',
    limit: limit ?? 0,
    remaining: remaining ?? 0,
    resetTime: toTime(at === null ? null : new Date(at.getTime() + resetsInMs)),
    observeTime: toTime(at),
  }
}
