import { appendEvents, hubCause } from '../../store/events.js'
import { endExpiredSessions, freeHeldItems, refreshConnections } from '../../store/session-sweep.js'
import type { Turn } from '../controller.js'
import type { ReconcilerDeps } from '../deps.js'

/** Ends sessions that have run out, frees what they held, and says of providers whether they can be reached. */
export async function sweepSessions(deps: Pick<ReconcilerDeps, 'wake' | 'log'>, turn: Turn): Promise<void> {
  const { ended, freedOf, events } = await turn.write(async (tx) => {
    const ended = await endExpiredSessions(tx)
    const freedOf = await freeHeldItems(tx)
    const events = await refreshConnections(tx)
    await appendEvents(tx, hubCause, events)
    return { ended, freedOf, events }
  })
  if (ended > 0) deps.log.warn({ sessions: ended }, 'sessions ran out')
  deps.wake.signal(...freedOf.map((providerId) => ({ kind: 'work' as const, providerId })))
  if (freedOf.length > 0) deps.wake.signal({ kind: 'claim' })
  if (events.length > 0) deps.wake.signal({ kind: 'change' })
}
