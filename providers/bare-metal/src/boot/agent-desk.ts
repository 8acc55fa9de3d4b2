import type { Authority, Heartbeat, Inventory, Order, OrderResult } from '../agent/protocol.js'

/** What the agent of one machine is to do, for whoever ordered it. */
export interface AgentJob {
  readonly order: Exclude<Order, { kind: 'wait' | 'power-off' | 'reboot' }>
  readonly authority: Authority
  /** For how long from now something may be begun, in milliseconds. @throws where it may not. */
  readonly confirm: () => Promise<number>
  /** Whether it still stands as far as is known without asking. Undefined: that cannot be told now. */
  readonly stands: () => boolean | undefined
}

/** What is known of the agent of one machine. */
export interface AgentStatus {
  readonly bootId: string
  readonly seenAtMs: number
  readonly inventory?: Inventory
  readonly orderId?: string
  readonly percent?: number
  readonly message?: string
  /** It was told to go, and was not heard of since. */
  readonly left?: 'power-off' | 'reboot'
}

/** What a machine's agent is to do where nobody orders anything. */
export type Farewell = 'wait' | 'power-off' | 'reboot'

interface Desk {
  job?: AgentJob
  status?: AgentStatus
  farewell: Farewell
  /** Since when there is nothing to do. */
  idleSinceMs: number
  /** Ids of orders whose wish has changed: they stand no more. Others that are not known may be somebody's. */
  /** When what the agent said of itself is passed on again, and after how long once more: an agent says it once a boot, and nothing has been ordered since. */
  unheard?: { readonly againAtMs: number; readonly pauseMs: number }
  readonly withdrawn: Set<string>
  readonly results: Map<string, OrderResult>
  readonly watchers: Set<() => void>
}

const askAgainMs = 2_000
const maxRemembered = 16
const passOnEveryMs = 2_000
/** How seldom an agent is spoken of that nobody orders anything of. */
const maxPauseMs = 60_000

/** How a question of an agent is answered; `leftMs`: for how long from now. `later`: it cannot be told now; it asks again. */
export type Standing = { readonly outcome: 'stands'; readonly leftMs: number } | { readonly outcome: 'falls' | 'later' }

/** Where orders for agents lie, and what agents say. Those who order and those who listen meet here; nothing in it outlives the process, and nothing has to. */
export class AgentDesk {
  readonly #desks = new Map<string, Desk>()
  readonly #idleMs: () => number
  readonly #nowMs: () => number

  readonly #onWord: (machineId: string) => void
  /** When each machine's word was passed on last. */
  readonly #passedOnAtMs = new Map<string, number>()

  /**
   * @param idleMs after how long without an order an agent switches its machine off.
   * @param onWord told of machines that have something to say, and nobody here who waits for it.
   */
  constructor(
    idleMs: () => number,
    nowMs: () => number = Date.now,
    onWord: (machineId: string) => void = () => undefined,
  ) {
    this.#idleMs = idleMs
    this.#nowMs = nowMs
    this.#onWord = onWord
  }

  status(machineId: string): AgentStatus | undefined {
    return this.#desks.get(machineId)?.status
  }

  /** Orders something. The job that was there is over. @returns a function that takes the order back, if it is still this one. */
  assign(machineId: string, job: AgentJob): (why: 'done' | 'changed' | 'lost') => void {
    const desk = this.#desk(machineId)
    desk.job = job
    delete desk.unheard
    desk.farewell = 'wait'
    desk.withdrawn.delete(job.order.id)
    return (why) => {
      if (desk.job !== job) return
      delete desk.job
      desk.idleSinceMs = this.#nowMs()
      if (why === 'changed') remember(desk.withdrawn, job.order.id)
    }
  }

  /** What the agent hears once there is nothing to do. */
  dismiss(machineId: string, farewell: Farewell): void {
    this.#desk(machineId).farewell = farewell
  }

  result(machineId: string, orderId: string): OrderResult | undefined {
    return this.#desks.get(machineId)?.results.get(orderId)
  }

