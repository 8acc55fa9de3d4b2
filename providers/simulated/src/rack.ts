import { ApiGate, refused, type Caller } from './api-gate.js'
import { isOver } from './cloud-state.js'
import type { RackConfig, RackMachineSetting, RackModel, RackSimulation } from './config.js'
import type { Dice } from './dice.js'
import { pause } from './pause.js'
import type { BootPlan, Fact, PowerOrder, ViolationSeen } from './facts.js'
import { addressOf, machinePower, type RackMachine, type RackState, type Wipe } from './rack-state.js'
import { newId, type World } from './world.js'

/** A host to be put on a machine. */
export interface HostOrder {
  /** The ownership key: it tells this host from all others. */
  readonly binding: string
  /** Which system of that host's it is. Default 0: its first. */
  readonly mark?: number
  readonly host: string
  readonly image: string
  /** How it boots and phones home. Absent: it does not. */
  readonly boot?: { readonly hostname: string; readonly phoneHomeUrl: string; readonly token: string }
  /** Keys that may log in. Absent: none. */
  readonly sshPublicKeys?: readonly string[]
  readonly simulate?: RackSimulation
}

interface NewHost {
  readonly serial: string
  readonly bootId: string | undefined
  readonly simulate: RackSimulation | undefined
}

/** A machine as the rack shows it. */
export interface MachineView {
  readonly serial: string
  readonly model: RackModel
  readonly labels: Readonly<Record<string, string>>
  readonly power: 'on' | 'off'
  readonly isPowerSwitching: boolean
  readonly address: string
  readonly host?: {
    readonly binding: string
    readonly mark: number
    readonly isInstalling: boolean
    readonly installsForMs: number
    readonly failure?: string
  }
  readonly wipe?: { readonly wipeId: string; readonly outcome: Wipe['outcome']; readonly runsForMs: number }
}

const made = new WeakMap<RackConfig, ReadonlyMap<string, RackMachineSetting>>()

/** The API of the simulated rack: its machines' management controllers, and its installer. */
export class Rack {
  readonly #world: World<RackState>
  readonly #config: RackConfig
  readonly #gate: ApiGate<RackState>

  constructor(world: World<RackState>, config: RackConfig, caller: Caller) {
    this.#world = world
    this.#config = config
    this.#gate = new ApiGate(world, config, caller)
  }

  /** Proves that the rack answers. */
  async ping(signal: AbortSignal): Promise<void> {
    await this.#gate.read('ping', this.#config.latency, signal, () => undefined)
  }

  /** All machines that are there. */
  async listMachines(signal: AbortSignal): Promise<readonly MachineView[]> {
    return this.#gate.read('list', this.#config.latency, signal, (state, nowMs) =>
      [...machinesOf(this.#config).keys()].flatMap((serial) => this.#view(state, nowMs, serial) ?? []),
    )
  }

  /** One machine; `undefined`: it is not in the rack. */
  async getMachine(serial: string, signal: AbortSignal): Promise<MachineView | undefined> {
    return this.#gate.read('get', this.#config.latency, signal, (state, nowMs) => this.#view(state, nowMs, serial))
  }

  /** Logs in to a machine's management controller. @returns whether it let the caller in. */
  async verify(serial: string, signal: AbortSignal): Promise<boolean> {
    return this.#gate.read('verify', this.#config.latency, signal, (state, nowMs, dice) => {
      if (this.#view(state, nowMs, serial) === undefined) return false
      const isOrdered = this.#config.simulate[serial] === 'verify-fail'
      return !isOrdered && !dice.happens('fail', this.#config.faults.verifyFailRate)
    })
  }

  /** Reads a machine's hardware; `undefined`: it is not in the rack. */
  async inspect(serial: string, signal: AbortSignal): Promise<MachineView | undefined> {
    const [view, durationMs] = await this.#gate.read('inspect', this.#config.latency, signal, (state, nowMs, dice) => [
      this.#view(state, nowMs, serial),
      dice.duration('inspect', this.#config.inspectDuration),
    ])
    await pause(durationMs, signal)
    return view
  }

  /** Starts to switch or restart a machine. It takes an installation or a wipe that runs with it. */
  async power(serial: string, wish: PowerOrder, signal: AbortSignal): Promise<void> {
    await this.#write('power', serial, signal, (machine, nowMs, dice) => {
      const isStuck = machine?.power?.doneAtMs !== null && dice.happens('stuck', this.#config.faults.stuckActionRate)
      const doneAtMs = isStuck ? null : nowMs + dice.duration('power', this.#config.powerDuration)
      return { fact: 'machine.powered', serial, wish, doneAtMs }
    })
  }

