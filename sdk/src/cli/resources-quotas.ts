import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { formatMicros } from './format.js'
import { age, idOf, paged, type ResourceType } from './resource-type.js'

/** What is taken of what there may be: `3/10`; nothing where there is no limit. */
function share(used: bigint | undefined, maximum: bigint | undefined): string {
  return maximum === undefined ? '' : `${used ?? 0n}/${maximum}`
}

function moneyShare(used: bigint | undefined, maximum: bigint | undefined, currency: string): string {
  if (maximum === undefined) return ''
  return `${formatMicros(used ?? 0n, '').trim()}/${formatMicros(maximum, currency)}`
}

export const quotas: ResourceType<hub.Quota> = {
  kind: 'Quota',
  singular: 'quota',
  plural: 'quotas',
  aliases: [],
  schema: hub.QuotaSchema,
  columns: [
    { heading: 'NAME', value: (quota) => idOf(quota.name) },
    { heading: 'ORGANIZATION', value: (quota) => quota.name.split('/')[1] ?? '' },
    {
      heading: 'OF',
      value: (quota) =>
        [quota.workspace, quota.machineClass, quota.family]
          .filter((part) => part !== '')
          .map(idOf)
          .join(',') || 'all',
    },
    { heading: 'HOSTS', value: ({ usage, maxHosts }) => share(usage?.hosts, maxHosts) },
    { heading: 'VCPUS', value: ({ usage, maxVcpus }) => share(usage?.vcpus, maxVcpus) },
    { heading: 'MEMORY MIB', value: ({ usage, maxMemoryMib }) => share(usage?.memoryMib, maxMemoryMib) },
    {
      heading: 'BY THE HOUR',
      value: ({ usage, budget }) => moneyShare(usage?.hourlyMicros, budget?.maxHourlyMicros, budget?.currency ?? ''),
    },
    {
      heading: 'THIS MONTH',
      value: ({ usage, budget }) => moneyShare(usage?.monthlyMicros, budget?.maxMonthlyMicros, budget?.currency ?? ''),
    },
    { heading: 'AGE', wide: true, value: (quota, now) => age(quota.createTime, now) },
  ],
  fullName: inOrganization('quotas'),
  get: async (client, name) => (await client.quotas.getQuota({ name })).quota ?? create(hub.QuotaSchema),
  pages: (client) =>
    paged(async (pageToken) => {
      const page = await client.quotas.listQuotas({ parent: 'organizations/-', pageSize: 500, pageToken })
      return { rows: page.quotas, nextPageToken: page.nextPageToken }
    }),
  state: () => '',
  terminal: [],
  ready: [''],
}

/** `x` is of the organization `default`; `acme/x` is of acme. */
export function inOrganization(collection: string): (id: string) => string {
  return (id) => {
    const [first = '', second, ...rest] = id.split('/')
    if (second === undefined) return `organizations/default/${collection}/${first}`
    return rest.length === 0 ? `organizations/${first}/${collection}/${second}` : id
  }
}
