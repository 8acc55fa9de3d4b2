import { sql, type Selectable } from 'kysely'
import type { RequestState } from '../domain/request/request.js'
import type { Db, Tx } from './database.js'
import type { ItemKind, MachineRequestRow, MachineRow, Tables } from './tables.js'

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
 * ended or run out get nothing, whatever their replica believes. Items of a provider are dealt out among its sessions, one to each in turn.
 */
export async function claimDueItems(tx: Tx, credits: readonly Credit[]): Promise<ClaimedItem[]> {
  const result = await sql<ClaimedItem>`/* claim-due-items */
    with wanted as materialized (
      select w.session_id, w.provider_id, w.credit
      from unnest(
        ${credits.map((credit) => credit.sessionId)}::uuid[],
        ${credits.map((credit) => credit.providerId)}::uuid[],
        ${credits.map((credit) => credit.credit)}::int[]
      ) as w (session_id, provider_id, credit)
      join sessions s on s.id = w.session_id and s.ended_at is null and s.expires_at > clock_timestamp()
    ), due as materialized (
      select due.provider_id, due.id, row_number() over (partition by due.provider_id order by due.due_at, due.id) as place
      from (select provider_id, sum(credit) as credit from wanted group by provider_id) total
      cross join lateral (
        select provider_id, id, due_at
        from work_items
        where provider_id = total.provider_id and session_id is null and due_at is not null and due_at <= clock_timestamp()
        order by due_at
        limit total.credit
        for update skip locked
      ) due
    ), slots as (
      select w.provider_id, w.session_id, row_number() over (partition by w.provider_id order by turn, w.session_id) as place
      from wanted w
      cross join lateral generate_series(1, least(w.credit, (select count(*) from due where due.provider_id = w.provider_id))) as turn
    )
    update work_items
    set session_id = slots.session_id,
        fence = work_items.fence + 1,
        claimed_at = clock_timestamp(),
        sent_generation = work_items.generation
    from due
    join slots on slots.provider_id = due.provider_id and slots.place = due.place
    where work_items.provider_id = due.provider_id and work_items.id = due.id
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
    .where(sql<boolean>`id = any(${[...ids]}::uuid[])`)
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
  const result = await sql<ClaimedItem>`/* take-changed-wishes */
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

/**
 * Reads everything that the holder of items is to be told. Machines of static requests are included under their own id.
 *
 * @param known requests as they are now, which are not read again.
 */
export async function loadItemDetails(
  db: Db,
  items: readonly ClaimedItem[],
  known: readonly MachineRequestRow[],
): Promise<ItemDetails> {
  const requests = new Map(known.map((row) => [row.id, row]))
  const unknown = items.filter((item) => item.kind === 'MACHINE_REQUEST' && !requests.has(item.id))
  for (const row of await readRows(db, 'machine_requests', idsOf(unknown))) requests.set(row.id, row)
  const machineIds = [
    ...idsOf(items.filter((item) => item.kind === 'MACHINE')),
    ...[...requests.values()].flatMap((row) => (row.static && row.machine_id !== null ? [row.machine_id] : [])),
  ]
  // What a machine needs to set itself up is nobody's business once it is to go.
  const wanted = [...requests.values()].filter((row) => row.desired_presence === 'PRESENT')
  // Nobody can have stored a step of what is claimed for the first time.
  const begun = items.filter((item) => item.fence > 1 || item.generation > 1)
  const [machines, secrets, steps] = await Promise.all([
    readRows(db, 'machines', machineIds),
    readSecrets(db, idsOf(wanted)),
    readSteps(db, idsOf(begun)),
  ])
  return { requests, machines: new Map(machines.map((row) => [row.id, row])), secrets, steps }
}

function idsOf(rows: readonly { readonly id: string }[]): string[] {
  return rows.map((row) => row.id)
}

async function readRows<Table extends 'machine_requests' | 'machines'>(
  db: Db,
  table: Table,
  ids: readonly string[],
): Promise<Selectable<Tables[Table]>[]> {
  if (ids.length === 0) return []
  const result = await sql<Selectable<Tables[Table]>>`
    select * from ${sql.table(table)} where id = any(${[...ids]}::uuid[])
  `.execute(db)
  return result.rows
}

async function readSecrets(db: Db, ids: readonly string[]): Promise<ItemDetails['secrets']> {
  if (ids.length === 0) return new Map()
  const result = await sql<{ id: string; userData: Buffer; phoneHomeToken: Buffer }>`/* read-request-secrets */
    select request_id as id, user_data_sealed as "userData", phone_home_token_sealed as "phoneHomeToken"
    from machine_request_secrets
    where (provider_id, request_id) in (select provider_id, id from work_items where id = any(${[...ids]}::uuid[]))
  `.execute(db)
  return new Map(result.rows.map(({ id, ...secrets }) => [id, secrets]))
}

async function readSteps(db: Db, ids: readonly string[]): Promise<ItemDetails['steps']> {
  const byItem = new Map<string, StoredStep[]>()
  if (ids.length === 0) return byItem
  const result = await sql<StoredStep>`/* read-steps */
    select item_id as "itemId", operation, operation_generation as "operationGeneration", name, result
    from steps
    where (provider_id, item_id) in (select provider_id, id from work_items where id = any(${[...ids]}::uuid[]))
    order by created_at
  `.execute(db)
  for (const step of result.rows) {
    const list = byItem.get(step.itemId) ?? []
    byItem.set(step.itemId, list)
    list.push(step)
  }
  return byItem
}
