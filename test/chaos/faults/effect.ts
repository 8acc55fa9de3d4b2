import { setTimeout as sleep } from 'node:timers/promises'
import type { Fault } from '../kinds.js'
import type { World } from '../world.js'

/** What became of an injected fault: whether it was seen to take effect, and by what. */
export interface Effect {
  readonly effective: boolean
  readonly evidence: string
}

/** Injects a fault, lets it last, heals it, and says what was seen. @param signal ends it early. */
export type Injector = (world: World, fault: Fault, signal: AbortSignal) => Promise<Effect>

/** Waits, but not past the signal. */
export async function last(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => undefined)
}

/** The word by which histories name a fault as the cause of something. */
export function causeOf(fault: Fault): string {
  return `fault ${fault.id} ${fault.kind}`
}
