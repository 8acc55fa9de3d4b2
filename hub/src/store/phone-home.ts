import { sql } from 'kysely'
import { parseToken, secretMatches } from '../auth/tokens.js'
import { HubError } from '../domain/error/errors.js'
import type { Tx } from './database.js'
import { appendEvents } from './events.js'
import { scheduleHost } from './host-schedule.js'

/**
 * Takes a machine's first word. The same token succeeds again, with the same answer, until it expires: a lost answer strands nobody.
 *
 * @throws HubError PHONE_HOME_TOKEN_INVALID, also for the machine of a request that is to go.
 */
export async function recordPhoneHome(
  tx: Tx,
  token: string,
  said: { readonly hostname: string },
): Promise<{ readonly hostName: string; readonly at: Date; readonly first: boolean }> {
  const invalid = new HubError(
    'PHONE_HOME_TOKEN_INVALID',
    'the phone-home token is unknown or expired; a machine is given its own when it is made',
  )
  const parsed = parseToken('phone-home', token)
  if (parsed === undefined) throw invalid
  const requestId = parsed.id.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
  const secret = await tx
    .selectFrom('machine_request_secrets')
    .select(['provider_id', 'phone_home_token_hash'])
    .where('request_id', '=', requestId)
    .where('phone_home_expires_at', '>', sql<Date>`clock_timestamp()`)
    .executeTakeFirst()
  if (secret === undefined || !secretMatches(parsed.secret, secret.phone_home_token_hash)) throw invalid
  // The host before its request, as everywhere: what is told of one host is told in one order to all who watch.
  await sql`
    select from machine_requests r join hosts h on h.organization_id = r.organization_id and h.id = r.host_id
    where r.provider_id = ${secret.provider_id} and r.id = ${requestId} and r.phoned_home_at is null for update of h
  `.execute(tx)
  const request = await tx
    .selectFrom('machine_requests')
    .selectAll()
    .where('provider_id', '=', secret.provider_id)
    .where('id', '=', requestId)
    .forUpdate()
    .executeTakeFirst()
  if (request === undefined || request.state === 'GONE' || request.desired_presence === 'ABSENT') throw invalid
  if (request.phoned_home_at !== null) return { hostName: request.host_name, at: request.phoned_home_at, first: false }
  const { at } = await tx
    .updateTable('machine_requests')
    .set({ phoned_home_at: sql<Date>`clock_timestamp()` })
    .where('provider_id', '=', request.provider_id)
    .where('id', '=', request.id)
    .returning(sql<Date>`phoned_home_at`.as('at'))
    .executeTakeFirstOrThrow()
  await appendEvents(tx, { actor: `machineRequests/${request.name}`, requestId: '' }, [
    {
      subject: request.host_name,
      related: [`machineRequests/${request.name}`, `providers/${request.provider_name}`],
      reason: 'PhonedHome',
      message: said.hostname === '' ? 'The machine phoned home' : `The machine phoned home as ${said.hostname}`,
      severity: 'INFO',
      organizationId: request.organization_id,
      providerId: request.provider_id,
    },
  ])
  await scheduleHost(tx, { organizationId: request.organization_id, hostId: request.host_id })
  return { hostName: request.host_name, at, first: true }
}
