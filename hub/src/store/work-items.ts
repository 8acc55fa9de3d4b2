import { sql, type RawBuilder, type Selectable } from 'kysely'
import type { Db } from './database.js'
import { reviveRow } from './changes.js'
import { ageingMs } from '../domain/share/priority.js'
import { hubCause, newEventId } from './events.js'
import { fixedStatement, type ValueOf } from './fixed-statement.js'
import { holderValues, type Holder, type HolderValues } from './holders.js'
import type { ItemKind, MachineRequestRow, MachineRow, Tables } from './tables.js'

// Claims. An item is free when it has no session; the session sweep takes it from sessions that have ended or run out.

/** How many items a session may be given. */
export interface Credit extends Holder {
  readonly credit: number
}

/** A host whose request has just been taken up is looked at after this long, so that what comes at once is shown together with it. */
export const takenUpLookMs = 200

/** Requests that were just taken up, with the secrets that go with them. */
export type TakenUpRequest = MachineRequestRow & {
  readonly userDataSealed: Buffer | null
  readonly phoneHomeTokenSealed: Buffer | null
}

export interface ClaimedItem {
  readonly providerId: string
  readonly id: string
  readonly kind: ItemKind
  readonly sessionId: string
  readonly fence: number
  readonly generation: number
  readonly attempt: number
}

const claimColumns = sql.raw(
  'work_items.provider_id, work_items.id, work_items.kind, work_items.fence, work_items.generation, work_items.attempt',
)

/** What was claimed at once. */
export interface Claims {
  /** Providers that several workspaces or priorities wait for: more may be due there, though fewer were claimed than asked for. */
  readonly contested: readonly string[]
  readonly items: readonly ClaimedItem[]
  readonly takenUp: readonly TakenUpRequest[]
}

/**
 * Claims due items for many sessions, each under a fence that is higher than any before, and moves on the requests that are taken up by it. Sessions that have ended or run
 * out get nothing, whatever their replica believes. Items of a provider are dealt out among its sessions, one to each in turn.
 *
 * What waits stands in lanes, one for each workspace and priority. Where one lane is alone, its oldest items go; where there are several, {@link claimShared} does the rest.
 * Neither reads more of what waits than it takes, but one row for each lane.
 */
export async function claimDueItems(db: Db, credits: readonly Credit[]): Promise<Claims> {
  const alone = await claimAlone(db, credits)
  if (alone.contested.length === 0) return alone
  const shared = await claimShared(db, creditsAt(credits, alone.contested))
  return {
    contested: shared.contested,
    items: [...alone.items, ...shared.items],
    takenUp: [...alone.takenUp, ...shared.takenUp],
  }
}

/** The credits at some providers. */
export function creditsAt(credits: readonly Credit[], providerIds: readonly string[]): readonly Credit[] {
  return credits.filter((credit) => providerIds.includes(credit.providerId))
}

/** Credits as values of a statement. */
interface CreditValues extends HolderValues {
  readonly credits: readonly number[]
}

function creditValues(credits: readonly Credit[]): CreditValues {
  return { ...holderValues(credits), credits: credits.map(({ credit }) => credit) }
}

/** The sessions that are good, each with its place among those that were asked for, from 1. */
const sessionsWanted = (value: ValueOf<CreditValues>) => sql`
    wanted as materialized (
      select w.holder::int as holder, w.session_id, w.provider_id, w.credit
      from unnest((select ${value('sessions')}::uuid[]), (select ${value('providers')}::uuid[]), (select ${value('credits')}::int[]))
        with ordinality as w (session_id, provider_id, credit, holder)
      join sessions s on s.id = w.session_id and s.ended_at is null and s.expires_at > clock_timestamp()
    )`

/** Deals `due` out among the sessions. Apart from the update: beside it, a planner that knows nothing of the table yet looked up all items of a provider for each that it deals out. */
const dealtOut = sql`
    slots as (
      select w.provider_id, w.holder, row_number() over (partition by w.provider_id order by turn, w.session_id) as turn
      from wanted w
      cross join lateral generate_series(1, least(w.credit, (select count(*) from due where due.provider_id = w.provider_id))) as turn
    ), dealt as materialized (
      select due.place, due.untold, slots.holder
      from due join slots on slots.provider_id = due.provider_id and slots.turn = due.turn
    )`

/**
 * The same where no provider has two sessions among those that want something: nothing has to be dealt. They pass as arrays, which the planner takes for short ones; what a
 * `limit` without a number lets through it takes for a tenth of all there is, and would rather read the whole table than look those up.
 */
