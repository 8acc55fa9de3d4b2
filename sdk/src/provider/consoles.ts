import {
  ConsoleEnd,
  type CloseConsole,
  type ConsoleCredit,
  type Failure,
  type OpenConsole,
} from '@slipway/proto/provider/v1'
import { deferred, untilAborted, type Deferred } from '../internal/timing.js'
import { ConsoleRefused, type ConsoleChunk, type ConsoleMachine, type ConsoleWish } from './console.js'
import { ConsoleCursor, splitPiece, type ConsolePiece } from './console-cursor.js'
import { failureToProto } from './convert.js'
import { ProviderError } from './errors.js'
import { makeContext, type Runtime } from './runtime.js'
import type { Snapshot } from './settings.js'

/** Hubs open fewer. */
const maxStreams = 64
const pieceBytes = 16 * 1024
const maxMessageLength = 4_000

const refusals = {
  'not-found': ConsoleEnd.NOT_FOUND,
  absent: ConsoleEnd.ABSENT,
  busy: ConsoleEnd.BUSY,
} as const

interface Stream {
  readonly id: string
  readonly abort: AbortController
  credit: number
  more: Deferred<void>
}

interface End {
  readonly end: ConsoleEnd
  readonly message?: string
  readonly failure?: Failure
}

/** The consoles that the hub looks at. They hang on the stream that they were opened on, and give way to all else that is said over it. */
export class Consoles {
  readonly #runtime: Runtime
  readonly #settings: () => Snapshot | undefined
  readonly #streams = new Map<string, Stream>()

  constructor(runtime: Runtime, settings: () => Snapshot | undefined) {
    this.#runtime = runtime
    this.#settings = settings
  }

  open(order: OpenConsole): void {
    const { streamId, creditBytes } = order
    if (this.#streams.has(streamId)) return
    if (this.#streams.size >= maxStreams)
      return this.#close(streamId, {
        end: ConsoleEnd.BUSY,
        message: `${maxStreams} consoles are being looked at already`,
      })
    const stream: Stream = { id: streamId, abort: new AbortController(), credit: creditBytes, more: deferred() }
    this.#streams.set(streamId, stream)
    void this.#show(order, stream)
  }

  credit({ streamId, bytes }: ConsoleCredit): void {
    const stream = this.#streams.get(streamId)
    if (stream === undefined) return
    stream.credit += bytes
    stream.more.resolve()
  }

  close({ streamId }: CloseConsole): void {
    this.#drop(streamId, 'nobody looks at the console any more')
  }

  /** The stream that they were opened on is over. */
  dropAll(why: string): void {
    for (const id of [...this.#streams.keys()]) this.#drop(id, why)
  }

  /** This instance stops: another one may go on. */
  stop(): void {
    for (const id of [...this.#streams.keys()]) {
      this.#drop(id, 'this instance is stopping')
      this.#close(id, { end: ConsoleEnd.STOPPING })
    }
  }

  #drop(id: string, why: string): void {
    const stream = this.#streams.get(id)
    this.#streams.delete(id)
    stream?.abort.abort(new Error(why))
  }

  #close(streamId: string, { end, message = '', failure }: End): void {
    const value = { streamId, end, message: message.slice(0, maxMessageLength), ...(failure && { failure }) }
    this.#runtime.session.send({ case: 'consoleClosed', value })
  }

  async #show(order: OpenConsole, stream: Stream): Promise<void> {
    const { signal } = stream.abort
    const end: End = await this.#tell(order, stream).then(
      () => ({ end: ConsoleEnd.DONE }),
      (thrown: unknown) => {
        if (thrown instanceof ConsoleRefused) return { end: refusals[thrown.why], message: thrown.message }
        if (!signal.aborted) this.#runtime.log.warn({ err: thrown, machine: order.externalId }, 'a console failed')
        return { end: ConsoleEnd.FAILED, failure: failureToProto(thrown) }
      },
    )
    // Dropped: nobody wants to know.
    if (this.#streams.get(stream.id) !== stream) return
    this.#streams.delete(stream.id)
    stream.abort.abort(new Error('the console ended'))
    this.#close(stream.id, end)
  }

  async #tell(order: OpenConsole, stream: Stream): Promise<void> {
    const { signal } = stream.abort
    const { after } = wishOf(order)
    const cursor = new ConsoleCursor(after)
    const chunks = this.#chunks(order, signal)
    try {
      for (;;) {
        const next = await untilAborted(chunks.next(), signal)
        if (next.done === true) return
        const piece = cursor.take(next.value)
        if (piece !== undefined) await this.#send(stream, piece)
      }
    } finally {
      // An author's function that ignores the signal is left behind.
      void Promise.resolve(chunks.return?.()).catch(() => undefined)
    }
  }

  #chunks(order: OpenConsole, signal: AbortSignal): AsyncIterator<ConsoleChunk | Uint8Array> {
    const { definition } = this.#runtime
    const settings = this.#settings()
    if (settings === undefined) throw new ProviderError('UNAVAILABLE', 'the provider has no usable configuration')
    if (definition.console === undefined) throw new ConsoleRefused('absent', 'this provider shows no consoles')
    const context = makeContext(this.#runtime, settings, 'urgent', signal)
    return definition.console(context, machineOf(order), wishOf(order))[Symbol.asyncIterator]()
  }

  /** Sends a piece as far as there is credit, and only while nothing else waits to be sent. */
  async #send(stream: Stream, whole: ConsolePiece): Promise<void> {
    const { signal } = stream.abort
    const { session } = this.#runtime
    for (let left: ConsolePiece | undefined = whole; left !== undefined;) {
      while (stream.credit <= 0) {
        stream.more = deferred()
        await untilAborted(stream.more.promise, signal)
      }
      await session.drained()
      signal.throwIfAborted()
      const [piece, rest]: readonly [ConsolePiece, ConsolePiece | undefined] = splitPiece(
        left,
        Math.min(stream.credit, pieceBytes),
      )
      stream.credit -= piece.bytes.length
      const { log, offset } = piece.position
      session.send({
        case: 'consoleData',
        value: {
          streamId: stream.id,
          position: { log, offset: BigInt(offset) },
          data: piece.bytes,
          gap: piece.gap,
          lostBytes: BigInt(piece.lostBytes),
        },
      })
      left = rest
    }
  }
}

function machineOf({ machineId, externalId, providerData }: OpenConsole): ConsoleMachine {
  return { machineId, externalId, providerData: providerData ?? {} }
}

function wishOf({ start, follow }: OpenConsole): ConsoleWish {
  if (start.case === 'after') return { after: { log: start.value.log, offset: Number(start.value.offset) }, follow }
  return start.case === 'tailLines' ? { tailLines: start.value, follow } : { follow }
}
