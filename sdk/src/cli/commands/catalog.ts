import { toJson } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { usageError } from '../failure.js'
import { formatMicros, formatTable, parseBytes, parseMicros } from '../format.js'
import { age, idOf, priceText } from '../resource-type.js'
import type { Session } from '../session.js'

// What a workspace can order.

export interface CatalogFlags {
  readonly family?: readonly string[]
  readonly location?: readonly string[]
  readonly minCpus?: string
  readonly minMemory?: string
  readonly arch?: string
  readonly maxPrice?: string
  readonly available?: boolean
  readonly limit?: string
  readonly headers?: boolean
}

/** `catalog`: the classes that the workspace can order, at its own prices. @throws CliError. */
export async function catalog(session: Session, flags: CatalogFlags): Promise<void> {
  const filter = filterOf(flags)
  const limit = flags.limit === undefined ? Number.POSITIVE_INFINITY : Number(flags.limit)
  if (!(limit > 0)) throw usageError(`--limit ${flags.limit ?? ''} must be a whole number above 0`)
  const client = await session.client()
  const entries: hub.CatalogEntry[] = []
  for (let pageToken = ''; entries.length < limit;) {
    const page = await client.catalog.listCatalog({ parent: `workspaces/${session.workspace}`, pageToken, filter })
    entries.push(...page.entries)
    pageToken = page.nextPageToken
    if (pageToken === '') break
  }
  const shown = entries.slice(0, limit)
  if (session.output === 'name') {
    for (const entry of shown) session.print(`${entry.machineClass}\n`)
    return
  }
  if (shown.length === 0 && !session.structured) {
    session.note('nothing can be ordered')
    return
  }
  session.printValue(
    shown.map((entry) => toJson(hub.CatalogEntrySchema, entry)),
    session.structured ? '' : tableOf(session, shown, flags.headers !== false),
  )
}

function filterOf(flags: CatalogFlags) {
  const vcpus = flags.minCpus === undefined ? 0 : Number(flags.minCpus)
  if (!Number.isInteger(vcpus) || vcpus < 0)
    throw usageError(`--min-cpus ${flags.minCpus ?? ''} must be a whole number`)
  const memory = flags.minMemory === undefined ? 0n : parseBytes(flags.minMemory)
  if (memory === undefined) throw usageError(`--min-memory ${flags.minMemory ?? ''} must be a size like 4Gi`)
  const price = flags.maxPrice === undefined ? 0n : parseMicros(flags.maxPrice)
  if (price === undefined) throw usageError(`--max-price ${flags.maxPrice ?? ''} must be an amount like 0.05`)
  const mib = 1024n ** 2n
  return {
    families: [...(flags.family ?? [])],
    locations: [...(flags.location ?? [])],
    minVcpus: vcpus,
    minMemoryMib: (memory + mib - 1n) / mib,
    architecture: flags.arch ?? '',
    maxHourlyMicros: price,
    available: flags.available ?? false,
  }
}

function tableOf(session: Session, entries: readonly hub.CatalogEntry[], headings: boolean): string {
  const now = session.surroundings.now()
  const headingsOf = ['CLASS', 'VCPUS', 'MEMORY', 'DISK', 'ARCH', 'PRICE', 'MONTHLY', 'SETUP', 'AVAILABLE', 'LOCATIONS']
  const wide = session.output === 'wide'
  const rows = entries.map((entry) => [
    idOf(entry.machineClass),
    known(entry.shape?.vcpus),
    sized(entry.shape?.memoryMib, 'MiB'),
    sized(entry.shape?.diskGib, 'GiB'),
    entry.shape?.architecture ?? '',
    priceText(entry.price),
    money(entry.price?.monthlyMicros, entry.price?.currency),
    money(entry.price?.setupMicros, entry.price?.currency),
    entry.available ? 'yes' : 'no',
    entry.locations.map((location) => locationText(location, wide, now)).join(', '),
  ])
  return formatTable(headingsOf, rows, { headings })
}

const known = (count: number | undefined) => (count === undefined || count === 0 ? '' : String(count))
const sized = (size: bigint | undefined, unit: string) => (size === undefined || size === 0n ? '' : `${size} ${unit}`)
const money = (micros: bigint | undefined, currency = '') =>
  micros === undefined || micros === 0n ? '' : formatMicros(micros, currency)

/** `fsn1`, or all about it: `fsn1 (hetzner-cloud, 0.0051 EUR/h, 12 left, 3m ago)`. */
function locationText(location: hub.CatalogLocation, wide: boolean, now: number): string {
  const name = location.location === '' ? location.family : location.location
  const left = location.remaining === undefined ? [] : [`${location.remaining} left`]
  const state = location.available ? left : ['none now']
  if (!wide) return location.available ? name : `${name} (none now)`
  const asOf = age(location.asOfTime, now)
  const parts = [location.family, priceText(location.price), ...state, asOf === '' ? '' : `${asOf} ago`]
  return `${name} (${parts.filter((part) => part !== '').join(', ')})`
}
