import type { OwnedMachine } from '@slipway/sdk'
import { answer } from './api/client.js'
import { listAll } from './api/paging.js'
import type { Cloud } from './cloud.js'
import { anyOwner, ownershipKeyOf } from './labels.js'
import { observedOf } from './observed.js'

/** Lists the servers and volumes that carry an ownership key, of whichever hub. */
export async function* listOwned(cloud: Cloud, signal: AbortSignal): AsyncIterable<OwnedMachine> {
  const client = cloud.api.as('background')
  const owned = { sort: ['id:asc' as const], label_selector: anyOwner }
  const servers = listAll(async (query) => {
    const { servers: items, meta } = await answer(
      client.GET('/servers', { params: { query: { ...query, ...owned } }, signal }),
    )
    return { items, meta }
  })
  for await (const server of servers) {
    const ownershipKey = ownershipKeyOf(server.labels)
    if (ownershipKey !== undefined) yield { ...observedOf(server), ownershipKey, name: server.name, kind: 'server' }
  }
  const volumes = listAll(async (query) => {
    const { volumes: items, meta } = await answer(
      client.GET('/volumes', { params: { query: { ...query, ...owned } }, signal }),
    )
    return { items, meta }
  })
  for await (const { id, name, labels } of volumes) {
    const ownershipKey = ownershipKeyOf(labels)
    if (ownershipKey !== undefined) yield { externalId: String(id), ownershipKey, name, kind: 'volume' }
  }
}
