import { option } from '../src/boot/dhcp-packet.js'
import { addressBytes } from '../src/boot/dhcp-reply.js'

/** What a client of a test says. */
export interface ClientPacket {
  readonly type?: number
  readonly mac?: string
  readonly xid?: number
  readonly ciaddr?: string
  readonly giaddr?: string
  readonly hops?: number
  readonly broadcast?: boolean
  readonly options?: readonly (readonly [code: number, value: Buffer | string])[]
}

export const messageType = { discover: 1, request: 3, decline: 4, release: 7, inform: 8 } as const

export const testMac = '52:54:00:12:34:56'
export const testUuid = '4c4c4544-0051-4810-8056-b4c04f595931'

/** A DHCP packet as a client sends it. */
export function clientPacket(packet: ClientPacket = {}): Buffer {
  const header = Buffer.alloc(240)
  header[0] = 1
  header[1] = 1
  header[2] = 6
  header[3] = packet.hops ?? 0
  header.writeUInt32BE(packet.xid ?? 0x1234, 4)
  header.writeUInt16BE(packet.broadcast === true ? 0x8000 : 0, 10)
  addressBytes(packet.ciaddr ?? '0.0.0.0').copy(header, 12)
  addressBytes(packet.giaddr ?? '0.0.0.0').copy(header, 24)
  Buffer.from((packet.mac ?? testMac).replaceAll(':', ''), 'hex').copy(header, 28)
  header.writeUInt32BE(0x63825363, 236)
  const options: (readonly [number, Buffer | string])[] = [
    [option.messageType, Buffer.from([packet.type ?? messageType.discover])],
    ...(packet.options ?? []),
  ]
  const encoded = options.map(([code, value]) => {
    const bytes = Buffer.from(value)
    return Buffer.concat([Buffer.from([code, bytes.length]), bytes])
  })
  return Buffer.concat([header, ...encoded, Buffer.from([255])])
}

/** The options of firmware that boots from the network. @param arch IANA's number: 0 BIOS, 7 x64 UEFI. */
export function firmwareOptions(arch = 0, uuid = testUuid): readonly (readonly [number, Buffer | string])[] {
  return [
    [option.vendorClass, `PXEClient:Arch:${String(arch).padStart(5, '0')}:UNDI:003016`],
    [option.clientArch, Buffer.from([0, arch])],
    [option.clientNic, Buffer.from([1, 3, 16])],
    [option.clientUuid, uuidOption(uuid)],
  ]
}

/** What iPXE says on top: that it is iPXE, and that it can load by HTTP. */
export function ipxeOptions(arch = 0): readonly (readonly [number, Buffer | string])[] {
  return [...firmwareOptions(arch), [option.userClass, 'iPXE'], [option.ipxe, Buffer.from([19, 1, 1, 24, 1, 1])]]
}

export function uuidOption(uuid: string): Buffer {
  return Buffer.concat([Buffer.from([0]), Buffer.from(uuid.replaceAll('-', ''), 'hex')])
}

/** A server's answer, read back as plainly as can be. */
export function readReply(bytes: Buffer) {
  const options = new Map<number, Buffer>()
  for (let at = 240; at < bytes.length && bytes[at] !== 255;) {
    const [code = 0, length = 0] = [bytes[at], bytes[at + 1]]
    options.set(code, bytes.subarray(at + 2, at + 2 + length))
    at += 2 + length
  }
  return {
    op: bytes[0],
    xid: bytes.readUInt32BE(4),
    yiaddr: [...bytes.subarray(16, 20)].join('.'),
    siaddr: [...bytes.subarray(20, 24)].join('.'),
    mac: bytes.subarray(28, 34).toString('hex'),
    file: bytes.subarray(108, 236).toString('latin1').replace(/\0.*$/s, ''),
    type: options.get(option.messageType)?.[0],
    options,
  }
}
