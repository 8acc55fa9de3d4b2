import {
  agentPaths,
  agentVersion,
  orderSchema,
  sessionAnswerSchema,
  confirmAnswerSchema,
  heartbeatAnswerSchema,
  type Authority,
  type Inventory,
  type Order,
  type OrderResult,
} from '../src/agent/protocol.js'

/** What the agent of a simulated machine does to it. */
export interface SimBody {
  readonly mac: string
  readonly uuid: string
  inventory(): Inventory
  /** Wipes all disks. @throws SimFailure */
  wipe(authority: Authority, signal: AbortSignal): Promise<OrderResult>
  install(order: Extract<Order, { kind: 'install' }>, signal: AbortSignal): Promise<OrderResult>
  /** Results that were not answered yet: they stay over everything but a restart of the machine. */
  readonly results: Map<string, OrderResult>
  log(line: string): void
}

export type AgentEnd = 'power-off' | 'reboot' | 'refused'

interface Endpoint {
  readonly server: string
  readonly session: string
  readonly heartbeatMs: number
}

/** What the agent keeps over restarts of what it talks to, as the contract asks for. */
export class SimAgent {
  readonly #body: SimBody
  readonly #signal: AbortSignal
  #at: Endpoint | undefined

  constructor(body: SimBody, signal: AbortSignal) {
    this.#body = body
    this.#signal = signal
  }

  /** One whole life of the agent, from its kernel's command line on. @returns what it was told to do in the end. */
  async live(args: ReadonlyMap<string, string>): Promise<AgentEnd> {
    const server = args.get('slipway.server') ?? ''
    const answer = await this.#post(`${server}${agentPaths.session}`, {
      version: agentVersion,
      token: args.get('slipway.token') ?? '',
      bootMac: args.get('slipway.mac'),
      uuid: this.#body.uuid,
    })
    if (answer.status !== 200) return 'refused'
    this.#at = { server, ...sessionAnswerSchema.parse(await answer.json()) }
    if (!(await this.#tell(agentPaths.inventory, this.#body.inventory()))) return 'refused'
    for (;;) {
      const order = await this.#order()
      if (order === 'refused') return order
      if (order.kind === 'power-off' || order.kind === 'reboot') return order.kind
      if (order.kind === 'wait') await this.#pause(Math.min(order.askAgainMs, 100))
      else if (!(await this.#carryOut(order))) return 'refused'
    }
  }

  /** @returns false where the session is refused. */
  async #carryOut(order: Exclude<Order, { kind: 'wait' | 'power-off' | 'reboot' }>): Promise<boolean> {
    const { results } = this.#body
    if (!results.has(order.id)) {
      const result = order.kind === 'inspect' ? { outcome: 'done' as const } : await this.#change(order)
      if (result === undefined) return true
      results.set(order.id, result)
    }
    return this.#tell(agentPaths.result(order.id), results.get(order.id))
  }

  /** @returns undefined where the order does not stand, or nobody says that it does. */
  async #change(order: Extract<Order, { kind: 'wipe' | 'install' }>): Promise<OrderResult | undefined> {
    const askedAtMs = performance.now()
    const answer = await this.#send(agentPaths.confirm(order.id), { authority: order.authority })
    if (answer?.status !== 200) {
      await this.#pause(50)
      return undefined
    }
    const { beginWithinMs } = confirmAnswerSchema.parse(await answer.json())
    if (performance.now() - askedAtMs > beginWithinMs) return undefined
    const stop = new AbortController()
    const signal = AbortSignal.any([this.#signal, stop.signal])
    const beating = this.#beat(order.id, stop)
    try {
      return order.kind === 'wipe'
        ? await this.#body.wipe(order.authority, signal)
        : await this.#body.install(order, signal)
    } catch (error) {
      this.#signal.throwIfAborted()
      if (!stop.signal.aborted) throw error
      return { outcome: 'failed', code: 'superseded', message: 'the order does not stand any more' }
    } finally {
      stop.abort()
      await beating
    }
  }

  async #beat(orderId: string, stop: AbortController): Promise<void> {
    const startedAtMs = performance.now()
    while (!stop.signal.aborted && !this.#signal.aborted) {
      const beat = { uptimeMs: Math.round(performance.now() - startedAtMs), orderId, percent: 50, message: 'at work' }
      const answer = await this.#send(agentPaths.heartbeat, beat).catch(() => undefined)
      if (answer?.status === 200 && !heartbeatAnswerSchema.parse(await answer.json()).stands) stop.abort()
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }

  async #order(): Promise<Order | 'refused'> {
    for (;;) {
      const answer = await this.#send(agentPaths.order)
      if (answer?.status === 200) return orderSchema.parse(await answer.json())
      if (answer?.status === 401) return 'refused'
      await this.#pause(100)
    }
  }

  /** Says something until it is heard. @returns false where the session is refused. */
  async #tell(path: string, body: unknown): Promise<boolean> {
    for (;;) {
      const answer = await this.#send(path, body)
      if (answer?.status === 204) return true
      if (answer?.status === 401 || answer?.status === 403) return false
      this.#body.log(`${path} ${answer?.status ?? 'unheard'}`)
      await this.#pause(100)
    }
  }

  async #send(path: string, body?: unknown): Promise<Response | undefined> {
    const { server = '', session = '' } = this.#at ?? {}
    try {
      const headers = { authorization: `Bearer ${session}` }
      if (body !== undefined) return await this.#post(`${server}${path}`, body, headers)
      return await fetch(`${server}${path}`, { headers, signal: this.#limited() })
    } catch {
      this.#signal.throwIfAborted()
      return undefined
    }
  }

  #post(url: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
    return fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
      signal: this.#limited(),
    })
  }

  #limited(): AbortSignal {
    return AbortSignal.any([this.#signal, AbortSignal.timeout(5_000)])
  }

  async #pause(ms: number): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, ms))
    this.#signal.throwIfAborted()
  }
}
