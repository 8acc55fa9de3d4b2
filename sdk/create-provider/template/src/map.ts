import type { MachineSpec, ObservedMachine, Offering, OwnedMachine } from '@slipway/sdk'
import type { Server, ServerOrder, ServerType } from './client.js'
import type { Config, Data } from './config.js'

/** The label by which a server is known to be ours, and whose. */
export const keyLabel = 'slipway-key'

/** An order in the cloud's terms. The ownership key goes on everything that is created. */
export function orderOf(
  { name, ownershipKey, typeId, data, bootstrap, host }: MachineSpec<Data>,
  config: Config,
): ServerOrder {
  return {
    name,
    type: typeId,
    image: data.image,
    location: config.location,
    labels: { [keyLabel]: ownershipKey, host: host.host, workspace: host.workspace },
    userData: bootstrap.userData,
  }
}

/** A server in the hub's terms. */
export function observedOf({ id, status, ips }: Server): ObservedMachine {
  return {
    externalId: id,
    ...((status === 'running' || status === 'off') && { power: status === 'running' ? 'on' : 'off' }),
    addresses: ips.map((ip) => ({ type: 'public', ip })),
    attributes: { status },
  }
}

/** A server with the key that is on it now; `undefined` where it carries none, and is nothing to do with any hub. */
export function ownedOf(server: Server): OwnedMachine | undefined {
  const ownershipKey = server.labels[keyLabel]
  if (ownershipKey === undefined || ownershipKey === '') return undefined
  return { ...observedOf(server), ownershipKey, name: server.name }
}

export function offeringOf({ id, vcpus, memoryMib, diskGib, available }: ServerType, config: Config): Offering {
  return { typeId: id, location: config.location, shape: { vcpus, memoryMib, diskGib }, available }
}
