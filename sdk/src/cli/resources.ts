import { create, type DescMessage, type Message } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { Health, PowerState, type Condition, type Price, ConditionStatus } from '@slipway/proto/provider/v1'
import { timestampDate, type Timestamp } from '@bufbuild/protobuf/wkt'
import type { SlipwayClient } from '../client/client.js'
import { follow, type WatchUpdate } from '../client/watch.js'
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

export function idOf(name: string): string {
  return name.slice(name.lastIndexOf('/') + 1)
}

function age(time: Timestamp | undefined, now: number): string {
  return time === undefined ? '' : formatSpan(now - timestampDate(time).getTime())
}

export function priceText(price: Price | undefined): string {
  return price === undefined ? '' : `${formatMicros(price.hourlyMicros, price.currency)}/h`
}

function error(resource: { readonly lastError?: hub.LastError | undefined }): string {
  const { lastError } = resource
  return lastError === undefined ? '' : `${lastError.message.slice(0, 60)} (${lastError.attempts}×)`
}

const powerText = (power: PowerState) => (power === PowerState.UNSPECIFIED ? '' : PowerState[power].toLowerCase())

async function* paged<Resource>(
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
function stateNumbers(
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

const providerName = (id: string) => (id === '' ? [] : [id.includes('/') ? id : `providers/${id}`])
const className = (id: string) => (id === '' ? [] : [id.includes('/') ? id : `machineClasses/${id}`])
const collection = (prefix: string) => (id: string) => (id.includes('/') ? id : `${prefix}/${id}`)

const providers: ResourceType<hub.Provider> = {
  kind: 'Provider',
  singular: 'provider',
  plural: 'providers',
  aliases: ['p'],
  schema: hub.ProviderSchema,
  columns: [
    { heading: 'NAME', value: (provider) => idOf(provider.name) },
    { heading: 'FAMILY', value: (provider) => provider.family },
    { heading: 'STATE', value: (provider) => hub.ProviderState[provider.state] },
    { heading: 'HEALTH', value: (provider) => Health[provider.health].toLowerCase() },
    { heading: 'INSTANCES', value: (provider) => String(provider.sessions.length) },
    { heading: 'OFFERINGS', wide: true, value: (provider) => String(provider.offerings.length) },
    { heading: 'AGE', value: (provider, now) => age(provider.createTime, now) },
    { heading: 'LAST ERROR', value: error },
  ],
  fullName: collection('providers'),
  get: async (client, name) => (await client.providers.getProvider({ name })).provider ?? create(hub.ProviderSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const filter = {
        states: stateNumbers(options.states, hub.ProviderState, 'PROVIDER_STATE_'),
        labelSelector: options.selector,
      }
      const page = await client.providers.listProviders({ pageSize: 500, pageToken, filter })
      return { rows: page.providers, nextPageToken: page.nextPageToken }
    }),
  watch: (client, options, signal) =>
    follow(
      (revision, signal) =>
        client.providers.watchProviders(
          { name: options.name, revision, filter: { labelSelector: options.selector } },
          { signal, timeoutMs: 0 },
        ),
      (change) => change.provider,
      { signal },
    ),
  state: (provider) => hub.ProviderState[provider.state],
  terminal: [],
  ready: ['CONNECTED'],
}

const machineClasses: ResourceType<hub.MachineClass> = {
  kind: 'MachineClass',
  singular: 'machineclass',
  plural: 'machineclasses',
  aliases: ['class', 'classes', 'mc'],
  schema: hub.MachineClassSchema,
  columns: [
    { heading: 'NAME', value: (machineClass) => idOf(machineClass.name) },
    { heading: 'VCPUS', value: (machineClass) => String(machineClass.shape?.vcpus ?? 0) },
    { heading: 'MEMORY', value: (machineClass) => `${machineClass.shape?.memoryMib ?? 0n}Mi` },
    { heading: 'DISK', value: (machineClass) => `${machineClass.shape?.diskGib ?? 0n}Gi` },
    { heading: 'ARCH', value: (machineClass) => machineClass.shape?.architecture ?? '' },
    {
      heading: 'FROM',
      value: (machineClass) =>
        [
          ...machineClass.offerings.map((offering) =>
            [offering.provider === '' ? offering.family : idOf(offering.provider), offering.typeId]
              .filter((part) => part !== '')
              .join(':'),
          ),
          ...(machineClass.machineSelector === undefined ? [] : ['machines']),
        ].join(',') || 'any',
    },
    { heading: 'MADE BY', wide: true, value: (machineClass) => (machineClass.autoCreated ? 'hub' : 'person') },
    { heading: 'AGE', value: (machineClass, now) => age(machineClass.createTime, now) },
  ],
  fullName: collection('machineClasses'),
  get: async (client, name) =>
    (await client.machineClasses.getMachineClass({ name })).machineClass ?? create(hub.MachineClassSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const page = await client.machineClasses.listMachineClasses({
        pageSize: 500,
        pageToken,
        filter: { labelSelector: options.selector },
      })
      return { rows: page.machineClasses, nextPageToken: page.nextPageToken }
    }),
  watch: (client, options, signal) =>
    follow(
      (revision, signal) =>
        client.machineClasses.watchMachineClasses(
          { name: options.name, revision, filter: { labelSelector: options.selector } },
          { signal, timeoutMs: 0 },
        ),
      (change) => change.machineClass,
      { signal },
    ),
  state: () => '',
  terminal: [],
  ready: [''],
}

