import { OrphanOutcome, type OwnedResource } from '@slipway/proto/provider/v1'
import { failpoint } from '../internal/failpoint.js'
import { ProviderError } from './errors.js'
import { makeContext, type Runtime } from './runtime.js'
import type { Snapshot } from './settings.js'
import { runUnstored } from './steps.js'
import type { Context, DynamicDefinition, WorkContext } from './types.js'
import { poll } from './work-context.js'

type Definition = DynamicDefinition<unknown, unknown, unknown>

/** How an order to remove an orphan ended, with words for people where nothing was removed. */
export interface OrphanRemovalEnd {
  readonly outcome: Exclude<OrphanOutcome, OrphanOutcome.UNSPECIFIED | OrphanOutcome.FAILED>
  readonly message: string
}

/**
 * Removes something that no record knows, on the hub's order, and only where it is still there under the same key of this hub.
 *
 * @param isHeld whether this instance works on the request that the key names: then it is no orphan, whatever the order says.
 * @throws what the author's own functions throw.
 */
export async function removeOrphan(
  runtime: Runtime,
  definition: Definition,
  settings: Snapshot,
  resource: OwnedResource,
  isHeld: (requestId: string) => boolean,
  signal: AbortSignal,
): Promise<OrphanRemovalEnd> {
  const { externalId, ownershipKey, kind, name } = resource
  const log = runtime.log.child({ orphan: externalId, ownershipKey })
  const [hubId, requestId = ''] = ownershipKey.split('/')
  if (hubId !== runtime.hubId() || requestId === '') return mismatch('the key in the order is not of this hub')
  const context = makeContext(runtime, settings, 'background', signal, log)
  const key = await keyNow(definition, context, resource)
  if (key === undefined) return { outcome: OrphanOutcome.ALREADY_GONE, message: '' }
  if (key !== ownershipKey) return mismatch(`the key on it now is ${key === '' ? 'none' : key.slice(0, 128)}`)
  // Asked last: a claim may have come while it was looked for.
  if (isHeld(requestId)) return { outcome: OrphanOutcome.HELD, message: 'its request is being worked on here' }
  signal.throwIfAborted()
  const work: WorkContext<unknown, unknown> = {
    ...context,
    attempt: 1,
    last: { externalId },
    step: (_name, run) => runUnstored(signal, run),
    progress: (message) => log.info(message),
    report: () => Promise.resolve(),
    poll: (check, options) => poll(context, check, options),
    wait: () => Promise.reject(new ProviderError('INTERNAL', 'the removal of an orphan waits for no machine')),
  }
  await failpoint('sdk.delete.before')
  await definition.delete(work, { ownershipKey, name, ...(kind === 'server' && { externalId }) })
  await failpoint('sdk.delete.after')
  signal.throwIfAborted()
  log.info('an orphan was removed')
  return { outcome: OrphanOutcome.REMOVED, message: '' }
}

function mismatch(message: string): OrphanRemovalEnd {
  return { outcome: OrphanOutcome.KEY_MISMATCH, message }
}

/** The key that is on a resource now, read afresh; undefined where it is not there any more. */
async function keyNow(
  definition: Definition,
  context: Context<unknown, unknown>,
  resource: OwnedResource,
): Promise<string | undefined> {
  for await (const owned of definition.list(context)) {
    if (owned.externalId === resource.externalId && (owned.kind ?? 'server') === resource.kind)
      return owned.ownershipKey
  }
  return undefined
}
