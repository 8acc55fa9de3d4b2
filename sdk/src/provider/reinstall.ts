import { Presence } from '@slipway/proto/provider/v1'
import { monotonicMs, sleep } from '../internal/timing.js'
import { observedToProto, type ObservedInit } from './convert.js'
import { ProviderError } from './errors.js'
import { checkedSpec } from './order.js'
import { convergePower, needsPower, type PowerPort } from './power.js'
import { retryTransient } from './retry.js'
import type { AnyDefinition } from './settings.js'
import { doubtEnd } from './steps.js'
import type { Task } from './task.js'
import type { MachineSpec, ObservedMachine, WorkContext } from './types.js'
import { makeWorkContext } from './work-context.js'

/** The step by which all know that whatever an earlier wish had begun is over; authors' names cannot be this. */
const begunStep = 'sdk-begun'

/** One machine as far as its reinstalling concerns. */
export interface ReinstallPort {
  readonly power: PowerPort
  /** Absent: the provider cannot. */
  readonly reinstall:
    | ((context: WorkContext<unknown, unknown>, which: number, spec: MachineSpec<unknown>) => Promise<ObservedMachine>)
    | undefined
  /** The machine was looked for, and is not there. */
  readonly vanished: (externalId: string) => Promise<ProviderError>
}

/** Puts a new system on a machine that is kept: once for the wish that is the newest, whatever became of those before it. */
export async function convergeReinstall(task: Task, definition: AnyDefinition, port: ReinstallPort): Promise<void> {
  const { item, wish } = task
  const { externalId } = item.observed
  if (port.reinstall === undefined)
    throw new ProviderError('INVALID_SPEC', 'this provider cannot put a new system on a machine that it keeps', {
      retryable: false,
    })
  const isFirst = !item.steps.has(begunStep)
  if (isFirst) await begin(task, definition, port)
  const askProvider = isFirst || (item.steps.size === 1 && !item.inDoubt)
  const spec = await checkedSpec(task, definition, { askProvider, reinstall: { externalId } })
  await task.begin('reinstall', 'putting a new system on the machine')
  const made = { power: 'on' as const, ...(await port.reinstall(makeWorkContext(task), Number(wish.reinstalls), spec)) }
  task.signal.throwIfAborted()
  if (made.externalId !== externalId)
    throw new ProviderError(
      'INTERNAL',
      `reinstall gave machine "${made.externalId}" for ${externalId}; it must keep it`,
      {
        retryable: false,
      },
    )
  item.doubts.clear()
  item.inheritedDoubt = undefined
  const observed: ObservedInit = {
    ...observedToProto(made),
    presence: Presence.PRESENT,
    createInDoubt: false,
    reinstallsDone: wish.reinstalls,
    // Whatever it ran before is not on it any more.
    ...(port.power.rescue !== undefined && { rescue: 0n }),
  }
  if (!needsPower(task, port.power, made)) return task.complete({ ...observed, generation: wish.generation })
  await task.complete(observed)
  await task.settle(await convergePower(task, port.power, made))
}

/**
 * Before anything is done for a wish: the machine must be there, and what was begun for an earlier wish must not be able to land any more. Else it could wipe
 * what this one sets up, or be taken for it.
 */
async function begin(task: Task, definition: AnyDefinition, { power, vanished }: ReinstallPort): Promise<void> {
  const { item } = task
  task.currentStep = 'observe'
  if ((await retryTransient(task.signal, power.observe)) === undefined) throw await vanished(item.observed.externalId)
  const waitMs = doubtEnd(item, definition) - monotonicMs()
  if (waitMs > 0) {
    const message = 'what an earlier wish began may still be under way; waiting until it cannot be'
    item.tell({ generation: task.wish.generation, progress: { step: 'reinstall', message } })
    await sleep(waitMs, task.signal)
  }
  item.doubts.clear()
  item.inheritedDoubt = undefined
  await task.store(begunStep, true, { observed: { createInDoubt: false } })
}
