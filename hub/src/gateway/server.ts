import { Server, type sendUnaryData, type ServerUnaryCall } from '@grpc/grpc-js'
import { createValidator } from '@bufbuild/protovalidate'
import {
  EnrollRequestSchema,
  ProviderService,
  RenewRequestSchema,
  type EnrollRequest,
  type EnrollResponse,
  type RenewRequest,
  type RenewResponse,
} from '@slipway/proto/provider/v1'
import { ReplicaService } from '@slipway/proto/replica/v1'
import type { DescMessage, MessageShape } from '@bufbuild/protobuf'
import { HealthImplementation } from 'grpc-health-check'
import { HubError } from '../domain/error/errors.js'
import type { GatewayDeps } from './deps.js'
import { ConsoleArrivals, type CarryCall } from './console-arrivals.js'
import { ConsoleCarrier } from './console-carrier.js'
import { ConsoleDesk } from './console-desk.js'
import { enroll, renew } from './enrolment.js'
import type { OrderQuestion } from './convert.js'
import { serviceDefinition } from './grpc-adapter.js'
import { listen, type Listener } from './listener.js'
import type { LiveVerdict } from './live-validator.js'
import type { SessionStream } from './outbox.js'
import { identifyPeer } from './peer.js'
import { replicaAddress } from './replica-address.js'
import { addReflection } from './reflection.js'
import { SessionHost } from './session-host.js'
import { toServiceError } from './status.js'

export type { GatewayConfig, GatewayDeps } from './deps.js'

export interface Gateway {
  readonly host: string
  readonly port: number
  /** Asks a connected instance whether it would refuse an order. */
  validate(providerId: string, question: OrderQuestion, deadlineMs: number): Promise<LiveVerdict>
  /** Machines' consoles, on whichever replica their provider is connected to. */
  readonly consoles: ConsoleDesk
  /** How many sessions are open on this replica. */
  sessionCount(): number
  /** Asks all instances to move, waits for them for so long, and closes. Nothing that they hold is lost. */
  drain(deadlineMs: number): Promise<void>
}

/** A reader who takes nothing for this long is cut off. */
const readerIdleMs = 60_000
/** How many consoles may be read on a replica at once: each may have its window of bytes waiting. */
const maxConsoleReaders = 256

/** Serves providers: enrolment, renewal and sessions, with health and reflection. */
export async function startGateway(deps: GatewayDeps): Promise<Gateway> {
  const log = deps.log.child({ component: 'gateway' })
  const sessions = new SessionHost(deps)
  const server = new Server({
    'grpc.max_receive_message_length': deps.config.maxMessageBytes,
    'grpc.max_concurrent_streams': 32,
    'grpc.keepalive_time_ms': Math.max(1_000, deps.config.leaseMs),
    'grpc.keepalive_timeout_ms': Math.max(1_000, deps.config.heartbeatMs),
    'grpc.enable_channelz': 0,
  })
  const health = new HealthImplementation({ '': 'SERVING', [ProviderService.typeName]: 'SERVING' })
  health.addToServer(server)
  addReflection(server, [ProviderService])
  server.addService(serviceDefinition(ProviderService), implementation(deps, sessions))
  let address = ''
  const arrivals = new ConsoleArrivals(deps.wake, deps.hubId, () => address)
  server.addService(serviceDefinition(ReplicaService), { carryConsole: (call: CarryCall) => arrivals.accept(call) })
  const listener = await listen(
    server,
    deps.authority,
    { host: deps.config.gatewayHost, port: deps.config.gatewayPort, names: deps.config.gatewayNames },
    log,
  )
  address = replicaAddress(deps.config.replicaAddress, listener)
  const carrier = new ConsoleCarrier(sessions.registry, deps.authority, deps.wake, log)
  const consoles = new ConsoleDesk({
    db: deps.db,
    openLine: async (sessionId, order, sink, signal) =>
      sessions.registry.get(sessionId)?.openConsole(order, sink) ?? arrivals.open(sessionId, order, sink, signal),
    silenceMs: deps.config.watchHeartbeatMs,
    readerIdleMs,
    maxReaders: maxConsoleReaders,
  })
  log.info({ host: listener.host, port: listener.port }, 'gateway listens')
  return {
    host: listener.host,
    port: listener.port,
    validate: (providerId, question, deadlineMs) => sessions.validate(providerId, question, deadlineMs),
    consoles,
    sessionCount: () => sessions.count,
    drain: async (deadlineMs) => {
      health.setStatus('', 'NOT_SERVING')
      health.setStatus(ProviderService.typeName, 'NOT_SERVING')
      carrier.stop()
      await closeAll(server, listener, sessions, deadlineMs)
    },
  }
}

function implementation(deps: GatewayDeps, sessions: SessionHost) {
  const validator = createValidator()
  const check = <Schema extends DescMessage>(schema: Schema, message: MessageShape<Schema>): void => {
    const checked = validator.validate(schema, message)
    if (checked.kind === 'valid') return
    const violations =
      checked.kind === 'invalid'
        ? checked.violations.map((violation) => ({
            field: violation.field.map((part) => ('name' in part ? part.name : '')).join('.'),
            description: violation.message,
          }))
        : []
    throw new HubError(
      'INVALID_FIELD',
      violations.map((violation) => `${violation.field}: ${violation.description}`).join('; '),
      { violations },
    )
  }
  const answer = <Response>(work: () => Promise<Response>, callback: sendUnaryData<Response>): void => {
    work().then(
      (response) => callback(null, response),
      (error: unknown) => {
        if (!(error instanceof HubError)) deps.log.error({ err: error }, 'gateway call failed')
        callback(toServiceError(error))
      },
    )
  }
  return {
    enroll: (call: ServerUnaryCall<EnrollRequest, EnrollResponse>, callback: sendUnaryData<EnrollResponse>) =>
      answer(() => {
        check(EnrollRequestSchema, call.request)
        return enroll(call.request, call.getPeer(), deps)
      }, callback),
    renew: (call: ServerUnaryCall<RenewRequest, RenewResponse>, callback: sendUnaryData<RenewResponse>) =>
      answer(async () => {
        check(RenewRequestSchema, call.request)
        const peer = await identifyPeer(call, deps, sessions.reads)
        return renew(call.request, peer, call.getPeer(), deps)
      }, callback),
    session: (stream: SessionStream) => sessions.accept(stream),
  }
}

/** Moves the instances to other replicas, then closes; at the deadline it closes all the same. */
async function closeAll(server: Server, listener: Listener, sessions: SessionHost, deadlineMs: number): Promise<void> {
  await sessions.drain(deadlineMs)
  const closed = listener.close()
  server.forceShutdown()
  await closed
}
