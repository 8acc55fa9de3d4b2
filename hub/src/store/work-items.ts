import { sql } from 'kysely'
import type { RequestState } from '../domain/request/request.js'
import type { Db, Tx } from './database.js'
import type { ItemKind, MachineRequestRow, MachineRow } from './tables.js'

// Claims. An item is free when it has no session; the session sweep takes it from sessions that have ended or run out.

/** How many items a session may be given. */
export interface Credit {
  readonly sessionId: string
  readonly providerId: string
  readonly credit: number
}

export interface ClaimedItem {
  readonly providerId: string
  readonly id: string
  readonly kind: ItemKind
  readonly sessionId: string
  readonly fence: number
  readonly generation: number
  readonly attempt: number
}

/**
 * Claims due items for many sessions in one statement, oldest due first, each under a fence that is higher than any before. Sessions that have
 * ended or run out get nothing, whatever their replica believes.
 */
export async function claimDueItems(tx: Tx, credits: readonly Credit[]): Promise<ClaimedItem[]> {
  const result = await sql<ClaimedItem>`
    with wanted as (
      select w.session_id, w.provider_id, w.credit
      from unnest(
        ${credits.map((credit) => credit.sessionId)}::uuid[],
        ${credits.map((credit) => credit.providerId)}::uuid[],
        ${credits.map((credit) => credit.credit)}::int[]
      ) as w (session_id, provider_id, credit)
      join sessions s on s.id = w.session_id and s.ended_at is null and s.expires_at > clock_timestamp()
    ), picked as (
      select due.provider_id, due.id, wanted.session_id
      from wanted
      cross join lateral (
        select provider_id, id
        from work_items
        where provider_id = wanted.provider_id and session_id is null and due_at is not null and due_at <= clock_timestamp()
        order by due_at
        limit wanted.credit
        for update skip locked
      ) due
    )
    update work_items
    set session_id = picked.session_id,
        fence = work_items.fence + 1,
        claimed_at = clock_timestamp(),
        sent_generation = work_items.generation
    from picked
    where work_items.provider_id = picked.provider_id and work_items.id = picked.id
    returning work_items.provider_id as "providerId", work_items.id, work_items.kind, work_items.session_id as "sessionId",
              work_items.fence, work_items.generation, work_items.attempt
  `.execute(tx)
  return result.rows
}

/** Moves requests on whose work has been taken up, by a claim or by telling the holder of a newer wish, and says which moved. */
export async function markRequestsTakenUp(tx: Tx, ids: readonly string[]): Promise<MachineRequestRow[]> {
  if (ids.length === 0) return []
  return tx
    .updateTable('machine_requests')
    .set({ state: sql<RequestState>`case operation when 'PROVISION' then 'PROVISIONING' else 'DEPROVISIONING' end` })
    .where('id', 'in', ids)
    .where((where) =>
      where.or([
        where.and([where('operation', '=', 'PROVISION'), where('state', '=', 'PENDING')]),
        where.and([where('operation', '=', 'DEPROVISION'), where('state', 'not in', ['DEPROVISIONING', 'GONE'])]),
      ]),
    )
    .returningAll()
    .execute()
}

/** Takes note that holders are being told of newer wishes, and says of which. */
export async function takeChangedWishes(db: Db, sessionIds: readonly string[]): Promise<ClaimedItem[]> {
  if (sessionIds.length === 0) return []
  const result = await sql<ClaimedItem>`
    update work_items
    set sent_generation = generation
    where session_id = any(${[...sessionIds]}::uuid[]) and generation > sent_generation
    returning provider_id as "providerId", id, kind, session_id as "sessionId", fence, generation, attempt
  `.execute(db)
  return result.rows
}

/** Everything that sessions hold, with note taken that they are being told of it as it is now. */
export async function takeHeldItems(tx: Tx, sessionIds: readonly string[]): Promise<ClaimedItem[]> {
  const result = await sql<ClaimedItem>`
    update work_items
    set sent_generation = generation
    where session_id = any(${[...sessionIds]}::uuid[])
    returning provider_id as "providerId", id, kind, session_id as "sessionId", fence, generation, attempt
  `.execute(tx)
  return result.rows
}

/** What a claim is about, as stored. */
export interface ItemDetails {
  readonly requests: ReadonlyMap<string, MachineRequestRow>
  readonly machines: ReadonlyMap<string, MachineRow>
  readonly secrets: ReadonlyMap<string, { readonly userData: Buffer; readonly phoneHomeToken: Buffer }>
  readonly steps: ReadonlyMap<string, readonly StoredStep[]>
}

export interface StoredStep {
  readonly itemId: string
  readonly operation: string
  readonly operationGeneration: number
  readonly name: string
  readonly result: unknown
}

/** Reads everything that the holder of items is to be told. Machines of static requests are included under their own id. */
export async function loadItemDetails(
  db: Db,
  items: readonly { readonly id: string; readonly kind: ItemKind }[],
): Promise<ItemDetails> {
  const requestIds = items.filter((item) => item.kind === 'MACHINE_REQUEST').map((item) => item.id)
  const requests =
    requestIds.length === 0
      ? []
      : await db.selectFrom('machine_requests').selectAll().where('id', 'in', requestIds).execute()
  const machineIds = [
    ...items.filter((item) => item.kind === 'MACHINE').map((item) => item.id),
    ...requests.flatMap((request) => (request.static && request.machine_id !== null ? [request.machine_id] : [])),
  ]
  const machines =
    machineIds.length === 0 ? [] : await db.selectFrom('machines').selectAll().where('id', 'in', machineIds).execute()
  const secrets =
    requestIds.length === 0
      ? []
      : await db
          .selectFrom('machine_request_secrets')
          .select(['request_id', 'user_data_sealed', 'phone_home_token_sealed'])
          .where('request_id', 'in', requestIds)
          .execute()
  const steps = await db
    .selectFrom('steps')
    .select(['item_id', 'operation', 'operation_generation', 'name', 'result'])
    .where(sql<boolean>`item_id = any(${items.map((item) => item.id)}::uuid[])`)
    .orderBy('created_at')
    .execute()
  const stepsByItem = new Map<string, StoredStep[]>()
  for (const step of steps) {
    const list = stepsByItem.get(step.item_id) ?? []
    list.push({
      itemId: step.item_id,
      operation: step.operation,
      operationGeneration: step.operation_generation,
      name: step.name,
      result: step.result,
    })
    stepsByItem.set(step.item_id, list)
  }
  return {
    requests: new Map(requests.map((row) => [row.id, row])),
    machines: new Map(machines.map((row) => [row.id, row])),
    secrets: new Map(
      secrets.map((row) => [
        row.request_id,
        { userData: row.user_data_sealed, phoneHomeToken: row.phone_home_token_sealed },
      ]),
    ),
    steps: stepsByItem,
  }
}
