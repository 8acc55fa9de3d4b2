import { lookup } from 'node:dns/promises'
import { BlockList, isIP } from 'node:net'
import { BmcError } from './errors.js'

/**
 * Addresses that no BMC has: link-local ones (clouds serve their instances' secrets at 169.254.169.254), "this network", multicast and
 * broadcast. Loopback is allowed: simulators and forwarded ports are there, and whoever configures a provider owns its host.
 */
const implausible = new BlockList()
implausible.addSubnet('0.0.0.0', 8)
implausible.addSubnet('169.254.0.0', 16)
implausible.addSubnet('224.0.0.0', 3)
implausible.addAddress('::', 'ipv6')
implausible.addSubnet('fe80::', 10, 'ipv6')
implausible.addSubnet('ff00::', 8, 'ipv6')

/** Whether a BMC may have this IP address. IPv4 in IPv6 counts as the IPv4 that it is. */
export function isPlausibleBmcAddress(ip: string): boolean {
  const family = isIP(ip)
  if (family === 0) return false
  return !implausible.check(ip, family === 6 ? 'ipv6' : 'ipv4')
}

export interface ResolvedAddress {
  readonly ip: string
  readonly family: 4 | 6
}

/**
 * Finds the one address that is then talked to: what was checked is what is connected to, whatever the name says a moment later.
 * @throws BmcError `unreachable` where the name is unknown, `address-forbidden` where it leads to an address that is not allowed.
 */
export async function resolveBmcAddress(
  host: string,
  allow: (ip: string) => boolean = isPlausibleBmcAddress,
): Promise<ResolvedAddress> {
  const bare = host.startsWith('[') && host.endsWith(']') ? host.slice(1, -1) : host
  const found = await lookUp(bare)
  if (!allow(found.ip)) {
    const via = found.ip === bare ? '' : ` (that is what ${bare} stands for)`
    throw new BmcError(
      'address-forbidden',
      `${found.ip}${via} is no address that a BMC may have here; correct the BMC's address`,
    )
  }
  return found
}

async function lookUp(host: string): Promise<ResolvedAddress> {
  const family = isIP(host)
  if (family === 4 || family === 6) return { ip: host, family }
  try {
    const { address, family: found } = await lookup(host)
    return { ip: address, family: found === 6 ? 6 : 4 }
  } catch (thrown) {
    const code = (thrown as NodeJS.ErrnoException).code ?? 'unknown'
    throw new BmcError('unreachable', `the BMC's name ${host} was not found (${code})`, { said: code, cause: thrown })
  }
}
