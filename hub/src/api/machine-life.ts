import { create } from '@bufbuild/protobuf'
import type { ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { v7 as uuid } from 'uuid'
import { makeBootstrapSecrets } from '../auth/bootstrap-secrets.js'
import { HubError, invalidField } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { isSameMachine } from '../domain/machine/identity.js'
import { beginHold, beginMaintenance, endHold, endMaintenance, type PauseChange } from '../domain/machine/pause.js'
import { transitionMachine } from '../domain/machine/transitions.js'
import { mayUse, type Orderer } from '../domain/provider/ownership.js'
import { demandOf } from '../domain/quota/demand.js'
import { hostName, parseHostName, parseResourceName, resourceName } from '../domain/names.js'
import { storeAdoption, storeMove } from '../store/adoption.js'
import { databaseTime, inTransaction, type Tx } from '../store/database.js'
import { appendEvents, type Cause } from '../store/events.js'
import { findHost, findWorkspaces, insertHosts } from '../store/hosts.js'
import { pausesOf, storePauses } from '../store/machine-pause.js'
import { openLimitBook, shareLimits } from '../store/limit-book.js'
import { findDiscoveredMachines, findMachine, hasHolder, lockMachine } from '../store/machines.js'
import { findProvider } from '../store/providers.js'
import type { HostRow, MachineRow, ProviderRow } from '../store/tables.js'
import { changeMachine } from './change-machine.js'
import { type ApiDeps, causeOf, databaseOf } from './context.js'
import { checkedLabels } from './convert.js'
import { machineEvent, stateForbids } from './machine-events.js'
import { machineNotFound, workspaceNotFound } from './not-found.js'
import { classForAdoption } from './order.js'
import { limitExceeded } from './quota-resources.js'
import { toHost, toMachine } from './resources.js'

// What people do to a machine's life beyond its own work: they have it left alone, make a host of what is in use, and put it under another provider.

type LifeMethods = Pick<
  ServiceImpl<typeof hub.MachineService>,
  'setMachineMaintenance' | 'holdMachine' | 'unholdMachine' | 'adoptMachine' | 'moveMachine'
>

/** Changes the maintenance of a locked machine by a person's word. @returns whether anything changed. */
export async function setMaintenance(
  tx: Tx,
  row: MachineRow,
  wish: { readonly enabled: boolean; readonly reason: string },
  cause: Cause,
): Promise<boolean> {
  const now = await databaseTime(tx)
  const before = pausesOf(row)
  const pause = { by: cause.actor, bySystem: false, reason: wish.reason, at: now }
  const change = wish.enabled ? beginMaintenance(before, pause) : endMaintenance(before, pause, now)
  const why = wish.reason === '' ? '' : `: ${wish.reason}`
  const event = wish.enabled
    ? machineEvent(row, 'MachineMaintenanceBegun', `In maintenance${why}`)
    : machineEvent(row, 'MachineMaintenanceEnded', 'Out of maintenance')
  return storeChange(tx, row, change, cause, event)
}

async function setHold(tx: Tx, row: MachineRow, reason: string | undefined, cause: Cause): Promise<boolean> {
  const now = await databaseTime(tx)
  const before = pausesOf(row)
  const change =
    reason === undefined
      ? endHold(before, now)
      : beginHold(before, { by: cause.actor, bySystem: false, reason, at: now })
  const event =
    reason === undefined
      ? machineEvent(row, 'MachineUnheld', `Goes on as ${row.state}`)
      : machineEvent(row, 'MachineHeld', `Held as ${row.state}: ${reason}`)
  return storeChange(tx, row, change, cause, event)
}

async function storeChange(
  tx: Tx,
  row: MachineRow,
  change: PauseChange,
  cause: Cause,
  event: EventDraft,
): Promise<boolean> {
  if (JSON.stringify(change.pauses) === JSON.stringify(pausesOf(row))) return false
  await storePauses(tx, row, change)
  await appendEvents(tx, cause, [event])
  return true
}

interface AdoptionOrder {
  readonly machine: string
  readonly workspace: string
  readonly host: string
}

async function hostOf(tx: Tx, row: MachineRow): Promise<HostRow | undefined> {
  if (row.host_name === null) return undefined
  const { workspace, id } = parseHostName(row.host_name)
  return findHost(tx, workspace, id)
}

/** Nobody has anything at a provider that it may not use, however it got there. @throws HubError PROVIDER_NOT_USABLE. */
function refuseForeign(provider: ProviderRow, orderer: Orderer, whose: string): void {
  const ownership = {
    ownerOrganizationId: provider.owner_organization_id,
    ownerWorkspaceId: provider.owner_workspace_id,
    poolId: provider.pool_id,
    claimWorkspaceId: provider.claim_workspace_id,
  }
  if (mayUse(ownership, orderer)) return
  throw new HubError('PROVIDER_NOT_USABLE', `${whose} may not use provider ${provider.name}`, {
    metadata: { provider: provider.name },
  })
}

/** @throws HubError PROVIDER_NOT_USABLE, MACHINE_STATE_FORBIDS, NAME_TAKEN, WORKSPACE_NOT_FOUND, CLASS_NOT_FOUND, QUOTA_EXCEEDED. */
async function adopt(
  deps: ApiDeps,
  tx: Tx,
  request: hub.AdoptMachineRequest,
  order: AdoptionOrder,
  cause: Cause,
): Promise<HostRow> {
  const [workspace] = await findWorkspaces(tx, [order.workspace])
  // Limits are locked before machines, in every transaction.
  const limits = workspace && (await openLimitBook(tx, [{ ...workspace, workspaceId: workspace.id }]))
  const row = await lockMachine(tx, order.machine)
  if (row === undefined) throw machineNotFound(order.machine)
  const name = hostName(order.workspace, order.host)
  const known = await findHost(tx, order.workspace, order.host)
  if (row.host_name === name && known !== undefined && row.static) return known
  if (!row.static || row.request_id !== null || transitionMachine(row.state, 'adopt') === undefined)
    throw stateForbids(row, 'adopted', 'only DISCOVERED static machines can, which nobody has accepted')
  if (workspace === undefined || limits === undefined) throw workspaceNotFound(order.workspace)
  const { className, classId, classSpec, shape } = await classForAdoption(tx, request.machineClass, row.hardware.shape)
  const { organizationId, id: workspaceId } = workspace
  const provider = await findProvider(tx, row.provider_name)
  if (provider !== undefined) refuseForeign(provider, { organizationId, workspaceId }, `workspace ${workspace.name}`)
  // It is there already, and costs nothing more.
  const demand = demandOf(
    { organizationId, workspaceId, className, classSpec },
    { family: provider?.family ?? '', price: null, free: true },
  )
  const excess = limits.excess(demand)
  if (excess !== undefined) throw limitExceeded(excess)
  const [stored] = await insertHosts(tx, deps.keyring, [
    {
      workspace,
      name: order.host,
      hostname: request.hostname === '' ? order.host : request.hostname,
      classId,
      className,
      // It was set up long ago: nothing of it phones home.
      classSpec: { ...classSpec, bootstrap: { ...classSpec.bootstrap, phoneHome: false } },
      shape,
      placement: { providers: [], families: [], locations: [], maxHourlyMicros: 0 },
      providerData: {},
      userData: '',
      labels: checkedLabels(request.labels, 'labels'),
      annotations: {},
      protected: true,
      priority: workspace.range.priority,
      createdBy: cause.actor,
    },
  ])
  if (stored === undefined)
    throw new HubError('NAME_TAKEN', `there is a host ${name} already`, { metadata: { host: name } })
  const host = stored.row
  limits.charge(host.id, demand)
  await limits.flush(tx)
  const requestId = uuid()
  const { bootstrap } = host.class_spec
  const secrets = makeBootstrapSecrets(deps.keyring, {
    requestId,
    hostname: host.hostname,
    bootstrap,
    userData: '',
    publicUrl: deps.publicUrl(),
    now: new Date(),
  })
  await storeAdoption(tx, { hubId: deps.hubId, host, machine: row, requestId, secrets })
  await appendEvents(tx, cause, [
    { ...machineEvent(row, 'MachineAdopting', `Becomes host ${name}, untouched`), related: [name] },
  ])
  return (await findHost(tx, order.workspace, order.host)) ?? host
}

/** @throws HubError PROVIDER_NOT_FOUND, PROVIDER_NOT_USABLE, MACHINE_STATE_FORBIDS, MACHINE_BUSY, MACHINE_NOT_SEEN. */
async function move(tx: Tx, row: MachineRow, providerName: string, cause: Cause): Promise<void> {
  if (row.provider_name === providerName) return
  const provider = await findProvider(tx, providerName)
  if (provider === undefined)
    throw new HubError('PROVIDER_NOT_FOUND', `there is no provider ${providerName}`, {
      metadata: { provider: providerName },
    })
  if (provider.kind !== 'STATIC')
    throw invalidField('provider', `${providerName} makes its machines itself; name a static provider`)
  const host = await hostOf(tx, row)
  if (host !== undefined)
    refuseForeign(
      provider,
      { organizationId: host.organization_id, workspaceId: host.workspace_id },
      `workspace ${host.workspace_name}, of its host,`,
    )
  if (!row.static || transitionMachine(row.state, 'moved') === undefined)
    throw stateForbids(row, 'moved', 'only a static machine that is accepted or in use can, with no work under way')
  const twins = (await findDiscoveredMachines(tx, provider.id)).filter((twin) =>
    isSameMachine(row.hardware, twin.hardware),
  )
  const [twin] = twins
  if (twin === undefined || twins.length > 1) {
    const found = twin === undefined ? 'does not list it' : `lists ${twins.length} that could be it`
    throw new HubError(
      'MACHINE_NOT_SEEN',
      `provider ${providerName} ${found}, by serial number, SMBIOS UUID or MAC, as DISCOVERED; add it to its configuration`,
      { metadata: { provider: providerName } },
    )
  }
  if (await hasHolder(tx, row))
    throw new HubError('MACHINE_BUSY', `an instance of ${row.provider_name} works on machine ${row.name}; try again`, {
      retryAfterMs: 2_000,
    })
  const locked = await lockMachine(tx, twin.name)
  if (locked?.state !== 'DISCOVERED')
    throw new HubError('MACHINE_BUSY', `machine ${twin.name} of ${providerName} has just changed; try again`)
  await storeMove(tx, row, locked)
  const text = `Moved from provider ${row.provider_name} to ${providerName}, where it was found as ${locked.name}`
  const related = [resourceName('provider', row.provider_name), resourceName('provider', providerName)]
  await appendEvents(tx, cause, [
    {
      ...machineEvent(row, 'MachineMoved', text),
      related: [...related, ...(row.host_name === null ? [] : [row.host_name])],
    },
  ])
}

export function machineLife(deps: ApiDeps): LifeMethods {
  return {
    async setMachineMaintenance(request, context) {
      return {
        machine: await changeMachine(deps, context, request.name, (tx, row, cause) =>
          setMaintenance(tx, row, request, cause),
        ),
      }
    },

    async holdMachine(request, context) {
      return {
        machine: await changeMachine(deps, context, request.name, (tx, row, cause) =>
          setHold(tx, row, request.reason, cause),
        ),
      }
    },

    async unholdMachine(request, context) {
      return {
        machine: await changeMachine(deps, context, request.name, (tx, row, cause) =>
          setHold(tx, row, undefined, cause),
        ),
      }
    },

    async adoptMachine(request, context) {
      const order: AdoptionOrder = {
        machine: parseResourceName('machine', request.name),
        workspace: parseResourceName('workspace', request.parent, 'parent'),
        host: request.hostId,
      }
      const cause = causeOf(context)
      const { host, machine } = await inTransaction(
        databaseOf(deps, context),
        async (tx) => {
          const host = await adopt(deps, tx, request, order, cause)
          return { host, machine: await findMachine(tx, order.machine) }
        },
        'order',
      )
      if (machine === undefined) throw machineNotFound(order.machine)
      deps.wake.signal({ kind: 'work', providerId: machine.provider_id }, { kind: 'change' }, { kind: 'host' })
      return create(hub.AdoptMachineResponseSchema, { host: toHost(host), machine: toMachine(machine) })
    },

    async moveMachine(request, context) {
      const provider = parseResourceName('provider', request.provider, 'provider')
      const work = (tx: Tx, row: MachineRow, cause: Cause) => move(tx, row, provider, cause)
      // Nobody gives the provider to others meanwhile.
      return { machine: await changeMachine(deps, context, request.name, work, shareLimits) }
    },
  }
}
