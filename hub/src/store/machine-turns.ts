import { sql } from 'kysely'
import type { Shape } from '../domain/facts.js'
import { dealMachines, type FreeMachine, type Lane } from '../domain/share/turns.js'
import type { ShareState } from '../domain/share/share.js'
import type { Tx } from './database.js'
import { toProvider, type ProviderColumns } from './placement.js'

// Hosts that wait for static machines, and whose turn it is. What it costs to say so grows with the lanes that are waited in, and with the machines that are there, and not with
// how many hosts wait. Turns are hints: whoever looks for a place asks anew, under one lock.

/** Of a provider's free machines, and of a lane's hosts: more than these are not looked at for one turn. */
export const maxTurns = 100
/** A lane that could take nothing though it was its turn lets others go first for this long. */
const passMs = 5_000
/** Who looked before the machine was to be seen, looks again within this long. */
const missedMs = 30_000
/** The one lock of those who take machines that others wait for; held to the end of the transaction. After the locks of hosts and limits, and before those of machines. */
const turnsLock = 'machine-turns'

/** Waits until nobody else takes machines that several wait for. */
export async function lockTurns(tx: Tx): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended(current_schema() || ${turnsLock}, 0))`.execute(tx)
}

interface LaneRow extends Omit<Lane, 'waiting'> {
  readonly waiting: readonly { readonly hostId: string; readonly since: string }[]
}

/** The lanes that anybody waits in, but for those that are passed over. @param reach as many of their hosts. */
export async function readLanes(tx: Tx, reach: number): Promise<readonly Lane[]> {
  const result = await sql<LaneRow>`/* read-lanes */
    select l.id, l.organization_id as "organizationId", l.workspace_id as "workspaceId", l.priority, coalesce(ws.weight, 1) as weight,
           h.class_spec -> 'shape' as shape, h.class_spec -> 'machineSelector' as selector, h.placement, heads.waiting
    from machine_lanes l
    cross join lateral (
      select jsonb_agg(jsonb_build_object('hostId', w.host_id, 'since', w.since) order by w.since, w.host_id) as waiting,
             (array_agg(w.host_id order by w.since, w.host_id))[1] as first
      from (select host_id, since from machine_waits where lane_id = l.id order by since, host_id limit ${reach}) w
    ) heads
    join hosts h on h.organization_id = l.organization_id and h.id = heads.first
    left join workspaces ws on ws.id = l.workspace_id
    where l.passed_until is null or l.passed_until <= clock_timestamp()
  `.execute(tx)
  return result.rows.map(({ waiting, ...lane }) => ({
    ...lane,
    waiting: waiting.map(({ hostId, since }) => ({ hostId, sinceMs: Date.parse(since) })),
  }))
}

interface FreeRow extends ProviderColumns {
  readonly id: string
  readonly labels: Readonly<Record<string, string>>
  readonly nics: number
  readonly shape: Shape | null
  readonly ownerOrganizationId: string | null
  readonly ownerWorkspaceId: string | null
  readonly poolId: string | null
  readonly claimWorkspaceId: string | null
}

/** Machines that could be given to a host: those that are named, or up to {@link maxTurns} of some providers. */
export async function readFreeMachines(
  tx: Tx,
  which: { readonly ids: readonly string[] } | { readonly providerIds: readonly string[] },
): Promise<readonly FreeMachine[]> {
  const wanted =
    'ids' in which
      ? sql`m.id = any(${[...which.ids]}::uuid[])`
      : sql`m.provider_id = any(${[...which.providerIds]}::uuid[])`
  const result = await sql<FreeRow>`/* read-free-machines */
    select m.id, m.provider_labels || m.labels as labels, m.hardware -> 'shape' as shape,
           coalesce((m.hardware ->> 'nics')::int, jsonb_array_length(coalesce(m.hardware -> 'macs', '[]'))) as nics,
           p.id as "providerId", p.name as "providerName", p.family, p.kind, p.state, p.draining, p.health, p.health_message as "healthMessage",
           0 as backlog, p.region, p.residency, null as claim, p.owner_organization_id as "ownerOrganizationId",
           p.owner_workspace_id as "ownerWorkspaceId", p.pool_id as "poolId", p.claim_workspace_id as "claimWorkspaceId"
    from machines m
    join providers p on p.id = m.provider_id and p.deleted_at is null
    where ${wanted} and m.static and m.state = 'AVAILABLE' and m.request_id is null and not m.cordoned and not m.maintenance and m.hold_at is null
      and not m.conditions @> '[{"type": "Present", "status": "FALSE"}]'
    order by m.name
    limit ${maxTurns}
  `.execute(tx)
  return result.rows.map((row) => ({
    id: row.id,
    labels: row.labels,
    nics: row.nics,
    shape: row.shape,
    rack: row.labels['rack'] ?? '',
    provider: {
      ...toProvider(row),
      ownerOrganizationId: row.ownerOrganizationId,
      ownerWorkspaceId: row.ownerWorkspaceId,
      poolId: row.poolId,
      claimWorkspaceId: row.claimWorkspaceId,
    },
  }))
}

/** Up to where workspaces have come at a provider. */
export async function readMachineShares(tx: Tx, providerId: string): Promise<ShareState> {
  const result = await sql<{ workspaceId: string | null; pass: number; clock: number }>`/* read-machine-shares */
    select c.clock, s.workspace_id as "workspaceId", coalesce(s.pass, 0) as pass
    from machine_clocks c
    left join machine_shares s on s.provider_id = c.provider_id
    where c.provider_id = ${providerId}
  `.execute(tx)
  return {
    clock: result.rows[0]?.clock ?? 0,
    passes: new Map(result.rows.flatMap((row) => (row.workspaceId === null ? [] : [[row.workspaceId, row.pass]]))),
  }
}

/** What a workspace is due of what is scarce, beside the others. */
export async function readWeight(tx: Tx, workspaceId: string): Promise<number> {
  const row = await tx.selectFrom('workspaces').select('weight').where('id', '=', workspaceId).executeTakeFirst()
  return row?.weight ?? 1
}

/** Notes that a workspace has taken a machine that others wait for. Under the lock of {@link lockTurns}. */
export async function saveMachineShare(
  tx: Tx,
  providerId: string,
  workspaceId: string,
  { passes, clock }: ShareState,
): Promise<void> {
  await sql`/* save-machine-share */
    with clocks as (
      insert into machine_clocks (provider_id, clock) values (${providerId}, ${clock})
      on conflict (provider_id) do update set clock = excluded.clock
    )
    insert into machine_shares (provider_id, workspace_id, pass) values (${providerId}, ${workspaceId}, ${passes.get(workspaceId) ?? 0})
    on conflict (provider_id, workspace_id) do update set pass = excluded.pass
  `.execute(tx)
}

/** A host that waits for a static machine. */
export interface MachineWait {
  readonly organizationId: string
  readonly hostId: string
  readonly workspaceId: string
  readonly priority: number
  /** A digest of what it wishes for: hosts of one lane have the same. */
  readonly wish: string
  readonly since: Date
  /** It found nothing that it could take. */
  readonly passes: boolean
}

/**
 * Puts hosts into their lanes, where they are not yet. A lane whose turn it was, and which took nothing, is given it once more, for it may have looked before the
 * machine was to be seen; after that it is passed over for a while.
 *
 * @returns the providers whose machines are to be dealt out again.
 */
export async function joinLanes(tx: Tx, waits: readonly MachineWait[]): Promise<readonly string[]> {
  if (waits.length === 0) return []
  const lanes = new Map(
    waits.map((wait) => [JSON.stringify([wait.workspaceId, wait.priority, wait.wish]), wait] as const),
  )
  const sorted = [...lanes].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, wait]) => wait)
  await sql`/* open-lanes */
    insert into machine_lanes (id, organization_id, workspace_id, priority, wish)
    select gen_random_uuid(), * from unnest(
      ${sorted.map((wait) => wait.organizationId)}::uuid[], ${sorted.map((wait) => wait.workspaceId)}::uuid[],
      ${sorted.map((wait) => wait.priority)}::smallint[], ${sorted.map((wait) => wait.wish)}::text[]
    )
    on conflict (workspace_id, priority, wish) do nothing
  `.execute(tx)
  const result = await sql<{ providerId: string }>`/* join-lanes */
    with given as (
      select l.id as lane_id, w.organization_id, w.host_id, w.since, w.passes
      from unnest(
        ${waits.map((wait) => wait.organizationId)}::uuid[], ${waits.map((wait) => wait.hostId)}::uuid[], ${waits.map((wait) => wait.workspaceId)}::uuid[],
        ${waits.map((wait) => wait.priority)}::smallint[], ${waits.map((wait) => wait.wish)}::text[], ${waits.map((wait) => wait.since)}::timestamptz[],
        ${waits.map((wait) => wait.passes)}::boolean[]
      ) as w (organization_id, host_id, workspace_id, priority, wish, since, passes)
      join machine_lanes l on l.workspace_id = w.workspace_id and l.priority = w.priority and l.wish = w.wish
    ), joined as (
      insert into machine_waits (organization_id, host_id, lane_id, since)
      select organization_id, host_id, lane_id, since from given order by host_id
      on conflict (organization_id, host_id) do update set lane_id = excluded.lane_id where machine_waits.lane_id <> excluded.lane_id
    ), turned as (
      select id, turn_provider_id, coalesce(missed_at > clock_timestamp() - ${missedMs} * interval '1 millisecond', false) as missed
      from machine_lanes
      where id in (select lane_id from given where passes) and turn_provider_id is not null
      order by id for update skip locked
    )
    update machine_lanes l
    set turn_provider_id = null, missed_at = case when turned.missed then null else clock_timestamp() end,
        passed_until = case when turned.missed then clock_timestamp() + ${passMs} * interval '1 millisecond' end
    from turned where l.id = turned.id
    returning turned.turn_provider_id as "providerId"
  `.execute(tx)
  return [...new Set(result.rows.map((row) => row.providerId))]
}

/** Notes whose turn it is at a provider, and has those hosts looked at now. What somebody else has locked is being looked at anyway. Wake `{kind: 'host'}` after the commit. */
export async function giveTurns(
  tx: Tx,
  providerId: string,
  turns: readonly { readonly laneId: string; readonly organizationId: string; readonly hostId: string }[],
): Promise<void> {
  if (turns.length === 0) return
  await sql`/* give-turns */
    with lanes as (
      select id from machine_lanes where id = any(${turns.map((turn) => turn.laneId)}::uuid[]) order by id for update skip locked
    ), noted as (
      update machine_lanes l set turn_provider_id = ${providerId} from lanes where l.id = lanes.id
    ), due as (
      select organization_id, host_id from host_schedule
      where (organization_id, host_id) in (
        select * from unnest(${turns.map((turn) => turn.organizationId)}::uuid[], ${turns.map((turn) => turn.hostId)}::uuid[])
      ) and due_at > clock_timestamp()
      order by host_id for update skip locked
    )
    update host_schedule s set due_at = clock_timestamp() from due where s.organization_id = due.organization_id and s.host_id = due.host_id
  `.execute(tx)
}

/** Takes a lane's turn off it: it has taken its machine. */
export async function endTurn(tx: Tx, laneId: string): Promise<void> {
  await sql`/* end-turn */
    update machine_lanes set turn_provider_id = null, missed_at = null
    where id = ${laneId} and (turn_provider_id is not null or missed_at is not null)
  `.execute(tx)
}

/**
 * Gives turns for the machines that are free at providers, where anybody waits. Returns whether there were any: wake `{kind: 'host'}` after the commit.
 */
export async function dealFreeMachines(tx: Tx, providerIds: readonly string[], now: Date): Promise<boolean> {
  if (providerIds.length === 0) return false
  const lanes = await readLanes(tx, maxTurns)
  if (lanes.length === 0) return false
  const machines = await readFreeMachines(tx, { providerIds })
  let given = false
  for (const providerId of providerIds) {
    const ofProvider = machines.filter(({ provider }) => provider.id === providerId)
    if (ofProvider.length === 0) continue
    const grants = dealMachines(await readMachineShares(tx, providerId), lanes, ofProvider, now.getTime())
    const turns = grants.map(({ lane, hostId }) => ({ laneId: lane.id, organizationId: lane.organizationId, hostId }))
    await giveTurns(tx, providerId, turns)
    given ||= turns.length > 0
  }
  return given
}
