import { resourceName } from '../../domain/names.js'
import { appendEvents, hubCause } from '../../store/events.js'
import { retireUnusedClasses } from '../../store/machine-classes.js'
import { startController, type Turn } from '../controller.js'
import type { ReconcilerDeps } from '../deps.js'
import type { Loop } from '../loop.js'

// Takes away the classes that the hub made for orders that gave a shape, once nothing has used them for a time. The next order of such a shape makes one again, of the same name.

const leaseMs = 30_000
const restMs = 3_600_000
const pageSize = 200

/** Retires them in whichever replica holds the lease. @param unusedMs for so long nothing must have used a class. */
export function startRetiringClasses(deps: ReconcilerDeps, unusedMs: number): Loop {
  return startController(deps, {
    name: 'classes',
    leaseMs,
    round: async (turn) => {
      const retired = await retireClasses(turn, unusedMs)
      if (retired > 0) {
        deps.log.info({ retired }, 'classes that were made for shapes and are not used any more are gone')
        deps.wake.signal({ kind: 'change' })
      }
      return Math.min(restMs, unusedMs)
    },
  })
}

/** One pass through all of them. Says how many went. */
export async function retireClasses(turn: Pick<Turn, 'write'>, unusedMs: number): Promise<number> {
  for (let total = 0; ;) {
    const names = await turn.write(async (tx) => {
      const retired = await retireUnusedClasses(tx, unusedMs, pageSize)
      await appendEvents(
        tx,
        hubCause,
        retired.map((name) => ({
          subject: resourceName('machine_class', name),
          reason: 'ClassDeleted',
          message: 'Made for orders that gave a shape, and not used for a long time',
          severity: 'INFO',
        })),
      )
      return retired
    })
    total += names.length
    if (names.length < pageSize) return total
  }
}