const allToOne = sql`
    dealt as materialized (
      select unnest(all_due.places) as place, unnest(all_due.untold) as untold, unnest(all_due.holders) as holder
      from (select array_agg(place) as places, array_agg(untold) as untold, array_agg(holder) as holders from due) all_due
    )`

/**
 * What was dealt lies where this statement has just locked it. An item that somebody else has changed since the statement began has moved: it is left for the next claim, for
 * which whoever makes something due asks once that stands.
 */
const claimed = (value: ValueOf<CreditValues>) => sql`
    claimed as (
      update work_items
      set session_id = (${value('sessions')}::uuid[])[dealt.holder],
          fence = work_items.fence + 1,
          claimed_at = clock_timestamp(),
          sent_generation = work_items.generation
      from dealt
      where work_items.ctid = dealt.place
      returning ${claimColumns}, dealt.holder, dealt.untold
    )`

/**
 * Claims, in one statement, of providers at which one lane is alone, and says at which there are several: nothing is claimed of those. The last lane is looked for from the
 * end of the index, and others only below it: entries of what was claimed before, which the index still has at the lane's beginning, are passed once.
 */
export async function claimAlone(db: Db, credits: readonly Credit[]): Promise<Claims> {
  const oneEach = new Set(credits.map(({ providerId }) => providerId)).size === credits.length
  const claim = oneEach ? claimAllToOne : claimDealtOut
  return toClaims(await claim(db, creditValues(credits)), credits)
}

const claimAllToOne = fixedStatement<ClaimRow, CreditValues>((value) =>
  claimOfAlone(value, { asking: sql`wanted`, dealing: allToOne, turn: sql`total.holder` }),
)

const claimDealtOut = fixedStatement<ClaimRow, CreditValues>((value) =>
  claimOfAlone(value, {
    asking: sql`(select provider_id, sum(credit)::int as credit from wanted group by provider_id)`,
    dealing: dealtOut,
    turn: sql`row_number() over (partition by d.provider_id order by d.due_at, d.id) as turn`,
  }),
)

interface Dealing {
  /** One row for each provider, with what its sessions take together. */
  readonly asking: RawBuilder<unknown>
  /** Whose turn it is, for each item that is due. */
  readonly turn: RawBuilder<unknown>
  readonly dealing: RawBuilder<unknown>
}

function claimOfAlone(value: ValueOf<CreditValues>, { asking, turn, dealing }: Dealing) {
  return sql<ClaimRow>`/* claim-due-items */
    with ${sessionsWanted(value)}, total as materialized (
      select t.*, last.workspace_id, last.priority, other.there is null as alone
      from ${asking} t
      cross join lateral (
        select workspace_id, priority from work_items
        where provider_id = t.provider_id and session_id is null and due_at is not null and not paused
        order by workspace_id desc, priority desc, due_at desc limit 1
      ) last
      left join lateral (
        select true as there from work_items
        where provider_id = t.provider_id and (workspace_id, priority) < (last.workspace_id, last.priority)
          and session_id is null and due_at is not null and not paused
        order by workspace_id desc, priority desc, due_at desc limit 1
      ) other on true
    ), due as materialized (
      select d.provider_id, d.place, d.untold, ${turn}
      from total
      cross join lateral (
        select ctid as place, provider_id, id, due_at, sent_generation < generation as untold from work_items
        where provider_id = total.provider_id and workspace_id = total.workspace_id and priority = total.priority and session_id is null
          and due_at <= (select clock_timestamp()) and not paused
        order by due_at
        limit total.credit
        for update skip locked
      ) d
      where total.alone
    ), ${dealing}, ${claimed(value)}, ${takenUpWith}
    union all
    select null, provider_id, null, null, null, null, null, null, null from total where not alone
  `
}

/**
 * Claims, in one statement, of providers at which several lanes wait: each lane is looked into as far as its share may reach, and they go as domain/share says. What lies
 * behind an item that was not looked at is left for the next claim.
 */
export async function claimShared(db: Db, credits: readonly Credit[]): Promise<Claims> {
  const claims = toClaims(await claimInTurns(db, creditValues(credits)), credits)
  return { ...claims, contested: [...new Set(claims.items.map(({ providerId }) => providerId))] }
}

