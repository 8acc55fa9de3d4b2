import { sql } from 'kysely'
import type { BootstrapSecrets } from '../auth/bootstrap-secrets.js'
import type { Condition, JsonObject } from '../domain/facts.js'
import type { ReinstallMoves } from '../domain/host/reinstall.js'
import type { Db, Tx } from './database.js'
import { scheduleHost } from './host-schedule.js'
import { findHost, lockHost } from './hosts.js'
import type { HostRow, MachineRequestRow, MachineRow } from './tables.js'
import { wishRequest } from './wishes.js'

// A new system on the machine of a host: the wish, with all that goes with it.

/** A host, and what is beneath it. */
export interface HostOnMachine {
  readonly host: HostRow
  readonly request: MachineRequestRow | undefined
  readonly machine: MachineRow | undefined
}

/** Reads a host that is not released, and what is beneath it. */
export async function findHostOnMachine(db: Db, workspace: string, name: string): Promise<HostOnMachine | undefined> {
  const host = await findHost(db, workspace, name)
  return host === undefined ? undefined : { host, ...(await readBeneath(db, host, false)) }
}

/** Locks a host and, before it, what is beneath it: in the order in which everyone locks them. */
export async function lockHostOnMachine(tx: Tx, workspace: string, name: string): Promise<HostOnMachine | undefined> {
  const seen = await findHost(tx, workspace, name)
  if (seen === undefined) return undefined
  const beneath = await readBeneath(tx, seen, true)
  const host = await lockHost(tx, workspace, name)
  if (host === undefined) return undefined
  // It was given another request meanwhile: what was locked is not beneath it any more.
  if (host.request_id !== seen.request_id) return { host, request: undefined, machine: undefined }
  return { host, ...beneath }
}

async function readBeneath(
  db: Db,
  { provider_id: providerId, request_id: requestId }: HostRow,
  lock: boolean,
): Promise<Omit<HostOnMachine, 'host'>> {
  if (providerId === null || requestId === null) return { request: undefined, machine: undefined }
  if (lock) {
    await db
      .selectFrom('work_items')
      .select('id')
      .where('provider_id', '=', providerId)
      .where('id', '=', requestId)
      .forUpdate()
      .execute()
  }
  const requests = db
    .selectFrom('machine_requests')
    .selectAll()
    .where('provider_id', '=', providerId)
    .where('id', '=', requestId)
  const request = await (lock ? requests.forUpdate() : requests).executeTakeFirst()
  if (request?.machine_id == null) return { request, machine: undefined }
  const machines = db
    .selectFrom('machines')
    .selectAll()
    .where('provider_id', '=', providerId)
    .where('id', '=', request.machine_id)
  return { request, machine: await (lock ? machines.forUpdate() : machines).executeTakeFirst() }
}

/** What is to be different, and what follows from it. */
export interface Reinstall {
  readonly moves: ReinstallMoves
  /** Of the host, and of its request: the one is laid over what its class says, the other is the whole. */
  readonly hostData: JsonObject
  readonly requestData: JsonObject
  /** The host's own user-data from now on, sealed; null: none, so that its class's counts. Undefined: as before. */
  readonly userDataSealed: Buffer | null | undefined
  readonly secrets: BootstrapSecrets
  readonly conditions: readonly Condition[]
  readonly message: string
}

/** Stores the wish on a locked host, its request and its machine. Wake `{kind: 'work'}` after the commit. */
export async function storeReinstall(tx: Tx, locked: HostOnMachine, reinstall: Reinstall): Promise<HostRow> {
  const { host, request, machine } = locked
  if (request === undefined || machine === undefined) throw new Error(`host ${host.name} has no machine to reinstall`)
  await wishRequest(
    tx,
    { providerId: request.provider_id, id: request.id },
    // Whoever wants a new system wants it on after.
    { reinstall: { providerData: reinstall.requestData }, power: 'ON', state: reinstall.moves.request },
  )
  await tx
    .updateTable('machines')
    .set({
      state: reinstall.moves.machine,
      reinstalls: sql<number>`reinstalls + 1`,
      desired_power: 'ON',
      desired_rescue: false,
      waiting_for: '',
      waiting_at: null,
      waiting_until_at: null,
      last_error: null,
    })
    .where('provider_id', '=', machine.provider_id)
    .where('id', '=', machine.id)
    .execute()
  await storeSecrets(tx, host, request, reinstall)
  const moved = await tx
    .updateTable('hosts')
    .set({
      state: reinstall.moves.host,
      state_at: sql<Date>`clock_timestamp()`,
      state_message: reinstall.message,
      conditions: JSON.stringify(reinstall.conditions),
      provider_data: JSON.stringify(reinstall.hostData),
      phone_home_at: null,
      progress: null,
      last_error: null,
    })
    .where('organization_id', '=', host.organization_id)
    .where('id', '=', host.id)
    .returningAll()
    .executeTakeFirstOrThrow()
  await scheduleHost(tx, { organizationId: host.organization_id, hostId: host.id })
  return moved
}

/** The user-data that a host's order brought along, sealed. */
export async function findHostUserData(db: Db, host: HostRow): Promise<Buffer | undefined> {
  const row = await db
    .selectFrom('host_secrets')
    .select('user_data_sealed')
    .where('organization_id', '=', host.organization_id)
    .where('host_id', '=', host.id)
    .executeTakeFirst()
  return row?.user_data_sealed
}

async function storeSecrets(
  tx: Tx,
  host: HostRow,
  request: MachineRequestRow,
  { secrets, userDataSealed }: Reinstall,
): Promise<void> {
  const columns = {
    user_data_sealed: secrets.userDataSealed,
    phone_home_token_hash: secrets.phoneHomeTokenHash,
    phone_home_token_sealed: secrets.phoneHomeTokenSealed,
    phone_home_expires_at: secrets.phoneHomeExpiresAt,
  }
  await tx
    .insertInto('machine_request_secrets')
    .values({ provider_id: request.provider_id, request_id: request.id, ...columns })
    .onConflict((conflict) => conflict.columns(['provider_id', 'request_id']).doUpdateSet(columns))
    .execute()
  if (userDataSealed === undefined) return
  const key = { organization_id: host.organization_id, host_id: host.id }
  if (userDataSealed === null) {
    await tx
      .deleteFrom('host_secrets')
      .where('organization_id', '=', key.organization_id)
      .where('host_id', '=', key.host_id)
      .execute()
    return
  }
  await tx
    .insertInto('host_secrets')
    .values({ ...key, user_data_sealed: userDataSealed })
    .onConflict((conflict) =>
      conflict.columns(['organization_id', 'host_id']).doUpdateSet({ user_data_sealed: userDataSealed }),
    )
    .execute()
}
