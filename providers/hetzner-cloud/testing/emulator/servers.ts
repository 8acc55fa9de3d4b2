import { bodyOf, created, idOf, ok, type Call, type Handlers } from './calls.js'
import { among, checkLabels, listed } from './listing.js'
import { attachVolume } from './volumes.js'
import { joinNetwork, leaveNetworks } from './networks.js'
import { primaryIpFor, releasePrimaryIps } from './primary-ips.js'
import type { Project, ServerRecord } from './project.js'
import { invalid, locked, notUnique, overLimit, protectedFrom, Refusal, unavailable } from './refusal.js'
import type { Action, Image, Location, Server, ServerOrder, ServerType } from './views.js'

const maxUserDataBytes = 32 * 1024
const maxServersOfGroup = 10

export const serverHandlers: Handlers = {
  'GET /servers': ({ project, query }) => {
    const statuses = among(query, 'status')
    const views = project.shown(
      'server',
      [...project.servers.values()].map(({ view }) => view),
    )
    const found = statuses === undefined ? views : views.filter(({ status }) => statuses.has(status))
    return ok(listed('servers', found, query, (view) => viewOf(project, view)))
  },
  'GET /servers/{id}': (call) => ok({ server: viewOf(call.project, serverOf(call).view) }),
  'PUT /servers/{id}': (call) => {
    const { name, labels } = bodyOf<{ name?: string; labels?: Record<string, string> }>(call)
    const { view } = serverOf(call)
    checkLabels(labels)
    if (name !== undefined && name !== view.name) checkName(call.project, name)
    Object.assign(view, { ...(name !== undefined && { name }), ...(labels !== undefined && { labels }) })
    return ok({ server: viewOf(call.project, view) })
  },
  'POST /servers': createServer,
  'DELETE /servers/{id}': deleteServer,
}

/** A server by the id in the path. @throws Refusal where there is none. */
export function serverOf(call: Call): ServerRecord {
  return call.project.get(call.project.servers, idOf(call), `server with ID '${idOf(call)}'`)
}

/** A server that no action is working on. @throws Refusal of `locked` where one is. */
export function idleServerOf(call: Call): ServerRecord {
  const server = serverOf(call)
  if (call.project.isLocked('server', server.view.id)) throw locked('server')
  return server
}

function viewOf(project: Project, view: Server): Server {
  return { ...view, locked: project.isLocked('server', view.id) }
}

function createServer(call: Call) {
  const { project } = call
  const order = bodyOf<ServerOrder>(call)
  const { type, location, image } = checkOrder(project, order)
  if (!project.faults.takeRoom(location.name, type.name)) throw unavailable('error during placement')
  const id = project.newId()
  const server = newServer(project, id, order, type, location, image)
  project.servers.set(id, server)
  project.noteCreated('server', server.view)
  const resources = [{ id, type: 'server' }]
  const action = project.begin({
    command: 'create_server',
    resources: [...resources, { id: image.id, type: 'image' }],
    durationMs: project.durations.create,
    effect: () => (server.view.status = 'off'),
  })
  const next = nextActions(project, server, order, action)
  const root_password = (order.ssh_keys ?? []).length > 0 ? null : 'emulated-root-password'
  return created({ server: viewOf(project, server.view), action, next_actions: next, root_password })
}

function nextActions(project: Project, server: ServerRecord, order: ServerOrder, after: Action): Action[] {
  const { view } = server
  const resources = [{ id: view.id, type: 'server' }]
  const networks = (order.networks ?? []).map((network) => {
    return project.begin({
      command: 'attach_to_network',
      resources: [...resources, { id: network, type: 'network' }],
      durationMs: project.durations.other,
      after,
      effect: () => joinNetwork(project, view, network),
    })
  })
  const volumes = (order.volumes ?? []).map((volume) => attachVolume(project, view, volume, after))
  if (order.start_after_create === false) return [...networks, ...volumes]
  const start = project.begin({
    command: 'start_server',
    resources,
    durationMs: project.durations.start,
    after,
    effect: () => running(server),
  })
  return [start, ...networks, ...volumes]
}

/** @throws Refusal for what the order gets wrong. */
function checkOrder(project: Project, order: ServerOrder): { type: ServerType; location: Location; image: Image } {
  checkName(project, order.name)
  checkLabels(order.labels)
  if (Buffer.byteLength(order.user_data ?? '') > maxUserDataBytes) throw invalid('user_data', 'is too long')
  const type = project.byIdOrName(project.serverTypes, order.server_type)
  if (type === undefined) throw invalid('server_type', `server type ${order.server_type} not found`)
  const wanted = order.location ?? type.locations[0]?.name ?? ''
  const location = project.byIdOrName(project.locations, wanted)
  if (location === undefined) throw invalid('location', `location ${wanted} not found`)
  const offer = type.locations.find(({ id }) => id === location.id)
  if (offer === undefined) throw new Refusal(422, 'invalid_input', 'unsupported location for server type')
  if (offer.deprecation !== null && Date.parse(offer.deprecation.unavailable_after) <= Date.now())
    throw unavailable(`server type ${type.name} is no longer available in ${location.name}`)
  const image = imageFor(project, order.image, type.architecture)
  for (const key of order.ssh_keys ?? [])
    if (project.byIdOrName(project.sshKeys.values(), key) === undefined)
      throw invalid('ssh_keys', `SSH key ${key} not found`)
  for (const id of order.networks ?? []) {
    const network = project.networks.get(id)
    if (network === undefined) throw invalid('networks', `network ${id} not found`)
    if (!network.subnets.some(({ network_zone: zone }) => zone === location.network_zone))
      throw new Refusal(422, 'no_subnet_available', `network ${id} has no subnet in ${location.network_zone}`)
  }
  for (const { firewall } of order.firewalls ?? [])
    if (!project.firewalls.has(firewall)) throw invalid('firewalls', `firewall ${firewall} not found`)
  checkGroup(project, order.placement_group)
  for (const id of order.volumes ?? []) {
    const volume = project.volumes.get(id)
    if (volume === undefined) throw invalid('volumes', `volume ${id} not found`)
    if (volume.server !== null) throw invalid('volumes', `volume ${id} is attached already`)
    if (volume.location.id !== location.id) throw invalid('volumes', `volume ${id} is in another location`)
  }
  if (project.servers.size >= project.faults.limits.server_limit) throw overLimit('server_limit')
  return { type, location, image }
}

