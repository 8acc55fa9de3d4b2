import { sql } from 'kysely'
import { riseConditions } from '../domain/host/conditions.js'
import { hostName } from '../domain/names.js'
import type { Db, Tx } from './database.js'
import { insertRequests, type RequestDraft } from './host-requests.js'
import { scheduleHost } from './host-schedule.js'
import type { HostRow } from './tables.js'

// Servers that exist already at dynamic providers, and come into hosts as they are. They are claimed as requests, like what is made; they are let go of, and never
// removed, where that ends before the host is READY.

/** What of the hub's has a server out there; undefined: nothing that lives. */
export async function findKnownServer(db: Db, providerId: string, externalId: string): Promise<string | undefined> {
  const found = await sql<{ readonly name: string }>`
    select 'machines/' || name as name from machines
    where provider_id = ${providerId} and external_id = ${externalId} and state <> 'GONE'
    union all
    select 'machineRequests/' || name from machine_requests
    where provider_id = ${providerId} and ${externalId} in (external_id, adopt_external_id) and state <> 'GONE'
    limit 1
  `.execute(db)
  return found.rows[0]?.name
}

export interface ServerAdoption {
  /** The host, ORDERED, stored in this very transaction. */
  readonly host: HostRow
  readonly externalId: string
  readonly draft: RequestDraft
  readonly now: Date
}

/**
 * Stores the request that takes over a server, for a new host. Wake `{kind: 'work'}` and `{kind: 'host'}` after the commit.
 *
 * @returns false where somebody else is just adopting that server: the transaction is to be rolled back then.
 */
export async function storeServerAdoption(tx: Tx, { host, externalId, draft, now }: ServerAdoption): Promise<boolean> {
  const { request } = draft
  if (!(await reserveServer(tx, request.provider_id, externalId))) return false
  await insertRequests(tx, [draft])
  await tx
    .updateTable('machine_requests')
    .set({ operation: 'ADOPT', adopt_external_id: externalId })
    .where('provider_id', '=', request.provider_id)
    .where('id', '=', request.id)
    .execute()
  const message = `Waiting for an instance of provider ${request.provider_name} to take it up`
  await tx
    .updateTable('hosts')
    .set({
      state: 'PLACED',
      state_at: sql<Date>`clock_timestamp()`,
      state_message: message,
      conditions: JSON.stringify(
        riseConditions(
          host.conditions,
          { reached: 'Placed', reason: 'Placed', message, phoneHome: host.class_spec.bootstrap.phoneHome },
          now,
        ),
      ),
      provider_id: request.provider_id,
      provider_name: request.provider_name,
      request_id: request.id,
      request_name: request.name,
      ...(request.price !== null && { price: JSON.stringify(request.price) }),
    })
    .where('organization_id', '=', host.organization_id)
    .where('id', '=', host.id)
    .execute()
  await scheduleHost(tx, { organizationId: host.organization_id, hostId: host.id })
  return true
}

/** Keeps others from adopting a server until this transaction is done, and looks whether they have. A unique index is what it rests on in the end. */
async function reserveServer(tx: Tx, providerId: string, externalId: string): Promise<boolean> {
  await sql`select pg_advisory_xact_lock(hashtextextended(${`adopt ${providerId} ${externalId}`}, 0))`.execute(tx)
  return (await findKnownServer(tx, providerId, externalId)) === undefined
}

/** Whether a host that is in ERROR was to be a server that exists already, and never came to be it: then no other machine will do. */
export async function failedAdoption(
  db: Db,
  host: Pick<HostRow, 'request_id' | 'ready_at' | 'workspace_name' | 'name'>,
): Promise<string | undefined> {
  if (host.request_id === null || host.ready_at !== null) return undefined
  const row = await db
    .selectFrom('machine_requests')
    .select('adopt_external_id')
    .where('id', '=', host.request_id)
    .where('host_name', '=', hostName(host.workspace_name, host.name))
    .executeTakeFirst()
  return row?.adopt_external_id ?? undefined
}
