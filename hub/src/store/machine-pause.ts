import { sql } from 'kysely'
import { putOff, type Pause, type PauseChange, type Pauses } from '../domain/machine/pause.js'
import type { Tx } from './database.js'
import { scheduleHost } from './host-schedule.js'
import type { MachineRow } from './tables.js'
import { wishMachine, wishRequest } from './wishes.js'

// Machines that are left alone. Whoever holds their work is told by a newer wish and lets go of it; nobody claims it before that is over.

/** The pauses of a machine, as stored. */
export function pausesOf(row: MachineRow): Pauses {
  return { maintenance: maintenanceOf(row), hold: holdOf(row), pausedAt: row.paused_at }
}

/** The maintenance of a machine, as stored. */
export function maintenanceOf(row: MachineRow): Pause | null {
  if (!row.maintenance) return null
  return {
    by: row.maintenance_by,
    bySystem: row.maintenance_by_system,
    reason: row.maintenance_reason,
    at: row.maintenance_at ?? row.updated_at,
  }
}

/** The hold of a machine, as stored. */
export function holdOf(row: MachineRow): Pause | null {
  if (row.hold_at === null) return null
  return { by: row.hold_by, bySystem: false, reason: row.hold_reason, at: row.hold_at }
}

/** Stores a change of a machine's pauses, and what follows from it. The machine and its work are locked. Wake `{kind: 'work'}` and `{kind: 'host'}` after the commit. */
export async function storePauses(tx: Tx, row: MachineRow, change: PauseChange): Promise<void> {
  const { pauses, resumedAfterMs } = change
  const { maintenance, hold, pausedAt } = pauses
  await tx
    .updateTable('machines')
    .set({
      maintenance: maintenance !== null,
      maintenance_by: maintenance?.by ?? '',
      maintenance_by_system: maintenance?.bySystem ?? false,
      maintenance_reason: maintenance?.reason ?? '',
      maintenance_at: maintenance?.at ?? null,
      hold_at: hold?.at ?? null,
      hold_by: hold?.by ?? '',
      hold_reason: hold?.reason ?? '',
      paused_at: pausedAt,
      ...(resumedAfterMs !== undefined &&
        row.waiting_until_at !== null && { waiting_until_at: putOff(row.waiting_until_at, resumedAfterMs) }),
    })
    .where('provider_id', '=', row.provider_id)
    .where('id', '=', row.id)
    .execute()
  if (!change.begins && resumedAfterMs === undefined) return
  await tellHolders(tx, row, pausedAt, resumedAfterMs ?? 0)
}

async function tellHolders(tx: Tx, row: MachineRow, pausedAt: Date | null, lengthMs: number): Promise<void> {
  const { provider_id: providerId, id, request_id: requestId } = row
  const ids = [id, ...(requestId === null ? [] : [requestId])]
  const items = await tx
    .updateTable('work_items')
    .set({ paused: pausedAt !== null })
    .where('provider_id', '=', providerId)
    .where('id', 'in', ids)
    .returning(['id', 'kind'])
    .execute()
  if (requestId !== null) {
    const request = await tx
      .updateTable('machine_requests')
      .set({ paused_at: pausedAt, paused_ms: sql<number>`paused_ms + ${Math.round(lengthMs)}::bigint` })
      .where('provider_id', '=', providerId)
      .where('id', '=', requestId)
      .returning(['organization_id', 'host_id', 'operation', 'state'])
      .executeTakeFirst()
    // A server in use has no work but its machine's, before that is adopted.
    const hasWork = request !== undefined && !(request.operation === 'ADOPT' && request.state === 'PENDING')
    if (hasWork && items.some((item) => item.id === requestId)) await wishRequest(tx, { providerId, id: requestId }, {})
    if (request !== undefined)
      await scheduleHost(tx, { organizationId: request.organization_id, hostId: request.host_id })
  }
  if (items.some((item) => item.kind === 'MACHINE')) await wishMachine(tx, { providerId, id }, {})
}
