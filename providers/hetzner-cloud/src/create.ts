import { ProviderError, type MachineSpec, type ObservedMachine } from '@slipway/sdk'
import { answer } from './api/client.js'
import { ActionFailed, isApiError } from './api/errors.js'
import type { Cloud, PendingAction, Work } from './cloud.js'
import type { Data } from './config.js'
import { ownershipKeyOf, ownershipLabels } from './labels.js'
import { observedOf } from './observed.js'
import { planServer } from './order.js'
import { pause } from './api/pause.js'
import { keepOn } from './power.js'

type Spec = MachineSpec<Data>

/** What the API has made, with the actions that are still at it. */
type Made = { readonly id: number; readonly actions: readonly PendingAction[] }

/** How long what was made may be missing from listings, milliseconds, and how long a create may be under way. */
export interface Declared {
  readonly listingLagMs: number
  readonly effectTimeoutMs: number
}

const lagPauseMs = 500
const makingCommands = new Set(['create_server', 'start_server', 'attach_to_network'])

/** Makes a server and all that comes with it, running. */
export async function createServer(
  context: Work,
  cloud: Cloud,
  spec: Spec,
  declared: Declared,
): Promise<ObservedMachine> {
  const { id, actions } = await context.step<Made>('create-server', {
    find: (signal) => findServer(cloud, spec, signal),
    run: (signal) => orderServer(context, cloud, spec, declared, signal),
  })
  await context.report({ externalId: String(id) })
  context.progress(`waiting for server ${id}`, 30)
  await serverMade(context, cloud, id, actions)
  for (const index of spec.data.volumes.keys()) await createVolume(context, cloud, spec, index, id, declared)
  await setUp(context, cloud, spec, id)
  context.progress(`waiting for server ${id} to run`, 80)
  return observedOf(await keepOn(context, cloud, id))
}

async function findServer(cloud: Cloud, { name, ownershipKey }: Spec, signal: AbortSignal): Promise<Made | undefined> {
  const server = await cloud.serverNamed(name, ownershipKey, 'normal', signal)
  if (server === undefined || server === 'foreign' || server.status === 'deleting') return undefined
  return { id: server.id, actions: await actionsOf(cloud, server.id, signal) }
}

/** The actions by which a server was made, those that failed too: whoever waits for them learns of it. */
async function actionsOf(cloud: Cloud, id: number, signal: AbortSignal): Promise<PendingAction[]> {
  const params = { path: { id }, query: { sort: ['id:asc' as const], per_page: 50 } }
  const { actions } = await answer(cloud.api.as('normal').GET('/servers/{id}/actions', { params, signal }))
  return actions.filter(({ command }) => makingCommands.has(command)).map(({ id, command }) => ({ id, command }))
}

async function orderServer(
  context: Work,
  cloud: Cloud,
  spec: Spec,
  declared: Declared,
  signal: AbortSignal,
): Promise<Made> {
  const planned = await planServer(cloud, context.config, spec, signal)
  if ('violations' in planned) {
    const said = planned.violations.map(({ field, description }) => `${field}: ${description}`).join('; ')
    throw new ProviderError('INVALID_SPEC', said, { retryable: false })
  }
  return adoptingOurs(declared, signal, {
    make: async () => {
      // The answer may hold a root password: nothing but ids is taken from it.
      const {
        server,
        action,
        next_actions: next,
      } = await answer(cloud.api.as('normal').POST('/servers', { body: planned.order, signal }))
      return { id: server.id, actions: [action, ...next].map(({ id, command }) => ({ id, command })) }
    },
    find: () => findServer(cloud, spec, signal),
  })
}

/**
 * Makes something whose name is unique. Where the name is taken it was most likely taken by an earlier try of our own, that no listing may show yet.
 *
 * @throws what `make` throws, also where the name is somebody else's.
 */
async function adoptingOurs(
  { listingLagMs }: Declared,
  signal: AbortSignal,
  { make, find }: { readonly make: () => Promise<Made>; readonly find: () => Promise<Made | undefined> },
): Promise<Made> {
  try {
    return await make()
  } catch (thrown) {
    if (!isApiError(thrown, 'uniqueness_error')) throw thrown
    const deadlineMs = performance.now() + listingLagMs
    for (;;) {
      const isLate = performance.now() >= deadlineMs
      const found = await find()
      if (found !== undefined) return found
      if (isLate) throw thrown
      await pause(lagPauseMs, signal)
    }
  }
}

