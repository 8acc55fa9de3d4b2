import type { BmcDriver, PowerState } from './driver.js'
import { BmcError, isBmcError } from './errors.js'
import { pause } from './waiting.js'

/** How long changes may take until they are seen. */
export interface SwitchPatience {
  /** From a BMC's yes to power being read as asked. */
  readonly settleMs: number
  /** What an operating system may take to shut itself down. */
  readonly softOffMs: number
  /** Between two readings at most. */
  readonly maxPauseMs: number
}

export const defaultSwitchPatience: SwitchPatience = { settleMs: 45_000, softOffMs: 90_000, maxPauseMs: 2_000 }

const firstPauseMs = 100

/**
 * Switches and reads back until it is so. What is so already is not touched.
 * @throws BmcError `ignored` where the BMC accepted it and power stayed as it was.
 */
export async function bringPower(
  driver: BmcDriver,
  wanted: 'on' | 'off',
  patience: SwitchPatience,
  signal: AbortSignal,
): Promise<void> {
  if ((await driver.readPower(signal)) === wanted) return
  await driver.setPower(wanted, signal)
  const seen = await awaitPower(driver, wanted, patience.settleMs, patience, signal)
  if (seen === wanted) return
  const seconds = Math.round(patience.settleMs / 1_000)
  throw new BmcError('ignored', `the BMC accepted power ${wanted}, and ${seconds} s later the machine is still ${seen}`)
}

/** Off and on, each read back, so that no reboot is believed that did not happen. A machine that is off is switched on. */
export async function rebootMachine(driver: BmcDriver, patience: SwitchPatience, signal: AbortSignal): Promise<void> {
  await bringPower(driver, 'off', patience, signal)
  await bringPower(driver, 'on', patience, signal)
}

/** Asks the operating system to shut down, gives it time, and takes the power away where that did not help. */
export async function softOff(driver: BmcDriver, patience: SwitchPatience, signal: AbortSignal): Promise<void> {
  if ((await driver.readPower(signal)) === 'off') return
  try {
    await driver.setPower('soft-off', signal)
    if ((await awaitPower(driver, 'off', patience.softOffMs, patience, signal)) === 'off') return
  } catch (error) {
    if (!isBmcError(error, 'unsupported', 'refused')) throw error
  }
  await bringPower(driver, 'off', patience, signal)
}

/** Reads power until it is as wanted or the time is over. A reading that fails for the moment is repeated. @returns what was read last. */
async function awaitPower(
  driver: BmcDriver,
  wanted: PowerState,
  timeoutMs: number,
  { maxPauseMs }: SwitchPatience,
  signal: AbortSignal,
): Promise<PowerState> {
  const deadline = performance.now() + timeoutMs
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(maxPauseMs, pauseMs * 1.5)) {
    const power = await driver.readPower(signal).catch((error: unknown): PowerState => {
      if (!isBmcError(error, 'unreachable', 'busy') || performance.now() > deadline) throw error
      return 'unknown'
    })
    if (power === wanted || performance.now() > deadline) return power
    await pause(pauseMs, signal)
  }
}
