import { HubError } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { resourceName } from '../domain/names.js'
import type { MachineRow } from '../store/tables.js'

// What the calls about machines say of them, and refuse them with.

export function machineEvent(row: MachineRow, reason: EventDraft['reason'], message: string): EventDraft {
  return {
    subject: resourceName('machine', row.name),
    related: [resourceName('provider', row.provider_name), ...(row.host_name === null ? [] : [row.host_name])],
    reason,
    message,
    severity: 'INFO',
    providerId: row.provider_id,
  }
}

export function stateForbids(row: MachineRow, what: string, allowed: string): HubError {
  return new HubError(
    'MACHINE_STATE_FORBIDS',
    `machine ${row.name} is ${row.state} and cannot be ${what}; ${allowed}`,
    {
      metadata: { state: row.state },
    },
  )
}

/** @throws HubError MACHINE_PROTECTED. */
export function refuseProtected(row: Pick<MachineRow, 'name' | 'protected'>): void {
  if (row.protected)
    throw new HubError('MACHINE_PROTECTED', `machine ${row.name} is protected; take the protection off first`)
}
