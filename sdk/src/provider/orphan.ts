import type { OwnedResource } from '@slipway/proto/provider/v1'
import { makeContext, type Runtime } from './runtime.js'
import type { Snapshot } from './settings.js'
import { runUnstored } from './steps.js'
import type { DynamicDefinition, WorkContext } from './types.js'
import { poll } from './work-context.js'
import { isStillOwned } from './listing.js'

/**
 * Removes something that no record knows, on the hub's order, and only where it is still there under the same key of this hub.
 *
 * @param isHeld whether this instance works on the request that the key names: then it is no orphan, whatever the order says.
 * @returns whether it was removed.
 */
export async function removeOrphan(
  runtime: Runtime,
  definition: DynamicDefinition<unknown, unknown, unknown>,
  settings: Snapshot,
  resource: OwnedResource,
  isHeld: (requestId: string) => boolean,
  signal: AbortSignal,
): Promise<boolean> {
  const { externalId, ownershipKey, kind, name } = resource
  const log = runtime.log.child({ orphan: externalId, ownershipKey })
  const [hubId, requestId = ''] = ownershipKey.split('/')
  if (hubId !== runtime.hubId() || requestId === '' || isHeld(requestId)) {
    log.warn('not removed: its key is of another hub, or its request is being worked on')
    return false
  }
  const context = makeContext(runtime, settings, 'background', signal, log)
  if (!(await isStillOwned(definition, context, resource))) {
    log.info('not removed: it is gone, or the key is not on it any more')
    return false
  }
  const work: WorkContext<unknown, unknown> = {
    ...context,
    attempt: 1,
    last: { externalId },
    step: (_name, run) => runUnstored(signal, run),
    progress: (message) => log.info(message),
    report: () => Promise.resolve(),
    poll: (check, options) => poll(context, check, options),
  }
  await definition.delete(work, { ownershipKey, name, ...(kind === 'server' && { externalId }) })
  log.info('an orphan was removed')
  return true
}
