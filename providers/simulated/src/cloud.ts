import { ApiGate, refused, type Caller } from './api-gate.js'
import { bootOf, countLive, findLive, isLive, isOver, statusOf, type CloudState } from './cloud-state.js'
import type { CloudConfig, CloudSimulation, ServerType } from './config.js'
import type { Dice } from './dice.js'
import type { BootPlan, Fact, PowerOrder, ServerCreated } from './facts.js'
import { listPage, viewOf, type ServerView } from './cloud-view.js'
import { newId, type World } from './world.js'

export type { ServerView } from './cloud-view.js'

/** What to create. */
export interface ServerOrder {
  readonly name: string
  /** Goes on the server as a label, and is the client token where the cloud takes one. */
  readonly ownershipKey: string
  readonly type: string
  readonly location: string
  readonly image: string
  readonly labels: Readonly<Record<string, string>>
  /** How it boots and phones home. Absent: it does not. */
  readonly boot?: { readonly hostname: string; readonly phoneHomeUrl: string; readonly token: string }
  /** Keys that may log in. Absent: none. */
  readonly sshPublicKeys?: readonly string[]
  readonly simulate?: CloudSimulation
  readonly vanishAfterMs?: number
}

interface NewServer {
  readonly id: string
  readonly bootId: string | undefined
  readonly simulate: CloudSimulation | undefined
}

/** A new system for a server. */
export interface SystemOrder {
  /** Kept on the server, so that it can be told which of its caller's orders it was that came last. */
  readonly mark: number
  readonly image: string
  readonly boot?: ServerOrder['boot']
  /** Keys that may log in. Absent: none. */
  readonly sshPublicKeys?: readonly string[]
  readonly simulate?: CloudSimulation
}

export interface TypeView {
  readonly type: ServerType
  readonly location: string
  /** Absent: there is no limit. */
  readonly remaining?: number
}

/** The API of the simulated cloud: a client to a world, with the world's and the caller's limits. */
export class Cloud {
  readonly #world: World<CloudState>
  readonly #config: CloudConfig
  readonly #gate: ApiGate<CloudState>

  constructor(world: World<CloudState>, config: CloudConfig, caller: Caller) {
    this.#world = world
    this.#config = config
    this.#gate = new ApiGate(world, config, caller)
  }

