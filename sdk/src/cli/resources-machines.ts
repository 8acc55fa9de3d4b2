import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { follow } from '../client/watch.js'
import {
  age,
  className,
  collection,
  errorText,
  idOf,
  paged,
  powerText,
  providerName,
  stateNumbers,
  type ListOptions,
  type ResourceType,
} from './resource-type.js'

export const machines: ResourceType<hub.Machine> = {
  kind: 'Machine',
  singular: 'machine',
  plural: 'machines',
  aliases: ['m'],
  schema: hub.MachineSchema,
  columns: [
    { heading: 'NAME', value: (machine) => idOf(machine.name) },
    { heading: 'PROVIDER', value: (machine) => idOf(machine.provider) },
    { heading: 'STATE', value: (machine) => hub.MachineState[machine.state] },
    { heading: 'POWER', value: (machine) => powerText(machine.power) },
    { heading: 'HOST', value: (machine) => idOf(machine.host) },
    { heading: 'ADDRESS', value: (machine) => machine.addresses[0]?.ip ?? '' },
    { heading: 'EXTERNAL ID', wide: true, value: (machine) => machine.externalId },
    {
      heading: 'MARKS',
      wide: true,
      value: (machine) =>
        [
          machine.cordoned ? 'cordoned' : '',
          machine.maintenance ? 'maintenance' : '',
          machine.hold === undefined ? '' : 'held',
          machine.inUse ? 'in-use' : '',
          machine.protected ? 'protected' : '',
        ]
          .filter((mark) => mark !== '')
          .join(','),
    },
    { heading: 'AGE', value: (machine, now) => age(machine.createTime, now) },
    { heading: 'LAST ERROR', value: errorText },
  ],
  fullName: collection('machines'),
  get: async (client, name) => (await client.machines.getMachine({ name })).machine ?? create(hub.MachineSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const page = await client.machines.listMachines({ pageSize: 500, pageToken, filter: machineFilter(options) })
      return { rows: page.machines, nextPageToken: page.nextPageToken }
    }),
  watch: (client, options, signal) =>
    follow(
      (revision, signal) =>
        client.machines.watchMachines(
          { name: options.name, revision, filter: machineFilter(options) },
          { signal, timeoutMs: 0 },
        ),
      (change) => change.machine,
      { signal },
    ),
  state: (machine) => hub.MachineState[machine.state],
  terminal: ['VERIFY_FAILED', 'INSPECT_FAILED', 'CLEAN_FAILED', 'PROVISION_FAILED', 'ADOPT_FAILED', 'GONE'],
  ready: ['AVAILABLE', 'ACTIVE'],
}

function machineFilter(options: ListOptions) {
  return {
    states: stateNumbers(options.states, hub.MachineState, 'MACHINE_STATE_'),
    providers: providerName(options.provider),
    labelSelector: options.selector,
    showGone: options.all,
  }
}

export const machineRequests: ResourceType<hub.MachineRequest> = {
  kind: 'MachineRequest',
  singular: 'machinerequest',
  plural: 'machinerequests',
  aliases: ['request', 'requests', 'mr'],
  schema: hub.MachineRequestSchema,
  columns: [
    { heading: 'NAME', value: (request) => idOf(request.name) },
    { heading: 'HOST', value: (request) => idOf(request.host) },
    { heading: 'PROVIDER', value: (request) => idOf(request.provider) },
    { heading: 'TYPE', value: (request) => request.typeId },
    { heading: 'LOCATION', wide: true, value: (request) => request.location },
    { heading: 'STATE', value: (request) => hub.MachineRequestState[request.state] },
    { heading: 'STEP', value: (request) => request.progress?.message ?? '' },
    { heading: 'HOLDER', wide: true, value: (request) => request.holder },
    { heading: 'FENCE', wide: true, value: (request) => String(request.fence) },
    { heading: 'EXTERNAL ID', wide: true, value: (request) => request.externalId },
    { heading: 'AGE', value: (request, now) => age(request.createTime, now) },
    { heading: 'LAST ERROR', value: errorText },
  ],
  fullName: collection('machineRequests'),
  get: async (client, name) =>
    (await client.machineRequests.getMachineRequest({ name })).machineRequest ?? create(hub.MachineRequestSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const page = await client.machineRequests.listMachineRequests({
        pageSize: 500,
        pageToken,
        filter: requestFilter(options),
      })
      return { rows: page.machineRequests, nextPageToken: page.nextPageToken }
    }),
  watch: (client, options, signal) =>
    follow(
      (revision, signal) =>
        client.machineRequests.watchMachineRequests(
          { name: options.name, revision, filter: requestFilter(options) },
          { signal, timeoutMs: 0 },
        ),
      (change) => change.machineRequest,
      { signal },
    ),
  state: (request) => hub.MachineRequestState[request.state],
  terminal: ['FAILED', 'GONE'],
  ready: ['PROVISIONED'],
}

function requestFilter(options: ListOptions) {
  return {
    states: stateNumbers(options.states, hub.MachineRequestState, 'MACHINE_REQUEST_STATE_'),
    providers: providerName(options.provider),
    machineClasses: className(options.machineClass),
    showGone: options.all,
  }
}
