import { sql } from 'kysely'
import { beginMaintenance, endMaintenance } from '../domain/machine/pause.js'
import type { EventDraft } from '../domain/facts.js'
import { databaseTime, type Tx } from './database.js'
import { appendEvents } from './events.js'
import { pausesOf, storePauses } from './machine-pause.js'
import { lockMachine } from './machines.js'
import type { MachineRow } from './tables.js'

// What providers tell of themselves and of their machines. Alike ones become one line that counts them.

export interface ToldEvent {
  /** Empty: the provider as a whole. */
  readonly externalId: string
  /** In the provider's words. */
  readonly reason: string
  readonly severity: EventDraft['severity']
  readonly message: string
  readonly count: number
  readonly maintenance: 'begin' | 'end' | undefined
}

interface Teller {
  readonly id: string
  readonly name: string
}

/** What is alike counts up the line of before for so long after it was first said. */
const countsUpForMs = 60 * 60_000

/** Stores what a provider tells. Events of machines that are not known are dropped. */
export async function recordProviderEvents(tx: Tx, provider: Teller, told: readonly ToldEvent[]): Promise<void> {
  const cause = { actor: `providers/${provider.name}`, requestId: '' }
  const machines = await machinesOf(tx, provider, told)
  for (const event of told) {
    const machine = machines.get(event.externalId)
    if (event.externalId !== '' && machine === undefined) continue
    const message = `${event.reason}: ${event.message}`
    const subject = machine === undefined ? `providers/${provider.name}` : `machines/${machine.name}`
    const alike = await countUp(tx, { providerId: provider.id, subject, message, count: event.count })
    if (!alike) {
      const related =
        machine === undefined
          ? []
          : [`providers/${provider.name}`, ...(machine.host_name === null ? [] : [machine.host_name])]
      const draft = { subject, related, reason: 'ProviderReported' as const, severity: event.severity, message }
      await appendEvents(tx, cause, [{ ...draft, providerId: provider.id }])
      if (event.count > 1) await countUp(tx, { providerId: provider.id, subject, message, count: event.count - 1 })
    }
    if (machine !== undefined && event.maintenance !== undefined)
      await followMaintenance(tx, machine.name, event, event.maintenance, cause.actor)
  }
}

async function machinesOf(
  tx: Tx,
  provider: Teller,
  told: readonly ToldEvent[],
): Promise<ReadonlyMap<string, Pick<MachineRow, 'name' | 'external_id' | 'host_name'>>> {
  const ids = [...new Set(told.map(({ externalId }) => externalId).filter((id) => id !== ''))]
  if (ids.length === 0) return new Map()
  const rows = await tx
    .selectFrom('machines')
    .select(['name', 'external_id', 'host_name'])
    .where('provider_id', '=', provider.id)
    .where('state', '<>', 'GONE')
    .where('external_id', 'in', ids)
    .execute()
  return new Map(rows.map((row) => [row.external_id, row]))
}

/** @returns whether there is a line that says the same. */
async function countUp(
  tx: Tx,
  event: { readonly providerId: string; readonly subject: string; readonly message: string; readonly count: number },
): Promise<boolean> {
  const result = await sql`/* count-event-up */
    update events e set count = e.count + ${event.count}::bigint, last_at = clock_timestamp()
    from (
      select xid, id from events
      where subject = ${event.subject} and reason = 'ProviderReported' and provider_id = ${event.providerId} and message = ${event.message}
        and at > clock_timestamp() - ${countsUpForMs} * interval '1 millisecond'
      order by xid desc, id desc limit 1
    ) last
    where e.xid = last.xid and e.id = last.id
    returning e.id
  `.execute(tx)
  return result.rows.length > 0
}

/** A provider that cannot judge a machine any more has it left alone, until it can again or a person has seen to it. */
async function followMaintenance(
  tx: Tx,
  name: string,
  event: ToldEvent,
  wish: 'begin' | 'end',
  by: string,
): Promise<void> {
  const row = await lockMachine(tx, name)
  if (row === undefined || row.state === 'GONE') return
  const before = pausesOf(row)
  const now = await databaseTime(tx)
  const pause = { by, bySystem: true, reason: `${event.reason}: ${event.message}`, at: now }
  const change = wish === 'begin' ? beginMaintenance(before, pause) : endMaintenance(before, pause, now)
  if (JSON.stringify(change.pauses) === JSON.stringify(before)) return
  await storePauses(tx, row, change)
  const draft: EventDraft =
    wish === 'begin'
      ? {
          ...of(row),
          reason: 'MachineMaintenanceBegun',
          severity: 'WARNING',
          message: `In maintenance: ${pause.reason}`,
        }
      : {
          ...of(row),
          reason: 'MachineMaintenanceEnded',
          severity: 'INFO',
          message: `Out of maintenance: ${pause.reason}`,
        }
  await appendEvents(tx, { actor: by, requestId: '' }, [draft])
}

function of(row: MachineRow): Pick<EventDraft, 'subject' | 'related' | 'providerId'> {
  return {
    subject: `machines/${row.name}`,
    related: [`providers/${row.provider_name}`, ...(row.host_name === null ? [] : [row.host_name])],
    providerId: row.provider_id,
  }
}

/** Says that a provider told more than is taken in. */
export async function recordDroppedEvents(tx: Tx, provider: Teller, dropped: number): Promise<void> {
  await appendEvents(tx, { actor: `providers/${provider.name}`, requestId: '' }, [
    {
      subject: `providers/${provider.name}`,
      reason: 'ProviderReportsDropped',
      severity: 'WARNING',
      message: `${dropped} more events came than are taken in; the instance's log has them`,
      providerId: provider.id,
    },
  ])
}
