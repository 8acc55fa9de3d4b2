import { sql } from 'kysely'
import { doingOperation } from '../domain/machine/lifecycle.js'
import type { Tx } from './database.js'
import { wishMachine } from './wishes.js'

// Nothing that is under way may be without a lease or a time at which it is looked at. Each statement finds what is, and gives it one; where all is well
// they find nothing.

const atOnce = 1_000

/** Hosts that are under way and not scheduled. Returns how many there were. */
export async function scheduleStuckHosts(tx: Tx): Promise<number> {
  const result = await sql<{ host_id: string }>`
    insert into host_schedule (organization_id, host_id, due_at)
    select h.organization_id, h.id, clock_timestamp()
    from hosts h
    where h.state not in ('READY', 'ERROR', 'RELEASED')
      and not exists (select 1 from host_schedule s where s.organization_id = h.organization_id and s.host_id = h.id)
    order by h.id
    limit ${sql.lit(atOnce)}
    on conflict do nothing
    returning host_id
  `.execute(tx)
  return result.rows.length
}

/** Requests that are under way, that nobody holds, and that are not due. Returns their providers. */
export async function scheduleStuckRequests(tx: Tx): Promise<readonly string[]> {
  const result = await sql<{ providerId: string }>`
    with stuck as (
      select w.provider_id, w.id
      from work_items w
      join machine_requests r on r.provider_id = w.provider_id and r.id = w.id
      where r.state <> 'GONE' and (r.state <> 'PROVISIONED' or r.desired_presence = 'ABSENT')
        and w.session_id is null and w.due_at is null
        -- A server in use at a static provider is looked at as a machine, and its request waits for that.
        and not (r.operation = 'ADOPT' and r.state = 'PENDING' and r.static)
      order by w.provider_id, w.id
      limit ${sql.lit(atOnce)}
      for update of w skip locked
    )
    update work_items
    set due_at = clock_timestamp()
    from stuck
    where work_items.provider_id = stuck.provider_id and work_items.id = stuck.id
    returning work_items.provider_id as "providerId"
  `.execute(tx)
  return result.rows.map((row) => row.providerId)
}

/** Static machines whose own work is under way, that nobody holds, and that are not due. Returns their providers. */
export async function scheduleStuckMachines(tx: Tx): Promise<readonly string[]> {
  const stuck = await tx
    .selectFrom('machines')
    .leftJoin('work_items', (join) =>
      join.onRef('work_items.provider_id', '=', 'machines.provider_id').onRef('work_items.id', '=', 'machines.id'),
    )
    .select(['machines.provider_id', 'machines.id', 'machines.state', 'machines.operation'])
    .where('machines.static', '=', true)
    .where('machines.state', 'in', ['VERIFYING', 'INSPECTING', 'INSPECT_WAIT', 'CLEANING', 'CLEAN_WAIT', 'ADOPTING'])
    .where((where) =>
      where.or([
        where('machines.operation', 'is', null),
        where.and([where('work_items.session_id', 'is', null), where('work_items.due_at', 'is', null)]),
      ]),
    )
    .orderBy('machines.id')
    .limit(atOnce)
    .execute()
  for (const machine of stuck) {
    const key = { providerId: machine.provider_id, id: machine.id }
    // The operation goes on where it is known, with the steps that it has stored.
    await wishMachine(tx, key, machine.operation === null ? { operation: doingOperation(machine.state) } : {})
  }
  return stuck.map((machine) => machine.provider_id)
}
