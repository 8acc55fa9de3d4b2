import { PowerState } from '@slipway/proto/provider/v1'
import { observedToProto, powerFromProto, powerToProto, type ObservedInit } from './convert.js'
import { ProviderError } from './errors.js'
import { rescueNow, toRescueWish, wishedRescue } from './rescue.js'
import { retryTransient } from './retry.js'
import type { Task } from './task.js'
import type { ObservedMachine, Power, PowerWish, RescueWish } from './types.js'
import { poll } from './work-context.js'

/** One machine as far as its power concerns. */
export interface PowerPort {
  readonly observe: () => Promise<ObservedMachine | undefined>
  /** Absent: the provider cannot switch power. */
  readonly power: ((wish: PowerWish) => Promise<void>) | undefined
  /** Absent: the provider has no rescue system. */
  readonly rescue: ((wish: RescueWish) => Promise<void>) | undefined
}

/** How long power may take to be seen as switched, once the provider said that it is. */
const settleTimeoutMs = 60_000

/** Whether something is to be done about power, or about the system that it brings up. */
export function needsPower(task: Task, port: PowerPort, machine: ObservedMachine | undefined): boolean {
  const wished = powerFromProto(task.wish.power)
  const now = powerNow(task, machine)
  const rescue = wished === 'off' ? 0n : wishedRescue(task)
  return (
    (wished !== undefined && now !== undefined && wished !== now) ||
    task.wish.reboots > rebootsDone(task) ||
    (port.rescue !== undefined && rescue !== rescueNow(task)) ||
    (port.rescue === undefined && rescue > 0n)
  )
}

/**
 * Brings power and the count of reboots to what is wished, and gives what is then to be reported. A wish to be off covers reboots that were not done yet: a machine
 * that is to be off has nothing to restart.
 */
export async function convergePower(
  task: Task,
  port: PowerPort,
  machine: ObservedMachine | undefined,
): Promise<ObservedInit> {
  const wished = powerFromProto(task.wish.power)
  const before = powerNow(task, machine)
  let seen = machine
  const switches = wished !== undefined && before !== wished && (before !== undefined || wished === 'off')
  const reboots = wished !== 'off' && task.wish.reboots > rebootsDone(task)
  // Said before it is done: what starts anew starts its own system, also where nobody lives to tell.
  if ((switches || reboots) && rescueNow(task) > 0n) await task.report({ observed: { rescue: 0n } })
  if (switches) seen = await switchPower(task, port, wished)
  if (reboots) seen = (await rebootAsWished(task, port)) ?? seen
  seen = (await convergeRescue(task, port, seen?.power ?? wished)) ?? seen
  const power = seen?.power ?? powerNow(task, seen) ?? wished
  const done = task.wish.reboots > rebootsDone(task) ? task.wish.reboots : rebootsDone(task)
  return { ...observedToProto(seen ?? {}), power: powerToProto(power), rebootsDone: done }
}

async function switchPower(task: Task, port: PowerPort, wished: Power): Promise<ObservedMachine | undefined> {
  await callPower(task, port, wished, `power ${wished}`)
  const seen = await poll(
    task,
    async () => {
      const machine = await port.observe()
      return machine?.power === undefined || machine.power === wished ? { machine } : undefined
    },
    { initialDelayMs: 250, maxDelayMs: 2_000, timeoutMs: settleTimeoutMs, what: `power to be seen ${wished}` },
  )
  const power = powerToProto(wished)
  await task.report({ observed: { ...observedToProto(seen.machine ?? {}), power } })
  return seen.machine
}

/** Brings the system that runs to what is wished. One that is off runs none, and is only seen to that it starts its own. */
async function convergeRescue(
  task: Task,
  port: PowerPort,
  power: Power | undefined,
): Promise<ObservedMachine | undefined> {
  const revision = power === 'off' ? 0n : wishedRescue(task)
  if (revision === rescueNow(task)) return undefined
  if (port.rescue === undefined) {
    if (revision === 0n) return undefined
    throw new ProviderError('INVALID_SPEC', 'this provider has no rescue system', { retryable: false })
  }
  const wish: RescueWish = revision === 0n ? { enabled: false } : toRescueWish(task)
  await task.begin('rescue', wish.enabled ? 'starting the rescue system' : "starting the machine's own system")
  await port.rescue(wish)
  await task.report({ observed: { rescue: revision } })
  task.signal.throwIfAborted()
  return retryTransient(task.signal, port.observe)
}

/** Each wish happens once over any number of retries: it is counted in the hub before the next one begins. */
async function rebootAsWished(task: Task, port: PowerPort): Promise<ObservedMachine | undefined> {
  let seen: ObservedMachine | undefined
  for (let done = rebootsDone(task); done < task.wish.reboots; done += 1n) {
    await callPower(task, port, 'reboot', `reboot ${done + 1n} of ${task.wish.reboots}`)
    await task.report({ observed: { rebootsDone: done + 1n } })
    task.signal.throwIfAborted()
    seen = await retryTransient(task.signal, port.observe)
  }
  return seen
}

async function callPower(task: Task, port: PowerPort, wish: PowerWish, message: string): Promise<void> {
  if (port.power === undefined) {
    throw new ProviderError('INVALID_SPEC', `this provider cannot switch power, so it cannot do: ${message}`, {
      retryable: false,
    })
  }
  await task.begin('power', message)
  await port.power(wish)
  task.signal.throwIfAborted()
}

/** What power is, as far as can be told: as seen just now, else as the hub knows it. */
function powerNow(task: Task, machine: ObservedMachine | undefined): Power | undefined {
  const known = task.item.observed.power
  return machine?.power ?? (known === PowerState.UNSPECIFIED ? undefined : powerFromProto(known))
}

function rebootsDone(task: Task): bigint {
  return task.item.observed.rebootsDone ?? 0n
}
