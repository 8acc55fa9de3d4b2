import type { BmcFacts } from '../driver.js'
import { isBmcError } from '../errors.js'
import { linkOf, listOf, objectOf, textOf, type RedfishClient, type Resource } from './client.js'

/** Reads who answers, of the system and of the manager that it is managed by. What a BMC does not have, or does not show this user, is left out. */
export async function readFacts(client: RedfishClient, system: Resource, signal: AbortSignal): Promise<BmcFacts> {
  const manager = await managerOf(client, system, signal)
  const card = manager === undefined ? undefined : await firstInterface(client, manager, signal)
  const address = listOf(card?.['IPv4Addresses'])
    .map((one) => textOf(objectOf(one)?.['Address']))
    .find((one) => one !== undefined && one !== '0.0.0.0')
  return {
    kind: 'redfish',
    ...some('vendor', textOf(system['Manufacturer'])),
    ...some('model', textOf(system['Model'])),
    ...some('serial', textOf(system['SerialNumber'])),
    ...some('guid', textOf(system['UUID'])?.toLowerCase()),
    ...some('firmware', textOf(manager?.['FirmwareVersion'])),
    ...some('address', address),
    ...some('mac', textOf(card?.['MACAddress'])?.toLowerCase()),
  }
}

async function managerOf(client: RedfishClient, system: Resource, signal: AbortSignal): Promise<Resource | undefined> {
  const path = linkOf(listOf(objectOf(system['Links'])?.['ManagedBy'])[0])
  return path === undefined ? undefined : getIfShown(client, path, 'about the manager', signal)
}

async function firstInterface(
  client: RedfishClient,
  manager: Resource,
  signal: AbortSignal,
): Promise<Resource | undefined> {
  const path = linkOf(manager['EthernetInterfaces'])
  const list = path === undefined ? undefined : await getIfShown(client, path, 'for its network cards', signal)
  const first = linkOf(listOf(list?.['Members'])[0])
  return first === undefined ? undefined : getIfShown(client, first, 'about its network card', signal)
}

/** @returns undefined where there is no such thing, or it is not for this user. */
export async function getIfShown(
  client: RedfishClient,
  path: string,
  what: string,
  signal: AbortSignal,
): Promise<Resource | undefined> {
  try {
    return (await client.get(path, what, signal)).resource
  } catch (error) {
    if (isBmcError(error, 'unsupported', 'refused', 'privilege', 'protocol')) return undefined
    throw error
  }
}

function some<Name extends keyof BmcFacts>(name: Name, value: string | undefined): Partial<Record<Name, string>> {
  return value === undefined ? {} : ({ [name]: value } as Partial<Record<Name, string>>)
}