  /** Waits until something is heard of a machine, or the time is over. */
  async heard(machineId: string, timeoutMs: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const { watchers } = this.#desk(machineId)
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        clearTimeout(timer)
        watchers.delete(wake)
        signal.removeEventListener('abort', wake)
        resolve()
      }
      const timer = setTimeout(wake, timeoutMs)
      watchers.add(wake)
      signal.addEventListener('abort', wake, { once: true })
    })
    signal.throwIfAborted()
  }

  /** A new session began. */
  arrive(machineId: string, bootId: string, nowMs: number): void {
    const desk = this.#desk(machineId)
    desk.idleSinceMs = nowMs
    delete desk.unheard
    this.#say(machineId, { bootId, seenAtMs: nowMs })
  }

  inventory(machineId: string, bootId: string, inventory: Inventory, nowMs: number): void {
    this.#say(machineId, { ...this.#current(machineId, bootId), bootId, seenAtMs: nowMs, inventory })
    const desk = this.#desk(machineId)
    if (desk.job === undefined) desk.unheard = { againAtMs: nowMs + passOnEveryMs, pauseMs: passOnEveryMs }
    this.#passOn(machineId)
  }

  heartbeat(machineId: string, bootId: string, beat: Heartbeat, nowMs: number): Standing['outcome'] {
    const { inventory } = this.#current(machineId, bootId) ?? {}
    this.#say(machineId, {
      bootId,
      seenAtMs: nowMs,
      ...(inventory !== undefined && { inventory }),
      ...(beat.orderId !== undefined && { orderId: beat.orderId }),
      ...(beat.percent !== undefined && { percent: beat.percent }),
      ...(beat.message !== undefined && { message: beat.message }),
    })
    return beat.orderId === undefined ? 'stands' : this.#standing(machineId, beat.orderId)
  }

  /** The next order. */
  order(machineId: string, bootId: string, nowMs: number): Order {
    const desk = this.#desk(machineId)
    const { left: _left, ...current } = this.#current(machineId, bootId) ?? {}
    if (desk.job !== undefined && desk.job.stands() !== false) {
      this.#say(machineId, { ...current, bootId, seenAtMs: nowMs })
      return desk.job.order
    }
    const isIdle = desk.job === undefined && nowMs - desk.idleSinceMs > this.#idleMs()
    const farewell = isIdle && desk.farewell === 'wait' ? 'power-off' : desk.farewell
    this.#say(machineId, { ...current, bootId, seenAtMs: nowMs, ...(farewell !== 'wait' && { left: farewell }) })
    if (farewell === 'wait') this.#passOnAgain(machineId, nowMs)
    return farewell === 'wait' ? { kind: 'wait', askAgainMs } : { kind: farewell }
  }

  /** Right before an agent changes a disk. */
  async confirm(machineId: string, orderId: string, authority: Authority): Promise<Standing> {
    const outcome = this.#standing(machineId, orderId)
    const job = this.#desks.get(machineId)?.job
    if (job === undefined && outcome === 'later') this.#passOn(machineId)
    if (outcome !== 'stands' || job === undefined) return { outcome: outcome === 'stands' ? 'later' : outcome }
    if (!isSameAuthority(job.authority, authority)) return { outcome: 'falls' }
    const leftMs = await job.confirm()
    // It may have been taken back while the hub was asked.
    const isStill = this.#desks.get(machineId)?.job === job && job.stands() === true
    return isStill ? { outcome: 'stands', leftMs } : { outcome: 'falls' }
  }

  /** How an order ended. @returns whether it was taken in; an agent keeps what was not, and says it again. */
  ended(machineId: string, bootId: string, orderId: string, result: OrderResult, nowMs: number): boolean {
    const desk = this.#desk(machineId)
    const isOurs = desk.job?.order.id === orderId
    if (!isOurs && desk.job === undefined && !desk.withdrawn.has(orderId)) {
      this.#passOn(machineId)
      return false
    }
    if (isOurs) {
      desk.results.set(orderId, result)
      const [oldest] = desk.results.keys()
      if (desk.results.size > maxRemembered && oldest !== undefined) desk.results.delete(oldest)
    }
    const { inventory } = this.#current(machineId, bootId) ?? {}
    this.#say(machineId, { bootId, seenAtMs: nowMs, ...(inventory !== undefined && { inventory }) })
    return true
  }

  /** A machine's power was cut: an agent whose boot is over is there no more. */
  depart(machineId: string, isOver: (bootId: string) => boolean): void {
    const desk = this.#desks.get(machineId)
    if (desk?.status !== undefined && isOver(desk.status.bootId)) delete desk.status
  }

  /** A machine is gone, or was never one of ours. */
  forget(machineId: string): void {
    this.#desks.delete(machineId)
    this.#passedOnAtMs.delete(machineId)
  }

  /** The machine says it again until somebody listens: a little patience costs nothing. */
  #passOn(machineId: string): void {
    const nowMs = this.#nowMs()
    if (this.#desks.get(machineId)?.job !== undefined) return
    if (nowMs - (this.#passedOnAtMs.get(machineId) ?? -Infinity) < passOnEveryMs) return
    this.#passedOnAtMs.set(machineId, nowMs)
    this.#onWord(machineId)
  }

  /** Its first word may have come while the work that waits for it was being handed back, when nobody takes it in. */
  #passOnAgain(machineId: string, nowMs: number): void {
    const desk = this.#desk(machineId)
    if (desk.unheard === undefined || nowMs < desk.unheard.againAtMs) return
    const pauseMs = Math.min(maxPauseMs, 2 * desk.unheard.pauseMs)
    desk.unheard = { againAtMs: nowMs + pauseMs, pauseMs }
    this.#passOn(machineId)
  }

  #standing(machineId: string, orderId: string): 'stands' | 'falls' | 'later' {
    const desk = this.#desks.get(machineId)
    if (desk === undefined) return 'later'
    if (desk.withdrawn.has(orderId)) return 'falls'
    if (desk.job === undefined) return 'later'
    if (desk.job.order.id !== orderId) return 'falls'
    const stands = desk.job.stands()
    if (stands === undefined) return 'later'
    return stands ? 'stands' : 'falls'
  }

  #current(machineId: string, bootId: string): AgentStatus | undefined {
    const status = this.#desks.get(machineId)?.status
    return status?.bootId === bootId ? status : undefined
  }

  #say(machineId: string, status: AgentStatus): void {
    const desk = this.#desk(machineId)
    desk.status = status
    for (const wake of [...desk.watchers]) wake()
  }

  #desk(machineId: string): Desk {
    const known = this.#desks.get(machineId)
    if (known !== undefined) return known
    const desk: Desk = {
      farewell: 'wait',
      idleSinceMs: this.#nowMs(),
      withdrawn: new Set(),
      results: new Map(),
      watchers: new Set(),
    }
    this.#desks.set(machineId, desk)
    return desk
  }
}

/** The fence may have risen since the order was given: its successor wants the same, and answers for it. */
function isSameAuthority(ours: Authority, given: Authority): boolean {
  return (
    ours.item === given.item &&
    ours.operation === given.operation &&
    ours.generation === given.generation &&
    BigInt(ours.fence) >= BigInt(given.fence)
  )
}

function remember(set: Set<string>, value: string): void {
  set.add(value)
  const [oldest] = set
  if (set.size > maxRemembered && oldest !== undefined) set.delete(oldest)
}
