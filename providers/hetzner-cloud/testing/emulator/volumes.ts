import { bodyOf, created, idOf, noContent, ok, type Call, type Handlers } from './calls.js'
import { among, checkLabels, listed } from './listing.js'
import type { Project } from './project.js'
import { invalid, locked, notUnique, overLimit, protectedFrom, Refusal } from './refusal.js'
import type { Action, Server, Volume, VolumeOrder } from './views.js'

export const volumeHandlers: Handlers = {
  'GET /volumes': ({ project, query }) => {
    const statuses = among(query, 'status')
    const shown = project.shown('volume', project.volumes.values())
    return ok(
      listed(
        'volumes',
        shown.filter(({ status }) => statuses?.has(status) ?? true),
        query,
      ),
    )
  },
  'GET /volumes/{id}': (call) => ok({ volume: volumeOf(call) }),
  'PUT /volumes/{id}': (call) => {
    const change = bodyOf<Partial<Pick<Volume, 'name' | 'labels'>>>(call)
    checkLabels(change.labels)
    return ok({ volume: Object.assign(volumeOf(call), change) })
  },
  'POST /volumes': createVolume,
  'DELETE /volumes/{id}': (call) => {
    const volume = volumeOf(call)
    if (volume.protection.delete) throw protectedFrom('volume')
    if (call.project.isLocked('volume', volume.id)) throw locked('volume')
    if (volume.server !== null) throw new Refusal(422, 'invalid_input', 'the volume is attached to a server')
    call.project.remove('volume', call.project.volumes, volume.id)
    return noContent
  },
  'POST /volumes/{id}/actions/attach': (call) => {
    const { server: serverId } = bodyOf<{ server: number }>(call)
    const server = call.project.get(call.project.servers, serverId, 'server')
    const volume = volumeOf(call)
    if (volume.server !== null) throw new Refusal(422, 'invalid_input', 'the volume is attached already')
    return created({ action: attachVolume(call.project, server.view, volume.id) })
  },
  'POST /volumes/{id}/actions/detach': (call) => {
    const { project } = call
    const volume = volumeOf(call)
    const server = volume.server === null ? undefined : project.servers.get(volume.server)
    const action = project.begin({
      command: 'detach_volume',
      resources: [{ id: volume.id, type: 'volume' }],
      durationMs: project.durations.other,
      effect: () => {
        if (server !== undefined) server.view.volumes = server.view.volumes?.filter((id) => id !== volume.id) ?? []
        volume.server = null
      },
    })
    return created({ action })
  },
  'POST /volumes/{id}/actions/change_protection': (call) => {
    const { project } = call
    const volume = volumeOf(call)
    Object.assign(volume.protection, bodyOf(call))
    const resources = [{ id: volume.id, type: 'volume' }]
    return created({ action: project.begin({ command: 'change_protection', resources, durationMs: 0 }) })
  },
}

function volumeOf(call: Call): Volume {
  return call.project.get(call.project.volumes, idOf(call), `volume with ID '${idOf(call)}'`)
}

function createVolume(call: Call) {
  const { project } = call
  const order = bodyOf<VolumeOrder>(call)
  checkLabels(order.labels)
  if (!/^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$/.test(order.name)) throw invalid('name', 'is not allowed')
  if (order.size < 10 || order.size > 10_240) throw invalid('size', 'must be from 10 to 10240')
  if ([...project.volumes.values()].some(({ name }) => name === order.name)) throw notUnique('name', 'volume name')
  if (project.volumes.size >= project.faults.limits.volume_limit) throw overLimit('volume_limit')
  const server = order.server === undefined ? undefined : project.get(project.servers, order.server, 'server').view
  const location = server?.location ?? project.byIdOrName(project.locations, order.location ?? '')
  if (location === undefined) throw invalid('location', 'location not found')
  const id = project.newId()
  const volume = project.add('volume', project.volumes, {
    id,
    name: order.name,
    size: order.size,
    format: order.format ?? null,
    location,
    labels: order.labels ?? {},
    server: null,
    status: 'creating',
    linux_device: `/dev/disk/by-id/scsi-0HC_Volume_${id}`,
    protection: { delete: false },
    created: new Date().toISOString(),
  })
  const action = project.begin({
    command: 'create_volume',
    resources: [{ id, type: 'volume' }],
    durationMs: project.durations.other,
    effect: () => (volume.status = 'available'),
  })
  return created({
    volume,
    action,
    next_actions: server === undefined ? [] : [attachVolume(project, server, id, action)],
  })
}

export function attachVolume(project: Project, server: Server, volumeId: number, after?: Action): Action {
  const volume = project.volumes.get(volumeId)
  return project.begin({
    command: 'attach_volume',
    resources: [
      { id: server.id, type: 'server' },
      { id: volumeId, type: 'volume' },
    ],
    durationMs: project.durations.other,
    ...(after !== undefined && { after }),
    effect: () => {
      if (volume !== undefined) volume.server = server.id
      server.volumes?.push(volumeId)
    },
  })
}
