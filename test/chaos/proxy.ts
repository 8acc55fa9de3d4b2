import { createServer, connect, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

const connectTimeoutMs = 1_000

export type Direction = 'up' | 'down'

/** What a link does to the bytes of one direction. */
export interface Weather {
  /** Nothing is passed on, and nothing is closed. */
  readonly stalled?: boolean
  readonly latencyMs?: number
  readonly bytesPerSecond?: number
  /** Pieces of at most this many bytes. */
  readonly sliceBytes?: number
}

export interface Counters {
  accepted: number
  connected: number
  failed: number
  resets: number
  /** Pieces that were held back, delayed or cut up. */
  troubled: number
  /** Bytes passed on, from the dialling side and to it. */
  up: number
  down: number
}

export interface Target {
  readonly host: string
  readonly port: number
}

/**
 * A wire between one party and those that it dials, with an address of its own: both sides see the link and not one another, so that either direction of this
 * link alone can be silenced. It goes through user space: loss, for TCP, is a stall or a reset.
 */
export class Link {
  readonly name: string
  readonly address: string
  readonly counters: Counters = { accepted: 0, connected: 0, failed: 0, resets: 0, troubled: 0, up: 0, down: 0 }
  readonly #servers: Server[] = []
  readonly #pairs = new Set<Pair>()
  readonly #sockets = new Set<Socket>()
  #weather: Readonly<Record<Direction, Weather>> = { up: {}, down: {} }
  /** Accept, and say nothing for ever. */
  #deaf = false
  /** Bytes left before every connection is reset. */
  #truncateAfter: number | undefined
  #turn = 0
  #changed: (() => void)[] = []

  constructor(name: string, address: string) {
    this.name = name
    this.address = address
  }

  get open(): number {
    return this.#pairs.size
  }

  /** Listens on a port, and joins each connection to one of the targets: the preferred first, the next where that cannot be reached. */
  async listen(port: number, targets: readonly Target[], prefer: 'first' | 'turns' = 'first'): Promise<void> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true })
    server.on('connection', (socket) => void this.#accept(socket, targets, prefer))
    this.#servers.push(server)
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, this.address, resolve)
    })
  }

  setWeather(weather: Partial<Record<Direction, Weather>>): void {
    this.#weather = { up: {}, down: {}, ...weather }
    this.#wake()
  }

  setDeaf(deaf: boolean): void {
    this.#deaf = deaf
  }

  truncateAfter(bytes: number | undefined): void {
    this.#truncateAfter = bytes
  }

  clear(): void {
    this.#deaf = false
    this.#truncateAfter = undefined
    this.setWeather({})
  }

  /** Resets every connection. @returns how many there were. */
  reset(): number {
    const count = this.#pairs.size
    for (const pair of this.#pairs) pair.reset()
    this.counters.resets += count
    return count
  }

  async close(): Promise<void> {
    this.clear()
    const closed = Promise.all(this.#servers.map((server) => new Promise((resolve) => server.close(resolve))))
    for (const socket of this.#sockets) socket.resetAndDestroy()
    await closed
  }

  async #accept(socket: Socket, targets: readonly Target[], prefer: 'first' | 'turns'): Promise<void> {
    this.counters.accepted++
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
    socket.on('error', () => socket.destroy())
    if (this.#deaf) {
      this.counters.troubled++
      socket.resume()
      return
    }
    const start = prefer === 'turns' ? this.#turn++ : 0
    for (let index = 0; index < targets.length; index++) {
      const target = targets[(start + index) % targets.length]
      const upstream = target && (await this.#dial(target))
      if (upstream === undefined) continue
      if (socket.destroyed) {
        upstream.destroy()
        return
      }
      this.counters.connected++
      this.#join(socket, upstream)
      return
    }
    this.counters.failed++
    socket.resetAndDestroy()
  }

  #dial(target: Target): Promise<Socket | undefined> {
    return new Promise((resolve) => {
      const socket = connect({ ...target, localAddress: this.address, allowHalfOpen: true, noDelay: true })
      const timer = setTimeout(() => socket.destroy(new Error('no answer')), connectTimeoutMs)
      socket.once('connect', () => {
        clearTimeout(timer)
        resolve(socket.pause())
      })
      socket.on('error', () => {
        clearTimeout(timer)
        socket.destroy()
        resolve(undefined)
      })
    })
  }

  #join(near: Socket, far: Socket): void {
    const pair: Pair = {
      reset: () => {
        near.resetAndDestroy()
        far.resetAndDestroy()
      },
    }
    this.#pairs.add(pair)
    const over = (other: Socket) => () => {
      this.#pairs.delete(pair)
      other.destroy()
    }
    near.on('close', over(far))
    far.on('close', over(near))
    void this.#pump(near, far, 'up', pair)
    void this.#pump(far, near, 'down', pair)
  }

  async #pump(from: Socket, to: Socket, direction: Direction, pair: Pair): Promise<void> {
    try {
      for await (const chunk of from.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        await this.#pass(chunk, to, direction, pair)
      }
      to.end()
    } catch {
      pair.reset()
    }
  }

  async #pass(chunk: Buffer, to: Socket, direction: Direction, pair: Pair): Promise<void> {
    for (let rest = chunk; rest.length > 0 && !to.destroyed;) {
      const weather = await this.#fair(direction, to)
      const { latencyMs = 0, bytesPerSecond, sliceBytes = rest.length } = weather
      const piece = rest.subarray(0, bytesPerSecond === undefined ? sliceBytes : Math.min(sliceBytes, 1_024))
      rest = rest.subarray(piece.length)
      const waitMs = latencyMs + (bytesPerSecond === undefined ? 0 : (piece.length * 1_000) / bytesPerSecond)
      if (waitMs > 0 || piece.length < chunk.length) this.counters.troubled++
      if (waitMs > 0) await sleep(waitMs)
      if (this.#truncateAfter !== undefined && (this.#truncateAfter -= piece.length) < 0) {
        this.counters.resets++
        pair.reset()
        return
      }
      this.counters[direction] += piece.length
      if (!to.write(piece) && !to.destroyed) await drained(to)
    }
  }

  /** The weather, once it lets anything through. */
  async #fair(direction: Direction, to: Socket): Promise<Weather> {
    while (this.#weather[direction].stalled === true && !to.destroyed) {
      this.counters.troubled++
      await new Promise<void>((resolve) => this.#changed.push(resolve))
    }
    return this.#weather[direction]
  }

  #wake(): void {
    const waiting = this.#changed
    this.#changed = []
    for (const resolve of waiting) resolve()
  }
}

interface Pair {
  readonly reset: () => void
}

function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      socket.off('drain', done)
      socket.off('close', done)
      resolve()
    }
    socket.on('drain', done)
    socket.on('close', done)
  })
}