/** Waits until a server has been made. A start that failed is tried again later; whatever else fails, fails for good. */
async function serverMade(context: Work, cloud: Cloud, id: number, actions: readonly PendingAction[]): Promise<void> {
  const [making, next] = [
    actions.filter(({ command }) => command === 'create_server'),
    actions.filter(({ command }) => command !== 'create_server'),
  ]
  try {
    await cloud.finished(making, 'normal', context.signal)
    await cloud.finished(next, 'normal', context.signal)
  } catch (thrown) {
    context.signal.throwIfAborted()
    if (thrown instanceof ActionFailed && thrown.command === 'start_server') {
      context.log.warn({ err: thrown, server: id }, 'a new server did not start; it is started again')
      return
    }
    // Old actions are forgotten by the API one day; then the server itself tells how it is.
    if (thrown instanceof ProviderError && thrown.externalCode === 'not_found') return
    if (!(thrown instanceof ActionFailed)) throw thrown
    const { code, message, externalCode } = thrown
    throw new ProviderError(code, `server ${id} could not be made: ${message}`, {
      retryable: false,
      ...(externalCode !== undefined && { externalCode }),
      cause: thrown,
    })
  }
}

async function createVolume(
  context: Work,
  cloud: Cloud,
  spec: Spec,
  index: number,
  server: number,
  declared: Declared,
): Promise<void> {
  const wanted = spec.data.volumes[index]
  if (wanted === undefined) return
  const name = `${spec.name}-${index + 1}`
  const labels = ownershipLabels(spec.ownershipKey)
  const find = async (signal: AbortSignal): Promise<Made | undefined> => {
    const params = { query: { name } }
    const [volume] = (await answer(cloud.api.as('normal').GET('/volumes', { params, signal }))).volumes
    const isOurs = volume !== undefined && ownershipKeyOf(volume.labels) === spec.ownershipKey
    return isOurs ? { id: volume.id, actions: [] } : undefined
  }
  context.progress(`making volume ${name}`, 50)
  const { id, actions } = await context.step<Made>(`create-volume-${index + 1}`, {
    find,
    run: (signal) =>
      adoptingOurs(declared, signal, {
        make: async () => {
          const { sizeGib: size, format, automount } = wanted
          const body = { name, size, labels, server, automount, ...(format !== undefined && { format }) }
          const made = await cloud.whenFree(`volume ${name}`, signal, () =>
            answer(cloud.api.as('normal').POST('/volumes', { body, signal })),
          )
          return {
            id: made.volume.id,
            actions: [made.action, ...made.next_actions].map(({ id, command }) => ({ id, command })),
          }
        },
        find: () => find(signal),
      }),
  })
  await cloud.finished(actions, 'normal', context.signal)
  await volumeAttached(context, cloud, id, server)
}

/** A volume that a lost answer left behind may not be attached yet. */
async function volumeAttached(context: Work, cloud: Cloud, id: number, server: number): Promise<void> {
  const client = cloud.api.as('normal')
  const params = { path: { id } }
  await context.poll(
    async (signal) => {
      const { volume } = await answer(client.GET('/volumes/{id}', { params, signal }))
      if (volume.server === server) return true
      if (volume.status !== 'available') return undefined
      const attach = () => answer(client.POST('/volumes/{id}/actions/attach', { params, body: { server }, signal }))
      const { action } = await cloud.whenFree(`attaching volume ${id}`, signal, attach)
      await cloud.finished([action], 'normal', signal)
      return undefined
    },
    { timeoutMs: context.config.actionTimeoutMs, what: `volume ${id} to be attached to server ${server}` },
  )
}

/** Backups and protection, where they are wanted and not there yet. */
export async function setUp(context: Work, cloud: Cloud, { data }: Spec, id: number): Promise<void> {
  if (!data.backups && !data.protected) return
  const { signal } = context
  const client = cloud.api.as('normal')
  const params = { path: { id } }
  const server = await cloud.existing(id, 'normal', signal)
  if (data.backups && server.backup_window === null) {
    const { action } = await cloud.whenFree(`backups of server ${id}`, signal, () =>
      answer(client.POST('/servers/{id}/actions/enable_backup', { params, signal })),
    )
    await cloud.finished([action], 'normal', signal)
  }
  if (data.protected && !server.protection.delete) {
    const body = { delete: true, rebuild: true }
    const { action } = await cloud.whenFree(`protection of server ${id}`, signal, () =>
      answer(client.POST('/servers/{id}/actions/change_protection', { params, body, signal })),
    )
    await cloud.finished([action], 'normal', signal)
  }
}