const machines: ResourceType<hub.Machine> = {
  kind: 'Machine',
  singular: 'machine',
  plural: 'machines',
  aliases: ['m'],
  schema: hub.MachineSchema,
  columns: [
    { heading: 'NAME', value: (machine) => idOf(machine.name) },
    { heading: 'PROVIDER', value: (machine) => idOf(machine.provider) },
    { heading: 'STATE', value: (machine) => hub.MachineState[machine.state] },
    { heading: 'POWER', value: (machine) => powerText(machine.power) },
    { heading: 'HOST', value: (machine) => idOf(machine.host) },
    { heading: 'ADDRESS', value: (machine) => machine.addresses[0]?.ip ?? '' },
    { heading: 'EXTERNAL ID', wide: true, value: (machine) => machine.externalId },
    {
      heading: 'MARKS',
      wide: true,
      value: (machine) =>
        [
          machine.cordoned ? 'cordoned' : '',
          machine.maintenance ? 'maintenance' : '',
          machine.protected ? 'protected' : '',
        ]
          .filter((mark) => mark !== '')
          .join(','),
    },
    { heading: 'AGE', value: (machine, now) => age(machine.createTime, now) },
    { heading: 'LAST ERROR', value: error },
  ],
  fullName: collection('machines'),
  get: async (client, name) => (await client.machines.getMachine({ name })).machine ?? create(hub.MachineSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const page = await client.machines.listMachines({ pageSize: 500, pageToken, filter: machineFilter(options) })
      return { rows: page.machines, nextPageToken: page.nextPageToken }
    }),
  watch: (client, options, signal) =>
    follow(
      (revision, signal) =>
        client.machines.watchMachines(
          { name: options.name, revision, filter: machineFilter(options) },
          { signal, timeoutMs: 0 },
        ),
      (change) => change.machine,
      { signal },
    ),
  state: (machine) => hub.MachineState[machine.state],
  terminal: ['VERIFY_FAILED', 'INSPECT_FAILED', 'CLEAN_FAILED', 'PROVISION_FAILED', 'ADOPT_FAILED', 'GONE'],
  ready: ['AVAILABLE', 'ACTIVE'],
}

function machineFilter(options: ListOptions) {
  return {
    states: stateNumbers(options.states, hub.MachineState, 'MACHINE_STATE_'),
    providers: providerName(options.provider),
    labelSelector: options.selector,
    showGone: options.all,
  }
}

