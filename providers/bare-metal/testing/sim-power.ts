import { BmcError } from '../src/power/errors.js'
import type {
  BmcDriver,
  BmcFacts,
  BootDevice,
  PowerEvent,
  PowerState,
  PowerSupervisor,
  PowerView,
  SupervisedMachine,
  WantedPower,
} from '../src/power/driver.js'
import type { SimMachine } from './sim-machine.js'

/** The power of simulated machines, without any controller in between: what it is told happens at once. */
export class SimPower implements PowerSupervisor {
  readonly wanted = new Map<string, WantedPower>()
  readonly watched = new Map<string, SupervisedMachine>()
  readonly calls: string[] = []
  /** Called before each effect. */
  before: (what: string, id: string) => Promise<void> | void = () => undefined
  readonly #machines: (id: string) => SimMachine | undefined
  readonly #password: string

  constructor(machines: (id: string) => SimMachine | undefined, password = 'sesame') {
    this.#machines = machines
    this.#password = password
  }

  add(machine: SupervisedMachine): void {
    this.watched.set(machine.id, machine)
  }

  remove(id: string): Promise<void> {
    this.watched.delete(id)
    return Promise.resolve()
  }

  ids(): readonly string[] {
    return [...this.watched.keys()]
  }

  setWanted(id: string, wanted: WantedPower): void {
    this.wanted.set(id, wanted)
  }

  resume(): void {
    // Nothing is ever contested here.
  }

  view(id: string): PowerView | undefined {
    if (!this.watched.has(id)) return undefined
    return { id, wanted: this.wanted.get(id) ?? 'any', power: this.#machines(id)?.power ?? 'unknown', contested: false }
  }

  views(): readonly PowerView[] {
    return this.ids().flatMap((id) => this.view(id) ?? [])
  }

  onEvent(_listener: (event: PowerEvent) => void): () => void {
    return () => undefined
  }

  async readPower(id: string): Promise<PowerState> {
    return Promise.resolve(this.#machine(id).power)
  }

  async switchPower(id: string, wish: 'on' | 'off' | 'reboot' | 'soft-off'): Promise<void> {
    await this.#effect(`${wish} ${id}`, id)
    const machine = this.#machine(id)
    if (wish === 'reboot') {
      machine.setPower('off')
      machine.setPower('on')
    } else machine.setPower(wish === 'on' ? 'on' : 'off')
  }

  async setBootOnce(id: string, device: BootDevice): Promise<void> {
    await this.#effect(`boot ${device} ${id}`, id)
    this.#machine(id).bootOnce = device
  }

  verify(id: string): Promise<BmcFacts> {
    this.#machine(id)
    return Promise.resolve({ kind: 'ipmi', vendor: 'Slipway', model: 'SimBMC' })
  }

  withDriver<Result>(
    _id: string,
    _signal: AbortSignal,
    _work: (driver: BmcDriver, signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    return Promise.reject(new BmcError('unsupported', 'simulated machines have no driver'))
  }

  openConsole(): undefined {
    return undefined
  }

  start(): void {
    // Nothing is polled.
  }

  stop(): Promise<void> {
    return Promise.resolve()
  }

  async #effect(what: string, id: string): Promise<void> {
    this.calls.push(what)
    await this.before(what, id)
  }

  #machine(id: string): SimMachine {
    const machine = this.#machines(id)
    if (machine === undefined) throw new BmcError('unreachable', `there is no BMC of ${id}`)
    if (this.watched.get(id)?.secret.password !== this.#password)
      throw new BmcError('wrong-password', `the BMC of ${id} refuses the password`)
    return machine
  }
}
