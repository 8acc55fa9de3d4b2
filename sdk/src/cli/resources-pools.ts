import { create } from '@bufbuild/protobuf'
import { durationMs, type Duration } from '@bufbuild/protobuf/wkt'
import * as hub from '@slipway/proto/hub/v1'
import { formatSpan } from './format.js'
import { age, collection, idOf, paged, type ResourceType } from './resource-type.js'

const span = (duration: Duration | undefined) => (duration === undefined ? '' : formatSpan(durationMs(duration)))

export const providerPools: ResourceType<hub.ProviderPool> = {
  kind: 'ProviderPool',
  singular: 'providerpool',
  plural: 'providerpools',
  aliases: ['pool', 'pools'],
  schema: hub.ProviderPoolSchema,
  columns: [
    { heading: 'NAME', value: (pool) => idOf(pool.name) },
    { heading: 'FAMILY', value: (pool) => pool.family },
    { heading: 'REGION', value: (pool) => pool.region },
    { heading: 'CLAIMED', value: (pool) => `${pool.claimed}/${pool.providers}` },
    { heading: 'CLAIM ON', value: (pool) => hub.ClaimTime[pool.claimOn].toLowerCase().replace('_', ' ') },
    { heading: 'INCLUDED HOSTS', value: (pool) => String(pool.includedHosts ?? '') },
    { heading: 'TRIAL', value: (pool) => span(pool.trial) },
    { heading: 'IDLE RELEASE', wide: true, value: (pool) => span(pool.idleRelease) },
    {
      heading: 'FOR',
      wide: true,
      value: (pool) =>
        [...pool.organizations.map(idOf), pool.workspaceSelector].filter((part) => part !== '').join(' '),
    },
    { heading: 'AGE', value: (pool, now) => age(pool.createTime, now) },
  ],
  fullName: collection('providerPools'),
  get: async (client, name) =>
    (await client.providerPools.getProviderPool({ name })).providerPool ?? create(hub.ProviderPoolSchema),
  pages: (client) =>
    paged(async (pageToken) => {
      const page = await client.providerPools.listProviderPools({ pageSize: 500, pageToken })
      return { rows: page.providerPools, nextPageToken: page.nextPageToken }
    }),
  state: () => '',
  terminal: [],
  ready: [''],
}
