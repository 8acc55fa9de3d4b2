import { randomUUID } from 'node:crypto'
import { create } from '@bufbuild/protobuf'
import { DurationSchema, durationMs } from '@bufbuild/protobuf/wkt'
import type { Client, ClientDuplexStream } from '@grpc/grpc-js'
import {
  HeartbeatSchema,
  Health,
  HelloSchema,
  ItemKind,
  ItemRefSchema,
  Operation,
  PowerState,
  Presence,
  ProviderKind,
  ProviderMessageSchema,
  ProviderService,
  ReadySchema,
  ReleaseSchema,
  ReportSchema,
  SessionRequestSchema,
  type Claimed,
  type HubMessage,
  type ProviderMessage,
  type SessionRequest,
  type SessionResponse,
} from '@slipway/proto/provider/v1'
import { openClient, openStream, type GatewayAddress, type Identity } from '@slipway/sdk/testing'
import { family } from './hub.js'

/** What a provider says first. */
export function hello(instanceName: string): ProviderMessage['body'] {
  return {
    case: 'hello',
    value: create(HelloSchema, {
      protocolVersions: [1],
      instanceId: randomUUID(),
      instanceName,
      sdkName: 'bench',
      sdkVersion: '0',
      family,
      kind: ProviderKind.DYNAMIC,
    }),
  }
}

export const heartbeat = (): ProviderMessage['body'] => ({
  case: 'heartbeat',
  value: create(HeartbeatSchema, { health: Health.HEALTHY }),
})

export interface SessionOptions {
  readonly gateway: GatewayAddress
  readonly identity: Identity
  readonly name: string
  readonly capacity: number
  /** Called with the messages of a frame, after Welcome. */
  readonly onMessages: (messages: readonly HubMessage[], session: RawSession) => void
}

/** A session over bare grpc-js, that says what it is told to and nothing else but heartbeats. */
export class RawSession {
  readonly #client: Client
  readonly #stream: ClientDuplexStream<SessionRequest, SessionResponse>
  #timer: NodeJS.Timeout | undefined
  #sequence = 0n
  #closed = false

  private constructor(client: Client, stream: ClientDuplexStream<SessionRequest, SessionResponse>) {
    this.#client = client
    this.#stream = stream
  }

  /** Resolves once Welcome has come. */
  static async open(options: SessionOptions): Promise<RawSession> {
    const { gateway, identity } = options
    const client = openClient({ gateway, caPems: identity.caPems, client: identity, keepaliveMs: 20_000 })
    const stream = openStream(client, ProviderService.method.session)
    const session = new RawSession(client, stream)
    await new Promise<void>((resolve, reject) => {
      stream.on('error', (error) => {
        reject(error)
        if (!session.#closed) process.stderr.write(`session ${options.name}: ${error.message}\n`)
      })
      stream.on('data', (frame: SessionResponse) => {
        const [first] = frame.messages
        if (first?.body.case === 'welcome') {
          const every = durationMs(first.body.value.heartbeatInterval ?? create(DurationSchema, { seconds: 5n }))
          session.#timer = setInterval(() => session.send([heartbeat()]), every)
          session.send([{ case: 'ready', value: create(ReadySchema, { capacity: options.capacity }) }])
          resolve()
        } else options.onMessages(frame.messages, session)
      })
      session.send([hello(options.name)])
    })
    return session
  }

  /** Sends messages in one frame. */
  send(bodies: readonly ProviderMessage['body'][]): void {
    this.#stream.write(
      create(SessionRequestSchema, { messages: bodies.map((body) => create(ProviderMessageSchema, { body })) }),
    )
  }

  /** Says that what was claimed is done, and lets go of it. The report's sequence is returned. */
  answer(claimed: Claimed, bodies: ProviderMessage['body'][]): bigint {
    const item = create(ItemRefSchema, { kind: ItemKind.MACHINE_REQUEST, id: claimed.item?.id ?? '' })
    const generation = claimed.desired?.generation ?? 1n
    const operation = claimed.desired?.operation ?? Operation.PROVISION
    const gone = operation === Operation.DEPROVISION
    const sequence = ++this.#sequence
    bodies.push(
      {
        case: 'report',
        value: create(ReportSchema, {
          sequence,
          item,
          fence: claimed.fence,
          generation,
          observed: {
            generation,
            presence: gone ? Presence.ABSENT : Presence.PRESENT,
            externalId: `x-${item.id}`,
            power: gone ? PowerState.OFF : PowerState.ON,
          },
          completed: { operation, operationGeneration: claimed.desired?.operationGeneration ?? 1n },
        }),
      },
      {
        case: 'release',
        value: create(ReleaseSchema, {
          item,
          fence: claimed.fence,
          outcome: { case: 'settledGeneration', value: generation },
        }),
      },
    )
    return sequence
  }

  /** A progress report under a claim that goes on. */
  progress(claimed: Claimed, percent: number): { readonly sequence: bigint; readonly body: ProviderMessage['body'] } {
    const sequence = ++this.#sequence
    const body = {
      case: 'report' as const,
      value: create(ReportSchema, {
        sequence,
        item: create(ItemRefSchema, { kind: ItemKind.MACHINE_REQUEST, id: claimed.item?.id ?? '' }),
        fence: claimed.fence,
        generation: claimed.desired?.generation ?? 1n,
        progress: { step: 'work', percent },
      }),
    }
    return { sequence, body }
  }

  close(): void {
    this.#closed = true
    clearInterval(this.#timer)
    this.#stream.end()
    this.#client.close()
  }
}