  /** Starts to install a host; asked again for the same host, it starts anew what has failed or is stuck. */
  async provision(serial: string, order: HostOrder, signal: AbortSignal): Promise<void> {
    const bootId = order.boot === undefined ? undefined : newId('boot')
    const bootBefore = this.#bootOf(serial)
    if (order.boot !== undefined && bootId !== undefined) this.#world.keepSecret(bootId, order.boot.token)
    const bySettings = this.#config.simulate[order.boot?.hostname ?? ''] ?? this.#config.simulate[serial]
    const simulate = order.simulate ?? bySettings
    try {
      await this.#write(
        'provision',
        serial,
        signal,
        (machine, nowMs, dice) => this.#decideProvision(machine, nowMs, dice, order, { serial, bootId, simulate }),
        { subject: order.mark === undefined ? order.binding : `${order.binding}#${order.mark}`, simulate },
      )
    } finally {
      this.#world.dropSecret(bootId)
      this.#world.dropSecret(bootBefore)
    }
  }

  /** Takes a host off a machine. @param binding whose host it is to be; absent: whichever it is. */
  async release(serial: string, binding: string | undefined, signal: AbortSignal): Promise<void> {
    const bootId = this.#bootOf(serial)
    const decide = (machine: RackMachine | undefined): Fact => {
      const held = machine?.binding?.provisioned.binding
      if (held === undefined) return { fact: 'call.repeated', id: serial }
      if (binding !== undefined && binding !== held)
        return violation(
          'release-foreign',
          `${serial} is to be released from a host that is not on it`,
          serial,
          binding,
          held,
        )
      return { fact: 'machine.released', serial, binding: held }
    }
    try {
      await this.#write('release', serial, signal, decide)
    } finally {
      this.#world.dropSecret(bootId)
    }
  }

  /** Starts a wipe, or joins the one that runs. It powers the machine on, and off when it is through. */
  async wipe(serial: string, signal: AbortSignal): Promise<void> {
    await this.#write('wipe', serial, signal, (machine, nowMs, dice) => {
      const held = machine?.binding?.provisioned.binding
      if (held !== undefined)
        return violation('wipe-bound', `${serial} is to be wiped with a host on it`, serial, undefined, held)
      const running = machine?.wipe?.outcome === 'running' ? machine.wipe : undefined
      if (running !== undefined && running.doneAtMs !== null) return { fact: 'call.repeated', id: running.wipeId }
      const { faults, wipeDuration, simulate } = this.#config
      const isStuck = running === undefined && dice.happens('stuck', faults.stuckActionRate)
      const fails = simulate[serial] === 'wipe-fail' || dice.happens('fail', faults.wipeFailRate)
      const doneAtMs = isStuck ? null : nowMs + dice.duration('wipe', wipeDuration)
      return { fact: 'machine.wipe-started', serial, wipeId: newId('wipe'), doneAtMs, fails }
    })
  }

  #bootOf(serial: string): string | undefined {
    return this.#world.ledger.state.machines.get(serial)?.binding?.provisioned.boot?.bootId
  }

  async #write(
    call: string,
    serial: string,
    signal: AbortSignal,
    decide: (machine: RackMachine | undefined, nowMs: number, dice: Dice) => Fact,
    {
      subject = serial,
      simulate = this.#config.simulate[serial],
    }: { subject?: string; simulate?: RackSimulation | undefined } = {},
  ): Promise<void> {
    const write = { call, subject, latency: this.#config.latency, simulate: () => simulate }
    await this.#gate.write(write, signal, (state, nowMs, dice) => {
      const machine = state.machines.get(serial)
      const isThere = machinesOf(this.#config).has(serial) && machine?.vanishedAtMs === undefined
      return isThere ? decide(machine, nowMs, dice) : refused('not-found', `there is no machine ${serial} in the rack`)
    })
  }

  #decideProvision(machine: RackMachine | undefined, nowMs: number, dice: Dice, order: HostOrder, made: NewHost): Fact {
    const bound = machine?.binding
    const refusal = this.#notProvisionable(machine, order, made.serial)
    if (refusal !== undefined) return refusal
    const isWell = bound?.provisioned.failure === undefined || !isOver(bound.installedAtMs, nowMs)
    const isSame = bound?.provisioned.mark === order.mark
    if (bound !== undefined && bound.installedAtMs !== null && isWell && isSame)
      return { fact: 'call.repeated', id: made.serial }
    return this.#provisioned(nowMs, dice, order, made, bound !== undefined && isSame)
  }

  #notProvisionable(machine: RackMachine | undefined, { image, binding }: HostOrder, serial: string): Fact | undefined {
    const { images } = this.#config
    if (!images.includes(image)) return refused('invalid', `there is no image ${image}; there are ${images.join(', ')}`)
    const held = machine?.binding?.provisioned.binding
    if (held === binding) return undefined
    if (held !== undefined)
      return violation('provision-bound', `${serial} is to get a host, and has another one`, serial, binding, held)
    if (machine?.wipe?.outcome === 'running') return refused('conflict', `${serial} is being wiped`)
    const left = machine?.soiledBy
    if (left !== undefined)
      return violation('provision-unwiped', `${serial} was not wiped since its last host`, serial, binding, left)
    return undefined
  }

  #provisioned(nowMs: number, dice: Dice, order: HostOrder, made: NewHost, isAgain: boolean): Fact {
    const { faults, installDuration } = this.#config
    const { simulate, serial } = made
    const isStuck = !isAgain && (simulate === 'stuck' || dice.happens('stuck', faults.stuckActionRate))
    const fails = simulate === 'fail' || dice.happens('fail', faults.installFailRate)
    const boot = this.#bootPlan(dice, order, made)
    return {
      fact: 'machine.provisioned',
      serial,
      binding: order.binding,
      ...(order.mark !== undefined && { mark: order.mark }),
      host: order.host,
      image: order.image,
      installedAtMs: isStuck ? null : nowMs + dice.duration('install', installDuration),
      ...(fails && { failure: 'the image could not be written' }),
      ...(order.sshPublicKeys !== undefined && { sshPublicKeys: order.sshPublicKeys }),
      ...(boot !== undefined && { boot }),
      ...(simulate !== undefined && { simulate }),
    }
  }

  #bootPlan(dice: Dice, { boot }: HostOrder, { bootId, simulate }: NewHost): BootPlan | undefined {
    if (boot === undefined || bootId === undefined) return undefined
    return {
      bootId,
      hostname: boot.hostname,
      phoneHomeUrl: boot.phoneHomeUrl,
      durationMs: dice.duration('boot', this.#config.bootDuration),
      silent: simulate === 'no-phone-home' || dice.happens('no-phone-home', this.#config.faults.noPhoneHomeRate),
    }
  }

  #view(state: RackState, nowMs: number, serial: string): MachineView | undefined {
    const setting = machinesOf(this.#config).get(serial)
    const machine = state.machines.get(serial)
    const model = this.#config.models.find(({ model }) => model === setting?.model) ?? this.#config.models[0]
    if (setting === undefined || model === undefined || machine?.vanishedAtMs !== undefined) return undefined
    return {
      serial,
      model,
      labels: setting.labels,
      power: machinePower(machine, nowMs),
      isPowerSwitching: machine?.power !== undefined && !isOver(machine.power.doneAtMs, nowMs),
      address: addressOf(serial),
      ...(machine?.binding !== undefined && { host: hostOf(machine.binding, nowMs) }),
      ...(machine?.wipe !== undefined && { wipe: wipeOf(machine.wipe, nowMs) }),
    }
  }
}

