import { isWaitOver } from '../../domain/machine/wait.js'
import { databaseTime } from '../../store/database.js'
import { findLateWaits } from '../../store/machine-waits.js'
import { endWaits } from '../../store/reports.js'
import type { Turn } from '../controller.js'
import type { ReconcilerDeps } from '../deps.js'

const atOnce = 200
/** At least this long after a provider has come back before a deadline fires: it was not there to hear the machine. */
const reconnectGraceMs = 2 * 60_000

/** Ends the wait for machines that did not call back in time: what they were about has failed, and a person is told. */
export async function sweepWaits(
  deps: Pick<ReconcilerDeps, 'wake' | 'log'>,
  turn: Turn,
  graceUntil: Date,
): Promise<void> {
  const wake = await turn.write(async (tx) => {
    const late = await findLateWaits(tx, atOnce)
    if (late.length === 0) return []
    const now = await databaseTime(tx)
    const over = late.filter(({ until, connectedSince }) =>
      isWaitOver(until, { now, connectedSince, graceUntil, reconnectGraceMs }),
    )
    return endWaits(tx, over, now)
  })
  if (wake.length > 0) deps.wake.signal(...wake, { kind: 'change' })
}
