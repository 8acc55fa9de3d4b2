import { create } from '@bufbuild/protobuf'
import { Client, credentials, Metadata, type ClientDuplexStream } from '@grpc/grpc-js'
import {
  CarryConsoleRequestSchema,
  ConsoleArrivalSchema,
  ConsoleRefusalSchema,
  ReplicaService,
  type CarriedConsole,
  type CarryConsoleRequest,
  type CarryConsoleResponse,
} from '@slipway/proto/replica/v1'
import type { Logger } from 'pino'
import { gatewayServerName, type Authority } from '../auth/authority.js'
import { HubError } from '../domain/error/errors.js'
import type { Wake, WakeTopic } from '../store/wake.js'
import { providerLeft } from './console-ends.js'
import type { ConsoleLine } from './console-lines.js'
import { serviceDefinition } from './grpc-adapter.js'
import type { SessionRegistry } from './registry.js'

/** A replica that does not answer is given up: the one with the reader asks again where it still wants. */
const keepaliveMs = 10_000
const connectDeadlineMs = 5_000
/** A call that the other side never takes. */
const openTimeoutMs = 10_000

type Call = ClientDuplexStream<CarryConsoleRequest, CarryConsoleResponse>
type Ask = Extract<WakeTopic, { kind: 'console' }>

/** The side of the replica that has the session: it calls the replica that asked, and brings it the console's bytes as they come. */
export class ConsoleCarrier {
  readonly #registry: SessionRegistry
  readonly #authority: Authority
  readonly #log: Logger
  readonly #carrying = new Map<string, () => void>()
  readonly #stopListening: () => void
  #certificate: ReturnType<Authority['issueReplicaCertificate']> | undefined
  #renewAtMs = 0

  constructor(registry: SessionRegistry, authority: Authority, wake: Wake, log: Logger) {
    this.#registry = registry
    this.#authority = authority
    this.#log = log.child({ component: 'consoles' })
    this.#stopListening = wake.on('console', (ask) => this.#asked(ask))
  }

  /** How many consoles are being brought to other replicas. */
  get count(): number {
    return this.#carrying.size
  }

  /** Ends all calls. */
  stop(): void {
    this.#stopListening()
    for (const end of [...this.#carrying.values()]) end()
  }

  #asked(ask: Ask): void {
    if (this.#registry.get(ask.sessionId) === undefined || this.#carrying.has(ask.streamId)) return
    this.#carrying.set(ask.streamId, () => undefined)
    this.#carry(ask).catch((error: unknown) => {
      this.#carrying.delete(ask.streamId)
      this.#log.warn({ err: error, address: ask.address }, 'cannot bring a console to another replica')
    })
  }

  async #carry({ streamId, address }: Ask): Promise<void> {
    const client = await this.#connect(address)
    const { path, requestSerialize, responseDeserialize } = carryConsole
    const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, new Metadata()) as Call
    let line: ConsoleLine | undefined
    const over = (): void => {
      if (!this.#carrying.delete(streamId)) return
      clearTimeout(timer)
      line?.close()
      // What was written goes out first.
      call.end()
      setTimeout(() => client.close(), 1_000).unref()
    }
    const timer = setTimeout(() => (line === undefined ? over() : undefined), openTimeoutMs)
    this.#carrying.set(streamId, over)
    call.on('error', (error) => {
      this.#log.debug({ err: error, address }, 'a call to another replica ended')
      over()
    })
    call.on('end', over)
    call.on('data', ({ body }: CarryConsoleResponse) => {
      if (body.case === 'creditBytes') line?.credit(body.value)
      else if (body.case === 'open' && line === undefined) line = this.#open(body.value, call, over)
    })
    say(call, { case: 'arrival', value: create(ConsoleArrivalSchema, { streamId }) })
  }

  /** @returns undefined where it was refused. */
  #open({ sessionId, open }: CarriedConsole, call: Call, over: () => void): ConsoleLine | undefined {
    const refuse = ({ reason, message }: HubError): void => {
      say(call, { case: 'refused', value: create(ConsoleRefusalSchema, { reason, message }) })
      over()
    }
    const session = this.#registry.get(sessionId)
    if (session === undefined || open === undefined) {
      refuse(providerLeft('the session of the provider ended'))
      return undefined
    }
    try {
      return session.openConsole(open, {
        data: (piece) => say(call, { case: 'data', value: piece }),
        closed: (closed) => {
          say(call, { case: 'closed', value: closed })
          over()
        },
        failed: refuse,
      })
    } catch (error) {
      if (!(error instanceof HubError)) throw error
      refuse(error)
      return undefined
    }
  }

  async #connect(address: string): Promise<Client> {
    if (Date.now() >= this.#renewAtMs) this.#certificate = undefined
    this.#certificate ??= this.#authority.issueReplicaCertificate()
    const { certificatePem, keyPem, notAfter } = await this.#certificate
    this.#renewAtMs = (Date.now() + notAfter.getTime()) / 2
    const trusted = this.#authority.caPems.join('\n')
    const client = new Client(
      `dns:${address}`,
      credentials.createSsl(Buffer.from(trusted), Buffer.from(keyPem), Buffer.from(certificatePem)),
      {
        'grpc.ssl_target_name_override': gatewayServerName,
        'grpc.default_authority': gatewayServerName,
        'grpc.use_local_subchannel_pool': 1,
        'grpc.keepalive_time_ms': keepaliveMs,
        'grpc.keepalive_timeout_ms': keepaliveMs,
        'grpc.service_config_disable_resolution': 1,
        'grpc.enable_retries': 0,
        'grpc.enable_http_proxy': 0,
      },
    )
    await new Promise<void>((resolve, reject) =>
      client.waitForReady(Date.now() + connectDeadlineMs, (error) => {
        if (error === undefined) return resolve()
        client.close()
        return reject(error)
      }),
    )
    return client
  }
}

const carryConsole = serviceDefinition(ReplicaService)['carryConsole'] as ReturnType<typeof serviceDefinition>[string]

function say(call: Call, body: CarryConsoleRequest['body']): void {
  if (call.writable) call.write(create(CarryConsoleRequestSchema, { body }))
}
