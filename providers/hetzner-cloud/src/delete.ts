import { answer, answerIfAny } from './api/client.js'
import { isApiError } from './api/errors.js'
import { listAll } from './api/paging.js'
import type { PrimaryIp, Server, Volume } from './api/types.js'
import type { Cloud, Work } from './cloud.js'
import { ownershipKeyOf, selectorOf } from './labels.js'
import { primaryIpsKept, primaryIpsOf } from './observed.js'
import { removeRescueKeys } from './rescue.js'

const pace = { initialDelayMs: 500, maxDelayMs: 5_000 }

interface Doomed {
  readonly externalId?: string
  readonly ownershipKey: string
}

/** Deletes the servers of a request, their addresses and their volumes, and returns when each was seen to be gone. */
export async function deleteMachine(context: Work, cloud: Cloud, machine: Doomed): Promise<void> {
  const servers = await serversOf(context, cloud, machine)
  const addresses = new Set([...primaryIpsKept(context.last.attributes), ...servers.flatMap(primaryIpsOf)])
  if (addresses.size > primaryIpsKept(context.last.attributes).length)
    // Once the server is gone, nothing but this says what its addresses were.
    await context.report({ attributes: { ...context.last.attributes, primaryIps: [...addresses] } })
  for (const server of servers) await deleteServer(context, cloud, server)
  for (const { id } of servers) await removeRescueKeys(context, cloud, id)
  for await (const volume of volumesOf(context, cloud, machine.ownershipKey)) await deleteVolume(context, cloud, volume)
  for (const id of addresses) await deleteAddress(context, cloud, id, servers)
}

/** By ownership key, and by id where no listing shows it: unless that is somebody else's. */
async function serversOf(
  { signal, log }: Work,
  cloud: Cloud,
  { externalId, ownershipKey }: Doomed,
): Promise<readonly Server[]> {
  const servers: Server[] = []
  const listed = listAll(async (query) => {
    const params = { query: { ...query, sort: ['id:asc' as const], label_selector: selectorOf(ownershipKey) } }
    const { servers: items, meta } = await answer(cloud.api.as('urgent').GET('/servers', { params, signal }))
    return { items, meta }
  })
  for await (const server of listed) servers.push(server)
  if (
    externalId === undefined ||
    !/^[1-9]\d{0,15}$/.test(externalId) ||
    servers.some(({ id }) => String(id) === externalId)
  )
    return servers
  const server = await cloud.server(Number(externalId), 'urgent', signal)
  if (server === undefined) return servers
  const key = ownershipKeyOf(server.labels)
  if (key === ownershipKey || key === undefined) return [...servers, server]
  log.warn({ server: externalId, ownershipKey: key }, 'a server is not deleted: it carries the key of another request')
  return servers
}

async function deleteServer(context: Work, cloud: Cloud, server: Server): Promise<void> {
  const { signal, config } = context
  const { id } = server
  const client = cloud.api.as('urgent')
  const params = { path: { id } }
  context.progress(`deleting server ${id}`)
  if (server.protection.delete) {
    const body = { delete: false, rebuild: false }
    const lifted = await cloud.whenFree(`lifting the protection of server ${id}`, signal, () =>
      answerIfAny(client.POST('/servers/{id}/actions/change_protection', { params, body, signal })),
    )
    if (lifted !== undefined) await cloud.finished([lifted.action], 'urgent', signal)
  }
  const remove = () => answerIfAny(client.DELETE('/servers/{id}', { params, signal }))
  const deleted = await (server.status === 'deleting'
    ? remove().catch(whereUnderWay)
    : cloud.whenFree(`deleting server ${id}`, signal, remove))
  if (deleted?.action != null) await cloud.finished([deleted.action], 'urgent', signal)
  const isGone = async (signal: AbortSignal) =>
    (await cloud.server(id, 'urgent', signal)) === undefined ? true : undefined
  await context.poll(isGone, { ...pace, timeoutMs: config.actionTimeoutMs, what: `server ${id} to be gone` })
}

/** A deletion that is at work has the server locked; one that came to nothing has not, and is asked for again. */
function whereUnderWay(thrown: unknown): undefined {
  if (!isApiError(thrown, 'locked', 'conflict')) throw thrown
}

function volumesOf({ signal }: Work, cloud: Cloud, ownershipKey: string): AsyncIterable<Volume> {
  return listAll(async (query) => {
    const params = { query: { ...query, sort: ['id:asc' as const], label_selector: selectorOf(ownershipKey) } }
    const { volumes: items, meta } = await answer(cloud.api.as('urgent').GET('/volumes', { params, signal }))
    return { items, meta }
  })
}

async function deleteVolume(context: Work, cloud: Cloud, volume: Volume): Promise<void> {
  const { signal, config } = context
  const { id } = volume
  const client = cloud.api.as('urgent')
  const params = { path: { id } }
  context.progress(`deleting volume ${id}`)
  if (volume.protection.delete) {
    const lifted = await cloud.whenFree(`lifting the protection of volume ${id}`, signal, () =>
      answerIfAny(client.POST('/volumes/{id}/actions/change_protection', { params, body: { delete: false }, signal })),
    )
    if (lifted !== undefined) await cloud.finished([lifted.action], 'urgent', signal)
  }
  const read = async (signal: AbortSignal) =>
    (await answerIfAny(client.GET('/volumes/{id}', { params, signal })))?.volume
  // Its server is gone, and the volume with it or detached from it; or somebody attached it to another one.
  const now = await read(signal)
  if (now === undefined) return
  if (now.server !== null) {
    const detached = await cloud.whenFree(`detaching volume ${id}`, signal, () =>
      answerIfAny(client.POST('/volumes/{id}/actions/detach', { params, signal })),
    )
    if (detached !== undefined) await cloud.finished([detached.action], 'urgent', signal)
  }
  await cloud.whenFree(`deleting volume ${id}`, signal, () =>
    answerIfAny(client.DELETE('/volumes/{id}', { params, signal })),
  )
  const isGone = async (signal: AbortSignal) => ((await read(signal)) === undefined ? true : undefined)
  await context.poll(isGone, { ...pace, timeoutMs: config.actionTimeoutMs, what: `volume ${id} to be gone` })
}

/** Addresses that were to go with their server have most often done so. Those that the project had before stay. */
async function deleteAddress(context: Work, cloud: Cloud, id: number, servers: readonly Server[]): Promise<void> {
  const { config } = context
  const client = cloud.api.as('urgent')
  const params = { path: { id } }
  const read = async (signal: AbortSignal) =>
    (await answerIfAny(client.GET('/primary_ips/{id}', { params, signal })))?.primary_ip
  const isStill = (ip: PrimaryIp): boolean => servers.some((server) => server.id === ip.assignee_id)
  const isGone = async (signal: AbortSignal) => {
    const ip = await read(signal)
    if (ip === undefined || !ip.auto_delete || (ip.assignee_id !== null && !isStill(ip))) return true
    if (ip.assignee_id === null)
      await cloud.whenFree(`deleting primary IP ${id}`, signal, () =>
        answerIfAny(client.DELETE('/primary_ips/{id}', { params, signal })),
      )
    return undefined
  }
  await context.poll(isGone, { ...pace, timeoutMs: config.actionTimeoutMs, what: `primary IP ${id} to be gone` })
}
