import { Server, type sendUnaryData, type ServerUnaryCall } from '@grpc/grpc-js'
import { createValidator } from '@bufbuild/protovalidate'
import {
  EnrollRequestSchema,
  ProviderService,
  RenewRequestSchema,
  type EnrollRequest,
  type EnrollResponse,
  type MachineSpec,
  type RenewRequest,
  type RenewResponse,
} from '@slipway/proto/provider/v1'
import type { DescMessage, MessageShape } from '@bufbuild/protobuf'
import { HealthImplementation } from 'grpc-health-check'
import { HubError } from '../domain/error/errors.js'
import { liveConfigVersion } from '../store/provider-facts.js'
import { readProviderSecrets } from '../store/provider-secrets.js'
import type { GatewayDeps } from './deps.js'
import { Dispatcher } from './dispatcher.js'
import { enroll, renew } from './enrolment.js'
import { serviceDefinition } from './grpc-adapter.js'
import { Heartbeats } from './heartbeats.js'
import { listen, type Listener } from './listener.js'
import { validateLive, type LiveVerdict } from './live-validator.js'
import { OrphanCourier } from './orphan-courier.js'
import type { SessionStream } from './outbox.js'
import { identifyPeer } from './peer.js'
import { addReflection } from './reflection.js'
import { SessionRegistry } from './registry.js'
import { toServiceError } from './status.js'
import { StreamHandler, type StreamParts } from './stream.js'
import { WorkLog } from './work-log.js'

export type { GatewayConfig, GatewayDeps } from './deps.js'

const pollMs = 20
/** Missed wake-ups about configuration and revocation are made up for this often. */
const providerSweepMs = 10_000

export interface Gateway {
  readonly host: string
  readonly port: number
  /** Asks a connected instance whether it would refuse an order. */
  validate(providerId: string, spec: MachineSpec, deadlineMs: number): Promise<LiveVerdict>
  /** How many sessions are open on this replica. */
  sessionCount(): number
  /** Asks all instances to move, waits for them for so long, and closes. Nothing that they hold is lost. */
  drain(deadlineMs: number): Promise<void>
}

/** Serves providers: enrolment, renewal and sessions, with health and reflection. */
export async function startGateway(deps: GatewayDeps): Promise<Gateway> {
  const log = deps.log.child({ component: 'gateway' })
  const registry = new SessionRegistry()
  const dispatcher = new Dispatcher(deps, registry)
  const courier = new OrphanCourier(deps, registry)
  const workLog = new WorkLog(deps.db, deps.wake, log)
  const heartbeats = new Heartbeats({
    db: deps.db,
    leaseMs: deps.config.leaseMs,
    log,
    onLost: (id) => registry.get(id)?.end('the lease of this session is over; connect again with what is held'),
  })
  let draining = false
  const parts: StreamParts = { deps, registry, dispatcher, workLog, heartbeats, isDraining: () => draining }
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
  server.addService(serviceDefinition(ProviderService), implementation(deps, parts))
  const listener = await listen(
    server,
    deps.authority,
    { host: deps.config.gatewayHost, port: deps.config.gatewayPort, names: deps.config.gatewayNames },
    log,
  )
  const stopTimers = keepLooking(deps, registry, dispatcher, courier)
  log.info({ host: listener.host, port: listener.port }, 'gateway listens')
  return {
    host: listener.host,
    port: listener.port,
    validate: (providerId, spec, deadlineMs) => validateLive(registry, providerId, spec, deadlineMs),
    sessionCount: () => registry.all().length,
    drain: async (deadlineMs) => {
      draining = true
      health.setStatus('', 'NOT_SERVING')
      health.setStatus(ProviderService.typeName, 'NOT_SERVING')
      stopTimers()
      await Promise.all([dispatcher.stop(), courier.stop()])
      for (const session of registry.all()) session.drain('this replica is shutting down', deadlineMs)
      await closeAll({ server, listener, registry, heartbeats, workLog }, deadlineMs)
    },
  }
}

function implementation(deps: GatewayDeps, parts: StreamParts) {
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
        const peer = await identifyPeer(call, deps)
        return renew(call.request, peer, call.getPeer(), deps)
      }, callback),
    session: (stream: SessionStream) => new StreamHandler(stream, parts).start(),
  }
}

/** Looks for work, and for changed configurations, when woken and from time to time without. */
function keepLooking(
  deps: GatewayDeps,
  registry: SessionRegistry,
  dispatcher: Dispatcher,
  courier: OrphanCourier,
): () => void {
  const configure = (providerId: string): void => {
    refreshProvider(deps, registry, providerId).catch((error: unknown) =>
      deps.log.warn({ err: error, providerId }, 'cannot look at a provider now'),
    )
  }
  const stops = [
    deps.wake.on('work', ({ providerId }) => {
      dispatcher.request(providerId)
      courier.request(providerId)
    }),
    deps.wake.on('provider', ({ providerId }) => configure(providerId)),
  ]
  const timers = [
    setInterval(() => {
      dispatcher.request(...registry.providerIds())
      courier.request(...registry.providerIds())
    }, deps.config.sweepMs),
    setInterval(() => registry.providerIds().forEach(configure), providerSweepMs),
  ]
  for (const timer of timers) timer.unref()
  return () => {
    for (const stop of stops) stop()
    for (const timer of timers) clearInterval(timer)
  }
}

/** Brings a changed configuration to a provider's sessions, and ends those of one that was deleted. */
async function refreshProvider(deps: GatewayDeps, registry: SessionRegistry, providerId: string): Promise<void> {
  const sessions = registry.ofProvider(providerId)
  if (sessions.length === 0) return
  const version = await liveConfigVersion(deps.db, providerId)
  if (version === undefined) {
    for (const session of sessions)
      session.fail(new HubError('PROVIDER_DELETED', 'the provider was deleted; stop this instance'))
    return
  }
  const behind = sessions.filter((session) => session.configVersion < version)
  if (behind.length === 0) return
  const message = await readProviderSecrets(deps.db, deps.keyring, providerId)
  for (const session of behind) session.configure(message)
}

interface Closing {
  readonly server: Server
  readonly listener: Listener
  readonly registry: SessionRegistry
  readonly heartbeats: Heartbeats
  readonly workLog: WorkLog
}

/** Waits until the instances have moved, then closes; at the deadline it closes all the same. */
async function closeAll(closing: Closing, deadlineMs: number): Promise<void> {
  const deadline = performance.now() + deadlineMs
  while (closing.registry.all().length > 0 && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, pollMs))
  }
  await closing.workLog.idle()
  await closing.heartbeats.flush()
  closing.heartbeats.stop()
  const closed = closing.listener.close()
  closing.server.forceShutdown()
  await closed
}
