import { sql } from 'kysely'
import type { HostRecord, HostView, RequestView } from '../domain/host/record.js'
import { hostName } from '../domain/names.js'
import type { Db, Tx } from './database.js'
import type { TakenHost } from './host-schedule.js'
import type { NewHostRow } from './hosts.js'
import { rowsAs } from './rows.js'
import type { HostRow, MachineRequestRow, MachineRow } from './tables.js'

// What the reconciler reads and writes. Locks are taken in the one order: work items, requests, machines, hosts, and schedules last.

/** A host that nobody else can change now, with all that a decision about it needs. */
export interface SeenHost {
  readonly row: HostRow
  readonly view: HostView
  /** The user-data that an ORDERED host's order brought along, sealed. */
  readonly sealedUserData: Buffer | null
}

/** A host that is locked. */
export interface LockedHost extends SeenHost {
  readonly taken: TakenHost
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
  /** They were given another request since they were taken, and are to be looked at anew. */
  readonly changed: readonly TakenHost[]
}

/** A host that the same transaction has stored: there is nothing beneath it yet. */
export function seeNewHost({ row, sealedUserData }: NewHostRow): SeenHost {
  const now = row.created_at
  const view: HostView = {
    host: toHostRecord(row),
    request: null,
    machineState: null,
    connection: { connectedSince: null },
    now,
    graceUntil: now,
  }
  return { row, view, sealedUserData }
}

/** Locks hosts and what is beneath them, and reads them. Hosts that are gone are left out. */
export async function lockHosts(tx: Tx, taken: readonly TakenHost[], graceUntil: Date): Promise<LockedHosts> {
  const requestIds = taken.flatMap((host) => (host.requestId === null ? [] : [host.requestId]))
  // They need nothing of one another, and travel together; locks are still taken in their order.
  const [requests, rows, { now, since }] = await Promise.all([
    lockRequests(tx, requestIds),
    lockHostRows(
      tx,
      taken.map((host) => host.hostId),
    ),
    connectedSince(tx, requestIds),
  ])
  const takenById = new Map(taken.map((host) => [host.hostId, host]))
  const hosts: LockedHost[] = []
  const changed: TakenHost[] = []
  for (const { sealedUserData, ...row } of rows) {
    const host = takenById.get(row.id)
    if (host === undefined) continue
    if (host.requestId !== row.request_id) {
      changed.push(host)
      continue
    }
    const request = row.request_id === null ? undefined : requests.get(row.request_id)
    const view: HostView = {
      host: toHostRecord(row),
      request: request === undefined ? null : toRequestView(request.row, request.neverClaimed),
      machineState: request?.machineState ?? null,
      connection: { connectedSince: (request === undefined ? undefined : since.get(request.row.provider_id)) ?? null },
      now,
      graceUntil,
    }
    hosts.push({ taken: host, row, view, sealedUserData })
  }
  return { hosts, changed }
}

/** Hosts, with the user-data that an order brought along, as long as it is needed to place it. */
async function lockHostRows(
  tx: Tx,
  ids: readonly string[],
): Promise<(HostRow & { readonly sealedUserData: Buffer | null })[]> {
  if (ids.length === 0) return []
  const result = await sql<HostRow & { readonly sealedUserData: Buffer | null }>`
    select h.*, (
      select s.user_data_sealed from host_secrets s where h.state = 'ORDERED' and s.organization_id = h.organization_id and s.host_id = h.id
    ) as "sealedUserData"
    from hosts h
    where h.id = any(${[...ids]}::uuid[])
    order by h.id
    for update of h
  `.execute(tx)
  return result.rows
}

interface LockedRequest {
  readonly row: MachineRequestRow
  readonly neverClaimed: boolean
  readonly machineState: HostView['machineState']
}

async function lockRequests(tx: Tx, ids: readonly string[]): Promise<ReadonlyMap<string, LockedRequest>> {
  if (ids.length === 0) return new Map()
  const [items, rows, machines] = await Promise.all([
    sql<{ id: string; unclaimed: boolean }>`/* lock-items */
      select id, fence = 0 and session_id is null as unclaimed
      from work_items
      where id = any(${[...ids]}::uuid[])
      order by provider_id, id
      for update
    `.execute(tx),
    sql<MachineRequestRow>`
      select * from machine_requests where id = any(${[...ids]}::uuid[]) order by id for update
    `.execute(tx),
    sql<Pick<MachineRow, 'id' | 'state'>>`/* lock-machines */
      select id, state from machines
      where id = any(array(select machine_id from machine_requests where id = any(${[...ids]}::uuid[]) and machine_id is not null))
      order by id for update
    `.execute(tx),
  ])
  const unclaimed = new Set(items.rows.filter((item) => item.unclaimed).map((item) => item.id))
  const stateOf = new Map(machines.rows.map((machine) => [machine.id, machine.state]))
  return new Map(
    rows.rows.map((row) => [
      row.id,
      {
        row,
        neverClaimed: row.state === 'PENDING' && unclaimed.has(row.id),
        machineState: row.machine_id === null ? null : (stateOf.get(row.machine_id) ?? null),
      },
    ]),
  )
}