const claimInTurns = fixedStatement<ClaimRow, CreditValues>(
  (value) => sql<ClaimRow>`/* claim-shared-items */
    with recursive ${sessionsWanted(value)}, lanes as (
      select total.provider_id, total.credit, first.workspace_id, first.priority
      from (select provider_id, sum(credit)::int as credit from wanted group by provider_id) total
      cross join lateral (
        select workspace_id, priority from work_items
        where provider_id = total.provider_id and session_id is null and due_at is not null and not paused
        order by workspace_id, priority limit 1
      ) first
      union all
      select l.provider_id, l.credit, next.workspace_id, next.priority
      from lanes l
      cross join lateral (
        select workspace_id, priority from work_items
        where provider_id = l.provider_id and session_id is null and due_at is not null and not paused
          and (workspace_id, priority) > (l.workspace_id, l.priority)
        order by workspace_id, priority limit 1
      ) next
    ), ${rankedLanes}, due as materialized (
      select r.provider_id, r.place, row_number() over (partition by r.provider_id order by r.rank) as turn, r.untold, r.workspace_id, r.tag, r.weight
      from (
        select r.provider_id, r.rank, locked.place, locked.untold, r.workspace_id, r.tag, r.weight
        from ranked r
        cross join lateral (
          select w.ctid as place, w.sent_generation < w.generation as untold from work_items w
          where w.provider_id = r.provider_id and w.id = r.id and w.session_id is null and w.due_at is not null and not w.paused
          for update skip locked
        ) locked
        where r.rank <= r.credit and (r.stop is null or array[-r.level, r.tag] < r.stop)
      ) r
    ), ${dealtOut}, ${claimed(value)}, ${chargedShares}, ${takenUpWith}
  `,
)

/** The heads of lanes, in the order in which they go; \`stop\` is where the first would come that was not looked at. */
const rankedLanes = sql`
  rivals as materialized (
    select l.*, coalesce(ws.weight, 1) as weight, greatest(coalesce(s.pass, 0), coalesce(c.clock, 0)) as base,
           least(l.credit, 2 + ceil(2.0 * l.credit * coalesce(ws.weight, 1) / sum(coalesce(ws.weight, 1)) over (partition by l.provider_id)))::int as reach
    from lanes l
    left join workspaces ws on ws.id = l.workspace_id
    left join work_shares s on s.provider_id = l.provider_id and s.workspace_id = l.workspace_id
    left join work_clocks c on c.provider_id = l.provider_id
  ), heads as (
    select r.provider_id, r.credit, r.workspace_id, r.weight, r.base, i.id, i.due_at,
           least(1, r.priority + floor(extract(epoch from (select clock_timestamp()) - i.due_at) * 1000 / ${sql.lit(ageingMs)}))::int as level,
           r.reach < r.credit and count(*) over lane = r.reach and row_number() over (lane order by i.due_at desc, i.id desc) = 1 as cut
    from rivals r
    cross join lateral (
      select id, due_at from work_items
      where provider_id = r.provider_id and workspace_id = r.workspace_id and priority = r.priority and session_id is null
        and due_at <= (select clock_timestamp()) and not paused
      order by due_at
      limit r.reach
    ) i
    window lane as (partition by r.provider_id, r.workspace_id, r.priority)
  ), tagged as (
    select *, base + (row_number() over (partition by provider_id, workspace_id order by level desc, due_at, id) - 1)::float8 / weight as tag
    from heads
  ), ranked as (
    select *, row_number() over (partition by provider_id order by level desc, tag, due_at, id) as rank,
           min(case when cut then array[-level, tag + 1::float8 / weight] end) over (partition by provider_id) as stop
    from tagged
  )`

/** Charges what was claimed to the workspaces that compete. Rows are locked in one order, so that two replicas never wait for each other. */
const chargedShares = sql`
  competing as (
    select provider_id from heads group by provider_id having count(distinct workspace_id) > 1
  ), clocks as (
    insert into work_clocks (provider_id, clock)
    select provider_id, max(tag) from due where provider_id in (select provider_id from competing) group by provider_id order by provider_id
    on conflict (provider_id) do update set clock = greatest(work_clocks.clock, excluded.clock)
  ), shares as (
    insert into work_shares (provider_id, workspace_id, began, pass)
    select provider_id, workspace_id, min(tag), min(tag) + count(*)::float8 / min(weight)
    from due where provider_id in (select provider_id from competing)
    group by provider_id, workspace_id
    order by provider_id, workspace_id
    on conflict (provider_id, workspace_id) do update
    set began = excluded.began, pass = excluded.pass + greatest(0, work_shares.pass - excluded.began)
  )`

/** @param holders in the order in which the statement was given them. */
function toClaims(rows: readonly ClaimRow[], holders: readonly Holder[]): Claims {
  const contested: string[] = []
  const items: ClaimedItem[] = []
  const takenUp: TakenUpRequest[] = []
  for (const row of rows) {
    if (row.request !== null) takenUp.push(toTakenUp(row))
    else if (row.holder === null) contested.push(row.id)
    else items.push(toClaimedItem(row, holders))
  }
  return { contested, items, takenUp }
}

