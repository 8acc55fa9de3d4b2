import { sql } from 'kysely'
import type { HostRecord, HostView, RequestView } from '../domain/host/record.js'
import { hostName } from '../domain/names.js'
import type { Db, Tx } from './database.js'
import type { TakenHost } from './host-schedule.js'
import type { HostRow, MachineRequestRow } from './tables.js'

// What the reconciler reads and writes. Locks are taken in the one order: work items, requests, machines, hosts, and schedules last.

/** A host that is locked, with all that a decision about it needs. */
export interface LockedHost {
  readonly taken: TakenHost
  readonly row: HostRow
  readonly view: HostView
}

/** The database's clock: the only one that times are compared by. */
export async function databaseNow(db: Db): Promise<Date> {
  const result = await sql<{ now: Date }>`select clock_timestamp() as now`.execute(db)
  const row = result.rows[0]
  if (row === undefined) throw new Error('the database told no time')
  return row.now
}

export interface LockedHosts {
  readonly hosts: readonly LockedHost[]
  /** They were given another request at this very moment, and are to be looked at anew. */
  readonly changed: readonly TakenHost[]
}

/** Locks hosts and what is beneath them, and reads them. Hosts that are gone are left out. */
export async function lockHosts(tx: Tx, taken: readonly TakenHost[], graceUntil: Date): Promise<LockedHosts> {
  const hostIds = taken.map((host) => host.hostId)
  const before = await tx.selectFrom('hosts').select(['id', 'request_id']).where('id', 'in', hostIds).execute()
  const requestIds = before.flatMap((host) => (host.request_id === null ? [] : [host.request_id]))
  const requests = await lockRequests(tx, requestIds)
  const rows = await tx.selectFrom('hosts').selectAll().where('id', 'in', hostIds).orderBy('id').forUpdate().execute()
  const connections = await connectedSince(tx, [
    ...new Set([...requests.values()].map((request) => request.row.provider_id)),
  ])
  const now = await databaseNow(tx)
  const requestBefore = new Map(before.map((host) => [host.id, host.request_id]))
  const takenById = new Map(taken.map((host) => [host.hostId, host]))
  const hosts: LockedHost[] = []
  const changed: TakenHost[] = []
  for (const row of rows) {
    const host = takenById.get(row.id)
    if (host === undefined) continue
    if (requestBefore.get(row.id) !== row.request_id) {
      changed.push(host)
      continue
    }
    const request = row.request_id === null ? undefined : requests.get(row.request_id)
    const view: HostView = {
      host: toHostRecord(row),
      request: request === undefined ? null : toRequestView(request.row, request.neverClaimed),
      machineState: request?.machineState ?? null,
      connection: {
        connectedSince: (request === undefined ? undefined : connections.get(request.row.provider_id)) ?? null,
      },
      now,
      graceUntil,
    }
    hosts.push({ taken: host, row, view })
  }
  return { hosts, changed }
}

interface LockedRequest {
  readonly row: MachineRequestRow
  readonly neverClaimed: boolean
  readonly machineState: HostView['machineState']
}

async function lockRequests(tx: Tx, ids: readonly string[]): Promise<ReadonlyMap<string, LockedRequest>> {
  if (ids.length === 0) return new Map()
  const items = await tx
    .selectFrom('work_items')
    .select(['id', 'fence', 'session_id'])
    .where('id', 'in', ids)
    .orderBy('provider_id')
    .orderBy('id')
    .forUpdate()
    .execute()
  const unclaimed = new Set(items.filter((item) => item.fence === 0 && item.session_id === null).map((item) => item.id))
  const rows = await tx
    .selectFrom('machine_requests')
    .selectAll()
    .where('id', 'in', ids)
    .orderBy('id')
    .forUpdate()
    .execute()
  const machineIds = rows.flatMap((row) => (row.machine_id === null ? [] : [row.machine_id]))
  const machines =
    machineIds.length === 0
      ? []
      : await tx
          .selectFrom('machines')
          .select(['id', 'state'])
          .where('id', 'in', machineIds)
          .orderBy('id')
          .forUpdate()
          .execute()
  const stateOf = new Map(machines.map((machine) => [machine.id, machine.state]))
  return new Map(
    rows.map((row) => [
      row.id,
      {
        row,
        neverClaimed: row.state === 'PENDING' && unclaimed.has(row.id),
        machineState: row.machine_id === null ? null : (stateOf.get(row.machine_id) ?? null),
      },
    ]),
  )
}