function checkGroup(project: Project, id: number | undefined): void {
  if (id === undefined) return
  const group = project.placementGroups.get(id)
  if (group === undefined) throw invalid('placement_group', `placement group ${id} not found`)
  if (group.servers.length >= maxServersOfGroup)
    throw new Refusal(422, 'placement_error', 'the placement group has no room for another server')
}

/** Names are hostnames, and of one server each. */
function checkName(project: Project, name: string): void {
  const label = /^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/
  if (name.length > 253 || !name.split('.').every((part) => label.test(part))) throw invalid('name', 'is no hostname')
  if ([...project.servers.values()].some(({ view }) => view.name === name)) throw notUnique('name', 'server name')
}

/** An image by id or name, for an architecture. @throws Refusal where there is none. */
export function imageFor(project: Project, wanted: string | number, architecture: 'x86' | 'arm'): Image {
  const text = String(wanted)
  const found = [...project.images.values()].filter(({ id, name }) => String(id) === text || name === text)
  if (found.length === 0) throw invalid('image', `image ${text} not found`)
  const image = found.find((each) => each.architecture === architecture)
  if (image === undefined) throw invalid('image', `image ${text} is not for ${architecture}`)
  if (image.status !== 'available') throw unavailable(`image ${text} is not available`)
  return image
}

function newServer(
  project: Project,
  id: number,
  order: ServerOrder,
  type: ServerType,
  location: Location,
  image: Image,
): ServerRecord {
  const { enable_ipv4: wantsV4 = true, enable_ipv6: wantsV6 = true, ipv4, ipv6 } = order.public_net ?? {}
  const owner = { id, name: order.name, location }
  const [v4, v6] = [
    wantsV4 ? primaryIpFor(project, owner, 'ipv4', ipv4 ?? undefined) : undefined,
    wantsV6 ? primaryIpFor(project, owner, 'ipv6', ipv6 ?? undefined) : undefined,
  ]
  const group = order.placement_group === undefined ? undefined : project.placementGroups.get(order.placement_group)
  group?.servers.push(id)
  const view: Server = {
    id,
    name: order.name,
    status: 'initializing',
    created: new Date().toISOString(),
    public_net: {
      ipv4: v4 === undefined ? null : { id: v4.id, ip: v4.ip, blocked: false, dns_ptr: v4.ip },
      ipv6: v6 === undefined ? null : { id: v6.id, ip: v6.ip, blocked: false, dns_ptr: [] },
      floating_ips: [],
      firewalls: (order.firewalls ?? []).map(({ firewall }) => ({ id: firewall, status: 'applied' })),
    },
    private_net: [],
    server_type: type,
    location,
    image,
    iso: null,
    rescue_enabled: false,
    locked: false,
    backup_window: null,
    outgoing_traffic: 0,
    ingoing_traffic: 0,
    included_traffic: 21_990_232_555_520,
    protection: { delete: false, rebuild: false },
    labels: order.labels ?? {},
    volumes: [],
    load_balancers: [],
    primary_disk_size: type.disk,
    placement_group: group ?? null,
  }
  return {
    view,
    userData: order.user_data ?? '',
    installation: 1,
    runsSinceMs: undefined,
    inRescue: false,
    rescueKeys: [],
  }
}

export function running(server: ServerRecord): void {
  if (server.view.status === 'running') return
  server.view.status = 'running'
  server.runsSinceMs = Date.now()
}

function deleteServer(call: Call) {
  const { project } = call
  const { view } = idleServerOf(call)
  if (view.protection.delete) throw protectedFrom('server')
  view.status = 'deleting'
  const action = project.begin({
    command: 'delete_server',
    resources: [{ id: view.id, type: 'server' }],
    durationMs: project.durations.delete,
    effect: () => vanish(project, view),
  })
  return ok({ action })
}

/** The server is gone; what was attached to it is detached, and goes with it only where it was made so. */
export function vanish(project: Project, view: Server): void {
  project.dropActionsOf('server', view.id)
  if (!project.servers.delete(view.id)) return
  for (const volume of project.volumes.values())
    if (volume.server === view.id) Object.assign(volume, { server: null, linux_device: volume.linux_device })
  releasePrimaryIps(project, view.id)
  leaveNetworks(project, view.id)
  for (const group of project.placementGroups.values()) group.servers = group.servers.filter((id) => id !== view.id)
  for (const image of [...project.images.values()])
    if (image.type === 'backup' && image.bound_to === view.id) project.remove('image', project.images, image.id)
  project.noteDeleted('server', view)
}
