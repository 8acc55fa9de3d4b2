import { ConsoleRefused, type ConsoleChunk, type ConsoleWish } from '@slipway/sdk'
import type { Config } from './config.js'
import type { Site } from './site.js'

type Consoles = Pick<Site, 'consoles' | 'serialLines'>

/**
 * Shows a machine's console: what its agent told of it, or what comes over its serial line.
 *
 * @throws ConsoleRefused where there is none, or somebody else has it; BmcError; the signal's reason.
 */
export async function* showConsole(
  { consoles, serialLines }: Consoles,
  source: Config['console'],
  machineId: string,
  wish: ConsoleWish,
  signal: AbortSignal,
): AsyncGenerator<ConsoleChunk> {
  if (source === 'sol' && !wish.follow && !serialLines.holds(machineId))
    throw new ConsoleRefused('absent', 'its console is the serial line of its BMC, which shows what comes: follow it')
  // Who comes back goes on with what was shown before.
  const wasAgent = wish.after !== undefined && !wish.after.log.startsWith('sol-')
  if (source === 'agent' || (source === 'auto' && (!wish.follow || wasAgent)))
    yield* consoles.read(machineId, wish, signal)
  else if (!wish.follow) yield* serialLines.kept(machineId, wish)
  else yield* followLine(consoles, serialLines, source, machineId, wish, signal)
}

/** Follows the serial line, and where there is none and need be none, the agent's log. */
async function* followLine(
  consoles: Site['consoles'],
  serialLines: Site['serialLines'],
  source: Config['console'],
  machineId: string,
  wish: ConsoleWish,
  signal: AbortSignal,
): AsyncGenerator<ConsoleChunk> {
  try {
    yield* serialLines.follow(machineId, wish, signal)
    return
  } catch (error) {
    if (source === 'sol' || !(error instanceof ConsoleRefused) || error.why !== 'absent') throw error
  }
  yield* consoles.read(machineId, wish, signal)
}
