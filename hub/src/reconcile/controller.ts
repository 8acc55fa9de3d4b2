import {
  ControllerLost,
  holdController,
  releaseController,
  underController,
  type ControllerLease,
} from '../store/controllers.js'
import type { Tx } from '../store/database.js'
import type { ReconcilerDeps } from './deps.js'
import { startLoop, type Loop } from './loop.js'

/** What a round of a controller that runs once in the whole hub is given. */
export interface Turn {
  readonly lease: ControllerLease
  /** Runs it in a transaction that commits under the controller's fence or not at all. @throws ControllerLost */
  write<T>(work: (tx: Tx) => Promise<T>): Promise<T>
}

export interface ControllerOptions {
  /** Its name, for the lease and the log. */
  readonly name: string
  /** How long a replica that fell silent keeps the others waiting. */
  readonly leaseMs: number
  /** Does one round, and returns how long to rest in ms. */
  readonly round: (turn: Turn) => Promise<number>
}

/**
 * Runs a controller in whichever replica holds its lease; the others look from time to time whether it is free. Rests are cut short so that the lease is extended in
 * time.
 */
export function startController(deps: ReconcilerDeps, options: ControllerOptions): Loop {
  const { name, leaseMs } = options
  let held: ControllerLease | undefined
  let roundAtMs = 0
  const loop = startLoop(deps.log, `controller ${name}`, async () => {
    const lease = await holdController(deps.db, name, deps.replica, leaseMs)
    if (lease === undefined) {
      if (held !== undefined) deps.log.info({ controller: name }, 'another replica runs this controller now')
      held = undefined
      return leaseMs / 2
    }
    if (held?.fence !== lease.fence) {
      deps.log.info({ controller: name, fence: lease.fence }, 'this replica runs a controller')
      roundAtMs = 0
    }
    held = lease
    try {
      if (performance.now() >= roundAtMs) {
        const restMs = await options.round({ lease, write: (work) => underController(deps.db, lease, work) })
        roundAtMs = performance.now() + restMs
      }
      return Math.min(Math.max(0, roundAtMs - performance.now()), leaseMs / 3)
    } catch (error) {
      if (!(error instanceof ControllerLost)) throw error
      held = undefined
      return leaseMs / 2
    }
  })
  return {
    wake: () => loop.wake(),
    stop: async () => {
      await loop.stop()
      // Where the database does not answer, the lease runs out by itself.
      if (held !== undefined) await releaseController(deps.db, held).catch(() => undefined)
    },
  }
}
