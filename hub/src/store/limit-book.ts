import { sql } from 'kysely'
import type { Price } from '../domain/facts.js'
import { monthStart } from '../domain/price/cost.js'
import {
  carriedCharge,
  chargeOf,
  excessOf,
  noCharge,
  releasedCharge,
  type Charge,
  type Demand,
  type Excess,
  type Limit,
  type LimitKind,
} from '../domain/quota/quota.js'
import type { Db, Tx } from './database.js'
import { rowsAs } from './rows.js'

// The limits that concern the hosts of one transaction, and what those count against them. Limits are locked in the order of their ids, and held to the end of the
// transaction: whoever would count against the same ones waits. Making a limit counts what is there already, so it must not happen while hosts come and go unseen: whoever
// charges or releases holds an advisory lock together with all others who do, and whoever makes a limit holds it alone.

/** Distinguishes the lock from other advisory locks. */
const advisoryKey = 0x51_1a_17

/** Charging and releasing may go on beside each other, and not beside the making of limits. */
export async function shareLimits(tx: Tx): Promise<void> {
  await sql`/* share-limits */ select pg_advisory_xact_lock_shared(${sql.lit(advisoryKey)})`.execute(tx)
}

/** Waits until nobody charges or releases, and keeps them waiting. */
export async function ownLimits(tx: Tx): Promise<void> {
  await sql`select pg_advisory_xact_lock(${sql.lit(advisoryKey)})`.execute(tx)
}

interface LimitColumns {
  readonly id: string
  readonly quota_name: string
  readonly organization_id: string
  readonly workspace_id: string | null
  readonly kind: LimitKind
  readonly class_name: string
  readonly family: string
  readonly currency: string
  readonly maximum: number
  readonly used: number
  readonly period: Date | null
}

interface ChargeColumns {
  readonly limit_id: string
  readonly host_id: string
  readonly amount: number
  readonly settled: number
  readonly price: Price | null
  readonly since: Date | null
}

const limitColumns = sql`l.id, l.quota_name, l.organization_id, l.workspace_id, l.kind, l.class_name, l.family, l.currency, l.maximum, l.used, l.period`

function toLimit(row: LimitColumns): Limit {
  return {
    id: row.id,
    quota: row.quota_name,
    organizationId: row.organization_id,
    workspaceId: row.workspace_id,
    kind: row.kind,
    className: row.class_name,
    family: row.family,
    currency: row.currency,
    maximum: row.maximum,
    used: row.used,
  }
}

function toCharge(row: ChargeColumns): Charge {
  return {
    amount: row.amount,
    settled: row.settled,
    running: row.price === null || row.since === null ? null : { price: row.price, since: row.since },
  }
}

/** Hosts that are about to be placed, whose charges count for them and not against them. */
export interface BookOptions {
  readonly hostIds?: readonly string[]
}

/** Limits as one transaction sees and changes them. */
export class LimitBook {
  readonly now: Date
  readonly #limits = new Map<string, Limit>()
  readonly #charges = new Map<string, Charge>()
  readonly #reserved = new Map<string, number>()
  readonly #touched = new Set<string>()

  constructor(
    limits: readonly Limit[],
    charges: readonly (readonly [limitId: string, hostId: string, charge: Charge])[],
    now: Date,
  ) {
    this.now = now
    for (const limit of limits) this.#limits.set(limit.id, limit)
    for (const [limitId, hostId, charge] of charges) this.#charges.set(keyOf(limitId, hostId), charge)
  }

  get isEmpty(): boolean {
    return this.#limits.size === 0
  }

