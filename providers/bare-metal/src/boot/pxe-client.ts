import { option, parseSuboptions, type DhcpPacket } from './dhcp-packet.js'

export type MessageType = 'discover' | 'request' | 'decline' | 'release' | 'inform'

const messageTypes: Readonly<Record<number, MessageType>> = {
  1: 'discover',
  3: 'request',
  4: 'decline',
  7: 'release',
  8: 'inform',
}

export type Firmware = 'bios' | 'uefi'

/** Which program a client asks for, and how it can load it. */
export type Stage =
  /** The firmware's own PXE: it loads by TFTP. */
  | { readonly stage: 'firmware'; readonly firmware: Firmware }
  /** UEFI that loads by HTTP, without TFTP. */
  | { readonly stage: 'http-firmware' }
  /** iPXE, which takes a script by HTTP. */
  | { readonly stage: 'ipxe'; readonly firmware: Firmware }
  /** A PXE client that nothing here runs on. */
  | { readonly stage: 'unsupported'; readonly architecture: number }

/** What a client says of itself, as far as network boot is concerned. */
export interface PxeClient {
  readonly message: MessageType
  /** Undefined: it is no PXE client, but an operating system that wants an address. */
  readonly boot: Stage | undefined
  /** SMBIOS UUID in lower case, in the order of bytes that it came in. */
  readonly uuid: string | undefined
  /** The item of a boot menu that it asks for, by type and layer (PXE 2.1, tag 71). */
  readonly bootItem: Buffer | undefined
}

/** Client architectures: IANA, "Processor Architecture Types". 9 was given to x64 for so long that all firmware sends either. */
const architectures: Readonly<Record<number, Stage>> = {
  0: { stage: 'firmware', firmware: 'bios' },
  7: { stage: 'firmware', firmware: 'uefi' },
  9: { stage: 'firmware', firmware: 'uefi' },
  16: { stage: 'http-firmware' },
}

const bootItemTag = 71
/** iPXE tells in option 175 what it was built with; 19 is HTTP. */
const ipxeHttpTag = 19

/** Reads what concerns network boot out of a packet. */
export function readClient(packet: DhcpPacket): PxeClient {
  const { options } = packet
  const message = messageTypes[options.get(option.messageType)?.[0] ?? 0] ?? 'inform'
  const vendor = options.get(option.vendorSpecific)
  const bootItem = vendor === undefined ? undefined : parseSuboptions(vendor)?.get(bootItemTag)
  return {
    message,
    boot: stageOf(packet),
    uuid: uuidOf(options.get(option.clientUuid)),
    bootItem: bootItem?.length === 4 ? bootItem : undefined,
  }
}

function stageOf({ options }: DhcpPacket): Stage | undefined {
  const vendorClass = options.get(option.vendorClass)?.toString('latin1') ?? ''
  const arch = options.get(option.clientArch)?.readUInt16BE(0)
  const isPxe = vendorClass.startsWith('PXEClient') || vendorClass.startsWith('HTTPClient')
  if (!isPxe || arch === undefined) return undefined
  const known = architectures[arch]
  if (known === undefined) return { stage: 'unsupported', architecture: arch }
  if (vendorClass.startsWith('HTTPClient'))
    return known.stage === 'http-firmware' ? known : { stage: 'unsupported', architecture: arch }
  if (!isIpxe(options)) return known
  return { stage: 'ipxe', firmware: arch === 0 ? 'bios' : 'uefi' }
}

/** iPXE that cannot load by HTTP is treated as the firmware that it came with: it chains to ours. */
function isIpxe(options: ReadonlyMap<number, Buffer>): boolean {
  const features = options.get(option.ipxe)
  if (features !== undefined) return parseSuboptions(features)?.has(ipxeHttpTag) === true
  return userClasses(options.get(option.userClass)).includes('iPXE')
}

/** The option is a list with lengths (RFC 3004), or, as iPXE sends it, plain text. */
function userClasses(value: Buffer | undefined): readonly string[] {
  if (value === undefined) return []
  const classes = [value.toString('latin1')]
  for (let at = 0; at < value.length;) {
    const length = value[at] ?? 0
    if (length === 0 || at + 1 + length > value.length) return classes
    classes.push(value.subarray(at + 1, at + 1 + length).toString('latin1'))
    at += 1 + length
  }
  return classes
}

function uuidOf(value: Buffer | undefined): string | undefined {
  return value?.length === 17 ? formatUuid(value.subarray(1)) : undefined
}

/** The text of a UUID of 16 bytes. */
export function formatUuid(bytes: Buffer): string {
  const hex = bytes.toString('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}

/**
 * Whether two SMBIOS UUIDs are of one machine. The first three parts are little endian in SMBIOS and big endian in a UUID's text, and firmware, operating
 * systems and controllers do not agree which of them they show. One that says nothing (all zeroes or all ones) speaks against nobody.
 */
export function isSameUuid(one: string, other: string): boolean {
  const [first, second] = [one.toLowerCase(), other.toLowerCase()]
  return isBlankUuid(first) || isBlankUuid(second) || first === second || swapUuid(first) === second
}

export function isBlankUuid(uuid: string): boolean {
  return /^[0-]+$/.test(uuid) || /^[f-]+$/.test(uuid)
}

function swapUuid(uuid: string): string {
  const [a = '', b = '', c = '', ...rest] = uuid.split('-')
  const swap = (part: string) => (part.match(/../g) ?? []).reverse().join('')
  return [swap(a), swap(b), swap(c), ...rest].join('-')
}
