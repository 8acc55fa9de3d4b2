import { databaseNow } from '../store/host-reconcile.js'
import { nextDueInMs, takeDueHosts } from '../store/host-schedule.js'
import type { ReconcilerDeps } from './deps.js'
import { reconcileHosts } from './host/batch.js'
import { startLoop } from './loop.js'
import { sweepSessions } from './session/sweep.js'
import { sweepStuck } from './stuck/sweep.js'

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
  const sweeps = startLoop(deps.log, 'a sweep', makeSweepRound(deps))
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
  return async () => {
    graceUntil ??= new Date((await databaseNow(db)).getTime() + (config.startGraceMs ?? defaultStartGraceMs))
    const taken = await takeDueHosts(db, batchSize, holdMs)
    if (taken.length > 0) {
      await reconcileHosts(deps, taken, graceUntil)
      return 0
    }
    const dueInMs = await nextDueInMs(db)
    return Math.max(shortestRestMs, Math.min(config.sweepMs, dueInMs ?? config.sweepMs))
  }
}

function makeSweepRound(deps: ReconcilerDeps): () => Promise<number> {
  let rounds = 0
  return async () => {
    await sweepSessions(deps)
    if (rounds++ % stuckEverySweeps === 0) await sweepStuck(deps)
    // Replicas that were started together do not sweep together.
    return deps.config.sweepMs * (0.75 + Math.random() / 2)
  }
}
