import { EventEmitter } from 'node:events'
import { fromBinary, toBinary } from '@bufbuild/protobuf'
import {
  SessionRequestSchema,
  SessionResponseSchema,
  type SessionRequest,
  type SessionResponse,
} from '@slipway/proto/provider/v1'
import type { SessionStream } from '@slipway/hub/testing/simulation'
import type { Dialed } from '@slipway/sdk/testing'
import type { Node, Scheduler } from './scheduler.js'

// Streams between simulated processes. What is sent on one arrives in order or not at all; everything else about a network can go wrong.

interface Cut {
  /** Nothing that `from` sends reaches `to`. */
  readonly from: Node
  readonly to: Node
}

/** How long a peer may be silent before a stream over a cut link is given up, as keepalives do. */
const keepaliveMs = 8_000

/** Who is connected to whom, and which links are cut. */
export class Network {
  readonly #scheduler: Scheduler
  readonly #cuts = new Set<Cut>()
  readonly #streams = new Set<Stream>()

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler
  }

  /** Cuts one direction until the returned function is called. */
  cut(from: Node, to: Node): () => void {
    const cut = { from, to }
    this.#cuts.add(cut)
    for (const stream of this.#streams) {
      if (stream.joins(from, to))
        this.#scheduler.schedule(keepaliveMs * this.#scheduler.random.between(1, 2), () => stream.giveUp(), 'world')
    }
    return () => {
      this.#cuts.delete(cut)
      for (const stream of this.#streams) stream.flush()
    }
  }

  isCut(from: Node, to: Node): boolean {
    for (const cut of this.#cuts) if (cut.from === from && cut.to === to) return true
    return false
  }

  /** Breaks one stream at random. */
  breakOne(): boolean {
    const streams = [...this.#streams]
    if (streams.length === 0) return false
    this.#scheduler.random.pick(streams).giveUp(true)
    return true
  }

  /** A stream of a provider's process to a hub's. */
  dial(client: Node, server: Node, certificate: Buffer, accept: (stream: SessionStream) => void): Dialed {
    const stream = new Stream(this.#scheduler, this, client, server, certificate, () => this.#streams.delete(stream))
    this.#streams.add(stream)
    const scheduler = this.#scheduler
    if (!server.alive || this.isCut(client, server) || this.isCut(server, client)) {
      scheduler.schedule(scheduler.random.between(1, 4_000), () => stream.refuse(), 'world')
    } else {
      scheduler.schedule(
        scheduler.random.between(1, 20),
        () => {
          if (!server.alive) stream.refuse()
          else if (!stream.over) {
            accept(stream.serverEnd as unknown as SessionStream)
            stream.establish()
          }
        },
        server,
      )
      client.onKill.push(() => stream.giveUp(true))
      server.onKill.push(() => stream.giveUp(true))
    }
    return { client: { close: () => undefined }, stream: stream.clientEnd as unknown as Dialed['stream'] }
  }
}

type Side = 'client' | 'server'

class Stream {
  readonly clientEnd: ClientEnd
  readonly serverEnd: ServerEnd
  over = false
  readonly #scheduler: Scheduler
  readonly #network: Network
  readonly #nodes: Readonly<Record<Side, Node>>
  readonly #onOver: () => void
  #established = false
  /** When the last message of each side arrives. */
  readonly #lastAt = { client: 0, server: 0 }
  readonly #held: Record<Side, (() => void)[]> = { client: [], server: [] }

  constructor(
    scheduler: Scheduler,
    network: Network,
    client: Node,
    server: Node,
    certificate: Buffer,
    onOver: () => void,
  ) {
    this.#scheduler = scheduler
    this.#network = network
    this.#nodes = { client, server }
    this.#onOver = onOver
    this.clientEnd = new ClientEnd(this)
    this.serverEnd = new ServerEnd(this, certificate)
  }

  joins(one: Node, other: Node): boolean {
    const { client, server } = this.#nodes
    return (one === client && other === server) || (one === server && other === client)
  }

  /** Something of one side is on its way to the other. */
  send(from: Side, arrive: () => void): void {
    if (this.over) return
    const to = from === 'client' ? 'server' : 'client'
    if (!this.#established || this.#held[from].length > 0 || this.#network.isCut(this.#nodes[from], this.#nodes[to])) {
      this.#held[from].push(arrive)
      return
    }
    const { random } = this.#scheduler
    const delayMs = random.chance(0.02) ? random.between(20, 800) : random.between(0.1, 5)
    const atMs = Math.max(this.#lastAt[from] + 0.001, this.#scheduler.nowMs + delayMs)
    this.#lastAt[from] = atMs
    this.#scheduler.schedule(
      atMs - this.#scheduler.nowMs,
      () => {
        if (!this.over) arrive()
      },
      this.#nodes[to],
    )
  }

  /** Somebody listens at the other end: what was said before goes on its way. */
  establish(): void {
    this.#established = true
    this.flush()
  }

  /** What was held back goes on. */
  flush(): void {
    for (const side of ['client', 'server'] as const) {
      const held = this.#held[side]
      this.#held[side] = []
      for (const arrive of held) this.send(side, arrive)
    }
  }

  finish(): void {
    if (this.over) return
    this.over = true
    this.#onOver()
  }

  refuse(): void {
    if (this.over) return
    this.finish()
    this.#tellClient()
  }

  /** The connection is gone, and both sides find out. */
  giveUp(evenIfWell = false): void {
    const { client, server } = this.#nodes
    if (this.over || (!evenIfWell && !this.#network.isCut(client, server) && !this.#network.isCut(server, client)))
      return
    this.finish()
    this.#tellClient()
    this.#scheduler.schedule(this.#scheduler.random.between(0.1, 50), () => this.serverEnd.cancel(), server)
  }

  #tellClient(): void {
    const lost = Object.assign(new Error('14 UNAVAILABLE: the connection was lost'), {
      code: 14,
      details: 'the connection was lost',
    })
    this.#scheduler.schedule(
      this.#scheduler.random.between(0.1, 50),
      () => void this.clientEnd.emit('error', lost),
      this.#nodes.client,
    )
  }
}

/** Stands for grpc-js's ClientDuplexStream. */
class ClientEnd extends EventEmitter {
  readonly #stream: Stream

  constructor(stream: Stream) {
    super()
    this.#stream = stream
  }

  write(message: SessionRequest, onWritten?: (error?: Error) => void): boolean {
    const bytes = toBinary(SessionRequestSchema, message)
    const { serverEnd } = this.#stream
    this.#stream.send('client', () => void serverEnd.emit('data', fromBinary(SessionRequestSchema, bytes)))
    // To a local buffer; whether it arrives is another matter.
    if (!this.#stream.over) queueMicrotask(() => onWritten?.())
    return true
  }

  end(): void {
    const { serverEnd } = this.#stream
    this.#stream.send('client', () => void serverEnd.emit('end'))
  }

  cancel(): void {
    const { serverEnd } = this.#stream
    this.#stream.send('client', () => {
      this.#stream.finish()
      serverEnd.cancel()
    })
    queueMicrotask(() => this.emit('error', Object.assign(new Error('1 CANCELLED'), { code: 1, details: 'cancelled' })))
  }
}

/** Stands for grpc-js's ServerDuplexStream. */
class ServerEnd extends EventEmitter {
  cancelled = false
  readonly #stream: Stream
  readonly #certificate: Buffer

  constructor(stream: Stream, certificate: Buffer) {
    super()
    this.#stream = stream
    this.#certificate = certificate
    // grpc-js sends whatever is emitted as an error, and ends the call.
    this.on('error', (status: { code?: number; message: string; details?: string; metadata?: unknown }) => {
      stream.send('server', () => {
        stream.finish()
        stream.clientEnd.emit('error', Object.assign(new Error(status.message), status))
      })
    })
  }

  getPeer(): string {
    return 'simulated'
  }

  getAuthContext(): object {
    return { sslPeerCertificate: { raw: this.#certificate } }
  }

  write(message: SessionResponse): boolean {
    const bytes = toBinary(SessionResponseSchema, message)
    const { clientEnd } = this.#stream
    this.#stream.send('server', () => void clientEnd.emit('data', fromBinary(SessionResponseSchema, bytes)))
    return true
  }

  end(): void {
    const { clientEnd } = this.#stream
    this.#stream.send('server', () => {
      this.#stream.finish()
      clientEnd.emit('end')
    })
  }

  cancel(): void {
    this.cancelled = true
    this.emit('cancelled')
  }
}
