import { createSocket, type Socket } from 'node:dgram'
import type { BmcSecret, IpmiSettings } from '../../src/power/settings.js'
import { SimulatedBmc, simulatedUser, type SimulatedBmcOptions } from './simulated-bmc.js'

/** A network between a console and its BMCs that loses packets. Its dice are seeded, so that a run can be had again. */
export class LossyNetwork {
  /** The part of packets that is lost, in each direction, 0 to 1. */
  loss: number
  /** The part of packets that arrives twice. */
  doubled = 0
  lost = 0
  passed = 0
  #state: number

  constructor(options: { readonly loss?: number; readonly seed?: number } = {}) {
    this.loss = options.loss ?? 0
    this.#state = options.seed ?? 1
  }

  /** @returns how many copies of a packet arrive. */
  copies(): number {
    if (this.#roll() < this.loss) {
      this.lost += 1
      return 0
    }
    this.passed += 1
    return this.#roll() < this.doubled ? 2 : 1
  }

  /** Mulberry32: small, and good enough for dice. */
  #roll(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let value = this.#state
    value = Math.imul(value ^ (value >>> 15), value | 1)
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61)
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32
  }
}

/** A BMC on a UDP port of the loopback. */
export interface ListeningBmc {
  readonly bmc: SimulatedBmc
  readonly port: number
  readonly settings: IpmiSettings
  readonly secret: BmcSecret
  close(): Promise<void>
}

export const simulatedSecret: BmcSecret = { username: simulatedUser.name, password: simulatedUser.password }

export interface ListenOptions extends SimulatedBmcOptions {
  readonly network?: LossyNetwork
  /** Default: 127.0.0.1. */
  readonly address?: '127.0.0.1' | '::1'
  /** How long it thinks about each packet. */
  readonly delayMs?: number
  readonly settings?: Partial<Omit<IpmiSettings, 'kind' | 'address' | 'port'>>
}

export async function listenBmc(options: ListenOptions = {}): Promise<ListeningBmc> {
  const bmc = new SimulatedBmc(options)
  const network = options.network ?? new LossyNetwork()
  const address = options.address ?? '127.0.0.1'
  const socket = createSocket(address === '::1' ? 'udp6' : 'udp4')
  let closed = false
  socket.on('message', (packet, from) => {
    for (let copy = network.copies(); copy > 0; copy -= 1) {
      const answer = bmc.receive(packet)
      if (answer === undefined) continue
      const send = (): void => {
        for (let back = network.copies(); back > 0; back -= 1) if (!closed) socket.send(answer, from.port, from.address)
      }
      if (options.delayMs === undefined) send()
      else setTimeout(send, options.delayMs).unref()
    }
  })
  const port = await bind(socket, address)
  return {
    bmc,
    port,
    settings: {
      kind: 'ipmi',
      address,
      port,
      cipherSuite: 17,
      privilege: 'operator',
      timeoutMs: 500,
      tries: 8,
      ...options.settings,
    },
    secret: simulatedSecret,
    close: () => {
      closed = true
      return new Promise<void>((resolve) => socket.close(() => resolve()))
    },
  }
}

function bind(socket: Socket, address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.bind(0, address, () => {
      socket.off('error', reject)
      resolve(socket.address().port)
    })
  })
}

/** Many BMCs in one process, on one lossy network. */
export class SimulatedFleet {
  readonly network: LossyNetwork
  readonly members: readonly ListeningBmc[]

  private constructor(network: LossyNetwork, members: readonly ListeningBmc[]) {
    this.network = network
    this.members = members
  }

  static async start(
    count: number,
    options: { readonly loss?: number; readonly seed?: number } & Pick<ListenOptions, 'settings'> = {},
  ): Promise<SimulatedFleet> {
    const network = new LossyNetwork(options)
    const members = await Promise.all(
      Array.from({ length: count }, () =>
        listenBmc({ network, ...(options.settings !== undefined && { settings: options.settings }) }),
      ),
    )
    return new SimulatedFleet(network, members)
  }

  async close(): Promise<void> {
    await Promise.all(this.members.map((member) => member.close()))
  }
}
