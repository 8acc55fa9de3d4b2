import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { Health } from '@slipway/proto/provider/v1'
import { follow } from '../client/watch.js'
import { age, collection, errorText, idOf, paged, stateNumbers, type ResourceType } from './resource-type.js'

/** How many there are, and on how many counts something is not offered for a while. */
function offeringsText({ offerings, holds }: hub.Provider): string {
  return holds.length === 0 ? String(offerings.length) : `${offerings.length} (${holds.length} held)`
}

export const providers: ResourceType<hub.Provider> = {
  kind: 'Provider',
  singular: 'provider',
  plural: 'providers',
  aliases: ['p'],
  schema: hub.ProviderSchema,
  columns: [
    { heading: 'NAME', value: (provider) => idOf(provider.name) },
    { heading: 'FAMILY', value: (provider) => provider.family },
    { heading: 'STATE', value: (provider) => hub.ProviderState[provider.state] },
    { heading: 'HEALTH', value: (provider) => Health[provider.health].toLowerCase() },
    { heading: 'INSTANCES', value: (provider) => String(provider.sessions.length) },
    { heading: 'OWNER', wide: true, value: ownerText },
    { heading: 'REGION', wide: true, value: (provider) => provider.region },
    { heading: 'VERSION', wide: true, value: versionText },
    { heading: 'AT WORK', wide: true, value: capacityText },
    { heading: 'RATE BUDGET', wide: true, value: budgetText },
    { heading: 'OFFERINGS', wide: true, value: offeringsText },
    { heading: 'AGE', value: (provider, now) => age(provider.createTime, now) },
    { heading: 'LAST ERROR', value: errorText },
  ],
  fullName: collection('providers'),
  get: async (client, name) => (await client.providers.getProvider({ name })).provider ?? create(hub.ProviderSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const filter = {
        states: stateNumbers(options.states, hub.ProviderState, 'PROVIDER_STATE_'),
        labelSelector: options.selector,
      }
      const page = await client.providers.listProviders({ pageSize: 500, pageToken, filter })
      return { rows: page.providers, nextPageToken: page.nextPageToken }
    }),
  watch: (client, options, signal) =>
    follow(
      (revision, signal) =>
        client.providers.watchProviders(
          { name: options.name, revision, filter: { labelSelector: options.selector } },
          { signal, timeoutMs: 0 },
        ),
      (change) => change.provider,
      { signal },
    ),
  state: (provider) => hub.ProviderState[provider.state],
  terminal: [],
  ready: ['CONNECTED'],
}

export const machineClasses: ResourceType<hub.MachineClass> = {
  kind: 'MachineClass',
  singular: 'machineclass',
  plural: 'machineclasses',
  aliases: ['class', 'classes', 'mc'],
  schema: hub.MachineClassSchema,
  columns: [
    { heading: 'NAME', value: (machineClass) => idOf(machineClass.name) },
    { heading: 'VCPUS', value: (machineClass) => String(machineClass.shape?.vcpus ?? 0) },
    { heading: 'MEMORY', value: (machineClass) => `${machineClass.shape?.memoryMib ?? 0n}Mi` },
    { heading: 'DISK', value: (machineClass) => `${machineClass.shape?.diskGib ?? 0n}Gi` },
    { heading: 'ARCH', value: (machineClass) => machineClass.shape?.architecture ?? '' },
    {
      heading: 'FROM',
      value: (machineClass) =>
        [
          ...machineClass.offerings.map((offering) =>
            [offering.provider === '' ? offering.family : idOf(offering.provider), offering.typeId]
              .filter((part) => part !== '')
              .join(':'),
          ),
          ...(machineClass.machineSelector === undefined ? [] : ['machines']),
        ].join(',') || 'any',
    },
    { heading: 'MADE BY', wide: true, value: (machineClass) => (machineClass.autoCreated ? 'hub' : 'person') },
    { heading: 'AGE', value: (machineClass, now) => age(machineClass.createTime, now) },
  ],
  fullName: collection('machineClasses'),
  get: async (client, name) =>
    (await client.machineClasses.getMachineClass({ name })).machineClass ?? create(hub.MachineClassSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const page = await client.machineClasses.listMachineClasses({
        pageSize: 500,
        pageToken,
        // What the hub made for shapes is kept apart.
        filter: { labelSelector: options.selector, ...(!options.all && { autoCreated: false }) },
      })
      return { rows: page.machineClasses, nextPageToken: page.nextPageToken }
    }),
  watch: (client, options, signal) =>
    follow(
      (revision, signal) =>
        client.machineClasses.watchMachineClasses(
          { name: options.name, revision, filter: { labelSelector: options.selector } },
          { signal, timeoutMs: 0 },
        ),
      (change) => change.machineClass,
      { signal },
    ),
  state: () => '',
  terminal: [],
  ready: [''],
}

/** Whose it is: its owner, or who has claimed it of which pool. */
function ownerText({ owner, pool, claim }: hub.Provider): string {
  if (claim !== undefined) return [idOf(claim.workspace), ...(pool === '' ? [] : [`of ${idOf(pool)}`])].join(' ')
  return pool === '' ? owner : `pool ${idOf(pool)}`
}

function versionText({ sessions }: hub.Provider): string {
  return [...new Set(sessions.map((session) => session.providerVersion))].sort().join(', ')
}

/** What its instances hold of what they take at once, and what waits for one of them. */
function capacityText({ capacity }: hub.Provider): string {
  if (capacity === undefined) return ''
  return `${capacity.held}/${capacity.capacity}${capacity.waiting === 0 ? '' : `, ${capacity.waiting} waiting`}`
}

/** What is left of each rate limit, as the instance saw it that told of it last: all draw on one credential. */
function budgetText({ sessions }: hub.Provider): string {
  const latest = new Map<string, hub.RateBudget>()
  for (const budget of sessions.flatMap((session) => session.budgets)) {
    const seconds = (of: hub.RateBudget | undefined) => of?.observeTime?.seconds ?? -1n
    if (seconds(budget) >= seconds(latest.get(budget.name))) latest.set(budget.name, budget)
  }
  return [...latest.values()].map(({ name, remaining, limit }) => `${name} ${remaining}/${limit}`).join(', ')
}
