import { sql } from 'kysely'
import type { Scopes } from '../domain/access/decide.js'
import type { RequestState } from '../domain/request/request.js'
import type { Db, Tx } from './database.js'
import { plannedAnew } from './prepared.js'
import { detachMachine } from './report-writes.js'
import { withinScopes } from './scopes.js'
import type { MachineRequestRow } from './tables.js'
import type { WakeTopic } from './wake.js'

export interface RequestListFilter {
  readonly states: readonly RequestState[]
  readonly providers: readonly string[]
  readonly classes: readonly string[]
  readonly host: string
  readonly showGone: boolean
  /** Undefined: all. */
  readonly within?: Scopes | undefined
}

export async function findRequest(db: Db, name: string): Promise<MachineRequestRow | undefined> {
  return db.selectFrom('machine_requests').selectAll().where('name', '=', name).executeTakeFirst()
}

/** Locks a request, its work item first, as everyone does. */
export async function lockRequest(tx: Tx, name: string): Promise<MachineRequestRow | undefined> {
  const seen = await findRequest(tx, name)
  if (seen === undefined) return undefined
  await tx.selectFrom('work_items').select('id').where('id', '=', seen.id).forUpdate().execute()
  return tx
    .selectFrom('machine_requests')
    .selectAll()
    .where('provider_id', '=', seen.provider_id)
    .where('id', '=', seen.id)
    .forUpdate()
    .executeTakeFirst()
}

/** Newest first. @param after id of the last one of the page before: ids rise with time. */
export async function listRequests(
  db: Db,
  filter: RequestListFilter,
  after: string,
  limit: number,
): Promise<readonly MachineRequestRow[]> {
  let query = db.selectFrom('machine_requests').modifyFront(plannedAnew).selectAll().orderBy('id', 'desc').limit(limit)
  if (after !== '') query = query.where('id', '<', after)
  if (filter.states.length > 0) query = query.where('state', 'in', filter.states)
  else if (!filter.showGone) query = query.where('state', '<>', 'GONE')
  if (filter.providers.length > 0) query = query.where('provider_name', 'in', filter.providers)
  if (filter.classes.length > 0) query = query.where('class_name', 'in', filter.classes)
  if (filter.host !== '') query = query.where('host_name', '=', filter.host)
  const { within } = filter
  if (within !== undefined) {
    // Found by the hosts' names, which have an index for it.
    const own = sql`array(select 'workspaces/' || workspace_name || '/hosts/' || name from hosts where ${withinScopes('host', within)})`
    query = query.where(sql<boolean>`host_name = any(${own})`).where(withinScopes('machine_request', within))
  }
  return query.execute()
}

export interface RequestDetailRow {
  readonly holder: string
  readonly fence: number
  readonly steps: readonly { readonly operation: string; readonly name: string; readonly at: Date }[]
}

/** Who works on some requests, and the steps that their present operations have stored. */
export async function readRequestDetails(
  db: Db,
  rows: readonly MachineRequestRow[],
): Promise<ReadonlyMap<string, RequestDetailRow>> {
  const ids = rows.map((row) => row.id)
  if (ids.length === 0) return new Map()
  const items = await db
    .selectFrom('work_items')
    .leftJoin('sessions', 'sessions.id', 'work_items.session_id')
    .select(['work_items.id', 'work_items.fence', 'sessions.instance_name', 'sessions.instance_id'])
    .where('work_items.id', 'in', ids)
    .execute()
  const steps = await db
    .selectFrom('steps')
    .select(['item_id', 'operation', 'operation_generation', 'name', 'created_at'])
    .where('item_id', 'in', ids)
    .orderBy('created_at')
    .execute()
  const byId = new Map(rows.map((row) => [row.id, row]))
  return new Map(
    items.map((item) => [
      item.id,
      {
        holder:
          item.instance_name !== null && item.instance_name !== '' ? item.instance_name : (item.instance_id ?? ''),
        fence: item.fence,
        steps: steps
          .filter((step) => {
            const row = byId.get(step.item_id)
            // Names that begin with `sdk-` are the runtime's own bookkeeping.
            return (
              step.item_id === item.id &&
              row?.operation === step.operation &&
              row.operation_generation === step.operation_generation &&
              !step.name.startsWith('sdk-')
            )
          })
          .map((step) => ({ operation: step.operation, name: step.name, at: step.created_at })),
      },
    ]),
  )
}

/** Makes a request that waits for its next attempt due at once. */
export async function hastenRequest(tx: Tx, row: MachineRequestRow): Promise<void> {
  await tx
    .updateTable('work_items')
    .set({ due_at: sql<Date>`clock_timestamp()` })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .where('session_id', 'is', null)
    .execute()
}

/** Ends a locked request by a person's word. What exists out there stays; that it does is on record. Its holder, if there is one, loses its claim. */
export async function forgetRequest(
  tx: Tx,
  row: MachineRequestRow,
  by: string,
  reason: string,
  now: Date,
  wake: WakeTopic[],
): Promise<MachineRequestRow> {
  await tx
    .updateTable('work_items')
    .set({ session_id: null, due_at: null, fence: sql<number>`fence + 1` })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .execute()
  const forgotten = await tx
    .updateTable('machine_requests')
    .set({ state: 'GONE', gone_at: now, forgotten_by: by, forgotten_reason: reason })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
  if (row.machine_id !== null) {
    const machine = await tx
      .selectFrom('machines')
      .selectAll()
      .where('provider_id', '=', row.provider_id)
      .where('id', '=', row.machine_id)
      .forUpdate()
      .executeTakeFirst()
    if (machine !== undefined) await detachMachine(tx, machine, row, now, wake)
  }
  return forgotten
}
