import type { HandlerContext } from '@connectrpc/connect'
import type * as hub from '@slipway/proto/hub/v1'
import { parseResourceName } from '../domain/names.js'
import { inTransaction, type Tx } from '../store/database.js'
import type { Cause } from '../store/events.js'
import { findMachine, lockMachine } from '../store/machines.js'
import type { MachineRow } from '../store/tables.js'
import { type ApiDeps, causeOf, databaseOf } from './context.js'
import { offerToWaiting } from './free-machines.js'
import { machineNotFound } from './not-found.js'
import { toMachine } from './resources.js'

/**
 * Changes a machine by a person's word: locks it, has the work done in one transaction, and wakes whoever is concerned by what came of it, at its provider before and at the
 * one after.
 *
 * @param first locks what is locked before machines are.
 * @returns the machine as it is then.
 * @throws NOT_FOUND.
 */
export async function changeMachine(
  deps: ApiDeps,
  context: HandlerContext,
  resource: string,
  work: (tx: Tx, row: MachineRow, cause: Cause) => Promise<unknown>,
  first: (tx: Tx) => Promise<void> = () => Promise.resolve(),
): Promise<hub.Machine> {
  const name = parseResourceName('machine', resource)
  const providers = new Set<string>()
  const row = await inTransaction(
    databaseOf(deps, context),
    async (tx) => {
      await first(tx)
      const locked = await lockMachine(tx, name)
      if (locked === undefined) throw machineNotFound(name)
      providers.add(locked.provider_id)
      await work(tx, locked, causeOf(context))
      return (await findMachine(tx, name)) ?? locked
    },
    'order',
  )
  providers.add(row.provider_id)
  const wake = [...providers].map((providerId) => ({ kind: 'work' as const, providerId }))
  deps.wake.signal(...wake, { kind: 'change' }, { kind: 'host' })
  await offerToWaiting(deps, row)
  return toMachine(row)
}
