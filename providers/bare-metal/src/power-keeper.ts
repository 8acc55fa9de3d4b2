import { isBmcError } from './power/errors.js'
import type { Logger } from 'pino'
import type { AgentDesk } from './boot/agent-desk.js'
import type { KnownMachine } from './machine-book.js'
import type { BootDevice, ConsolePart, PowerEvent, PowerState, PowerSupervisor, WantedPower } from './power/driver.js'
import type { BmcSecret } from './power/settings.js'
import { pause } from './power/waiting.js'

/** What a piece of work lets happen: see the SDK's claim. */
export interface Permission {
  readonly signal: AbortSignal
  /** Asked right before each effect. @throws where it may not happen. */
  readonly permit: () => Promise<void>
  readonly progress: (message: string) => void
}

/** An agent that was heard of within this is proof that its machine is on. */
const agentProofMs = 20_000
/** How long a machine takes to switch itself off. */
const agentLeavesMs = 10_000
/** How long a person may take who is asked to switch a machine. */
const personMs = 24 * 3_600_000
const askPersonMs = 5_000

/** Power of the segment's machines, each effect under the permission of the work that wants it. */
export class PowerKeeper {
  readonly #supervisor: PowerSupervisor
  readonly #desk: AgentDesk
  readonly #log: Logger
  readonly #onCut: (id: string, atMs: number) => void
  /** By which settings each machine is watched. Secret. */
  readonly #settings = new Map<string, string>()
  #started = false
  /** The boot device that was asked for last of machines that a person switches. */
  readonly #bootOnce = new Map<string, { readonly device: BootDevice; readonly mode: 'uefi' | 'bios' }>()

  /** @param onCut told of machines whose power went away, and since when nothing of before can run on them. */
  constructor(
    supervisor: PowerSupervisor,
    desk: AgentDesk,
    log: Logger,
    onCut: (id: string, atMs: number) => void,
    onEvent: (event: PowerEvent) => void = () => undefined,
  ) {
    this.#supervisor = supervisor
    this.#desk = desk
    this.#log = log
    this.#onCut = onCut
    supervisor.onEvent((event) => {
      const level = event.kind === 'contested' || event.kind === 'failing' ? 'warn' : 'info'
      this.#log[level]({ machine: event.id, power: event }, event.message)
      onEvent(event)
    })
  }

  /** Watches a machine, or takes over what is new about it. A server in use is looked at, and nothing else. */
  watch(machine: KnownMachine, secret: BmcSecret, wanted: WantedPower): void {
    const { id, bmc } = machine
    // What is watched already goes on undisturbed: it has sessions open.
    const settings = JSON.stringify([bmc, secret, machine.inUse])
    if (this.#settings.get(id) === settings) return
    this.#settings.set(id, settings)
    const witness = { power: () => this.#witness(id), bootOnce: () => this.#bootOnce.get(id) }
    this.#supervisor.add({ id, settings: bmc, secret, ...(bmc.kind === 'manual' && { witness }) })
    this.#supervisor.setWanted(id, machine.inUse ? 'any' : wanted)
    if (this.#started) return
    this.#started = true
    this.#supervisor.start()
  }

  /** As last read, without asking. */
  seen(id: string): 'on' | 'off' | undefined {
    return known(this.#supervisor.view(id)?.power)
  }

  /** As it is now. */
  async read(id: string, signal: AbortSignal): Promise<'on' | 'off' | undefined> {
    return known(await this.#supervisor.readPower(id, signal))
  }

  want(id: string, wanted: WantedPower): void {
    this.#supervisor.setWanted(id, wanted)
  }

  verify(id: string, signal: AbortSignal): ReturnType<PowerSupervisor['verify']> {
    return this.#supervisor.verify(id, signal)
  }

  /** Brings power to what is asked, and returns when that was seen. `soft-off`: the system is asked first to shut itself down. */
  async switch(id: string, wish: 'on' | 'off' | 'soft-off' | 'reboot', permission: Permission): Promise<void> {
    let begunAtMs = Date.now()
    await this.#untilDone(permission, () => {
      begunAtMs = Date.now()
      return this.#supervisor.switchPower(id, wish, permission.signal)
    })
    if (wish !== 'on') this.#onCut(id, begunAtMs)
  }

  /** Starts a machine anew from the network or from its disk. */
  async boot(machine: KnownMachine, device: BootDevice, permission: Permission): Promise<void> {
    const { id, bootMode } = machine
    this.#bootOnce.set(id, { device, mode: bootMode })
    await this.#untilDone(permission, () => this.#supervisor.setBootOnce(id, device, bootMode, permission.signal))
    const isOff = (await this.read(id, permission.signal).catch(() => undefined)) === 'off'
    await this.switch(id, isOff ? 'on' : 'reboot', permission)
  }

  /** Follows a machine's serial console from now on. Undefined: its BMC has none. */
  openConsole(id: string, signal: AbortSignal): AsyncIterable<ConsolePart> | undefined {
    return this.#supervisor.openConsole(id, signal)
  }

  async close(): Promise<void> {
    await this.#supervisor.stop()
  }

  /** Where a person has to do it, that person is waited for. */
  async #untilDone(permission: Permission, effect: () => Promise<void>): Promise<void> {
    const deadlineMs = performance.now() + personMs
    for (;;) {
      await permission.permit()
      try {
        return await effect()
      } catch (error) {
        if (!isBmcError(error, 'needs-person') || performance.now() > deadlineMs) throw error
        permission.progress(error.message)
        await pause(askPersonMs, permission.signal)
      }
    }
  }

  #witness(id: string): PowerState {
    const status = this.#desk.status(id)
    if (status === undefined) return 'unknown'
    const silentMs = Date.now() - status.seenAtMs
    if (status.left === 'power-off') return silentMs < agentLeavesMs ? 'on' : 'off'
    return silentMs < agentProofMs ? 'on' : 'unknown'
  }
}

function known(power: PowerState | undefined): 'on' | 'off' | undefined {
  return power === 'unknown' ? undefined : power
}
