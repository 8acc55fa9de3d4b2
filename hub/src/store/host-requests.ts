import { sql, type Insertable } from 'kysely'
import type { EventDraft, LastError } from '../domain/facts.js'
import type { HostRecord, RequestView } from '../domain/host/record.js'
import { transitionMachine } from '../domain/machine/transitions.js'
import { transitionRequest } from '../domain/request/transitions.js'
import type { Db, Tx } from './database.js'
import type { MachineRequestSecretsTable, MachineRequestsTable } from './tables.js'
import { wishRequest } from './wishes.js'

// Requests of hosts, as the reconciler makes and ends them, and the static machines that they take.

export interface RequestDraft {
  readonly request: Insertable<MachineRequestsTable>
  readonly secrets: Insertable<MachineRequestSecretsTable>
}

/** Stores requests with their secrets and their claimable half, due at once. */
export async function insertRequests(tx: Tx, drafts: readonly RequestDraft[]): Promise<void> {
  if (drafts.length === 0) return
  await tx
    .insertInto('machine_requests')
    .values(drafts.map((draft) => draft.request))
    .execute()
  await tx
    .insertInto('machine_request_secrets')
    .values(drafts.map((draft) => draft.secrets))
    .execute()
  await tx
    .insertInto('work_items')
    .values(
      drafts.map(({ request }) => ({
        provider_id: request.provider_id,
        id: request.id,
        kind: 'MACHINE_REQUEST' as const,
        due_at: sql<Date>`clock_timestamp()`,
      })),
    )
    .execute()
}

/** Forgets the secrets of hosts and requests that have come to their end: their phone-home tokens are worth nothing from here on. */
export async function deleteSecrets(
  tx: Tx,
  ended: { readonly hostIds: readonly string[]; readonly requestIds: readonly string[] },
): Promise<void> {
  if (ended.hostIds.length > 0) await tx.deleteFrom('host_secrets').where('host_id', 'in', ended.hostIds).execute()
  if (ended.requestIds.length > 0)
    await tx.deleteFrom('machine_request_secrets').where('request_id', 'in', ended.requestIds).execute()
}

/** The sealed user-data that orders brought along, by host id. */
export async function readHostUserData(db: Db, hostIds: readonly string[]): Promise<ReadonlyMap<string, Buffer>> {
  if (hostIds.length === 0) return new Map()
  const rows = await db
    .selectFrom('host_secrets')
    .select(['host_id', 'user_data_sealed'])
    .where('host_id', 'in', hostIds)
    .execute()
  return new Map(rows.map((row) => [row.host_id, row.user_data_sealed]))
}

/**
 * Locks the first of these machines, in this order, that can be taken now; machines that someone else is just taking are passed over. One whose own work is
 * under way or due is not taken either: its holder and the request's would work on it at once.
 */
export async function lockFreeMachine(tx: Tx, machineIds: readonly string[]): Promise<string | undefined> {
  const result = await sql<{ id: string }>`
    select m.id
    from machines m
    where m.id = any(${[...machineIds]}::uuid[]) and m.static and m.state = 'AVAILABLE' and not m.cordoned and not m.maintenance
      and m.request_id is null
      and not exists (
        select 1 from work_items w where w.provider_id = m.provider_id and w.id = m.id and (w.session_id is not null or w.due_at is not null)
      )
    order by array_position(${[...machineIds]}::uuid[], m.id)
    limit 1
    for update of m skip locked
  `.execute(tx)
  return result.rows[0]?.id
}

export interface Allocation {
  readonly providerId: string
  readonly machineId: string
  readonly requestId: string
  readonly requestName: string
  readonly hostId: string
  readonly hostName: string
}

/** Gives a locked, AVAILABLE machine to a request. */
export async function allocateMachine(tx: Tx, allocation: Allocation): Promise<void> {
  const state = transitionMachine('AVAILABLE', 'allocated')
  if (state === undefined) throw new Error('AVAILABLE machines cannot be allocated')
  await tx
    .updateTable('machines')
    .set({
      state,
      operation: null,
      desired_power: null,
      request_id: allocation.requestId,
      request_name: allocation.requestName,
      host_id: allocation.hostId,
      host_name: allocation.hostName,
    })
    .where('provider_id', '=', allocation.providerId)
    .where('id', '=', allocation.machineId)
    .where('state', '=', 'AVAILABLE')
    .execute()
}

/** Ends a request that nobody was ever told of, and gives back its machine, untouched. The request is locked, and so is its work item. */
export async function cancelRequest(
  tx: Tx,
  host: HostRecord,
  request: RequestView,
  lastError: LastError | null,
): Promise<readonly EventDraft[]> {
  const state = transitionRequest(request.state, 'cancelled')
  if (state === undefined || !request.neverClaimed)
    throw new Error(`machine request ${request.name} is ${request.state} and cannot be cancelled`)
  await tx
    .updateTable('work_items')
    .set({ due_at: null })
    .where('provider_id', '=', request.providerId)
    .where('id', '=', request.id)
    .execute()
  await tx
    .updateTable('machine_requests')
    .set({
      state,
      desired_presence: 'ABSENT',
      presence: 'ABSENT',
      gone_at: sql<Date>`clock_timestamp()`,
      ...(lastError !== null && { last_error: JSON.stringify(lastError) }),
    })
    .where('provider_id', '=', request.providerId)
    .where('id', '=', request.id)
    .execute()
  const free = transitionMachine('PROVISIONING', 'unallocated')
  await tx
    .updateTable('machines')
    .set({
      ...(free !== undefined && { state: free }),
      request_id: null,
      request_name: null,
      host_id: null,
      host_name: null,
    })
    .where('provider_id', '=', request.providerId)
    .where('request_id', '=', request.id)
    .where('static', '=', true)
    .where('state', '=', 'PROVISIONING')
    .execute()
  return [requestEvent(host, request, 'RequestGone', 'INFO', 'Cancelled before anyone had taken it up')]
}

/** Wishes that nothing of a host's request exists. `failure`: it is given up for that reason. */
export async function deprovisionRequest(
  tx: Tx,
  host: HostRecord,
  request: RequestView,
  failure: LastError | null,
): Promise<readonly EventDraft[]> {
  const key = { providerId: request.providerId, id: request.id }
  if (failure === null) {
    await wishRequest(tx, key, { operation: 'DEPROVISION' })
    return []
  }
  const state = transitionRequest(request.state, 'failed')
  await wishRequest(tx, key, { operation: 'DEPROVISION', lastError: failure, ...(state !== undefined && { state }) })
  return [requestEvent(host, request, 'RequestFailed', 'ERROR', `${failure.code}: ${failure.message}`)]
}

function requestEvent(
  host: HostRecord,
  request: RequestView,
  reason: EventDraft['reason'],
  severity: EventDraft['severity'],
  message: string,
): EventDraft {
  return {
    subject: `machineRequests/${request.name}`,
    related: [host.name, `providers/${request.providerName}`],
    reason,
    severity,
    message,
    providerId: request.providerId,
    organizationId: host.organizationId,
  }
}
