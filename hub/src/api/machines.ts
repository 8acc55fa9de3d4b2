import { create } from '@bufbuild/protobuf'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { HubError, invalidField } from '../domain/error/errors.js'
import { doingOperation } from '../domain/machine/lifecycle.js'
import { transitionMachine, type MachineEvent } from '../domain/machine/transitions.js'
import { parseHostName, parseResourceName } from '../domain/names.js'
import { matchesLabels, parseLabelSelector } from '../domain/selector.js'
import type { Tx } from '../store/database.js'
import { appendEvents, type Cause } from '../store/events.js'
import {
  deleteMachine,
  findMachine,
  listMachines,
  lockMachine,
  noteMachineWish,
  updateMachine,
  type MachineListFilter,
} from '../store/machines.js'
import { findProvider } from '../store/providers.js'
import type { MachineRow } from '../store/tables.js'
import { wishMachine, wishRequest } from '../store/wishes.js'
import { changeMachine } from './change-machine.js'
import {
  causeOf,
  checkEtag,
  createOnce,
  databaseOf,
  decodePageToken,
  maskedPaths,
  mayChangeHost,
  pageSize,
  readPage,
  scopesOfCall,
  type ApiDeps,
} from './context.js'
import { streamConsole } from './machine-console.js'
import { checkedLabels, machineStateNumbers, namesOf } from './convert.js'
import { machineNotFound } from './not-found.js'
import { machineEvent, refuseProtected, stateForbids } from './machine-events.js'
import { machineLife, setMaintenance } from './machine-life.js'
import { toMachine } from './resources.js'
import { watchResources, type WatchParts } from './watch.js'

const mutable = ['labels', 'annotations', 'maintenance', 'cordoned', 'protected'] as const

function filterOf(filter: hub.MachineFilter | undefined): MachineListFilter {
  parseLabelSelector(filter?.labelSelector ?? '')
  return {
    states: namesOf(machineStateNumbers, filter?.states ?? []),
    providers: (filter?.providers ?? []).map((name, index) =>
      parseResourceName('provider', name, `filter.providers[${index}]`),
    ),
    labelSelector: filter?.labelSelector ?? '',
    showGone: filter?.showGone ?? false,
  }
}

/** Moves a locked static machine on by a person's hand. */
async function moveByHand(tx: Tx, row: MachineRow, event: MachineEvent, what: string, allowed: string): Promise<void> {
  const next = row.static ? transitionMachine(row.state, event) : undefined
  if (next === undefined) throw stateForbids(row, what, allowed)
  await wishMachine(tx, { providerId: row.provider_id, id: row.id }, { state: next, operation: doingOperation(next) })
}

const wishes = {
  [hub.PowerAction.ON]: { power: 'ON' as const },
  [hub.PowerAction.OFF]: { power: 'OFF' as const },
  // Whoever wants a reboot wants it on after.
  [hub.PowerAction.REBOOT]: { power: 'ON' as const, reboot: true },
  [hub.PowerAction.UNSPECIFIED]: undefined,
}

/** @param seen the machine as the caller saw it: one that serves another host by now is not the caller's. */
async function setPower(
  tx: Tx,
  request: hub.SetMachinePowerRequest,
  cause: Cause,
  seen: MachineRow | undefined,
): Promise<MachineRow> {
  const name = parseResourceName('machine', request.name)
  const wish = wishes[request.action]
  const row = await lockMachine(tx, name)
  if (row === undefined || wish === undefined || row.host_name !== seen?.host_name) throw machineNotFound(name)
  const provider = await findProvider(tx, row.provider_name)
  if (provider === undefined || (provider.kind === 'DYNAMIC' && !provider.capabilities.includes('POWER'))) {
    throw new HubError('POWER_UNSUPPORTED', `provider ${row.provider_name} cannot switch power`)
  }
  if (request.action !== hub.PowerAction.ON) refuseProtected(row)
  const key = { providerId: row.provider_id, id: row.request_id ?? row.id }
  if (row.state === 'ACTIVE' && row.request_id !== null) {
    await wishRequest(tx, key, wish)
    await appendEvents(tx, cause, [machineEvent(row, 'PowerWished', `Power: ${hub.PowerAction[request.action]}`)])
    return noteMachineWish(tx, row, wish)
  }
  const allowed = ['AVAILABLE', 'MANAGEABLE', 'VERIFY_FAILED', 'INSPECT_FAILED', 'CLEAN_FAILED'] as const
  if (!row.static || !allowed.some((state) => state === row.state))
    throw stateForbids(row, 'switched now', `only ACTIVE machines and static ones that are ${allowed.join(', ')} can`)
  await wishMachine(tx, key, { ...wish, operation: 'POWER' })
  await appendEvents(tx, cause, [machineEvent(row, 'PowerWished', `Power: ${hub.PowerAction[request.action]}`)])
  return (await findMachine(tx, name)) ?? row
}

