import { createHash } from 'node:crypto'
import { ProviderError, type RescueWish } from '@slipway/sdk'
import { answer, answerIfAny } from './api/client.js'
import { isApiError } from './api/errors.js'
import { listAll } from './api/paging.js'
import type { Server, SshKey } from './api/types.js'
import type { Cloud, Work } from './cloud.js'
import { keepOn } from './power.js'

/** On keys that were put into the project for one server's rescue system: its id. They go when it is left, and with the server. */
const rescueLabel = 'slipway/rescue'

/**
 * Starts a server into the vendor's rescue system, or into its own. The API tells whether the next start leads into the rescue system, and not which one runs; so this
 * is done whole each time. The password that the API makes up is never read: who may log in is who has one of the keys.
 */
export async function switchRescue(context: Work, cloud: Cloud, id: number, wish: RescueWish): Promise<void> {
  const { signal } = context
  const server = await idleServer(context, cloud, id)
  // Also before it is enabled anew: what another try enabled may have other keys.
  if (server.rescue_enabled) await act(context, cloud, id, 'disable_rescue')
  if (!wish.enabled) {
    if (server.status === 'running') await act(context, cloud, id, 'reset')
    if (server.status !== 'off') await keepOn(context, cloud, id, 'urgent')
    return removeRescueKeys(context, cloud, id)
  }
  const sshKeys = await keysOf(context, cloud, server, wish)
  const params = { path: { id } }
  const body = { type: 'linux64' as const, ssh_keys: [...sshKeys] }
  const { action } = await cloud.whenFree(`enabling the rescue system of server ${id}`, signal, () =>
    answer(cloud.api.as('urgent').POST('/servers/{id}/actions/enable_rescue', { params, body, signal })),
  )
  if (action !== undefined) await cloud.finished([action], 'urgent', signal)
  // One that is off is started by what follows.
  if (server.status === 'running') await act(context, cloud, id, 'reset')
  await keepOn(context, cloud, id, 'urgent')
}

/** A server that no action is working on: one whose answer was lost may still be about to enable the rescue system. */
async function idleServer(context: Work, cloud: Cloud, id: number): Promise<Server> {
  return context.poll(
    async (signal) => {
      const server = await cloud.existing(id, 'urgent', signal)
      return server.locked ? undefined : server
    },
    {
      initialDelayMs: 500,
      maxDelayMs: 5_000,
      timeoutMs: context.config.actionTimeoutMs,
      what: `server ${id} to be free`,
    },
  )
}

/** Deletes the keys that were put into the project for a server's rescue system. */
export async function removeRescueKeys({ signal }: Work, cloud: Cloud, id: number): Promise<void> {
  const client = cloud.api.as('urgent')
  const keys = listAll(async (query) => {
    const params = { query: { ...query, label_selector: `${rescueLabel}=${id}` } }
    const { ssh_keys: items, meta } = await answer(client.GET('/ssh_keys', { params, signal }))
    return { items, meta }
  })
  const ids: number[] = []
  for await (const key of keys) ids.push(key.id)
  for (const key of ids) await answerIfAny(client.DELETE('/ssh_keys/{id}', { params: { path: { id: key } }, signal }))
}

async function act(context: Work, cloud: Cloud, id: number, command: 'disable_rescue' | 'reset'): Promise<void> {
  const { signal } = context
  const params = { path: { id } }
  const { action } = await cloud.whenFree(`${command} of server ${id}`, signal, () =>
    answer(cloud.api.as('urgent').POST(`/servers/{id}/actions/${command}`, { params, signal })),
  )
  if (action !== undefined) await cloud.finished([action], 'urgent', signal)
}

/** The ids of the keys that may log in. @throws ProviderError of code INVALID_SPEC where one is not to be had, or none is given. */
async function keysOf(
  { signal }: Work,
  cloud: Cloud,
  server: Server,
  { sshKeys, sshPublicKeys }: Extract<RescueWish, { enabled: true }>,
): Promise<readonly number[]> {
  const ids = new Set<number>()
  for (const wanted of sshKeys) {
    const key = await cloud.catalogue.find('sshKey', wanted, signal)
    if (key === undefined)
      refuse(
        `there is no SSH key of the name or id ${wanted} in the project: name another, or give the public key itself`,
      )
    ids.add(key.id)
  }
  for (const publicKey of sshPublicKeys) ids.add((await keyOf(cloud, server, publicKey, signal)).id)
  if (ids.size === 0)
    refuse('the rescue system is entered by SSH key alone: name a key of the project, or give a public key')
  return [...ids]
}

/** The key of the project that is this public key. One that is not there yet is put there for as long as the rescue system is wished for. */
async function keyOf(cloud: Cloud, server: Server, publicKey: string, signal: AbortSignal): Promise<SshKey> {
  const client = cloud.api.as('urgent')
  const fingerprint = fingerprintOf(publicKey)
  const find = async () =>
    (await answer(client.GET('/ssh_keys', { params: { query: { fingerprint } }, signal }))).ssh_keys[0]
  const known = await find()
  if (known !== undefined) return known
  const name = `${server.name}-rescue-${fingerprint.replaceAll(':', '').slice(0, 8)}`
  const body = { name, public_key: publicKey, labels: { [rescueLabel]: String(server.id) } }
  try {
    return (await answer(client.POST('/ssh_keys', { body, signal }))).ssh_key
  } catch (thrown) {
    // Somebody was faster: an earlier try of ours, most likely.
    const taken = isApiError(thrown, 'uniqueness_error') ? await find() : undefined
    if (taken === undefined) throw thrown
    return taken
  }
}

/** As the API tells it: MD5 over the key's own bytes, in pairs of digits. */
function fingerprintOf(publicKey: string): string {
  const bytes = Buffer.from(publicKey.trim().split(/\s+/)[1] ?? '', 'base64')
  const digest = createHash('md5').update(bytes).digest('hex')
  return digest.match(/../g)?.join(':') ?? ''
}

function refuse(message: string): never {
  throw new ProviderError('INVALID_SPEC', message, { retryable: false })
}
