import type { MessageInitShape } from '@bufbuild/protobuf'
import { durationMs } from '@bufbuild/protobuf/wkt'
import type { Client } from '@grpc/grpc-js'
import type { HeartbeatSchema, HelloSchema, HubMessage, Welcome } from '@slipway/proto/provider/v1'
import type { Logger } from 'pino'
import { dialSession, type ConnectOptions, type Dialed, type GatewayAddress } from './grpc.js'
import type { Identity } from './identity.js'
import { Lease } from './lease.js'
import { Link, type ProviderMessageBody } from './link.js'
import { Reports, type Acked, type ReportInit } from './reports.js'
import { FinalError, finalError, rpcFailure, type RpcFailure } from './rpc-error.js'
import { backOffMs, deferred, monotonicMs, sleep, untilAborted, withDeadline, type Deferred } from './timing.js'

/** The protocol versions that this SDK speaks. */
export const protocolVersions = [1]

/**
 * How a stream stands. On one that is to be left nothing new is taken; one that is left (another Hello has gone out, or its Welcome has come) has no
 * say any more in what is held.
 */
export type Standing = 'serving' | 'moving' | 'left'

/** What a session serves. Handlers must not throw, and must not wait. */
export interface SessionHandlers {
  /** The first message, with all that is held at this moment. */
  hello(): Omit<MessageInitShape<typeof HelloSchema>, '$typeName' | '$unknown'>
  /** A new stream is bound. What is said from here on goes over it. */
  welcome(welcome: Welcome): void
  /** Anything but Welcome, Ack, Nack and Drain. */
  message(message: HubMessage, standing: Standing): void
  heartbeat(): MessageInitShape<typeof HeartbeatSchema>
  /** A claim is over by a refused report. */
  claimOver(claim: string, why: string): void
  /** The lease ran out with no stream to renew it: all that is held is lost. */
  leaseExpired(): void
}

export interface SessionOptions {
  readonly gateway: GatewayAddress
  /** Asked at each connection, so that a renewed certificate comes into use. */
  readonly identity: () => Identity
  readonly handlers: SessionHandlers
  readonly log: Logger
  /** Opens a connection and its stream. Default: over the network. */
  readonly dial?: (options: ConnectOptions) => Dialed
}

const welcomeDeadlineMs = 20_000
const reconnectBaseMs = 250
const reconnectMaxMs = 30_000
/** A stream that lived this long was a good one: the next attempt begins with the shortest pause again. */
const stableMs = 5_000
const defaultKeepaliveMs = 5_000
const ackDeadlineMs = 30_000

interface Opening {
  readonly link: Link
  readonly helloAtMs: number
  readonly welcomed: Deferred<void>
  readonly drain: Deferred<void>
  standing: Standing
}

/** One instance's life-line to the hub: a stream at a time, opened again for ever, with leases, heartbeats and reports that outlive each stream. */
export class Session {
  readonly lease = new Lease()
  readonly #options: SessionOptions
  readonly #reports = new Reports()
  #current: Opening | undefined
  #heartbeatMs = 0
  #keepaliveMs = defaultKeepaliveMs
  #timer: NodeJS.Timeout | undefined
  #expiryTold = false
  #streams = 0

  constructor(options: SessionOptions) {
    this.#options = options
  }

  /** Keeps a stream open until the signal fires. @throws FinalError where going on makes no sense. */
  async run(signal: AbortSignal): Promise<void> {
    let failures = 0
    this.#watchLease()
    try {
      while (!signal.aborted) {
        const openedAtMs = monotonicMs()
        const ended = await this.#connectAndServe(signal)
        if (signal.aborted || ended === 'drain') continue
        const final = finalError(ended)
        if (final !== undefined) throw final
        failures = monotonicMs() - openedAtMs > stableMs ? 0 : failures + 1
        const pauseMs = backOffMs(failures, reconnectBaseMs, reconnectMaxMs)
        this.#options.log.warn(
          { reason: ended.reason || undefined, pauseMs: Math.round(pauseMs) },
          `no session with the hub: ${ended.message}`,
        )
        await sleep(pauseMs, signal).catch(() => undefined)
      }
    } finally {
      clearInterval(this.#timer)
      await this.#current?.link.close()
      this.#current = undefined
    }
  }

