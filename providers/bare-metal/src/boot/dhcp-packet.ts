import { macOfBytes } from '../mac.js'
import { formatIpv4 } from './ipv4.js'

/**
 * The BOOTP frame with DHCP options: RFC 2131 (frame), 2132 (options), 3396 (long options). Nothing is guessed: what is not formed as those
 * say is refused as a whole, with a reason.
 */
export interface DhcpPacket {
  readonly hops: number
  readonly xid: number
  readonly secs: number
  readonly broadcast: boolean
  /** The client's own address, `0.0.0.0` where it has none. */
  readonly ciaddr: string
  /** The relay's address, `0.0.0.0` where there is none. */
  readonly giaddr: string
  /** Lower case with colons. */
  readonly mac: string
  /** By code. Parts of one code are joined in their order. */
  readonly options: ReadonlyMap<number, Buffer>
}

/** Why a datagram is not looked at any further. */
export interface Malformed {
  readonly malformed: string
}

const fixedBytes = 236
const cookie = 0x63825363
const optionsStart = fixedBytes + 4
const maxBytes = 1500
const maxOptions = 96
const maxHops = 16

export const option = {
  subnetMask: 1,
  router: 3,
  dns: 6,
  vendorSpecific: 43,
  requestedAddress: 50,
  leaseTime: 51,
  overload: 52,
  messageType: 53,
  serverId: 54,
  parameterList: 55,
  maxMessageSize: 57,
  renewalTime: 58,
  rebindingTime: 59,
  vendorClass: 60,
  clientId: 61,
  tftpServer: 66,
  bootFile: 67,
  userClass: 77,
  relayAgent: 82,
  clientArch: 93,
  clientNic: 94,
  clientUuid: 97,
  ipxe: 175,
} as const

/** Reads a client's datagram. */
export function parsePacket(bytes: Buffer): DhcpPacket | Malformed {
  if (bytes.length < optionsStart) return { malformed: `${bytes.length} bytes are too few for a DHCP message` }
  if (bytes.length > maxBytes) return { malformed: `${bytes.length} bytes are too many for a DHCP message` }
  if (bytes[0] !== 1) return { malformed: `operation ${bytes[0]} is no client's` }
  if (bytes[1] !== 1 || bytes[2] !== 6) return { malformed: `hardware type ${bytes[1]} is not Ethernet` }
  const hops = bytes[3] ?? 0
  if (hops > maxHops) return { malformed: `${hops} hops are too many` }
  if (bytes.readUInt32BE(fixedBytes) !== cookie) return { malformed: 'the magic cookie is missing' }
  const options = parseOptions(bytes.subarray(optionsStart))
  if ('malformed' in options) return options
  const fault = faultOf(options)
  if (fault !== undefined) return { malformed: fault }
  return {
    hops,
    xid: bytes.readUInt32BE(4),
    secs: bytes.readUInt16BE(8),
    broadcast: bytes.readUInt16BE(10) >= 0x8000,
    ciaddr: formatIpv4(bytes.readUInt32BE(12)),
    giaddr: formatIpv4(bytes.readUInt32BE(24)),
    mac: macOfBytes(bytes.subarray(28, 34)),
    options,
  }
}

function parseOptions(bytes: Buffer): ReadonlyMap<number, Buffer> | Malformed {
  const options = new Map<number, Buffer>()
  let count = 0
  for (let at = 0; at < bytes.length;) {
    const code = bytes[at] ?? 0
    at += 1
    if (code === 0) continue
    if (code === 255) return options
    const length = bytes[at]
    if (length === undefined || at + 1 + length > bytes.length) return { malformed: `option ${code} is cut off` }
    count += 1
    if (count > maxOptions) return { malformed: `more than ${maxOptions} options` }
    const value = bytes.subarray(at + 1, at + 1 + length)
    const before = options.get(code)
    options.set(code, before === undefined ? value : Buffer.concat([before, value]))
    at += 1 + length
  }
  return { malformed: 'the options have no end' }
}

/** What each option that concerns us must look like. */
const forms: Readonly<Record<number, (value: Buffer) => boolean>> = {
  [option.messageType]: (value) => value.length === 1 && [1, 3, 4, 7, 8].includes(value[0] ?? 0),
  [option.requestedAddress]: (value) => value.length === 4,
  [option.serverId]: (value) => value.length === 4,
  [option.parameterList]: (value) => value.length > 0,
  [option.maxMessageSize]: (value) => value.length === 2 && value.readUInt16BE(0) >= 576,
  [option.vendorClass]: (value) => value.length > 0 && value.length <= 255 && isPrintable(value),
  [option.clientId]: (value) => value.length >= 2 && value.length <= 255,
  [option.userClass]: (value) => value.length > 0 && value.length <= 255,
  [option.relayAgent]: (value) => parseSuboptions(value, 'no end') !== undefined,
  [option.clientArch]: (value) => value.length >= 2 && value.length <= 16 && value.length % 2 === 0,
  [option.clientNic]: (value) => value.length === 3 && value[0] === 1,
  // Some firmware sends it empty where it has none.
  [option.clientUuid]: (value) => value.length === 0 || (value.length === 17 && value[0] === 0),
  [option.vendorSpecific]: (value) => parseSuboptions(value, 'may end') !== undefined,
  [option.ipxe]: (value) => parseSuboptions(value, 'may end') !== undefined,
}

function faultOf(options: ReadonlyMap<number, Buffer>): string | undefined {
  if (!options.has(option.messageType)) return 'it has no message type: BOOTP is not served'
  if (options.has(option.overload)) return 'options in the name fields are not read'
  for (const [code, value] of options) if (forms[code]?.(value) === false) return `option ${code} is not well formed`
  return undefined
}

/**
 * The parts of an option that holds options of its own: 43 (PXE 2.1), 82 (RFC 3046) and 175 (iPXE).
 *
 * @param end whether 255 ends them, and 0 is filling, as in 43 and 175; in 82 neither has a meaning of its own.
 * @returns undefined where they are not well formed.
 */
export function parseSuboptions(
  value: Buffer,
  end: 'may end' | 'no end' = 'may end',
): ReadonlyMap<number, Buffer> | undefined {
  const parts = new Map<number, Buffer>()
  for (let at = 0; at < value.length;) {
    const code = value[at] ?? 0
    if (end === 'may end' && code === 255) return parts
    if (end === 'may end' && code === 0) {
      at += 1
      continue
    }
    const length = value[at + 1]
    if (length === undefined || at + 2 + length > value.length) return undefined
    parts.set(code, value.subarray(at + 2, at + 2 + length))
    at += 2 + length
  }
  return parts
}

function isPrintable(value: Buffer): boolean {
  return value.every((byte) => byte >= 0x20 && byte < 0x7f)
}
