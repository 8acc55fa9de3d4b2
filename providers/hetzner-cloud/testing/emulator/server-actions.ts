import { bodyOf, created, type Call, type Handler, type Handlers } from './calls.js'
import { joinNetwork } from './networks.js'
import { invalid, protectedFrom, Refusal } from './refusal.js'
import { idleServerOf, imageFor, running, serverOf } from './servers.js'
import type { Durations, ServerRecord } from './project.js'
import type { Action, Image, Server } from './views.js'

const root = 'POST /servers/{id}/actions'

export const serverActionHandlers: Handlers = {
  [`${root}/poweron`]: acting('start_server', 'start', boot),
  [`${root}/poweroff`]: acting('stop_server', 'stop', off),
  [`${root}/shutdown`]: (call) => {
    const server = idleServerOf(call)
    const { project } = call
    const action = begin(call, server, 'shutdown_server', 'other')
    // The action is the signal; whether the system heeds it is another matter.
    if (!project.faults.deaf.has(server.view.name)) setTimeout(() => off(server), project.durations.stop).unref()
    return created({ action })
  },
  [`${root}/reboot`]: acting('reboot_server', 'start', reboot),
  [`${root}/reset`]: acting('reset_server', 'start', reboot),
  [`${root}/rebuild`]: rebuild,
  [`${root}/enable_rescue`]: (call) => {
    const server = idleServerOf(call)
    const { ssh_keys: keys = [] } = bodyOf<{ ssh_keys?: number[] }>(call)
    for (const key of keys) call.project.get(call.project.sshKeys, key, 'SSH key')
    if (server.view.rescue_enabled) throw new Refusal(409, 'conflict', 'the rescue system is enabled already')
    const action = begin(call, server, 'enable_rescue', 'other', () => {
      server.view.rescue_enabled = true
      server.rescueKeys = keys
    })
    return created({ action, root_password: 'emulated-rescue-password' })
  },
  [`${root}/disable_rescue`]: acting('disable_rescue', 'other', ({ view }) => (view.rescue_enabled = false)),
  [`${root}/enable_backup`]: acting('enable_backup', 'other', ({ view }) => (view.backup_window = '22-02')),
  [`${root}/disable_backup`]: acting('disable_backup', 'other', ({ view }) => (view.backup_window = null)),
  [`${root}/change_protection`]: (call) => {
    const server = serverOf(call)
    const { protection } = server.view
    const wanted = { ...protection, ...bodyOf<Partial<Server['protection']>>(call) }
    if (wanted.delete !== wanted.rebuild) throw invalid('rebuild', 'delete and rebuild protection must be the same')
    Object.assign(protection, wanted)
    return created({ action: begin(call, server, 'change_protection', 'other') })
  },
  [`${root}/attach_to_network`]: (call) => {
    const server = idleServerOf(call)
    const { network, ip } = bodyOf<{ network: number; ip?: string }>(call)
    call.project.get(call.project.networks, network, 'network')
    if (server.view.private_net.some((each) => each.network === network))
      throw new Refusal(422, 'server_already_attached', 'the server is in the network already')
    const effect = () => joinNetwork(call.project, server.view, network, ip)
    return created({ action: begin(call, server, 'attach_to_network', 'other', effect) })
  },
  [`${root}/detach_from_network`]: (call) => {
    const server = idleServerOf(call)
    const { network: id } = bodyOf<{ network: number }>(call)
    const network = call.project.get(call.project.networks, id, 'network')
    const effect = () => {
      server.view.private_net = server.view.private_net.filter((each) => each.network !== id)
      network.servers = network.servers.filter((each) => each !== server.view.id)
    }
    return created({ action: begin(call, server, 'detach_from_network', 'other', effect) })
  },
  [`${root}/create_image`]: createImage,
  [`${root}/add_to_placement_group`]: (call) => {
    const server = idleServerOf(call)
    const { placement_group: id } = bodyOf<{ placement_group: number }>(call)
    const group = call.project.get(call.project.placementGroups, id, 'placement group')
    const effect = () => {
      group.servers.push(server.view.id)
      server.view.placement_group = group
    }
    return created({ action: begin(call, server, 'add_to_placement_group', 'other', effect) })
  },
  [`${root}/remove_from_placement_group`]: (call) => {
    const server = idleServerOf(call)
    const effect = () => {
      for (const group of call.project.placementGroups.values())
        group.servers = group.servers.filter((id) => id !== server.view.id)
      server.view.placement_group = null
    }
    return created({ action: begin(call, server, 'remove_from_placement_group', 'other', effect) })
  },
}

function acting(command: string, duration: keyof Durations, effect: (server: ServerRecord) => void): Handler {
  return (call) => {
    const server = idleServerOf(call)
    return created({ action: begin(call, server, command, duration, () => effect(server)) })
  }
}

function begin(
  { project }: Call,
  { view }: ServerRecord,
  command: string,
  duration: keyof Durations,
  effect: () => void = () => undefined,
): Action {
  const resources = [{ id: view.id, type: 'server' }]
  return project.begin({ command, resources, durationMs: project.durations[duration], effect })
}

function off(server: ServerRecord): void {
  if (server.view.status !== 'running') return
  server.view.status = 'off'
  server.runsSinceMs = undefined
}

function reboot(server: ServerRecord): void {
  off(server)
  boot(server)
}

/** It boots into the rescue system once. */
function boot(server: ServerRecord): void {
  if (server.view.status === 'running') return
  server.inRescue = server.view.rescue_enabled
  server.view.rescue_enabled = false
  running(server)
}

function rebuild(call: Call) {
  const server = idleServerOf(call)
  const { image: wanted, user_data: userData } = bodyOf<{ image: string; user_data?: string }>(call)
  if (server.view.protection.rebuild) throw protectedFrom('server')
  const image = imageFor(call.project, wanted, server.view.server_type.architecture)
  off(server)
  server.view.status = 'rebuilding'
  const action = begin(call, server, 'rebuild_server', 'rebuild', () => {
    server.view.image = image
    server.installation += 1
    if (userData !== undefined) server.userData = userData
    boot(server)
  })
  return created({ action, root_password: null })
}

function createImage(call: Call) {
  const { project } = call
  const { view } = idleServerOf(call)
  const {
    type = 'snapshot',
    description = view.name,
    labels = {},
  } = bodyOf<{
    type?: 'snapshot' | 'backup'
    description?: string
    labels?: Record<string, string>
  }>(call)
  if (type === 'backup' && view.backup_window === null) throw invalid('type', 'backups are not enabled')
  const image = project.add<Image>('image', project.images, {
    id: project.newId(),
    type,
    status: 'creating',
    name: null,
    description,
    image_size: null,
    disk_size: view.primary_disk_size,
    created: new Date().toISOString(),
    created_from: { id: view.id, name: view.name },
    bound_to: type === 'backup' ? view.id : null,
    os_flavor: view.image?.os_flavor ?? 'unknown',
    os_version: view.image?.os_version ?? null,
    rapid_deploy: false,
    protection: { delete: false },
    deprecated: null,
    deleted: null,
    labels,
    architecture: view.server_type.architecture,
  })
  const action = project.begin({
    command: 'create_image',
    resources: [
      { id: view.id, type: 'server' },
      { id: image.id, type: 'image' },
    ],
    durationMs: project.durations.other,
    effect: () => (image.status = 'available'),
  })
  return created({ action, image })
}
