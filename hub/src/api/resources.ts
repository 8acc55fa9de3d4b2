import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import type { RequestOperation } from '../domain/request/request.js'
import * as wire from '@slipway/proto/provider/v1'
import type { Pause } from '../domain/machine/pause.js'
import { holdOf, maintenanceOf } from '../store/machine-pause.js'
import { hostName, hostSetName, resourceName } from '../domain/names.js'
import type { EventRow, HostRow, MachineClassRow, MachineRequestRow, MachineRow } from '../store/tables.js'
import {
  hostStateNumbers,
  machineStateNumbers,
  requestStateNumbers,
  toAddresses,
  toBootstrap,
  toClassOfferings,
  toConditions,
  toHardware,
  toLastError,
  toObject,
  toPlacement,
  toPower,
  toPriority,
  toPrice,
  toProgress,
  toSelector,
  toSeverity,
  toShape,
  toTime,
} from './convert.js'

// Rows as resources. They are made of nothing but the row, so that a change record gives the same as a read; what only reads can tell is laid on top.

const etag = (row: { readonly version: number }) => String(row.version)
const named = (collection: 'provider' | 'machine' | 'machine_request', name: string | null) =>
  name === null ? '' : resourceName(collection, name)

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

function toPause(pause: Pause | null) {
  if (pause === null) return undefined
  return { by: pause.by, bySystem: pause.bySystem, reason: pause.reason, sinceTime: toTime(pause.at) }
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
    inUse: row.in_use,
    ...(row.maintenance && { maintenanceDetails: toPause(maintenanceOf(row)) }),
    ...(row.hold_at !== null && { hold: toPause(holdOf(row)) }),
    ...(row.waiting_at !== null && {
      waiting: {
        message: row.waiting_for,
        sinceTime: toTime(row.waiting_at),
        deadlineTime: toTime(row.waiting_until_at),
      },
    }),
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
      operation: wire.Operation[step.operation as RequestOperation],
      name: step.name,
      time: toTime(step.at),
    })),
    conditions: toConditions(row.conditions),
    lastError: toLastError(row.last_error),
    attributes: toObject(row.attributes),
    forgottenBy: row.forgotten_by ?? '',
    adoptExternalId: row.adopt_external_id ?? '',
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
    priority: toPriority(row.priority),
    // Changes from before there were keys lack the column.
    sshPublicKeys: [...((row.ssh_public_keys as readonly string[] | undefined) ?? [])],
    expireTime: toTime(row.expires_at),
    // Changes from before there were sets lack the column.
    hostSet: (row.host_set_name ?? null) === null ? '' : hostSetName(row.workspace_name, row.host_set_name ?? ''),
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
    ...(row.count > 1 && { count: BigInt(row.count) }),
    lastTime: toTime(row.last_at),
  })
}
