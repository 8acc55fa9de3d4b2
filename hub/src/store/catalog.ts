import { sql, type RawBuilder } from 'kysely'
import type { ClassOffering, MachineSelector } from '../domain/host/host.js'
import type { CatalogPlace } from '../domain/placement/catalog.js'
import { shapeMismatch } from '../domain/placement/shape.js'
import type { Shape } from '../domain/facts.js'
import { effectivePrice } from '../domain/price/price.js'
import { parseLabelSelector } from '../domain/selector.js'
import { isHeld } from './capacity-holds.js'
import type { Db } from './database.js'
import {
  failuresOfOffering,
  hasNics,
  labelsMatch,
  maxOfferings,
  offeringColumns,
  shapeFits,
  termsColumns,
  toCandidates,
  toProvider,
  usableBy,
  type CandidateOrderer,
  type OfferingRow,
  type ProviderColumns,
} from './placement.js'
import type { MachineClassRow } from './tables.js'

// The places of many classes at once: two statements, however many classes there are.

const noShape: Shape = { vcpus: 0, memoryMib: 0, diskGib: 0, diskClass: '', architecture: '' }

/** Columns as of an order's places; what waits at a provider is of no concern here. */
const providerColumns = sql`
  p.id as "providerId", p.name as "providerName", p.family, p.kind, p.state, p.draining, p.health, p.health_message as "healthMessage", 0 as backlog,
  ${termsColumns}`

/** Classes that people made, ordered by name. @param after the last one of the page before. */
export async function listCatalogClasses(db: Db, after: string, limit: number): Promise<readonly MachineClassRow[]> {
  return db
    .selectFrom('machine_classes')
    .selectAll()
    .where('deleted_at', 'is', null)
    .where('auto_created', '=', false)
    .where('name', '>', after)
    .orderBy('name')
    .limit(limit)
    .execute()
}

/** The places that classes may be had at by a workspace, by their names. Static machines that are the same in all that matters here are one place, of which some remain. */
export async function loadCatalogPlaces(
  db: Db,
  orderer: CandidateOrderer,
  classes: readonly MachineClassRow[],
): Promise<ReadonlyMap<string, readonly CatalogPlace[]>> {
  const places = new Map<string, CatalogPlace[]>(classes.map((row) => [row.name, []]))
  const [dynamic, machines] = await Promise.all([loadDynamic(db, orderer, classes), loadStatic(db, orderer, classes)])
  for (const [name, place] of [...dynamic, ...machines]) places.get(name)?.push(place)
  return places
}

type NamedPlace = readonly [className: string, place: CatalogPlace]

interface Wish {
  readonly className: string
  readonly shape: Shape
  readonly offering: ClassOffering
  /** Only what the provider tells of. */
  readonly liveOnly: boolean
}

function wishesOf({ name, shape, offerings, machine_selector }: MachineClassRow): readonly Wish[] {
  if (offerings.length > 0 || machine_selector !== null)
    return offerings.map((offering) => ({ className: name, shape, offering, liveOnly: false }))
  const any: ClassOffering = { family: '', provider: '', typeId: '', locations: [], providerData: {} }
  return [{ className: name, shape, offering: any, liveOnly: true }]
}

async function loadDynamic(
  db: Db,
  orderer: CandidateOrderer,
  classes: readonly MachineClassRow[],
): Promise<readonly NamedPlace[]> {
  const wishes = classes.flatMap(wishesOf)
  if (wishes.length === 0) return []
  const shape = sql`o.shape`
  const result = await sql<OfferingRow & { readonly seenAt: Date | null }>`/* catalog-offerings */
    select (w.position - 1)::int as position, place.*
    from jsonb_array_elements(${JSON.stringify(wishes.map(({ offering, shape, liveOnly }) => ({ ...offering, shape, liveOnly })))}::jsonb)
      with ordinality as w (wish, position)
    cross join lateral (
      select ${providerColumns}, ${offeringColumns}, o.seen_at as "seenAt"
      from providers p
      left join offerings o on o.provider_id = p.id
        and (w.wish ->> 'typeId' = '' or o.type_id = w.wish ->> 'typeId')
        and (w.wish -> 'locations' = '[]' or w.wish -> 'locations' ? o.location)
      ${failuresOfOffering}
      where p.deleted_at is null and p.kind = 'DYNAMIC' and ${usableBy(orderer)}
        and (w.wish ->> 'family' = '' or p.family = w.wish ->> 'family')
        and (w.wish ->> 'provider' = '' or p.name = w.wish ->> 'provider')
        and (not (w.wish ->> 'liveOnly')::boolean or o.type_id is not null)
      order by
        (p.state = 'CONNECTED' and not p.draining and p.health <> 'UNHEALTHY')
          and coalesce(o.available and not ${isHeld} and o.remaining is distinct from 0, true)
          and (${shape} is null or ${wishFits(shape)}) desc,
        coalesce(w.wish #>> '{price,hourlyMicros}', o.price ->> 'hourlyMicros')::bigint asc nulls last,
        (o.shape ->> 'memoryMib')::bigint, p.name, o.type_id, o.location
      limit ${maxOfferings}
    ) place
  `.execute(db)
  return result.rows.flatMap((row) => {
    const wish = wishes[row.position]
    if (wish === undefined) return []
    return toCandidates(row, wish.offering).map((candidate): NamedPlace => [
      wish.className,
      { candidate, asOf: row.seenAt },
    ])
  })
}

