import { sql } from 'kysely'
import type { Scopes } from '../domain/access/decide.js'
import type { Labels } from '../domain/facts.js'
import type { MachineState } from '../domain/machine/machine.js'
import type { Db, Tx } from './database.js'
import { labelConditions, labelsWanted } from './label-filter.js'
import { plannedAnew } from './prepared.js'
import { withinScopes } from './scopes.js'
import type { MachineRow } from './tables.js'

export interface MachineListFilter {
  readonly states: readonly MachineState[]
  readonly providers: readonly string[]
  readonly labelSelector: string
  readonly showGone: boolean
  /** Undefined: all. */
  readonly within?: Scopes | undefined
}

export async function findMachine(db: Db, name: string): Promise<MachineRow | undefined> {
  return db.selectFrom('machines').selectAll().where('name', '=', name).executeTakeFirst()
}

/**
 * Locks a machine and, before it, its work item and its live request: in the order in which everyone locks them.
 */
export async function lockMachine(tx: Tx, name: string): Promise<MachineRow | undefined> {
  const seen = await findMachine(tx, name)
  if (seen === undefined) return undefined
  const items = [seen.id, ...(seen.request_id === null ? [] : [seen.request_id])]
  await tx.selectFrom('work_items').select('id').where('id', 'in', items).orderBy('id').forUpdate().execute()
  if (seen.request_id !== null)
    await tx.selectFrom('machine_requests').select('id').where('id', '=', seen.request_id).forUpdate().execute()
  return tx
    .selectFrom('machines')
    .selectAll()
    .where('provider_id', '=', seen.provider_id)
    .where('id', '=', seen.id)
    .forUpdate()
    .executeTakeFirst()
}

/** Whether an instance works on a machine, or on its request. Both are locked. */
export async function hasHolder(tx: Tx, row: MachineRow): Promise<boolean> {
  const items = [row.id, ...(row.request_id === null ? [] : [row.request_id])]
  const held = await tx
    .selectFrom('work_items')
    .select('id')
    .where('id', 'in', items)
    .where('session_id', 'is not', null)
    .executeTakeFirst()
  return held !== undefined
}

/** Machines of a static provider that nobody has accepted yet. */
export async function findDiscoveredMachines(db: Db, providerId: string): Promise<readonly MachineRow[]> {
  return db
    .selectFrom('machines')
    .selectAll()
    .where('provider_id', '=', providerId)
    .where('static', '=', true)
    .where('state', '=', 'DISCOVERED')
    .where('request_id', 'is', null)
    .execute()
}

/** As in the migration that made `machine_labels`. */
const maxLabelBytes = 600

/** What a selector sees of a machine: its provider's labels, and its own, which win. The index on it serves no other expression. */
export const machineLabels = sql`(provider_labels || labels)`

/** Where so many machines have a label, it is left to the planner whether to go by it. */
const manyMachines = 10_000

