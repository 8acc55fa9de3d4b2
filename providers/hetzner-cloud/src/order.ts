import type { MachineSpec, Violation } from '@slipway/sdk'
import type { Image, Location, PrimaryIp, Server, ServerOrder, ServerType } from './api/types.js'
import type { Kind, Offer } from './catalogue.js'
import type { Cloud, Ctx } from './cloud.js'
import type { Config, Data, Reference } from './config.js'
import { labelProblem, serverLabels } from './labels.js'
import { isRetired, locationsOf, successorOf } from './offerings.js'
import { userDataOf, userDataProblem } from './user-data.js'

/** What the vendor lets into one placement group of the type `spread`. */
const maxServersOfGroup = 10

type Spec = MachineSpec<Data>

/** The order of a server as the API takes it, or what is wrong with it, all at once. */
export type Planned = { readonly order: ServerOrder } | { readonly violations: readonly Violation[] }

/** Checks an order against what the vendor has to offer and what is in the project, and says how to give it to the API. It changes nothing. */
export async function planServer(cloud: Cloud, config: Config, spec: Spec, signal: AbortSignal): Promise<Planned> {
  const planner = new Planner(cloud, config, spec, signal)
  const order = await planner.order()
  return planner.violations.length > 0 ? { violations: planner.violations } : { order }
}

/** What a server is to be rebuilt from, or what is wrong with it. */
export type PlannedRebuild = { readonly image: string } | { readonly violations: readonly Violation[] }

/** What a rebuild leaves as it was when the server was made. */
const kept = [
  'sshKeys',
  'networks',
  'firewalls',
  'placementGroup',
  'ipv4',
  'ipv6',
  'volumes',
  'backups',
  'labels',
] as const

/**
 * Checks an order to rebuild a server against the server as it is. Whether its type can still be had is no matter. It changes nothing.
 *
 * @param before what the server was made with, where that is known.
 */
export async function planRebuild(
  cloud: Cloud,
  { config, signal }: Pick<Ctx, 'config' | 'signal'>,
  spec: Spec,
  server: Server,
  before?: Data,
): Promise<PlannedRebuild> {
  const planner = new Planner(cloud, config, spec, signal)
  const image = await planner.rebuild(server, before)
  return planner.violations.length > 0 || image === undefined
    ? { violations: planner.violations }
    : { image: String(image.id) }
}

class Planner {
  readonly violations: Violation[] = []
  readonly #cloud: Cloud
  readonly #config: Config
  readonly #spec: Spec
  readonly #signal: AbortSignal

  constructor(cloud: Cloud, config: Config, spec: Spec, signal: AbortSignal) {
    this.#cloud = cloud
    this.#config = config
    this.#spec = spec
    this.#signal = signal
  }

  async order(): Promise<ServerOrder> {
    const { name, typeId, ownershipKey, data, bootstrap, host } = this.#spec
    const offer = await this.#cloud.catalogue.offer(this.#signal)
    const location = this.#location(offer)
    const type = this.#type(offer, location)
    const [image, sshKeys, networks, firewalls, group, ipv4, ipv6] = await Promise.all([
      this.#image(type),
      this.#all('sshKey', 'sshKeys', data.sshKeys ?? this.#config.sshKeys),
      this.#networks(location),
      this.#all('firewall', 'firewalls', data.firewalls ?? this.#config.firewalls),
      this.#placementGroup(),
      this.#primaryIp('ipv4', location),
      this.#primaryIp('ipv6', location),
    ])
    this.#extras(bootstrap.phoneHomeUrl !== '' && networks.length === 0)
    return {
      name,
      server_type: typeId,
      image: String(image?.id ?? ''),
      location: location?.name ?? '',
      // Asked about before there is a request, an order has no name and no key yet.
      labels: ownershipKey === '' ? {} : serverLabels(ownershipKey, host, data.labels),
      user_data: userDataOf(bootstrap),
      ssh_keys: sshKeys.map(String),
      networks,
      firewalls: firewalls.map((firewall) => ({ firewall })),
      ...(group !== undefined && { placement_group: group }),
      public_net: {
        enable_ipv4: data.ipv4 !== false,
        enable_ipv6: data.ipv6 !== false,
        ...(ipv4 !== undefined && { ipv4 }),
        ...(ipv6 !== undefined && { ipv6 }),
      },
      // What comes with it is there at its first boot.
      start_after_create: data.volumes.length === 0,
    }
  }

