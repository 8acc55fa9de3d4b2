import type { Address, Json, ObservedMachine, Power } from '@slipway/sdk'
import type { Server } from './api/types.js'

/** What the hub is told of a server. */
export function observedOf(server: Server): ObservedMachine {
  const power = powerOf(server)
  return {
    externalId: String(server.id),
    ...(power !== undefined && { power }),
    addresses: addressesOf(server),
    attributes: {
      type: server.server_type.name,
      location: server.location.name,
      image: server.image?.name ?? (server.image === null ? null : String(server.image.id)),
      status: server.status,
      primaryIps: primaryIpsOf(server),
    },
  }
}

/** The ids of the primary IPs of a server. */
export function primaryIpsOf({ public_net: { ipv4, ipv6 } }: Server): readonly number[] {
  return [ipv4?.id, ipv6?.id].filter((id) => id !== undefined)
}

/** The same, as it was told to the hub earlier. */
export function primaryIpsKept(attributes: { readonly [key: string]: Json } | undefined): readonly number[] {
  const kept = attributes?.['primaryIps']
  return Array.isArray(kept) ? kept.filter((id) => typeof id === 'number') : []
}

/** Undefined while it is on the way from one to the other. */
function powerOf({ status }: Server): Power | undefined {
  if (status === 'running') return 'on'
  return status === 'off' ? 'off' : undefined
}

function addressesOf({ public_net: { ipv4, ipv6 }, private_net: networks }: Server): readonly Address[] {
  return [
    ...(ipv4 === null ? [] : [{ type: 'public' as const, ip: ipv4.ip }]),
    // The API names the network; the server has its first address.
    ...(ipv6 === null ? [] : [{ type: 'public' as const, ip: ipv6.ip.replace(/::\/\d+$/, '::1') }]),
    ...networks.flatMap(({ ip }) => (ip === undefined ? [] : [{ type: 'private' as const, ip }])),
  ]
}
