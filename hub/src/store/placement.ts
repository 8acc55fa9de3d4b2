import { sql, type RawBuilder } from 'kysely'
import type { Price, Shape } from '../domain/facts.js'
import type { ClassOffering, ClassSpec, MachineSelector, PlacementWish } from '../domain/host/host.js'
import type { MachineState } from '../domain/machine/machine.js'
import type { CapacityHold } from '../domain/placement/holds.js'
import type { Candidate, CandidateClaim, CandidateProvider } from '../domain/placement/placement.js'
import { shapeMismatch } from '../domain/placement/shape.js'
import { effectivePrice } from '../domain/price/price.js'
import type { Orderer } from '../domain/provider/ownership.js'
import type { Capability } from '../domain/provider/provider.js'
import { parseLabelSelector, type LabelSelector } from '../domain/selector.js'
import { holdsOn, isHeld } from './capacity-holds.js'
import type { Db } from './database.js'
import { failuresNow } from './place-failures.js'

// The places that a class may be had at. Both reads are bounded, the most promising first: a place beyond the bound is worse than all those within.

/** Of one class. */
export const maxOfferings = 500
const maxMachines = 200
const maxRejectedMachines = 50
const maxBacklog = 1_000

const nothing: Shape = { vcpus: 0, memoryMib: 0, diskGib: 0, diskClass: '', architecture: '' }

/** Who the places are for. */
export interface CandidateOrderer extends Orderer {
  /** Pools that it would claim of, to be judged as if it had. */
  readonly openPoolIds?: readonly string[]
}

export interface CandidateOptions {
  /** Static machines that will not do as well, to say why. Default true. */
  readonly explain?: boolean
}

/** Reads the places to be judged for an order of a class: one statement for dynamic providers, one or two for static ones. */
export async function loadCandidates(
  db: Db,
  orderer: CandidateOrderer,
  spec: ClassSpec,
  placement: PlacementWish,
  options: CandidateOptions = {},
): Promise<Candidate[]> {
  const anyOffering = spec.offerings.length === 0 && spec.machineSelector === null
  const offerings = anyOffering
    ? [{ family: '', provider: '', typeId: '', locations: [], providerData: {} }]
    : spec.offerings
  const candidates =
    offerings.length === 0
      ? []
      : await loadOfferings(db, orderer, offerings, { shape: spec.shape, placement, liveOnly: anyOffering })
  if (spec.machineSelector !== null) {
    candidates.push(
      ...(await loadMachines(db, orderer, spec.machineSelector, {
        shape: spec.shape,
        placement,
        explain: options.explain ?? true,
      })),
    )
  }
  return candidates
}

/** What is read of a provider with each of its places. */
export type ProviderColumns = {
  readonly providerId: string
  readonly providerName: string
  readonly family: string
  readonly kind: CandidateProvider['kind']
  readonly state: CandidateProvider['state']
  readonly draining: boolean
  readonly health: CandidateProvider['health']
  readonly healthMessage: string
  readonly backlog: number
  readonly region: string
  readonly residency: readonly string[]
  readonly claim: CandidateClaim | null
}

/** What kinds of places a provider has, and for whom. */
export const termsColumns = sql`
  p.region, p.residency,
  case when p.pool_id is not null then (
    select jsonb_build_object(
      'includedHosts', k.included_hosts, 'trialOver', coalesce(k.trial_ends_at <= clock_timestamp(), false),
      'hosts', case when k.included_hosts is null then 0 else (
        select count(*) from machine_requests r where r.provider_id = p.id and r.state <> 'GONE'
      ) end)
    from provider_claims k where k.provider_id = p.id and k.released_at is null
  ) end as claim`

const providerColumns = sql`
  p.id as "providerId", p.name as "providerName", p.family, p.kind, p.state, p.draining, p.health, p.health_message as "healthMessage",
  (select count(*) from (
    select 1 from work_items w where w.provider_id = p.id and w.session_id is null and w.due_at is not null and not w.paused limit ${sql.lit(maxBacklog)}
  ) waiting) as backlog,
  ${termsColumns}`

