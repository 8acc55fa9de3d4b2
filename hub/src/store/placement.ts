import { sql, type RawBuilder } from 'kysely'
import type { Price, Shape } from '../domain/facts.js'
import type { ClassOffering, ClassSpec, MachineSelector, PlacementWish } from '../domain/host/host.js'
import type { MachineState } from '../domain/machine/machine.js'
import type { Candidate, CandidateProvider } from '../domain/placement/placement.js'
import { shapeMismatch } from '../domain/placement/shape.js'
import { effectivePrice } from '../domain/price/price.js'
import type { Capability } from '../domain/provider/provider.js'
import { parseLabelSelector, type LabelSelector } from '../domain/selector.js'
import type { Db } from './database.js'

// The places that a class may be had at. Both reads are bounded, the most promising first: a place beyond the bound is worse than all those within.

const maxOfferings = 500
const maxMachines = 200
const maxRejectedMachines = 50
const maxBacklog = 1_000

const nothing: Shape = { vcpus: 0, memoryMib: 0, diskGib: 0, diskClass: '', architecture: '' }

export interface CandidateOptions {
  /** Static machines that will not do as well, to say why. Default true. */
  readonly explain?: boolean
}

/** Reads the places to be judged for an order of a class: one statement for dynamic providers, one or two for static ones. */
export async function loadCandidates(
  db: Db,
  spec: ClassSpec,
  placement: PlacementWish,
  options: CandidateOptions = {},
): Promise<Candidate[]> {
  const anyOffering = spec.offerings.length === 0 && spec.machineSelector === null
  const offerings = anyOffering
    ? [{ family: '', provider: '', typeId: '', locations: [], providerData: {} }]
    : spec.offerings
  const candidates =
    offerings.length === 0 ? [] : await loadOfferings(db, offerings, spec.shape, placement, anyOffering)
  if (spec.machineSelector !== null) {
    candidates.push(...(await loadMachines(db, spec.machineSelector, spec.shape, placement, options.explain ?? true)))
  }
  return candidates
}

type ProviderColumns = {
  readonly providerId: string
  readonly providerName: string
  readonly family: string
  readonly kind: CandidateProvider['kind']
  readonly state: CandidateProvider['state']
  readonly draining: boolean
  readonly health: CandidateProvider['health']
  readonly healthMessage: string
  readonly backlog: number
}

const providerColumns = sql`
  p.id as "providerId", p.name as "providerName", p.family, p.kind, p.state, p.draining, p.health, p.health_message as "healthMessage",
  (select count(*) from (
    select 1 from work_items w where w.provider_id = p.id and w.session_id is null and w.due_at is not null limit ${sql.lit(maxBacklog)}
  ) waiting) as backlog`

/** Whether a provider can be given orders at all, and the order allows it. */
function usableProvider(placement: PlacementWish): RawBuilder<boolean> {
  return sql<boolean>`(
    p.state = 'CONNECTED' and not p.draining and p.health <> 'UNHEALTHY'
    and (${placement.providers.length === 0} or p.name = any(${[...placement.providers]}::text[]))
    and (${placement.families.length === 0} or p.family = any(${[...placement.families]}::text[]))
  )`
}

/** Whether a shape, stored as JSON, has at least what is asked for. Unknown ones are judged later. */
function shapeFits(shape: RawBuilder<unknown>, asked: Shape): RawBuilder<boolean> {
  return sql<boolean>`coalesce(
    (${shape} ->> 'vcpus')::bigint >= ${asked.vcpus} and (${shape} ->> 'memoryMib')::bigint >= ${asked.memoryMib}
    and (${shape} ->> 'diskGib')::bigint >= ${asked.diskGib}
    and (${asked.architecture === ''} or ${shape} ->> 'architecture' = ${asked.architecture})
    and (${asked.diskClass === ''} or ${shape} ->> 'diskClass' = ${asked.diskClass}), false)`
}

interface OfferingRow extends ProviderColumns {
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
  readonly heldUntil: Date | null
  readonly heldReason: string | null
}

