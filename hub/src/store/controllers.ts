import { sql } from 'kysely'
import { inTransaction, type Db, type Tx } from './database.js'

// Controllers that run once in the whole hub: a lease in the database, by its clock, with a fence that every write is made under.

/** A held controller lease. */
export interface ControllerLease {
  readonly name: string
  readonly fence: number
  /** For how long this replica has held it without a gap, in ms. */
  readonly heldMs: number
}

/** The lease is another replica's by now. Whatever was about to be written was not. */
export class ControllerLost extends Error {
  override readonly name = 'ControllerLost'
}

/**
 * Takes a controller's lease where it is free or has run out, and extends it where it is the replica's own and has not. After a gap the fence has risen, also
 * where the holder is the same: what it knew of before is old.
 *
 * @returns undefined where another replica holds it.
 */
export async function holdController(
  db: Db,
  name: string,
  replica: string,
  leaseMs: number,
): Promise<ControllerLease | undefined> {
  const result = await sql<{ fence: number; heldMs: number }>`
    insert into controllers as held (name, holder, expires_at)
    values (${name}, ${replica}, clock_timestamp() + ${leaseMs} * interval '1 millisecond')
    on conflict (name) do update
    set holder = excluded.holder,
        expires_at = excluded.expires_at,
        fence = held.fence + (held.holder <> excluded.holder or held.expires_at <= clock_timestamp())::int,
        held_since = case
          when held.holder = excluded.holder and held.expires_at > clock_timestamp() then held.held_since
          else clock_timestamp()
        end
    where held.holder = excluded.holder or held.expires_at <= clock_timestamp()
    returning fence, extract(epoch from clock_timestamp() - held_since)::float8 * 1000 as "heldMs"
  `.execute(db)
  const row = result.rows[0]
  return row === undefined ? undefined : { name, fence: row.fence, heldMs: row.heldMs }
}

/** Lets go of a controller, so that another replica need not wait for the lease to run out. */
export async function releaseController(db: Db, lease: ControllerLease): Promise<void> {
  await sql`
    update controllers set expires_at = clock_timestamp() where name = ${lease.name} and fence = ${lease.fence}
  `.execute(db)
}

/**
 * Runs `work` in a transaction that holds the lease's row: it commits under the fence or not at all. The row is locked first, and shared, so that it delays
 * nobody but whoever would take the lease over.
 *
 * @throws ControllerLost
 */
export async function underController<T>(
  db: Db,
  lease: Pick<ControllerLease, 'name' | 'fence'>,
  work: (tx: Tx) => Promise<T>,
): Promise<T> {
  return inTransaction(
    db,
    async (tx) => {
      const held = await sql`
      select 1 from controllers
      where name = ${lease.name} and fence = ${lease.fence} and expires_at > clock_timestamp()
      for share
    `.execute(tx)
      if (held.rows.length === 0) throw new ControllerLost(`controller ${lease.name} is another replica's by now`)
      return work(tx)
    },
    'sweep',
  )
}
