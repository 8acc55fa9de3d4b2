import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import * as wire from '@slipway/proto/provider/v1'
import { hostName, resourceName } from '../domain/names.js'
import type { StoredBudget } from '../domain/provider/provider.js'
import type {
  EventRow,
  HostRow,
  MachineClassRow,
  MachineRequestRow,
  MachineRow,
  OfferingRow,
  ProviderRow,
} from '../store/tables.js'
import {
  capabilityNumbers,
  healthNumbers,
  hostStateNumbers,
  machineStateNumbers,
  requestStateNumbers,
  toAddresses,
  toBootstrap,
  toClassOfferings,
  toConditions,
  toHardware,
  toKind,
  toLastError,
  toObject,
  toPlacement,
  toPower,
  toPrice,
  toProgress,
  toSelector,
  toSeverity,
  toShape,
  toTime,
} from './convert.js'
import { toOrphanPolicy } from './orphan-resources.js'

// Rows as resources. They are made of nothing but the row, so that a change record gives the same as a read; what only reads can tell is laid on top.

const etag = (row: { readonly version: number }) => String(row.version)
const named = (collection: 'provider' | 'machine' | 'machine_request', name: string | null) =>
  name === null ? '' : resourceName(collection, name)

/** What only a read can tell of a provider: its live sessions and what it offers. */
export interface ProviderDetails {
  readonly sessions: readonly {
    readonly id: string
    readonly instance_id: string
    readonly instance_name: string
    readonly replica: string
    readonly sdk: string
    readonly provider_version: string
    readonly capacity: number
    readonly held: number
    readonly connected_at: Date
    readonly heartbeat_at: Date
    readonly budgets: readonly Partial<StoredBudget>[]
  }[]
  readonly offerings: readonly OfferingRow[]
}

