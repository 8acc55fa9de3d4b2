import type { Fault } from '../kinds.js'
import type { World } from '../world.js'
import { vanish } from './cloud.js'
import * as database from './database.js'
import type { Effect, Injector } from './effect.js'
import * as network from './network.js'
import * as processes from './processes.js'

/** By the name of the kind up to its colon. */
const injectors: Readonly<Record<string, Injector>> = {
  kill: processes.kill,
  term: processes.terminate,
  'stop-short': processes.stop,
  'stop-long': processes.stop,
  failpoint: processes.atFailpoint,
  'clock-forward': processes.jumpClock,
  'clock-back': processes.jumpClock,
  unplug: network.unplug,
  cut: network.cut,
  'cut-to': network.cutTo,
  'cut-from': network.cutFrom,
  stall: network.stall,
  slow: network.slow,
  slice: network.slice,
  reset: network.reset,
  truncate: network.truncate,
  'half-open': network.halfOpen,
  'pg-kill': database.killPostgres,
  'pg-restart': database.restartPostgres,
  'pg-stop': database.stopPostgres,
  'pg-terminate-backend': database.terminateBackend,
  'pg-long-transaction': database.longTransaction,
  'pg-lock': database.lockHosts,
  'pg-disk-full': database.fillDisk,
  'pg-relay-dead': database.killRelay,
  'cloud-vanish': vanish,
}

/** Injects one fault and writes down what became of it. One that could not be injected counts as attempted, and not as effective. */
export async function inject(world: World, fault: Fault, signal: AbortSignal): Promise<void> {
  const { id, kind, target } = fault
  const injector = injectors[kind.split(':')[0] ?? '']
  if (injector === undefined) throw new Error(`nothing injects ${kind}`)
  world.faultLog.write({ at: Date.now(), type: 'begin', id, kind, target })
  let effect: Effect
  try {
    effect = await injector(world, fault, signal)
  } catch (error) {
    effect = {
      effective: false,
      evidence: `could not be injected: ${error instanceof Error ? error.message : String(error)}`,
    }
  }
  world.faultLog.write({ at: Date.now(), type: 'end', id, kind, target, ...effect })
}
