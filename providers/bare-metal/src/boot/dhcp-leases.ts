import { formatIpv4, isHostOf, parseIpv4, type Ipv4Network } from './ipv4.js'

/** What a provisioning network of ours looks like. Addresses as numbers. */
export interface PoolSettings {
  readonly network: Ipv4Network
  readonly from: number
  readonly to: number
  /** By MAC. Never given to anybody else, inside the pool or outside of it. */
  readonly reservations: ReadonlyMap<string, number>
  /** The network's own: never given. */
  readonly taken: readonly number[]
  readonly leaseMs: number
}

export interface Lease {
  readonly mac: string
  readonly address: number
  readonly untilMs: number
}

/** An offer is kept for its client this long. */
const offerMs = 60_000
/** An address that a client found in use is left alone this long. */
const declinedMs = 10 * 60_000

/**
 * Who has which address. No input or output, no clock of its own. What is lost of it is made up for: a client that asks again for an address
 * that nobody has gets it, and a new one gets an address that follows from its MAC.
 */
export class Leases {
  readonly #settings: PoolSettings
  readonly #byMac = new Map<string, Lease>()
  readonly #byAddress = new Map<number, Lease>()

  constructor(settings: PoolSettings, known: Iterable<Lease> = []) {
    this.#settings = settings
    for (const lease of known) if (this.#isOurs(lease.address, lease.mac)) this.#put(lease)
  }

  /** All that is given out, for the state folder. */
  entries(nowMs: number): readonly Lease[] {
    return [...this.#byMac.values()].filter(({ untilMs }) => untilMs > nowMs)
  }

  get leaseMs(): number {
    return this.#settings.leaseMs
  }

  /** An address for a client, kept for a moment. @returns undefined where none is left. */
  offer(mac: string, requested: string | undefined, nowMs: number): string | undefined {
    const address = this.#choose(mac, requested === undefined ? undefined : parseIpv4(requested), nowMs)
    if (address === undefined) return undefined
    const held = this.#byMac.get(mac)
    const untilMs = held?.address === address ? Math.max(held.untilMs, nowMs + offerMs) : nowMs + offerMs
    this.#put({ mac, address, untilMs })
    return formatIpv4(address)
  }

  /** Gives a client the address that it asks for. @returns whether it may have it. */
  take(mac: string, requested: string, nowMs: number): boolean {
    const address = parseIpv4(requested)
    if (address === undefined || !this.#isOurs(address, mac) || !this.#isFreeFor(address, mac, nowMs)) return false
    const reserved = this.#settings.reservations.get(mac)
    if (reserved !== undefined && reserved !== address) return false
    this.#put({ mac, address, untilMs: nowMs + this.#settings.leaseMs })
    return true
  }

  /** A client gives its address back. One that is not its own stays whose it is. */
  release(mac: string, address: string): void {
    const held = this.#byMac.get(mac)
    if (held !== undefined && held.address === parseIpv4(address)) this.#remove(held)
  }

  /** A client found its address in use by somebody else: nobody gets it for a while. */
  decline(mac: string, address: string, nowMs: number): void {
    const held = this.#byMac.get(mac)
    const declined = parseIpv4(address)
    if (held === undefined || declined === undefined || held.address !== declined) return
    this.#remove(held)
    if (this.#settings.reservations.get(mac) === declined) return
    this.#put({ mac: `declined ${declined}`, address: declined, untilMs: nowMs + declinedMs })
  }

  #choose(mac: string, requested: number | undefined, nowMs: number): number | undefined {
    const reserved = this.#settings.reservations.get(mac)
    if (reserved !== undefined) return reserved
    const held = this.#byMac.get(mac)
    const candidates = [held?.address, requested, ...this.#fromPool(mac)]
    for (const address of candidates)
      if (address !== undefined && this.#isOurs(address, mac) && this.#isFreeFor(address, mac, nowMs)) return address
    return undefined
  }

  /** All addresses of the pool, from one on that follows from the MAC. */
  *#fromPool(mac: string): Iterable<number> {
    const { from, to } = this.#settings
    const size = to - from + 1
    const start = hash(mac) % size
    for (let step = 0; step < size; step += 1) yield from + ((start + step) % size)
  }

  #isOurs(address: number, mac: string): boolean {
    const { network, from, to, taken, reservations } = this.#settings
    if (reservations.get(mac) === address) return true
    return (
      address >= from &&
      address <= to &&
      isHostOf(address, network) &&
      !taken.includes(address) &&
      ![...reservations.values()].includes(address)
    )
  }

  #isFreeFor(address: number, mac: string, nowMs: number): boolean {
    const lease = this.#byAddress.get(address)
    return lease === undefined || lease.mac === mac || lease.untilMs <= nowMs
  }

  #put(lease: Lease): void {
    const before = this.#byMac.get(lease.mac)
    if (before !== undefined) this.#remove(before)
    const other = this.#byAddress.get(lease.address)
    if (other !== undefined) this.#remove(other)
    this.#byMac.set(lease.mac, lease)
    this.#byAddress.set(lease.address, lease)
  }

  #remove(lease: Lease): void {
    if (this.#byMac.get(lease.mac) === lease) this.#byMac.delete(lease.mac)
    if (this.#byAddress.get(lease.address) === lease) this.#byAddress.delete(lease.address)
  }
}

/** FNV-1a, 32 bits: http://www.isthe.com/chongo/tech/comp/fnv/ */
function hash(text: string): number {
  let value = 0x811c9dc5
  for (let at = 0; at < text.length; at += 1) value = Math.imul(value ^ text.charCodeAt(at), 0x01000193) >>> 0
  return value
}
