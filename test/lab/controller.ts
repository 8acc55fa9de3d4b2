import type { Test } from 'tap'
import type { LabMachine } from './machine.js'
import type { LabNetwork } from './network.js'

/** A machine's management controller, whatever it speaks. */
export interface LabController {
  readonly machine: LabMachine
  /** What its machine was told through it, in order: `power 1`, `power 0`, `boot pxe`, `reset`, … */
  readonly told: readonly string[]
  /** How it is reached, as the provider's configuration has it. */
  readonly settings: object
  readonly login: { readonly username: string; readonly password: string }
  /** Starts the machine from the network, as somebody who stands before it would. */
  pressPower(): Promise<void>
}

export type StartController<Controller extends LabController> = (
  t: Test,
  network: LabNetwork,
  folder: string,
  machine: LabMachine,
) => Promise<Controller>