/** Whether a workspace may use a provider at all: as {@link mayUse}. Of others' it is told nothing, not even why not. */
export function usableBy({ organizationId, workspaceId, openPoolIds = [] }: CandidateOrderer): RawBuilder<boolean> {
  const open =
    openPoolIds.length === 0
      ? sql``
      : sql`or (p.claim_workspace_id is null and p.pool_id = any(${[...openPoolIds]}::uuid[]))`
  return sql<boolean>`(case
    when p.pool_id is not null then p.claim_workspace_id is not distinct from ${workspaceId}::uuid ${open}
    when p.owner_workspace_id is not null then p.owner_workspace_id = ${workspaceId}::uuid
    else coalesce(p.owner_organization_id = ${organizationId}::uuid, true)
  end)`
}

/** Whether a provider can be given orders at all, and the order allows it. */
function usableProvider(placement: PlacementWish): RawBuilder<boolean> {
  return sql<boolean>`(
    p.state = 'CONNECTED' and not p.draining and p.health <> 'UNHEALTHY'
    and (${placement.providers.length === 0} or p.name = any(${[...placement.providers]}::text[]))
    and (${placement.families.length === 0} or p.family = any(${[...placement.families]}::text[]))
    and (${(placement.regions ?? []).length === 0} or p.region = any(${[...(placement.regions ?? [])]}::text[]))
    and p.residency @> ${[...(placement.residency ?? [])]}::text[]
  )`
}

/** Whether a shape, stored as JSON, has at least what is asked for. Unknown ones are judged later. */
export function shapeFits(shape: RawBuilder<unknown>, asked: Shape): RawBuilder<boolean> {
  return sql<boolean>`coalesce(
    (${shape} ->> 'vcpus')::bigint >= ${asked.vcpus} and (${shape} ->> 'memoryMib')::bigint >= ${asked.memoryMib}
    and (${shape} ->> 'diskGib')::bigint >= ${asked.diskGib}
    and (${asked.architecture === ''} or ${shape} ->> 'architecture' = ${asked.architecture})
    and (${asked.diskClass === ''} or ${shape} ->> 'diskClass' = ${asked.diskClass}), false)`
}

/** What is read of a place of a dynamic provider. */
export interface OfferingRow extends ProviderColumns {
  readonly position: number
  readonly capabilities: readonly Capability[]
  readonly told: boolean
  readonly typeId: string | null
  readonly location: string | null
  readonly shape: Shape | null
  readonly price: Price | null
  readonly available: boolean | null
  readonly remaining: number | null
  readonly ordered: number
  /** Those that may concern it. */
  readonly holds: readonly CapacityHold[] | null
  readonly failures: number | null
  readonly creates: number | null
}

/** Of a provider `p` and its offering `o`. What was ordered since the provider counted: requests' ids are in the order of their making, so the primary key finds them. */
export const offeringColumns = sql`
  p.capabilities, p.offerings_at is not null as told, o.type_id as "typeId", o.location, o.shape, o.price, o.available, o.remaining,
  case when o.remaining is null then 0 else (
    select count(*) from machine_requests r
    where r.provider_id = p.id and r.type_id = o.type_id and r.location = o.location and r.state <> 'GONE'
      and r.id >= (lpad(to_hex((extract(epoch from o.seen_at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
  ) end as ordered,
  ${holdsOn} as holds, ${failuresNow} as failures, f.creates`

/** Creates that failed lately at the place that offering `o` is. */
export const failuresOfOffering = sql`
  left join place_failures f on f.provider_id = o.provider_id and f.type_id = o.type_id and f.location = o.location
    and f.machine_id = '00000000-0000-0000-0000-000000000000'`

async function loadOfferings(
  db: Db,
  orderer: CandidateOrderer,
  wanted: readonly ClassOffering[],
  {
    shape,
    placement,
    liveOnly,
  }: { readonly shape: Shape; readonly placement: PlacementWish; readonly liveOnly: boolean },
): Promise<Candidate[]> {
  const result = await sql<OfferingRow>`
    select (w.position - 1)::int as position, ${providerColumns}, ${offeringColumns}
    from jsonb_array_elements(${JSON.stringify(wanted)}::jsonb) with ordinality as w (wish, position)
    join providers p on p.deleted_at is null and p.kind = 'DYNAMIC' and ${usableBy(orderer)}
      and (w.wish ->> 'family' = '' or p.family = w.wish ->> 'family')
      and (w.wish ->> 'provider' = '' or p.name = w.wish ->> 'provider')
    left join offerings o on o.provider_id = p.id
      and (w.wish ->> 'typeId' = '' or o.type_id = w.wish ->> 'typeId')
      and (w.wish -> 'locations' = '[]' or w.wish -> 'locations' ? o.location)
    ${failuresOfOffering}
    where ${!liveOnly} or o.type_id is not null
    order by
      ${usableProvider(placement)}
        and coalesce(o.available and not ${isHeld} and o.remaining is distinct from 0, true)
        and (${placement.locations.length === 0} or o.location = any(${[...placement.locations]}::text[]))
        and (o.shape is null or ${shapeFits(sql.ref('o.shape'), shape)}) desc,
      coalesce(w.wish #>> '{price,hourlyMicros}', o.price ->> 'hourlyMicros')::bigint asc nulls last,
      (o.shape ->> 'memoryMib')::bigint, p.name, o.type_id, o.location, w.position
    limit ${maxOfferings}
  `.execute(db)
  return result.rows.flatMap((row) => toCandidates(row, wanted[row.position]))
}

