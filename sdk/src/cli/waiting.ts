import { setTimeout as sleep } from 'node:timers/promises'
import { SlipwayError } from '../client/errors.js'
import { CliError, exitCodes, usageError } from './failure.js'
import { formatSpan, parseSpan } from './format.js'
import { idOf, type Common, type ResourceType } from './resource-type.js'
import { conditionIs } from './resources.js'
import type { Session } from './session.js'

const lookEveryMs = 250

/** One thing to wait for. */
export interface Goal {
  readonly text: string
  /** Undefined: there is no such resource. */
  readonly met: (type: ResourceType, resource: Common | undefined) => boolean
}

/** Reads `ready`, `released`, `deleted`, `state=X` or `condition=Type[=True]`. @throws CliError. */
export function parseGoal(text: string): Goal {
  const [word = '', ...rest] = text.split('=')
  const value = rest.join('=')
  if (text === 'ready')
    return { text, met: (type, resource) => resource !== undefined && type.ready.includes(type.state(resource)) }
  if (text === 'deleted' || text === 'released') {
    return {
      text,
      met: (type, resource) => resource === undefined || ['RELEASED', 'GONE'].includes(type.state(resource)),
    }
  }
  if (word === 'state' && value !== '')
    return { text, met: (type, resource) => resource !== undefined && type.state(resource) === value.toUpperCase() }
  if (word === 'condition' && rest[0] !== undefined && rest[0] !== '') {
    const [type, status = 'True'] = rest
    return { text, met: (_, resource) => resource !== undefined && conditionIs(resource, type, status) }
  }
  throw usageError(
    `--for ${text} is not known; there are ready, released, deleted, state=STATE, condition=TYPE[=STATUS]`,
  )
}

/** @throws CliError. */
export function parseTimeout(text: string): number {
  const ms = parseSpan(text)
  if (ms === undefined) throw usageError(`--timeout ${text} is no time; write it like 90s, 10m or 1h30m`)
  return ms
}

export interface WaitOrder {
  readonly type: ResourceType
  readonly name: string
  readonly goals: readonly Goal[]
  readonly deadline: number
  readonly timeoutMs: number
  /** Called with whatever is seen, changed or not. */
  readonly seen?: (resource: Common) => void
}

/**
 * Waits until all goals are met. What does not exist yet is waited for too; what has failed for good is not.
 *
 * @throws CliError when the time is up, or nothing more can come.
 */
export async function waitFor(session: Session, order: WaitOrder): Promise<Common | undefined> {
  const { type, name, goals } = order
  const client = await session.client()
  const { signal } = session.surroundings
  let existed = false
  for (;;) {
    if (signal.aborted) throw new CliError(exitCodes.interrupted, 'stopped waiting; what was asked for goes on')
    const resource = await look(() => type.get(client, name))
    if (resource !== undefined) {
      existed = true
      order.seen?.(resource)
    }
    if (goals.every((goal) => goal.met(type, resource))) return resource
    refuseHopeless(order, resource, existed)
    if (performance.now() > order.deadline) {
      const state = resource === undefined ? 'does not exist' : `is ${type.state(resource)}`
      throw new CliError(
        exitCodes.timedOut,
        `${type.singular}/${idOf(name)} ${state} after ${formatSpan(order.timeoutMs)}; waited for ${goals.map((goal) => goal.text).join(', ')}`,
      )
    }
    await sleep(lookEveryMs, undefined, { signal }).catch(() => undefined)
  }
}

async function look(get: () => Promise<Common>): Promise<Common | undefined> {
  try {
    return await get()
  } catch (error) {
    if (error instanceof SlipwayError && error.notFound) return undefined
    // A hub that is away for a moment is waited for, within the deadline of the wait.
    if (error instanceof SlipwayError && error.unavailable) return undefined
    throw error
  }
}

function refuseHopeless({ type, name, goals }: WaitOrder, resource: Common | undefined, existed: boolean): void {
  if (resource === undefined) {
    if (!existed || goals.some((goal) => goal.text === 'deleted' || goal.text === 'released')) return
    // It was there and may be again: only the deadline ends that.
    return
  }
  const state = type.state(resource)
  const wantsEnd = goals.some((goal) =>
    ['deleted', 'released', `state=${state}`, `state=${state.toLowerCase()}`].includes(goal.text),
  )
  if (!type.terminal.includes(state) || wantsEnd) return
  const error = resource.lastError
  const why = error === undefined ? '' : `: ${error.message} (${error.attempts} attempts)`
  throw new CliError(exitCodes.terminal, `${type.singular}/${idOf(name)} is ${state}${why}`)
}
