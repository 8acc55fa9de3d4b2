import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { follow } from '../client/watch.js'
import {
  age,
  className,
  errorText,
  idOf,
  paged,
  powerText,
  priceText,
  providerName,
  stateNumbers,
  timeText,
  type ListOptions,
  type ResourceType,
} from './resource-type.js'

export const hosts: ResourceType<hub.Host> = {
  kind: 'Host',
  singular: 'host',
  plural: 'hosts',
  aliases: ['h'],
  schema: hub.HostSchema,
  columns: [
    { heading: 'NAME', value: (host) => idOf(host.name) },
    { heading: 'CLASS', value: (host) => idOf(host.machineClass) },
    { heading: 'STATE', value: (host) => hub.HostState[host.state] },
    { heading: 'PROVIDER', value: (host) => idOf(host.provider) },
    { heading: 'ADDRESS', value: (host) => host.addresses[0]?.ip ?? '' },
    { heading: 'POWER', wide: true, value: (host) => powerText(host.power) },
    { heading: 'PRICE', value: (host) => priceText(host.price) },
    { heading: 'MACHINE', wide: true, value: (host) => idOf(host.machine) },
    { heading: 'SET', wide: true, value: (host) => idOf(host.hostSet) },
    { heading: 'EXPIRES', wide: true, value: (host) => timeText(host.expireTime) },
    { heading: 'WORKSPACE', wide: true, value: (host) => host.name.split('/')[1] ?? '' },
    { heading: 'AGE', value: (host, now) => age(host.createTime, now) },
    { heading: 'LAST ERROR', value: errorText },
  ],
  fullName: (id, workspace) => (id.includes('/') ? id : `workspaces/${workspace}/hosts/${id}`),
  get: async (client, name) => (await client.hosts.getHost({ name })).host ?? create(hub.HostSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const page = await client.hosts.listHosts({
        parent: parentOf(options),
        pageSize: 500,
        pageToken,
        filter: hostFilter(options),
      })
      return { rows: page.hosts, nextPageToken: page.nextPageToken }
    }),
  watch: (client, options, signal) =>
    follow(
      (revision, signal) =>
        client.hosts.watchHosts(
          { parent: parentOf(options), name: options.name, revision, filter: hostFilter(options) },
          { signal, timeoutMs: 0 },
        ),
      (change) => change.host,
      { signal },
    ),
  state: (host) => hub.HostState[host.state],
  terminal: ['ERROR', 'RELEASED'],
  ready: ['READY'],
}

function parentOf(options: ListOptions): string {
  return `workspaces/${options.allWorkspaces ? '-' : options.workspace}`
}

function hostFilter(options: ListOptions) {
  return {
    states: stateNumbers(options.states, hub.HostState, 'HOST_STATE_'),
    providers: providerName(options.provider),
    machineClasses: className(options.machineClass),
    labelSelector: options.selector,
    showReleased: options.all,
  }
}
