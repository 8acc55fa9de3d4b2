import { sql } from 'kysely'
import type { Db } from '@slipway/hub/testing'

// A cloud that a test plays by itself: what a provider's instance would report is written where reports end up, and the hosts above are looked at.

export interface PlayedCloud {
  /** Hosts, by their names, whose machines cannot be made. */
  readonly broken: Set<string>
  /** Nothing is done while it is true. */
  asleep: boolean
  stop(): Promise<void>
}

/** Makes what is asked for and removes what is not, of all providers. */
export function playCloud(db: Db, everyMs = 25): PlayedCloud {
  let stopped = false
  const cloud = { broken: new Set<string>(), asleep: false, stop: () => Promise.resolve() }
  const round = async () => {
    const moved = await sql<{ organization_id: string; host_id: string }>`
      update machine_requests set
        state = case when desired_presence = 'ABSENT' then 'GONE' when host_name ~ any(${[...cloud.broken]}::text[]) then 'FAILED' else 'PROVISIONED' end,
        presence = case when desired_presence = 'ABSENT' or host_name ~ any(${[...cloud.broken]}::text[]) then 'ABSENT' else 'PRESENT' end,
        external_id = coalesce(external_id, 'srv-' || name),
        gone_at = case when desired_presence = 'ABSENT' then clock_timestamp() end,
        last_error = case when desired_presence <> 'ABSENT' and host_name ~ any(${[...cloud.broken]}::text[]) then
          '{"code": "INVALID_SPEC", "message": "no such image", "externalCode": "", "step": "create", "retryable": false, "attempts": 1, "at": "2020-01-01T00:00:00Z"}'::jsonb
        end
      where (desired_presence = 'PRESENT' and state in ('PENDING', 'PROVISIONING')) or (desired_presence = 'ABSENT' and state <> 'GONE')
      returning organization_id, host_id
    `.execute(db)
    for (const row of moved.rows)
      await sql`
        insert into host_schedule (organization_id, host_id, due_at) values (${row.organization_id}::uuid, ${row.host_id}::uuid, clock_timestamp())
        on conflict (organization_id, host_id) do update set due_at = excluded.due_at
      `.execute(db)
  }
  const running = (async () => {
    while (!stopped) {
      // A deadlock with the hub is nothing to a cloud: it tries again.
      if (!cloud.asleep) await round().catch(() => undefined)
      await new Promise((resolve) => setTimeout(resolve, everyMs))
    }
  })()
  cloud.stop = async () => {
    stopped = true
    await running
  }
  return cloud
}
