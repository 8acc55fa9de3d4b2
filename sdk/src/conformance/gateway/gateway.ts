import { randomBytes, randomUUID, X509Certificate } from 'node:crypto'
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { durationFromMs, timestampFromDate } from '@bufbuild/protobuf/wkt'
import { Server, ServerCredentials, type sendUnaryData, type ServerUnaryCall } from '@grpc/grpc-js'
import {
  EnrollRequestSchema,
  EnrollResponseSchema,
  HelloSchema,
  NackReason,
  ProviderMessageSchema,
  ProviderService,
  RenewResponseSchema,
  type ConfigureSchema,
  type EnrollRequest,
  type EnrollResponse,
  type Hello,
  type RenewRequest,
  type RenewResponse,
  type Report,
  type SessionRequest,
  type WelcomeSchema,
} from '@slipway/proto/provider/v1'
import { gatewayServerName, methodCodec } from '../../internal/grpc.js'
import type { Transcript } from '../transcript.js'
import { TestAuthority } from './authority.js'
import type { Item } from './item.js'
import { Rules } from './rules.js'
import { HubSession, type Call, type ProviderBody } from './session.js'
import { statusError, type Refusal } from './status.js'

/** What becomes of a report: stored and acked, stored with its ack lost, not even stored, or refused. */
export type Verdict = 'ack' | 'lose-ack' | 'ignore' | { readonly nack: NackReason; readonly message?: string }

export interface GatewayOptions {
  readonly transcript: Transcript
  /** How long to wait for what a provider is to say, at most. */
  readonly waitMs: number
  /** Default 1000. */
  readonly heartbeatMs?: number
  /** Default 20 000. */
  readonly leaseMs?: number
  /** Default an hour. */
  readonly certificateLifeMs?: number
  /** When certificates begin, from now; default a second ago. */
  readonly certificateFromMs?: number
  readonly authority?: TestAuthority
  readonly hubId?: string
}

type Session = { hub: HubSession | undefined; greeting: boolean }

/**
 * A hub's gateway that does as a case tells it: real TLS, real gRPC, real certificates, and of a hub's records just what a provider is handed from. It serves
 * anything that speaks slipway.provider.v1.
 */
export class Gateway {
  readonly authority: TestAuthority
  readonly sessions: HubSession[] = []
  /** Times at which a stream was opened, whether it was welcomed or not. */
  readonly attempts: number[] = []
  readonly enrolments: EnrollRequest[] = []
  readonly renewals: RenewRequest[] = []
  readonly items = new Map<string, Item>()
  readonly rules = new Rules()
  readonly hubId: string
  readonly joinTokens: string[] = []
  configure: MessageInitShape<typeof ConfigureSchema> = { version: 1n }
  /** Refuses an enrolment, or a session. */
  refuseEnrol: () => Refusal | undefined = () => undefined
  refuseHello: (hello: Hello) => Refusal | undefined = () => undefined
  /** What Welcome says beyond the usual. A promise holds it back. */
  welcome: (hello: Hello) => MessageInitShape<typeof WelcomeSchema> | Promise<MessageInitShape<typeof WelcomeSchema>> =
    () => ({})
  /** Decides on a report. A promise holds the answer back. */
  judge: (report: Report, session: HubSession) => Verdict | Promise<Verdict> = () => 'ack'
  /** Called with everything that is said, before it is answered. */
  onSaid: (body: ProviderBody, session: HubSession) => void = () => undefined
  readonly #options: GatewayOptions
  readonly #answering = new Map<string, Promise<void>>()
  #server: Server | undefined
  #port = 0

  private constructor(authority: TestAuthority, options: GatewayOptions) {
    this.authority = authority
    this.hubId = options.hubId ?? randomUUID()
    this.#options = options
  }

  static async start(options: GatewayOptions): Promise<Gateway> {
    const gateway = new Gateway(options.authority ?? (await TestAuthority.create('Slipway conformance CA')), options)
    await gateway.listen()
    return gateway
  }

  get port(): number {
    return this.#port
  }

  get leaseMs(): number {
    return this.#options.leaseMs ?? 20_000
  }

  get heartbeatMs(): number {
    return this.#options.heartbeatMs ?? 1_000
  }

