import { sql } from 'kysely'
import type { EventDraft, Shape } from '../domain/facts.js'
import { marketOf, type HoldCode } from '../domain/placement/holds.js'
import type { Db, Tx } from './database.js'
import type { MachineRequestRow } from './tables.js'

// What is not offered again for a while, and to whom. Two providers with one secret have one account: what one of them was told holds for both.

/** What said CAPACITY or QUOTA is not offered again for this long. */
const holdMs = 5 * 60_000

/** Whose account a provider `p` uses: a secret's, of one family, or its own. */
const credentialOf = sql`(case when p.credentials_secret = '' then p.id::text else p.family || ' ' || p.credentials_secret end)`

const live = sql`h.credential = ${credentialOf} and h.held_until > clock_timestamp()`
/** Of a provider `p` and its offering `o`, which may be missing: what is not of its place is left out as far as can be told here. */
const ofOffering = sql`(h.code = 'QUOTA' or o.type_id is null or (h.type_id = o.type_id and h.location = o.location))`

const holdJson = sql`jsonb_build_object(
  'code', h.code, 'provider', h.provider_name, 'typeId', h.type_id, 'location', h.location, 'market', h.market, 'shape', h.shape,
  'until', to_char(h.held_until at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'reason', h.reason)`

/** What may be held back of a provider `p`'s offering `o`, for domain/placement/holds to judge. Null: nothing. */
export const holdsOn = sql`(select jsonb_agg(${holdJson}) from capacity_holds h where ${live} and ${ofOffering})`

/** Whether anything of it is held back, in whichever market: what is to be looked at first does not need to know better. */
export const isHeld = sql<boolean>`exists (select from capacity_holds h where ${live} and ${ofOffering})`

/** Holds back what a failed request was refused. Returns what to tell of it: nothing where it is held back already. */
export async function holdCapacity(
  tx: Tx,
  request: Pick<MachineRequestRow, 'provider_id' | 'type_id' | 'location' | 'spec'>,
  code: HoldCode,
  message: string,
): Promise<readonly EventDraft[]> {
  const ofQuota = code === 'QUOTA'
  const result = await sql<{ providerName: string; known: boolean }>`/* hold-capacity */
    with told as (
      select ${credentialOf} as credential, p.id, p.name, (
        select o.shape from offerings o where o.provider_id = p.id and o.type_id = ${request.type_id} and o.location = ${request.location}
      ) as shape
      from providers p where p.id = ${request.provider_id}
    ), known as (
      select from capacity_holds h join told on told.credential = h.credential
      where h.code = ${code} and h.type_id = ${request.type_id} and h.location = ${ofQuota ? '' : request.location}
        and h.market = ${marketOf(request.spec.providerData)} and h.held_until > clock_timestamp()
    )
    insert into capacity_holds (credential, code, type_id, location, market, provider_id, provider_name, shape, reason, held_until)
    select credential, ${code}, ${request.type_id}, ${ofQuota ? '' : request.location}, ${marketOf(request.spec.providerData)}, id, name, shape,
           ${`${code}: ${message}`}, clock_timestamp() + ${holdMs} * interval '1 millisecond'
    from told
    on conflict (credential, code, type_id, location, market) do update
    set provider_id = excluded.provider_id, provider_name = excluded.provider_name, shape = excluded.shape, reason = excluded.reason,
        held_until = excluded.held_until,
        held_at = case when capacity_holds.held_until > clock_timestamp() then capacity_holds.held_at else excluded.held_at end
    returning provider_name as "providerName", exists (select from known) as known
  `.execute(tx)
  const [held] = result.rows
  if (held === undefined || held.known) return []
  return [
    {
      subject: `providers/${held.providerName}`,
      reason: 'CapacityHeld',
      severity: 'WARNING',
      message: `${ofQuota ? `What needs as much as ${request.type_id} or more` : placeText(request.type_id, request.location)} is not offered for a while: ${code}: ${message}`,
      providerId: request.provider_id,
    },
  ]
}

function placeText(typeId: string, location: string): string {
  return location === '' ? typeId : `${typeId} in ${location}`
}

/** Something that is held back. */
export interface StoredHold {
  readonly code: HoldCode
  readonly typeId: string
  readonly location: string
  readonly market: string
  /** Who was told so. */
  readonly toldName: string
  readonly shape: Shape | null
  readonly reason: string
  readonly heldAt: Date
  readonly heldUntil: Date
}

/** What is held back at providers, by their ids, whoever was told so. */
export async function readHolds(
  db: Db,
  providerIds: readonly string[],
): Promise<ReadonlyMap<string, readonly StoredHold[]>> {
  const holds = new Map<string, StoredHold[]>()
  if (providerIds.length === 0) return holds
  const result = await sql<StoredHold & { readonly providerId: string }>`/* read-holds */
    select p.id as "providerId", h.code, h.type_id as "typeId", h.location, h.market, h.provider_name as "toldName", h.shape, h.reason,
           h.held_at as "heldAt", h.held_until as "heldUntil"
    from providers p join capacity_holds h on ${live}
    where p.id = any(${[...providerIds]}::uuid[])
    order by h.code, h.type_id, h.location, h.market
  `.execute(db)
  for (const { providerId, ...hold } of result.rows) holds.set(providerId, [...(holds.get(providerId) ?? []), hold])
  return holds
}

/**
 * Offers again what is held back at a provider, and at others with the same credential.
 *
 * @param which empty strings: whichever type, and wherever.
 * @returns how many holds there were.
 */
export async function releaseHolds(
  tx: Tx,
  providerId: string,
  which: { readonly typeId: string; readonly location: string },
): Promise<number> {
  const result = await sql`/* release-holds */
    delete from capacity_holds h using providers p
    where p.id = ${providerId} and ${live} and (${which.typeId === ''} or h.type_id = ${which.typeId})
      and (${which.location === ''} or h.location = ${which.location})
  `.execute(tx)
  return Number(result.numAffectedRows ?? 0n)
}

/** Those whose time is long over. */
export const deleteOldHolds = sql`delete from capacity_holds where held_until < clock_timestamp() - interval '1 day'`