/** A page in the order of names. Where a selector gives labels one value, the machines that have the rarest of them are gone through, and no others. */
export async function listMachines(
  db: Db,
  filter: MachineListFilter,
  after: string,
  limit: number,
): Promise<readonly MachineRow[]> {
  const { within } = filter
  const rarest = within === undefined ? await rarestLabel(db, filter) : undefined
  const known = rarest === undefined ? [] : [rarest.label]
  let query = db.selectFrom('machines').selectAll('machines')
  if (filter.states.length > 0) query = query.where('state', 'in', filter.states)
  else if (!filter.showGone) query = query.where('state', '<>', 'GONE')
  if (filter.providers.length > 0) query = query.where('provider_name', 'in', filter.providers)
  if (within !== undefined) {
    // Found by way of the hosts, which have an index for it.
    const own = sql`array(select machine_id from hosts where machine_id is not null and ${withinScopes('host', within)})`
    query = query.where(sql<boolean>`id = any(${own})`).where(withinScopes('machine', within))
  }
  for (const condition of labelConditions(machineLabels, filter.labelSelector, known)) query = query.where(condition)
  if (rarest === undefined)
    return query.modifyFront(plannedAnew).where('name', '>', after).orderBy('name').limit(limit).execute()
  const labelled = sql`select machine_name from machine_labels where label = ${rarest.label} and machine_name > ${after}`
  const walked = rarest.machines < manyMachines
  // One by one: what the planner makes of further conditions is a guess, by which it would rather read all that have the label, and sort them.
  const page = walked
    ? sql<MachineRow>`
        select machines.* from (${labelled} order by machine_name offset 0) own
        cross join lateral (${query.where('name', '=', sql.ref<string>('own.machine_name')).offset(0)}) machines`
    : sql<MachineRow>`
        select machines.* from (${labelled}) own join (${query.where('name', '>', after)}) machines on machines.name = own.machine_name`
  const result = await sql<MachineRow>`${plannedAnew} ${page} order by own.machine_name limit ${limit}`.execute(db)
  return result.rows
}

/** The label that the fewest machines have of those that a selector gives one value, as `key=value`, and how many have it, as far as it matters. Undefined: it gives none. */
async function rarestLabel(
  db: Db,
  filter: MachineListFilter,
): Promise<{ readonly label: string; readonly machines: number } | undefined> {
  const labels = labelsWanted(filter.labelSelector)
    .filter(([key, value]) => Buffer.byteLength(key + value) <= maxLabelBytes)
    .map(([key, value]) => `${key}=${value}`)
  const [label] = labels
  if (label === undefined) return undefined
  // Where nearly all that have it match, a page is found at once, however many they are.
  const alone = labelConditions(machineLabels, filter.labelSelector, [label]).length === 0
  if (alone && filter.states.length === 0 && filter.providers.length === 0) return { label, machines: 0 }
  const counted = await sql<{ label: string; machines: number }>`
    select wanted.label, count(*)::int as machines
    from unnest(${labels}::text[]) as wanted (label)
    left join lateral (select true as has from machine_labels l where l.label = wanted.label limit ${manyMachines}) l on true
    group by wanted.label order by machines, wanted.label limit 1
  `.execute(db)
  return counted.rows[0]
}

export interface MachineChange {
  readonly labels?: Labels
  readonly annotations?: Labels
  readonly cordoned?: boolean
  readonly protected?: boolean
}

export async function updateMachine(tx: Tx, row: MachineRow, change: MachineChange): Promise<MachineRow> {
  return tx
    .updateTable('machines')
    .set({
      labels: JSON.stringify(change.labels ?? row.labels),
      annotations: JSON.stringify(change.annotations ?? row.annotations),
      cordoned: change.cordoned ?? row.cordoned,
      protected: change.protected ?? row.protected,
    })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
}

/** Ends the record of a locked static machine, and its work. */
export async function deleteMachine(tx: Tx, row: MachineRow): Promise<void> {
  await tx.deleteFrom('work_items').where('provider_id', '=', row.provider_id).where('id', '=', row.id).execute()
  await tx
    .updateTable('machines')
    .set({ state: 'GONE', gone_at: sql<Date>`clock_timestamp()`, operation: null })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .execute()
}

/** Notes a wish on the machine of a request, where people look for it. */
export async function noteMachineWish(
  tx: Tx,
  row: MachineRow,
  wish: { readonly power?: 'ON' | 'OFF'; readonly reboot?: boolean; readonly rescue?: boolean },
): Promise<MachineRow> {
  return tx
    .updateTable('machines')
    .set({
      desired_power: wish.power ?? row.desired_power,
      reboots: wish.reboot === true ? sql<number>`reboots + 1` : row.reboots,
      desired_rescue: wish.rescue ?? row.desired_rescue,
    })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .returningAll()
    .executeTakeFirstOrThrow()
}