  /** A new join token, `swj_<id>_<secret>_<pin>`. @param pin by default of this gateway's own authority. */
  joinToken(pin = this.authority.pin): string {
    const token = `swj_${randomBytes(11).toString('hex')}_${randomBytes(32).toString('hex')}_${pin}`
    this.joinTokens.push(token)
    return token
  }

  add(item: Item): Item {
    this.items.set(item.id, item)
    return item
  }

  /** Hands an item to a session, under a higher fence. */
  claim(item: Item, session: HubSession): void {
    const claimed = item.nextClaim()
    item.holder = session.hello.instanceId
    this.rules.claimed(item.id, claimed.fence)
    session.send({ case: 'claimed', value: claimed })
  }

  /** Says the present claim of an item again. */
  repeatClaim(item: Item, session: HubSession): void {
    session.send({ case: 'claimed', value: item.sameClaim() })
  }

  /** Tells the holder of the present wish. */
  tellWish(item: Item, session: HubSession): void {
    session.send({ case: 'desiredChanged', value: item.changed() })
  }

  /** Takes a claim away. */
  revoke(item: Item, session: HubSession): void {
    const { fence } = item
    item.free()
    session.send({ case: 'revoked', value: { item: item.ref, fence, reason: 'the kit took it away' } })
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
      session: (call: Call) => this.#session(call),
    })
    this.#port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(`127.0.0.1:${this.#port}`, credentials, (error, port) =>
        error === null ? resolve(port) : reject(error),
      )
    })
    this.#server = server
  }

  /** Dies, with all connections. */
  close(): void {
    for (const session of this.sessions) session.ended ??= 'hub'
    this.#server?.forceShutdown()
  }

  async #enrol(
    call: ServerUnaryCall<EnrollRequest, EnrollResponse>,
    answer: sendUnaryData<EnrollResponse>,
  ): Promise<void> {
    this.enrolments.push(call.request)
    this.#options.transcript.message('provider', '→ Enroll', EnrollRequestSchema, call.request)
    const refusal = this.refuseEnrol()
    if (refusal !== undefined) return answer(statusError(refusal))
    try {
      const certificate = await this.#certificate(call.request.csrDer)
      answer(null, create(EnrollResponseSchema, { certificate, provider: 'providers/conformance' }))
    } catch (error) {
      this.rules.breach(`the signing request cannot be used: ${(error as Error).message}`)
      answer(statusError({ code: 'INVALID_ARGUMENT', reason: 'CSR_INVALID' }))
    }
  }

  async #renew(
    call: ServerUnaryCall<RenewRequest, RenewResponse>,
    answer: sendUnaryData<RenewResponse>,
  ): Promise<void> {
    this.renewals.push(call.request)
    this.#options.transcript.add('provider', '→ Renew')
    if (this.#fingerprint(call) === undefined)
      return answer(statusError({ code: 'UNAUTHENTICATED', reason: 'CERTIFICATE_REQUIRED' }))
    answer(null, create(RenewResponseSchema, { certificate: await this.#certificate(call.request.csrDer) }))
  }

  async #certificate(csrDer: Uint8Array) {
    const { certificateLifeMs = 3_600_000, certificateFromMs = -1_000 } = this.#options
    const { der, notBefore, notAfter } = await this.authority.clientCertificate(
      csrDer,
      certificateLifeMs,
      Date.now() + certificateFromMs,
    )
    return {
      certificateDer: der,
      caDer: [this.authority.der],
      notBefore: timestampFromDate(notBefore),
      notAfter: timestampFromDate(notAfter),
    }
  }

  #fingerprint(call: { getAuthContext(): { sslPeerCertificate?: { raw?: Buffer } } }): string | undefined {
    const raw = call.getAuthContext().sslPeerCertificate?.raw
    if (raw === undefined) return undefined
    const certificate = new X509Certificate(raw)
    return certificate.verify(new X509Certificate(this.authority.certificatePem).publicKey)
      ? certificate.fingerprint256
      : undefined
  }

  #session(call: Call): void {
    const state: Session = { hub: undefined, greeting: false }
    this.attempts.push(performance.now())
    call.on('error', () => undefined)
    call.on('data', (frame: SessionRequest) => {
      this.rules.frame(state.hub, frame)
      for (const { body } of frame.messages) {
        if (state.hub !== undefined) this.#receive(state.hub, body)
        else if (body.case !== 'hello' || state.greeting)
          this.rules.breach(`${body.case ?? 'an empty message'} came before the Welcome: only Hello comes first`)
        else {
          state.greeting = true
          void this.#greet(call, body.value, state)
        }
      }
    })
  }

  async #greet(call: Call, hello: Hello, state: Session): Promise<void> {
    const { transcript, waitMs } = this.#options
    transcript.message('provider', `→ [${this.sessions.length + 1}] hello`, HelloSchema, hello)
    const fingerprint = this.#fingerprint(call)
    const refusal: Refusal | undefined =
      fingerprint === undefined ? { code: 'UNAUTHENTICATED', reason: 'CERTIFICATE_REQUIRED' } : this.refuseHello(hello)
    if (refusal !== undefined) {
      transcript.add('hub', `→ refuses the session with ${refusal.code} ${refusal.reason}`)
      call.emit('error', statusError(refusal))
      return
    }
    const special = await this.welcome(hello)
    const session = new HubSession(this.sessions.length + 1, call, hello, fingerprint ?? '', transcript, waitMs)
    state.hub = session
    this.#freeUnnamed(hello)
    const bound = hello.holds.filter(({ item, fence }) => this.items.get(item?.id ?? '')?.accepts(fence) === true)
    const usual = {
      protocolVersion: 1,
      sessionId: randomUUID(),
      hubId: this.hubId,
      replica: 'conformance',
      heartbeatInterval: durationFromMs(this.heartbeatMs),
      leaseDuration: durationFromMs(this.leaseMs),
      provider: 'providers/conformance',
      configure: this.configure,
      bound,
      lost: hello.holds.filter((held) => !bound.includes(held)),
    }
    session.send({ case: 'welcome', value: { ...usual, ...(special as object) } })
    for (const { item: ref, generation } of bound) {
      const item = this.items.get(ref?.id ?? '')
      if (item !== undefined && item.desired.generation > generation) this.tellWish(item, session)
    }
    this.sessions.push(session)
  }

  /** What an instance held and does not name any more is free at once. */
  #freeUnnamed({ instanceId, holds }: Hello): void {
    const named = new Set(holds.map(({ item }) => item?.id))
    for (const item of this.items.values()) {
      if (item.held && item.holder === instanceId && !named.has(item.id)) item.free()
    }
  }

  #receive(session: HubSession, body: ProviderBody): void {
    if (body.case !== undefined)
      this.#options.transcript.message(
        'provider',
        `→ [${session.number}] ${body.case}`,
        ProviderMessageSchema,
        create(ProviderMessageSchema, { body }),
      )
    this.rules.said(session, body)
    session.heard.push({ atMs: performance.now(), body })
    this.onSaid(body, session)
    if (body.case === 'release') {
      const { item: ref, fence } = body.value
      this.#inOrder(ref?.id ?? '', async () => {
        const item = this.items.get(ref?.id ?? '')
        if (item?.accepts(fence) === true) item.release(body.value)
      })
    }
    if (body.case === 'report') this.#inOrder(body.value.item?.id ?? '', () => this.#answer(session, body.value))
  }

  /** What is said of one item is taken in order; that of another does not wait for it. */
  #inOrder(itemId: string, take: () => Promise<void>): void {
    const before = this.#answering.get(itemId) ?? Promise.resolve()
    this.#answering.set(
      itemId,
      before.then(take).catch((error: unknown) => this.rules.breach(`the kit itself failed: ${String(error)}`)),
    )
  }

  async #answer(session: HubSession, report: Report): Promise<void> {
    const { sequence, fence } = report
    const item = this.items.get(report.item?.id ?? '')
    const stale: Verdict = { nack: NackReason.STALE_FENCE }
    const judged = item?.accepts(fence) === true ? await this.judge(report, session) : stale
    // It may have been taken away while the answer was held back.
    const verdict = item?.accepts(fence) === true || typeof judged === 'object' ? judged : stale
    if (typeof verdict === 'object') {
      session.send({ case: 'nack', value: { sequence, reason: verdict.nack, message: verdict.message ?? '' } })
      return
    }
    if (verdict !== 'ignore') item?.store(report)
    if (verdict === 'ack') session.send({ case: 'ack', value: { sequence } })
  }
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
