import { sql } from 'kysely'
import { HubError } from '../domain/error/errors.js'
import { inSnapshot, type Db, type Tx } from './database.js'
import type { ChangeRow, EventRow } from './tables.js'

// The watch feeds. A place in a feed is a snapshot of the database: what that shows has been delivered. What a later snapshot shows beyond it comes next, in the order of
// ids. An id alone would lose what commits late, and a transaction id is no order of commits either: a transaction may get its id first, wait for the lock of a row,
// and change that row last. Whoever changes a row draws its id under the row's lock, and whatever shows a change shows all that was committed to that row before. So
// nothing is lost, nothing comes twice, each row's changes come in their order, and no transaction that stands still holds anybody up. A snapshot reaches no further than what
// is on disk for certain (`settled_snapshot`): PostgreSQL gives ids that it has forgotten in a crash to others.

/** Where to resume. */
export interface Revision {
  /** All that this snapshot (`xmin:xmax:xip,…`) shows has been delivered. */
  readonly seen: string
  /** In the midst of what a later snapshot shows beyond it: delivered up to this id. */
  readonly within?: { readonly snapshot: string; readonly id: number }
}

const snapshotPattern = /^\d{1,19}:\d{1,19}:(\d{1,19}(,\d{1,19})*)?$/
/** What is read as a 64-bit number by the database, and is one here as well. */
const highestXid = 2n ** 63n - 1n

/** Whether the database would take a text for a snapshot. Clients give them back, and what they give is not always what they were given. */
function isSnapshot(text: unknown): text is string {
  if (typeof text !== 'string' || !snapshotPattern.test(text)) return false
  const { xmin, xmax, open } = boundsOf(text)
  const between = open.map(BigInt)
  return (
    xmin > 0n &&
    xmin <= xmax &&
    xmax <= highestXid &&
    between.every((xid, index) => xid >= (between[index - 1] ?? xmin) && xid < xmax)
  )
}

/** An opaque token. It carries the database's epoch: revisions mean nothing in another one. */
export function encodeRevision(epoch: string, { seen, within }: Revision): string {
  const parts = within === undefined ? [2, epoch, seen] : [2, epoch, seen, within.snapshot, within.id]
  return Buffer.from(JSON.stringify(parts)).toString('base64url')
}

/** @throws HubError INVALID_REVISION, REVISION_COMPACTED. */
export function decodeRevision(epoch: string, text: string): Revision {
  const description = 'is not one that this hub gave; list again and watch from there'
  const invalid = new HubError('INVALID_REVISION', `revision: it ${description}`, {
    violations: [{ field: 'revision', description }],
  })
  let parts: unknown
  try {
    parts = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'))
  } catch {
    throw invalid
  }
  if (!Array.isArray(parts) || parts[0] !== 2) throw invalid
  const [, ofEpoch, seen, snapshot, id] = parts as unknown[]
  if (typeof ofEpoch !== 'string' || !isSnapshot(seen)) throw invalid
  if (ofEpoch !== epoch) {
    throw new HubError(
      'REVISION_COMPACTED',
      'the database was restored or replaced since; list again and watch from there',
    )
  }
  if (parts.length === 3) return { seen }
  if (!isSnapshot(snapshot) || !Number.isSafeInteger(id)) throw invalid
  return { seen, within: { snapshot, id: Number(id) } }
}

interface Bounds {
  readonly xmin: bigint
  readonly xmax: bigint
  readonly open: readonly string[]
}

function boundsOf(snapshot: string): Bounds {
  const [xmin = '0', xmax = '0', open = ''] = snapshot.split(':')
  return { xmin: BigInt(xmin), xmax: BigInt(xmax), open: open === '' ? [] : open.split(',') }
}

/** Whether a snapshot shows what a committed transaction wrote. */
export function isVisible(xid: bigint, snapshot: string): boolean {
  const { xmin, xmax, open } = boundsOf(snapshot)
  if (xid < xmin) return true
  if (xid >= xmax) return false
  return !open.includes(String(xid))
}

