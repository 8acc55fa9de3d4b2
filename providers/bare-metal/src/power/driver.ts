import type { BmcFacts as Facts } from './facts.js'
import type { UdpPort } from './ipmi/udp-port.js'
import type { BmcSecret, BmcSettings } from './settings.js'

export type BmcFacts = Facts

/** Power as it was read back. */
export type PowerState = 'on' | 'off' | 'unknown'

/**
 * - `on`, `off`: at once, without asking the operating system.
 * - `cycle`: off, a pause, and on. `reset`: without taking power away.
 * - `soft-off`: presses the power button for the operating system, which may take its time or ignore it.
 */
export type PowerAction = 'on' | 'off' | 'cycle' | 'reset' | 'soft-off'

export type BootDevice = 'network' | 'disk'
export type BootMode = 'uefi' | 'bios'

/** What came of a serial console. */
export interface ConsolePart {
  readonly bytes: Uint8Array
  /** The BMC dropped characters before these. */
  readonly lost: boolean
}

/**
 * One machine's BMC. A driver asks it one thing at a time, whoever calls; calls wait for each other. All failures are BmcErrors, or the
 * signal's reason once that has fired.
 *
 * Drivers do as told and believe what they are told: that a change has come about is seen by reading power afterwards, which
 * {@link PowerSupervisor.switchPower} does. Use the supervisor wherever there is one.
 */
export interface BmcDriver {
  readonly kind: BmcSettings['kind']
  /** Asks the BMC, each time anew. */
  readPower(signal: AbortSignal): Promise<PowerState>
  /** Asks for a change and returns when the BMC has accepted it. What is so already is no failure. */
  setPower(action: PowerAction, signal: AbortSignal): Promise<void>
  /** What the next boot, and only that one, starts from. It is read back where the BMC can be asked. */
  setBootOnce(device: BootDevice, mode: BootMode, signal: AbortSignal): Promise<void>
  /** Proves address, login and privilege, without any effect on the machine, and says who answered. */
  verify(signal: AbortSignal): Promise<BmcFacts>
  /** Follows the serial console from now on, until the signal fires. Absent: there is none. */
  openConsole?(signal: AbortSignal): AsyncIterable<ConsolePart>
  /** Inserts a boot image and boots from it once. Absent: it has no virtual media. */
  insertMedia?(imageUrl: string, signal: AbortSignal): Promise<void>
  ejectMedia?(signal: AbortSignal): Promise<void>
  /** Logs out and frees sockets. Calls under way fail. */
  close(): Promise<void>
}

/** What drivers share, and what the process around them gives. All of it is optional. */
export interface BmcEnvironment {
  /** How the machine is called in messages. Default: its BMC's address. */
  readonly name?: string
  /** Whether a BMC may have this IP address. Default: {@link isPlausibleBmcAddress}. */
  readonly allowAddress?: (ip: string) => boolean
  /** For `manual`: what is known of the machine from elsewhere (a person's word, its agent). */
  readonly witness?: PowerWitness
  /** For `ipmi`: sockets shared by many drivers, and closed by whoever made them. Default: one of its own. */
  readonly udpPort?: UdpPort
}

/** Somebody who knows whether a machine is on without a BMC. */
export interface PowerWitness {
  power(): PowerState
  /** The boot device that was last confirmed as chosen for the next boot. */
  bootOnce(): { readonly device: BootDevice; readonly mode: BootMode } | undefined
}

/** How drivers are made: see createBmcDriver in create-driver.ts. It does no input or output before the driver's first call. */
export type CreateBmcDriver = (settings: BmcSettings, secret: BmcSecret, environment?: BmcEnvironment) => BmcDriver

/** What the supervisor is to watch. */
export interface SupervisedMachine {
  /** The machine's external id. */
  readonly id: string
  readonly settings: BmcSettings
  readonly secret: BmcSecret
  readonly witness?: PowerWitness
}

