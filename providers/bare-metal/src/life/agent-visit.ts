import { createHash } from 'node:crypto'
import { ProviderError, Stopped, type Claim, type WorkContext } from '@slipway/sdk'
import type { Authority, Inventory, Order, OrderResult } from '../agent/protocol.js'
import type { AgentStatus } from '../boot/agent-desk.js'
import type { Config, Credentials } from '../config.js'
import type { KnownMachine } from '../machine-book.js'
import type { Permission } from '../power-keeper.js'
import type { Site } from '../site.js'

export type Work = WorkContext<Config, Credentials>

type OrderKind = 'inspect' | 'wipe' | 'install'
type OrderBody = Extract<Order, { kind: OrderKind }>
/** An order without what the visit itself puts into it. */
export type OrderDraft =
  | { readonly kind: 'inspect' }
  | Omit<Extract<OrderBody, { kind: 'wipe' }>, 'id' | 'authority'>
  | Omit<Extract<OrderBody, { kind: 'install' }>, 'id' | 'authority'>

/** How often to look whether there is anything to look at, where nothing is heard. */
const lookMs = 2_000
/** Effects wait for a hub that is out of reach no longer than this, before they are called off. */
const leastLeaseMs = 1_000

/**
 * The time that a machine spends with the agent for one piece of work. The agent outlives the process that ordered something: whoever takes the work up again finds it
 * running, under the same order's id, and waits for the rest.
 */
export class AgentVisit {
  readonly #site: Site
  readonly #work: Work
  readonly #machine: KnownMachine
  readonly #claim: Claim
  readonly #windowId: string
  readonly #deadlineMs: number
  #boots = 0
  /** Until when the agent is waited for before its machine is started anew. */
  #patientUntilMs = Number.NEGATIVE_INFINITY

  private constructor(site: Site, work: Work, machine: KnownMachine, claim: Claim, deadlineMs: number) {
    this.#site = site
    this.#work = work
    this.#machine = machine
    this.#claim = claim
    this.#deadlineMs = deadlineMs
    this.#windowId = `${claim.item}/${claim.operation}/${claim.generation}`
    // One that was begun by another process says something within a heartbeat or two. Starting it anew would cost what it has done so far.
    if (site.boot.boots.mayRun(machine.id)) this.#patientUntilMs = performance.now() + work.config.timeouts.silenceMs
  }

  /**
   * Opens the machine's window for as long as `during` runs.
   *
   * @param limitMs how long all of it may take, counted from when the hub first heard that it began, also over crashes.
   */
  static async with<Result>(
    site: Site,
    work: Work,
    machine: KnownMachine,
    limitMs: number,
    during: (visit: AgentVisit) => Promise<Result>,
  ): Promise<Result> {
    const claim = claimOf(work)
    const begunAtMs = await work.step('visit-begun', () => Promise.resolve(Date.now()))
    const visit = new AgentVisit(site, work, machine, claim, begunAtMs + limitMs)
    site.power.want(machine.id, 'any')
    site.boot.open({
      windowId: visit.#windowId,
      machineId: machine.id,
      macs: machine.macs,
      ...(machine.uuid !== undefined && { uuid: machine.uuid }),
      generation: String(claim.generation),
      into: 'agent',
    })
    let waits = false
    try {
      return await during(visit)
    } catch (thrown) {
      waits = thrown instanceof Stopped && thrown.why === 'waiting'
      throw thrown
    } finally {
      // A machine that is waited for may well start anew meanwhile, and is to find its agent.
      if (!waits) site.boot.boots.close(machine.id, visit.#windowId)
    }
  }

  /** What every effect of this work needs: the hub's word, given a short while ago. */
  get permission(): Permission {
    return permissionOf(this.#work)
  }

  /** The agent goes on by itself, and says so itself when it is done: nobody has to hold a claim for that. */
  #letGo(message: string): Promise<never> {
    const timeoutMs = Math.max(1_000, this.#deadlineMs - Date.now())
    return this.#work.wait({ timeoutMs, lookAfterMs: this.#work.config.timeouts.lookMs, message })
  }

  /** What the machine is made of, as its agent says in this boot. The machine is booted where no agent is heard. */
  async inventory(): Promise<Inventory> {
    for (;;) {
      const status = this.#alive()
      const inventory = status === undefined ? undefined : this.#inventoryOf(status)
      if (inventory !== undefined) return inventory
      await this.#letGoWhileItBoots()
      await this.#wait(status, 'waiting for the agent')
    }
  }

  /**
   * Has the agent do something, and waits for how it ended. The id is the same for whoever orders it anew in the same place.
   *
   * @param turn counts the tries of one operation.
   */
  async run(draft: OrderDraft, turn: number): Promise<OrderResult> {
    const authority = this.#authority()
    const id = orderId(authority, draft.kind, turn)
    const order: OrderBody = draft.kind === 'inspect' ? { kind: 'inspect', id } : { ...draft, id, authority }
    const takeBack = this.#site.desk.assign(this.#machine.id, {
      order,
      authority,
      confirm: () => this.#claim.confirm(),
      stands: () => this.#stands(),
    })
    let why: 'done' | 'changed' | 'lost' = 'lost'
    const orderedAtMs = performance.now()
    try {
      for (;;) {
        const result = this.#site.desk.result(this.#machine.id, id)
        if (result !== undefined) {
          why = 'done'
          return result
        }
        const status = this.#alive()
        if (status?.orderId === id && performance.now() - orderedAtMs > this.#work.config.timeouts.waitAfterMs)
          await this.#letGo(`${draft.kind}: ${status.message ?? 'the agent is at work'}`)
        await this.#wait(status, status?.message ?? `${draft.kind}: waiting for the agent`, status?.percent)
      }
    } finally {
      const { signal } = this.#work
      if (signal.aborted && signal.reason instanceof Stopped && signal.reason.why === 'changed') why = 'changed'
      takeBack(why)
    }
  }

  /** Looking at a machine is starting it: its first word is waited for, and it is started anew where none came for as long as that may take. */
  async #letGoWhileItBoots(): Promise<void> {
    const { bootMs, waitAfterMs } = this.#work.config.timeouts
    const patienceMs = this.#patientUntilMs - performance.now()
    if (this.#claim.operation !== 'inspect' || this.#boots === 0 || patienceMs > bootMs - waitAfterMs) return
    const timeoutMs = Math.max(1_000, this.#deadlineMs - Date.now())
    const message = `${this.#machine.id} starts from the network`
    await this.#work.wait({ timeoutMs, lookAfterMs: Math.max(1_000, patienceMs), message })
  }

  /** An agent tells it once a boot, which may have been another process of ours. */
  #inventoryOf({ bootId, inventory }: AgentStatus): Inventory | undefined {
    const learned = this.#site.book.learned(this.#machine.id)
    return inventory ?? (learned?.bootId === bootId ? learned.inventory : undefined)
  }

  #authority(): Authority {
    const { item, operation, generation, fence } = this.#claim
    return { item, operation, generation: String(generation), fence: String(fence) }
  }

