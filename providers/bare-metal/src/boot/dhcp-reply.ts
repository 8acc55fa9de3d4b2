import { parseMac } from '../mac.js'
import { option, type DhcpPacket } from './dhcp-packet.js'
import { parseIpv4 } from './ipv4.js'

export type ReplyType = 'offer' | 'ack' | 'nak'

const typeCodes: Readonly<Record<ReplyType, number>> = { offer: 2, ack: 5, nak: 6 }

/** BOOTP's smallest frame; some firmware drops anything smaller. */
const minBytes = 300
/** What every client takes (RFC 2131) without its IP and UDP headers. */
export const defaultMaxBytes = 548
const headerBytes = 240
const maxFileBytes = 127

/** What a server says. Addresses are IPv4 in text. */
export interface Reply {
  readonly type: ReplyType
  /** The server itself, and where boot files come from. */
  readonly serverAddress: string
  /** The address that the client gets. Absent: it gets it from somebody else. */
  readonly yiaddr?: string
  /** Goes into the frame's own field, which all firmware reads, as well as into option 67. */
  readonly bootFile?: string
  /** In order; each at most 255 bytes long. */
  readonly options: readonly (readonly [code: number, value: Buffer])[]
}

/** @throws RangeError where something does not fit: what is configured must be refused before it comes here. */
export function encodeReply(request: DhcpPacket, reply: Reply): Buffer {
  const header = Buffer.alloc(headerBytes)
  header[0] = 2
  header[1] = 1
  header[2] = 6
  header.writeUInt32BE(request.xid, 4)
  header.writeUInt16BE(request.broadcast ? 0x8000 : 0, 10)
  // The client's own address is repeated in an ack alone.
  if (reply.type === 'ack') addressBytes(request.ciaddr).copy(header, 12)
  addressBytes(reply.yiaddr ?? '0.0.0.0').copy(header, 16)
  if (reply.bootFile !== undefined) addressBytes(reply.serverAddress).copy(header, 20)
  addressBytes(request.giaddr).copy(header, 24)
  macBytes(request.mac).copy(header, 28)
  if (reply.bootFile !== undefined) {
    if (Buffer.byteLength(reply.bootFile, 'latin1') > maxFileBytes)
      throw new RangeError(`a boot file name has at most ${maxFileBytes} bytes: ${reply.bootFile}`)
    header.write(reply.bootFile, 108, 'latin1')
  }
  header.writeUInt32BE(0x63825363, 236)
  const options: (readonly [number, Buffer])[] = [
    [option.messageType, Buffer.from([typeCodes[reply.type]])],
    [option.serverId, addressBytes(reply.serverAddress)],
    ...reply.options,
  ]
  // RFC 3046: the relay's option comes back as it was, and last.
  const relay = request.options.get(option.relayAgent)
  if (relay !== undefined) options.push([option.relayAgent, relay])
  const bytes = Buffer.concat([header, ...options.map(encodeOption), Buffer.from([255])])
  return bytes.length < minBytes ? Buffer.concat([bytes, Buffer.alloc(minBytes - bytes.length)]) : bytes
}

function encodeOption([code, value]: readonly [number, Buffer]): Buffer {
  if (value.length > 255) throw new RangeError(`option ${code} has ${value.length} bytes, more than 255`)
  return Buffer.concat([Buffer.from([code, value.length]), value])
}

/** An address as four bytes. @throws RangeError where the text is none. */
export function addressBytes(text: string): Buffer {
  const address = parseIpv4(text)
  if (address === undefined) throw new RangeError(`${text} is no IPv4 address`)
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(address)
  return bytes
}

/** A number of seconds as four bytes. */
export function secondsBytes(seconds: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(Math.min(0xffffffff, Math.max(0, Math.round(seconds))))
  return bytes
}

function macBytes(mac: string): Buffer {
  const parsed = parseMac(mac)
  if (parsed === undefined) throw new RangeError(`${mac} is no MAC address`)
  return Buffer.from(parsed.replaceAll(':', ''), 'hex')
}
