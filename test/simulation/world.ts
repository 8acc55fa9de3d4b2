import { ProviderError, type AnyDefinition, type Shape, type WorkContext } from '@slipway/sdk/testing'
import type { Node, Scheduler } from './scheduler.js'

// What exists out there, and the only witness of it: clouds that make and delete servers, and a rack of machines that are there already. It knows nothing of the hub.

export interface Server {
  readonly id: string
  readonly cloud: string
  readonly ownershipKey: string
  readonly name: string
  readonly createdAtMs: number
  /** From when on a listing shows it. */
  readonly listedAtMs: number
  power: 'on' | 'off'
}

interface RackMachine {
  readonly id: string
  power: 'on' | 'off'
  /** Whose system is on it now. */
  installedFor: string | undefined
  /** Whose data is on its disks. */
  dataOf: string | undefined
  /** What its agent is about, and by which order. It goes on by itself, whoever lives. */
  work: { readonly order: string; state: 'running' | 'done' | 'lost' } | undefined
}

/** How long the agent of a machine may take before it is given up. */
const agentTimeoutMs = 20_000

/** How often what goes wrong out there, as shares of calls. */
export interface WorldFaults {
  refusedBefore: number
  answersLost: number
  rateLimited: number
  noCapacity: number
  slow: number
}

export const noWorldFaults: WorldFaults = { refusedBefore: 0, answersLost: 0, rateLimited: 0, noCapacity: 0, slow: 0 }

/** What a create may be under way at most, and how long after it a listing may still not show it. */
export const effectTimeoutMs = 12_000
export const listingLagMs = 2_000
/** After which the clouds' client libraries give up waiting for an answer. */
const clientTimeoutMs = 6_000

type AgentContext = Pick<WorkContext<unknown, unknown>, 'claim' | 'wait' | 'poll'>

const smallShape = { vcpus: 2, memoryMib: 4096, diskGib: 40 } satisfies Shape

export class World {
  readonly servers = new Map<string, Server>()
  readonly rack = new Map<string, RackMachine>()
  faults: WorldFaults = { ...noWorldFaults }
  /** Called where a delete was carried out. */
  onDeleted: (server: Server) => void = () => undefined
  onCreated: (server: Server) => void = () => undefined
  /** Called where a machine has booted that is to phone home. */
  onBooted: (token: string) => void = () => undefined
  readonly totals = { creates: 0, deletes: 0, wipes: 0, installs: 0, calls: 0, faults: 0 }
  readonly #scheduler: Scheduler
  /** Instances of the rack's provider that a machine can reach. */
  readonly #listeners = new Map<Node, (id: string) => void>()
  #ids = 0

  constructor(scheduler: Scheduler, machines: number) {
    this.#scheduler = scheduler
    for (let number = 1; number <= machines; number++) {
      const id = `node-${number}`
      this.rack.set(id, { id, power: 'off', installedFor: undefined, dataOf: undefined, work: undefined })
    }
  }