/** What power should be. `any`: only looked at, as for machines in maintenance, on hold, or of unknown purpose. */
export type WantedPower = 'on' | 'off' | 'any'

/** What is known of one machine's power now. */
export interface PowerView {
  readonly id: string
  readonly wanted: WantedPower
  /** As last read; `unknown` before the first reading, and while the BMC cannot be asked. */
  readonly power: PowerState
  /** When power was last read, in ms since the epoch. Absent: never. */
  readonly readAtMs?: number
  /** The failure of the last try; absent where it went well. */
  readonly error?: { readonly kind: string; readonly message: string; readonly sinceMs: number; readonly times: number }
  /**
   * Somebody else changes power against what is wanted, and we have stopped doing so: the machine belongs in maintenance. Ends when the
   * wish changes, when power is as wanted again, or by {@link PowerSupervisor.resume}.
   */
  readonly contested: boolean
}

/**
 * - `changed-outside`: power changed, and not by us.
 * - `corrected`: found on and wanted off, and switched off.
 * - `contested`: changed again and again; we leave it alone from here on.
 * - `correction-delayed`: to be corrected, but more than the cap of one pass were; a later pass does it.
 * - `ignored`: the BMC accepted a change and did nothing.
 * - `failing`, `recovered`: the BMC stopped or began to answer (or to accept our login).
 */
export interface PowerEvent {
  readonly kind:
    'changed-outside' | 'corrected' | 'contested' | 'correction-delayed' | 'ignored' | 'failing' | 'recovered'
  readonly id: string
  readonly atMs: number
  readonly message: string
  readonly from?: PowerState
  readonly to?: PowerState
  /** For `failing` and `ignored`. */
  readonly errorKind?: string
}

/**
 * Watches the power of a fleet. Each BMC is asked one thing at a time, many at once, and one that is sick is asked less and less often and
 * delays no other. Work that somebody waits for goes before the watching.
 */
export interface PowerSupervisor {
  /** Watches a machine, or takes over new settings of one that is watched already. */
  add(machine: SupervisedMachine): void
  remove(id: string): Promise<void>
  /** The ids of all machines that are watched. */
  ids(): readonly string[]
  /** Says how power should be already. Where it is found otherwise, somebody else changed it; use `switchPower` to change it. */
  setWanted(id: string, wanted: WantedPower): void
  /** Takes up the correction of a contested machine again. */
  resume(id: string): void
  view(id: string): PowerView | undefined
  views(): readonly PowerView[]
  onEvent(listener: (event: PowerEvent) => void): () => void

  /** Asks the BMC now. */
  readPower(id: string, signal: AbortSignal): Promise<PowerState>
  /**
   * Brings power to what is asked and returns when it was read back. `reboot` switches off and on again, each read back; `soft-off` asks the
   * operating system, gives it time, and then switches off. What is wanted follows from the first moment on, unless it is `any`.
   * @throws BmcError of kind `ignored` where the BMC accepted it and nothing happened.
   */
  switchPower(id: string, wish: 'on' | 'off' | 'reboot' | 'soft-off', signal: AbortSignal): Promise<void>
  setBootOnce(id: string, device: BootDevice, mode: BootMode, signal: AbortSignal): Promise<void>
  verify(id: string, signal: AbortSignal): Promise<BmcFacts>
  /** Whatever else is to be done with the BMC, while nobody else talks to it. */
  withDriver<Result>(
    id: string,
    signal: AbortSignal,
    work: (driver: BmcDriver, signal: AbortSignal) => Promise<Result>,
  ): Promise<Result>
  /** Follows the serial console, beside all other work. Absent: its driver has none. */
  openConsole(id: string, signal: AbortSignal): AsyncIterable<ConsolePart> | undefined

  /** Begins to watch. */
  start(): void
  /** Stops watching, lets what is under way end or fail, and closes all drivers. */
  stop(): Promise<void>
}