const machineRequests: ResourceType<hub.MachineRequest> = {
  kind: 'MachineRequest',
  singular: 'machinerequest',
  plural: 'machinerequests',
  aliases: ['request', 'requests', 'mr'],
  schema: hub.MachineRequestSchema,
  columns: [
    { heading: 'NAME', value: (request) => idOf(request.name) },
    { heading: 'HOST', value: (request) => idOf(request.host) },
    { heading: 'PROVIDER', value: (request) => idOf(request.provider) },
    { heading: 'TYPE', value: (request) => request.typeId },
    { heading: 'LOCATION', wide: true, value: (request) => request.location },
    { heading: 'STATE', value: (request) => hub.MachineRequestState[request.state] },
    { heading: 'STEP', value: (request) => request.progress?.message ?? '' },
    { heading: 'HOLDER', wide: true, value: (request) => request.holder },
    { heading: 'FENCE', wide: true, value: (request) => String(request.fence) },
    { heading: 'EXTERNAL ID', wide: true, value: (request) => request.externalId },
    { heading: 'AGE', value: (request, now) => age(request.createTime, now) },
    { heading: 'LAST ERROR', value: error },
  ],
  fullName: collection('machineRequests'),
  get: async (client, name) =>
    (await client.machineRequests.getMachineRequest({ name })).machineRequest ?? create(hub.MachineRequestSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const page = await client.machineRequests.listMachineRequests({
        pageSize: 500,
        pageToken,
        filter: requestFilter(options),
      })
      return { rows: page.machineRequests, nextPageToken: page.nextPageToken }
    }),
  watch: (client, options, signal) =>
    follow(
      (revision, signal) =>
        client.machineRequests.watchMachineRequests(
          { name: options.name, revision, filter: requestFilter(options) },
          { signal, timeoutMs: 0 },
        ),
      (change) => change.machineRequest,
      { signal },
    ),
  state: (request) => hub.MachineRequestState[request.state],
  terminal: ['FAILED', 'GONE'],
  ready: ['PROVISIONED'],
}

function requestFilter(options: ListOptions) {
  return {
    states: stateNumbers(options.states, hub.MachineRequestState, 'MACHINE_REQUEST_STATE_'),
    providers: providerName(options.provider),
    machineClasses: className(options.machineClass),
    showGone: options.all,
  }
}

const hosts: ResourceType<hub.Host> = {
  kind: 'Host',
  singular: 'host',
  plural: 'hosts',
  aliases: ['h'],
  schema: hub.HostSchema,
  columns: [
    { heading: 'NAME', value: (host) => idOf(host.name) },
    { heading: 'CLASS', value: (host) => idOf(host.machineClass) },
    { heading: 'STATE', value: (host) => hub.HostState[host.state] },
    { heading: 'PROVIDER', value: (host) => idOf(host.provider) },
    { heading: 'ADDRESS', value: (host) => host.addresses[0]?.ip ?? '' },
    { heading: 'POWER', wide: true, value: (host) => powerText(host.power) },
    { heading: 'PRICE', value: (host) => priceText(host.price) },
    { heading: 'MACHINE', wide: true, value: (host) => idOf(host.machine) },
    { heading: 'WORKSPACE', wide: true, value: (host) => host.name.split('/')[1] ?? '' },
    { heading: 'AGE', value: (host, now) => age(host.createTime, now) },
    { heading: 'LAST ERROR', value: error },
  ],
  fullName: (id, workspace) => (id.includes('/') ? id : `workspaces/${workspace}/hosts/${id}`),
  get: async (client, name) => (await client.hosts.getHost({ name })).host ?? create(hub.HostSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const page = await client.hosts.listHosts({
        parent: parentOf(options),
        pageSize: 500,
        pageToken,
        filter: hostFilter(options),
      })
      return { rows: page.hosts, nextPageToken: page.nextPageToken }
    }),
  watch: (client, options, signal) =>
    follow(
      (revision, signal) =>
        client.hosts.watchHosts(
          { parent: parentOf(options), name: options.name, revision, filter: hostFilter(options) },
          { signal, timeoutMs: 0 },
        ),
      (change) => change.host,
      { signal },
    ),
  state: (host) => hub.HostState[host.state],
  terminal: ['ERROR', 'RELEASED'],
  ready: ['READY'],
}

function parentOf(options: ListOptions): string {
  return `workspaces/${options.allWorkspaces ? '-' : options.workspace}`
}

function hostFilter(options: ListOptions) {
  return {
    states: stateNumbers(options.states, hub.HostState, 'HOST_STATE_'),
    providers: providerName(options.provider),
    machineClasses: className(options.machineClass),
    labelSelector: options.selector,
    showReleased: options.all,
  }
}