async function connectedSince(db: Db, providerIds: readonly string[]): Promise<ReadonlyMap<string, Date>> {
  if (providerIds.length === 0) return new Map()
  const rows = await db
    .selectFrom('sessions')
    .select((select) => ['provider_id', select.fn.min('connected_at').as('since')])
    .where('provider_id', 'in', providerIds)
    .where('ended_at', 'is', null)
    .where(sql<boolean>`expires_at > clock_timestamp()`)
    .groupBy('provider_id')
    .execute()
  return new Map(rows.map((row) => [row.provider_id, row.since]))
}

/** Stores what a decision made of a host. Nothing is written where nothing has changed. */
export async function saveHost(tx: Tx, before: HostRecord, after: HostRecord): Promise<boolean> {
  const columns = hostColumns(after)
  if (JSON.stringify(columns) === JSON.stringify(hostColumns(before))) return false
  await tx
    .updateTable('hosts')
    .set(columns)
    .where('organization_id', '=', after.organizationId)
    .where('id', '=', after.id)
    .execute()
  return true
}

/** What the reconciler writes of a host. */
function hostColumns(host: HostRecord) {
  return {
    state: host.state,
    state_at: host.stateAt,
    state_message: host.stateMessage,
    conditions: JSON.stringify(host.conditions),
    last_error: orNull(host.lastError),
    attempts: JSON.stringify(host.attempts),
    provider_id: host.providerId,
    provider_name: host.providerName,
    request_id: host.requestId,
    request_name: host.requestName,
    machine_id: host.machineId,
    machine_name: host.machineName,
    addresses: JSON.stringify(host.addresses),
    power: host.power,
    price: orNull(host.price),
    progress: orNull(host.progress),
    phone_home_at: host.phoneHomeAt,
    ready_at: host.readyAt,
    released_at: host.releasedAt,
  }
}

function orNull(value: unknown): string | null {
  return value === null ? null : JSON.stringify(value)
}

function toHostRecord(row: HostRow): HostRecord {
  return {
    organizationId: row.organization_id,
    id: row.id,
    name: hostName(row.workspace_name, row.name),
    bootstrap: row.class_spec.bootstrap,
    state: row.state,
    stateAt: row.state_at,
    stateMessage: row.state_message,
    conditions: row.conditions,
    lastError: row.last_error,
    attempts: row.attempts,
    providerId: row.provider_id,
    providerName: row.provider_name,
    requestId: row.request_id,
    requestName: row.request_name,
    machineId: row.machine_id,
    machineName: row.machine_name,
    addresses: row.addresses,
    power: row.power,
    price: row.price,
    progress: row.progress,
    phoneHomeAt: row.phone_home_at,
    readyAt: row.ready_at,
    releasedAt: row.released_at,
  }
}

function toRequestView(row: MachineRequestRow, neverClaimed: boolean): RequestView {
  return {
    id: row.id,
    name: row.name,
    providerId: row.provider_id,
    providerName: row.provider_name,
    state: row.state,
    desiredPresence: row.desired_presence,
    presence: row.presence,
    externalId: row.external_id,
    typeId: row.type_id,
    location: row.location,
    price: row.price,
    machineId: row.machine_id,
    machineName: row.machine_name,
    addresses: row.addresses,
    power: row.power,
    progress: row.progress,
    lastError: row.last_error,
    createdAt: row.created_at,
    provisionedAt: row.provisioned_at,
    phonedHomeAt: row.phoned_home_at,
    forgottenBy: row.forgotten_by,
    neverClaimed,
  }
}
