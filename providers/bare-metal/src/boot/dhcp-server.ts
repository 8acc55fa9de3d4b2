import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { decide, type Admission, type DhcpSite } from './dhcp-decide.js'
import { parsePacket } from './dhcp-packet.js'

export interface DhcpServerOptions {
  readonly site: DhcpSite
  readonly admit: (mac: string, uuid: string | undefined) => Admission
  readonly onRogue: (kind: string, subject: string, message: string) => void
  readonly onReply: (mac: string, note: string) => void
  readonly onError: (error: Error) => void
  readonly nowMs: () => number
  /** Default: 67 and 4011. Others are for tests. */
  readonly ports?: { readonly dhcp: number; readonly pxe: number }
}

/** Replies a second, in all: whoever sends more has something else in mind than to boot. */
const maxPerSecond = 500

/** Listens for what machines ask while they boot, and answers what {@link decide} says. */
export class DhcpServer {
  readonly #options: DhcpServerOptions
  readonly #sockets: Socket[] = []
  #out: Socket | undefined
  #second = 0
  #inSecond = 0

  private constructor(options: DhcpServerOptions) {
    this.#options = options
  }

  /** @throws what binding throws: that a port is taken, or that the process may not have it. */
  static async listen(options: DhcpServerOptions): Promise<DhcpServer> {
    const server = new DhcpServer(options)
    const { dhcp, pxe } = options.ports ?? { dhcp: 67, pxe: 4011 }
    try {
      if (options.site.mode !== 'pxe-service') {
        await server.#open(67, dhcp, '0.0.0.0')
        // What is sent from this address leaves by the interface that has it, whatever the routes say.
        server.#out = await server.#bind(dhcp, options.site.serverAddress)
        server.#out.on('message', (bytes, from) => server.#receive(67, bytes, from))
      }
      await server.#open(4011, pxe, options.site.serverAddress)
    } catch (error) {
      await server.close()
      throw error
    }
    return server
  }

  async close(): Promise<void> {
    await Promise.all(
      this.#sockets.splice(0).map((socket) => new Promise<void>((resolve) => socket.close(() => resolve()))),
    )
  }

  async #open(port: 67 | 4011, bindTo: number, host: string): Promise<void> {
    const socket = await this.#bind(bindTo, host)
    socket.on('message', (bytes, from) => this.#receive(port, bytes, from))
  }

  async #bind(port: number, host: string): Promise<Socket> {
    const socket = createSocket({ type: 'udp4', reuseAddr: true })
    this.#sockets.push(socket)
    socket.bind(port, host)
    await once(socket, 'listening')
    socket.setBroadcast(true)
    socket.on('error', this.#options.onError)
    return socket
  }

  #receive(port: 67 | 4011, bytes: Buffer, from: RemoteInfo): void {
    const { site, admit, onRogue, onReply, nowMs } = this.#options
    const now = nowMs()
    if (this.#isTooMuch(now)) return onRogue('flood', 'dhcp', `more than ${maxPerSecond} packets in a second`)
    const packet = parsePacket(bytes)
    // Much of what is broadcast in a segment is not well formed, or not for us: that is nobody's fault.
    if ('malformed' in packet) return
    const arrival = { port, address: from.address, sourcePort: from.port, nowMs: now }
    const decision = decide(packet, arrival, site, admit)
    if (decision.decision === 'silence') {
      if (decision.rogue) onRogue('spoofed-mac', packet.mac, `DHCP: ${decision.why}`)
      return
    }
    onReply(packet.mac, decision.note)
    const socket = port === 67 ? this.#out : this.#sockets.at(-1)
    socket?.send(decision.bytes, decision.to.port, decision.to.address, (error) => {
      if (error !== null) this.#options.onError(error)
    })
  }

  #isTooMuch(nowMs: number): boolean {
    const second = Math.floor(nowMs / 1000)
    if (second !== this.#second) {
      this.#second = second
      this.#inSecond = 0
    }
    this.#inSecond += 1
    return this.#inSecond > maxPerSecond
  }
}
