import { option, type DhcpPacket } from './dhcp-packet.js'
import { addressBytes, encodeReply, secondsBytes, type Reply } from './dhcp-reply.js'
import type { Leases } from './dhcp-leases.js'
import { readClient, type Firmware, type PxeClient, type Stage } from './pxe-client.js'

/** Whether the provider has to do with a machine that asks, and what it may have. */
export type Admission =
  /** It may boot from here now. */
  | { readonly admit: 'boot' }
  /** It may have an address, where addresses are ours to give, and nothing to boot from. */
  | { readonly admit: 'address' }
  /** It gets no answer. `rogue`: it pretends to be somebody. */
  | { readonly admit: 'nothing'; readonly why: string; readonly rogue: boolean }

/** What the decision needs to know of the world. */
export interface DhcpSite {
  /** Our address in the segment. */
  readonly serverAddress: string
  /** Base of the boot endpoint, for example `http://10.0.0.2:8080`. */
  readonly bootUrl: string
  /**
   * `proxy`: another server gives addresses; we say only what to boot. `pxe-service`: it also says that we are the boot server, and we answer on port 4011
   * alone. `full`: all is ours.
   */
  readonly mode: 'proxy' | 'pxe-service' | 'full'
  /** Of `full`. */
  readonly network?: { readonly mask: string; readonly router?: string; readonly dns: readonly string[] }
  readonly leases?: Leases
  /** Of `full`: whether machines that are known have an address also while they may not boot. */
  readonly addressKnown?: boolean
}

/** Where a packet came in. */
export interface Arrival {
  readonly port: 67 | 4011
  readonly address: string
  readonly sourcePort: number
  readonly nowMs: number
}

export type DhcpDecision =
  | {
      readonly decision: 'reply'
      readonly bytes: Buffer
      readonly to: { readonly address: string; readonly port: number }
      /** For people. */
      readonly note: string
    }
  | { readonly decision: 'silence'; readonly why: string; readonly rogue: boolean }

/** iPXE programs by firmware: names of the files that TFTP and HTTP serve. */
export const ipxePrograms: Readonly<Record<Firmware, string>> = { bios: 'undionly.kpxe', uefi: 'snponly.efi' }

const pxeClient = Buffer.from('PXEClient')
const httpClient = Buffer.from('HTTPClient')
/** PXE 2.1, tag 6: take the file of this very answer; look for no boot servers, and show no menu. */
const takeThisFile = Buffer.from([6, 1, 8])
const end = Buffer.from([255])
/** iPXE's own option, tag 176: do not wait for another server's boot file. */
const noProxyDhcp = Buffer.from([176, 1, 1])
const serverPort = 67
const clientPort = 68

/**
 * What to answer to one packet. Pure, but for leases. It never answers a machine that was not admitted, whatever it asks.
 *
 * @param admit asked once, with the MAC and, where it was said, the SMBIOS UUID.
 */
export function decide(
  packet: DhcpPacket,
  arrival: Arrival,
  site: DhcpSite,
  admit: (mac: string, uuid: string | undefined) => Admission,
): DhcpDecision {
  const client = readClient(packet)
  const concern = concernsUs(packet, client, arrival, site)
  if (concern !== undefined) return silence(concern)
  const admission = admit(packet.mac, client.uuid)
  if (admission.admit === 'nothing') return silence(admission.why, admission.rogue)
  const boots = admission.admit === 'boot'
  if (!boots && site.addressKnown !== true) return silence('it may not boot now')
  if (arrival.port === 4011)
    return boots ? bootReply(packet, client, arrival, site, 'ack') : silence('it may not boot now')
  if (site.mode === 'full') return serve(packet, client, arrival, site, boots)
  return boots ? bootReply(packet, client, arrival, site, 'offer') : silence('it may not boot now')
}

/** Why a packet is none of our business; undefined: it is. Answered without looking at who sent it. */
function concernsUs(
  packet: DhcpPacket,
  { message, boot }: PxeClient,
  { port }: Arrival,
  site: DhcpSite,
): string | undefined {
  if (boot?.stage === 'unsupported') return `there is no iPXE for architecture ${boot.architecture}`
  if (port === 4011) {
    if (boot === undefined) return 'it is no PXE client'
    return message === 'request' || message === 'inform' ? undefined : `a ${message} does not belong on port 4011`
  }
  if (site.mode === 'pxe-service') return 'port 67 is the business of the other server'
  if (site.mode === 'full') {
    const chosen = packet.options.get(option.serverId)
    const isOurs = chosen === undefined || chosen.equals(addressBytes(site.serverAddress))
    return isOurs ? undefined : 'it has chosen another server'
  }
  if (boot === undefined) return 'it is no PXE client'
  return message === 'discover' ? undefined : `a ${message} is the business of the server that gives addresses`
}

/** Boot information without an address. */
function bootReply(
  packet: DhcpPacket,
  client: PxeClient,
  arrival: Arrival,
  site: DhcpSite,
  type: 'offer' | 'ack',
): DhcpDecision {
  const boot = bootOf(client, site)
  if (boot === undefined) return silence('it is no PXE client')
  const options = [
    ...pxeOptions(packet, client),
    [option.tftpServer, Buffer.from(site.serverAddress)],
    [option.bootFile, Buffer.from(boot.file)],
  ] as const
  const reply: Reply = { type, serverAddress: site.serverAddress, bootFile: boot.file, options: [...options] }
  return answer(packet, reply, arrival, boot.file)
}

