import { inTransaction } from '../store/database.js'
import { dealFreeMachines } from '../store/machine-turns.js'
import type { MachineRow } from '../store/tables.js'
import type { ApiDeps } from './context.js'

/**
 * Has hosts that wait looked at now, where a machine is free that was not before a person's word. Never throws: those that wait look again by themselves, only later.
 */
export async function offerToWaiting(deps: Pick<ApiDeps, 'db' | 'wake' | 'log'>, machine: MachineRow): Promise<void> {
  if (machine.state !== 'AVAILABLE') return
  try {
    const given = await inTransaction(deps.db, (tx) => dealFreeMachines(tx, [machine.provider_id], new Date()))
    if (given) deps.wake.signal({ kind: 'host' })
  } catch (error) {
    deps.log.warn({ err: error, machine: machine.name }, 'nobody who waits was told of a free machine')
  }
}
