import { create } from '@bufbuild/protobuf'
import * as api from '@slipway/proto/hub/v1'
import { setContext, type HubProcess } from './processes.js'
import type { Random } from './random.js'
import type { Node, Scheduler } from './scheduler.js'

// Somebody who keeps a set of hosts, has more or fewer of them, changes what they are, and goes on where a rollout fails: each wish is told to any hub until one says that it
// has it.

const parent = 'workspaces/default'
const name = `${parent}/hostSets/set`
const answerMs = 5_000

export class Keeper {
  readonly #scheduler: Scheduler
  readonly #hub: () => HubProcess | undefined
  readonly #node: Node
  /** Its own: what the rest of a seed draws stays as it is. */
  readonly #random: Random
  #replicas: number
  #made = false
  #deleting = false
  /** Wishes are told one after the other. */
  #last: Promise<void> = Promise.resolve()

  constructor(scheduler: Scheduler, random: Random, hub: () => HubProcess | undefined) {
    this.#scheduler = scheduler
    this.#random = random
    this.#hub = hub
    this.#node = scheduler.node('keeper')
    this.#replicas = 1 + random.int(3)
  }

  get replicas(): number {
    return this.#replicas
  }

  get made(): boolean {
    return this.#made
  }

  /** Makes the set, and draws what becomes of it meanwhile. */
  plan(machineClass: string, untilMs: number): void {
    const random = this.#random
    const surge = random.int(2)
    const hostSet = create(api.HostSetSchema, {
      replicas: this.#replicas,
      template: { machineClass: `machineClasses/${machineClass}` },
      spread: random.pick([api.Spread.NONE, api.Spread.PROVIDER]),
      rollout: { maxSurge: surge, maxUnavailable: surge === 0 ? 1 : random.int(2) },
    })
    const make = create(api.CreateHostSetRequestSchema, { parent, hostSetId: 'set', hostSet, requestId: 'make-set' })
    this.#wish(random.between(0, untilMs * 0.2), async (hub) => {
      await hub.callSets(async (sets) => sets.createHostSet(make, setContext('createHostSet', never)))
      this.#made = true
    })
    for (let change = 0; change < 1 + random.int(3); change++) {
      const host = random.chance(0.5)
        ? { replicas: random.int(4) }
        : { template: { placement: { families: ['cloud-a', 'cloud-b', `absent-${change}`] } } }
      const paths = 'replicas' in host ? ['replicas'] : ['template.placement']
      this.#wish(random.between(untilMs * 0.2, untilMs), async (hub) => {
        if (host.replicas !== undefined) this.#replicas = host.replicas
        const request = create(api.UpdateHostSetRequestSchema, { hostSet: { name, ...host }, updateMask: { paths } })
        await hub.callSets(async (sets) => sets.updateHostSet(request, setContext('updateHostSet', never)))
      })
    }
  }

  /** Has it go on, where it was paused. */
  resume(): void {
    this.#wish(0, async (hub) => {
      const request = create(api.ResumeHostSetRequestSchema, { name })
      await hub.callSets(async (sets) => sets.resumeHostSet(request, setContext('resumeHostSet', never)))
    })
  }

  /** Deletes it, with all that are in it. */
  end(): void {
    if (this.#deleting) return
    this.#deleting = true
    this.#wish(0, async (hub) => {
      const request = create(api.DeleteHostSetRequestSchema, { name, cascade: true, allowMissing: true })
      await hub.callSets(async (sets) => sets.deleteHostSet(request, setContext('deleteHostSet', never)))
    })
  }

  #wish(inMs: number, tell: (hub: HubProcess) => Promise<void>): void {
    this.#scheduler.schedule(inMs, () => (this.#last = this.#last.then(() => this.#persist(tell))), this.#node)
  }

  async #persist(tell: (hub: HubProcess) => Promise<void>): Promise<void> {
    while (!(await this.#try(tell)))
      await new Promise<void>((resolve) => {
        this.#scheduler.schedule(this.#random.between(100, 1_500), resolve, this.#node)
      })
  }

  /** The process that should answer may be gone: it is not waited for. */
  #try(tell: (hub: HubProcess) => Promise<void>): Promise<boolean> {
    const hub = this.#hub()
    if (hub === undefined) return Promise.resolve(false)
    return new Promise((resolve) => {
      const timer = this.#scheduler.schedule(answerMs, () => resolve(false), this.#node)
      const answer = (done: boolean) => {
        timer.cancelled = true
        this.#scheduler.schedule(1, () => resolve(done), this.#node)
      }
      this.#scheduler.schedule(
        1,
        () =>
          void tell(hub).then(
            () => answer(true),
            () => answer(false),
          ),
        hub.node,
      )
    })
  }
}

const never = new AbortController().signal
