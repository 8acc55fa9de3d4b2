import { BmcError } from '../errors.js'
import type { BootDevice, BootMode, PowerAction, PowerState } from '../driver.js'
import type { Request } from './session.js'

/** Commands and answers as bytes; section numbers are of IPMI 2.0. Parsers throw BmcErrors of kind `protocol` for answers that are too short. */

const netFnChassis = 0x00
const netFnApp = 0x06
const netFnTransport = 0x0c

/** Section 20.1. */
export const getDeviceId: Request = { netFn: netFnApp, command: 0x01, what: 'who it is' }

export interface DeviceId {
  /** IANA enterprise number. */
  readonly manufacturer: number
  readonly product: number
  /** Major and minor, `1.74`. */
  readonly firmware: string
  /** It is busy replacing its own firmware. */
  readonly updating: boolean
}

export function parseDeviceId(data: Buffer): DeviceId {
  atLeast(data, 11, 'device id')
  const minor = data.readUInt8(3)
  return {
    updating: (data.readUInt8(2) & 0x80) !== 0,
    // The minor version is binary coded decimal.
    firmware: `${data.readUInt8(2) & 0x7f}.${minor.toString(16).padStart(2, '0')}`,
    manufacturer: data.readUIntLE(6, 3) & 0x0f_ffff,
    product: data.readUInt16LE(9),
  }
}

/** Section 22.14. */
export const getSystemGuid: Request = { netFn: netFnApp, command: 0x37, what: "for the system's GUID" }

/**
 * Writes a GUID as firmware shows it. BMCs disagree on the order of its bytes (SMBIOS's, IPMI's own, plain); the first order that gives a GUID of a
 * known version wins, and SMBIOS's, the most common, where none does.
 * @returns undefined for one that was never set.
 */
export function parseGuid(data: Buffer): string | undefined {
  atLeast(data, 16, 'GUID')
  const bytes = [...data.subarray(0, 16)]
  if (bytes.every((byte) => byte === 0) || bytes.every((byte) => byte === 0xff)) return undefined
  const smbiosOrder = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map((index) => bytes[index] ?? 0)
  const orders = [smbiosOrder, [...bytes].reverse(), bytes]
  return writeGuid(orders.find(looksLikeGuid) ?? smbiosOrder)
}

function looksLikeGuid(bytes: readonly number[]): boolean {
  const version = (bytes[6] ?? 0) >> 4
  return version >= 1 && version <= 5 && ((bytes[8] ?? 0) & 0xc0) === 0x80
}

function writeGuid(bytes: readonly number[]): string {
  const text = Buffer.from(bytes).toString('hex')
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join('-')
}

/** Section 28.2. */
export const getChassisStatus: Request = { netFn: netFnChassis, command: 0x01, what: 'whether the machine is on' }

export function parsePower(data: Buffer): PowerState {
  atLeast(data, 3, 'chassis status')
  return (data.readUInt8(0) & 1) === 1 ? 'on' : 'off'
}

const controls: Readonly<Record<PowerAction, number>> = { off: 0, on: 1, cycle: 2, reset: 3, 'soft-off': 5 }

/** Section 28.3. What is not the same when done twice is sent once. */
export function chassisControl(action: PowerAction): Request {
  return {
    netFn: netFnChassis,
    command: 0x02,
    data: [controls[action]],
    what: `for power ${action}`,
    once: action === 'cycle' || action === 'reset',
  }
}

/** Parameters of the boot options; section 28.13, table 28-14. */
export const bootParameters = { setInProgress: 0, validFlagClearing: 3, acknowledge: 4, flags: 5 } as const

const commandSetBootOptions = 0x08
const commandGetBootOptions = 0x09
const bootDevices: Readonly<Record<BootDevice, number>> = { network: 1, disk: 2 }
const flagsValid = 0x80
const flagsUefi = 0x20

/** Section 28.12. */
export function setBootOption(parameter: number, data: readonly number[], what: string): Request {
  return { netFn: netFnChassis, command: commandSetBootOptions, data: [parameter, ...data], what }
}

/** The boot flags for one boot: not the persistent bit, so that they are used up by it. */
export function bootFlags(device: BootDevice, mode: BootMode): readonly number[] {
  return [flagsValid | (mode === 'uefi' ? flagsUefi : 0), bootDevices[device] << 2, 0, 0, 0]
}

/** Section 28.13. */
export function getBootOption(parameter: number, what: string): Request {
  return { netFn: netFnChassis, command: commandGetBootOptions, data: [parameter, 0, 0], what }
}

export interface BootFlags {
  readonly valid: boolean
  readonly persistent: boolean
  readonly uefi: boolean
  readonly device: BootDevice | 'default' | 'other'
}

export function parseBootFlags(data: Buffer): BootFlags {
  atLeast(data, 7, 'boot flags')
  const [flags, device] = [data.readUInt8(2), (data.readUInt8(3) >> 2) & 0x0f]
  const name = device === 0 ? 'default' : device === 1 ? 'network' : device === 2 ? 'disk' : 'other'
  return {
    valid: (flags & flagsValid) !== 0,
    persistent: (flags & 0x40) !== 0,
    uefi: (flags & flagsUefi) !== 0,
    device: name,
  }
}

/** Parameters of a LAN channel; section 23.2, table 23-4. */
export const lanParameters = { address: 3, mac: 5 } as const

/** Section 23.2, of the channel that we come in by. */
export function getLanParameter(parameter: number): Request {
  return { netFn: netFnTransport, command: 0x02, data: [0x0e, parameter, 0, 0], what: 'for its own address' }
}

export function parseLanAddress(data: Buffer): string {
  atLeast(data, 5, 'IP address')
  return [...data.subarray(1, 5)].join('.')
}

export function parseLanMac(data: Buffer): string {
  atLeast(data, 7, 'MAC address')
  return [...data.subarray(1, 7)].map((byte) => byte.toString(16).padStart(2, '0')).join(':')
}

/** Some of the IANA's enterprise numbers (iana.org/assignments/enterprise-numbers). */
const vendors: Readonly<Record<number, string>> = {
  2: 'IBM',
  11: 'Hewlett-Packard',
  343: 'Intel',
  674: 'Dell',
  2623: 'ASUSTeK',
  5771: 'Cisco',
  6653: 'Tyan',
  7244: 'Quanta',
  10368: 'Fujitsu',
  10876: 'Supermicro',
  15370: 'Gigabyte',
  19046: 'Lenovo',
  47196: 'Hewlett Packard Enterprise',
}

export function vendorName(manufacturer: number): string {
  return vendors[manufacturer] ?? `IANA enterprise ${manufacturer}`
}

function atLeast(data: Buffer, bytes: number, what: string): void {
  if (data.length < bytes)
    throw new BmcError('protocol', `the BMC's ${what} has ${data.length} bytes, and should have ${bytes} or more`)
}
