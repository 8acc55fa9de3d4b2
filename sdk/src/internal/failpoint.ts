import { sleep } from './timing.js'

/** The named moments at which a fault can be planted. */
export type FailpointName =
  | 'sdk.effect.before'
  | 'sdk.effect.after'
  | 'sdk.report.before'
  | 'sdk.report.after'
  | 'sdk.delete.before'
  | 'sdk.delete.after'
  | 'sdk.unmark.before'
  | 'sdk.unmark.after'

interface Fault {
  readonly kind: 'kill' | 'sleep'
  readonly delayMs: number
  /** The hit on which it strikes, from 1. */
  readonly onHit: number
  hits: number
}

const faults = parseFailpoints(process.env['SLIPWAY_FAILPOINTS'] ?? '')

/**
 * A moment at which tests can make the process die or stand still. Without SLIPWAY_FAILPOINTS in the environment it does nothing.
 *
 * SLIPWAY_FAILPOINTS is a comma-separated list of `name=fault`, or `name:N=fault` for the N-th hit alone (default: the first):
 * - `sdk.effect.before`, `sdk.effect.after`: just before a step's effect runs, after its intent was stored; just after it ran, before anything
 *   is reported. This is the gap in which something exists that no record knows.
 * - `sdk.report.before`, `sdk.report.after`: before an effect's result is reported; after the hub has stored it.
 * - `sdk.delete.before`, `sdk.delete.after`: around the provider's `delete` or `deprovision`.
 * - `sdk.unmark.before`, `sdk.unmark.after`: around taking the ownership key off a server that was to be adopted.
 *
 * Faults: `kill` (SIGKILL to this process), `sleep(ms)`.
 * Example: `SLIPWAY_FAILPOINTS=sdk.effect.after=kill`, `SLIPWAY_FAILPOINTS=sdk.effect.before:2=sleep(5000)`.
 */
export async function failpoint(name: FailpointName): Promise<void> {
  const fault = faults.get(name)
  if (fault === undefined) return
  fault.hits += 1
  if (fault.hits !== fault.onHit) return
  if (fault.kind === 'kill') process.kill(process.pid, 'SIGKILL')
  await sleep(fault.kind === 'kill' ? 60_000 : fault.delayMs)
}

/** Reads a list of faults. @throws Error that names the part that makes no sense: a fault test that plants nothing must not pass. */
export function parseFailpoints(text: string): Map<string, Fault> {
  const parsed = new Map<string, Fault>()
  for (const part of text.split(',').filter((entry) => entry.trim() !== '')) {
    // Those of the other side are its business.
    if (part.trim().startsWith('hub.')) continue
    const match =
      /^(sdk\.(?:effect|report|delete|unmark)\.(?:before|after))(?::([1-9]\d*))?=(kill|sleep\((\d+)\))$/.exec(
        part.trim(),
      )
    if (match === null) {
      throw new Error(`SLIPWAY_FAILPOINTS: "${part}" is not name[:N]=kill or name[:N]=sleep(ms) of a known name`)
    }
    parsed.set(match[1] ?? '', {
      kind: match[3] === 'kill' ? 'kill' : 'sleep',
      delayMs: Number(match[4] ?? 0),
      onHit: Number(match[2] ?? 1),
      hits: 0,
    })
  }
  return parsed
}
