import { sql } from 'kysely'
import { HubError } from '../domain/error/errors.js'
import type { Db, Tx } from './database.js'
import type { ChangeRow, EventRow } from './tables.js'

// The watch feeds. Rows are read in the order (xid, id), and only up to the oldest transaction that is still open: a sequence number alone is not in commit order, and
// a lower transaction id may still commit. The xid of a change is never below that of its resource's change before, so that each resource's changes are in order, too.

/** A place in a feed: everything up to and including it has been delivered. */
export interface Position {
  readonly xid: bigint
  readonly id: number
}

/** Where to resume. After a list it is the list's own snapshot: what that shows is not delivered again. */
export interface Revision {
  readonly position: Position
  readonly snapshot: string
}

export const origin: Position = { xid: 0n, id: 0 }

export function comparePositions(one: Position, other: Position): number {
  if (one.xid !== other.xid) return one.xid < other.xid ? -1 : 1
  return one.id - other.id
}

/** An opaque token. It carries the database's epoch: revisions mean nothing in another one. */
export function encodeRevision(epoch: string, revision: Revision): string {
  return Buffer.from(
    JSON.stringify([1, epoch, String(revision.position.xid), revision.position.id, revision.snapshot]),
  ).toString('base64url')
}

/** @throws HubError INVALID_REVISION, REVISION_COMPACTED. */
export function decodeRevision(epoch: string, text: string): Revision {
  const invalid = new HubError(
    'INVALID_REVISION',
    'revision: it is not one that this hub gave; list again and watch from there',
    {
      violations: [
        { field: 'revision', description: 'is not one that this hub gave; list again and watch from there' },
      ],
    },
  )
  let parts: unknown
  try {
    parts = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'))
  } catch {
    throw invalid
  }
  if (!Array.isArray(parts) || parts.length !== 5 || parts[0] !== 1) throw invalid
  const [, ofEpoch, xid, id, snapshot] = parts as unknown[]
  if (typeof ofEpoch !== 'string' || typeof xid !== 'string' || !/^\d{1,20}$/.test(xid) || typeof id !== 'number')
    throw invalid
  if (typeof snapshot !== 'string' || !/^(\d+:\d+:[\d,]*)?$/.test(snapshot)) throw invalid
  if (ofEpoch !== epoch)
    throw new HubError(
      'REVISION_COMPACTED',
      'the database was restored or replaced since; list again and watch from there',
    )
  return { position: { xid: BigInt(xid), id }, snapshot }
}

/** Whether a snapshot (`xmin:xmax:xip,…`) shows what a transaction wrote. */
export function isVisible(xid: bigint, snapshot: string): boolean {
  if (snapshot === '') return false
  const [xmin = '0', xmax = '0', open = ''] = snapshot.split(':')
  if (xid < BigInt(xmin)) return true
  if (xid >= BigInt(xmax)) return false
  return !open.split(',').includes(String(xid))
}

/** Reads under one snapshot, and gives the revision that goes on from exactly there. */
export async function readConsistently<T>(db: Db, work: (tx: Tx, revision: Revision) => Promise<T>): Promise<T> {
  return db
    .transaction()
    .setIsolationLevel('repeatable read')
    .execute(async (tx) => {
      const result = await sql<{ snapshot: string; xmin: string }>`
        select pg_current_snapshot()::text as snapshot, pg_snapshot_xmin(pg_current_snapshot())::text as xmin
      `.execute(tx)
      const row = result.rows[0]
      if (row === undefined) throw new Error('the database told no snapshot')
      return work(tx, { position: { xid: BigInt(row.xmin), id: 0 }, snapshot: row.snapshot })
    })
}

/** A place from which everything that is committed from now on is delivered. */
export async function headPosition(db: Db): Promise<Position> {
  const result = await sql<{ xmin: string }>`select pg_snapshot_xmin(pg_current_snapshot())::text as xmin`.execute(db)
  return { xid: BigInt(result.rows[0]?.xmin ?? '0'), id: 0 }
}

/** @throws HubError REVISION_COMPACTED where rows after the place are gone already. */
export async function refuseCompacted(db: Db, feed: 'changes' | 'events', position: Position): Promise<void> {
  const row = await db.selectFrom('change_horizon').selectAll().executeTakeFirstOrThrow()
  const horizon =
    feed === 'changes'
      ? { xid: BigInt(row.changes_xid), id: row.changes_id }
      : { xid: BigInt(row.events_xid), id: row.events_id }
  if (comparePositions(position, horizon) >= 0) return
  throw new HubError('REVISION_COMPACTED', 'the revision is too old to resume from; list again and watch from there')
}

/** The next changes after a place, in order. */
export async function readChangesAfter(db: Db, after: Position, limit: number): Promise<readonly ChangeRow[]> {
  return db
    .selectFrom('changes')
    .selectAll()
    .where(sql<boolean>`(xid, id) > (${String(after.xid)}::xid8, ${after.id}::bigint)`)
    .where(sql<boolean>`xid < pg_snapshot_xmin(pg_current_snapshot())`)
    .orderBy('xid')
    .orderBy('id')
    .limit(limit)
    .execute()
}

/** The next events after a place, in order. */
export async function readEventsAfter(db: Db, after: Position, limit: number): Promise<readonly EventRow[]> {
  return db
    .selectFrom('events')
    .selectAll()
    .where(sql<boolean>`(xid, id) > (${String(after.xid)}::xid8, ${after.id}::bigint)`)
    .where(sql<boolean>`xid < pg_snapshot_xmin(pg_current_snapshot())`)
    .orderBy('xid')
    .orderBy('id')
    .limit(limit)
    .execute()
}

/** A row as it stands in a change: JSON has no times, so those are made of the columns that are named for one. */
export function reviveRow<Row>(doc: Readonly<Record<string, unknown>>): Row {
  return Object.fromEntries(
    Object.entries(doc).map(([column, value]) => [
      column,
      column.endsWith('_at') && typeof value === 'string' ? new Date(value) : value,
    ]),
  ) as Row
}
