import { HubError } from '../error/errors.js'
import type { MachineState } from '../machine/machine.js'
import { transitionMachine } from '../machine/transitions.js'
import type { Capability } from '../provider/provider.js'
import type { Presence, RequestOperation, RequestState } from '../request/request.js'
import { transitionRequest } from '../request/transitions.js'
import type { HostState } from './host.js'
import { transitionHost } from './transitions.js'

/** A host and what is beneath it, as far as a reinstall concerns them. Null: there is none any more. */
export interface ReinstallView {
  readonly host: { readonly name: string; readonly state: HostState; readonly protected: boolean }
  readonly provider: { readonly name: string; readonly capabilities: readonly Capability[] } | null
  readonly request: {
    readonly state: RequestState
    readonly operation: RequestOperation
    readonly desiredPresence: 'PRESENT' | 'ABSENT'
    readonly presence: Presence
    readonly externalId: string | null
  } | null
  readonly machine: {
    readonly name: string
    readonly state: MachineState
    readonly static: boolean
    readonly protected: boolean
  } | null
}

/** What a reinstall makes of all three. */
export interface ReinstallMoves {
  readonly host: HostState
  readonly request: RequestState
  readonly machine: MachineState
}

/**
 * The states that follow when a host's machine is to be reinstalled now.
 *
 * @throws HubError HOST_PROTECTED, REINSTALL_UNSUPPORTED, HOST_STATE_FORBIDS, MACHINE_PROTECTED, MACHINE_STATE_FORBIDS.
 */
export function moveToReinstall({ host, provider, request, machine }: ReinstallView): ReinstallMoves {
  if (host.protected)
    throw new HubError('HOST_PROTECTED', `host ${host.name} is protected; take the protection off first`)
  if (provider !== null && !provider.capabilities.includes('REINSTALL')) {
    const message = `provider ${provider.name} cannot reinstall a machine that it keeps; release host ${host.name} and order it anew`
    throw new HubError('REINSTALL_UNSUPPORTED', message, { metadata: { provider: provider.name } })
  }
  const underWay = request?.operation === 'REINSTALL' && request.state !== 'GONE'
  const settled = host.state === 'READY' || host.state === 'ERROR'
  const nextHost = settled || underWay ? transitionHost(host.state, 'reinstall') : undefined
  if (nextHost === undefined)
    throw forbids(host, 'only a host that is READY or in ERROR can, or one that is just being reinstalled')
  const next = nextOfRequest(request)
  if (next === undefined || machine === null || machine.state === 'GONE')
    throw forbids(host, `nothing is left that could be: retry it to have another machine, or release it`)
  if (machine.protected)
    throw new HubError('MACHINE_PROTECTED', `machine ${machine.name} is protected; take the protection off first`)
  return { host: nextHost, request: next, machine: nextOfMachine(machine) }
}

/** Only a machine that is there, and is to be there, can be given a new system. One that was never made is made, and not reinstalled. */
function nextOfRequest(request: ReinstallView['request']): RequestState | undefined {
  if (request === null || request.desiredPresence === 'ABSENT') return undefined
  if (request.presence === 'ABSENT' || request.externalId === null) return undefined
  if (request.state === 'PROVISIONING' && request.operation !== 'REINSTALL') return undefined
  return transitionRequest(request.state, 'reinstall')
}

/** Static machines pass through PROVISIONING again; dynamic ones are ACTIVE as long as they live. */
function nextOfMachine(machine: NonNullable<ReinstallView['machine']>): MachineState {
  if (!machine.static || machine.state === 'PROVISIONING') return machine.state
  const next = transitionMachine(machine.state, 'reinstall')
  if (next !== undefined) return next
  throw new HubError(
    'MACHINE_STATE_FORBIDS',
    `machine ${machine.name} is ${machine.state} and cannot be reinstalled; only ACTIVE machines can`,
    { metadata: { state: machine.state } },
  )
}

function forbids({ name, state }: ReinstallView['host'], allowed: string): HubError {
  return new HubError('HOST_STATE_FORBIDS', `host ${name} is ${state} and cannot be reinstalled; ${allowed}`, {
    metadata: { state },
  })
}
