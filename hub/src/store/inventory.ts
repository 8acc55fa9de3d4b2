import { sql } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { Address, EventDraft, Hardware, JsonObject, Labels, PowerState } from '../domain/facts.js'
import { mergeConditions } from '../domain/request/apply-report.js'
import { isKnown } from '../domain/machine/identity.js'
import { doingOperation } from '../domain/machine/lifecycle.js'
import { transitionMachine } from '../domain/machine/transitions.js'
import { shortName } from '../domain/names.js'
import type { Tx } from './database.js'
import { appendEvents } from './events.js'
import { scheduleHost } from './host-schedule.js'
import type { MachineRequestRow, MachineRow } from './tables.js'
import { wishMachine, type ItemKey } from './wishes.js'

// What providers see out there, against our records. Listings are believed as far as they go: only a complete one proves an absence.

export interface ListingProvider {
  readonly id: string
  readonly name: string
}

export interface SeenMachine {
  readonly externalId: string
  readonly hardware: Hardware | undefined
  readonly power: PowerState | undefined
  readonly labels: Labels
  readonly providerData: JsonObject
  readonly addresses: readonly Address[]
  /** The provider's rule by which it is to be accepted; empty: none. */
  readonly acceptedByRule: string
  readonly inUse: boolean
}

export interface SeenResource {
  readonly kind: string
  readonly externalId: string
  /** The request's id in its ownership key, which is known to carry our hub's id; undefined where the rest of it cannot be read. */
  readonly requestId: string | undefined
  readonly ownershipKey: string
  readonly name: string
  readonly power: PowerState | undefined
  readonly addresses: readonly Address[]
}

/** How often a machine's time of last sighting is written though nothing else has changed. */
const seenAtGranularityMs = 5 * 60_000

/** Takes in a part of a static provider's listing: new machines are DISCOVERED, and accepted at once where the provider says so. */
export async function recordStaticMachines(
  tx: Tx,
  provider: ListingProvider,
  seen: readonly SeenMachine[],
  now: Date,
): Promise<void> {
  if (seen.length === 0) return
  const known = await tx
    .selectFrom('machines')
    .selectAll()
    .where('provider_id', '=', provider.id)
    .where('state', '<>', 'GONE')
    .where(
      'external_id',
      'in',
      seen.map((machine) => machine.externalId),
    )
    .forUpdate()
    .execute()
  const byExternalId = new Map(known.map((row) => [row.external_id, row]))
  const { auto_accept_machines: autoAccept } = await tx
    .selectFrom('providers')
    .select('auto_accept_machines')
    .where('id', '=', provider.id)
    .executeTakeFirstOrThrow()
  const events: EventDraft[] = []
  for (const machine of seen) {
    const row = byExternalId.get(machine.externalId)
    if (row === undefined) events.push(...(await discover(tx, provider, machine, autoAccept, now)))
    else events.push(...(await refresh(tx, row, machine, now)))
  }
  await appendEvents(tx, { actor: `providers/${provider.name}`, requestId: '' }, events)
}

async function discover(
  tx: Tx,
  provider: ListingProvider,
  machine: SeenMachine,
  autoAccept: boolean,
  now: Date,
): Promise<readonly EventDraft[]> {
  const id = uuid()
  const name = shortName('m', id)
  const inserted = await tx
    .insertInto('machines')
    .values({
      provider_id: provider.id,
      id,
      name,
      provider_name: provider.name,
      static: true,
      external_id: machine.externalId,
      state: 'DISCOVERED',
      hardware: JSON.stringify(machine.hardware ?? {}),
      addresses: JSON.stringify(machine.addresses),
      power: machine.power ?? null,
      provider_labels: JSON.stringify(machine.labels),
      provider_data: JSON.stringify(machine.providerData),
      in_use: machine.inUse,
      seen_at: now,
    })
    // Another instance of the provider may have told of it at the same moment.
    .onConflict((conflict) => conflict.doNothing())
    .executeTakeFirst()
  if (inserted.numInsertedOrUpdatedRows === 0n) return []
  const about = {
    subject: `machines/${name}`,
    related: [`providers/${provider.name}`],
    severity: 'INFO' as const,
    providerId: provider.id,
  }
  const events: EventDraft[] = [{ ...about, reason: 'MachineDiscovered', message: `Found as ${machine.externalId}` }]
  const why = whyAccept(machine, machine.hardware ?? {}, autoAccept, provider.name)
  if (why !== undefined) {
    await accept(tx, { providerId: provider.id, id })
    events.push({ ...about, reason: 'MachineAccepted', message: why })
  }
  return events
}

/** Why a machine is taken into service without a person; undefined: it is not. What is in use would be wiped, and of what is not known nobody can tell whether a rule means it. */
function whyAccept(
  seen: SeenMachine,
  hardware: Hardware,
  autoAccept: boolean,
  providerName: string,
): string | undefined {
  if (seen.inUse) return undefined
  if (autoAccept) return `Accepted at once, as provider ${providerName} is set to`
  if (seen.acceptedByRule === '' || !isKnown(hardware)) return undefined
  return `Accepted by rule ${seen.acceptedByRule} of provider ${providerName}`
}

