import { sql } from 'kysely'
import type { BootstrapSecrets } from '../auth/bootstrap-secrets.js'
import type { RequestView } from '../domain/host/record.js'
import { transitionMachine } from '../domain/machine/transitions.js'
import { externalName, hostName, ownershipKey, shortName } from '../domain/names.js'
import { isEnding } from '../domain/request/request.js'
import { transitionRequest } from '../domain/request/transitions.js'
import type { Tx } from './database.js'
import { scheduleHost } from './host-schedule.js'
import type { HostRow, MachineRow } from './tables.js'
import { wishMachine, type ItemKey } from './wishes.js'

// Servers in use that come into hosts as they are. Those of static providers are machines already: their request is PENDING, and nobody is given it, while their
// provider looks at the machine. See server-adoption.ts for those of dynamic providers.

export interface Adoption {
  readonly hubId: string
  /** The host, ORDERED, stored in this very transaction. */
  readonly host: HostRow
  /** DISCOVERED, and locked. */
  readonly machine: MachineRow
  readonly requestId: string
  readonly secrets: BootstrapSecrets
}

/** Binds a machine to a new host by a request of its own, and has its provider look at it. Both are protected. Wake `{kind: 'work'}` and `{kind: 'host'}` after the commit. */
export async function storeAdoption(tx: Tx, { hubId, host, machine, requestId, secrets }: Adoption): Promise<void> {
  const state = transitionMachine(machine.state, 'adopt')
  if (state === undefined) throw new Error(`a machine that is ${machine.state} cannot be adopted`)
  const key: ItemKey = { providerId: machine.provider_id, id: machine.id }
  const { bootstrap, shape } = host.class_spec
  const name = shortName('r', requestId)
  const of = hostName(host.workspace_name, host.name)
  await tx
    .insertInto('machine_requests')
    .values({
      provider_id: machine.provider_id,
      id: requestId,
      name,
      provider_name: machine.provider_name,
      organization_id: host.organization_id,
      workspace_name: host.workspace_name,
      host_id: host.id,
      host_name: of,
      class_id: host.class_id,
      class_name: host.class_name,
      state: 'PENDING',
      operation: 'ADOPT',
      desired_power: machine.power ?? 'ON',
      external_name: externalName(host.hostname, requestId),
      ownership_key: ownershipKey(hubId, requestId),
      spec: JSON.stringify({
        shape,
        providerData: {},
        hostname: host.hostname,
        phoneHome: false,
        phoneHomeTimeoutMs: bootstrap.phoneHomeTimeoutMs,
        provisionTimeoutMs: bootstrap.provisionTimeoutMs,
        labels: host.labels,
      }),
      static: true,
      machine_id: machine.id,
      machine_name: machine.name,
    })
    .execute()
  await tx
    .insertInto('machine_request_secrets')
    .values({
      provider_id: machine.provider_id,
      request_id: requestId,
      user_data_sealed: secrets.userDataSealed,
      phone_home_token_hash: secrets.phoneHomeTokenHash,
      phone_home_token_sealed: secrets.phoneHomeTokenSealed,
      phone_home_expires_at: secrets.phoneHomeExpiresAt,
    })
    .execute()
  // Due never: what is to be done is done with the machine.
  await tx
    .insertInto('work_items')
    .values({
      ...{ provider_id: machine.provider_id, id: requestId, kind: 'MACHINE_REQUEST', due_at: null },
      ...{ workspace_id: host.workspace_id, priority: host.priority },
    })
    .execute()
  await tx
    .updateTable('machines')
    .set({
      request_id: requestId,
      request_name: name,
      host_id: host.id,
      host_name: of,
      protected: true,
    })
    .where('provider_id', '=', machine.provider_id)
    .where('id', '=', machine.id)
    .execute()
  await wishMachine(tx, key, { state, operation: 'ADOPT' })
  await tx
    .updateTable('hosts')
    .set({
      state: 'PLACED',
      state_at: sql<Date>`clock_timestamp()`,
      state_message: `Provider ${machine.provider_name} looks at machine ${machine.name}, which is in use`,
      provider_id: machine.provider_id,
      provider_name: machine.provider_name,
      request_id: requestId,
      request_name: name,
      machine_id: machine.id,
      machine_name: machine.name,
    })
    .where('organization_id', '=', host.organization_id)
    .where('id', '=', host.id)
    .execute()
  await scheduleHost(tx, { organizationId: host.organization_id, hostId: host.id })
}

