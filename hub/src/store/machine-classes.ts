import { createHash } from 'node:crypto'
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

/** Deletes classes that the hub made for a shape, where no host has used them for so long. @returns their names. */
export async function retireUnusedClasses(tx: Tx, unusedMs: number, limit: number): Promise<readonly string[]> {
  // Locked as whoever stores a host of it would have to: those that are just being used are passed over.
  const result = await sql<{ name: string }>`/* retire-classes */
    with unused as (
      select c.id
      from machine_classes c, (select clock_timestamp() - ${unusedMs} * interval '1 millisecond' as since) t
      where c.auto_created and c.deleted_at is null and c.created_at < t.since
        and not exists (select from hosts h where h.class_id = c.id and h.state <> 'RELEASED')
        and not exists (select from hosts h where h.class_id = c.id and h.state = 'RELEASED' and h.released_at >= t.since)
      order by c.name
      limit ${limit}
      for update of c skip locked
    )
    update machine_classes c set deleted_at = clock_timestamp() from unused where c.id = unused.id
    returning c.name
  `.execute(tx)
  return result.rows.map((row) => row.name)
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

/** What the names of classes begin with that the hub makes for shapes; nobody else may give such a name. */
export const autoClassPrefix = 'auto-'
const plainDiskClasses = ['', 'ssd', 'nvme', 'hdd']
const plainArchitectures = ['', 'amd64', 'arm64']
const maxWords = 44

/** The name of the class that the hub makes for a shape: the same for the same shape, and another for any other. */
export function nameForShape(shape: Shape): string {
  const parts = [`${shape.vcpus}c`, `${shape.memoryMib}m`, `${shape.diskGib}g`, shape.diskClass, shape.architecture]
  const words = parts
    .filter((part) => part !== '')
    .join('-')
    .toLowerCase()
    .replace(/[^a-z0-9-]/g, '-')
    .slice(0, maxWords)
  if (plainDiskClasses.includes(shape.diskClass) && plainArchitectures.includes(shape.architecture))
    return `${autoClassPrefix}${words}`
  // What people call a sort of disk need not fit into a name, and could be taken for something else there.
  const digest = createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 12)
  return `${autoClassPrefix}${words.replace(/-+$/, '')}-${digest}`
}