const orphans: ResourceType<hub.Orphan> = {
  kind: 'Orphan',
  singular: 'orphan',
  plural: 'orphans',
  aliases: ['o'],
  schema: hub.OrphanSchema,
  columns: [
    { heading: 'NAME', value: (orphan) => idOf(orphan.name) },
    { heading: 'PROVIDER', value: (orphan) => idOf(orphan.provider) },
    { heading: 'KIND', value: (orphan) => orphan.kind },
    { heading: 'EXTERNAL ID', value: (orphan) => orphan.externalId },
    { heading: 'CALLED', value: (orphan) => orphan.externalName },
    { heading: 'STATE', value: (orphan) => hub.OrphanState[orphan.state] },
    { heading: 'WHY', value: (orphan, now) => whyText(orphan, now) },
    { heading: 'SIGHTINGS', value: (orphan) => String(orphan.sightings) },
    { heading: 'REQUEST', wide: true, value: (orphan) => idOf(orphan.machineRequest) },
    { heading: 'OWNERSHIP KEY', wide: true, value: (orphan) => orphan.ownershipKey },
    { heading: 'MORE', wide: true, value: (orphan) => orphan.keptFor || orphan.keepMessage },
    { heading: 'AGE', value: (orphan, now) => age(orphan.firstSeenTime, now) },
    { heading: 'LAST ERROR', value: error },
  ],
  fullName: orphanFullName,
  get: async (client, name) => (await client.orphans.getOrphan({ name })).orphan ?? create(hub.OrphanSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const [parent = 'providers/-'] = providerName(options.provider)
      const filter = { states: stateNumbers(options.states, hub.OrphanState, 'ORPHAN_STATE_') }
      const page = await client.orphans.listOrphans({ parent, pageSize: 500, pageToken, filter })
      return { rows: page.orphans, nextPageToken: page.nextPageToken }
    }),
  state: (orphan) => hub.OrphanState[orphan.state],
  terminal: [],
  ready: [],
}

/** Why it is kept, or since when its removal is ordered. */
function whyText(orphan: hub.Orphan, now: number): string {
  if (orphan.keepReason !== hub.OrphanKeepReason.UNSPECIFIED) return hub.OrphanKeepReason[orphan.keepReason]
  return `ordered ${age(orphan.removalOrderTime, now)} ago by ${orphan.removalOrderedBy}`
}

/** `o-1` and `cloud/o-1` are as good as the whole name: ids are unique over all providers. */
function orphanFullName(id: string): string {
  const [first = '', second, ...rest] = id.split('/')
  if (second === undefined) return `providers/-/orphans/${first}`
  return rest.length === 0 ? `providers/${first}/orphans/${second}` : id
}

const all = [providers, machineClasses, machines, machineRequests, hosts, orphans] as unknown as readonly ResourceType[]

export const resourceTypes: readonly ResourceType[] = all
export const hostType = hosts
export const machineType = machines

/** The resource that a word means: singular, plural or short, in any case. @throws CliError. */
export function resourceType(word: string): ResourceType {
  const wanted = word.toLowerCase().replace(/-/g, '')
  const found = all.find((type) =>
    [type.singular, type.plural, type.kind.toLowerCase(), ...type.aliases].includes(wanted),
  )
  if (found !== undefined) return found
  throw usageError(
    `there is no resource «${word}»; there are ${[...all.map((type) => type.plural), 'events'].join(', ')}`,
  )
}

/** A reference like `host/web-1`, or a full resource name. @throws CliError. */
export function parseReference(
  text: string,
  workspace: string,
): { readonly type: ResourceType; readonly name: string } {
  if (/^workspaces\/[^/]+\/hosts\/[^/]+$/.test(text)) return { type: resourceType('host'), name: text }
  if (/^providers\/[^/]+\/orphans\/[^/]+$/.test(text)) return { type: resourceType('orphan'), name: text }
  const [word = '', id = '', ...rest] = text.split('/')
  if (id === '' || rest.length > 0)
    throw usageError(`«${text}» is no reference: write RESOURCE/NAME, for example host/web-1`)
  const type = resourceType(word)
  return { type, name: type.fullName(id, workspace) }
}

/** Whether a condition of a resource stands as wanted. */
export function conditionIs(resource: Common, type: string, wanted: string): boolean {
  const found = resource.conditions?.find((condition) => condition.type.toLowerCase() === type.toLowerCase())
  const status =
    found === undefined
      ? 'UNKNOWN'
      : found.status === ConditionStatus.UNSPECIFIED
        ? 'UNKNOWN'
        : ConditionStatus[found.status]
  return status === wanted.toUpperCase()
}
