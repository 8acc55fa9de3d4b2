import { randomBytes, randomUUID, X509Certificate } from 'node:crypto'
import { create, toBinary, type MessageInitShape } from '@bufbuild/protobuf'
import { anyPack, durationFromMs, timestampFromDate } from '@bufbuild/protobuf/wkt'
import {
  Metadata,
  Server,
  ServerCredentials,
  status,
  type sendUnaryData,
  type ServerDuplexStream,
  type ServerUnaryCall,
} from '@grpc/grpc-js'
import { ErrorInfoSchema, StatusSchema } from '@slipway/proto/google/rpc'
import {
  EnrollResponseSchema,
  ItemKind,
  NackReason,
  ProviderService,
  RenewResponseSchema,
  SessionResponseSchema,
  type ConfigureSchema,
  type EnrollRequest,
  type EnrollResponse,
  type Hello,
  type HubMessageSchema,
  type ProviderMessage,
  type RenewRequest,
  type RenewResponse,
  type Report,
  type SessionRequest,
  type SessionResponse,
  type WelcomeSchema,
} from '@slipway/proto/provider/v1'
import { gatewayServerName, methodCodec } from '../internal/grpc.js'
import { TestAuthority } from '../conformance/gateway/authority.js'
import { TestItem } from './item.js'
import { until } from './until.js'

type HubBody = NonNullable<MessageInitShape<typeof HubMessageSchema>['body']>
type ProviderBody = ProviderMessage['body']
type Said = { [Kind in NonNullable<ProviderBody['case']>]: Extract<ProviderBody, { case: Kind }>['value'] }

/** What becomes of a report: stored and acked, stored with its ack lost, not even stored, or refused. */
export type Verdict = 'ack' | 'lose-ack' | 'ignore' | { readonly nack: NackReason; readonly message?: string }

/** A refusal, as the hub makes it. */
export interface Refusal {
  readonly code: status
  readonly reason: string
  readonly message?: string
}

export interface TestGatewayOptions {
  readonly heartbeatMs?: number
  readonly leaseMs?: number
  readonly certificateLifeMs?: number
  readonly authority?: TestAuthority
}

/** One stream of a provider, as the hub sees it. */
export class TestSession {
  readonly hello: Hello
  readonly received: ProviderBody[] = []
  /** The client certificate's fingerprint. */
  readonly fingerprint: string
  over = false
  readonly #call: ServerDuplexStream<SessionRequest, SessionResponse>

  constructor(call: ServerDuplexStream<SessionRequest, SessionResponse>, hello: Hello, fingerprint: string) {
    this.#call = call
    this.hello = hello
    this.fingerprint = fingerprint
    call.on('cancelled', () => (this.over = true))
    call.on('end', () => {
      this.over = true
      call.end()
    })
  }

  send(...bodies: HubBody[]): void {
    if (!this.over) this.#call.write(create(SessionResponseSchema, { messages: bodies.map((body) => ({ body })) }))
  }

  /** All bodies of one sort so far. */
  all<Kind extends keyof Said>(kind: Kind): Said[Kind][] {
    return this.received.filter((body) => body.case === kind).map((body) => body.value as Said[Kind])
  }

  /** Waits for a message that fits. */
  async expect<Kind extends keyof Said>(
    kind: Kind,
    fits: (value: Said[Kind]) => boolean = () => true,
  ): Promise<Said[Kind]> {
    const found = await until(`a ${kind} from the provider`, () => {
      const value = this.all(kind).find(fits)
      return value === undefined ? undefined : { value }
    })
    return found.value
  }

  /** Ends the stream as a replica that dies does. */
  fail(refusal: Refusal = { code: status.UNAVAILABLE, reason: 'DRAINING' }): void {
    this.over = true
    this.#call.emit('error', serviceError(refusal))
  }

  /** Stops reading, as a hub that is stuck does. */
  pause(): void {
    this.#call.pause()
  }
}

