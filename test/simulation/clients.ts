import { create } from '@bufbuild/protobuf'
import * as api from '@slipway/proto/hub/v1'
import { callContext, orderOf, type HubProcess } from './processes.js'
import type { Node, Scheduler } from './scheduler.js'

// Those whom it is all for: they order, they release, they watch, and they try again where they get no answer.

/** How a client's host stands, by its own records alone. */
export interface Ordered {
  readonly name: string
  readonly machineClass: string
  /** Its unique id, from the first answer. */
  uid: string | undefined
  /** What the hub has refused for good. */
  refused: string | undefined
  releaseAccepted: boolean
}

const callTimeoutMs = 5_000

/** Waits for an answer, but not for ever: the process that should give it may be gone. */
function within<T>(scheduler: Scheduler, node: Node, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = scheduler.schedule(callTimeoutMs, () => reject(new Error('no answer')), node)
    work.then(
      (value) => {
        timer.cancelled = true
        scheduler.schedule(scheduler.random.between(0.2, 10), () => resolve(value), node)
      },
      (error: Error) => {
        timer.cancelled = true
        scheduler.schedule(scheduler.random.between(0.2, 10), () => reject(error), node)
      },
    )
  })
}

export class Client {
  readonly node: Node
  readonly orders: Ordered[] = []
  readonly #scheduler: Scheduler
  readonly #hub: () => HubProcess | undefined
  operations = 0

  constructor(scheduler: Scheduler, name: string, hub: () => HubProcess | undefined) {
    this.#scheduler = scheduler
    this.node = scheduler.node(name)
    this.#hub = hub
  }

  /** Orders a host and goes on until the order is taken or refused. At times it asks twice at once. */
  order(name: string, machineClass: string): Ordered {
    const ordered: Ordered = {
      name,
      machineClass,
      uid: undefined,
      refused: undefined,
      releaseAccepted: false,
    }
    this.orders.push(ordered)
    const twice = this.#scheduler.random.chance(0.2)
    this.node.run(() => {
      void this.#persist(() => this.#order(ordered))
      if (twice) void this.#persist(() => this.#order(ordered))
    })
    return ordered
  }

  release(ordered: Ordered): void {
    this.node.run(() => void this.#persist(() => this.#release(ordered)))
  }

  async #order(ordered: Ordered): Promise<boolean> {
    try {
      const { host } = await this.#call('createHost', (hosts, context) =>
        hosts.createHost(orderOf(ordered.name, ordered.machineClass), context),
      )
      const uid = host?.uid ?? ''
      if (ordered.uid !== undefined && ordered.uid !== uid)
        this.#scheduler.violate('I8', `the same order ${ordered.name} gave host ${ordered.uid} and then ${uid}`)
      ordered.uid = uid
      return true
    } catch (error) {
      const reason = (error as { reason?: string }).reason
      // A cloud that has said nothing yet of what it offers may do so in a moment.
      if (reason === undefined || reason === 'CLASS_NOT_OFFERED' || reason === 'DATABASE_UNAVAILABLE') return false
      // What is refused for want of room may be taken when something has been released. Where there is no quota, it would go on for ever, and be found.
      if (reason === 'QUOTA_EXCEEDED') return false
      ordered.refused = reason
      this.#scheduler.violate('I8', `order ${ordered.name} was refused: ${reason}`)
      return true
    }
  }

  async #release(ordered: Ordered): Promise<boolean> {
    if (ordered.uid === undefined) return false
    try {
      await this.#call('deleteHost', (hosts, context) =>
        hosts.deleteHost(create(api.DeleteHostRequestSchema, { name: nameOf(ordered) }), context),
      )
      ordered.releaseAccepted = true
      return true
    } catch (error) {
      // Released already, and so not found under its name any more.
      if ((error as { reason?: string }).reason === 'HOST_NOT_FOUND') ordered.releaseAccepted = true
      return ordered.releaseAccepted
    }
  }

  async #persist(attempt: () => Promise<boolean>): Promise<void> {
    while (!(await attempt())) {
      await new Promise<void>((resolve) =>
        this.#scheduler.schedule(this.#scheduler.random.between(100, 1_500), resolve, this.node),
      )
    }
  }

  async #call<T>(
    method: 'createHost' | 'deleteHost',
    work: (
      hosts: Parameters<Parameters<HubProcess['call']>[0]>[0],
      context: ReturnType<typeof callContext>,
    ) => Promise<T> | T,
  ): Promise<T> {
    const hub = this.#hub()
    if (hub === undefined) throw new Error('no hub answers')
    this.operations += 1
    const context = callContext(method, new AbortController().signal)
    const answered = new Promise<T>((resolve, reject) => {
      this.#scheduler.schedule(
        this.#scheduler.random.between(0.2, 10),
        () => hub.call(async (hosts) => work(hosts, context)).then(resolve, reject),
        hub.node,
      )
    })
    return within(this.#scheduler, this.node, answered)
  }
}

