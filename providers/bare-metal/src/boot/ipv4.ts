const pattern = /^(?:0|[1-9]\d{0,2})(?:\.(?:0|[1-9]\d{0,2})){3}$/

/** An IPv4 address as a whole number, or undefined where the text is none. */
export function parseIpv4(text: string): number | undefined {
  if (!pattern.test(text)) return undefined
  const bytes = text.split('.').map(Number)
  return bytes.every((byte) => byte < 256) ? bytes.reduce((sum, byte) => sum * 256 + byte, 0) : undefined
}

/** The text of an address. @param address a whole number from 0 to 2³² − 1. */
export function formatIpv4(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.')
}

/** A network of the form `10.0.0.0/24`. */
export interface Ipv4Network {
  readonly address: number
  readonly prefix: number
}

/** Reads a network. @returns undefined where the text is none, or has bits beyond its prefix. */
export function parseNetwork(text: string): Ipv4Network | undefined {
  const [left = '', right = '', ...rest] = text.split('/')
  const address = parseIpv4(left)
  if (address === undefined || rest.length > 0 || !/^\d{1,2}$/.test(right) || Number(right) > 30) return undefined
  const prefix = Number(right)
  return address % 2 ** (32 - prefix) === 0 ? { address, prefix } : undefined
}

/** Whether an address is one of a network's hosts: not its own, and not its broadcast address. */
export function isHostOf(address: number, { address: network, prefix }: Ipv4Network): boolean {
  return address > network && address < broadcastOf({ address: network, prefix })
}

/** The address that reaches all of a network. */
export function broadcastOf({ address, prefix }: Ipv4Network): number {
  return address + 2 ** (32 - prefix) - 1
}

/** The network mask, as a number. */
export function maskOf({ prefix }: Ipv4Network): number {
  return 2 ** 32 - 2 ** (32 - prefix)
}

/** Whether it can be the address of one host at all: not `0.x`, loopback, multicast or broadcast. */
export function isUsableHost(address: number): boolean {
  const first = Math.floor(address / 2 ** 24)
  return first > 0 && first !== 127 && first < 224
}
