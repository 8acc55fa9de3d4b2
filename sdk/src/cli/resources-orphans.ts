import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { age, errorText, idOf, paged, providerName, stateNumbers, type ResourceType } from './resource-type.js'

export const orphans: ResourceType<hub.Orphan> = {
  kind: 'Orphan',
  singular: 'orphan',
  plural: 'orphans',
  aliases: ['o'],
  schema: hub.OrphanSchema,
  columns: [
    { heading: 'NAME', value: (orphan) => idOf(orphan.name) },
    { heading: 'PROVIDER', value: (orphan) => idOf(orphan.provider) },
    { heading: 'KIND', value: (orphan) => orphan.kind },
    { heading: 'EXTERNAL ID', value: (orphan) => orphan.externalId },
    { heading: 'CALLED', value: (orphan) => orphan.externalName },
    { heading: 'STATE', value: (orphan) => hub.OrphanState[orphan.state] },
    { heading: 'WHY', value: (orphan, now) => whyText(orphan, now) },
    { heading: 'SIGHTINGS', value: (orphan) => String(orphan.sightings) },
    { heading: 'REQUEST', wide: true, value: (orphan) => idOf(orphan.machineRequest) },
    { heading: 'OWNERSHIP KEY', wide: true, value: (orphan) => orphan.ownershipKey },
    { heading: 'MORE', wide: true, value: (orphan) => orphan.keptFor || orphan.keepMessage },
    { heading: 'AGE', value: (orphan, now) => age(orphan.firstSeenTime, now) },
    { heading: 'LAST ERROR', value: errorText },
  ],
  fullName: orphanFullName,
  get: async (client, name) => (await client.orphans.getOrphan({ name })).orphan ?? create(hub.OrphanSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const [parent = 'providers/-'] = providerName(options.provider)
      const filter = { states: stateNumbers(options.states, hub.OrphanState, 'ORPHAN_STATE_') }
      const page = await client.orphans.listOrphans({ parent, pageSize: 500, pageToken, filter })
      return { rows: page.orphans, nextPageToken: page.nextPageToken }
    }),
  state: (orphan) => hub.OrphanState[orphan.state],
  terminal: [],
  ready: [],
}

/** Why it is kept, or since when its removal is ordered. */
function whyText(orphan: hub.Orphan, now: number): string {
  if (orphan.keepReason !== hub.OrphanKeepReason.UNSPECIFIED) return hub.OrphanKeepReason[orphan.keepReason]
  return `ordered ${age(orphan.removalOrderTime, now)} ago by ${orphan.removalOrderedBy}`
}

/** `o-1` and `cloud/o-1` are as good as the whole name: ids are unique over all providers. */
function orphanFullName(id: string): string {
  const [first = '', second, ...rest] = id.split('/')
  if (second === undefined) return `providers/-/orphans/${first}`
  return rest.length === 0 ? `providers/${first}/orphans/${second}` : id
}