/** Nobody is ever handed a password: without a key there would be no way in. */
function checkRescue(request: hub.SetMachineRescueRequest): void {
  const keys = request.sshKeys.length + request.sshPublicKeys.length
  if (request.enabled && keys === 0)
    throw invalidField('ssh_keys', 'is empty; name a key that the provider knows, or give one in ssh_public_keys')
  if (!request.enabled && keys > 0) throw invalidField('ssh_keys', 'is of no use without enabled; leave it out')
  request.sshPublicKeys.forEach((key, index) => {
    if (!/^[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( [^\r\n]*)?$/.test(key.trim()))
      throw invalidField(
        `ssh_public_keys[${index}]`,
        'is no public key; give one line as in authorized_keys: type and base64',
      )
  })
}

/** @param seen the machine as the caller saw it: one that serves another host by now is not the caller's. */
async function setRescue(
  tx: Tx,
  request: hub.SetMachineRescueRequest,
  cause: Cause,
  seen: MachineRow | undefined,
): Promise<MachineRow> {
  const name = parseResourceName('machine', request.name)
  const row = await lockMachine(tx, name)
  if (row === undefined || row.host_name !== seen?.host_name) throw machineNotFound(name)
  const provider = await findProvider(tx, row.provider_name)
  if (provider?.capabilities.includes('RESCUE') !== true)
    throw new HubError('RESCUE_UNSUPPORTED', `provider ${row.provider_name} cannot start a rescue system`)
  refuseProtected(row)
  if (row.state !== 'ACTIVE' || row.request_id === null)
    throw stateForbids(row, 'rescued', 'only ACTIVE machines, which serve a host, can')
  if (!request.enabled && !row.desired_rescue) return row
  const keys = { sshKeys: request.sshKeys, sshPublicKeys: request.sshPublicKeys.map((key) => key.trim()) }
  await wishRequest(tx, { providerId: row.provider_id, id: row.request_id }, { rescue: request.enabled ? keys : null })
  const text = request.enabled ? 'It is to run its rescue system' : 'It is to run its own system'
  await appendEvents(tx, cause, [machineEvent(row, 'RescueWished', text)])
  return noteMachineWish(tx, row, { rescue: request.enabled })
}

export function machineService(deps: ApiDeps, parts: WatchParts): ServiceImpl<typeof hub.MachineService> {
  /** A machine whose work the caller may order. A tenant sees it, and may change the host that it serves; the work itself is the hub's. */
  const findToOperate = async (context: HandlerContext, resource: string): Promise<MachineRow | undefined> => {
    const name = parseResourceName('machine', resource)
    const row = await findMachine(databaseOf(deps, context), name)
    if (scopesOfCall(context) === undefined) return row
    const serves = row?.host_name == null ? undefined : parseHostName(row.host_name)
    if (serves === undefined || !(await mayChangeHost(deps, context, serves))) throw machineNotFound(name)
    return row
  }
  return {
    async getMachine(request, context) {
      const name = parseResourceName('machine', request.name)
      const row = await findMachine(databaseOf(deps, context), name)
      if (row === undefined) throw machineNotFound(name)
      return { machine: toMachine(row) }
    },

    async listMachines(request, context) {
      const filter = { ...filterOf(request.filter), within: scopesOfCall(context) }
      const list = JSON.stringify(['machines', filter])
      const after = decodePageToken(deps, request.pageToken, list)
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) => listMachines(tx, filter, String(after?.[0] ?? ''), limit),
        keyOf: (row) => [row.name],
      })
      return { machines: page.rows.map(toMachine), nextPageToken: page.nextPageToken, revision: page.revision }
    },

    async updateMachine(request, context) {
      const given = request.machine ?? create(hub.MachineSchema)
      const paths = maskedPaths(request.updateMask?.paths, mutable)
      const machine = await changeMachine(deps, context, given.name, async (tx, row, cause) => {
        checkEtag(given.etag, row, given.name)
        const updated = await updateMachine(tx, row, {
          ...(paths.has('labels') && { labels: checkedLabels(given.labels, 'machine.labels') }),
          ...(paths.has('annotations') && { annotations: given.annotations }),
          ...(paths.has('cordoned') && { cordoned: given.cordoned }),
          ...(paths.has('protected') && { protected: given.protected }),
        })
        if (paths.has('maintenance'))
          await setMaintenance(tx, updated, { enabled: given.maintenance, reason: '' }, cause)
        if (updated.version !== row.version)
          await appendEvents(tx, cause, [machineEvent(updated, 'MachineUpdated', [...paths].join(', '))])
      })
      return { machine }
    },

    async deleteMachine(request, context) {
      const name = parseResourceName('machine', request.name)
      if (request.allowMissing && (await findMachine(databaseOf(deps, context), name)) === undefined) return {}
      await changeMachine(deps, context, request.name, async (tx, row, cause) => {
        checkEtag(request.etag, row, request.name)
        refuseProtected(row)
        if (!row.static || row.request_id !== null || transitionMachine(row.state, 'gone') === undefined) {
          throw stateForbids(row, 'deleted', 'only static machines that serve no host can; release the host first')
        }
        await deleteMachine(tx, row)
        await appendEvents(tx, cause, [machineEvent(row, 'MachineDeleted', 'Its record was deleted')])
      })
      return {}
    },

    async *watchMachines(request, context) {
      const name = request.name === '' ? '' : parseResourceName('machine', request.name)
      const filter = { ...filterOf(request.filter), within: scopesOfCall(context) }
      const selector = parseLabelSelector(filter.labelSelector)
      const matches = (row: MachineRow) =>
        (name === '' || row.name === name) &&
        (filter.states.length === 0 || filter.states.includes(row.state)) &&
        (filter.providers.length === 0 || filter.providers.includes(row.provider_name)) &&
        matchesLabels(selector, { ...row.provider_labels, ...row.labels })
      const watched = watchResources<MachineRow>(parts, context, {
        resource: 'machine',
        revision: request.revision,
        matches,
        existing: (tx, last, limit) => listMachines(tx, filter, last?.name ?? '', limit),
      })
      for await (const { changes, revision, synced } of watched) {
        yield {
          changes: changes
            .filter(({ row }) => matches(row))
            .map(({ type, row }) => ({ type, machine: toMachine(row) })),
          revision,
          synced,
        }
      }
    },

    async setMachinePower(request, context) {
      const row = await findToOperate(context, request.name)
      const response = await createOnce(deps, context, {
        db: deps.db,
        requestId: request.requestId,
        request: { schema: hub.SetMachinePowerRequestSchema, message: request },
        response: hub.SetMachinePowerResponseSchema,
        wake: row === undefined ? [] : [{ kind: 'work', providerId: row.provider_id }],
        work: async (tx) =>
          create(hub.SetMachinePowerResponseSchema, {
            machine: toMachine(await setPower(tx, request, causeOf(context), row)),
          }),
      })
      return response
    },

    async setMachineRescue(request, context) {
      checkRescue(request)
      const row = await findToOperate(context, request.name)
      return createOnce(deps, context, {
        db: deps.db,
        requestId: request.requestId,
        request: { schema: hub.SetMachineRescueRequestSchema, message: request },
        response: hub.SetMachineRescueResponseSchema,
        wake: row === undefined ? [] : [{ kind: 'work', providerId: row.provider_id }],
        work: async (tx) =>
          create(hub.SetMachineRescueResponseSchema, {
            machine: toMachine(await setRescue(tx, request, causeOf(context), row)),
          }),
      })
    },

    async *streamMachineConsole(request, context) {
      const name = parseResourceName('machine', request.name)
      const row = await findMachine(databaseOf(deps, context), name)
      if (row === undefined) throw machineNotFound(name)
      // What a tenant's system has said is still there when the next one comes.
      if (row.static && scopesOfCall(context) !== undefined)
        throw new HubError(
          'PERMISSION_MISSING',
          `machine ${name} has served others before you, and its console may tell of them; ask whoever runs its provider`,
          { metadata: { permission: 'machine.console' } },
        )
      yield* streamConsole(deps, row, request, context, parts.draining)
    },

    async acceptMachine(request, context) {
      const machine = await changeMachine(deps, context, request.name, async (tx, row, cause) => {
        if (row.in_use)
          throw new HubError(
            'MACHINE_IN_USE',
            `machine ${row.name} is in use, its provider says, and would be wiped; adopt it, or say there that it is not`,
          )
        refuseProtected(row)
        await moveByHand(tx, row, 'accept', 'accepted', 'only DISCOVERED static machines can')
        await appendEvents(tx, cause, [machineEvent(row, 'MachineAccepted', 'Accepted')])
      })
      return { machine }
    },

    ...machineLife(deps),

    async retryMachine(request, context) {
      const machine = await changeMachine(deps, context, request.name, async (tx, row, cause) => {
        // Its host is being let go of: what that leads to is not to be worked on twice.
        if (row.request_id !== null && row.state !== 'ADOPT_FAILED')
          throw stateForbids(row, 'retried', 'its host has to be released first')
        if (row.state !== 'ADOPT_FAILED') refuseProtected(row)
        await moveByHand(tx, row, 'retry', 'retried', 'only static machines in a failed state can')
        await appendEvents(tx, cause, [machineEvent(row, 'MachineRetried', `Led out of ${row.state}`)])
      })
      return { machine }
    },
  }
}
