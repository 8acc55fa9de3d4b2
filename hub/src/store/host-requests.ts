import { sql } from 'kysely'
import type { BootstrapSecrets } from '../auth/bootstrap-secrets.js'
import type { EventDraft, LastError, Price } from '../domain/facts.js'
import type { HostRecord, RequestView } from '../domain/host/record.js'
import { transitionMachine } from '../domain/machine/transitions.js'
import { blamesPlace } from '../domain/placement/reliability.js'
import { endingOf, type RequestState } from '../domain/request/request.js'
import { transitionRequest } from '../domain/request/transitions.js'
import type { Tx } from './database.js'
import { countFailedCreate } from './place-failures.js'
import { rowsAs } from './rows.js'
import type { MachineRequestRow } from './tables.js'
import { unadoptMachine } from './adoption.js'
import { wishRequest } from './wishes.js'

// Requests of hosts, as the reconciler makes and ends them, and the static machines that they take.

/** A request to be stored, under the names of its columns. */
export interface NewRequest {
  readonly provider_id: string
  readonly id: string
  readonly name: string
  readonly provider_name: string
  readonly organization_id: string
  readonly workspace_name: string
  readonly host_id: string
  readonly host_name: string
  readonly class_id: string
  readonly class_name: string
  readonly state: RequestState
  readonly external_name: string
  readonly ownership_key: string
  readonly type_id: string
  readonly location: string
  readonly price: Price | null
  readonly spec: MachineRequestRow['spec']
  readonly static: boolean
  readonly machine_id: string | null
  readonly machine_name: string | null
}

export interface RequestDraft {
  readonly request: NewRequest
  /** Whose turn it waits for. */
  readonly lane: { readonly workspaceId: string; readonly priority: number }
  readonly secrets: BootstrapSecrets
}

const newRequestColumns = `(
  provider_id uuid, id uuid, name text, provider_name text, organization_id uuid, workspace_name text, host_id uuid, host_name text,
  class_id uuid, class_name text, state text, external_name text, ownership_key text, type_id text, location text, price jsonb, spec jsonb,
  static boolean, machine_id uuid, machine_name text)`

/** Stores requests with their secrets and their claimable half, due at once. */
export async function insertRequests(tx: Tx, drafts: readonly RequestDraft[]): Promise<void> {
  if (drafts.length === 0) return
  const ids = drafts.map(({ request }) => request.id)
  const providers = drafts.map(({ request }) => request.provider_id)
  await sql`/* insert-requests */
    with made as (
      insert into machine_requests (provider_id, id, name, provider_name, organization_id, workspace_name, host_id, host_name, class_id, class_name,
                                    state, external_name, ownership_key, type_id, location, price, spec, static, machine_id, machine_name)
      select * from ${rowsAs(
        `r ${newRequestColumns}`,
        drafts.map(({ request }) => request),
      )}
    ), sealed as (
      insert into machine_request_secrets (provider_id, request_id, user_data_sealed, phone_home_token_hash, phone_home_token_sealed, phone_home_expires_at)
      select * from unnest(
        ${providers}::uuid[], ${ids}::uuid[], ${drafts.map(({ secrets }) => secrets.userDataSealed)}::bytea[],
        ${drafts.map(({ secrets }) => secrets.phoneHomeTokenHash)}::bytea[], ${drafts.map(({ secrets }) => secrets.phoneHomeTokenSealed)}::bytea[],
        ${drafts.map(({ secrets }) => secrets.phoneHomeExpiresAt)}::timestamptz[]
      )
    )
    insert into work_items (provider_id, id, kind, due_at, workspace_id, priority)
    select i.provider_id, i.id, 'MACHINE_REQUEST', clock_timestamp(), i.workspace_id, i.priority
    from unnest(
      ${providers}::uuid[], ${ids}::uuid[], ${drafts.map(({ lane }) => lane.workspaceId)}::uuid[], ${drafts.map(({ lane }) => lane.priority)}::smallint[]
    ) as i (provider_id, id, workspace_id, priority)
  `.execute(tx)
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

/**
 * Locks the first of these machines, in this order, that can be taken now; machines that someone else is just taking are passed over. One whose own work is
 * under way or due is not taken either: its holder and the request's would work on it at once.
 */
export async function lockFreeMachine(tx: Tx, machineIds: readonly string[]): Promise<string | undefined> {
  const result = await sql<{ id: string }>`
    select m.id
    from machines m
    where m.id = any(${[...machineIds]}::uuid[]) and m.static and m.state = 'AVAILABLE' and not m.cordoned and m.paused_at is null
      and not m.maintenance and m.request_id is null
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
  if (request.operation === 'ADOPT' && request.adoptExternalId === null) await unadoptMachine(tx, request)
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

/** Wishes that nothing of a host's request exists, or that a server is let go of that was to be adopted. `failure`: it is given up for that reason. */
export async function deprovisionRequest(
  tx: Tx,
  host: HostRecord,
  request: RequestView,
  failure: LastError | null,
): Promise<readonly EventDraft[]> {
  const key = { providerId: request.providerId, id: request.id }
  const operation = endingOf(request.adoptExternalId, host.readyAt !== null)
  if (failure === null) {
    await wishRequest(tx, key, { operation })
    return []
  }
  const state = transitionRequest(request.state, 'failed')
  if (request.adoptExternalId === null && blamesPlace(failure.code)) {
    const place = { provider_id: request.providerId, type_id: request.typeId, location: request.location }
    // Of clouds, machines are as good as what they were made of.
    await countFailedCreate(tx, { ...place, static: request.typeId === '', machine_id: request.machineId })
  }
  await wishRequest(tx, key, { operation, lastError: failure, ...(state !== undefined && { state }) })
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