  /** A provider of a cloud, for an instance in this process. */
  cloud(node: Node, name: string, lagMs: number): AnyDefinition {
    return {
      family: name,
      kind: 'dynamic',
      capacity: 3,
      listingLagMs: lagMs,
      effectTimeoutMs,
      listIntervalMs: 6_000,
      offeringsIntervalMs: 20_000,
      offerings: () =>
        this.#call(node, () => [{ typeId: 'small', location: 'here', shape: smallShape, available: true }]),
      create: async (context, spec) => {
        const id = await context.step('server', {
          run: () =>
            this.#call(
              node,
              () => this.#create(name, lagMs, spec.ownershipKey, spec.name, spec.bootstrap.phoneHomeToken),
              true,
            ),
          find: () => this.#call(node, () => this.#find(name, spec.ownershipKey)?.id),
        })
        await context.report({ externalId: id })
        await context.step('volume', () => this.#call(node, () => `volume-of-${id}`))
        return this.#view(id)
      },
      observe: (_context, id) => this.#call(node, () => (this.servers.has(id) ? this.#view(id) : undefined)),
      delete: (_context, machine) =>
        this.#call(node, () => {
          for (const server of [...this.servers.values()]) {
            if (
              server.cloud === name &&
              (server.id === machine.externalId || server.ownershipKey === machine.ownershipKey)
            )
              this.#delete(server)
          }
        }),
      list: (context) => this.#list(node, name, context.hubId),
      power: (_context, id, wish) =>
        this.#call(node, () => {
          const server = this.servers.get(id)
          if (server !== undefined && wish !== 'reboot') server.power = wish
        }),
    }
  }

  /** A provider of the rack. */
  rackProvider(node: Node): AnyDefinition {
    const machine = (id: string): RackMachine => {
      const found = this.rack.get(id)
      if (found === undefined) throw new ProviderError('INTERNAL', `there is no machine ${id}`)
      return found
    }
    return {
      family: 'rack',
      kind: 'static',
      capacity: 3,
      effectTimeoutMs,
      listIntervalMs: 6_000,
      discover: (context) => {
        this.#listeners.set(node, context.calledBack)
        return this.#discover(node)
      },
      observe: (_context, { externalId }) => this.#call(node, () => ({ externalId, power: machine(externalId).power })),
      power: (_context, { externalId }, wish) =>
        this.#call(node, () => {
          if (wish !== 'reboot') machine(externalId).power = wish
        }),
      provision: async (context, { externalId }, spec) => {
        await context.step('install', {
          run: () => this.#call(node, () => this.#install(machine(externalId), spec.ownershipKey), true),
          find: () =>
            this.#call(node, () => (machine(externalId).installedFor === spec.ownershipKey ? true : undefined)),
        })
        await context.step('boot', () => this.#call(node, () => ((machine(externalId).power = 'on'), true)))
        await this.#byAgent(node, context, machine(externalId), () => undefined)
        return { externalId, power: 'on' }
      },
      deprovision: (_context, { externalId }) =>
        this.#call(node, () => {
          const found = machine(externalId)
          found.power = 'off'
          found.work = undefined
          found.installedFor = undefined
        }),
      clean: async (context, { externalId }) => {
        await this.#byAgent(node, context, machine(externalId), (found) => {
          if (found.installedFor !== undefined)
            this.#scheduler.violate('I7', `machine ${externalId} was wiped with ${found.installedFor} on it`)
          found.dataOf = undefined
          found.power = 'off'
          this.totals.wipes += 1
        })
      },
    }
  }

  /** Has the machine's own agent do something, and waits for its word where that takes longer than is worth a claim. */
  async #byAgent(
    node: Node,
    context: AgentContext,
    machine: RackMachine,
    done: (machine: RackMachine) => void,
  ): Promise<void> {
    const { random } = this.#scheduler
    const order = `${context.claim?.item}/${context.claim?.operation}/${context.claim?.generation}`
    for (;;) {
      const state = await this.#call(node, () => this.#orderAgent(machine, order, done))
      if (state === 'done') return
      if (random.chance(0.7))
        await context.wait({ timeoutMs: agentTimeoutMs, lookAfterMs: 5_000, message: 'the agent of the machine' })
      const { work } = machine
      try {
        await context.poll(async () => (machine.work?.state === 'running' ? undefined : true), {
          initialDelayMs: 200,
          maxDelayMs: 500,
          timeoutMs: agentTimeoutMs,
        })
      } catch (thrown) {
        // Whoever waited in vain gives it up: the next try begins anew.
        if (ProviderError.from(thrown).code === 'TIMEOUT' && work?.state === 'running') work.state = 'lost'
        throw thrown
      }
    }
  }

  /** Begins it where it was not begun under this order, or came to nothing. */
  #orderAgent(machine: RackMachine, order: string, done: (machine: RackMachine) => void): 'running' | 'done' {
    const { work } = machine
    if (work?.order === order && work.state !== 'lost') return work.state === 'done' ? 'done' : 'running'
    const begun: NonNullable<RackMachine['work']> = { order, state: 'running' }
    machine.work = begun
    const { random } = this.#scheduler
    // An agent that hangs: nobody ever hears of it again.
    if (random.chance(0.03)) return 'running'
    const isLost = random.chance(0.1)
    this.#scheduler.schedule(
      random.between(20, 4_000),
      () => {
        if (machine.work !== begun) return
        begun.state = isLost ? 'lost' : 'done'
        if (isLost) return
        done(machine)
        for (let round = 0; round < 12; round++)
          this.#scheduler.schedule(round * 700, () => this.#say(machine), 'world')
      },
      'world',
    )
    return 'running'
  }

  /** A machine says that it is done, to whoever hears it. */
  #say(machine: RackMachine): void {
    const alive = [...this.#listeners].filter(([node]) => node.alive)
    if (alive.length === 0 || machine.work?.state !== 'done') return
    const [node, listener] = this.#scheduler.random.pick(alive)
    this.#scheduler.schedule(this.#scheduler.random.between(1, 40), () => listener(machine.id), node)
  }

  /** Servers that are there and carry this key. */
  live(ownershipKey: string): readonly Server[] {
    return [...this.servers.values()].filter((server) => server.ownershipKey === ownershipKey)
  }

  /** A server that somebody else has made. */
  plant(cloud: string, ownershipKey: string, name: string): Server {
    const id = `${cloud}-${++this.#ids}`
    const server: Server = {
      id,
      cloud,
      ownershipKey,
      name,
      createdAtMs: this.#scheduler.nowMs,
      listedAtMs: this.#scheduler.nowMs,
      power: 'on',
    }
    this.servers.set(id, server)
    return server
  }

  #view(id: string): { externalId: string; power: 'on' | 'off' } {
    return { externalId: id, power: this.servers.get(id)?.power ?? 'off' }
  }

  #create(cloud: string, lagMs: number, ownershipKey: string, name: string, phoneHomeToken: string): string {
    if (this.#scheduler.random.chance(this.faults.noCapacity))
      throw new ProviderError('CAPACITY', 'no more of this type here')
    const id = `${cloud}-${++this.#ids}`
    const { nowMs, random } = this.#scheduler
    const server: Server = {
      id,
      cloud,
      ownershipKey,
      name,
      createdAtMs: nowMs,
      listedAtMs: nowMs + random.next() * lagMs,
      power: 'on',
    }
    this.servers.set(id, server)
    this.totals.creates += 1
    this.#scheduler.note(`cloud: created ${id} for ${name}`)
    const live = this.live(ownershipKey)
    if (live.length > 1)
      this.#scheduler.violate(
        'I1',
        `${live.length} live servers for ${ownershipKey}: ${live.map((one) => one.id).join(', ')}`,
      )
    this.onCreated(server)
    if (phoneHomeToken !== '') this.onBooted(phoneHomeToken)
    return id
  }

  #find(cloud: string, ownershipKey: string): Server | undefined {
    return this.live(ownershipKey).find(
      (server) => server.cloud === cloud && server.listedAtMs <= this.#scheduler.nowMs,
    )
  }

  #delete(server: Server): void {
    this.servers.delete(server.id)
    this.totals.deletes += 1
    this.#scheduler.note(`cloud: deleted ${server.id}`)
    this.onDeleted(server)
  }

  #install(machine: RackMachine, ownershipKey: string): boolean {
    const { installedFor, dataOf } = machine
    if (installedFor !== undefined && installedFor !== ownershipKey)
      this.#scheduler.violate(
        'I6',
        `machine ${machine.id} was installed for ${ownershipKey} while it is ${installedFor}'s`,
      )
    if (dataOf !== undefined && dataOf !== ownershipKey)
      this.#scheduler.violate('I7', `machine ${machine.id} was given to ${ownershipKey} with data of ${dataOf} on it`)
    machine.installedFor = ownershipKey
    machine.dataOf = ownershipKey
    this.totals.installs += 1
    return true
  }

  async *#list(node: Node, cloud: string, hubId: string) {
    // In pages: between two of them the world goes on.
    const seen = new Set<string>()
    for (;;) {
      const page = await this.#call(node, () =>
        [...this.servers.values()]
          .filter(
            (server) => server.cloud === cloud && server.listedAtMs <= this.#scheduler.nowMs && !seen.has(server.id),
          )
          .slice(0, 2),
      )
      if (page.length === 0) return
      for (const server of page) {
        seen.add(server.id)
        if (server.ownershipKey.startsWith(hubId) || server.ownershipKey !== '')
          yield { externalId: server.id, ownershipKey: server.ownershipKey, name: server.name, power: server.power }
      }
    }
  }

  async *#discover(node: Node) {
    const machines = await this.#call(node, () => [...this.rack.values()].map(({ id, power }) => ({ id, power })))
    for (const { id, power } of machines) yield { externalId: id, power, labels: { rack: 'r1' } }
  }

  /** A call from a process to the world and back. Once sent it is carried out or not, whatever becomes of its caller. */
  #call<T>(node: Node, work: () => T, mayBeLate = false): Promise<T> {
    const { random } = this.#scheduler
    const { faults } = this
    this.totals.calls += 1
    return new Promise((resolve, reject) => {
      const answer = (settle: () => void): void => {
        this.#scheduler.schedule(random.between(1, 40), settle, node)
      }
      if (random.chance(faults.refusedBefore)) {
        this.totals.faults += 1
        return answer(() => reject(new ProviderError('UNAVAILABLE', 'internal server error')))
      }
      if (random.chance(faults.rateLimited)) {
        this.totals.faults += 1
        return answer(() => reject(new ProviderError('RATE_LIMITED', 'too many requests', { retryAfterMs: 500 })))
      }
      const lost = random.chance(faults.answersLost)
      if (lost && mayBeLate && random.chance(0.5)) {
        // Its caller is told of a failure, and it happens all the same, later.
        this.totals.faults += 1
        this.#scheduler.schedule(random.between(50, effectTimeoutMs - 50), () => void attempt(work), 'world')
        return answer(() => reject(new ProviderError('UNAVAILABLE', 'gateway timeout')))
      }
      const delayMs = random.chance(faults.slow)
        ? random.between(100, mayBeLate ? effectTimeoutMs - 50 : 2_000)
        : random.between(2, 80)
      this.#scheduler.schedule(
        delayMs,
        () => {
          let settle: () => void
          try {
            const result = work()
            settle = () => resolve(result)
          } catch (error) {
            const failure = error instanceof Error ? error : new Error(String(error))
            settle = () => reject(failure)
          }
          if (!lost) return answer(settle)
          this.totals.faults += 1
          // Done, and its caller is told of a failure, soon or when its own patience ends.
          const patienceMs = random.chance(0.5) ? 0 : clientTimeoutMs
          const failed = (): void => reject(new ProviderError('TIMEOUT', 'no answer'))
          this.#scheduler.schedule(patienceMs, () => answer(failed), 'world')
        },
        'world',
      )
    })
  }
}

/** For what nobody waits for. */
function attempt(work: () => unknown): void {
  try {
    work()
  } catch {
    // It was refused, and nobody hears of it.
  }
}
