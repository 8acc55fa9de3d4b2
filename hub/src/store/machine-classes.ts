import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { Labels, Shape } from '../domain/facts.js'
import type { ClassSpec } from '../domain/host/host.js'
import type { Db, Tx } from './database.js'
import { labelConditions } from './label-filter.js'
import type { MachineClassRow } from './tables.js'

export interface ClassListFilter {
  readonly labelSelector: string
  readonly autoCreated: boolean | undefined
}

export interface ClassContent {
  readonly displayName: string
  readonly spec: ClassSpec
  readonly labels: Labels
  readonly annotations: Labels
}

export async function insertClass(
  tx: Tx,
  name: string,
  content: ClassContent,
  autoCreated = false,
): Promise<MachineClassRow> {
  return tx
    .insertInto('machine_classes')
    .values({ id: uuid(), name, auto_created: autoCreated, ...columns(content) })
    .returningAll()
    .executeTakeFirstOrThrow()
}

function columns(content: ClassContent) {
  const { shape, offerings, machineSelector, bootstrap } = content.spec
  return {
    display_name: content.displayName,
    shape: JSON.stringify(shape),
    offerings: JSON.stringify(offerings),
    machine_selector: machineSelector === null ? null : JSON.stringify(machineSelector),
    bootstrap: JSON.stringify(bootstrap),
    labels: JSON.stringify(content.labels),
    annotations: JSON.stringify(content.annotations),
  }
}

/** The class that the hub makes for a shape: found, or made, once for all who ask at the same time. */
export async function ensureClassForShape(tx: Tx, name: string, content: ClassContent): Promise<MachineClassRow> {
  await sql`select pg_advisory_xact_lock(hashtextextended(${`class ${name}`}, 0))`.execute(tx)
  return (await findClass(tx, name)) ?? insertClass(tx, name, content, true)
}

export async function findClass(db: Db, name: string): Promise<MachineClassRow | undefined> {
  return db
    .selectFrom('machine_classes')
    .selectAll()
    .where('name', '=', name)
    .where('deleted_at', 'is', null)
    .executeTakeFirst()
}

export async function findClassesByName(db: Db, names: readonly string[]): Promise<MachineClassRow[]> {
  return db
    .selectFrom('machine_classes')
    .selectAll()
    .where(sql<boolean>`name = any(${[...names]}::text[])`)
    .where('deleted_at', 'is', null)
    .execute()
}

export async function lockClass(tx: Tx, name: string): Promise<MachineClassRow | undefined> {
  return tx
    .selectFrom('machine_classes')
    .selectAll()
    .where('name', '=', name)
    .where('deleted_at', 'is', null)
    .forUpdate()
    .executeTakeFirst()
}

export async function listClasses(
  db: Db,
  filter: ClassListFilter,
  after: string,
  limit: number,
): Promise<readonly MachineClassRow[]> {
  let query = db
    .selectFrom('machine_classes')
    .selectAll()
    .where('deleted_at', 'is', null)
    .where('name', '>', after)
    .orderBy('name')
    .limit(limit)
  if (filter.autoCreated !== undefined) query = query.where('auto_created', '=', filter.autoCreated)
  for (const condition of labelConditions(sql.ref('labels'), filter.labelSelector)) query = query.where(condition)
  return query.execute()
}

export async function updateClass(tx: Tx, id: string, content: ClassContent): Promise<MachineClassRow> {
  return tx
    .updateTable('machine_classes')
    .set(columns(content))
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirstOrThrow()
}

/** How many live hosts use a class. */
export async function countClassUse(tx: Tx, classId: string): Promise<number> {
  const row = await tx
    .selectFrom('hosts')
    .select(sql<number>`count(*)::int`.as('count'))
    .where('class_id', '=', classId)
    .where('state', '<>', 'RELEASED')
    .executeTakeFirstOrThrow()
  return row.count
}

export async function deleteClass(tx: Tx, id: string): Promise<void> {
  await tx
    .updateTable('machine_classes')
    .set({ deleted_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', id)
    .execute()
}

/** What an order keeps of its class. */
export function classSpecOf(row: MachineClassRow): ClassSpec {
  return { shape: row.shape, offerings: row.offerings, machineSelector: row.machine_selector, bootstrap: row.bootstrap }
}

/** The name of the class that the hub makes for a shape. */
export function nameForShape(shape: Shape): string {
  const parts = [`${shape.vcpus}c`, `${shape.memoryMib}m`, `${shape.diskGib}g`, shape.diskClass, shape.architecture]
  return `auto-${parts.filter((part) => part !== '').join('-')}`
    .toLowerCase()
    .replace(/[^a-z0-9-]/g, '-')
    .slice(0, 63)
}
