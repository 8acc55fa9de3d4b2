import { PowerState } from '@slipway/proto/provider/v1'
import { observedToProto, powerFromProto, powerToProto, type ObservedInit } from './convert.js'
import { ProviderError } from './errors.js'
import { retryTransient } from './retry.js'
import type { Task } from './task.js'
import type { ObservedMachine, Power, PowerWish } from './types.js'
import { poll } from './work-context.js'

/** One machine as far as its power concerns. */
export interface PowerPort {
  readonly observe: () => Promise<ObservedMachine | undefined>
  /** Absent: the provider cannot switch power. */
  readonly power: ((wish: PowerWish) => Promise<void>) | undefined
}

/** How long power may take to be seen as switched, once the provider said that it is. */
const settleTimeoutMs = 60_000

/** Whether something is to be done about power. */
export function needsPower(task: Task, machine: ObservedMachine | undefined): boolean {
  const wished = powerFromProto(task.wish.power)
  const now = powerNow(task, machine)
  return (wished !== undefined && now !== undefined && wished !== now) || task.wish.reboots > rebootsDone(task)
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
  if (wished !== undefined && before !== wished && (before !== undefined || wished === 'off'))
    seen = await switchPower(task, port, wished)
  if (wished !== 'off') seen = (await rebootAsWished(task, port)) ?? seen
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