  #stands(): boolean | undefined {
    const { signal } = this.#work
    if (!signal.aborted) return this.#claim.mayAct() ? true : undefined
    return signal.reason instanceof Stopped && signal.reason.why === 'changed' ? false : undefined
  }

  /** The agent, where it is heard of. */
  #alive(): AgentStatus | undefined {
    const status = this.#site.desk.status(this.#machine.id)
    if (status === undefined || status.left !== undefined) return undefined
    return Date.now() - status.seenAtMs < this.#work.config.timeouts.silenceMs ? status : undefined
  }

  async #wait(status: AgentStatus | undefined, message: string, percent?: number): Promise<void> {
    if (Date.now() > this.#deadlineMs)
      throw new ProviderError('TIMEOUT', `${this.#machine.id} did not get done in time; ${this.#sayWhere(status)}`)
    if (status === undefined && (await this.#isLost())) await this.#bootAgent()
    this.#work.progress(message, percent)
    await this.#site.desk.heard(this.#machine.id, lookMs, this.#work.signal)
  }

  /** Whether nothing is to be expected of the agent. On a machine that is off nothing runs. */
  async #isLost(): Promise<boolean> {
    if (performance.now() > this.#patientUntilMs) return true
    if (this.#boots > 0) return false
    return (await this.#site.power.read(this.#machine.id, this.#work.signal).catch(() => undefined)) === 'off'
  }

  async #bootAgent(): Promise<void> {
    const { bootTries, bootMs } = this.#work.config.timeouts
    if (this.#boots >= bootTries)
      throw new ProviderError(
        'TIMEOUT',
        `${this.#machine.id} was started ${this.#boots} times, and its agent was not heard within ${bootMs / 1000} s; see its console, its network card's boot settings and the DHCP server of its segment`,
      )
    this.#boots += 1
    this.#work.progress(`starting ${this.#machine.id} from the network`)
    await this.#site.power.boot(this.#machine, 'network', this.permission)
    this.#patientUntilMs = performance.now() + bootMs
  }

  #sayWhere(status: AgentStatus | undefined): string {
    if (status === undefined) return 'its agent is not heard'
    return status.message === undefined ? 'its agent is there' : `its agent said last: ${status.message}`
  }
}

/** Every effect is begun on the hub's word of a moment ago, and not where this process stood still since then. */
export function permissionOf(work: Work): Permission {
  const claim = claimOf(work)
  return {
    signal: work.signal,
    permit: async () => {
      work.signal.throwIfAborted()
      if ((await claim.confirm()) >= leastLeaseMs && claim.mayAct()) return
      throw new ProviderError('UNAVAILABLE', 'the hub could not be asked in time whether this is still to be done')
    },
    progress: (message) => work.progress(message),
  }
}

export function claimOf({ claim }: Work): Claim {
  if (claim === undefined) throw new ProviderError('INTERNAL', 'work on a machine has a claim', { retryable: false })
  return claim
}

/** The same for the same wish, whoever carries it out. */
export function orderId({ item, operation, generation }: Authority, kind: OrderKind, turn: number): string {
  const digest = createHash('sha256').update(`${item}/${operation}/${generation}/${kind}/${turn}`).digest('hex')
  return `${kind}-${digest.slice(0, 32)}`
}
