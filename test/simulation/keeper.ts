import { create } from '@bufbuild/protobuf'
import * as api from '@slipway/proto/hub/v1'
import type { SimDatabase } from './database.js'
import { machineContext, type HubProcess } from './processes.js'
import type { Node, Scheduler } from './scheduler.js'

// Who looks after the rack: holds machines and lets them go, takes them into maintenance, and leads them out of what failed.

type MachineCall = Parameters<Parameters<HubProcess['callMachines']>[0]>[0]

export class Keeper {
  readonly #scheduler: Scheduler
  readonly #database: SimDatabase
  readonly #hub: () => HubProcess | undefined
  readonly #node: Node
  /** What it has begun and not yet ended. */
  readonly #paused = new Map<string, 'hold' | 'maintenance'>()
  /** Machines that it is just leading out of a failed state. */
  readonly #retrying = new Set<string>()

  constructor(scheduler: Scheduler, database: SimDatabase, hub: () => HubProcess | undefined) {
    this.#scheduler = scheduler
    this.#database = database
    this.#hub = hub
    this.#node = scheduler.node('keeper')
  }

  /** Has some machine left alone for a while. To be waited for: it looks into the records, and nothing else may happen meanwhile. */
  async pauseOne(): Promise<void> {
    const { random } = this.#scheduler
    const machines = await this.#database.look<{ name: string }>(
      `select name from machines where static and state <> 'GONE' order by name`,
    )
    if (machines.length === 0) return
    const { name } = random.pick(machines)
    if (this.#paused.has(name)) return
    const how = random.chance(0.5) ? 'hold' : 'maintenance'
    this.#paused.set(name, how)
    this.#scheduler.note(`keeper: ${how} of ${name}`)
    void this.#try((machines) => begin(machines, name, how))
    this.#scheduler.schedule(random.between(300, 5_000), () => void this.#end(name), 'world')
  }

  /** Leads machines out of what failed, and ends what was begun late: a hub that stood still may take the word for it after the word for its end. Returns whether nothing has, and nothing is left alone any more; the rest is under way. */
  async putInOrder(): Promise<boolean> {
    const failed = await this.#database.look<{ name: string }>(
      `select name from machines where static and state like '%_FAILED' and request_id is null order by name`,
    )
    for (const { name } of failed) {
      if (this.#retrying.has(name)) continue
      this.#retrying.add(name)
      this.#scheduler.note(`keeper: retries ${name}`)
      void this.#try((machines) =>
        machines.retryMachine(create(api.RetryMachineRequestSchema, { name: `machines/${name}` }), context()),
      ).then(() => this.#retrying.delete(name))
    }
    const alone = await this.#database.look<{ name: string; held: boolean }>(
      `select name, hold_at is not null as held from machines where static and paused_at is not null order by name`,
    )
    for (const { name, held } of alone) {
      if (this.#paused.has(name)) continue
      this.#paused.set(name, held ? 'hold' : 'maintenance')
      this.#scheduler.note(`keeper: finds ${name} left alone`)
      void this.#end(name)
    }
    return failed.length === 0 && this.#paused.size === 0
  }

  async #end(name: string): Promise<void> {
    const how = this.#paused.get(name)
    if (how === undefined) return
    if (await this.#try((machines) => end(machines, name, how))) this.#paused.delete(name)
    else this.#scheduler.schedule(1_000, () => void this.#end(name), 'world')
  }

  /** Calls a hub, and waits for it no longer than a person does. */
  #try(work: (machines: MachineCall) => unknown): Promise<boolean> {
    const hub = this.#hub()
    if (hub === undefined) return Promise.resolve(false)
    return new Promise((resolve) => {
      this.#scheduler.schedule(5_000, () => resolve(false), this.#node)
      this.#scheduler.schedule(
        1,
        () => {
          hub
            .callMachines(async (machines) => {
              await work(machines)
            })
            .then(
              () => resolve(true),
              () => resolve(false),
            )
        },
        hub.node,
      )
    })
  }
}

const context = () => machineContext(new AbortController().signal)

function begin(machines: MachineCall, name: string, how: 'hold' | 'maintenance'): unknown {
  const request = { name: `machines/${name}`, reason: 'the keeper is at work on it' }
  return how === 'hold'
    ? machines.holdMachine(create(api.HoldMachineRequestSchema, request), context())
    : machines.setMachineMaintenance(
        create(api.SetMachineMaintenanceRequestSchema, { ...request, enabled: true }),
        context(),
      )
}

function end(machines: MachineCall, name: string, how: 'hold' | 'maintenance'): unknown {
  const request = { name: `machines/${name}` }
  return how === 'hold'
    ? machines.unholdMachine(create(api.UnholdMachineRequestSchema, request), context())
    : machines.setMachineMaintenance(create(api.SetMachineMaintenanceRequestSchema, request), context())
}