export function toProvider(row: ProviderRow, details?: ProviderDetails): hub.Provider {
  const connections = {
    PENDING: hub.ProviderState.PENDING,
    CONNECTED: hub.ProviderState.CONNECTED,
    DISCONNECTED: hub.ProviderState.DISCONNECTED,
  }
  return create(hub.ProviderSchema, {
    name: resourceName('provider', row.name),
    uid: row.id,
    family: row.family,
    kind: toKind(row.kind),
    config: toObject(row.config),
    labels: { ...row.labels },
    annotations: { ...row.annotations },
    autoAcceptMachines: row.auto_accept_machines,
    draining: row.draining,
    state: row.draining ? hub.ProviderState.DRAINING : connections[row.state],
    health: healthNumbers[row.health],
    healthMessage: row.health_message,
    conditions: toConditions(row.conditions),
    lastError: toLastError(row.last_error),
    capabilities: row.capabilities.map((capability) => capabilityNumbers[capability]),
    configSchema: row.config_schema,
    dataSchema: row.data_schema,
    configVersion: BigInt(row.config_version),
    ...(row.kind === 'DYNAMIC' && { orphanPolicy: toOrphanPolicy(row) }),
    orphanRemovalStopTime: toTime(row.orphan_stopped_at),
    hasCredentials: row.has_credentials,
    offeringsTime: toTime(row.offerings_at),
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
    offerings: (details?.offerings ?? []).map((offering) =>
      create(wire.OfferingSchema, {
        typeId: offering.type_id,
        location: offering.location,
        shape: toShape(offering.shape),
        price: toPrice(offering.price),
        available: offering.available && (offering.held_until === null || offering.held_until.getTime() < Date.now()),
        ...(offering.remaining !== null && { remaining: offering.remaining }),
      }),
    ),
    createTime: toTime(row.created_at),
    updateTime: toTime(row.updated_at),
    etag: etag(row),
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

export function toMachineClass(row: MachineClassRow): hub.MachineClass {
  return create(hub.MachineClassSchema, {
    name: resourceName('machine_class', row.name),
    uid: row.id,
    displayName: row.display_name,
    shape: toShape(row.shape),
    offerings: toClassOfferings(row.offerings),
    machineSelector: toSelector(row.machine_selector),
    bootstrap: toBootstrap(row.bootstrap),
    labels: { ...row.labels },
    annotations: { ...row.annotations },
    autoCreated: row.auto_created,
    createTime: toTime(row.created_at),
    updateTime: toTime(row.updated_at),
    etag: etag(row),
  })
}

export function toMachine(row: MachineRow): hub.Machine {
  return create(hub.MachineSchema, {
    name: resourceName('machine', row.name),
    uid: row.id,
    provider: resourceName('provider', row.provider_name),
    static: row.static,
    externalId: row.external_id,
    state: machineStateNumbers[row.state],
    hardware: toHardware(row.hardware),
    addresses: toAddresses(row.addresses),
    power: toPower(row.power),
    desiredPower: toPower(row.desired_power),
    reboots: BigInt(row.reboots),
    rebootsDone: BigInt(row.reboots_done),
    reinstalls: BigInt(row.reinstalls),
    reinstallsDone: BigInt(row.reinstalls_done),
    desiredRescue: row.desired_rescue,
    rescue: row.rescue,
    host: row.host_name ?? '',
    machineRequest: named('machine_request', row.request_name),
    labels: { ...row.provider_labels, ...row.labels },
    annotations: { ...row.annotations },
    maintenance: row.maintenance,
    cordoned: row.cordoned,
    protected: row.protected,
    conditions: toConditions(row.conditions),
    lastError: toLastError(row.last_error),
    attributes: toObject(row.attributes),
    seenTime: toTime(row.seen_at),
    createTime: toTime(row.created_at),
    updateTime: toTime(row.updated_at),
    etag: etag(row),
  })
}

/** What only a read can tell of a request. */
export interface RequestDetails {
  readonly holder: string
  readonly fence: number
  readonly steps: readonly { readonly operation: string; readonly name: string; readonly at: Date }[]
}

export function toMachineRequest(row: MachineRequestRow, details?: RequestDetails): hub.MachineRequest {
  const presence = row.desired_presence === 'PRESENT' ? wire.Presence.PRESENT : wire.Presence.ABSENT
  return create(hub.MachineRequestSchema, {
    name: resourceName('machine_request', row.name),
    uid: row.id,
    provider: resourceName('provider', row.provider_name),
    host: row.host_name,
    machineClass: resourceName('machine_class', row.class_name),
    state: requestStateNumbers[row.state],
    desiredPresence: presence,
    desiredPower: toPower(row.desired_power),
    generation: BigInt(row.generation),
    observedGeneration: BigInt(row.observed_generation),
    typeId: row.type_id,
    location: row.location,
    price: toPrice(row.price),
    externalName: row.external_name,
    ownershipKey: row.ownership_key,
    externalId: row.external_id ?? '',
    machine: named('machine', row.machine_name),
    holder: details?.holder ?? '',
    fence: BigInt(details?.fence ?? 0),
    createInDoubt: row.create_in_doubt,
    progress: toProgress(row.progress),
    steps: (details?.steps ?? []).map((step) => ({
      operation: wire.Operation[step.operation as 'PROVISION' | 'REINSTALL' | 'DEPROVISION'],
      name: step.name,
      time: toTime(step.at),
    })),
    conditions: toConditions(row.conditions),
    lastError: toLastError(row.last_error),
    attributes: toObject(row.attributes),
    forgottenBy: row.forgotten_by ?? '',
    createTime: toTime(row.created_at),
    updateTime: toTime(row.updated_at),
    etag: etag(row),
  })
}

export function toHost(row: HostRow): hub.Host {
  return create(hub.HostSchema, {
    name: hostName(row.workspace_name, row.name),
    uid: row.id,
    hostname: row.hostname,
    machineClass: resourceName('machine_class', row.class_name),
    ...(row.shape !== null && { shape: toShape(row.shape) }),
    placement: toPlacement(row.placement),
    providerData: toObject(row.provider_data),
    labels: { ...row.labels },
    annotations: { ...row.annotations },
    protected: row.protected,
    state: hostStateNumbers[row.state],
    stateMessage: row.state_message,
    conditions: toConditions(row.conditions),
    lastError: toLastError(row.last_error),
    provider: named('provider', row.provider_name),
    machineRequest: named('machine_request', row.request_name),
    machine: named('machine', row.machine_name),
    addresses: toAddresses(row.addresses),
    power: toPower(row.power),
    price: toPrice(row.price),
    progress: toProgress(row.progress),
    attempts: row.attempts.map((attempt) => ({
      provider: resourceName('provider', attempt.provider),
      machineRequest: resourceName('machine_request', attempt.request),
      typeId: attempt.typeId,
      location: attempt.location,
      error: toLastError(attempt.error),
      startTime: toTime(attempt.startedAt),
    })),
    phoneHomeTime: toTime(row.phone_home_at),
    readyTime: toTime(row.ready_at),
    createTime: toTime(row.created_at),
    updateTime: toTime(row.updated_at),
    deleteTime: toTime(row.release_requested_at),
    etag: etag(row),
  })
}

export function toEvent(row: EventRow): hub.Event {
  return create(hub.EventSchema, {
    name: resourceName('event', row.event_id),
    time: toTime(row.at),
    subject: row.subject,
    related: [...row.related],
    reason: row.reason,
    message: row.message,
    severity: toSeverity(row.severity),
    actor: row.actor,
    requestId: row.request_id,
  })
}
