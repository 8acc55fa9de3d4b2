import type { BmcDriver, BmcEnvironment, BmcFacts, BootDevice, BootMode, PowerAction, PowerState } from './driver.js'
import { BmcError } from './errors.js'
import type { ManualSettings } from './settings.js'

/**
 * A machine whose power a person switches. Whatever is not so yet fails with `needs-person`, whose message says what to do; when it is tried
 * again and the witness says that it was done, it goes well.
 */
export class ManualDriver implements BmcDriver {
  readonly kind = 'manual'
  readonly #settings: ManualSettings
  readonly #environment: BmcEnvironment

  constructor(settings: ManualSettings, environment: BmcEnvironment) {
    this.#settings = settings
    this.#environment = environment
  }

  async readPower(signal: AbortSignal): Promise<PowerState> {
    signal.throwIfAborted()
    return this.#environment.witness?.power() ?? 'unknown'
  }

  async setPower(action: PowerAction, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (action === 'cycle' || action === 'reset')
      throw new BmcError('unsupported', `a person switches ${this.#name}: ask for off, and then for on`)
    const wanted = action === 'on' ? 'on' : 'off'
    if ((await this.readPower(signal)) !== wanted) throw this.#please(`switch ${this.#name} ${wanted}`)
  }

  async setBootOnce(device: BootDevice, mode: BootMode, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#settings.alwaysNetwork) return
    const chosen = this.#environment.witness?.bootOnce()
    if (chosen?.device === device && chosen.mode === mode) return
    const from = device === 'network' ? 'the network' : 'its disk'
    throw this.#please(`have ${this.#name} start from ${from} (${mode === 'uefi' ? 'UEFI' : 'BIOS'}) the next time`)
  }

  async verify(signal: AbortSignal): Promise<BmcFacts> {
    return { kind: this.kind, power: await this.readPower(signal) }
  }

  async close(): Promise<void> {
    // There is nothing to close.
  }

  get #name(): string {
    return this.#environment.name ?? 'the machine'
  }

  #please(what: string): BmcError {
    const { instructions } = this.#settings
    return new BmcError('needs-person', `Please ${what}${instructions === '' ? '.' : `: ${instructions}`}`)
  }
}