/** Claims first, and then what was taken up: joined, they would cost the database their product. */
type ClaimRow =
  | (ClaimColumns & { readonly request: null })
  /** Of a provider at which several lanes wait. */
  | { readonly holder: null; readonly id: string; readonly request: null }
  | TakenUpColumns

interface TakenUpColumns {
  readonly request: Readonly<Record<string, unknown>>
  readonly userDataSealed: Buffer | null
  readonly phoneHomeTokenSealed: Buffer | null
}

function toTakenUp({ request, userDataSealed, phoneHomeTokenSealed }: TakenUpColumns): TakenUpRequest {
  return { ...reviveRow<MachineRequestRow>(request), userDataSealed, phoneHomeTokenSealed }
}

interface ClaimColumns {
  /** The place of its holder among those that were asked for, from 1. */
  readonly holder: number
  readonly id: string
  readonly kind: ItemKind
  readonly fence: number
  readonly generation: number
  readonly attempt: number
}

function toClaimedItem(row: ClaimColumns, holders: readonly Holder[]): ClaimedItem {
  const holder = holders[row.holder - 1]
  if (holder === undefined) throw new Error(`there are ${holders.length} holders, and an item of holder ${row.holder}`)
  const { sessionId, providerId } = holder
  const { id, kind, fence, generation, attempt } = row
  return { providerId, id, kind, sessionId, fence, generation, attempt }
}

const removing = sql`operation in ('DEPROVISION', 'UNADOPT')`

/**
 * The rest of a statement that begins with items that are told to their holders, as `claimed`, by a claim or because of a newer wish: moves on those of their requests whose
 * work is taken up by that, says so in their timelines, and has their hosts looked at. Items are locked before requests, as everywhere.
 */
// Whoever was told of a generation has taken its request up in the same statement: there is nothing to be looked at again.
const takenUpWith = sql`
  taken as (
    update machine_requests r
    set state = case when ${removing} then 'DEPROVISIONING' else 'PROVISIONING' end
    from claimed k
    where k.kind = 'MACHINE_REQUEST' and k.untold and r.provider_id = k.provider_id and r.id = k.id
      and case when ${removing} then r.state not in ('DEPROVISIONING', 'GONE') else r.state = 'PENDING' end
    returning r.*
  ), told as (
    insert into events (event_id, subject, related, provider_id, organization_id, reason, message, severity, actor, request_id)
    select ${newEventId}, 'machineRequests/' || name, array[host_name, 'providers/' || provider_name], provider_id, organization_id,
           case when ${removing} then 'RequestDeprovisioning' else 'RequestClaimed' end,
           provider_name || case operation
             when 'DEPROVISION' then ' removes the machine'
             when 'ADOPT' then ' takes over server ' || adopt_external_id
             when 'UNADOPT' then ' lets go of server ' || adopt_external_id || ', which stays as it is'
             else ' makes the machine' end,
           'INFO', ${hubCause.actor}, ${hubCause.requestId}
    from taken
  ), looked as (
    insert into host_schedule (organization_id, host_id, due_at)
    select organization_id, host_id, clock_timestamp() + ${takenUpLookMs} * interval '1 millisecond'
    from (select distinct organization_id, host_id from taken) hosts
    order by host_id
    on conflict (organization_id, host_id) do update set due_at = excluded.due_at where host_schedule.due_at > excluded.due_at
  )
  select c.holder, c.id, c.kind, c.fence, c.generation, c.attempt,
         null::jsonb as request, null::bytea as "userDataSealed", null::bytea as "phoneHomeTokenSealed"
  from claimed c
  union all
  select null, null, null, null, null, null, to_jsonb(taken), s.user_data_sealed, s.phone_home_token_sealed
  from taken
  left join machine_request_secrets s on s.provider_id = taken.provider_id and s.request_id = taken.id`

const takeHeld = (name: string, which: RawBuilder<unknown>) =>
  fixedStatement<ClaimRow, HolderValues>(
    (value) => sql<ClaimRow>`${sql.raw(`/* ${name} */`)}
    with claimed as (
      update work_items
      set sent_generation = generation
      where session_id = any(${value('sessions')}::uuid[]) ${which}
      returning ${claimColumns}, array_position(${value('sessions')}::uuid[], session_id) as holder, true as untold
    ), ${takenUpWith}`,
  )

const takeChanged = takeHeld('take-changed-wishes', sql`and generation > sent_generation`)
const takeAll = takeHeld('take-held-items', sql``)

