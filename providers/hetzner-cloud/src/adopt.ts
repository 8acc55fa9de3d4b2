import { ProviderError, type AdoptFunctions } from '@slipway/sdk'
import { answer } from './api/client.js'
import type { Labels, Server } from './api/types.js'
import type { Cloud, Ctx, Work } from './cloud.js'
import type { Config, Credentials } from './config.js'
import { claimOf, ownershipLabels, withoutOwnership } from './labels.js'
import { observedOf } from './observed.js'
import { shapeOf } from './offerings.js'

/**
 * Takes over servers of the project. Labels are all that is ever written. The API replaces all labels of a server at once and has no way to say what they were: whoever
 * changes them between our look and our write is overwritten, so the time between is kept as short as one call.
 */
export function adoptFunctions(cloudFor: (context: Ctx) => Cloud): AdoptFunctions<Config, Credentials> {
  return {
    async find(context, externalId) {
      const server = await serverOf(cloudFor(context), externalId, context)
      if (server === undefined) return undefined
      const { power, ...observed } = observedOf(server)
      if (power === undefined)
        throw new ProviderError(
          'UNAVAILABLE',
          `server ${externalId} is ${server.status}; it is looked at again when that is done`,
        )
      return {
        ...observed,
        power,
        ownershipKey: claimOf(server.labels),
        typeId: server.server_type.name,
        location: server.location.name,
        shape: shapeOf(server.server_type),
      }
    },
    async mark(context, { externalId, ownershipKey }) {
      const cloud = cloudFor(context)
      const server = await serverOf(cloud, externalId, context)
      if (server === undefined) throw gone(externalId)
      const claim = claimOf(server.labels)
      if (claim === ownershipKey) return
      // Somebody was faster than we since it was looked at.
      if (claim !== '')
        throw new ProviderError('CONFLICT', `server ${externalId} has been given another ownership key`, {
          retryable: false,
        })
      await label(context, cloud, server, { ...server.labels, ...ownershipLabels(ownershipKey) })
    },
    async unmark(context, { externalId, ownershipKey }) {
      const cloud = cloudFor(context)
      const server = await serverOf(cloud, externalId, context)
      if (server === undefined || claimOf(server.labels) !== ownershipKey) return
      await label(context, cloud, server, withoutOwnership(server.labels))
    },
  }
}

/** A server that is not about to go; what is no id of the vendor's is nobody's. */
async function serverOf(cloud: Cloud, externalId: string, { signal }: Ctx): Promise<Server | undefined> {
  if (!/^[1-9]\d{0,15}$/.test(externalId)) return undefined
  const server = await cloud.server(Number(externalId), 'normal', signal)
  return server?.status === 'deleting' ? undefined : server
}

async function label({ signal }: Work, cloud: Cloud, { id }: Server, labels: Labels): Promise<void> {
  const request = { params: { path: { id } }, body: { labels }, signal }
  await cloud.whenFree(`labels of server ${id}`, signal, () =>
    answer(cloud.api.as('normal').PUT('/servers/{id}', request)),
  )
}

function gone(externalId: string): ProviderError {
  return new ProviderError('INVALID_SPEC', `server ${externalId} is gone`, {
    externalCode: 'not_found',
    retryable: false,
  })
}
