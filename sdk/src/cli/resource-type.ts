import type { DescMessage, Message } from '@bufbuild/protobuf'
import { timestampDate, type Timestamp } from '@bufbuild/protobuf/wkt'
import * as hub from '@slipway/proto/hub/v1'
import { PowerState, type Condition, type Price } from '@slipway/proto/provider/v1'
import type { SlipwayClient } from '../client/client.js'
import type { WatchUpdate } from '../client/watch.js'
import { usageError } from './failure.js'
import { formatMicros, formatSpan } from './format.js'

// What the generic commands know of each resource.

export interface ListOptions {
  readonly workspace: string
  readonly allWorkspaces: boolean
  readonly states: readonly string[]
  readonly provider: string
  readonly machineClass: string
  readonly selector: string
  readonly all: boolean
}

export const noFilter: ListOptions = {
  workspace: 'default',
  allWorkspaces: false,
  states: [],
  provider: '',
  machineClass: '',
  selector: '',
  all: false,
}

export interface Column<Resource> {
  readonly heading: string
  /** Only with `-o wide`. */
  readonly wide?: boolean
  readonly value: (resource: Resource, now: number) => string
}

export interface Common extends Message {
  readonly name: string
  readonly uid?: string
  readonly etag?: string
  readonly conditions?: readonly Condition[]
  readonly lastError?: hub.LastError | undefined
}

export interface ResourceType<Resource extends Common = Common> {
  readonly kind: string
  readonly singular: string
  readonly plural: string
  readonly aliases: readonly string[]
  readonly schema: DescMessage
  readonly columns: readonly Column<Resource>[]
  readonly fullName: (id: string, workspace: string) => string
  readonly get: (client: SlipwayClient, name: string) => Promise<Resource>
  readonly pages: (client: SlipwayClient, options: ListOptions) => AsyncIterable<readonly Resource[]>
  /** Absent: there is no watch of it. */
  readonly watch?: (
    client: SlipwayClient,
    options: ListOptions & { readonly name: string },
    signal: AbortSignal,
  ) => AsyncIterable<WatchUpdate<Resource>>
  /** The bare name of its state: `READY`. */
  readonly state: (resource: Resource) => string
  /** States that waiting does not lead out of. */
  readonly terminal: readonly string[]
  /** What `ready` means. */
  readonly ready: readonly string[]
}

/** The last part of a resource name. */
export function idOf(name: string): string {
  return name.slice(name.lastIndexOf('/') + 1)
}

/** How long ago, or nothing. */
export function age(time: Timestamp | undefined, now: number): string {
  return time === undefined ? '' : formatSpan(now - timestampDate(time).getTime())
}

/** A time to come, to the second; or nothing. */
export function timeText(time: Timestamp | undefined): string {
  return time === undefined ? '' : timestampDate(time).toISOString().replace(/\.\d+/, '')
}

/** `€0.0070/h`, or nothing. */
export function priceText(price: Price | undefined): string {
  return price === undefined ? '' : `${formatMicros(price.hourlyMicros, price.currency)}/h`
}

/** A short word about the last error, with how often it was tried. */
export function errorText(resource: { readonly lastError?: hub.LastError | undefined }): string {
  const { lastError } = resource
  return lastError === undefined ? '' : `${lastError.message.slice(0, 60)} (${lastError.attempts}×)`
}

export const powerText = (power: PowerState) =>
  power === PowerState.UNSPECIFIED ? '' : PowerState[power].toLowerCase()

/** All pages of a list, one after the other. */
export async function* paged<Resource>(
  next: (pageToken: string) => Promise<{ readonly rows: readonly Resource[]; readonly nextPageToken: string }>,
): AsyncGenerator<readonly Resource[]> {
  let pageToken = ''
  do {
    const page = await next(pageToken)
    yield page.rows
    pageToken = page.nextPageToken
  } while (pageToken !== '')
}

/** Numbers of states by name, with or without what their enum begins with. @throws CliError. */
export function stateNumbers(
  names: readonly string[],
  type: Readonly<Record<string, string | number>>,
  prefix: string,
): number[] {
  return names.map((given) => {
    const name = given.toUpperCase().replace(/-/g, '_').replace(prefix, '')
    const number = type[name]
    if (typeof number === 'number' && number !== 0) return number
    const known = Object.keys(type).filter((key) => Number.isNaN(Number(key)) && key !== 'UNSPECIFIED')
    throw usageError(`there is no state ${given}; there are ${known.join(', ')}`)
  })
}

export const providerName = (id: string) => (id === '' ? [] : [id.includes('/') ? id : `providers/${id}`])
export const className = (id: string) => (id === '' ? [] : [id.includes('/') ? id : `machineClasses/${id}`])
export const collection = (prefix: string) => (id: string) => (id.includes('/') ? id : `${prefix}/${id}`)

/** A priority by its name. @throws CliError. */
export function parsePriority(word: string): hub.Priority {
  const level = (hub.Priority as unknown as Readonly<Record<string, hub.Priority>>)[word.toUpperCase()]
  if (typeof level === 'number' && level !== hub.Priority.UNSPECIFIED) return level
  throw usageError(`there is no priority ${word}; there are low, normal and high`)
}

export const priorityText = (priority: hub.Priority) => (hub.Priority[priority] ?? '').toLowerCase()
