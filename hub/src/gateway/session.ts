import { create } from '@bufbuild/protobuf'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import {
  AckSchema,
  ConfigureSchema,
  DrainSchema,
  NackReason,
  NackSchema,
  RevokedSchema,
  ValidateSchema,
  type Heartbeat,
  type HubMessage,
  type ItemRef,
  type OpenConsole,
  type ProviderMessage,
  type Release,
  type Report,
  type Validated,
} from '@slipway/proto/provider/v1'
import type { Capability, ProviderKind } from '../domain/provider/provider.js'
import type { Holder } from '../store/holders.js'
import type { WorkEntry } from '../store/reports.js'
import type { BelievedClaim } from '../store/sessions.js'
import { ConsoleLines, type ConsoleLine, type ConsoleSink } from './console-lines.js'
import { fromReport, toMs, type OrderQuestion } from './convert.js'
import type { Outbox } from './outbox.js'
import type { WorkLog } from './work-log.js'

export interface SessionIdentity {
  readonly id: string
  readonly providerId: string
  readonly providerName: string
  readonly instanceId: string
  readonly kind: ProviderKind
  readonly capabilities: readonly Capability[]
}

export interface SessionHooks {
  /** It takes work again, after it could take no more. */
  readonly creditBack: () => void
  readonly capacityChanged: (capacity: number) => void
  readonly heartbeat: (heartbeat: Heartbeat) => void
  /** Everything that concerns the provider as a whole: inventory, offerings, answers to Configure and RemoveOrphan. */
  readonly providerMessage: (body: ProviderMessage['body']) => void
  /** The instance broke the protocol. */
  readonly violation: (message: string) => void
  /** The stream is to end, and the instance to connect again. */
  readonly end: (message: string) => void
  /** The stream is to end for this reason. */
  readonly failWith: (error: unknown) => void
}

const reasons = {
  STALE_FENCE: NackReason.STALE_FENCE,
  UNKNOWN_ITEM: NackReason.UNKNOWN_ITEM,
  INVALID: NackReason.INVALID,
  UNAVAILABLE: NackReason.UNAVAILABLE,
} as const

/** One instance's live session on this replica: what it holds, how much more it takes, and what is said each way after the handshake. */
export class ProviderSession {
  readonly id: string
  readonly providerId: string
  readonly providerName: string
  readonly instanceId: string
  readonly kind: ProviderKind
  readonly capabilities: ReadonlySet<Capability>
  /** Version of the configuration that the instance was sent last. */
  configVersion = 0
  readonly #outbox: Outbox
  readonly #workLog: WorkLog
  readonly #hooks: SessionHooks
  /** Claims by item id. */
  readonly #held = new Map<string, { readonly ref: ItemRef; readonly fence: number }>()
  readonly #validations = new Map<string, (validated: Validated) => void>()
  readonly #consoles: ConsoleLines
  #capacity = 0
  #draining = false
  #lastSequence = 0n

