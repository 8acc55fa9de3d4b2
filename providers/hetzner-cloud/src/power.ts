import { ProviderError, type PowerWish } from '@slipway/sdk'
import { answer } from './api/client.js'
import { ActionFailed } from './api/errors.js'
import type { Urgency } from './api/rate-budget.js'
import type { Server } from './api/types.js'
import type { Cloud, Work } from './cloud.js'

const pace = { initialDelayMs: 500, maxDelayMs: 5_000 }

type Command = 'poweron' | 'poweroff' | 'shutdown' | 'reboot'

/** Brings the power of a server to what is wished. */
export async function switchPower(context: Work, cloud: Cloud, id: number, wish: PowerWish): Promise<void> {
  if (wish === 'off') return switchOff(context, cloud, id)
  const server = await cloud.existing(id, 'urgent', context.signal)
  if (wish === 'reboot' && server.status === 'running') await command(context, cloud, id, 'reboot', 'urgent')
  await keepOn(context, cloud, id, 'urgent')
}

/** Waits until a server runs, and starts it where it is off: a create or a start may end well and leave it so. */
export async function keepOn(context: Work, cloud: Cloud, id: number, urgency: Urgency = 'normal'): Promise<Server> {
  return context.poll(
    async (signal) => {
      const server = await cloud.existing(id, urgency, signal)
      if (server.status === 'running') return server
      if (server.status === 'off') await command(context, cloud, id, 'poweron', urgency)
      return undefined
    },
    { ...pace, timeoutMs: context.config.actionTimeoutMs, what: `server ${id} to run` },
  )
}

/** Asks the system to shut down, and switches it off where it does not heed that in time. */
async function switchOff(context: Work, cloud: Cloud, id: number): Promise<void> {
  const { shutdownTimeoutMs, actionTimeoutMs } = context.config
  const isOff = async (signal: AbortSignal) =>
    (await cloud.existing(id, 'urgent', signal)).status === 'off' ? true : undefined
  if ((await isOff(context.signal)) === true) return
  if (shutdownTimeoutMs > 0) {
    const asked = command(context, cloud, id, 'shutdown', 'urgent')
    const heeded = asked.then(() =>
      context.poll(isOff, { ...pace, timeoutMs: shutdownTimeoutMs, what: `server ${id} to shut down` }),
    )
    if (await heeded.catch(whereUnheeded)) return
    context.progress(`server ${id} did not shut down; switching it off`)
  }
  await command(context, cloud, id, 'poweroff', 'urgent')
  await context.poll(isOff, { ...pace, timeoutMs: actionTimeoutMs, what: `server ${id} to be off` })
}

/** Not in time, or not at all. */
function whereUnheeded(thrown: unknown): false {
  if (thrown instanceof ActionFailed || (thrown instanceof ProviderError && thrown.code === 'TIMEOUT')) return false
  throw thrown
}

async function command(context: Work, cloud: Cloud, id: number, name: Command, urgency: Urgency): Promise<void> {
  const { signal } = context
  const params = { path: { id } }
  const { action } = await cloud.whenFree(`${name} of server ${id}`, signal, () =>
    answer(cloud.api.as(urgency).POST(`/servers/{id}/actions/${name}`, { params, signal })),
  )
  await cloud.finished([action], urgency, signal)
}
