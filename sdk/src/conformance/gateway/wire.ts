import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'

interface Pair {
  readonly near: Socket
  readonly far: Socket
}

/** The network between one provider process and the gateway: a plain TCP relay that can be cut, stalled and closed. */
export class Wire {
  readonly #server: Server
  readonly #targetPort: () => number
  readonly #pairs = new Set<Pair>()
  /** The relay's own ports towards the gateway: by these the gateway knows whose stream it serves. */
  readonly #ports = new Set<number>()
  #stalled = false
  #closed = false

  private constructor(server: Server, targetPort: () => number) {
    this.#server = server
    this.#targetPort = targetPort
    server.on('connection', (near) => this.#relay(near))
  }

  static async open(targetPort: () => number): Promise<Wire> {
    const wire = new Wire(createServer(), targetPort)
    wire.#server.listen(0, '127.0.0.1')
    await once(wire.#server, 'listening')
    return wire
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** Whether a stream of the gateway came over this wire. @param peer as grpc-js tells it, `host:port`. */
  carries(peer: string): boolean {
    return this.#ports.has(Number(peer.slice(peer.lastIndexOf(':') + 1)))
  }

  /** Resets all connections; new ones are let through. */
  cut(): void {
    for (const { near, far } of this.#pairs) {
      near.resetAndDestroy()
      far.resetAndDestroy()
    }
    this.#pairs.clear()
  }

  /** From now on nothing passes either way, and nobody is told. New connections hang too. */
  stall(): void {
    this.#stalled = true
    for (const { near, far } of this.#pairs) {
      near.pause()
      far.pause()
    }
  }

  /** All that was held back goes on. */
  unstall(): void {
    this.#stalled = false
    for (const { near, far } of this.#pairs) {
      near.resume()
      far.resume()
    }
  }

  /** Cuts all, and resets whatever comes later until {@link reopen}. */
  close(): void {
    this.#closed = true
    this.cut()
  }

  reopen(): void {
    this.#closed = false
  }

  /** Ends it for good. */
  end(): void {
    this.close()
    this.#server.close()
  }

  #relay(near: Socket): void {
    near.on('error', () => undefined)
    if (this.#closed) {
      near.resetAndDestroy()
      return
    }
    const far = connect(this.#targetPort(), '127.0.0.1')
    const pair = { near, far }
    this.#pairs.add(pair)
    far.on('connect', () => far.localPort !== undefined && this.#ports.add(far.localPort))
    far.on('error', () => near.destroy())
    far.on('close', () => this.#drop(pair))
    near.on('close', () => this.#drop(pair))
    // Not piped: a pipe would resume by itself what a stall has paused. What passes here is little.
    near.on('data', (chunk) => far.write(chunk))
    far.on('data', (chunk) => near.write(chunk))
    near.on('end', () => far.end())
    far.on('end', () => near.end())
    if (this.#stalled) {
      near.pause()
      far.pause()
    }
  }

  #drop(pair: Pair): void {
    this.#pairs.delete(pair)
    pair.near.destroy()
    pair.far.destroy()
  }
}