/** Its machine was looked at: the request is fulfilled, with nothing done. Both are locked. */
export async function adoptRequest(tx: Tx, request: RequestView): Promise<void> {
  const state = transitionRequest(request.state, 'adopted')
  if (state === undefined) throw new Error(`request ${request.name} is ${request.state} and cannot be adopted`)
  await sql`/* adopt-request */
    update machine_requests r
    set state = ${state}, provisioned_at = clock_timestamp(), presence = 'PRESENT', external_id = m.external_id,
        power = m.power, desired_power = coalesce(m.power, r.desired_power), addresses = m.addresses,
        observed_generation = r.generation
    from machines m
    where r.provider_id = ${request.providerId} and r.id = ${request.id} and m.provider_id = r.provider_id and m.id = r.machine_id
  `.execute(tx)
}

/** A host is released before its machine was adopted: the machine is as it was before, and nothing was touched. */
export async function unadoptMachine(tx: Tx, request: RequestView): Promise<void> {
  const machine = await tx
    .selectFrom('machines')
    .selectAll()
    .where('provider_id', '=', request.providerId)
    .where('request_id', '=', request.id)
    .forUpdate()
    .executeTakeFirst()
  const state = machine === undefined ? undefined : transitionMachine(machine.state, 'unadopted')
  if (machine === undefined || state === undefined) return
  await tx
    .updateTable('machines')
    .set({ request_id: null, request_name: null, host_id: null, host_name: null, last_error: null, protected: false })
    .where('provider_id', '=', machine.provider_id)
    .where('id', '=', machine.id)
    .execute()
  await wishMachine(tx, { providerId: machine.provider_id, id: machine.id }, { state, operation: null })
}

/** Puts a locked machine, its work and its request under another provider, in the place of the record that the other's inventory made. Wake both after the commit. */
export async function storeMove(tx: Tx, machine: MachineRow, twin: MachineRow): Promise<void> {
  const state = transitionMachine(machine.state, 'moved')
  if (state === undefined) throw new Error(`a machine that is ${machine.state} cannot be moved`)
  const to = { provider_id: twin.provider_id, provider_name: twin.provider_name }
  await tx.deleteFrom('work_items').where('provider_id', '=', twin.provider_id).where('id', '=', twin.id).execute()
  await tx
    .updateTable('machines')
    .set({ state: 'GONE', gone_at: sql<Date>`clock_timestamp()`, operation: null })
    .where('provider_id', '=', twin.provider_id)
    .where('id', '=', twin.id)
    .execute()
  const ids = [machine.id, ...(machine.request_id === null ? [] : [machine.request_id])]
  for (const table of ['work_items', 'steps'] as const) {
    const key = table === 'steps' ? sql`item_id` : sql`id`
    await sql`
      update ${sql.table(table)} set provider_id = ${twin.provider_id}
      where provider_id = ${machine.provider_id} and ${key} = any(${ids}::uuid[])
    `.execute(tx)
  }
  if (machine.request_id !== null) await moveRequest(tx, machine, twin, machine.request_id)
  await tx
    .updateTable('machines')
    .set({
      ...to,
      external_id: twin.external_id,
      provider_labels: JSON.stringify(twin.provider_labels),
      provider_data: JSON.stringify(twin.provider_data),
      hardware: JSON.stringify({ ...twin.hardware, ...machine.hardware }),
      addresses: JSON.stringify(machine.addresses.length > 0 ? machine.addresses : twin.addresses),
      in_use: twin.in_use,
      power: twin.power,
      conditions: JSON.stringify(machine.conditions.filter(({ type }) => type !== 'Present')),
      last_error: null,
      seen_at: twin.seen_at,
    })
    .where('provider_id', '=', machine.provider_id)
    .where('id', '=', machine.id)
    .execute()
  const operation = state === 'ADOPTING' ? 'ADOPT' : 'VERIFY'
  await wishMachine(tx, { providerId: twin.provider_id, id: machine.id }, { state, operation })
}

async function moveRequest(tx: Tx, machine: MachineRow, twin: MachineRow, requestId: string): Promise<void> {
  await tx
    .updateTable('machine_request_secrets')
    .set({ provider_id: twin.provider_id })
    .where('provider_id', '=', machine.provider_id)
    .where('request_id', '=', requestId)
    .execute()
  const request = await tx
    .updateTable('machine_requests')
    .set({ provider_id: twin.provider_id, provider_name: twin.provider_name, external_id: twin.external_id })
    .where('provider_id', '=', machine.provider_id)
    .where('id', '=', requestId)
    .returning(['organization_id', 'host_id', 'state', 'operation'])
    .executeTakeFirst()
  if (request === undefined) return
  // The new provider has none of the steps by which it would know what was done under another name: it finds the host there, and leaves it.
  if (request.state === 'PROVISIONED' && !isEnding(request.operation))
    await tx
      .updateTable('machine_requests')
      .set({ operation: 'ADOPT', operation_generation: sql<number>`operation_generation + 1` })
      .where('provider_id', '=', twin.provider_id)
      .where('id', '=', requestId)
      .execute()
  await scheduleHost(tx, { organizationId: request.organization_id, hostId: request.host_id })
}
