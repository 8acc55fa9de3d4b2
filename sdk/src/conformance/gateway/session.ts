import { create, type MessageInitShape, type UnknownField } from '@bufbuild/protobuf'
import type { ServerDuplexStream } from '@grpc/grpc-js'
import {
  HubMessageSchema,
  SessionResponseSchema,
  type Hello,
  type HubMessage,
  type ProviderMessage,
  type SessionRequest,
  type SessionResponse,
} from '@slipway/proto/provider/v1'
import type { Transcript } from '../transcript.js'
import { until } from '../until.js'
import { statusError, type Refusal } from './status.js'

export type HubBody = NonNullable<MessageInitShape<typeof HubMessageSchema>['body']>
export type ProviderBody = ProviderMessage['body']
export type Said = { [Kind in NonNullable<ProviderBody['case']>]: Extract<ProviderBody, { case: Kind }>['value'] }
export type Call = ServerDuplexStream<SessionRequest, SessionResponse>

/** Something that a provider said, and when, in milliseconds of the monotonic clock. */
export interface Heard {
  readonly atMs: number
  readonly body: ProviderBody
}

/** What each heartbeat may take, beyond the patience of the run: intervals of some seconds are usual. */
const beatPatienceMs = 5_000

/** One stream of a provider, as a hub sees it. */
export class HubSession {
  readonly number: number
  readonly hello: Hello
  readonly peer: string
  /** SHA-256 of the client certificate. */
  readonly fingerprint: string
  readonly openedAtMs = performance.now()
  readonly heard: Heard[] = []
  /** How it ended; undefined: it is open. `provider`: the provider ended it in good order; `broken`: the connection went away; `hub`: we ended it. */
  ended: 'provider' | 'broken' | 'hub' | undefined
  readonly #call: Call
  readonly #transcript: Transcript
  readonly #waitMs: number

  constructor(number: number, call: Call, hello: Hello, fingerprint: string, transcript: Transcript, waitMs: number) {
    this.number = number
    this.#call = call
    this.hello = hello
    this.peer = call.getPeer()
    this.fingerprint = fingerprint
    this.#transcript = transcript
    this.#waitMs = waitMs
    call.on('cancelled', () => (this.ended ??= 'broken'))
    call.on('end', () => {
      this.ended ??= 'provider'
      call.end()
    })
  }

  get open(): boolean {
    return this.ended === undefined
  }

  /** Says these, in one frame. */
  send(...bodies: HubBody[]): void {
    this.sendMessages(bodies.map((body) => create(HubMessageSchema, { body })))
  }

  /** Says messages as they are, unknown fields and all. */
  sendMessages(messages: readonly HubMessage[], unknown: readonly UnknownField[] = []): void {
    if (!this.open) return
    for (const message of messages)
      this.#transcript.message('hub', `→ [${this.number}] ${message.body.case ?? 'unknown'}`, HubMessageSchema, message)
    const frame = create(SessionResponseSchema, { messages: [...messages] })
    if (unknown.length > 0) frame.$unknown = [...unknown]
    this.#call.write(frame)
  }

  /** All of one sort that were said so far. */
  all<Kind extends keyof Said>(kind: Kind): Said[Kind][] {
    return this.heard.filter(({ body }) => body.case === kind).map(({ body }) => body.value as Said[Kind])
  }

  /** Waits until the provider says something that fits. */
  async expect<Kind extends keyof Said>(
    kind: Kind,
    fits: (value: Said[Kind]) => boolean = () => true,
    what = `a ${kind} from the provider`,
  ): Promise<Said[Kind]> {
    const found = await until(
      what,
      () => {
        const value = this.all(kind).find(fits)
        return value === undefined ? undefined : { value }
      },
      this.#waitMs,
    )
    return found.value
  }

  /** Waits until the provider has given so many more signs of life: it had the time to do something, and did not die. */
  async beats(count: number): Promise<void> {
    const before = this.all('heartbeat').length
    await until(
      `${count} more heartbeats`,
      () => this.all('heartbeat').length >= before + count || !this.open,
      this.#waitMs + count * beatPatienceMs,
    )
  }

  /** Ends the stream with a status, as a replica that goes away does. */
  fail(refusal: Refusal = { code: 'UNAVAILABLE', reason: 'DRAINING' }): void {
    this.ended ??= 'hub'
    this.#transcript.add('hub', `→ [${this.number}] ends the stream with ${refusal.code} ${refusal.reason}`)
    this.#call.emit('error', statusError(refusal))
  }

  /** Stops reading, as a hub that is stuck does. */
  pause(): void {
    this.#call.pause()
  }

  resume(): void {
    this.#call.resume()
  }
}