/** Since when the providers of requests have been connected without a break, and what time it is, by the database's clock. */
async function connectedSince(
  db: Db,
  requestIds: readonly string[],
): Promise<{ readonly now: Date; readonly since: ReadonlyMap<string, Date> }> {
  const result = await sql<{ now: Date; providerId: string | null; since: Date | null }>`/* connected-since */
    select clock_timestamp() as now, p.id as "providerId", (
      select min(s.connected_at) from sessions s where s.provider_id = p.id and s.ended_at is null and s.expires_at > clock_timestamp()
    ) as since
    from (values (1)) one
    left join (select distinct provider_id as id from machine_requests where id = any(${[...requestIds]}::uuid[])) p on true
  `.execute(db)
  const [first] = result.rows
  if (first === undefined) throw new Error('the database told no time')
  const since = result.rows.flatMap((row): [string, Date][] =>
    row.providerId === null || row.since === null ? [] : [[row.providerId, row.since]],
  )
  return { now: first.now, since: new Map(since) }
}

/** What a decision made of a host. */
export interface HostSave {
  readonly before: HostRecord
  readonly after: HostRecord
}

/** Stores what decisions made of hosts, in one statement. Nothing is written where nothing has changed. Says whether anything has. */
export async function saveHosts(tx: Tx, saves: readonly HostSave[]): Promise<boolean> {
  const rows = saves.flatMap(({ before, after }) => {
    const columns = hostColumns(after)
    if (JSON.stringify(columns) === JSON.stringify(hostColumns(before))) return []
    return [{ organization_id: after.organizationId, id: after.id, ...columns }]
  })
  if (rows.length === 0) return false
  await sql`/* save-hosts */
    update hosts h
    set state = s.state, state_at = s.state_at, state_message = s.state_message, conditions = s.conditions, last_error = s.last_error,
        attempts = s.attempts, provider_id = s.provider_id, provider_name = s.provider_name, request_id = s.request_id,
        request_name = s.request_name, machine_id = s.machine_id, machine_name = s.machine_name, addresses = s.addresses, power = s.power,
        price = s.price, progress = s.progress, phone_home_at = s.phone_home_at, ready_at = s.ready_at, released_at = s.released_at
    from ${rowsAs(
      `s (organization_id uuid, id uuid, state text, state_at timestamptz, state_message text, conditions jsonb, last_error jsonb, attempts jsonb,
          provider_id uuid, provider_name text, request_id uuid, request_name text, machine_id uuid, machine_name text, addresses jsonb,
          power text, price jsonb, progress jsonb, phone_home_at timestamptz, ready_at timestamptz, released_at timestamptz)`,
      rows,
    )}
    where h.organization_id = s.organization_id and h.id = s.id
  `.execute(tx)
  return true
}

/** What the reconciler writes of a host. */
function hostColumns(host: HostRecord) {
  return {
    state: host.state,
    state_at: host.stateAt,
    state_message: host.stateMessage,
    conditions: host.conditions,
    last_error: host.lastError,
    attempts: host.attempts,
    provider_id: host.providerId,
    provider_name: host.providerName,
    request_id: host.requestId,
    request_name: host.requestName,
    machine_id: host.machineId,
    machine_name: host.machineName,
    addresses: host.addresses,
    power: host.power,
    price: host.price,
    progress: host.progress,
    phone_home_at: host.phoneHomeAt,
    ready_at: host.readyAt,
    released_at: host.releasedAt,
  }
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
    operation: row.operation,
    adoptExternalId: row.adopt_external_id,
    reinstallWishedAt: row.reinstall_wished_at,
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
    pausedAt: row.paused_at,
    pausedMs: row.paused_ms,
    provisionedAt: row.provisioned_at,
    phonedHomeAt: row.phoned_home_at,
    forgottenBy: row.forgotten_by,
    neverClaimed,
  }
}