  constructor(identity: SessionIdentity, outbox: Outbox, workLog: WorkLog, hooks: SessionHooks) {
    this.id = identity.id
    this.providerId = identity.providerId
    this.providerName = identity.providerName
    this.instanceId = identity.instanceId
    this.kind = identity.kind
    this.capabilities = new Set(identity.capabilities)
    this.#outbox = outbox
    this.#workLog = workLog
    this.#hooks = hooks
    this.#consoles = new ConsoleLines(
      (body) => this.send(body),
      (message) => this.#hooks.violation(message),
    )
  }

  /** Who it is, to statements about what it holds. */
  get holder(): Holder {
    return { sessionId: this.id, providerId: this.providerId }
  }

  /** How many more items the instance takes now. */
  get credit(): number {
    return this.#draining ? 0 : Math.max(0, this.#capacity - this.#held.size)
  }

  /** Whether it works on anything. */
  get holds(): boolean {
    return this.#held.size > 0
  }

  /** Whether it can be given orders to remove orphans. */
  get removesOrphans(): boolean {
    return !this.#draining && this.capabilities.has('REMOVE_ORPHAN')
  }

  hold(ref: ItemRef, fence: number): void {
    this.#held.set(ref.id, { ref, fence })
  }

  /** What it holds, as far as this replica knows. */
  claims(): readonly BelievedClaim[] {
    return [...this.#held].map(([itemId, { fence }]) => ({ sessionId: this.id, itemId, fence }))
  }

  /** Tells the instance that a claim is over, so that it stops before its next effect. A newer claim of the same item is left alone. */
  revoke(itemId: string, fence: number, reason: string): void {
    const claim = this.#held.get(itemId)
    if (claim?.fence !== fence) return
    this.send({ case: 'revoked', value: create(RevokedSchema, { item: claim.ref, fence: BigInt(fence), reason }) })
    this.#letGo(itemId, fence)
  }

  send(body: HubMessage['body']): void {
    this.#outbox.send(body)
  }

  /** Ends the stream; the instance connects again, with what it holds. */
  end(message: string): void {
    this.#hooks.end(message)
  }

  /** Ends the stream for good reason. */
  fail(error: unknown): void {
    this.#hooks.failWith(error)
  }

  /** Handles one message of the instance, after Hello. */
  handle(body: ProviderMessage['body']): void {
    switch (body.case) {
      case 'ready':
        this.#capacity = body.value.capacity
        this.#hooks.capacityChanged(this.#capacity)
        return
      case 'report':
        this.#report(body.value)
        return
      case 'release':
        this.#release(body.value)
        return
      case 'heartbeat':
        this.#hooks.heartbeat(body.value)
        return
      case 'validated':
        this.#validations.get(body.value.validationId)?.(body.value)
        return
      case 'inventory':
      case 'offerings':
      case 'configured':
      case 'orphanRemoval':
      case 'calledBack':
      case 'events':
        this.#hooks.providerMessage(body)
        return
      case 'consoleData':
        this.#consoles.data(body.value)
        return
      case 'consoleClosed':
        this.#consoles.closed(body.value)
        return
      case 'hello':
        this.#hooks.violation('Hello may come only once, as the first message')
        return
      case undefined:
        // A message of a newer protocol that this hub does not know.
        return
    }
  }

  /** Asks the instance about an order. Resolves with undefined when it does not answer in time. */
  validate(question: OrderQuestion, deadlineMs: number): Promise<Validated | undefined> {
    const validationId = crypto.randomUUID()
    return new Promise((resolve) => {
      const settle = (validated: Validated | undefined) => {
        clearTimeout(timer)
        this.#validations.delete(validationId)
        resolve(validated)
      }
      const timer = setTimeout(() => settle(undefined), deadlineMs)
      this.#validations.set(validationId, settle)
      this.send({
        case: 'validate',
        value: create(ValidateSchema, { ...question, validationId, deadline: durationFromMs(deadlineMs) }),
      })
    })
  }

  /** Asks the instance for a machine's console. @throws HubError CONSOLE_BUSY. */
  openConsole(order: OpenConsole, sink: ConsoleSink): ConsoleLine {
    return this.#consoles.open(order, sink)
  }

  /** The stream is over: nothing that hangs on it goes on. */
  over(): void {
    this.#consoles.over()
  }

  configure(message: { readonly version: number; readonly config: object; readonly credentials: object }): void {
    this.configVersion = message.version
    this.send({
      case: 'configure',
      value: create(ConfigureSchema, {
        version: BigInt(message.version),
        config: message.config as never,
        credentials: message.credentials as never,
      }),
    })
  }

  /** Gives it no more work and asks it to move. */
  drain(reason: string, deadlineMs: number): void {
    this.#draining = true
    this.send({ case: 'drain', value: create(DrainSchema, { reason, deadline: durationFromMs(deadlineMs) }) })
  }

  #report(report: Report): void {
    if (report.item === undefined) return
    if (report.sequence <= this.#lastSequence) {
      this.#hooks.violation(
        `sequence ${report.sequence} came after ${this.#lastSequence}; it must rise with every report`,
      )
      return
    }
    this.#lastSequence = report.sequence
    const entry = this.#entry(report.item.id, report.fence, { kind: 'report', report: fromReport(report) })
    void this.#workLog.submit(entry).then((result) => {
      if (result.ok) {
        this.send({ case: 'ack', value: create(AckSchema, { sequence: report.sequence }) })
        return
      }
      if (result.reason === 'STALE_FENCE' || result.reason === 'UNKNOWN_ITEM') this.#letGo(entry.itemId, entry.fence)
      this.send({
        case: 'nack',
        value: create(NackSchema, {
          sequence: report.sequence,
          reason: reasons[result.reason],
          message: result.message,
        }),
      })
    })
  }

  #release(release: Release): void {
    if (release.item === undefined) return
    const itemId = release.item.id
    const body =
      release.outcome.case === 'settledGeneration'
        ? ({ kind: 'settled', generation: Number(release.outcome.value) } as const)
        : ({
            kind: 'retry',
            afterMs: toMs(release.outcome.value),
            generation: Number(release.generation),
          } as const)
    const entry = this.#entry(itemId, release.fence, body)
    void this.#workLog.submit(entry).then(() => this.#letGo(itemId, entry.fence))
  }

  /** The item may be held anew by now, under a higher fence: then it stays. */
  #letGo(itemId: string, fence: number): void {
    if (this.#held.get(itemId)?.fence !== fence) return
    // Where credit was left, whatever was due has been claimed already.
    const wasFull = this.credit === 0
    this.#held.delete(itemId)
    if (wasFull) this.#hooks.creditBack()
  }

  #entry(itemId: string, fence: bigint, body: WorkEntry['body']): WorkEntry {
    return {
      sessionId: this.id,
      providerId: this.providerId,
      providerName: this.providerName,
      itemId,
      fence: Number(fence),
      body,
    }
  }
}
