import { scheduleStuckHosts, scheduleStuckMachines, scheduleStuckRequests } from '../../store/stuck.js'
import type { Turn } from '../controller.js'
import type { ReconcilerDeps } from '../deps.js'

/** Finds what is under way and would never be looked at again, and has it looked at. There should be none: each one is a defect somewhere, and is logged. */
export async function sweepStuck(deps: Pick<ReconcilerDeps, 'wake' | 'log'>, turn: Turn): Promise<void> {
  const requestsOf = await turn.write(scheduleStuckRequests)
  const machinesOf = await turn.write(scheduleStuckMachines)
  const hosts = await turn.write(scheduleStuckHosts)
  if (requestsOf.length + machinesOf.length + hosts === 0) return
  deps.log.warn(
    { hosts, requests: requestsOf.length, machines: machinesOf.length },
    'found work that nobody would have looked at',
  )
  deps.wake.signal(
    { kind: 'host' },
    ...[...new Set([...requestsOf, ...machinesOf])].map((providerId) => ({ kind: 'work' as const, providerId })),
  )
}
