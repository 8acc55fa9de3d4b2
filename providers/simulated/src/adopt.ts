import { ProviderError, type AdoptFunctions, type Context } from '@slipway/sdk'
import type { Cloud } from './cloud.js'
import type { CloudConfig, Credentials } from './config.js'
import { isRefusal } from './errors.js'
import { observedOf } from './observed.js'

type Functions = AdoptFunctions<CloudConfig, Credentials>

/** Takes over servers of the simulated cloud: the label that says whose they are is all that is ever written. */
export function adoptFunctions(cloudFor: (context: Context<CloudConfig, Credentials>) => Cloud): Functions {
  return {
    async find(context, externalId) {
      const cloud = cloudFor(context)
      const server = await cloud.getServer(externalId, context.signal)
      if (server === undefined || server.status === 'deleting') return undefined
      const { id, ownershipKey, type: typeId, location, status, power } = server
      if (power === undefined || status === 'reinstalling')
        throw new ProviderError('UNAVAILABLE', `server ${id} is ${status}; it is looked at again when that is done`)
      const known = (await cloud.listTypes(context.signal)).find(({ type }) => type.id === typeId)?.type
      return {
        ...observedOf(server),
        power,
        ownershipKey,
        typeId,
        location,
        ...(known !== undefined && {
          shape: {
            vcpus: known.vcpus,
            memoryMib: known.memoryMib,
            diskGib: known.diskGib,
            diskClass: known.diskClass,
            architecture: known.architecture,
          },
        }),
      }
    },
    mark: (context, { externalId, ownershipKey }) =>
      cloudFor(context).keyServer(externalId, { from: '', to: ownershipKey }, context.signal),
    async unmark(context, { externalId, ownershipKey }) {
      try {
        await cloudFor(context).keyServer(externalId, { from: ownershipKey, to: '' }, context.signal)
      } catch (thrown) {
        if (!isRefusal(thrown, 'not-found')) throw thrown
      }
    },
  }
}