  /** The first limit that does not allow it; undefined where all do. @param hostId of a host that counts already. */
  excess(demand: Demand, hostId?: string): Excess | undefined {
    for (const limit of this.#limits.values()) {
      const used = limit.used + (this.#reserved.get(limit.id) ?? 0)
      const excess = excessOf({ ...limit, used }, demand, this.now, this.#chargeOf(limit.id, hostId))
      if (excess !== undefined) return excess
    }
    return undefined
  }

  /** Counts an order that is not stored yet, until {@link charge} or {@link giveBack}. */
  reserve(demand: Demand, sign: 1 | -1 = 1): void {
    for (const limit of this.#limits.values()) {
      const { amount } = chargeOf(limit, demand, this.now)
      if (amount !== 0) this.#reserved.set(limit.id, (this.#reserved.get(limit.id) ?? 0) + sign * amount)
    }
  }

  /** Has a host count as it is now. */
  charge(hostId: string, demand: Demand): void {
    for (const limit of this.#limits.values()) {
      const before = this.#chargeOf(limit.id, hostId)
      const after = chargeOf(limit, demand, this.now, before)
      if (after === before || (after.amount === 0 && before.amount === 0)) continue
      this.#charges.set(keyOf(limit.id, hostId), after)
      this.#touched.add(keyOf(limit.id, hostId))
      this.#limits.set(limit.id, { ...limit, used: limit.used + after.amount - before.amount })
    }
  }

  /** Stores what has changed. */
  async flush(tx: Tx): Promise<void> {
    if (this.#touched.size === 0) return
    const charges = [...this.#touched].map((key) => {
      const { limitId, hostId } = partsOf(key)
      return { limit_id: limitId, host_id: hostId, ...chargeColumns(this.#charges.get(key) ?? noCharge) }
    })
    const limits = [...new Set(charges.map(({ limit_id }) => limit_id))].map((id) => ({
      id,
      used: this.#limits.get(id)?.used ?? 0,
    }))
    this.#touched.clear()
    await sql`/* charge-limits */
      with charged as (
        insert into quota_charges (limit_id, host_id, amount, settled, price, since)
        select limit_id, host_id, amount, settled, price, since
        from ${rowsAs('c (limit_id uuid, host_id uuid, amount bigint, settled bigint, price jsonb, since timestamptz)', charges)}
        on conflict (host_id, limit_id) do update
        set amount = excluded.amount, settled = excluded.settled, price = excluded.price, since = excluded.since
      )
      update quota_limits l set used = n.used from ${rowsAs('n (id uuid, used bigint)', limits)} where l.id = n.id
    `.execute(tx)
  }

  #chargeOf(limitId: string, hostId: string | undefined): Charge {
    return hostId === undefined ? noCharge : (this.#charges.get(keyOf(limitId, hostId)) ?? noCharge)
  }
}

function keyOf(limitId: string, hostId: string): string {
  return `${limitId} ${hostId}`
}

function partsOf(key: string): { readonly limitId: string; readonly hostId: string } {
  const at = key.indexOf(' ')
  return { limitId: key.slice(0, at), hostId: key.slice(at + 1) }
}

function chargeColumns({ amount, settled, running }: Charge) {
  return { amount, settled, price: running?.price ?? null, since: running?.since ?? null }
}

/** Where hosts come from, to find the limits that concern them. */
export interface LimitScope {
  readonly organizationId: string
  readonly workspaceId: string
}

/**
 * Locks the limits that concern some workspaces, and reads them. Where there are none, it costs two short statements that travel together with others.
 *
 * @param scopes of the hosts that are to count; limits of their organizations count for all of them.
 */
export async function openLimitBook(
  tx: Tx,
  scopes: readonly LimitScope[],
  options: BookOptions = {},
): Promise<LimitBook> {
  const organizations = [...new Set(scopes.map((scope) => scope.organizationId))]
  const workspaces = [...new Set(scopes.map((scope) => scope.workspaceId))]
  const hostIds = options.hostIds ?? []
  const [, found, charges] = await Promise.all([
    shareLimits(tx),
    sql<LimitColumns & { readonly now: Date }>`/* lock-limits */
      select ${limitColumns}, clock_timestamp() as now
      from quota_limits l
      where l.organization_id = any(${organizations}::uuid[]) and (l.workspace_id is null or l.workspace_id = any(${workspaces}::uuid[]))
      order by l.id
      for update of l
    `.execute(tx),
    hostIds.length === 0
      ? undefined
      : sql<ChargeColumns>`/* charges-of-hosts */
          select limit_id, host_id, amount, settled, price, since from quota_charges where host_id = any(${[...hostIds]}::uuid[])
        `.execute(tx),
  ])
  const now = found.rows[0]?.now ?? new Date()
  const limits = await Promise.all(found.rows.map((row) => inThisMonth(tx, row, now)))
  const known = await (limits.some((row, index) => row !== found.rows[index]) && hostIds.length > 0
    ? sql<ChargeColumns>`
        select limit_id, host_id, amount, settled, price, since from quota_charges where host_id = any(${[...hostIds]}::uuid[])
      `.execute(tx)
    : charges)
  return new LimitBook(
    limits.map(toLimit),
    (known?.rows ?? []).map((row) => [row.limit_id, row.host_id, toCharge(row)]),
    now,
  )
}

/** A locked monthly budget as it stands in the month that has begun since it was looked at last: what was spent before is forgotten, and what goes on counts for all of it. */
async function inThisMonth(tx: Tx, row: LimitColumns, now: Date): Promise<LimitColumns> {
  const month = monthStart(now)
  if (row.period === null || row.period.getTime() >= month.getTime()) return row
  const old = await sql<ChargeColumns>`
    select limit_id, host_id, amount, settled, price, since from quota_charges where limit_id = ${row.id}
  `.execute(tx)
  const carried = old.rows.map((charge) => ({
    host_id: charge.host_id,
    ...chargeColumns(carriedCharge(toCharge(charge), month)),
  }))
  const used = carried.reduce((sum, { amount }) => sum + amount, 0)
  await sql`
    update quota_charges c set amount = n.amount, settled = n.settled, price = n.price, since = n.since
    from ${rowsAs('n (host_id uuid, amount bigint, settled bigint, price jsonb, since timestamptz)', carried)}
    where c.limit_id = ${row.id} and c.host_id = n.host_id
  `.execute(tx)
  // What counts for nothing any more, for good or until it is placed again.
  await sql`delete from quota_charges where limit_id = ${row.id} and amount = 0`.execute(tx)
  await sql`update quota_limits set used = ${used}::bigint, period = ${month} where id = ${row.id}`.execute(tx)
  return { ...row, used, period: month }
}

/** The limits that concern some workspaces, as they are now, without locking them: to refuse what has no chance, and to choose among places. */
export async function readLimitBook(db: Db, scopes: readonly LimitScope[]): Promise<LimitBook> {
  const found = await sql<LimitColumns & { readonly now: Date }>`/* read-limits */
    select ${limitColumns}, clock_timestamp() as now from quota_limits l
    where l.organization_id = any(${[...new Set(scopes.map((scope) => scope.organizationId))]}::uuid[])
      and (l.workspace_id is null or l.workspace_id = any(${[...new Set(scopes.map((scope) => scope.workspaceId))]}::uuid[]))
    order by l.id
  `.execute(db)
  const now = found.rows[0]?.now ?? new Date()
  const month = monthStart(now).getTime()
  // In a month that nobody has ordered in yet, nothing is known before whoever orders first has reckoned it.
  const isOld = (row: LimitColumns) => row.period !== null && row.period.getTime() < month
  return new LimitBook(
    found.rows.map((row) => toLimit(isOld(row) ? { ...row, used: 0 } : row)),
    [],
    now,
  )
}

/** Takes released hosts off what counts. What a monthly budget was spent on by them stays spent. */
export async function releaseCharges(tx: Tx, hostIds: readonly string[]): Promise<void> {
  if (hostIds.length === 0) return
  const [, held] = await Promise.all([
    shareLimits(tx),
    sql<LimitColumns & { readonly now: Date }>`/* lock-limits-of-hosts */
      select ${limitColumns}, clock_timestamp() as now from quota_limits l
      where l.id in (select limit_id from quota_charges where host_id = any(${[...hostIds]}::uuid[]))
      order by l.id
      for update of l
    `.execute(tx),
  ])
  const now = held.rows[0]?.now
  if (now === undefined) return
  for (const row of held.rows) {
    const limit = await inThisMonth(tx, row, now)
    const charges = await sql<ChargeColumns>`
      select limit_id, host_id, amount, settled, price, since from quota_charges
      where limit_id = ${limit.id} and host_id = any(${[...hostIds]}::uuid[])
    `.execute(tx)
    const after = charges.rows.map((charge) => ({
      host_id: charge.host_id,
      before: charge.amount,
      ...chargeColumns(limit.kind === 'MONTHLY_MICROS' ? releasedCharge(toCharge(charge), now) : noCharge),
    }))
    const less = after.reduce((sum, { before, amount }) => sum + before - amount, 0)
    await sql`/* release-charges */
      with settled as (
        update quota_charges c set amount = n.amount, settled = n.settled, price = null, since = null
        from ${rowsAs('n (host_id uuid, amount bigint, settled bigint)', after)}
        where c.limit_id = ${limit.id} and c.host_id = n.host_id and n.amount > 0
      ), gone as (
        delete from quota_charges c using ${rowsAs('n (host_id uuid, amount bigint)', after)}
        where c.limit_id = ${limit.id} and c.host_id = n.host_id and n.amount = 0
      )
      update quota_limits set used = used - ${less}::bigint where id = ${limit.id}
    `.execute(tx)
  }
}