  /** The image of an order to rebuild a server. */
  async rebuild(server: Server, before: Data | undefined): Promise<Image | undefined> {
    const { data, bootstrap } = this.#spec
    // Its disk is what it was made with, which may be smaller than what its type has by now.
    const image = await this.#image({ ...server.server_type, disk: server.primary_disk_size })
    for (const field of kept) {
      if (before === undefined || JSON.stringify(before[field]) === JSON.stringify(data[field])) continue
      this.#refuseData(
        field,
        'stays as it was when the server was made: leave it out, or release the host and order anew',
      )
    }
    const userData = userDataProblem(bootstrap)
    if (userData !== undefined) this.#refuse('bootstrap.user_data', userData)
    return image
  }

  #refuse(field: string, description: string): void {
    this.violations.push({ field: `spec.${field}`, description })
  }

  #refuseData(field: string, description: string): void {
    this.#refuse(`provider_data.${field}`, description)
  }

  #location(offer: Offer): Location | undefined {
    const offered = locationsOf(offer, this.#config)
    const found = offered.find(({ name }) => name === this.#spec.location)
    if (found === undefined)
      this.#refuse('location', `"${this.#spec.location}" is not offered here: choose one of ${names(offered)}`)
    return found
  }

  #type(offer: Offer, location: Location | undefined): ServerType | undefined {
    const { typeId } = this.#spec
    const type = offer.types.find(({ name }) => name === typeId)
    if (type === undefined) {
      this.#refuse('type_id', `there is no server type ${typeId}: choose one of ${names(offer.types)}`)
      return undefined
    }
    if (location === undefined) return type
    const place = type.locations.find(({ name }) => name === location.name)
    if (place === undefined) {
      const places = names(type.locations) || 'no location'
      this.#refuse('location', `${typeId} is not to be had in ${location.name}, but in ${places}`)
    } else if (isRetired(place, Date.now())) {
      const successor = successorOf(type, location.name, offer)
      const instead = successor === undefined ? 'choose another' : `take ${successor}`
      const since = place.deprecation?.unavailable_after.slice(0, 10) ?? ''
      this.#refuse('type_id', `${typeId} can no longer be had in ${location.name} since ${since}: ${instead}`)
    }
    return type
  }

  async #image(type: ServerType | undefined): Promise<Image | undefined> {
    const wanted = this.#spec.data.image ?? this.#config.image
    if (wanted === undefined) {
      this.#refuseData('image', 'name an image, or have the provider configured with one')
      return undefined
    }
    if (type === undefined) return undefined
    const image = await this.#cloud.catalogue.image(wanted, type.architecture, this.#signal)
    const problem =
      image === undefined
        ? `there is no image ${wanted} for ${type.architecture}`
        : await this.#imageProblem(image, type)
    if (problem !== undefined) this.#refuseData('image', problem)
    return image
  }

  async #imageProblem(image: Image, type: ServerType): Promise<string | undefined> {
    const name = image.name ?? String(image.id)
    if (image.architecture !== type.architecture)
      return `${name} is for ${image.architecture}, and ${type.name} is ${type.architecture}`
    if (image.status !== 'available' || image.deleted !== null) return `${name} is not available`
    if (image.disk_size > type.disk)
      return `${name} needs a disk of ${image.disk_size} GB, and ${type.name} has ${type.disk} GB`
    if (image.deprecated === null) return undefined
    const newest = await this.#cloud.catalogue.newestImage(image.os_flavor, image.architecture, this.#signal)
    return `${name} is deprecated since ${image.deprecated.slice(0, 10)}: take ${newest ?? 'another'}`
  }

  /** The ids of what is named, with a violation for each that is not there. */
  async #all(
    kind: Extract<Kind, 'sshKey' | 'firewall'>,
    field: string,
    wanted: readonly Reference[],
  ): Promise<number[]> {
    const found = await Promise.all(
      wanted.map(async (each, index) => {
        const thing = await this.#cloud.catalogue.find(kind, each, this.#signal)
        if (thing === undefined)
          this.#refuseData(`${field}[${index}]`, `there is none of the name or id ${each} in the project`)
        return thing
      }),
    )
    return found.flatMap((thing) => thing?.id ?? [])
  }

  async #networks(location: Location | undefined): Promise<number[]> {
    const wanted = this.#spec.data.networks ?? this.#config.networks
    const found = await Promise.all(
      wanted.map(async (each, index) => {
        const network = await this.#cloud.catalogue.find('network', each, this.#signal)
        const field = `networks[${index}]`
        if (network === undefined) this.#refuseData(field, `there is none of the name or id ${each} in the project`)
        else if (
          location !== undefined &&
          !network.subnets.some(({ network_zone: zone }) => zone === location.network_zone)
        )
          this.#refuseData(
            field,
            `${network.name} has no subnet in ${location.network_zone}, where ${location.name} is`,
          )
        return network
      }),
    )
    return found.flatMap((network) => network?.id ?? [])
  }

  async #placementGroup(): Promise<number | undefined> {
    const wanted = this.#spec.data.placementGroup
    if (wanted === undefined) return undefined
    const group = await this.#cloud.catalogue.find('placementGroup', wanted, this.#signal)
    if (group === undefined)
      this.#refuseData('placementGroup', `there is none of the name or id ${wanted} in the project`)
    else if (group.type === 'spread' && group.servers.length >= maxServersOfGroup)
      this.#refuseData('placementGroup', `${group.name} is full: it has ${group.servers.length} servers`)
    return group?.id
  }

  async #primaryIp(type: 'ipv4' | 'ipv6', location: Location | undefined): Promise<number | undefined> {
    const wanted = this.#spec.data[type]
    if (typeof wanted === 'boolean') return undefined
    const ip = await this.#cloud.catalogue.find('primaryIp', wanted, this.#signal)
    const problem =
      ip === undefined ? `there is no primary IP ${wanted} in the project` : primaryIpProblem(ip, type, location)
    if (problem !== undefined) this.#refuseData(type, problem)
    return ip?.id
  }

  #extras(phonesWithoutPrivateNetwork: boolean): void {
    const { data, bootstrap, shape } = this.#spec
    if (data.ipv4 === false && data.ipv6 === false && phonesWithoutPrivateNetwork)
      this.#refuseData('ipv4', 'a server with no address at all cannot phone home: give it one, or a network')
    const architecture = shape.architecture ?? ''
    if (!['', 'amd64', 'arm64'].includes(architecture))
      this.#refuse('shape.architecture', `there is no ${architecture} here`)
    data.volumes.forEach(({ automount, format }, index) => {
      if (automount && format === undefined)
        this.#refuseData(`volumes[${index}].automount`, 'what has no file system cannot be mounted: give a format')
    })
    const labels = labelProblem(data.labels)
    if (labels !== undefined) this.#refuseData('labels', labels)
    const userData = userDataProblem(bootstrap)
    if (userData !== undefined) this.#refuse('bootstrap.user_data', userData)
  }
}

function primaryIpProblem(ip: PrimaryIp, type: PrimaryIp['type'], location: Location | undefined): string | undefined {
  if (ip.type !== type) return `${ip.name} is an ${ip.type} address`
  if (ip.assignee_id !== null) return `${ip.name} is assigned to the ${ip.assignee_type} ${ip.assignee_id} already`
  if (location !== undefined && ip.location.id !== location.id) return `${ip.name} is in ${ip.location.name}`
  return undefined
}

function names(things: readonly { readonly name: string }[]): string {
  return things.map(({ name }) => name).join(', ')
}
