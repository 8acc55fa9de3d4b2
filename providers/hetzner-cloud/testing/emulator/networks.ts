import { createHash } from 'node:crypto'
import { bodyOf, created, idOf, noContent, ok, type Call, type Handlers } from './calls.js'
import { checkLabels, listed } from './listing.js'
import type { Kind } from './ledger.js'
import type { Project } from './project.js'
import { invalid, notUnique, protectedFrom, Refusal } from './refusal.js'
import type { Firewall, Network, PlacementGroup, Server, SshKey } from './views.js'

interface Named {
  readonly id: number
  name: string
  labels?: Record<string, string>
}

/** What lists, shows, changes and deletes things of one kind: the same for all that have a name and labels. */
function common<View extends Named>(
  root: string,
  key: string,
  kind: Kind,
  mapOf: (project: Project) => Map<number, View>,
  mayDelete: (call: Call, view: View) => void,
): Handlers {
  const find = (call: Call) => call.project.get(mapOf(call.project), idOf(call), `${kind} with ID '${idOf(call)}'`)
  return {
    [`GET /${root}`]: ({ project, query }) => {
      const fingerprint = query.get('fingerprint')
      const shown = project.shown(kind, mapOf(project).values())
      const found =
        fingerprint === null ? shown : shown.filter((view) => Reflect.get(view, 'fingerprint') === fingerprint)
      return ok(listed(root, found, query))
    },
    [`GET /${root}/{id}`]: (call) => ok({ [key]: find(call) }),
    [`PUT /${root}/{id}`]: (call) => {
      const change = bodyOf<Partial<View>>(call)
      checkLabels(change.labels)
      return ok({ [key]: Object.assign(find(call), change) })
    },
    [`DELETE /${root}/{id}`]: (call) => {
      const view = find(call)
      mayDelete(call, view)
      call.project.remove(kind, mapOf(call.project), view.id)
      return noContent
    },
  }
}

export const networkHandlers: Handlers = {
  ...common(
    'networks',
    'network',
    'network',
    (project) => project.networks,
    (call, network) => {
      if (network.protection.delete) throw protectedFrom('network')
      for (const id of network.servers) {
        const server = call.project.servers.get(id)
        if (server !== undefined)
          server.view.private_net = server.view.private_net.filter((each) => each.network !== network.id)
      }
    },
  ),
  'POST /networks': (call) => {
    const { project } = call
    const order = bodyOf<
      Pick<Network, 'name' | 'ip_range'> & { subnets?: Network['subnets']; labels?: Record<string, string> }
    >(call)
    checkNew(project.networks, order)
    const network = project.add('network', project.networks, {
      id: project.newId(),
      name: order.name,
      ip_range: order.ip_range,
      subnets: (order.subnets ?? []).map((subnet) => withGateway(order.ip_range, subnet)),
      routes: [],
      servers: [],
      load_balancers: [],
      protection: { delete: false },
      labels: order.labels ?? {},
      created: new Date().toISOString(),
      expose_routes_to_vswitch: false,
    })
    return created({ network })
  },
  'POST /networks/{id}/actions/add_subnet': (call) => {
    const { project } = call
    const network = project.get(project.networks, idOf(call), 'network')
    network.subnets.push(withGateway(network.ip_range, bodyOf(call)))
    const resources = [{ id: network.id, type: 'network' }]
    return created({ action: project.begin({ command: 'add_subnet', resources, durationMs: project.durations.other }) })
  },
}

export const firewallHandlers: Handlers = {
  ...common(
    'firewalls',
    'firewall',
    'firewall',
    (project) => project.firewalls,
    (call, firewall) => {
      const isApplied = [...call.project.servers.values()].some(({ view }) =>
        view.public_net.firewalls?.some(({ id }) => id === firewall.id),
      )
      if (isApplied) throw new Refusal(422, 'resource_in_use', 'the firewall is still applied to a resource')
    },
  ),
  'POST /firewalls': (call) => {
    const { project } = call
    const order = bodyOf<{
      name: string
      rules?: Partial<Firewall['rules'][number]>[]
      labels?: Record<string, string>
    }>(call)
    checkNew(project.firewalls, order)
    const firewall = project.add<Firewall>('firewall', project.firewalls, {
      id: project.newId(),
      name: order.name,
      rules: (order.rules ?? []).map(
        ({
          direction = 'in',
          protocol = 'tcp',
          port = null,
          source_ips = [],
          destination_ips = [],
          description = null,
        }) => {
          return { direction, protocol, port, source_ips, destination_ips, description }
        },
      ),
      applied_to: [],
      labels: order.labels ?? {},
      created: new Date().toISOString(),
    })
    return created({ firewall, actions: [] })
  },
}

