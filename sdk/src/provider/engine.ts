import { randomUUID } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { durationMs } from '@bufbuild/protobuf/wkt'
import {
  OrphanOutcome,
  type Claimed,
  type Configure,
  type Desired,
  type DesiredChanged,
  type Held,
  type HubMessage,
  type ItemRef,
  type OrphanRemovalSchema,
  type RemoveOrphan,
  type Revoked,
  type Validate,
  type Welcome,
} from '@slipway/proto/provider/v1'
import type { Logger } from 'pino'
import type { ConnectOptions, Dialed, GatewayAddress } from '../internal/grpc.js'
import type { Identity } from '../internal/identity.js'
import { Session, type SessionHandlers, type Standing } from '../internal/session.js'
import { monotonicMs, sleep, untilAborted, withDeadline } from '../internal/timing.js'
import { Budgets } from './budgets.js'
import { Consoles } from './consoles.js'
import { failureToProto, violationToProto } from './convert.js'
import { DoubtMemory } from './doubts.js'
import { convergeDynamic } from './dynamic.js'
import { ProviderError } from './errors.js'
import { Health } from './health.js'
import { helloOf, type HelloInit } from './hello.js'
import { Listing, runCheck } from './listing.js'
import { adoptionViolations } from './adopt-server.js'
import { checkOrder, reinstallTarget } from './order.js'
import { removeOrphan } from './orphan.js'
import { makeContext, type Runtime } from './runtime.js'
import { parseSettings, type AnyDefinition, type Snapshot } from './settings.js'
import { Telling } from './telling.js'
import type { RateBudgetState } from './types.js'
import { convergeStatic } from './static.js'
import { releaseOf, WorkItem, type Converge } from './work-item.js'

export interface EngineOptions {
  readonly definition: AnyDefinition
  readonly gateway: GatewayAddress
  readonly identity: () => Identity
  readonly instanceName: string
  readonly capacity: number
  readonly log: Logger
  /** Opens a connection and its stream. Default: over the network. */
  readonly dial?: (options: ConnectOptions) => Dialed
}

/** How long what cannot be interrupted may take when the process stops; without a hub to tell of it, there is less to wait for. */
const stopGraceMs = 30_000
const stopGraceAloneMs = 3_000
/** How long a function may go on after its abort before the item is handed to others. */
const abortGraceMs = 60_000
const defaultValidateMs = 10_000
/** For hubs that set no deadline. */
const defaultRemovalMs = 10 * 60_000
const maxViolations = 100

/** One running provider: it takes what the hub says apart, and keeps each item's work from all others. */
export class Engine implements SessionHandlers {
  readonly session: Session
  readonly #options: EngineOptions
  readonly #runtime: Runtime
  readonly #health: Health
  readonly #listing: Listing
  readonly #consoles: Consoles
  readonly #instanceId = randomUUID()
  readonly #memory = new DoubtMemory()
  readonly #converge: Converge
  /** What this process holds, by item id. */
  readonly #items = new Map<string, WorkItem>()
  /** What runs, held or not: a function may go on for a while after its claim was lost. */
  readonly #running = new Map<string, Promise<void>>()
  readonly #stop = new AbortController()
  #settings: Snapshot | undefined
  #hubId = ''
  #configuring: Promise<void> = Promise.resolve()
  #removing: Promise<void> = Promise.resolve()

