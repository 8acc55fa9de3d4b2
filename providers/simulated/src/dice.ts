import { createHash } from 'node:crypto'
import type { DurationSetting } from './config.js'

/** Random choices that follow from the world's seed and the number of the call alone, whichever process makes it. */
export interface Dice {
  /** True in `rate` of all cases. */
  happens(what: string, rate: number): boolean
  /** Milliseconds: as set, or drawn between the two bounds. */
  duration(what: string, setting: DurationSetting): number
}

/** Dice for the `count`-th call of a kind. */
export function diceFor(seed: number, call: string, count: number): Dice {
  const draw = (what: string) => {
    const digest = createHash('sha256').update(`${seed}/${call}/${count}/${what}`).digest()
    return digest.readUInt32BE(0) / 2 ** 32
  }
  return {
    happens: (what, rate) => rate > 0 && draw(what) < rate,
    duration: (what, setting) =>
      typeof setting === 'number' ? setting : Math.round(setting.minMs + draw(what) * (setting.maxMs - setting.minMs)),
  }
}
