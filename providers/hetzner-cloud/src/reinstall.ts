import { ProviderError, type MachineSpec, type ObservedMachine, type Violation } from '@slipway/sdk'
import { answer } from './api/client.js'
import { ActionFailed } from './api/errors.js'
import type { Cloud, Ctx, PendingAction, Work } from './cloud.js'
import type { Data } from './config.js'
import { setUp } from './create.js'
import { observedOf } from './observed.js'
import { planRebuild } from './order.js'
import { keepOn } from './power.js'
import { userDataOf } from './user-data.js'

type Spec = MachineSpec<Data>

const rebuildCommand = 'rebuild_server'

/**
 * Rebuilds a server from an image, once for each wish. The API takes no mark that could tell one rebuild from another, but writes each down as an action, with ids that
 * rise: what is newer than the newest that was there before is ours. Whoever rebuilds the server by other means at that very moment is taken for us.
 */
export async function reinstallServer(context: Work, cloud: Cloud, id: number, spec: Spec): Promise<ObservedMachine> {
  let { newest } = await context.step('note-rebuilds', async (signal) => {
    const { action } = await newestRebuild(cloud, id, signal)
    return { newest: action?.id ?? 0 }
  })
  for (let nth = 1; ; nth += 1) {
    const after = newest
    const action = await context.step<PendingAction>(`rebuild-server-${nth}`, {
      find: async (signal) => {
        const found = (await newestRebuild(cloud, id, signal)).action
        return found !== undefined && found.id > after ? found : undefined
      },
      run: (signal) => orderRebuild(context, cloud, id, spec, signal),
    })
    context.progress(`waiting for server ${id} to be rebuilt`, 30)
    // One that failed before is over: this try is another one.
    if (!(await hasFailed(context, cloud, id, action, nth))) break
    newest = action.id
  }
  await setUp(context, cloud, spec, id)
  context.progress(`waiting for server ${id} to run`, 80)
  return observedOf(await keepOn(context, cloud, id))
}

/** Checks what a reinstall is to be made of against the server as it is. */
export async function reinstallViolations(
  context: Ctx,
  cloud: Cloud,
  spec: Spec,
  target: { readonly id: number; readonly data?: Data },
): Promise<readonly Violation[]> {
  const server = await cloud.existing(target.id, 'normal', context.signal)
  const planned = await planRebuild(cloud, context, spec, server, target.data)
  return 'violations' in planned ? planned.violations : []
}

async function newestRebuild(
  cloud: Cloud,
  id: number,
  signal: AbortSignal,
): Promise<{ readonly action: PendingAction | undefined }> {
  const params = { path: { id }, query: { sort: ['id:desc' as const], per_page: 50 } }
  const { actions } = await answer(cloud.api.as('normal').GET('/servers/{id}/actions', { params, signal }))
  const ids = actions.filter(({ command }) => command === rebuildCommand).map((action) => action.id)
  return { action: ids.length === 0 ? undefined : { id: Math.max(...ids), command: rebuildCommand } }
}

async function orderRebuild(
  context: Work,
  cloud: Cloud,
  id: number,
  spec: Spec,
  signal: AbortSignal,
): Promise<PendingAction> {
  const client = cloud.api.as('normal')
  const params = { path: { id } }
  const server = await cloud.existing(id, 'normal', signal)
  const planned = await planRebuild(cloud, context, spec, server)
  if ('violations' in planned) {
    const said = planned.violations.map(({ field, description }) => `${field}: ${description}`).join('; ')
    throw new ProviderError('INVALID_SPEC', said, { retryable: false })
  }
  if (server.protection.rebuild) {
    const body = { delete: false, rebuild: false }
    const lifted = await cloud.whenFree(`lifting the protection of server ${id}`, signal, () =>
      answer(client.POST('/servers/{id}/actions/change_protection', { params, body, signal })),
    )
    await cloud.finished([lifted.action], 'normal', signal)
  }
  const body = { image: planned.image, user_data: userDataOf(spec.bootstrap) }
  // The answer may hold a root password: nothing but the action is taken from it.
  const { action } = await cloud.whenFree(`rebuilding server ${id}`, signal, () =>
    answer(client.POST('/servers/{id}/actions/rebuild', { params, body, signal })),
  )
  if (action === undefined)
    throw new ProviderError('INTERNAL', `the API took the rebuild of server ${id}, and named no action for it`)
  return { id: action.id, command: action.command }
}

/** Waits until a rebuild has ended. @returns whether an earlier try knew that it failed. @throws ProviderError where it fails now: the next try begins another one. */
async function hasFailed(
  context: Work,
  cloud: Cloud,
  id: number,
  action: PendingAction,
  nth: number,
): Promise<boolean> {
  let failure: ActionFailed | undefined
  const outcome = await context.step(`rebuild-ended-${nth}`, async (signal) => {
    try {
      await cloud.finished([action], 'normal', signal)
      return 'well'
    } catch (thrown) {
      signal.throwIfAborted()
      // Old actions are forgotten by the API one day; then the server itself tells how it is.
      if (thrown instanceof ProviderError && thrown.externalCode === 'not_found') return 'well'
      if (!(thrown instanceof ActionFailed)) throw thrown
      failure = thrown
      return 'failed'
    }
  })
  if (failure !== undefined) {
    const { code, message, externalCode } = failure
    throw new ProviderError(code, `server ${id} could not be rebuilt: ${message}`, {
      retryable: true,
      ...(externalCode !== undefined && { externalCode }),
      cause: failure,
    })
  }
  return outcome === 'failed'
}