/** Takes note that holders are being told of newer wishes, and says of which. */
export async function takeChangedWishes(db: Db, holders: readonly Holder[]): Promise<Claims> {
  return toClaims(await takeChanged(db, holderValues(holders)), holders)
}

/** Everything that sessions hold, with note taken that they are being told of it as it is now. */
export async function takeHeldItems(db: Db, holders: readonly Holder[]): Promise<Claims> {
  return toClaims(await takeAll(db, holderValues(holders)), holders)
}

/** What a claim is about, as stored. */
export interface ItemDetails {
  readonly requests: ReadonlyMap<string, MachineRequestRow>
  readonly machines: ReadonlyMap<string, MachineRow>
  readonly secrets: ReadonlyMap<string, RequestSecrets>
  readonly steps: ReadonlyMap<string, readonly StoredStep[]>
}

/** Sealed. */
interface RequestSecrets {
  readonly userData: Buffer
  readonly phoneHomeToken: Buffer
}

export interface StoredStep {
  readonly itemId: string
  readonly operation: string
  readonly operationGeneration: number
  readonly name: string
  readonly result: unknown
}

/**
 * Reads everything that the holder of items is to be told. Machines of static requests are included under their own id.
 *
 * @param known requests that were just taken up, which are not read again.
 */
export async function loadItemDetails(
  db: Db,
  items: readonly ClaimedItem[],
  known: readonly TakenUpRequest[],
): Promise<ItemDetails> {
  const requests = new Map<string, MachineRequestRow>(known.map((row) => [row.id, row]))
  const unknown = items.filter((item) => item.kind === 'MACHINE_REQUEST' && !requests.has(item.id))
  for (const row of await readRows(db, 'machine_requests', idsOf(unknown))) requests.set(row.id, row)
  const machineIds = [
    ...idsOf(items.filter((item) => item.kind === 'MACHINE')),
    ...[...requests.values()].flatMap((row) => (row.static && row.machine_id !== null ? [row.machine_id] : [])),
  ]
  // What a machine needs to set itself up is nobody's business once it is to go.
  const wanted = unknown.filter(({ id }) => requests.get(id)?.desired_presence === 'PRESENT')
  // Nobody can have stored a step of what is claimed for the first time.
  const begun = items.filter((item) => item.fence > 1 || item.generation > 1)
  const [machines, secrets, steps] = await Promise.all([
    readRows(db, 'machines', machineIds),
    readSecrets(db, idsOf(wanted)),
    readSteps(db, idsOf(begun)),
  ])
  for (const { id, userDataSealed, phoneHomeTokenSealed } of known) {
    if (userDataSealed !== null && phoneHomeTokenSealed !== null)
      secrets.set(id, { userData: userDataSealed, phoneHomeToken: phoneHomeTokenSealed })
  }
  return { requests, machines: new Map(machines.map((row) => [row.id, row])), secrets, steps }
}

function idsOf(rows: readonly { readonly id: string }[]): string[] {
  return rows.map((row) => row.id)
}

async function readRows<Table extends 'machine_requests' | 'machines'>(
  db: Db,
  table: Table,
  ids: readonly string[],
): Promise<Selectable<Tables[Table]>[]> {
  if (ids.length === 0) return []
  const result = await sql<Selectable<Tables[Table]>>`
    select * from ${sql.table(table)} where id = any(${[...ids]}::uuid[])
  `.execute(db)
  return result.rows
}

async function readSecrets(db: Db, ids: readonly string[]): Promise<Map<string, RequestSecrets>> {
  if (ids.length === 0) return new Map()
  const result = await sql<RequestSecrets & { readonly id: string }>`/* read-request-secrets */
    select request_id as id, user_data_sealed as "userData", phone_home_token_sealed as "phoneHomeToken"
    from machine_request_secrets
    where (provider_id, request_id) in (select provider_id, id from work_items where id = any(${[...ids]}::uuid[]))
  `.execute(db)
  return new Map(result.rows.map(({ id, ...secrets }) => [id, secrets]))
}

async function readSteps(db: Db, ids: readonly string[]): Promise<ItemDetails['steps']> {
  const byItem = new Map<string, StoredStep[]>()
  if (ids.length === 0) return byItem
  const result = await sql<StoredStep>`/* read-steps */
    select item_id as "itemId", operation, operation_generation as "operationGeneration", name, result
    from steps
    where (provider_id, item_id) in (select provider_id, id from work_items where id = any(${[...ids]}::uuid[]))
    order by created_at
  `.execute(db)
  for (const step of result.rows) {
    const list = byItem.get(step.itemId) ?? []
    byItem.set(step.itemId, list)
    list.push(step)
  }
  return byItem
}