async function loadOfferings(
  db: Db,
  wanted: readonly ClassOffering[],
  shape: Shape,
  placement: PlacementWish,
  liveOnly: boolean,
): Promise<Candidate[]> {
  // What was ordered since the provider counted: requests' ids are in the order of their making, so the primary key finds them.
  const result = await sql<OfferingRow>`
    select (w.position - 1)::int as position, ${providerColumns}, p.capabilities, p.offerings_at is not null as told,
           o.type_id as "typeId", o.location, o.shape, o.price, o.available, o.remaining,
           case when o.remaining is null then 0 else (
             select count(*) from machine_requests r
             where r.provider_id = p.id and r.type_id = o.type_id and r.location = o.location and r.state <> 'GONE'
               and r.id >= (lpad(to_hex((extract(epoch from o.seen_at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
           ) end as ordered,
           case when o.held_until > clock_timestamp() then o.held_until end as "heldUntil", o.held_reason as "heldReason"
    from jsonb_array_elements(${JSON.stringify(wanted)}::jsonb) with ordinality as w (wish, position)
    join providers p on p.deleted_at is null and p.kind = 'DYNAMIC'
      and (w.wish ->> 'family' = '' or p.family = w.wish ->> 'family')
      and (w.wish ->> 'provider' = '' or p.name = w.wish ->> 'provider')
    left join offerings o on o.provider_id = p.id
      and (w.wish ->> 'typeId' = '' or o.type_id = w.wish ->> 'typeId')
      and (w.wish -> 'locations' = '[]' or w.wish -> 'locations' ? o.location)
    where ${!liveOnly} or o.type_id is not null
    order by
      ${usableProvider(placement)}
        and coalesce(o.available and (o.held_until is null or o.held_until <= clock_timestamp()) and o.remaining is distinct from 0, true)
        and (${placement.locations.length === 0} or o.location = any(${[...placement.locations]}::text[]))
        and (o.shape is null or ${shapeFits(sql.ref('o.shape'), shape)}) desc,
      coalesce(w.wish #>> '{price,hourlyMicros}', o.price ->> 'hourlyMicros')::bigint asc nulls last,
      (o.shape ->> 'memoryMib')::bigint, p.name, o.type_id, o.location, w.position
    limit ${maxOfferings}
  `.execute(db)
  return result.rows.flatMap((row) => toCandidates(row, wanted[row.position]))
}

function toCandidates(row: OfferingRow, wish: ClassOffering | undefined): readonly Candidate[] {
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
        held: row.heldUntil === null ? null : { until: row.heldUntil.toISOString(), reason: row.heldReason ?? '' },
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
    held: null,
  }))
}

interface StaticRow extends ProviderColumns {
  readonly machineId: string | null
  readonly machineName: string | null
  readonly machineState: MachineState | null
  readonly cordoned: boolean
  readonly maintenance: boolean
  readonly selected: boolean
  readonly listed: boolean
  readonly shape: Shape | null
}

async function loadMachines(
  db: Db,
  selector: MachineSelector,
  shape: Shape,
  placement: PlacementWish,
  explain: boolean,
): Promise<Candidate[]> {
  const selected = labelsMatch(parseLabelSelector(selector.labelSelector))
  const columns = sql`
    ${providerColumns}, m.id as "machineId", m.name as "machineName", m.state as "machineState", m.cordoned, m.maintenance,
    coalesce(${selected}, false) as selected,
    not coalesce(m.conditions @> '[{"type": "Present", "status": "FALSE"}]', false) as listed, m.hardware -> 'shape' as shape`
  const ofProvider = sql`p.deleted_at is null and p.kind = 'STATIC' and (${selector.provider === ''} or p.name = ${selector.provider})`
  const machineShape = sql`(m.hardware -> 'shape')`
  const asksForShape = shapeMismatch(shape, nothing) !== undefined
  const fits = asksForShape ? shapeFits(machineShape, shape) : sql<boolean>`true`
  const smallestFirst = sql`
    (${machineShape} ->> 'memoryMib')::bigint nulls first, (${machineShape} ->> 'vcpus')::bigint nulls first,
    (${machineShape} ->> 'diskGib')::bigint nulls first, m.name`
  const good = await sql<StaticRow>`
    select ${columns}
    from providers p
    join machines m on m.provider_id = p.id and m.static and m.state = 'AVAILABLE'
    where ${ofProvider} and not m.cordoned and not m.maintenance and ${selected} and ${fits}
      and not m.conditions @> '[{"type": "Present", "status": "FALSE"}]'
    order by ${usableProvider(placement)} desc, ${smallestFirst}
    limit ${maxMachines}
  `.execute(db)
  if (!explain) return good.rows.map((row) => toMachineCandidate(row, selector))
  const others = await sql<StaticRow>`
    select ${columns}
    from providers p
    left join machines m on m.provider_id = p.id and m.static and m.state <> 'GONE'
    where ${ofProvider} and not (m.id is not null and m.id = any(${good.rows.map((row) => row.machineId)}::uuid[]))
      and (m.state is distinct from 'AVAILABLE' or m.cordoned or m.maintenance or not ${selected} or not ${fits}
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
    held: null,
    machine:
      row.machineId === null || row.machineName === null || row.machineState === null
        ? null
        : {
            id: row.machineId,
            name: row.machineName,
            state: row.machineState,
            cordoned: row.cordoned,
            maintenance: row.maintenance,
            selected: row.selected,
            listed: row.listed,
          },
  }
}

function toProvider(row: ProviderColumns): CandidateProvider {
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
  }
}

/** A selector over a machine's labels; its own win over its provider's. */
function labelsMatch(selector: LabelSelector): RawBuilder<boolean> {
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
