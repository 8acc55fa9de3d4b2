import { bodyOf, created, idOf, noContent, ok, type Call, type Handlers } from './calls.js'
import { checkLabels, listed } from './listing.js'
import type { Project } from './project.js'
import { invalid, notUnique, overLimit, protectedFrom, Refusal } from './refusal.js'
import type { Location, PrimaryIp } from './views.js'

type IpType = PrimaryIp['type']

interface IpOrder {
  readonly name: string
  readonly type: IpType
  readonly assignee_id?: number | null
  readonly location?: string | number
  readonly auto_delete?: boolean
  readonly labels?: Record<string, string>
}

export const primaryIpHandlers: Handlers = {
  'GET /primary_ips': ({ project, query }) => {
    const ip = query.get('ip')
    const shown = project.shown('primary_ip', project.primaryIps.values())
    return ok(listed('primary_ips', ip === null ? shown : shown.filter((each) => each.ip === ip), query))
  },
  'GET /primary_ips/{id}': (call) => ok({ primary_ip: primaryIpOf(call) }),
  'PUT /primary_ips/{id}': (call) => {
    const change = bodyOf<Partial<Pick<PrimaryIp, 'name' | 'labels' | 'auto_delete'>>>(call)
    checkLabels(change.labels)
    return ok({ primary_ip: Object.assign(primaryIpOf(call), change) })
  },
  'POST /primary_ips': createPrimaryIp,
  'DELETE /primary_ips/{id}': (call) => {
    const ip = primaryIpOf(call)
    if (ip.protection.delete) throw protectedFrom('primary IP')
    if (ip.assignee_id !== null) throw new Refusal(422, 'must_be_unassigned', 'the primary IP is still assigned')
    call.project.remove('primary_ip', call.project.primaryIps, ip.id)
    return noContent
  },
  'POST /primary_ips/{id}/actions/change_protection': (call) => {
    const ip = primaryIpOf(call)
    Object.assign(ip.protection, bodyOf(call))
    return created({ action: act(call, 'change_protection', ip) })
  },
  'POST /primary_ips/{id}/actions/assign': (call) => {
    const ip = primaryIpOf(call)
    const { assignee_id: serverId } = bodyOf<{ assignee_id: number }>(call)
    if (ip.assignee_id !== null) throw new Refusal(422, 'primary_ip_already_assigned', 'is assigned already')
    assign(call.project, ip, serverId)
    return created({ action: act(call, 'assign_primary_ip', ip) })
  },
  'POST /primary_ips/{id}/actions/unassign': (call) => {
    const ip = primaryIpOf(call)
    const server = ip.assignee_id === null ? undefined : call.project.servers.get(ip.assignee_id)
    if (server !== undefined) {
      if (server.view.status !== 'off') throw new Refusal(422, 'server_not_stopped', 'the server is running')
      server.view.public_net[ip.type] = null
    }
    ip.assignee_id = null
    return created({ action: act(call, 'unassign_primary_ip', ip) })
  },
}

function primaryIpOf(call: Call): PrimaryIp {
  return call.project.get(call.project.primaryIps, idOf(call), `primary IP with ID '${idOf(call)}'`)
}

function act(call: Call, command: string, { id }: PrimaryIp) {
  const { project } = call
  return project.begin({ command, resources: [{ id, type: 'primary_ip' }], durationMs: project.durations.other })
}

function createPrimaryIp(call: Call) {
  const { project } = call
  const order = bodyOf<IpOrder>(call)
  checkLabels(order.labels)
  if ([...project.primaryIps.values()].some(({ name }) => name === order.name)) throw notUnique('name', 'name')
  const server = order.assignee_id == null ? undefined : project.servers.get(order.assignee_id)
  if (order.assignee_id != null && server === undefined) throw invalid('assignee_id', 'server not found')
  const location = server?.view.location ?? project.byIdOrName(project.locations, order.location ?? '')
  if (location === undefined) throw invalid('location', 'location not found')
  const ip = newPrimaryIp(project, { ...order, location, autoDelete: order.auto_delete ?? false })
  if (server !== undefined) assign(project, ip, server.view.id)
  return created({ primary_ip: ip, ...(server !== undefined && { action: act(call, 'assign_primary_ip', ip) }) })
}

function assign(project: Project, ip: PrimaryIp, serverId: number): void {
  const server = project.servers.get(serverId)
  if (server === undefined) throw invalid('assignee_id', 'server not found')
  if (server.view.status !== 'off') throw new Refusal(422, 'server_not_stopped', 'the server is running')
  if (server.view.public_net[ip.type] !== null) throw new Refusal(422, `server_has_${ip.type}`, 'the server has one')
  ip.assignee_id = serverId
  if (ip.type === 'ipv4') server.view.public_net.ipv4 = { id: ip.id, ip: ip.ip, blocked: false, dns_ptr: ip.ip }
  else server.view.public_net.ipv6 = { id: ip.id, ip: ip.ip, blocked: false, dns_ptr: [] }
}

/** The primary IP that a new server is to have: the one that it names, or one that comes and goes with it. @throws Refusal where it cannot be had. */
export function primaryIpFor(
  project: Project,
  server: { readonly id: number; readonly name: string; readonly location: Location },
  type: IpType,
  wanted: number | undefined,
): PrimaryIp {
  if (wanted === undefined) {
    const name = `primary_ip-${project.newAddress()}`
    const ip = newPrimaryIp(project, { name, type, location: server.location, autoDelete: true, labels: {} })
    ip.assignee_id = server.id
    return ip
  }
  const ip = project.primaryIps.get(wanted)
  if (ip === undefined) throw invalid('public_net', `primary IP ${wanted} not found`)
  if (ip.type !== type) throw new Refusal(412, 'primary_ip_version_mismatch', 'the primary IP has the wrong version')
  if (ip.assignee_id !== null) throw new Refusal(422, 'primary_ip_assigned', 'the primary IP is assigned already')
  if (ip.location.id !== server.location.id)
    throw new Refusal(422, 'primary_ip_datacenter_mismatch', 'the primary IP is in another location')
  ip.assignee_id = server.id
  return ip
}

/** What becomes of primary IPs when their server is gone. */
export function releasePrimaryIps(project: Project, serverId: number): void {
  for (const ip of [...project.primaryIps.values()]) {
    if (ip.assignee_id !== serverId) continue
    ip.assignee_id = null
    if (ip.auto_delete) project.remove('primary_ip', project.primaryIps, ip.id)
  }
}

interface NewIp {
  readonly name: string
  readonly type: IpType
  readonly location: Location
  readonly autoDelete: boolean
  readonly labels?: Record<string, string>
}

function newPrimaryIp(project: Project, { name, type, location, autoDelete, labels = {} }: NewIp): PrimaryIp {
  if (project.primaryIps.size >= project.faults.limits.primary_ip_limit) throw overLimit('primary_ip_limit')
  const number = project.newAddress()
  const v4 = `100.${64 + ((number >> 16) & 63)}.${(number >> 8) & 255}.${number & 255}`
  return project.add('primary_ip', project.primaryIps, {
    id: project.newId(),
    name,
    type,
    ip: type === 'ipv4' ? v4 : `2001:db8:${number.toString(16)}::/64`,
    assignee_id: null,
    assignee_type: 'server',
    auto_delete: autoDelete,
    blocked: false,
    created: new Date().toISOString(),
    dns_ptr: [],
    labels,
    location,
    protection: { delete: false },
  })
}
