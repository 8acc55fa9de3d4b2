import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { follow } from '../client/watch.js'
import { age, idOf, paged, type ListOptions, type ResourceType } from './resource-type.js'

export const hostSets: ResourceType<hub.HostSet> = {
  kind: 'HostSet',
  singular: 'hostset',
  plural: 'hostsets',
  aliases: ['hs'],
  schema: hub.HostSetSchema,
  columns: [
    { heading: 'NAME', value: (set) => idOf(set.name) },
    { heading: 'CLASS', value: (set) => idOf(set.template?.machineClass ?? '') },
    { heading: 'WANTED', value: (set) => `${set.replicas}` },
    { heading: 'READY', value: (set) => `${set.readyReplicas}` },
    { heading: 'UP TO DATE', value: (set) => `${set.updatedReplicas}` },
    { heading: 'UNHEALTHY', value: (set) => `${set.unhealthyReplicas}` },
    { heading: 'RELEASING', wide: true, value: (set) => `${set.releasingReplicas}` },
    { heading: 'STATE', value: (set) => hub.HostSetState[set.state] },
    { heading: 'WORKSPACE', wide: true, value: (set) => set.name.split('/')[1] ?? '' },
    { heading: 'AGE', value: (set, now) => age(set.createTime, now) },
    { heading: 'MESSAGE', value: (set) => set.stateMessage.slice(0, 80) },
  ],
  fullName: (id, workspace) => (id.includes('/') ? id : `workspaces/${workspace}/hostSets/${id}`),
  get: async (client, name) => (await client.hostSets.getHostSet({ name })).hostSet ?? create(hub.HostSetSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const page = await client.hostSets.listHostSets({
        parent: parentOf(options),
        pageSize: 500,
        pageToken,
        filter: { labelSelector: options.selector },
      })
      return { rows: page.hostSets, nextPageToken: page.nextPageToken }
    }),
  watch: (client, options, signal) =>
    follow(
      (revision, signal) =>
        client.hostSets.watchHostSets(
          {
            parent: parentOf(options),
            name: options.name,
            revision,
            filter: { labelSelector: options.selector },
          },
          { signal, timeoutMs: 0 },
        ),
      (change) => change.hostSet,
      { signal },
    ),
  state: (set) => hub.HostSetState[set.state],
  // Each of them can be left without a person.
  terminal: [],
  ready: ['READY'],
}

function parentOf(options: ListOptions): string {
  return `workspaces/${options.allWorkspaces ? '-' : options.workspace}`
}
