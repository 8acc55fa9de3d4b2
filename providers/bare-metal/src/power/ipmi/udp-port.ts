import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import type { ResolvedAddress } from '../address.js'
import { BmcError } from '../errors.js'
import { maxPacketBytes } from './packet.js'

/** Where a BMC listens. */
export interface Endpoint extends ResolvedAddress {
  readonly port: number
}

export type PacketListener = (packet: Buffer) => void

/** Asked of the kernel, which gives what it allows: answers of many BMCs may come at once. */
const receiveBufferBytes = 4 * 1024 * 1024

/** Sockets of each address family, so that no single receive buffer takes the answers of a whole fleet. */
const defaultSockets = 4

/**
 * The UDP sockets through which any number of BMCs are talked to: a packet goes to those who listen for its sender, and to nobody else. A socket
 * for each BMC would cost a file descriptor each.
 */
export class UdpPort {
  readonly #listeners = new Map<string, Set<PacketListener>>()
  readonly #sockets = new Map<string, Promise<Socket>>()
  readonly #perFamily: number
  #closed = false

  constructor(options: { readonly sockets?: number } = {}) {
    this.#perFamily = options.sockets ?? defaultSockets
  }

  /** Gives a listener all that comes from an endpoint. @returns what ends it. */
  listen(endpoint: Endpoint, listener: PacketListener): () => void {
    const key = keyOf(endpoint.ip, endpoint.port)
    const listeners = this.#listeners.get(key) ?? new Set()
    this.#listeners.set(key, listeners.add(listener))
    return () => {
      listeners.delete(listener)
      if (listeners.size === 0 && this.#listeners.get(key) === listeners) this.#listeners.delete(key)
    }
  }

  /** Sends, once. That it arrives is the caller's to find out. @throws BmcError `unreachable` where this host has no way there. */
  async send(endpoint: Endpoint, packet: Uint8Array): Promise<void> {
    const socket = await this.#socketFor(endpoint)
    await new Promise<void>((resolve, reject) => {
      if (this.#closed) return reject(closedError())
      socket.send(packet, endpoint.port, endpoint.ip, (error) => {
        if (error === null) return resolve()
        const { code } = error as NodeJS.ErrnoException
        reject(new BmcError('unreachable', `no way to ${endpoint.ip}: ${code ?? error.message}`, { cause: error }))
      })
    })
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#listeners.clear()
    const sockets = await Promise.allSettled(this.#sockets.values())
    await Promise.all(
      sockets.map(async (settled) => {
        if (settled.status === 'fulfilled') await new Promise<void>((resolve) => settled.value.close(resolve))
      }),
    )
    this.#sockets.clear()
  }

  #socketFor({ ip, family, port }: Endpoint): Promise<Socket> {
    if (this.#closed) return Promise.reject(closedError())
    const key = `${family}/${spread(`${ip} ${port}`, this.#perFamily)}`
    const known = this.#sockets.get(key)
    if (known !== undefined) return known
    const opening = this.#open(family)
    this.#sockets.set(key, opening)
    opening.catch(() => this.#sockets.delete(key))
    return opening
  }

  #open(family: 4 | 6): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const socket = family === 6 ? createSocket({ type: 'udp6', ipv6Only: true }) : createSocket('udp4')
      socket.once('error', reject)
      socket.on('message', (packet, from) => this.#deliver(packet, from))
      socket.bind(0, () => {
        socket.off('error', reject)
        // Errors of single packets are given to their senders; none of them may end the process.
        socket.on('error', () => undefined)
        socket.setRecvBufferSize(receiveBufferBytes)
        socket.unref()
        resolve(socket)
      })
    })
  }

  #deliver(packet: Buffer, from: RemoteInfo): void {
    if (packet.length > maxPacketBytes) return
    const listeners = this.#listeners.get(keyOf(from.address, from.port))
    for (const listener of [...(listeners ?? [])]) listener(packet)
  }
}

function closedError(): BmcError {
  return new BmcError('unreachable', 'the sockets to BMCs were closed')
}

/** One spelling for each address, so that what is sent to and what is heard from match. */
function keyOf(ip: string, port: number): string {
  return ip.includes(':') ? new URL(`http://[${ip.split('%')[0] ?? ip}]:${port}/x`).host + `/${port}` : `${ip}/${port}`
}

function spread(text: string, buckets: number): number {
  let sum = 0
  for (let index = 0; index < text.length; index += 1) sum = (sum * 31 + text.charCodeAt(index)) >>> 0
  return sum % buckets
}
