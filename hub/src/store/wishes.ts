import { sql } from 'kysely'
import type { JsonObject, LastError, PowerState } from '../domain/facts.js'
import type { MachineOperation, MachineState } from '../domain/machine/machine.js'
import type { RequestOperation, RequestState, RescueWish } from '../domain/request/request.js'
import type { Tx } from './database.js'
import type { ItemKind } from './tables.js'

// Every change of a wish goes through here. Locks are taken in one order everywhere: work item, then request, machine, host.

export interface ItemKey {
  readonly providerId: string
  readonly id: string
}

export interface RequestWish {
  readonly operation?: Exclude<RequestOperation, 'REINSTALL' | 'ADOPT'>
  readonly power?: PowerState
  /** One more reboot. */
  readonly reboot?: boolean
  /** One more reinstall, by this data. It takes the place of one that is under way, and ends the rescue system. */
  readonly reinstall?: { readonly providerData: JsonObject }
  /** Null: its own system. */
  readonly rescue?: Omit<RescueWish, 'revision'> | null
  /** Where the request's life goes on with it. */
  readonly state?: RequestState
  readonly lastError?: LastError
}

export interface MachineWish {
  readonly state?: MachineState
  /** Null: nothing is to be done any more. */
  readonly operation?: MachineOperation | null
  /** Null: as the state asks for. */
  readonly power?: PowerState | null
  /** One more reboot. */
  readonly reboot?: boolean
}

/** Makes the claimable half of a request or machine, due at once. */
export async function insertWorkItem(tx: Tx, item: ItemKey & { readonly kind: ItemKind }): Promise<void> {
  await tx
    .insertInto('work_items')
    .values({ provider_id: item.providerId, id: item.id, kind: item.kind, due_at: new Date(0) })
    .execute()
}

/** Raises an item's generation and makes it due; its holder, if it has one, is told by whichever replica it is connected to. */
async function raiseGeneration(tx: Tx, item: ItemKey): Promise<number | undefined> {
  const row = await tx
    .updateTable('work_items')
    .set({ generation: sql`generation + 1`, due_at: sql<Date>`clock_timestamp()`, attempt: 0 })
    .where('provider_id', '=', item.providerId)
    .where('id', '=', item.id)
    .returning('generation')
    .executeTakeFirst()
  return row?.generation
}

/**
 * Changes what is wished of a request. A changed operation opens a new operation generation, with no step stored.
 * Wake `{kind: 'work'}` after the commit.
 */
export async function wishRequest(tx: Tx, request: ItemKey, wish: RequestWish): Promise<void> {
  const generation = await raiseGeneration(tx, request)
  if (generation === undefined) throw new Error(`machine request ${request.id} has no work item`)
  await tx
    .updateTable('machine_requests')
    .set({
      generation,
      ...(wish.operation !== undefined && {
        operation: wish.operation,
        operation_generation: sql`operation_generation + (operation <> ${wish.operation})::int`,
        desired_presence: wish.operation === 'PROVISION' ? ('PRESENT' as const) : ('ABSENT' as const),
      }),
      ...(wish.reinstall !== undefined && {
        operation: 'REINSTALL' as const,
        operation_generation: sql`operation_generation + 1`,
        reinstalls: sql<number>`reinstalls + 1`,
        reinstall_wished_at: sql<Date>`clock_timestamp()`,
        spec: sql<string>`jsonb_set(spec, '{providerData}', ${JSON.stringify(wish.reinstall.providerData)}::jsonb)`,
        provisioned_at: null,
        phoned_home_at: null,
        paused_ms: 0,
        progress: null,
        last_error: null,
        rescue: null,
      }),
      ...(wish.rescue !== undefined && rescueColumns(wish.rescue)),
      ...(wish.power !== undefined && { desired_power: wish.power }),
      ...(wish.reboot === true && { reboots: sql<number>`reboots + 1` }),
      ...(wish.state !== undefined && { state: wish.state }),
      ...(wish.lastError !== undefined && { last_error: JSON.stringify(wish.lastError) }),
    })
    .where('provider_id', '=', request.providerId)
    .where('id', '=', request.id)
    .execute()
}

function rescueColumns(wish: Omit<RescueWish, 'revision'> | null) {
  if (wish === null) return { rescue: null }
  return {
    rescue_revision: sql<number>`rescue_revision + 1`,
    rescue: sql<string>`${JSON.stringify(wish)}::jsonb || jsonb_build_object('revision', rescue_revision + 1)`,
  }
}

/** Changes what is wished of a static machine that has no host. Makes its work item where it has none. Wake `{kind: 'work'}` after the commit. */
export async function wishMachine(tx: Tx, machine: ItemKey, wish: MachineWish): Promise<void> {
  let generation = await raiseGeneration(tx, machine)
  if (generation === undefined) {
    await insertWorkItem(tx, { ...machine, kind: 'MACHINE' })
    generation = await raiseGeneration(tx, machine)
  }
  await tx
    .updateTable('machines')
    .set({
      generation: generation ?? 1,
      // No state that is wished for is one of waiting.
      ...(wish.state !== undefined && {
        state: wish.state,
        waiting_for: '',
        waiting_at: null,
        waiting_until_at: null,
      }),
      ...(wish.operation !== undefined && {
        operation: wish.operation,
        operation_generation: sql`operation_generation + 1`,
      }),
      ...(wish.power !== undefined && { desired_power: wish.power }),
      ...(wish.reboot === true && { reboots: sql<number>`reboots + 1` }),
    })
    .where('provider_id', '=', machine.providerId)
    .where('id', '=', machine.id)
    .execute()
}