/** A hub's gateway that does as it is told: real TLS, real grpc-js, real certificates, and a little model of what a hub would store. */
export class TestGateway {
  readonly authority: TestAuthority
  readonly sessions: TestSession[] = []
  readonly enrolments: EnrollRequest[] = []
  readonly renewals: RenewRequest[] = []
  readonly items = new Map<string, TestItem>()
  readonly hubId = randomUUID()
  port = 0
  configure: MessageInitShape<typeof ConfigureSchema> = { version: 1n }
  /** Refuses an enrolment, a renewal or a session. */
  refuseEnrol: () => Refusal | undefined = () => undefined
  refuseHello: (hello: Hello) => Refusal | undefined = () => undefined
  /** What the first answer says beyond the usual; by default all that is held is bound. */
  welcome: (hello: Hello) => MessageInitShape<typeof WelcomeSchema> = (hello) => ({ bound: hello.holds })
  judge: (report: Report, session: TestSession) => Verdict = () => 'ack'
  readonly #options: TestGatewayOptions
  #server: Server | undefined

  private constructor(authority: TestAuthority, options: TestGatewayOptions) {
    this.authority = authority
    this.#options = options
  }

  static async start(options: TestGatewayOptions = {}): Promise<TestGateway> {
    const gateway = new TestGateway(options.authority ?? (await TestAuthority.create()), options)
    await gateway.listen()
    return gateway
  }

  get address(): string {
    return `127.0.0.1:${this.port}`
  }

  joinToken(pin = this.authority.pin): string {
    return `swj_${randomBytes(11).toString('hex')}_${randomBytes(32).toString('hex')}_${pin}`
  }

  /** The session that was opened last, once there are this many. */
  async session(count = 1): Promise<TestSession> {
    await until(`session ${count}`, () => this.sessions.length >= count)
    return this.sessions[count - 1] as TestSession
  }

  /** A new item, not claimed yet. */
  item(kind: ItemKind = ItemKind.MACHINE_REQUEST): TestItem {
    const item = new TestItem(kind)
    this.items.set(item.id, item)
    return item
  }