/** The places that a row stands for: one, or as many as the class names locations, where the provider tells nothing of the kind. */
export function toCandidates(row: OfferingRow, wish: ClassOffering | undefined): readonly Candidate[] {
  if (wish === undefined) return []
  const common = {
    provider: toProvider(row),
    offeringIndex: row.position,
    providerData: wish.providerData,
    machine: null,
    price: effectivePrice(wish.price, row.price),
  }
  if (row.typeId !== null) {
    return [
      {
        ...common,
        typeId: row.typeId,
        location: row.location ?? '',
        shape: row.shape,
        offered: true,
        available: row.available ?? true,
        remaining: row.remaining === null ? null : row.remaining - row.ordered,
        holds: row.holds ?? [],
        failures: row.failures === null ? null : { failures: row.failures, creates: row.creates ?? 0 },
      },
    ]
  }
  // The provider tells nothing of the kind. Where it does not tell what it offers at all, the class is taken at its word.
  const tellsOfferings = row.capabilities.includes('OFFERINGS')
  const locations = wish.locations.length === 0 ? [''] : wish.locations
  return locations.map((location) => ({
    ...common,
    typeId: wish.typeId,
    location,
    shape: null,
    offered: !row.told,
    available: !tellsOfferings,
    remaining: null,
    holds: row.holds ?? [],
    failures: null,
  }))
}

interface StaticRow extends ProviderColumns {
  readonly machineId: string | null
  readonly machineName: string | null
  readonly machineState: MachineState | null
  readonly cordoned: boolean
  readonly maintenance: boolean
  readonly held: boolean
  readonly rack: string
  readonly rackLoad: number
  readonly selected: boolean
  readonly listed: boolean
  readonly contested: boolean
  readonly shape: Shape | null
  readonly failures: number | null
  readonly creates: number | null
}

async function loadMachines(
  db: Db,
  orderer: CandidateOrderer,
  selector: MachineSelector,
  {
    shape,
    placement,
    explain,
  }: { readonly shape: Shape; readonly placement: PlacementWish; readonly explain: boolean },
): Promise<Candidate[]> {
  const selected = sql<boolean>`(${labelsMatch(parseLabelSelector(selector.labelSelector))} and ${hasNics(selector)})`
  const rack = sql`((m.provider_labels || m.labels) ->> 'rack')`
  const columns = sql`
    ${providerColumns}, m.id as "machineId", m.name as "machineName", m.state as "machineState", m.cordoned, m.maintenance,
    m.hold_at is not null as held, coalesce(${rack}, '') as rack,
    coalesce((
      select count(*) from machines used
      where used.provider_id = m.provider_id and used.static and used.request_id is not null
        and ((used.provider_labels || used.labels) ->> 'rack') = ${rack}
    ), 0)::int as "rackLoad",
    coalesce(${selected}, false) as selected,
    not coalesce(m.conditions @> '[{"type": "Present", "status": "FALSE"}]', false) as listed, m.hardware -> 'shape' as shape,
    exists (select from machine_waits) as contested, ${failuresNow} as failures, f.creates`
  const failuresOfMachine = sql`left join place_failures f on f.provider_id = m.provider_id and f.type_id = '' and f.location = '' and f.machine_id = m.id`
  const ofProvider = sql`p.deleted_at is null and p.kind = 'STATIC' and ${usableBy(orderer)} and (${selector.provider === ''} or p.name = ${selector.provider})`
  const machineShape = sql`(m.hardware -> 'shape')`
  const asksForShape = shapeMismatch(shape, nothing) !== undefined
  const fits = asksForShape ? shapeFits(machineShape, shape) : sql<boolean>`true`
  const smallestFirst = sql`
    (${machineShape} ->> 'memoryMib')::bigint nulls first, (${machineShape} ->> 'vcpus')::bigint nulls first,
    (${machineShape} ->> 'diskGib')::bigint nulls first,
    -- Of each rack the first, then of each the second: where there are more than are looked at, no rack hides the others.
    row_number() over (partition by m.provider_id, ${rack}, ${machineShape} order by m.name), m.name`
  const good = await sql<StaticRow>`
    select ${columns}
    from providers p
    join machines m on m.provider_id = p.id and m.static and m.state = 'AVAILABLE'
    ${failuresOfMachine}
    where ${ofProvider} and not m.cordoned and not m.maintenance and m.hold_at is null and ${selected} and ${fits}
      and not m.conditions @> '[{"type": "Present", "status": "FALSE"}]'
    order by ${usableProvider(placement)} desc, ${smallestFirst}
    limit ${maxMachines}
  `.execute(db)
  if (!explain) return good.rows.map((row) => toMachineCandidate(row, selector))
  const others = await sql<StaticRow>`
    select ${columns}
    from providers p
    left join machines m on m.provider_id = p.id and m.static and m.state <> 'GONE'
    ${failuresOfMachine}
    where ${ofProvider} and not (m.id is not null and m.id = any(${good.rows.map((row) => row.machineId)}::uuid[]))
      and (m.state is distinct from 'AVAILABLE' or m.cordoned or m.maintenance or m.hold_at is not null or not ${selected} or not ${fits}
           or m.conditions @> '[{"type": "Present", "status": "FALSE"}]')
    order by coalesce(${selected} and ${fits}, false) desc, p.name, m.name
    limit ${maxRejectedMachines}
  `.execute(db)
  return [...good.rows, ...others.rows].map((row) => toMachineCandidate(row, selector))
}

