import { HubError } from '../domain/error/errors.js'
import { liveConfigVersion } from '../store/provider-facts.js'
import { readProviderSettings } from '../store/provider-credentials.js'
import { findLostClaims } from '../store/sessions.js'
import type { GatewayDeps } from './deps.js'
import { Dispatcher } from './dispatcher.js'
import { Heartbeats } from './heartbeats.js'
import { HelloReads } from './hello-reads.js'
import { OrphanCourier } from './orphan-courier.js'
import type { OrderQuestion } from './convert.js'
import { validateLive, type LiveVerdict } from './live-validator.js'
import type { SessionStream } from './outbox.js'
import { SessionRegistry } from './registry.js'
import { StreamHandler, type StreamParts } from './stream.js'
import { WorkLog } from './work-log.js'

const pollMs = 20
/** Missed wake-ups about configuration and revocation are made up for this often. */
const providerSweepMs = 10_000

/** All sessions of this replica, and what serves them. It knows streams, and nothing of the network that brings them. */
export class SessionHost {
  /** The sessions that are open here. */
  readonly registry = new SessionRegistry()
  readonly reads: HelloReads
  readonly #dispatcher: Dispatcher
  readonly #courier: OrphanCourier
  readonly #workLog: WorkLog
  readonly #heartbeats: Heartbeats
  readonly #parts: StreamParts
  readonly #stopLooking: () => void
  #draining = false

  constructor(deps: GatewayDeps) {
    const log = deps.log.child({ component: 'gateway' })
    this.reads = new HelloReads(deps.db, deps.keyring)
    this.#dispatcher = new Dispatcher(deps, this.registry)
    this.#courier = new OrphanCourier(deps, this.registry)
    this.#workLog = new WorkLog(deps.db, deps.wake, log)
    this.#heartbeats = new Heartbeats({
      db: deps.db,
      leaseMs: deps.config.leaseMs,
      log,
      onLost: (id) => this.registry.get(id)?.end('the lease of this session is over; connect again with what is held'),
    })
    this.#parts = {
      deps,
      registry: this.registry,
      dispatcher: this.#dispatcher,
      workLog: this.#workLog,
      heartbeats: this.#heartbeats,
      reads: this.reads,
      isDraining: () => this.#draining,
    }
    this.#stopLooking = keepLooking(deps, this.registry, this.#dispatcher, this.#courier)
  }

  /** Serves one instance's stream, from its first byte to its last. */
  accept(stream: SessionStream): void {
    new StreamHandler(stream, this.#parts).start()
  }

  /** Asks a connected instance whether it would refuse an order. */
  validate(providerId: string, question: OrderQuestion, deadlineMs: number): Promise<LiveVerdict> {
    return validateLive(this.registry, providerId, question, deadlineMs)
  }

  /** How many sessions are open. */
  get count(): number {
    return this.registry.all().length
  }

  /** Asks all instances to move, and waits for them, and for all that they said to be stored; at the deadline no longer for the instances. */
  async drain(deadlineMs: number): Promise<void> {
    this.#draining = true
    this.#stopLooking()
    await Promise.all([this.#dispatcher.stop(), this.#courier.stop()])
    for (const session of this.registry.all()) session.drain('this replica is shutting down', deadlineMs)
    const deadline = performance.now() + deadlineMs
    while (this.count > 0 && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, pollMs))
    await this.#workLog.idle()
    await this.#heartbeats.flush()
    this.#heartbeats.stop()
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
  const revokeLost = gathered(() => revokeLostClaims(deps, registry))
  const stops = [
    deps.wake.on('work', ({ providerId }) => {
      dispatcher.request(providerId)
      courier.request(providerId)
    }),
    deps.wake.on('provider', ({ providerId }) => configure(providerId)),
    deps.wake.on('claim', revokeLost),
  ]
  const timers = [
    setInterval(() => {
      dispatcher.request(...registry.providerIds())
      courier.request(...registry.providerIds())
      revokeLost()
    }, deps.config.sweepMs),
    setInterval(() => registry.providerIds().forEach(configure), providerSweepMs),
  ]
  for (const timer of timers) timer.unref()
  return () => {
    for (const stop of stops) stop()
    for (const timer of timers) clearInterval(timer)
  }
}

/** Runs one at a time; whatever asks meanwhile makes it run once more. */
function gathered(work: () => Promise<void>): () => void {
  let running = false
  let again = false
  const run = async (): Promise<void> => {
    running = true
    do {
      again = false
      await work()
    } while (again)
    running = false
  }
  return () => {
    if (running) again = true
    else void run()
  }
}

/** Tells instances of claims that are over by the records: another instance has them, or a person ended them. */
async function revokeLostClaims(deps: GatewayDeps, registry: SessionRegistry): Promise<void> {
  try {
    const believed = registry.all().flatMap((session) => session.claims())
    for (const lost of await findLostClaims(deps.db, believed)) {
      registry
        .get(lost.sessionId)
        ?.revoke(lost.itemId, lost.fence, 'the claim is over: the hub has given the item to another, or it was ended')
    }
  } catch (error) {
    // The next look finds them; until then no report under their fences is stored.
    deps.log.warn({ err: error }, 'cannot look for lost claims now')
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
  const { wanted } = await readProviderSettings(deps.db, deps.keyring, providerId)
  for (const session of behind) session.configure(wanted)
}
