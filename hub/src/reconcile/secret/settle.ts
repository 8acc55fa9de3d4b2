import { appendEvents, hubCause } from '../../store/events.js'
import { settleCredentials } from '../../store/provider-credentials.js'
import { startController } from '../controller.js'
import type { ReconcilerDeps } from '../deps.js'
import type { Loop } from '../loop.js'

const leaseMs = 15_000
const restMs = 5_000

/**
 * Lets go of old credentials that only an instance was still to answer for which has gone since. What an instance's own answer completes is done when it comes.
 */
export function startSettlingCredentials(deps: ReconcilerDeps): Loop {
  return startController(deps, {
    name: 'credentials',
    leaseMs,
    round: async (turn) => {
      const events = await turn.write(async (tx) => {
        const settled = await settleCredentials(tx)
        await appendEvents(tx, hubCause, settled)
        return settled
      })
      if (events.length > 0) deps.wake.signal({ kind: 'change' })
      return restMs
    },
  })
}
