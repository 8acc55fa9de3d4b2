import { create } from '@bufbuild/protobuf'
import { createValidator } from '@bufbuild/protovalidate'
import type { ServerDuplexStream } from '@grpc/grpc-js'
import type { OpenConsole } from '@slipway/proto/provider/v1'
import {
  CarryConsoleRequestSchema,
  CarryConsoleResponseSchema,
  type CarryConsoleRequest,
  type CarryConsoleResponse,
} from '@slipway/proto/replica/v1'
import { isReplica } from '../auth/authority.js'
import { errorCatalogue, HubError, type ErrorReason } from '../domain/error/errors.js'
import type { Wake } from '../store/wake.js'
import { providerLeft } from './console-ends.js'
import type { ConsoleLine, ConsoleSink } from './console-lines.js'
import { toServiceError } from './status.js'

/** A replica that was woken calls back within moments; what is lost is asked for again. */
const askAgainMs = 1_000
const arrivalTimeoutMs = 8_000
/** A caller that does not say what it brings. */
const firstMessageTimeoutMs = 5_000

export type CarryCall = ServerDuplexStream<CarryConsoleRequest, CarryConsoleResponse>

const validator = createValidator()

/**
 * The side of the replica that has the reader. It cannot know where the other replica is, and need not: it asks all of them by a wake-up, which names
 * the session, and the one that has that session calls. The console's bytes come with that call, and never through the database.
 */
export class ConsoleArrivals {
  readonly #wake: Wake
  readonly #hubId: string
  readonly #address: () => string
  readonly #waiting = new Map<string, (call: CarryCall) => void>()

  constructor(wake: Wake, hubId: string, address: () => string) {
    this.#wake = wake
    this.#hubId = hubId
    this.#address = address
  }

  /** Opens a console on a session of another replica. @throws HubError PROVIDER_OFFLINE where none calls in time; the signal's reason. */
  async open(sessionId: string, order: OpenConsole, sink: ConsoleSink, signal: AbortSignal): Promise<ConsoleLine> {
    const call = await this.#arrival(sessionId, order.streamId, signal)
    call.write(create(CarryConsoleResponseSchema, { body: { case: 'open', value: { sessionId, open: order } } }))
    return steer(call, sink)
  }

  /** Takes a call of another replica. */
  accept(call: CarryCall): void {
    const certificate = call.getAuthContext().sslPeerCertificate
    call.on('error', () => undefined)
    if (certificate === undefined || !isReplica(certificate.raw, this.#hubId)) {
      const refusal = new HubError('CERTIFICATE_REQUIRED', 'only replicas of this hub may call this')
      call.emit('error', toServiceError(refusal))
      return
    }
    const timer = setTimeout(() => call.end(), firstMessageTimeoutMs)
    call.on('cancelled', () => clearTimeout(timer))
    call.once('data', (message: CarryConsoleRequest) => {
      clearTimeout(timer)
      const streamId = message.body.case === 'arrival' ? message.body.value.streamId : ''
      const taken = this.#waiting.get(streamId)
      this.#waiting.delete(streamId)
      // Nobody waits any more: the reader is gone, or another call came first.
      if (taken === undefined) call.end()
      else taken(call)
    })
  }

  #arrival(sessionId: string, streamId: string, signal: AbortSignal): Promise<CarryCall> {
    const ask = (): void => this.#wake.signal({ kind: 'console', sessionId, streamId, address: this.#address() })
    return new Promise((resolve, reject) => {
      const settle = (how: () => void): void => {
        clearInterval(again)
        clearTimeout(late)
        signal.removeEventListener('abort', gone)
        this.#waiting.delete(streamId)
        how()
      }
      const gone = (): void => settle(() => reject(signal.reason as Error))
      const again = setInterval(ask, askAgainMs)
      const late = setTimeout(() => settle(() => reject(notReached())), arrivalTimeoutMs)
      this.#waiting.set(streamId, (call) => settle(() => resolve(call)))
      signal.addEventListener('abort', gone)
      if (signal.aborted) gone()
      else ask()
    })
  }
}

function notReached(): HubError {
  return new HubError(
    'PROVIDER_OFFLINE',
    'the replica that has the session of the provider did not call back: try again, and see that replicas reach each other (--replica-address)',
    { retryAfterMs: 1_000 },
  )
}

/** Passes on what comes with a call, once each and to one end. */
function steer(call: CarryCall, sink: ConsoleSink): ConsoleLine {
  let over = false
  const end = (tell: () => void): void => {
    if (over) return
    over = true
    tell()
    call.end()
  }
  call.on('data', (message: CarryConsoleRequest) => {
    if (over) return
    if (validator.validate(CarryConsoleRequestSchema, message).kind !== 'valid')
      return end(() => sink.failed(providerLeft('another replica said what cannot be')))
    const { body } = message
    if (body.case === 'data') sink.data(body.value)
    else if (body.case === 'closed') end(() => sink.closed(body.value))
    else if (body.case === 'refused') end(() => sink.failed(fromRefusal(body.value)))
  })
  const left = (): void =>
    end(() => sink.failed(providerLeft('the replica that has the session of the provider went away')))
  call.on('end', left)
  call.on('cancelled', left)
  return {
    credit: (bytes) => {
      if (!over) call.write(create(CarryConsoleResponseSchema, { body: { case: 'creditBytes', value: bytes } }))
    },
    close: () => end(() => undefined),
  }
}

function fromRefusal({ reason, message }: { readonly reason: string; readonly message: string }): HubError {
  const known = Object.keys(errorCatalogue).find((candidate) => candidate === reason) as ErrorReason | undefined
  return new HubError(known ?? 'CONSOLE_FAILED', message, { retryAfterMs: 1_000 })
}