async function accept(tx: Tx, key: ItemKey): Promise<void> {
  const state = transitionMachine('DISCOVERED', 'accept')
  if (state !== undefined) await wishMachine(tx, key, { state, operation: doingOperation(state) })
}

async function refresh(tx: Tx, row: MachineRow, machine: SeenMachine, now: Date): Promise<readonly EventDraft[]> {
  const power = machine.power ?? row.power
  const vanished = row.conditions.some((condition) => condition.type === 'Present' && condition.status === 'FALSE')
  const conditions = vanished
    ? mergeConditions(row.conditions, [{ type: 'Present', status: 'TRUE', reason: 'Listed', message: '' }], now)
    : row.conditions
  // An inspection knows more of the hardware than a listing: a listing only adds to it.
  const hardware = { ...machine.hardware, ...row.hardware }
  const changed =
    power !== row.power ||
    machine.inUse !== row.in_use ||
    vanished ||
    !same(machine.labels, row.provider_labels) ||
    !same(machine.providerData, row.provider_data) ||
    !same(hardware, row.hardware) ||
    (machine.addresses.length > 0 && !same(machine.addresses, row.addresses))
  const seenLongAgo = row.seen_at === null || now.getTime() - row.seen_at.getTime() > seenAtGranularityMs
  // Known only by now: it was seen before its rule was made, or before it had said what it is.
  const why =
    row.state === 'DISCOVERED' && row.request_id === null && !row.protected && row.paused_at === null
      ? whyAccept(machine, hardware, false, row.provider_name)
      : undefined
  if (!changed && !seenLongAgo && why === undefined) return []
  await tx
    .updateTable('machines')
    .set({
      power,
      provider_labels: JSON.stringify(machine.labels),
      provider_data: JSON.stringify(machine.providerData),
      hardware: JSON.stringify(hardware),
      conditions: JSON.stringify(conditions),
      in_use: machine.inUse,
      ...(machine.addresses.length > 0 && { addresses: JSON.stringify(machine.addresses) }),
      seen_at: now,
    })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .execute()
  const about = {
    subject: `machines/${row.name}`,
    related: [`providers/${row.provider_name}`],
    providerId: row.provider_id,
  }
  const events: EventDraft[] = []
  if (why !== undefined) {
    await accept(tx, { providerId: row.provider_id, id: row.id })
    events.push({ ...about, reason: 'MachineAccepted', severity: 'INFO', message: why })
  }
  if (vanished) events.push({ ...about, reason: 'MachineReappeared', severity: 'INFO', message: 'It is listed again' })
  if (row.power !== null && power !== row.power) {
    events.push({ ...about, reason: 'PowerChanged', severity: 'INFO', message: `Power is ${power ?? 'unknown'}` })
  }
  return events
}

/** After a complete listing of a static provider: says of machines that were not in it that they are missing. Nothing is concluded but that. */
export async function recordMissingMachines(
  tx: Tx,
  provider: ListingProvider,
  listedIds: readonly string[],
  now: Date,
): Promise<void> {
  const missing = await tx
    .selectFrom('machines')
    .selectAll()
    .where('provider_id', '=', provider.id)
    .where('static', '=', true)
    .where('state', '<>', 'GONE')
    .where(sql<boolean>`not (external_id = any(${[...listedIds]}::text[]))`)
    .forUpdate()
    .execute()
  const events: EventDraft[] = []
  for (const row of missing) {
    if (row.conditions.some((condition) => condition.type === 'Present' && condition.status === 'FALSE')) continue
    const message = `Provider ${provider.name} does not list ${row.external_id} any more`
    await tx
      .updateTable('machines')
      .set({
        conditions: JSON.stringify(
          mergeConditions(row.conditions, [{ type: 'Present', status: 'FALSE', reason: 'NotListed', message }], now),
        ),
      })
      .where('provider_id', '=', row.provider_id)
      .where('id', '=', row.id)
      .execute()
    events.push({
      subject: `machines/${row.name}`,
      related: [`providers/${provider.name}`, ...(row.host_name === null ? [] : [row.host_name])],
      reason: 'MachineVanished',
      severity: 'WARNING',
      message,
      providerId: provider.id,
    })
  }
  await appendEvents(tx, { actor: `providers/${provider.name}`, requestId: '' }, events)
}

/** What a part of a listing showed. */
export interface SeenParts {
  /** Ids of the live requests whose resources were seen. */
  readonly requestIds: readonly string[]
  /** What no live request of the provider owns. */
  readonly unowned: readonly SeenResource[]
  /** Ids of requests whose machine was taken for vanished. */
  readonly returned: readonly string[]
}