/** Whether a shape, stored as JSON, has at least what its wish asks for. */
function wishFits(shape: RawBuilder<unknown>): RawBuilder<boolean> {
  return sql<boolean>`coalesce(
    (${shape} ->> 'vcpus')::bigint >= (w.wish #>> '{shape,vcpus}')::bigint
    and (${shape} ->> 'memoryMib')::bigint >= (w.wish #>> '{shape,memoryMib}')::bigint
    and (${shape} ->> 'diskGib')::bigint >= (w.wish #>> '{shape,diskGib}')::bigint
    and w.wish #>> '{shape,architecture}' in ('', ${shape} ->> 'architecture')
    and w.wish #>> '{shape,diskClass}' in ('', ${shape} ->> 'diskClass'), false)`
}

interface StaticRow extends ProviderColumns {
  readonly position: number
  readonly free: boolean | null
  readonly shape: Shape | null
  readonly count: number
}

async function loadStatic(
  db: Db,
  orderer: CandidateOrderer,
  classes: readonly MachineClassRow[],
): Promise<readonly NamedPlace[]> {
  const wanted = classes.flatMap(({ name, shape, machine_selector: selector }) =>
    selector === null ? [] : [{ name, shape, selector }],
  )
  if (wanted.length === 0) return []
  const parts = wanted.map(({ selector, shape }, position) => staticOf(position, selector, shape, usableBy(orderer)))
  const result = await sql<StaticRow>`/* catalog-machines */ ${sql.join(parts, sql` union all `)}`.execute(db)
  return result.rows.flatMap((row) => {
    const wish = wanted[row.position]
    return wish === undefined ? [] : [[wish.name, toStaticPlace(row, wish.selector)] as const]
  })
}

/** Static machines that a class takes, counted by what they have and whether they are free; and providers that have none at all yet. */
function staticOf(
  position: number,
  selector: MachineSelector,
  shape: Shape,
  usable: RawBuilder<boolean>,
): RawBuilder<unknown> {
  const selected = sql`(${labelsMatch(parseLabelSelector(selector.labelSelector))} and ${hasNics(selector)})`
  const asksForShape = shapeMismatch(shape, noShape) !== undefined
  const fits = asksForShape
    ? sql`(m.hardware -> 'shape' is null or ${shapeFits(sql`(m.hardware -> 'shape')`, shape)})`
    : sql`true`
  return sql`
    select ${sql.lit(position)}::int as position, ${providerColumns}, place.free, place.shape, place.count
    from providers p
    cross join lateral (
      select m.state = 'AVAILABLE' and not m.cordoned and not m.maintenance and m.hold_at is null and not m.conditions @> '[{"type": "Present", "status": "FALSE"}]' as free,
             m.hardware -> 'shape' as shape, count(*)::int as count
      from machines m
      where m.provider_id = p.id and m.static and m.state <> 'GONE' and ${selected} and ${fits}
      group by 1, 2
      union all
      select null, null, 0 where not exists (select from machines m where m.provider_id = p.id and m.static and m.state <> 'GONE')
    ) place
    where p.deleted_at is null and p.kind = 'STATIC' and ${usable} and ${selector.provider === '' ? sql`true` : sql`p.name = ${selector.provider}`}`
}

function toStaticPlace(row: StaticRow, selector: MachineSelector): CatalogPlace {
  const free = row.free === true
  return {
    asOf: null,
    candidate: {
      provider: toProvider(row),
      offeringIndex: 0,
      typeId: '',
      location: '',
      shape: free ? (row.shape ?? noShape) : row.shape,
      price: effectivePrice(selector.price, null),
      providerData: selector.providerData,
      offered: true,
      available: true,
      remaining: free ? row.count : null,
      holds: [],
      failures: null,
      machine: free
        ? {
            ...{ id: '', name: '', state: 'AVAILABLE', cordoned: false, maintenance: false, held: false },
            ...{ rack: '', rackLoad: 0, selected: true, listed: true, contested: false },
          }
        : null,
    },
  }
}