function toMachineCandidate(row: StaticRow, selector: MachineSelector): Candidate {
  return {
    provider: toProvider(row),
    offeringIndex: 0,
    typeId: '',
    location: '',
    // What a machine has is learned by its inspection; until then it is its state that keeps it from being taken.
    shape: row.machineState === 'AVAILABLE' ? (row.shape ?? nothing) : row.shape,
    price: effectivePrice(selector.price, null),
    providerData: selector.providerData,
    offered: true,
    available: true,
    remaining: null,
    holds: [],
    failures: row.failures === null ? null : { failures: row.failures, creates: row.creates ?? 0 },
    machine:
      row.machineId === null || row.machineName === null || row.machineState === null
        ? null
        : {
            id: row.machineId,
            name: row.machineName,
            state: row.machineState,
            cordoned: row.cordoned,
            maintenance: row.maintenance,
            held: row.held,
            rack: row.rack,
            rackLoad: row.rackLoad,
            selected: row.selected,
            listed: row.listed,
            contested: row.contested,
          },
  }
}

export function toProvider(row: ProviderColumns): CandidateProvider {
  return {
    id: row.providerId,
    name: row.providerName,
    family: row.family,
    kind: row.kind,
    state: row.state,
    draining: row.draining,
    health: row.health,
    healthMessage: row.healthMessage,
    backlog: row.backlog,
    region: row.region,
    residency: row.residency,
    claim: row.claim,
  }
}

/** Whether a machine is known to have as many network cards as a class asks for. */
export function hasNics({ minNics = 0 }: MachineSelector): RawBuilder<boolean> {
  if (minNics === 0) return sql<boolean>`true`
  return sql<boolean>`coalesce((m.hardware ->> 'nics')::int, jsonb_array_length(coalesce(m.hardware -> 'macs', '[]'))) >= ${minNics}`
}

/** A selector over the labels of a machine `m`; its own win over its provider's. */
export function labelsMatch(selector: LabelSelector): RawBuilder<boolean> {
  const labels = sql`(m.provider_labels || m.labels)`
  const clauses = selector.map((requirement) => {
    const value = sql`(${labels} ->> ${requirement.key})`
    switch (requirement.kind) {
      case 'exists':
        return sql`${value} is not null`
      case 'absent':
        return sql`${value} is null`
      case 'in':
        return sql`${value} = any(${[...requirement.values]}::text[])`
      case 'not-in':
        return sql`(${value} is null or ${value} <> all(${[...requirement.values]}::text[]))`
    }
  })
  return clauses.length === 0 ? sql<boolean>`true` : sql<boolean>`(${sql.join(clauses, sql` and `)})`
}