export const placementGroupHandlers: Handlers = {
  ...common(
    'placement_groups',
    'placement_group',
    'placement_group',
    (project) => project.placementGroups,
    () => undefined,
  ),
  'POST /placement_groups': (call) => {
    const { project } = call
    const order = bodyOf<Pick<PlacementGroup, 'name' | 'type'> & { labels?: Record<string, string> }>(call)
    checkNew(project.placementGroups, order)
    const group = project.add('placement_group', project.placementGroups, {
      id: project.newId(),
      name: order.name,
      type: order.type,
      labels: order.labels ?? {},
      servers: [],
      created: new Date().toISOString(),
    })
    return created({ placement_group: group, action: null })
  },
}

export const sshKeyHandlers: Handlers = {
  ...common(
    'ssh_keys',
    'ssh_key',
    'ssh_key',
    (project) => project.sshKeys,
    () => undefined,
  ),
  'POST /ssh_keys': (call) => {
    const { project } = call
    const order = bodyOf<{ name: string; public_key: string; labels?: Record<string, string> }>(call)
    checkNew(project.sshKeys, order)
    const fingerprint = fingerprintOf(order.public_key)
    if (fingerprint === undefined) throw invalid('public_key', 'is no OpenSSH public key')
    if ([...project.sshKeys.values()].some((key) => key.fingerprint === fingerprint))
      throw notUnique('public_key', 'SSH key with the same fingerprint')
    const key = project.add<SshKey>('ssh_key', project.sshKeys, {
      id: project.newId(),
      name: order.name,
      public_key: order.public_key,
      fingerprint,
      labels: order.labels ?? {},
      created: new Date().toISOString(),
    })
    return created({ ssh_key: key })
  },
}

function checkNew(
  map: ReadonlyMap<number, Named>,
  { name, labels }: { name: string; labels?: Record<string, string> },
): void {
  checkLabels(labels)
  if (name === '') throw invalid('name', 'must not be empty')
  if ([...map.values()].some((view) => view.name === name)) throw notUnique('name', 'name')
}

function fingerprintOf(publicKey: string): string | undefined {
  const blob = /^(?:ssh|ecdsa|sk)-[\w@.-]+ ([A-Za-z0-9+/=]+)/.exec(publicKey)?.[1]
  if (blob === undefined) return undefined
  const hex = createHash('md5').update(Buffer.from(blob, 'base64')).digest('hex')
  return hex.match(/../g)?.join(':')
}

type Subnet = Network['subnets'][number]

function withGateway(range: string, subnet: Omit<Subnet, 'gateway'>): Subnet {
  const base = (subnet.ip_range ?? range).split('/')[0] ?? ''
  return { ...subnet, ip_range: subnet.ip_range ?? range, gateway: base.replace(/\.\d+$/, '.1') }
}

/** Puts a server into a network, under the next address that it has. */
export function joinNetwork(project: Project, server: Server, networkId: number, ip?: string): void {
  const network = project.networks.get(networkId)
  if (network === undefined || server.private_net.some((each) => each.network === networkId)) return
  network.servers.push(server.id)
  const base = (network.subnets[0]?.ip_range ?? network.ip_range).split('.').slice(0, 2).join('.')
  const number = project.newAddress()
  const address = ip ?? `${base}.${(number >> 8) & 255}.${number & 255}`
  const mac = (number & 0xffffff).toString(16).padStart(6, '0').match(/../g)?.join(':') ?? ''
  server.private_net.push({ network: networkId, ip: address, alias_ips: [], mac_address: `86:00:00:${mac}` })
}

export function leaveNetworks(project: Project, serverId: number): void {
  for (const network of project.networks.values()) network.servers = network.servers.filter((id) => id !== serverId)
}
