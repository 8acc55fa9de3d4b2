import { create } from '@bufbuild/protobuf'
import type { ServerDuplexStream } from '@grpc/grpc-js'
import {
  HubMessageSchema,
  SessionResponseSchema,
  type HubMessage,
  type SessionRequest,
  type SessionResponse,
} from '@slipway/proto/provider/v1'

export type SessionStream = ServerDuplexStream<SessionRequest, SessionResponse>

const maxMessagesPerFrame = 200
/** A peer that reads so slowly that this many messages wait for it is cut off; it loses nothing but the connection. */
const maxWaiting = 20_000

/** What waits to be written to one stream: gathered into frames, and never more than the peer reads. */
export class Outbox {
  readonly #stream: SessionStream
  readonly #onOverflow: () => void
  #waiting: HubMessage[] = []
  #scheduled = false
  #blocked = false
  #closed = false

  constructor(stream: SessionStream, onOverflow: () => void) {
    this.#stream = stream
    this.#onOverflow = onOverflow
    stream.on('drain', () => {
      this.#blocked = false
      this.#flush()
    })
  }

  send(body: HubMessage['body']): void {
    if (this.#closed) return
    this.#waiting.push(create(HubMessageSchema, { body }))
    if (this.#waiting.length > maxWaiting) {
      this.close()
      this.#onOverflow()
      return
    }
    if (this.#scheduled || this.#blocked) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#flush()
    })
  }

  /** Drops what waits; nothing is written any more. */
  close(): void {
    this.#closed = true
    this.#waiting = []
  }

  #flush(): void {
    while (!this.#blocked && !this.#closed && this.#waiting.length > 0) {
      const messages = this.#waiting.splice(0, maxMessagesPerFrame)
      this.#blocked = !this.#stream.write(create(SessionResponseSchema, { messages }))
    }
  }
}