/** The later of two snapshots of one server: it shows all that the other does. */
export function laterSnapshot(one: string, other: string): string {
  const a = boundsOf(one)
  const b = boundsOf(other)
  if (a.xmax !== b.xmax) return a.xmax > b.xmax ? one : other
  if (a.xmin !== b.xmin) return a.xmin > b.xmin ? one : other
  return a.open.length <= b.open.length ? one : other
}

/** Reads under one snapshot, and gives the revision that goes on from exactly there. */
export async function readConsistently<T>(db: Db, work: (tx: Tx, revision: Revision) => Promise<T>): Promise<T> {
  return inSnapshot(db, async (tx) => work(tx, await headRevision(tx)))
}

/** A place from which everything that is committed from now on is delivered. */
export async function headRevision(db: Db): Promise<Revision> {
  const result = await sql<{ snapshot: string }>`select settled_snapshot() as snapshot`.execute(db)
  const row = result.rows[0]
  if (row === undefined) throw new Error('the database told no snapshot')
  return { seen: row.snapshot }
}

/** @throws HubError REVISION_COMPACTED where rows after the place may be gone already. */
export async function refuseCompacted(db: Db, feed: 'changes' | 'events', revision: Revision): Promise<void> {
  const row = await db.selectFrom('change_horizon').selectAll().executeTakeFirstOrThrow()
  const horizon = BigInt(feed === 'changes' ? row.changes_xid : row.events_xid)
  if (horizon < boundsOf(revision.seen).xmin) return
  throw new HubError('REVISION_COMPACTED', 'the revision is too old to resume from; list again and watch from there')
}

/** What comes after a place, as far as one page goes. */
export interface FeedPage<Row> {
  readonly rows: readonly Row[]
  /** The place after them. Where it is within a snapshot, there is more to be had at once. */
  readonly next: Revision
}

/** The next changes after a place. */
export function readChangesAfter(db: Db, after: Revision, limit: number): Promise<FeedPage<ChangeRow>> {
  return readAfter<ChangeRow>(db, 'changes', after, limit)
}

/** The next events after a place. */
export function readEventsAfter(db: Db, after: Revision, limit: number): Promise<FeedPage<EventRow>> {
  return readAfter<EventRow>(db, 'events', after, limit)
}

async function readAfter<Row extends { readonly id: number }>(
  db: Db,
  table: 'changes' | 'events',
  after: Revision,
  limit: number,
): Promise<FeedPage<Row>> {
  const { seen, within } = after
  const { xmin } = boundsOf(seen)
  const bound =
    within === undefined
      ? sql``
      : sql`and pg_visible_in_snapshot(xid, ${within.snapshot}::pg_snapshot) and id > ${within.id}::bigint`
  // One statement has one snapshot: what it reads is what the snapshot that it tells of shows. It is asked for once, and not with each row.
  const result = await sql<Row & { readonly snapshot: string; readonly found: boolean }>`
    select (select settled_snapshot()) as snapshot, row.id is not null as found, row.*
    from (values (1)) as one (n)
    left join lateral (
      select * from ${sql.table(table)}
      where xid >= ${String(xmin)}::xid8 and not pg_visible_in_snapshot(xid, ${seen}::pg_snapshot) ${bound}
      order by id
      limit ${limit + 1}
    ) row on true
  `.execute(db)
  const snapshot = within?.snapshot ?? result.rows[0]?.snapshot
  if (snapshot === undefined) throw new Error('the database told no snapshot')
  const found = result.rows.filter((row) => row.found)
  const rows = found.slice(0, limit)
  const last = rows.at(-1)
  const more = found.length > limit && last !== undefined
  return { rows, next: more ? { seen, within: { snapshot, id: last.id } } : { seen: snapshot } }
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
