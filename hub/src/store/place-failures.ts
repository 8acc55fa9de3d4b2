import { sql } from 'kysely'
import { failureHalfLifeMs } from '../domain/placement/reliability.js'
import type { Tx } from './database.js'
import type { MachineRequestRow } from './tables.js'

// Where creates failed lately. Only failures write; how many creates there were is counted when one fails.

/** More creates than these say nothing more. */
const maxCounted = 1_000

/** Of a row `f`, what is left of its failures by now; null where there is none. */
export const failuresNow = sql<number | null>`
  f.failures * power(0.5::float8, greatest(0, extract(epoch from clock_timestamp() - f.failed_at)) * 1000 / ${sql.lit(failureHalfLifeMs)})`

/** Counts a create that failed, against a static machine or a dynamic place. */
export async function countFailedCreate(
  tx: Tx,
  request: Pick<MachineRequestRow, 'provider_id' | 'type_id' | 'location' | 'static' | 'machine_id'>,
): Promise<void> {
  const machineId = request.static ? request.machine_id : null
  await sql`/* count-failed-create */
    insert into place_failures as f (provider_id, type_id, location, machine_id, failures, creates)
    select ${request.provider_id}, ${request.type_id}, ${request.location}, coalesce(${machineId}::uuid, '00000000-0000-0000-0000-000000000000'), 1, (
      select count(*) from (
        select from machine_requests r
        where r.provider_id = ${request.provider_id} and r.type_id = ${request.type_id} and r.location = ${request.location}
          and (${machineId}::uuid is null or r.machine_id = ${machineId}::uuid)
          -- Requests' ids are in the order of their making.
          and r.id >= (lpad(to_hex(((extract(epoch from clock_timestamp()) * 1000) - ${2 * failureHalfLifeMs})::bigint), 12, '0') || repeat('0', 20))::uuid
        limit ${maxCounted}
      ) made
    )
    on conflict (provider_id, type_id, location, machine_id) do update
    set failures = ${failuresNow} + 1, creates = excluded.creates, failed_at = excluded.failed_at
  `.execute(tx)
}

/** Those that count for nothing any more. */
export const deleteOldFailures = sql`delete from place_failures where failed_at < clock_timestamp() - interval '1 day'`