/** Takes in a part of a dynamic provider's listing: what belongs to live requests is refreshed. */
export async function recordOwnedResources(
  tx: Tx,
  provider: ListingProvider,
  seen: readonly SeenResource[],
  now: Date,
): Promise<SeenParts> {
  const requestIds = [...new Set(seen.flatMap(({ requestId }) => requestId ?? []))]
  if (requestIds.length === 0) return { requestIds: [], unowned: seen, returned: [] }
  const requests = await tx
    .selectFrom('machine_requests')
    .selectAll()
    .where('provider_id', '=', provider.id)
    .where('id', 'in', requestIds)
    .orderBy('id')
    .forUpdate()
    .execute()
  const byId = new Map(requests.map((row) => [row.id, row]))
  const found: string[] = []
  const unowned: SeenResource[] = []
  const returned: string[] = []
  const events: EventDraft[] = []
  for (const resource of seen) {
    const request = byId.get(resource.requestId ?? '')
    if (request === undefined || !isOwnedBy(request, resource)) {
      unowned.push(resource)
      continue
    }
    found.push(request.id)
    if (request.state === 'PROVISIONED' && request.presence === 'ABSENT') returned.push(request.id)
    if (resource.kind !== 'server' || request.external_id === null) continue
    const power = resource.power ?? request.power
    const addresses = resource.addresses.length > 0 ? resource.addresses : request.addresses
    if (power === request.power && same(addresses, request.addresses)) continue
    await tx
      .updateTable('machine_requests')
      .set({ power, addresses: JSON.stringify(addresses) })
      .where('provider_id', '=', provider.id)
      .where('id', '=', request.id)
      .execute()
    await tx
      .updateTable('machines')
      .set({ power, addresses: JSON.stringify(addresses), seen_at: now })
      .where('provider_id', '=', provider.id)
      .where('request_id', '=', request.id)
      .where('state', '<>', 'GONE')
      .execute()
    await scheduleHost(tx, { organizationId: request.organization_id, hostId: request.host_id })
    if (request.power !== null && power !== request.power) {
      events.push({
        subject: `machineRequests/${request.name}`,
        related: [request.host_name, `providers/${provider.name}`],
        reason: 'PowerChanged',
        severity: 'WARNING',
        message: `Power is ${power ?? 'unknown'}, by no wish of ours`,
        providerId: provider.id,
        organizationId: request.organization_id,
      })
    }
  }
  await appendEvents(tx, { actor: `providers/${provider.name}`, requestId: '' }, events)
  return { requestIds: found, unowned, returned }
}

/** Whether a live request owns something. What it owns without having said so yet is its holder's to adopt. */
export function isOwnedBy(
  request: Pick<MachineRequestRow, 'state' | 'external_id'>,
  resource: Pick<SeenResource, 'kind' | 'externalId'>,
): boolean {
  if (request.state === 'GONE') return false
  return resource.kind !== 'server' || request.external_id === null || request.external_id === resource.externalId
}

/**
 * After a complete listing of a dynamic provider: requests whose machine was there and is listed no more.
 *
 * @param startedAt when the listing began: what was provisioned later, or less than the listing lag before, may rightly be missing.
 */
export async function findMissingRequests(
  tx: Tx,
  provider: ListingProvider,
  foundIds: readonly string[],
  startedAt: Date,
): Promise<readonly string[]> {
  const rows = await tx
    .selectFrom('machine_requests')
    .innerJoin('providers', 'providers.id', 'machine_requests.provider_id')
    .select('machine_requests.id')
    .where('machine_requests.provider_id', '=', provider.id)
    .where('machine_requests.state', '=', 'PROVISIONED')
    .where('machine_requests.desired_presence', '=', 'PRESENT')
    .where('machine_requests.presence', '=', 'PRESENT')
    .where('machine_requests.static', '=', false)
    .where(
      sql<boolean>`machine_requests.provisioned_at < ${startedAt}::timestamptz - providers.listing_lag_ms * interval '1 millisecond'`,
    )
    .where(sql<boolean>`not (machine_requests.id = any(${[...foundIds]}::uuid[]))`)
    .execute()
  return rows.map((row) => row.id)
}

/**
 * Has the provider look at the machines of settled requests, each by itself: a listing may have been read before they were made, and told late.
 * What its holder reports then is believed. Before anything else in its transaction: work items are locked before requests.
 */
export async function lookAfterMachines(tx: Tx, provider: ListingProvider, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return
  await tx
    .updateTable('work_items')
    .set({ due_at: sql<Date>`clock_timestamp()` })
    .where('provider_id', '=', provider.id)
    .where('id', 'in', [...ids].sort())
    .where('session_id', 'is', null)
    .execute()
}

/** Equality of plain JSON, whatever the order of keys. */
function same(one: unknown, other: unknown): boolean {
  return canonical(one) === canonical(other)
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, child: unknown) =>
    typeof child === 'object' && child !== null && !Array.isArray(child)
      ? Object.fromEntries(Object.entries(child).sort(([a], [b]) => (a < b ? -1 : 1)))
      : child,
  )
}