function pxeOptions(packet: DhcpPacket, client: PxeClient): (readonly [number, Buffer])[] {
  const isHttp = client.boot?.stage === 'http-firmware'
  const item = client.bootItem === undefined ? Buffer.alloc(0) : Buffer.concat([Buffer.from([71, 4]), client.bootItem])
  const uuid = packet.options.get(option.clientUuid)
  return [
    [option.vendorClass, isHttp ? httpClient : pxeClient],
    ...(uuid === undefined || uuid.length === 0 ? [] : [[option.clientUuid, uuid] as const]),
    ...(isHttp ? [] : [[option.vendorSpecific, Buffer.concat([takeThisFile, item, end])] as const]),
  ]
}

/** What a client is to load next. */
function bootOf({ boot }: PxeClient, { bootUrl }: DhcpSite): { readonly file: string } | undefined {
  if (boot === undefined) return undefined
  return { file: fileOf(boot, bootUrl) }
}

function fileOf(boot: Stage, bootUrl: string): string {
  switch (boot.stage) {
    case 'ipxe':
      return ipxeScriptUrl(bootUrl)
    case 'http-firmware':
      return `${bootUrl}/boot/ipxe/${ipxePrograms.uefi}`
    case 'firmware':
      return ipxePrograms[boot.firmware]
    case 'unsupported':
      throw new Error('a client that nothing runs on is not answered')
  }
}

/** What iPXE is told to run: it fills in who it is. At most 127 characters, as the frame has no room for more. */
export function ipxeScriptUrl(bootUrl: string): string {
  return `${bootUrl}/boot/script?mac=\${netX/mac}&uuid=\${uuid}`
}

/** A whole DHCP server, for machines of ours. */
function serve(packet: DhcpPacket, client: PxeClient, arrival: Arrival, site: DhcpSite, boots: boolean): DhcpDecision {
  const { leases } = site
  if (leases === undefined) throw new Error('a full DHCP server has leases')
  const requested = packet.options.get(option.requestedAddress)
  const wanted = requested === undefined ? undefined : [...requested].join('.')
  switch (client.message) {
    case 'discover': {
      const address = leases.offer(packet.mac, wanted, arrival.nowMs)
      if (address === undefined) return silence('no address is left in the pool')
      return grant(packet, client, arrival, site, boots, 'offer', address)
    }
    case 'request': {
      // Which of the two depends on whether it has its address already (RFC 2131, 4.3.2).
      const address = packet.ciaddr === '0.0.0.0' ? wanted : packet.ciaddr
      if (address === undefined) return silence('a request without an address')
      if (leases.take(packet.mac, address, arrival.nowMs))
        return grant(packet, client, arrival, site, boots, 'ack', address)
      return answer(packet, { type: 'nak', serverAddress: site.serverAddress, options: [] }, arrival, `not ${address}`)
    }
    case 'decline':
      if (wanted !== undefined) leases.decline(packet.mac, wanted, arrival.nowMs)
      return silence('a decline has no answer')
    case 'release':
      leases.release(packet.mac, packet.ciaddr)
      return silence('a release has no answer')
    case 'inform':
      return grant(packet, client, arrival, site, boots, 'ack', undefined)
  }
}

function grant(
  packet: DhcpPacket,
  client: PxeClient,
  arrival: Arrival,
  site: DhcpSite,
  boots: boolean,
  type: 'offer' | 'ack',
  address: string | undefined,
): DhcpDecision {
  const boot = boots ? bootOf(client, site) : undefined
  const { network, leases } = site
  const leaseSeconds = (leases?.leaseMs ?? 0) / 1000
  const options: (readonly [number, Buffer])[] = []
  if (address !== undefined)
    options.push(
      [option.leaseTime, secondsBytes(leaseSeconds)],
      [option.renewalTime, secondsBytes(leaseSeconds / 2)],
      [option.rebindingTime, secondsBytes((leaseSeconds * 7) / 8)],
    )
  if (network !== undefined) {
    options.push([option.subnetMask, addressBytes(network.mask)])
    if (network.router !== undefined) options.push([option.router, addressBytes(network.router)])
    if (network.dns.length > 0) options.push([option.dns, Buffer.concat(network.dns.map(addressBytes))])
  }
  if (boot !== undefined) {
    options.push(...pxeOptions(packet, client))
    options.push([option.tftpServer, Buffer.from(site.serverAddress)], [option.bootFile, Buffer.from(boot.file)])
    if (client.boot?.stage === 'ipxe') options.push([option.ipxe, noProxyDhcp])
  }
  const reply: Reply = {
    type,
    serverAddress: site.serverAddress,
    ...(address !== undefined && { yiaddr: address }),
    ...(boot !== undefined && { bootFile: boot.file }),
    options,
  }
  return answer(packet, reply, arrival, [address, boot?.file].filter((part) => part !== undefined).join(' '))
}

function answer(packet: DhcpPacket, reply: Reply, arrival: Arrival, what: string): DhcpDecision {
  return {
    decision: 'reply',
    bytes: encodeReply(packet, reply),
    to: destinationOf(packet, reply, arrival),
    note: `${reply.type} ${what}`,
  }
}

/** RFC 2131, 4.1. A client without an address cannot be reached but by broadcast, as nobody knows it by ARP yet. */
function destinationOf(packet: DhcpPacket, { type }: Reply, arrival: Arrival): { address: string; port: number } {
  if (arrival.port === 4011) return { address: arrival.address, port: arrival.sourcePort }
  if (packet.giaddr !== '0.0.0.0') return { address: packet.giaddr, port: serverPort }
  if (packet.ciaddr !== '0.0.0.0' && type !== 'nak') return { address: packet.ciaddr, port: clientPort }
  return { address: '255.255.255.255', port: clientPort }
}

function silence(why: string, rogue = false): DhcpDecision {
  return { decision: 'silence', why, rogue }
}
