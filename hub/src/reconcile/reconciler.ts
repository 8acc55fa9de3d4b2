import { isConnectionLoss } from '../store/database.js'
import { databaseNow } from '../store/host-reconcile.js'
import { nextDueInMs, takeDueHosts } from '../store/host-schedule.js'
import { startController, type Turn } from './controller.js'
import type { ReconcilerDeps } from './deps.js'
import { reconcileHosts } from './host/batch.js'
import { startLoop } from './loop.js'
import { sweepSessions } from './session/sweep.js'
import { sweepStuck } from './stuck/sweep.js'
import { sweepWaits } from './wait/sweep.js'

const batchSize = 100
/** Whoever takes hosts and dies loses them to others after this long. */
const holdMs = 15_000
/** What is due but locked is being taken by another replica. */
const shortestRestMs = 20
const defaultStartGraceMs = 2 * 60_000
/** Looking for what is stuck reads more than the other sweeps, and finds nothing where all is well. */
const stuckEverySweeps = 6

export interface Reconciler {
  /** Takes nothing new; resolves when what runs is done. */
  stop(): Promise<void>
}

/** Keeps hosts moving: on a wake-up, when one is due, and every `sweepMs` at the latest. Any number of replicas may run it on one database. */
export function startReconciler(deps: ReconcilerDeps): Reconciler {
  const hosts = startLoop(deps.log, 'reconciling hosts', makeHostRound(deps))
  const sweeps = startController(deps, { name: 'sweep', leaseMs: deps.config.leaseMs / 2, round: makeSweepRound(deps) })
  const unlisten = deps.wake.on('host', () => {
    hosts.wake()
  })
  return {
    stop: async () => {
      unlisten()
      await Promise.all([hosts.stop(), sweeps.stop()])
    },
  }
}

function makeHostRound(deps: ReconcilerDeps): () => Promise<number> {
  const { db, config } = deps
  let graceUntil: Date | undefined
  const round = async () => {
    graceUntil ??= new Date((await databaseNow(db)).getTime() + (config.startGraceMs ?? defaultStartGraceMs))
    const taken = await takeDueHosts(db, batchSize, holdMs)
    if (taken.length > 0) await reconcileHosts(deps, taken, graceUntil)
    if (taken.length === batchSize) return 0
    const dueInMs = await nextDueInMs(db)
    // Something happened to them, or to others, meanwhile.
    if (taken.length > 0 && dueInMs === 0) return 0
    return Math.max(shortestRestMs, Math.min(config.sweepMs, dueInMs ?? config.sweepMs))
  }
  return async () => {
    try {
      return await round()
    } catch (error) {
      // While the database was away nobody could report: that is not held against anyone either.
      if (isConnectionLoss(error)) graceUntil = undefined
      throw error
    }
  }
}

/**
 * Sessions are ended by the one controller that has watched them for long enough that each live one must have been extended meanwhile. Its own lease is half of theirs:
 * a database that was away, or a replica that was paused, for so long that sessions could run out has cost the controller its lease too, and it watches anew.
 */
function makeSweepRound(deps: ReconcilerDeps): (turn: Turn) => Promise<number> {
  const watchMs = deps.config.leaseMs / 2
  let rounds = 0
  let graceUntil: Date | undefined
  return async (turn) => {
    if (turn.lease.heldMs < watchMs) return watchMs - turn.lease.heldMs
    await sweepSessions(deps, turn)
    graceUntil ??= new Date((await databaseNow(deps.db)).getTime() + (deps.config.startGraceMs ?? defaultStartGraceMs))
    await sweepWaits(deps, turn, graceUntil)
    if (rounds++ % stuckEverySweeps === 0) await sweepStuck(deps, turn)
    return deps.config.sweepMs
  }
}