  constructor(options: EngineOptions) {
    const { definition, log } = options
    this.#options = options
    this.session = new Session({
      gateway: options.gateway,
      identity: options.identity,
      handlers: this,
      log,
      ...(options.dial !== undefined && { dial: options.dial }),
    })
    this.#health = new Health(() => this.session.beat())
    this.#runtime = {
      definition,
      session: this.session,
      budgets: new Budgets(definition.budgets),
      health: this.#health,
      log,
      telling: new Telling(this.session),
      provider: options.identity().provider,
      hubId: () => this.#hubId,
    }
    this.#listing = new Listing(this.#runtime, () => this.#settings)
    this.#consoles = new Consoles(this.#runtime, () => this.#settings)
    this.#converge = (task) =>
      definition.kind === 'static' ? convergeStatic(task, definition) : convergeDynamic(task, definition)
  }

  /** Looks around until {@link stop}. */
  lookAround(): Promise<void> {
    return this.#listing.run(this.#stop.signal)
  }

  /** Takes nothing new, finishes what cannot be interrupted, and hands the rest back. */
  async stop(): Promise<void> {
    this.#stop.abort(new Error('this instance is stopping'))
    this.session.send({ case: 'ready', value: { capacity: 0 } })
    for (const item of this.#items.values()) item.stop()
    this.#consoles.stop()
    const grace = new AbortController()
    const graceMs = this.session.stream > 0 ? stopGraceMs : stopGraceAloneMs
    await Promise.race([Promise.all(this.#running.values()), sleep(graceMs, grace.signal).catch(() => undefined)])
    grace.abort()
    this.abandon('this instance is stopping')
  }

  /** Drops all that is held, at once. */
  abandon(why: string): void {
    this.#stop.abort(new Error(why))
    this.#consoles.dropAll(why)
    for (const item of [...this.#items.values()]) this.#revoke(item, why)
  }

  hello(): HelloInit {
    const { definition, instanceName } = this.#options
    const holds = [...this.#items.values()].map((item) => ({
      item: item.ref,
      fence: item.fence,
      generation: item.desired.generation,
    }))
    return { ...helloOf(definition, this.#instanceId, instanceName), holds }
  }

  heartbeat() {
    return { ...this.#health.toProto(), budgets: this.#runtime.budgets.toProto(this.#keptBudgets()) }
  }

  /** A defect of the author's must not keep the session from its heartbeat. */
  #keptBudgets(): readonly RateBudgetState[] {
    try {
      return this.#options.definition.rateBudgets?.() ?? []
    } catch (thrown) {
      this.#runtime.log.warn({ err: thrown }, 'rateBudgets failed; nothing is told of them')
      return []
    }
  }

  welcome(welcome: Welcome): void {
    this.#hubId = welcome.hubId
    this.#consoles.dropAll('the stream that the console was opened on is over')
    const bound = new Map(welcome.bound.map((held) => [held.item?.id ?? '', held]))
    for (const item of [...this.#items.values()]) {
      if (bound.get(item.ref.id)?.fence !== item.fence)
        this.#revoke(item, 'the claim was lost while there was no session')
    }
    // What ended while there was no stream to say so.
    for (const held of bound.values()) this.#releaseUnheld(held)
    if (welcome.configure !== undefined) this.#configure(welcome.configure, false)
    this.#sayReady()
    this.#runtime.telling.flush()
  }

  message({ body }: HubMessage, standing: Standing): void {
    switch (body.case) {
      case 'claimed':
        return this.#claimed(body.value, standing)
      case 'desiredChanged':
        return this.#desiredChanged(body.value)
      case 'revoked':
        return standing === 'left' ? undefined : this.#revoked(body.value)
      case 'configure':
        return this.#configure(body.value, true)
      case 'validate':
        void this.#validate(body.value)
        return
      case 'openConsole':
        return standing === 'left' || this.#stop.signal.aborted ? undefined : this.#consoles.open(body.value)
      case 'consoleCredit':
        return this.#consoles.credit(body.value)
      case 'closeConsole':
        return this.#consoles.close(body.value)
      case 'removeOrphan':
        return this.#removeOrphan(body.value)
      default:
        // Newer hubs may say more.
        this.#runtime.log.debug({ body: body.case }, 'a message that this version does not know')
    }
  }

  claimOver(claim: string, why: string): void {
    for (const item of [...this.#items.values()]) if (item.claim === claim) this.#revoke(item, why)
  }

  leaseExpired(): void {
    for (const item of [...this.#items.values()]) this.#revoke(item, 'the lease ran out')
  }

  #claimed(claimed: Claimed, standing: Standing): void {
    const { item: ref, desired } = claimed
    if (ref === undefined || desired === undefined) return
    const held = this.#items.get(ref.id)
    if (held?.fence === claimed.fence) return held.change(desired, claimed.steps)
    if (held !== undefined && held.fence > claimed.fence) return
    if (standing !== 'serving' || this.#stop.signal.aborted || this.#settings === undefined) {
      const retryAfterMs = this.#settings === undefined ? 5_000 : 0
      this.session.send({ case: 'release', value: releaseOf({ ref, fence: claimed.fence }, { retryAfterMs }) })
      return
    }
    if (held !== undefined) this.#revoke(held, 'claimed anew')
    this.#begin({ ...claimed, item: ref, desired })
  }

  #begin(claimed: Claimed & { readonly item: ItemRef; readonly desired: Desired }): void {
    const item = new WorkItem(this.#runtime, this.#memory, claimed)
    const { id } = item.ref
    this.#items.set(id, item)
    const running = this.#serve(item, this.#running.get(id)).finally(() => {
      if (this.#running.get(id) === running) this.#running.delete(id)
    })
    this.#running.set(id, running)
  }

  async #serve(item: WorkItem, previous: Promise<void> | undefined): Promise<void> {
    const outcome = (await this.#previousEnded(item, previous))
      ? await item.work(this.#converge, () => this.#settingsInUse())
      : { retryAfterMs: abortGraceMs }
    if (this.#items.get(item.ref.id) === item) this.#items.delete(item.ref.id)
    if (outcome !== undefined && !item.over.aborted)
      this.session.send({ case: 'release', value: releaseOf(item, outcome) })
  }

  /** Two functions must never work on one item at once, also where the first one ignores that its claim is lost. */
  async #previousEnded(item: WorkItem, previous: Promise<void> | undefined): Promise<boolean> {
    if (previous === undefined) return true
    const grace = new AbortController()
    const ended = previous.then(() => true)
    const late = sleep(abortGraceMs, grace.signal).then(
      () => false,
      () => false,
    )
    try {
      const result = await untilAborted(Promise.race([ended, late]), item.over).catch(() => true)
      if (!result)
        this.#runtime.log.error(
          { item: item.ref.id },
          'a function goes on although its signal has fired; the item is handed back',
        )
      return result
    } finally {
      grace.abort()
    }
  }

  #settingsInUse(): Snapshot {
    if (this.#settings === undefined) throw new Error('work was taken without settings')
    return this.#settings
  }

  #desiredChanged({ item: ref, fence, desired, steps }: DesiredChanged): void {
    const item = this.#items.get(ref?.id ?? '')
    if (item?.fence === fence && desired !== undefined) item.change(desired, steps)
  }

  #revoked({ item: ref, fence, reason }: Revoked): void {
    const item = this.#items.get(ref?.id ?? '')
    if (item?.fence === fence) this.#revoke(item, reason || 'revoked by the hub')
  }

  #revoke(item: WorkItem, why: string): void {
    this.#runtime.log.warn({ item: item.ref.id, why }, 'a claim is over')
    this.#items.delete(item.ref.id)
    item.revoke(why)
  }

  #releaseUnheld({ item: ref, fence }: Held): void {
    if (ref === undefined || this.#items.has(ref.id)) return
    this.session.send({ case: 'release', value: releaseOf({ ref, fence }, { retryAfterMs: 0 }) })
  }

  #sayReady(): void {
    const taking = this.#settings !== undefined && !this.#stop.signal.aborted
    this.session.send({ case: 'ready', value: { capacity: taking ? this.#options.capacity : 0 } })
  }

  /** @param answer whether the hub waits for a Configured: it does for all but those in a Welcome. */
  #configure(configure: Configure, answer: boolean): void {
    this.#configuring = this.#configuring.then(() => this.#applySettings(configure, answer))
  }

  async #applySettings(configure: Configure, answer: boolean): Promise<void> {
    const { version } = configure
    const say = (failure?: unknown): void => {
      if (!answer) return
      const value =
        failure === undefined ? { version, ok: true } : { version, ok: false, failure: failureToProto(failure) }
      this.session.send({ case: 'configured', value })
    }
    if (this.#settings?.version === version) return say()
    let candidate: Snapshot | undefined
    try {
      candidate = await parseSettings(this.#options.definition, configure)
      await runCheck(this.#runtime, makeContext(this.#runtime, candidate, 'urgent', this.#stop.signal))
      this.#use(candidate)
      this.#health.ok('check')
      say()
    } catch (thrown) {
      this.#runtime.log.error({ err: thrown, version: String(version) }, 'configuration or credentials are refused')
      say(thrown)
      this.#refused(candidate, answer, thrown)
    }
  }

  /** Settings that do not work are still all there is, at the start; later on, those before stay in use. */
  #refused(candidate: Snapshot | undefined, answered: boolean, thrown: unknown): void {
    if (this.#settings !== undefined) {
      if (!answered) this.#health.failed('newer-settings', thrown)
      return
    }
    if (candidate !== undefined) this.#use(candidate)
    this.#health.failed(candidate === undefined ? 'settings' : 'check', thrown)
  }

  #use(settings: Snapshot): void {
    this.#settings = settings
    this.#health.ok('settings')
    this.#health.ok('newer-settings')
    this.#runtime.log.info({ version: String(settings.version) }, 'configuration and credentials are in use')
    this.#sayReady()
    this.#listing.refresh()
  }

  async #validate({ validationId, spec, deadline, reinstall }: Validate): Promise<void> {
    const settings = this.#settings
    const ms = deadline === undefined ? defaultValidateMs : durationMs(deadline)
    const late = (): Error => new ProviderError('TIMEOUT', `the order could not be checked within ${ms} ms`)
    try {
      if (spec === undefined) throw new ProviderError('INVALID_SPEC', 'there is no order to check')
      if (settings === undefined) throw new ProviderError('UNAVAILABLE', 'the provider has no usable configuration')
      const { definition } = this.#options
      const target = reinstall === undefined ? undefined : await reinstallTarget(definition, reinstall)
      const violations = await withDeadline(ms, this.#stop.signal, late, async (signal) => {
        const context = makeContext(this.#runtime, settings, 'urgent', signal)
        if (spec.adoptExternalId !== '' && definition.kind === 'dynamic')
          return adoptionViolations(definition, context, spec)
        const checked = await checkOrder(definition, spec, context, target)
        return 'violations' in checked ? checked.violations : []
      })
      const said = violations.map(violationToProto).slice(0, maxViolations)
      this.session.send({ case: 'validated', value: { validationId, violations: said } })
    } catch (thrown) {
      this.session.send({ case: 'validated', value: { validationId, failure: failureToProto(thrown) } })
    }
  }

  #removeOrphan(order: RemoveOrphan): void {
    const until = monotonicMs() + (order.deadline === undefined ? defaultRemovalMs : durationMs(order.deadline))
    // One at a time: an order to remove is never urgent, and never certain.
    this.#removing = this.#removing.then(() => this.#removeNow(order, until))
  }

  /** Carries an order out and answers it. One whose time was over before its turn came is dropped: the hub gives it again. */
  async #removeNow({ resource, orderId }: RemoveOrphan, untilMs: number): Promise<void> {
    const { definition } = this.#options
    const settings = this.#settings
    const ms = untilMs - monotonicMs()
    if (resource === undefined || settings === undefined || definition.kind !== 'dynamic' || ms <= 0) return
    if (!this.session.lease.mayAct() || this.#stop.signal.aborted) return
    const late = (): Error => new ProviderError('TIMEOUT', 'the orphan was not seen to be gone in time')
    const answer = (value: Omit<MessageInitShape<typeof OrphanRemovalSchema>, '$typeName' | '$unknown'>): void => {
      // A hub that gives no id knows no answer.
      if (orderId !== '') this.session.send({ case: 'orphanRemoval', value: { ...value, orderId } })
    }
    try {
      const end = await withDeadline(ms, this.#stop.signal, late, (signal) =>
        removeOrphan(this.#runtime, definition, settings, resource, (id) => this.#items.has(id), signal),
      )
      if (end.message !== '') this.#runtime.log.warn({ orphan: resource.externalId, why: end.message }, 'not removed')
      answer(end)
      this.#listing.refresh()
    } catch (thrown) {
      this.#runtime.log.warn({ err: thrown, orphan: resource.externalId }, 'an orphan could not be removed')
      if (!this.#stop.signal.aborted) answer({ outcome: OrphanOutcome.FAILED, failure: failureToProto(thrown) })
    }
  }
}