  /** The connection in use, for unary calls; undefined while there is none. */
  get client(): Client | undefined {
    return this.#current?.link.open === true ? (this.#current.link.client as Client) : undefined
  }

  /** Which stream is in use, counted from 1; 0 while there is none. What is said in parts must be said over one. */
  get stream(): number {
    return this.client === undefined ? 0 : this.#streams
  }

  /** Says something over the stream in use. What is said while there is none is lost; the next Welcome puts that right. */
  send(body: ProviderMessageBody): void {
    this.#current?.link.send(body)
  }

  /** Returns when all that was said so far is written. */
  async drained(): Promise<void> {
    await this.#current?.link.drained()
  }

  /** Says a report until the hub has stored it. @throws ReportRefused */
  report(claim: string, report: ReportInit): Promise<Acked> {
    return this.#reports.deliver(claim, report)
  }

  /** Says a report once, if that is easily done, and none of its claim waits for its answer; then it waits for that, and may be overtaken by a newer one. */
  tell(claim: string, report: ReportInit): void {
    this.#reports.tell(claim, report)
  }

  /** Ends all waiting for acks of a claim that is over. */
  dropReports(claim: string, why: string): void {
    this.#reports.drop(claim, why)
  }

  /** Sends a heartbeat now: something in it has changed. */
  beat(): void {
    const link = this.#current?.link
    if (link === undefined) return
    const sentAtMs = monotonicMs()
    link.send({ case: 'heartbeat', value: this.#options.handlers.heartbeat() }, () => {
      if (this.#current?.link === link) this.lease.renew(sentAtMs)
    })
  }

  async #connectAndServe(signal: AbortSignal): Promise<RpcFailure | 'drain'> {
    const opening = this.#open()
    try {
      await withDeadline(
        welcomeDeadlineMs,
        signal,
        () => new Error('the hub did not answer Hello in time'),
        () =>
          Promise.race([opening.welcomed.promise, opening.link.closed.then((why) => Promise.reject(new Ended(why)))]),
      )
      const over = Promise.race([opening.link.closed, opening.drain.promise.then(() => 'drain' as const)])
      return await untilAborted(over, signal)
    } catch (error) {
      if (this.#current !== opening) opening.link.cut()
      if (error instanceof FinalError) throw error
      return error instanceof Ended ? error.why : rpcFailure(error)
    }
  }

  #open(): Opening {
    const { gateway, handlers } = this.#options
    const identity = this.#options.identity()
    if (identity.notAfterMs <= Date.now()) {
      throw new FinalError(
        'CERTIFICATE_EXPIRED',
        `the certificate of ${identity.provider} expired at ${new Date(identity.notAfterMs).toISOString()}; enrol again with a new join token`,
      )
    }
    const dial = this.#options.dial ?? dialSession
    const dialed = dial({ gateway, caPems: identity.caPems, client: identity, keepaliveMs: this.#keepaliveMs })
    const link = new Link(dialed, (message) => this.#onMessage(opening, message))
    const opening: Opening = {
      link,
      helloAtMs: monotonicMs(),
      welcomed: deferred(),
      drain: deferred(),
      standing: 'serving',
    }
    // A refused Welcome may find nobody waiting any more.
    opening.welcomed.promise.catch(() => undefined)
    try {
      link.send({ case: 'hello', value: handlers.hello() })
    } catch (error) {
      link.cut()
      throw new FinalError(
        'HELLO_INVALID',
        `the provider's definition cannot be told to the hub: ${(error as Error).message}`,
        error,
      )
    }
    if (this.#current !== undefined) this.#current.standing = 'left'
    void link.closed.then(() => {
      if (this.#current === opening) this.#current = undefined
    })
    return opening
  }

  #onMessage(opening: Opening, message: HubMessage): void {
    const { body } = message
    switch (body.case) {
      case 'welcome':
        this.#welcome(opening, body.value)
        return
      case 'ack':
        this.#reports.ack(opening.link, body.value.sequence)
        return
      case 'nack': {
        const claim = this.#reports.nack(opening.link, body.value, opening.standing === 'left')
        if (claim !== undefined) this.#options.handlers.claimOver(claim, body.value.message)
        return
      }
      case 'drain':
        this.#drain(opening, body.value.reason, body.value.deadline === undefined ? 0 : durationMs(body.value.deadline))
        return
      default:
        this.#options.handlers.message(message, opening.standing)
    }
  }

  #welcome(opening: Opening, welcome: Welcome): void {
    if (!opening.link.open) return
    if (!protocolVersions.includes(welcome.protocolVersion)) {
      opening.welcomed.reject(
        new FinalError(
          'VERSION_UNSUPPORTED',
          `the hub chose protocol version ${welcome.protocolVersion}; upgrade this program`,
        ),
      )
      return
    }
    const previous = this.#current
    this.#current = opening
    this.#streams += 1
    const leaseMs = welcome.leaseDuration === undefined ? 30_000 : durationMs(welcome.leaseDuration)
    const intervalMs = welcome.heartbeatInterval === undefined ? leaseMs / 3 : durationMs(welcome.heartbeatInterval)
    // Early enough that a late timer still keeps the interval.
    this.#heartbeatMs = Math.max(50, intervalMs * 0.75)
    this.#keepaliveMs = Math.min(10_000, Math.max(250, leaseMs / 4))
    this.lease.renew(opening.helloAtMs, leaseMs)
    this.#expiryTold = false
    this.#options.log.info(
      { session: welcome.sessionId, replica: welcome.replica, bound: welcome.bound.length },
      'session with the hub',
    )
    this.#options.handlers.welcome(welcome)
    this.#reports.attach(opening.link)
    this.beat()
    this.#watchLease()
    opening.welcomed.resolve()
    void previous?.link.close()
  }

  #drain(opening: Opening, reason: string, deadlineMs: number): void {
    if (opening.standing !== 'serving') return
    opening.standing = 'moving'
    // A replica that goes away tells all of its providers at once: they must not arrive at the next one at once.
    const pauseMs = Math.random() * Math.min(1_000, deadlineMs / 4)
    this.#options.log.info({ reason, pauseMs: Math.round(pauseMs) }, 'the hub asks to move the session')
    setTimeout(() => opening.drain.resolve(), pauseMs)
  }

  /** One timer beats and looks at the lease: whichever of the two is late, the other knows. */
  #watchLease(): void {
    clearInterval(this.#timer)
    this.#timer = setInterval(() => this.#tick(), this.#heartbeatMs || 1_000)
  }

  #tick(): void {
    if (this.lease.durationMs > 0 && this.lease.hasExpired() && !this.#expiryTold) {
      this.#expiryTold = true
      this.#options.handlers.leaseExpired()
    }
    const link = this.#current?.link
    if (link === undefined) return
    if (!this.lease.mayAct()) {
      // This process stood still, or writes into a void. Only a new Hello tells what is still held.
      this.#options.log.warn('no sign of life went out for most of the lease; opening a new session')
      link.cut()
      return
    }
    if ((this.#reports.oldestWaitMs(link) ?? 0) > Math.max(ackDeadlineMs, this.lease.durationMs)) {
      this.#options.log.warn('the hub acknowledges nothing; opening a new session')
      link.cut()
      return
    }
    this.beat()
  }
}

class Ended extends Error {
  readonly why: RpcFailure

  constructor(why: RpcFailure) {
    super(why.message)
    this.why = why
  }
}
