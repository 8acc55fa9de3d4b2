import { create, toBinary, type MessageInitShape } from '@bufbuild/protobuf'
import { createValidator } from '@bufbuild/protovalidate'
import type { ClientDuplexStream } from '@grpc/grpc-js'
import {
  ProviderMessageSchema,
  SessionRequestSchema,
  type HubMessage,
  type ProviderMessage,
  type SessionRequest,
  type SessionResponse,
} from '@slipway/proto/provider/v1'
import { maxFrameBytes, type Dialed } from './grpc.js'
import { rpcFailure, type RpcFailure } from './rpc-error.js'
import { deferred } from './timing.js'

/** Anything that a provider can say. */
export type ProviderMessageBody = NonNullable<MessageInitShape<typeof ProviderMessageSchema>['body']>

interface Queued {
  readonly message: ProviderMessage
  readonly bytes: number
  readonly onWritten: (() => void) | undefined
}

const validator = createValidator()
const frameBytes = 1024 * 1024
const frameMessages = 1000
/** How long a half-closed stream may take to end before it is cut. */
const closeGraceMs = 2_000

/** One stream on a connection of its own. It gathers what is said in one tick into one frame, and stops writing while the peer does not read. */
export class Link {
  readonly client: Dialed['client']
  /** Fulfilled when the stream is over, with why; never rejected. */
  readonly closed: Promise<RpcFailure>
  readonly #stream: ClientDuplexStream<SessionRequest, SessionResponse>
  readonly #queue: Queued[] = []
  readonly #closed = deferred<RpcFailure>()
  #drained = deferred<void>()
  #scheduled = false
  #blocked = false
  #over = false

  constructor(dialed: Dialed, onMessage: (message: HubMessage, link: Link) => void) {
    this.client = dialed.client
    this.closed = this.#closed.promise
    this.#stream = dialed.stream
    this.#stream.on('data', (frame: SessionResponse) => {
      for (const message of frame.messages) onMessage(message, this)
    })
    this.#stream.on('drain', () => {
      this.#blocked = false
      this.#flush()
    })
    this.#stream.on('error', (error) => this.#end(rpcFailure(error)))
    this.#stream.on('end', () => this.#end({ code: 0, message: 'the hub closed the stream', reason: '' }))
  }

  /** Whether it can still be written to. */
  get open(): boolean {
    return !this.#over
  }

  /** Whether messages wait because the peer reads too slowly. */
  get busy(): boolean {
    return this.#blocked
  }

  /** Queues a message. @throws Error where it breaks the contract: the hub would end the whole session for it. */
  send(body: ProviderMessageBody, onWritten?: () => void): void {
    if (this.#over) return
    const message = create(ProviderMessageSchema, { body })
    checkContract(message)
    const bytes = toBinary(ProviderMessageSchema, message).byteLength
    if (bytes > maxFrameBytes - 1024)
      throw new Error(`a ${body.case ?? 'message'} of ${bytes} bytes is too large for the hub`)
    const queued = { message, bytes, onWritten }
    // A sign of life must not wait behind a long listing.
    if (body.case === 'heartbeat') this.#queue.unshift(queued)
    else this.#queue.push(queued)
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#flush()
    })
  }

  /** Returns when everything said so far is written, or the stream is over. */
  async drained(): Promise<void> {
    if (!this.#over && (this.#queue.length > 0 || this.#blocked)) await this.#drained.promise
  }

  /** Says all that is queued, then ends the stream in good order. */
  async close(): Promise<void> {
    const timer = setTimeout(() => this.cut(), closeGraceMs)
    await this.drained()
    if (!this.#over) this.#stream.end()
    await this.closed
    clearTimeout(timer)
  }

  /** Ends the stream at once. */
  cut(): void {
    this.#stream.cancel()
    this.#end({ code: 1, message: 'cut by this side', reason: '' })
  }

  #flush(): void {
    while (!this.#over && !this.#blocked && this.#queue.length > 0) {
      const batch = this.#takeBatch()
      const frame = create(SessionRequestSchema, { messages: batch.map((queued) => queued.message) })
      this.#blocked = !this.#stream.write(frame, (error?: Error | null) => {
        if (error == null) for (const queued of batch) queued.onWritten?.()
      })
    }
    if (this.#queue.length === 0 && !this.#blocked) this.#resolveDrained()
  }

  #takeBatch(): Queued[] {
    let bytes = 0
    let count = 0
    for (const queued of this.#queue) {
      if (count === frameMessages || (count > 0 && bytes + queued.bytes > frameBytes)) break
      bytes += queued.bytes
      count += 1
    }
    return this.#queue.splice(0, count)
  }

  #resolveDrained(): void {
    this.#drained.resolve()
    this.#drained = deferred()
  }

  #end(why: RpcFailure): void {
    if (this.#over) return
    this.#over = true
    this.#queue.length = 0
    this.#resolveDrained()
    // A late error event of a stream that is over must not become an uncaught one; the listener stays.
    this.client.close()
    this.#closed.resolve(why)
  }
}

function checkContract(message: ProviderMessage): void {
  const { kind, error } = validator.validate(ProviderMessageSchema, message)
  if (kind !== 'valid') throw new Error(`what the provider says breaks the contract: ${error.message}`)
}