function hostOf(
  { provisioned, installedAtMs, installStartedAtMs }: NonNullable<RackMachine['binding']>,
  nowMs: number,
) {
  const isInstalling = !isOver(installedAtMs, nowMs)
  return {
    binding: provisioned.binding,
    mark: provisioned.mark ?? 0,
    isInstalling,
    installsForMs: nowMs - installStartedAtMs,
    ...(!isInstalling && provisioned.failure !== undefined && { failure: provisioned.failure }),
  }
}

function wipeOf({ wipeId, outcome, startedAtMs }: Wipe, nowMs: number) {
  return { wipeId, outcome, runsForMs: nowMs - startedAtMs }
}

/** The machines that a configuration has, made up or listed, by serial number. */
function machinesOf(config: RackConfig): ReadonlyMap<string, RackMachineSetting> {
  const known = made.get(config)
  if (known !== undefined) return known
  const list = typeof config.machines === 'number' ? makeUp(config, config.machines) : config.machines
  const machines = new Map(list.map((machine) => [machine.serial, machine]))
  made.set(config, machines)
  return machines
}

function makeUp({ models, machinesPerRack }: RackConfig, count: number): RackMachineSetting[] {
  return Array.from({ length: count }, (_, index) => {
    const model = models[index % models.length]?.model ?? ''
    const rack = `r${String(Math.floor(index / machinesPerRack) + 1).padStart(2, '0')}`
    const labels = { rack, slot: String((index % machinesPerRack) + 1), model: model.toLowerCase() }
    return { serial: `SIM-${String(index + 1).padStart(4, '0')}`, model, labels }
  })
}

function violation(
  what: ViolationSeen['what'],
  message: string,
  serial: string,
  binding: string | undefined,
  heldBy: string,
): ViolationSeen {
  return { fact: 'violation', serial, what, message, heldBy, ...(binding !== undefined && { binding }) }
}
