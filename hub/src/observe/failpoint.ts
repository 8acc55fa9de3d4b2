import { setTimeout as sleep } from 'node:timers/promises'

/** What a transaction is for, where it makes something durable that somebody is told of after. */
export const transactionPoints = [
  'order',
  'enrol',
  'session-open',
  'session-end',
  'claim',
  'wish',
  'report',
  'listing',
  'health',
  'reconcile',
  'sweep',
  'phone-home',
] as const

export type TransactionPoint = (typeof transactionPoints)[number]

/**
 * The moments at which a fault can be planted: on either side of every point at which the hub makes something durable or tells somebody of it.
 *
 * - `hub.<what>.before-commit`: all is written, and nothing committed; where it is one statement, it is about to be sent.
 * - `hub.<what>.after-commit`: it is committed, and nobody told: no answer, no acknowledgement, no Welcome, no Claimed, no wake-up.
 * - `hub.heartbeat.before-store`, `hub.heartbeat.after-store`: on either side of extending leases.
 * - `hub.wake.before-notify`: a wake-up is about to be sent to the other replicas.
 */
export type FailpointName =
  | `hub.${TransactionPoint}.${'before' | 'after'}-commit`
  | 'hub.heartbeat.before-store'
  | 'hub.heartbeat.after-store'
  | 'hub.wake.before-notify'

export const failpointNames: readonly FailpointName[] = [
  ...transactionPoints.flatMap((point) => [`hub.${point}.before-commit`, `hub.${point}.after-commit`] as const),
  'hub.heartbeat.before-store',
  'hub.heartbeat.after-store',
  'hub.wake.before-notify',
]

type Fault = { readonly kind: 'kill' | 'stop' | 'error' } | { readonly kind: 'sleep'; readonly ms: number }

interface Planted {
  readonly fault: Fault
  /** The hit on which it strikes, from 1; 0: on each. */
  readonly onHit: number
  hits: number
}

/** What a planted `error` throws. */
export class PlantedFault extends Error {
  override readonly name = 'PlantedFault'
}

const faults = parseFailpoints(process.env['SLIPWAY_FAILPOINTS'] ?? '')
const nothing = Promise.resolve()

/**
 * A moment at which tests can make the process die, stand still or fail. Without SLIPWAY_FAILPOINTS in the environment it costs one comparison.
 *
 * SLIPWAY_FAILPOINTS is a comma-separated list of `name=fault`, or `name:N=fault` for the N-th hit alone (default: the first; `name:*=fault`: each). Faults:
 * `kill` (SIGKILL to this process), `stop` (SIGSTOP, until somebody continues it), `sleep(ms)`, `error`. Names that are not the hub's are left to others.
 */
export function failpoint(name: FailpointName): Promise<void> {
  return faults.size === 0 ? nothing : strike(name)
}

async function strike(name: FailpointName): Promise<void> {
  const point = faults.get(name)
  if (point === undefined) return
  point.hits += 1
  if (point.onHit !== 0 && point.hits !== point.onHit) return
  const { fault } = point
  switch (fault.kind) {
    case 'kill':
      process.kill(process.pid, 'SIGKILL')
      await sleep(60_000)
      return
    case 'stop':
      process.kill(process.pid, 'SIGSTOP')
      return
    case 'sleep':
      await sleep(fault.ms)
      return
    case 'error':
      throw new PlantedFault(`planted at ${name}`)
  }
}

/** Reads a list of faults. @throws Error that names the part that makes no sense: a fault test that plants nothing must not pass. */
export function parseFailpoints(text: string): Map<string, Planted> {
  const parsed = new Map<string, Planted>()
  for (const part of text.split(',').map((entry) => entry.trim())) {
    if (!part.startsWith('hub.')) continue
    const match = /^([a-z.-]+)(?::([1-9]\d*|\*))?=(?:(kill|stop|error)|sleep\((\d+)\))$/.exec(part)
    const name = match?.[1] ?? ''
    if (match === null || !(failpointNames as readonly string[]).includes(name)) {
      throw new Error(
        `SLIPWAY_FAILPOINTS: "${part}" is not name[:N]=kill, =stop, =error or =sleep(ms) of one of ${failpointNames.join(', ')}`,
      )
    }
    const kind = match[3] as 'kill' | 'stop' | 'error' | undefined
    parsed.set(name, {
      fault: kind === undefined ? { kind: 'sleep', ms: Number(match[4]) } : { kind },
      onHit: match[2] === '*' ? 0 : Number(match[2] ?? 1),
      hits: 0,
    })
  }
  return parsed
}