function nameOf(ordered: Ordered): string {
  return `workspaces/default/hosts/${ordered.name}`
}

/** Watches all hosts, and holds every change against the one before: each version once, none left out, over all reconnects. */
export class Watcher {
  readonly node: Node
  readonly versions = new Map<string, number>()
  changes = 0
  readonly #scheduler: Scheduler
  readonly #hub: () => HubProcess | undefined
  #revision = ''
  #connection = 0

  constructor(scheduler: Scheduler, name: string, hub: () => HubProcess | undefined) {
    this.#scheduler = scheduler
    this.node = scheduler.node(name)
    this.#hub = hub
    this.node.run(() => void this.#run())
  }

  /** The connection breaks. */
  disconnect(): void {
    this.#connection += 1
  }

  async #run(): Promise<void> {
    for (;;) {
      const hub = this.#hub()
      if (hub !== undefined) await this.#watch(hub, ++this.#connection)
      await new Promise<void>((resolve) =>
        this.#scheduler.schedule(this.#scheduler.random.between(50, 1_000), resolve, this.node),
      )
    }
  }

  #watch(hub: HubProcess, connection: number): Promise<void> {
    // At times it forgets where it was, and begins with a list.
    if (this.#scheduler.random.chance(0.3)) this.#revision = ''
    const abort = new AbortController()
    return new Promise<void>((resolve) => {
      const over = (): void => {
        abort.abort()
        resolve()
      }
      hub.node.onKill.push(() => this.#scheduler.schedule(1, over, this.node))
      const request = create(api.WatchHostsRequestSchema, { parent: 'workspaces/-', revision: this.#revision })
      const pump = async (messages: AsyncIterable<api.WatchHostsResponse>): Promise<void> => {
        for await (const message of messages) {
          // The next message is read when this one has arrived: so slow a network is not to be had, and order is all that matters.
          await new Promise<void>((taken) =>
            this.#scheduler.schedule(
              this.#scheduler.random.between(0.1, 5),
              () => {
                if (connection === this.#connection) this.#take(message)
                else over()
                taken()
              },
              this.node,
            ),
          )
          if (connection !== this.#connection) return
        }
      }
      void hub
        .call((hosts) =>
          pump(
            hosts.watchHosts(request, callContext('watchHosts', abort.signal)) as AsyncIterable<api.WatchHostsResponse>,
          ),
        )
        .then(over, over)
    })
  }

  #take(message: api.WatchHostsResponse): void {
    for (const { type, host } of message.changes) {
      if (host === undefined) continue
      const version = Number(host.etag)
      const before = this.versions.get(host.uid)
      this.changes += 1
      const expected = before === undefined ? undefined : before + 1
      if (type === api.ChangeType.CREATED && before !== undefined)
        this.#violate(host, `created a second time, at version ${version}`)
      else if (expected !== undefined && version !== expected && type !== api.ChangeType.EXISTING)
        this.#violate(host, `version ${version} came after ${before}`)
      else if (before === undefined && type === api.ChangeType.UPDATED)
        this.#violate(host, `changed to version ${version} and was never shown`)
      this.versions.set(host.uid, version)
    }
    if (message.revision !== '') this.#revision = message.revision
  }

  #violate(host: api.Host, message: string): void {
    this.#scheduler.violate('I10', `${this.node.name}, ${host.name}: ${message}`)
  }
}
