import type { ObservedMachine } from '@slipway/sdk'
import type { ServerView } from './cloud.js'

/** What the hub is told of a server. */
export function observedOf({ id, power, addresses, type, location, image, status }: ServerView): ObservedMachine {
  return {
    externalId: id,
    ...(power !== undefined && { power }),
    addresses: addresses.map((ip) => ({ type: ip.startsWith('10.') ? 'private' : 'public', ip })),
    attributes: { type, location, image, status },
  }
}
