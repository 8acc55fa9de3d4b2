import { create } from '@bufbuild/protobuf'
import { createValidator, type Validator } from '@bufbuild/protovalidate'
import {
  HubMessageSchema,
  SessionRequestSchema,
  SessionResponseSchema,
  type Hello,
  type ProviderMessage,
  type SessionRequest,
} from '@slipway/proto/provider/v1'
import type { Logger } from 'pino'
import { HubError } from '../domain/error/errors.js'
import { inTransaction } from '../store/database.js'
import { endSession, SessionOver, setSessionCapacity } from '../store/sessions.js'
import type { GatewayDeps } from './deps.js'
import type { Dispatcher } from './dispatcher.js'
import { openBy } from './handshake.js'
import type { Heartbeats } from './heartbeats.js'
import type { HelloReads } from './hello-reads.js'
import { Listings } from './listings.js'
import { Outbox, type SessionStream } from './outbox.js'
import { identifyPeer } from './peer.js'
import { recordOrphanRemoval } from './orphan-courier.js'
import type { BudgetFacts } from '../domain/provider/provider.js'
import { haveMoved } from './budgets.js'
import { fromBudgets } from './convert.js'
import { recordConfigured, recordHeartbeatFacts } from './provider-facts.js'
import type { SessionRegistry } from './registry.js'
import { ProviderSession } from './session.js'
import { toServiceError } from './status.js'
import { Told } from './told.js'
import type { WorkLog } from './work-log.js'

const firstMessageTimeoutMs = 10_000

export interface StreamParts {
  readonly deps: GatewayDeps
  readonly registry: SessionRegistry
  readonly dispatcher: Dispatcher
  readonly workLog: WorkLog
  readonly heartbeats: Heartbeats
  readonly reads: HelloReads
  readonly isDraining: () => boolean
}

/** One provider instance's stream, from its first byte to its last. */
export class StreamHandler {
  readonly #stream: SessionStream
  readonly #parts: StreamParts
  readonly #validator: Validator
  readonly #outbox: Outbox
  #log: Logger
  #session: ProviderSession | undefined
  #opening = false
  #closed = false
  #lastHealth = ''
  #lastBudgets: readonly BudgetFacts[] = []

  static readonly #sharedValidator = createValidator()