  /** Starts, or starts again on the same port. */
  async listen(): Promise<void> {
    const { keyPem, certificatePem } = await this.authority.serverCertificate(gatewayServerName)
    const pair = {
      private_key: Buffer.from(keyPem),
      cert_chain: Buffer.from(certificatePem + '\n' + this.authority.certificatePem),
    }
    const credentials = ServerCredentials.createSsl(Buffer.from(this.authority.certificatePem), [pair], true)
    // Enrolment comes without a certificate; Renew and Session look at it themselves.
    Object.assign(credentials._getConstructorOptions() ?? {}, { rejectUnauthorized: false })
    const server = new Server()
    server.addService(serviceDefinition, {
      enroll: (call: ServerUnaryCall<EnrollRequest, EnrollResponse>, answer: sendUnaryData<EnrollResponse>) =>
        void this.#enrol(call, answer),
      renew: (call: ServerUnaryCall<RenewRequest, RenewResponse>, answer: sendUnaryData<RenewResponse>) =>
        void this.#renew(call, answer),
      session: (call: ServerDuplexStream<SessionRequest, SessionResponse>) => this.#session(call),
    })
    this.port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(`127.0.0.1:${this.port}`, credentials, (error, port) =>
        error === null ? resolve(port) : reject(error),
      )
    })
    this.#server = server
  }

  /** Dies, with all connections. */
  close(): void {
    this.#server?.forceShutdown()
  }

  async #enrol(
    call: ServerUnaryCall<EnrollRequest, EnrollResponse>,
    answer: sendUnaryData<EnrollResponse>,
  ): Promise<void> {
    this.enrolments.push(call.request)
    const refusal = this.refuseEnrol()
    if (refusal !== undefined) return answer(serviceError(refusal))
    const certificate = await this.#certificate(call.request.csrDer)
    answer(null, create(EnrollResponseSchema, { certificate, provider: 'providers/test' }))
  }

  async #renew(
    call: ServerUnaryCall<RenewRequest, RenewResponse>,
    answer: sendUnaryData<RenewResponse>,
  ): Promise<void> {
    this.renewals.push(call.request)
    if (this.#peer(call) === undefined)
      return answer(serviceError({ code: status.UNAUTHENTICATED, reason: 'CERTIFICATE_REQUIRED' }))
    answer(null, create(RenewResponseSchema, { certificate: await this.#certificate(call.request.csrDer) }))
  }

  async #certificate(csrDer: Uint8Array) {
    const { der, notBefore, notAfter } = await this.authority.clientCertificate(
      csrDer,
      this.#options.certificateLifeMs ?? 3_600_000,
    )
    return {
      certificateDer: der,
      caDer: [this.authority.der],
      notBefore: timestampFromDate(notBefore),
      notAfter: timestampFromDate(notAfter),
    }
  }

  #peer(call: { getAuthContext(): { sslPeerCertificate?: { raw?: Buffer } } }): string | undefined {
    const raw = call.getAuthContext().sslPeerCertificate?.raw
    if (raw === undefined) return undefined
    const certificate = new X509Certificate(raw)
    return certificate.verify(new X509Certificate(this.authority.certificatePem).publicKey)
      ? certificate.fingerprint256
      : undefined
  }

  #session(call: ServerDuplexStream<SessionRequest, SessionResponse>): void {
    let session: TestSession | undefined
    call.on('error', () => undefined)
    call.on('data', (frame: SessionRequest) => {
      for (const { body } of frame.messages) {
        if (session !== undefined) this.#receive(session, body)
        else if (body.case === 'hello') session = this.#greet(call, body.value)
      }
    })
  }

  #greet(call: ServerDuplexStream<SessionRequest, SessionResponse>, hello: Hello): TestSession | undefined {
    const fingerprint = this.#peer(call)
    const refusal =
      fingerprint === undefined
        ? { code: status.UNAUTHENTICATED, reason: 'CERTIFICATE_REQUIRED' }
        : this.refuseHello(hello)
    if (refusal !== undefined) {
      call.emit('error', serviceError(refusal))
      return undefined
    }
    const session = new TestSession(call, hello, fingerprint ?? '')
    const usual = {
      protocolVersion: 1,
      sessionId: randomUUID(),
      hubId: this.hubId,
      replica: 'test',
      heartbeatInterval: durationFromMs(this.#options.heartbeatMs ?? 500),
      leaseDuration: durationFromMs(this.#options.leaseMs ?? 10_000),
      provider: 'providers/test',
      configure: this.configure,
    }
    session.send({ case: 'welcome', value: { ...usual, ...(this.welcome(hello) as object) } })
    this.sessions.push(session)
    return session
  }

  #receive(session: TestSession, body: ProviderBody): void {
    session.received.push(body)
    if (body.case === 'release') this.items.get(body.value.item?.id ?? '')?.release(body.value)
    if (body.case === 'report') this.#answer(session, body.value)
  }

  #answer(session: TestSession, report: Report): void {
    const item = this.items.get(report.item?.id ?? '')
    const stale = item === undefined || report.fence !== item.fence || item.wasRevoked(report.fence)
    const verdict: Verdict = stale ? { nack: NackReason.STALE_FENCE } : this.judge(report, session)
    if (typeof verdict === 'object') {
      session.send({
        case: 'nack',
        value: { sequence: report.sequence, reason: verdict.nack, message: verdict.message ?? '' },
      })
      return
    }
    if (verdict !== 'ignore') item?.store(report)
    if (verdict === 'ack') session.send({ case: 'ack', value: { sequence: report.sequence } })
  }
}

function serviceError({ code, reason, message = reason }: Refusal) {
  const info = anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason, domain: 'slipway' }))
  const metadata = new Metadata()
  metadata.set(
    'grpc-status-details-bin',
    Buffer.from(toBinary(StatusSchema, create(StatusSchema, { code, message, details: [info] }))),
  )
  return Object.assign(new Error(message), { code, details: message, metadata })
}

const serviceDefinition = Object.fromEntries(
  ProviderService.methods.map((method) => {
    const codec = methodCodec(method)
    const streams = method.methodKind === 'bidi_streaming'
    return [
      method.localName,
      {
        path: codec.path,
        requestStream: streams,
        responseStream: streams,
        requestSerialize: codec.serializeRequest,
        requestDeserialize: codec.deserializeRequest,
        responseSerialize: codec.serializeResponse,
        responseDeserialize: codec.deserializeResponse,
      },
    ]
  }),
)
