/** A machine that is not there: its power, its next boot, and a list of what was really done to it. */
export interface MachineFaults {
  /** Accepts changes of power and does nothing. */
  ignoresPower: boolean
  /** Accepts boot devices and forgets them. */
  ignoresBoot: boolean
  /** Lets the operating system ignore its power button. */
  ignoresButton: boolean
  /** How long power takes to change after it was asked for. */
  powerDelayMs: number
}

export type MachineAct = 'on' | 'off' | 'cycle' | 'reset' | 'soft-off' | 'boot network' | 'boot disk'

export interface BootChoice {
  readonly device: 'network' | 'disk' | 'default'
  readonly uefi: boolean
}

export class SimulatedMachine {
  readonly faults: MachineFaults = { ignoresPower: false, ignoresBoot: false, ignoresButton: false, powerDelayMs: 0 }
  /** What was asked for, in order, whether it was done or not. */
  readonly asked: MachineAct[] = []
  /** What each start booted from. */
  readonly boots: BootChoice[] = []
  bootNext: BootChoice = { device: 'default', uefi: false }
  #on: boolean
  #change: NodeJS.Timeout | undefined

  constructor(on = false) {
    this.#on = on
  }

  get power(): 'on' | 'off' {
    return this.#on ? 'on' : 'off'
  }

  /** As by a person's hand at the machine: no BMC can refuse it. */
  switchByHand(power: 'on' | 'off'): void {
    this.#set(power === 'on')
  }

  setPower(act: 'on' | 'off' | 'cycle' | 'reset' | 'soft-off'): void {
    this.asked.push(act)
    if (this.faults.ignoresPower || (act === 'soft-off' && this.faults.ignoresButton)) return
    if (act === 'cycle' || act === 'reset') {
      if (this.#on) this.#boot()
      return
    }
    clearTimeout(this.#change)
    if (this.faults.powerDelayMs === 0) return this.#set(act === 'on')
    this.#change = setTimeout(() => this.#set(act === 'on'), this.faults.powerDelayMs).unref()
  }

  setBootNext(choice: BootChoice): void {
    if (choice.device !== 'default') this.asked.push(`boot ${choice.device}`)
    if (!this.faults.ignoresBoot) this.bootNext = choice
  }

  #set(on: boolean): void {
    if (on && !this.#on) this.#boot()
    this.#on = on
  }

  #boot(): void {
    this.boots.push(this.bootNext)
    this.bootNext = { device: 'default', uefi: false }
  }
}