  constructor(stream: SessionStream, parts: StreamParts) {
    this.#stream = stream
    this.#parts = parts
    this.#validator = StreamHandler.#sharedValidator
    this.#log = parts.deps.log.child({ component: 'session', remote: stream.getPeer() })
    this.#outbox = new Outbox(stream, () =>
      this.fail(new HubError('SLOW_CONSUMER', 'the instance does not read; connect again and read what is sent')),
    )
  }

  start(): void {
    const timer = setTimeout(() => {
      if (this.#session === undefined && !this.#opening)
        this.fail(new HubError('PROTOCOL_VIOLATION', 'no Hello came in time'))
    }, firstMessageTimeoutMs)
    this.#stream.on('data', (frame: SessionRequest) => this.#receive(frame))
    this.#stream.on('error', (error) => this.#log.debug({ err: error }, 'stream broke'))
    const over = (clean: boolean) => {
      clearTimeout(timer)
      void this.#over(clean)
    }
    this.#stream.on('cancelled', () => over(false))
    // grpc-js says 'end' before 'cancelled' when a connection drops: only what follows tells the two apart.
    this.#stream.on('end', () => setImmediate(() => over(!this.#stream.cancelled)))
  }

  /** Ends the stream with a status. */
  fail(error: unknown): void {
    if (this.#closed) return
    if (!(error instanceof HubError)) this.#log.error({ err: error }, 'session failed')
    else this.#log.info({ reason: error.reason }, error.message)
    this.#outbox.close()
    this.#stream.emit('error', toServiceError(error))
    void this.#over(false)
  }

  #receive(frame: SessionRequest): void {
    const checked = this.#validator.validate(SessionRequestSchema, frame)
    if (checked.kind !== 'valid') {
      const violations = checked.kind === 'invalid' ? checked.violations : []
      const first = violations[0]
      const field =
        first === undefined
          ? 'messages'
          : first.field
              .map((part) => ('name' in part ? String(part.name) : String('value' in part ? part.value : '')))
              .join('.')
      this.fail(
        new HubError(
          'PROTOCOL_VIOLATION',
          `a message breaks the contract: ${field}: ${first?.message ?? 'it cannot be checked'}`,
          {
            violations: [{ field, description: first?.message ?? 'it cannot be checked' }],
          },
        ),
      )
      return
    }
    for (const message of frame.messages) this.#handle(message)
  }

  #handle(message: ProviderMessage): void {
    if (this.#closed) return
    if (this.#session !== undefined) {
      this.#session.handle(message.body)
      return
    }
    if (this.#opening || message.body.case !== 'hello') {
      this.fail(
        new HubError('PROTOCOL_VIOLATION', 'the first message must be Hello, and nothing may follow it before Welcome'),
      )
      return
    }
    this.#opening = true
    this.#open(message.body.value).catch((error: unknown) => this.fail(error))
  }

  async #open(hello: Hello): Promise<void> {
    const { deps, registry, dispatcher, reads } = this.#parts
    if (this.#parts.isDraining())
      throw new HubError('DRAINING', 'this replica is shutting down; connect to another one', { retryAfterMs: 100 })
    const peer = await identifyPeer(this.#stream, deps, reads)
    const opened = await openBy(hello, { providerId: peer.providerId, certificateSerial: peer.serial }, deps, reads)
    this.#log = this.#log.child({ provider: opened.identity.providerName, session: opened.identity.id })
    for (const id of opened.supersededIds) registry.get(id)?.end('superseded by a newer stream of the same process')
    const session = this.#makeSession(opened.identity)
    session.configVersion = opened.configVersion
    for (const held of opened.bound) session.hold(held.ref, held.fence)
    if (this.#closed) return
    this.#session = session
    registry.add(session)
    // Welcome goes first, whatever the dispatcher has found meanwhile.
    this.#stream.write(
      create(SessionResponseSchema, {
        messages: [create(HubMessageSchema, { body: { case: 'welcome', value: opened.welcome } })],
      }),
    )
    this.#log.info(
      { instance: hello.instanceName, held: opened.bound.length, sdk: `${hello.sdkName} ${hello.sdkVersion}` },
      'provider connected',
    )
    dispatcher.request(session.providerId)
    if (opened.hasNewerConfig) deps.wake.signal({ kind: 'provider', providerId: session.providerId })
  }

  #makeSession(identity: ConstructorParameters<typeof ProviderSession>[0]): ProviderSession {
    const { deps, dispatcher, workLog, heartbeats } = this.#parts
    const provider = { id: identity.providerId, name: identity.providerName, kind: identity.kind }
    const listings = new Listings(deps, identity.id, provider)
    const told = new Told(deps, identity.id, provider)
    const attempt = (what: string, work: Promise<void>) =>
      void work.catch((error: unknown) => {
        if (error instanceof SessionOver)
          this.fail(new HubError('DRAINING', 'the lease of this session is over; connect again with what is held'))
        else this.#log.warn({ err: error }, `cannot store ${what} now`)
      })
    return new ProviderSession(identity, this.#outbox, workLog, {
      creditBack: () => dispatcher.requestWork(identity.providerId),
      capacityChanged: (capacity) => {
        attempt('capacity', setSessionCapacity(deps.db, identity.id, capacity))
        dispatcher.requestWork(identity.providerId)
      },
      heartbeat: (heartbeat) => {
        heartbeats.heard(identity.id)
        const facts = JSON.stringify([
          heartbeat.health,
          heartbeat.message,
          heartbeat.failure?.code,
          heartbeat.failure?.message,
        ])
        const budgets = fromBudgets(heartbeat.budgets)
        if (facts === this.#lastHealth && !haveMoved(this.#lastBudgets, budgets)) return
        this.#lastHealth = facts
        this.#lastBudgets = budgets
        attempt('health', recordHeartbeatFacts(deps, identity.id, provider, heartbeat))
      },
      providerMessage: (body) => {
        if (body.case === 'inventory') listings.inventory(body.value)
        else if (body.case === 'offerings') listings.offerings(body.value)
        else if (body.case === 'events') told.events(body.value)
        else if (body.case === 'calledBack') told.calledBack(body.value.externalIds)
        else if (body.case === 'configured')
          attempt('the answer to a configuration', recordConfigured(deps, identity.id, provider, body.value))
        else if (body.case === 'orphanRemoval')
          attempt('what became of an orphan', recordOrphanRemoval(deps, provider, body.value))
      },
      violation: (message) => this.fail(new HubError('PROTOCOL_VIOLATION', message)),
      end: (message) => this.fail(new HubError('DRAINING', message)),
      failWith: (error) => this.fail(error),
    })
  }

  /** @param clean the instance itself closed in good order, so what it still holds is free at once. */
  async #over(clean: boolean): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#outbox.close()
    const session = this.#session
    if (session !== undefined) {
      this.#parts.registry.remove(session)
      session.over()
    }
    if (!clean) return
    this.#stream.end()
    if (session === undefined) return
    const { deps } = this.#parts
    try {
      // What was said before goodbye is stored before goodbye is.
      await this.#parts.workLog.idle()
      await inTransaction(deps.db, (tx) => endSession(tx, session.id, 'closed by the instance'), 'session-end')
      deps.wake.signal({ kind: 'work', providerId: session.providerId })
      this.#log.info('provider disconnected')
    } catch (error) {
      this.#log.warn({ err: error }, 'cannot store the end of a session now; it will run out')
    }
  }
}