  /** What can be had, by type and location. */
  async listTypes(signal: AbortSignal): Promise<readonly TypeView[]> {
    return this.#gate.read('list-types', this.#config.latency.list, signal, (state, nowMs) =>
      this.#config.types.flatMap((type) =>
        (type.locations ?? this.#config.locations).map((location) => {
          const remaining = this.#remaining(state, nowMs, type.id, location)
          return { type, location, ...(remaining !== undefined && { remaining }) }
        }),
      ),
    )
  }

  /** Accepts an order for a server, which is then under way. @returns its id. */
  async createServer(order: ServerOrder, signal: AbortSignal): Promise<string> {
    const id = newId('srv')
    const bootId = order.boot === undefined ? undefined : newId('boot')
    // Before the server exists, so that none is left without its token.
    if (order.boot !== undefined && bootId !== undefined) this.#world.keepSecret(bootId, order.boot.token)
    const simulate = order.simulate ?? this.#config.simulate[order.name] ?? this.#hostSimulation(order)
    const write = {
      call: 'create',
      subject: order.ownershipKey,
      latency: this.#config.latency.create,
      simulate: () => simulate,
    }
    try {
      const line = await this.#gate.write(write, signal, (state, nowMs, dice) =>
        this.#decideCreate(state, nowMs, dice, order, { id, bootId, simulate }),
      )
      if (line.fact === 'call.repeated') return line.id
      return id
    } finally {
      this.#world.dropSecret(bootId)
    }
  }

  /** One server; `undefined`: there is none of that id. */
  async getServer(id: string, signal: AbortSignal): Promise<ServerView | undefined> {
    return this.#gate.read('get', this.#config.latency.get, signal, (state, nowMs) => {
      const server = state.servers.get(id)
      return server === undefined || !isLive(server, nowMs) ? undefined : viewOf(server, nowMs)
    })
  }

  /** Servers with the given label or name, or all, a page at a time. New ones show only after the listing lag. */
  async *listServers(
    filter: { readonly ownershipKey?: string; readonly name?: string },
    signal: AbortSignal,
  ): AsyncGenerator<ServerView> {
    const { pageSize, latency } = this.#config
    let after: number | undefined = 0
    while (after !== undefined) {
      const from: number = after
      const page = await this.#gate.read('list', latency.list, signal, (state, nowMs) =>
        listPage(state, nowMs, filter, from, pageSize),
      )
      yield* page.servers
      after = page.next
    }
  }

  /** Starts a deletion, or starts one that is stuck anew. A missing server is a success. */
  async deleteServer(id: string, signal: AbortSignal): Promise<void> {
    const write = { call: 'delete', subject: id, latency: this.#config.latency.delete, simulate: simulationOf(id) }
    const decide = (state: CloudState, nowMs: number, dice: Dice): Fact => {
      const server = state.servers.get(id)
      if (server === undefined || !isLive(server, nowMs)) return { fact: 'call.repeated', id }
      const { deletion } = server
      if (deletion !== undefined && deletion.goneAtMs !== null) return { fact: 'call.repeated', id }
      const isStuck = deletion === undefined && this.#sticks(dice, server.created.simulate === 'stuck-delete')
      const goneAtMs = isStuck ? null : nowMs + dice.duration('delete', this.#config.deleteDuration)
      return { fact: 'server.deleted', id, goneAtMs }
    }
    try {
      await this.#gate.write(write, signal, decide)
    } finally {
      const server = this.#world.ledger.state.servers.get(id)
      if (server !== undefined) this.#world.dropSecret(bootOf(server)?.bootId)
    }
  }

  /** Starts to switch or restart a server. */
  async powerServer(id: string, wish: PowerOrder, signal: AbortSignal): Promise<void> {
    const write = { call: 'power', subject: id, latency: this.#config.latency.power, simulate: simulationOf(id) }
    await this.#gate.write(write, signal, (state, nowMs, dice): Fact => {
      const server = state.servers.get(id)
      if (server === undefined || !isLive(server, nowMs)) return notFound(id)
      const status = statusOf(server, nowMs)
      if (status !== 'running' && status !== 'off') return refused('conflict', `server ${id} is ${status}`)
      const isStuck = server.power?.doneAtMs !== null && this.#sticks(dice, false)
      const doneAtMs = isStuck ? null : nowMs + dice.duration('power', this.#config.powerDuration)
      return { fact: 'server.powered', id, wish, doneAtMs }
    })
  }

  /** Starts to put a new system on a server. Asked again, it starts anew, whatever it had begun before. */
  async reinstallServer(id: string, order: SystemOrder, signal: AbortSignal): Promise<void> {
    const bootId = order.boot === undefined ? undefined : newId('boot')
    const before = this.#world.ledger.state.servers.get(id)
    if (order.boot !== undefined && bootId !== undefined) this.#world.keepSecret(bootId, order.boot.token)
    const { simulate } = order
    const write = {
      call: 'reinstall',
      subject: `${id}#${order.mark}`,
      latency: this.#config.latency.power,
      simulate: () => simulate,
    }
    try {
      await this.#gate.write(write, signal, (state, nowMs, dice): Fact => {
        const server = state.servers.get(id)
        if (server === undefined || !isLive(server, nowMs)) return notFound(id)
        const { images, createDuration, faults } = this.#config
        if (!images.includes(order.image))
          return refused('invalid', `there is no image ${order.image}; there are ${images.join(', ')}`)
        const status = statusOf(server, nowMs)
        const isStuck = server.system?.installedAtMs === null
        if (status === 'deleting' || status === 'creating' || (status === 'reinstalling' && !isStuck))
          return refused('conflict', `server ${id} is ${status}`)
        const isAgain = server.system?.mark === order.mark
        const sticks = !isAgain && this.#sticks(dice, simulate === 'stuck')
        const fails = !isAgain && (simulate === 'fail' || dice.happens('fail', faults.createFailRate))
        const boot = this.#bootPlan(dice, order, bootId, simulate)
        return {
          fact: 'server.reinstalled',
          id,
          mark: order.mark,
          image: order.image,
          installedAtMs: sticks ? null : nowMs + dice.duration('create', createDuration),
          ...(fails && { failure: 'the image could not be written' }),
          ...(order.sshPublicKeys !== undefined && { sshPublicKeys: order.sshPublicKeys }),
          ...(boot !== undefined && { boot }),
        }
      })
    } finally {
      this.#world.dropSecret(bootId)
      if (before !== undefined) this.#world.dropSecret(bootOf(before)?.bootId)
    }
  }

  /** Restarts a server into its rescue system, or into its own. */
  async rescueServer(id: string, keys: readonly string[] | undefined, signal: AbortSignal): Promise<void> {
    const write = { call: 'rescue', subject: id, latency: this.#config.latency.power, simulate: simulationOf(id) }
    await this.#gate.write(write, signal, (state, nowMs, dice): Fact => {
      const server = state.servers.get(id)
      if (server === undefined || !isLive(server, nowMs)) return notFound(id)
      const status = statusOf(server, nowMs)
      if (status !== 'running' && status !== 'off') return refused('conflict', `server ${id} is ${status}`)
      const doneAtMs = nowMs + dice.duration('power', this.#config.powerDuration)
      return { fact: 'server.rescued', id, enabled: keys !== undefined, keys: keys ?? [], doneAtMs }
    })
  }

  /** Puts the label on a server that says whose it is, or takes it off: from one key to another, empty for none, and from no other. */
  async keyServer(
    id: string,
    { from, to }: { readonly from: string; readonly to: string },
    signal: AbortSignal,
  ): Promise<void> {
    const write = { call: 'key', subject: id, latency: this.#config.latency.power, simulate: simulationOf(id) }
    await this.#gate.write(write, signal, (state, nowMs): Fact => {
      const server = state.servers.get(id)
      if (server === undefined || !isLive(server, nowMs)) return notFound(id)
      if (server.ownershipKey === to) return { fact: 'call.repeated', id }
      if (server.ownershipKey !== from) return refused('conflict', `server ${id} has another key`)
      return { fact: 'server.keyed', id, ownershipKey: to }
    })
  }

  /** Starts a creation anew that has not ended. */
  async retryCreation(id: string, signal: AbortSignal): Promise<void> {
    const write = { call: 'retry', subject: id, latency: this.#config.latency.power, simulate: simulationOf(id) }
    await this.#gate.write(write, signal, (state, nowMs, dice): Fact => {
      const server = state.servers.get(id)
      if (server === undefined || !isLive(server, nowMs)) return notFound(id)
      if (isOver(server.runningAtMs, nowMs)) return { fact: 'call.repeated', id }
      const isStuck = server.created.simulate === 'stuck-forever'
      const runningAtMs = isStuck ? null : nowMs + dice.duration('create', this.#config.createDuration)
      return { fact: 'server.retried', id, runningAtMs }
    })
  }

  #decideCreate(state: CloudState, nowMs: number, dice: Dice, order: ServerOrder, made: NewServer): Fact {
    const wrong = this.#wrongWith(order)
    if (wrong !== undefined) return refused('invalid', wrong)
    const twin = this.#twin(state, nowMs, order)
    if (twin !== undefined) return twin
    return this.#full(state, nowMs, dice, order, made.simulate) ?? this.#accepted(state, nowMs, dice, order, made)
  }

  /** Whether there is no room for another server, for want of capacity or by the account's quota. */
  #full(
    state: CloudState,
    nowMs: number,
    dice: Dice,
    { type, location }: ServerOrder,
    simulate: CloudSimulation | undefined,
  ): Fact | undefined {
    const { faults, quotaServers = Infinity } = this.#config
    const remaining = this.#remaining(state, nowMs, type, location, 'capacity')
    if (remaining === 0 || simulate === 'capacity' || dice.happens('capacity', faults.capacityErrorRate))
      return refused('out-of-capacity', `no ${type} is to be had in ${location} now`)
    const count = countLive(state, nowMs, () => true)
    if (count >= quotaServers || simulate === 'quota')
      return refused('over-quota', `the account has ${count} servers, and may not have more`)
    return undefined
  }

  #accepted(state: CloudState, nowMs: number, dice: Dice, order: ServerOrder, made: NewServer): Fact {
    const { simulate } = made
    const config = this.#config
    const { faults } = config
    const isStuck = this.#sticks(dice, simulate === 'stuck' || simulate === 'stuck-forever')
    const fails = simulate === 'fail' || dice.happens('fail', faults.createFailRate)
    const vanishes = simulate === 'vanish' || dice.happens('vanish', faults.vanishRate)
    const boot = this.#bootPlan(dice, order, made.bootId, simulate)
    return {
      fact: 'server.created',
      id: made.id,
      name: order.name,
      ownershipKey: order.ownershipKey,
      type: order.type,
      location: order.location,
      image: order.image,
      labels: order.labels,
      addresses: addressesOf(state.servers.size),
      runningAtMs: isStuck ? null : nowMs + dice.duration('create', config.createDuration),
      listedAtMs: nowMs + config.listingLagMs,
      ...(fails && { failure: 'the server could not be started' }),
      ...(vanishes && { vanishAfterMs: order.vanishAfterMs ?? faults.vanishAfterMs }),
      ...(order.sshPublicKeys !== undefined && { sshPublicKeys: order.sshPublicKeys }),
      ...(boot !== undefined && { boot }),
      ...(simulate !== undefined && { simulate }),
    }
  }

  #wrongWith({ type, location, image }: ServerOrder): string | undefined {
    const { types, locations, images } = this.#config
    const known = types.find(({ id }) => id === type)
    if (known === undefined) return `there is no type ${type}; there are ${types.map(({ id }) => id).join(', ')}`
    const places = known.locations ?? locations
    if (!places.includes(location)) return `there is no ${type} in "${location}"; it can be had in ${places.join(', ')}`
    if (!images.includes(image)) return `there is no image ${image}; there are ${images.join(', ')}`
    return undefined
  }

  /** What the cloud makes of a create that is sent twice. */
  #twin(state: CloudState, nowMs: number, { name, ownershipKey }: ServerOrder): Fact | undefined {
    if (this.#config.idempotency === 'none') return undefined
    if (this.#config.idempotency === 'token') {
      const twin = findLive(state, nowMs, (server) => server.ownershipKey === ownershipKey)
      return twin && { fact: 'call.repeated', id: twin.created.id }
    }
    const twin = findLive(state, nowMs, (server) => server.name === name)
    return twin && refused('name-taken', `the name ${name} is taken by server ${twin.created.id}`)
  }

  #bootPlan(
    dice: Dice,
    { boot }: { readonly boot?: ServerOrder['boot'] | undefined },
    bootId: string | undefined,
    simulate: CloudSimulation | undefined,
  ): BootPlan | undefined {
    if (boot === undefined || bootId === undefined) return undefined
    return {
      bootId,
      hostname: boot.hostname,
      phoneHomeUrl: boot.phoneHomeUrl,
      durationMs: dice.duration('boot', this.#config.bootDuration),
      silent: simulate === 'no-phone-home' || dice.happens('no-phone-home', this.#config.faults.noPhoneHomeRate),
    }
  }

  /** How many more servers fit; `undefined`: there is no limit. */
  #remaining(
    state: CloudState,
    nowMs: number,
    type: string,
    location: string,
    limits: 'all' | 'capacity' = 'all',
  ): number | undefined {
    const rules = this.#config.capacity.filter(
      (rule) => (rule.type ?? type) === type && (rule.location ?? location) === location,
    )
    const left = rules.map(({ type, location, servers }) => {
      const fits = (server: ServerCreated) =>
        server.type === (type ?? server.type) && server.location === (location ?? server.location)
      return servers - countLive(state, nowMs, fits)
    })
    const { quotaServers } = this.#config
    if (limits === 'all' && quotaServers !== undefined) left.push(quotaServers - countLive(state, nowMs, () => true))
    return left.length === 0 ? undefined : Math.max(0, Math.min(...left))
  }

  #sticks(dice: Dice, ordered: boolean): boolean {
    return ordered || dice.happens('stuck', this.#config.faults.stuckActionRate)
  }

  #hostSimulation({ boot }: ServerOrder): CloudSimulation | undefined {
    return boot === undefined ? undefined : this.#config.simulate[boot.hostname]
  }
}

function simulationOf(id: string) {
  return (state: CloudState) => state.servers.get(id)?.created.simulate
}

function notFound(id: string): Fact {
  return refused('not-found', `there is no server ${id}`)
}

/** Addresses of the nth server, out of ranges kept for tests and private use. */
function addressesOf(index: number): readonly string[] {
  const n = index + 1
  const low = [(n >> 8) & 255, n & 255]
  return [`198.${18 + ((n >> 16) & 1)}.${low.join('.')}`, `10.${(n >> 16) & 255}.${low.join('.')}`]
}
