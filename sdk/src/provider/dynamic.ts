import { Operation, Presence } from '@slipway/proto/provider/v1'
import { failpoint } from '../internal/failpoint.js'
import { monotonicMs, sleep } from '../internal/timing.js'
import { adoptServer, leaveServer } from './adopt-server.js'
import { observedToProto, type ObservedInit } from './convert.js'
import { ProviderError } from './errors.js'
import { checkedSpec, wireSpec } from './order.js'
import { convergePower, needsPower, type PowerPort } from './power.js'
import { convergeReinstall } from './reinstall.js'
import { retryTransient } from './retry.js'
import { doubtEnd } from './steps.js'
import type { Task } from './task.js'
import type { DynamicDefinition, ObservedMachine } from './types.js'
import { makeWorkContext } from './work-context.js'
import { begunObserved } from './work-item.js'

type Definition = DynamicDefinition<unknown, unknown, unknown>

/** Makes what is wished of a machine request true, for a provider that creates and deletes. */
export async function convergeDynamic(task: Task, definition: Definition): Promise<void> {
  switch (task.wish.operation) {
    case Operation.PROVISION:
      return provision(task, definition)
    case Operation.REINSTALL:
      return task.completed ? keepUp(task, definition) : reinstall(task, definition)
    case Operation.DEPROVISION:
      return deprovision(task, definition)
    case Operation.ADOPT:
      return task.completed ? keepUp(task, definition) : adoptServer(task, definition)
    case Operation.UNADOPT:
      return leaveServer(task, definition)
    case Operation.UNSPECIFIED:
      return task.wish.presence === Presence.PRESENT ? keepUp(task, definition) : task.settle({})
    default:
      throw new ProviderError('INTERNAL', `operation ${Operation[task.wish.operation]} is not for a dynamic provider`, {
        retryable: false,
      })
  }
}

async function provision(task: Task, definition: Definition): Promise<void> {
  if (task.completed) return keepUp(task, definition)
  const machine = (await adopt(task, definition)) ?? (await make(task, definition))
  task.item.doubts.clear()
  task.item.inheritedDoubt = undefined
  // What was just made is on, unless it says otherwise.
  const made = { power: 'on' as const, ...machine }
  const observed = { ...presentOf(made), createInDoubt: false }
  const port = portOf(task, definition, made.externalId)
  if (!needsPower(task, port, made)) return task.complete({ ...observed, generation: task.wish.generation })
  await task.complete(observed)
  await task.settle(await convergePower(task, port, made))
}

async function reinstall(task: Task, definition: Definition): Promise<void> {
  const { externalId } = task.item.observed
  return convergeReinstall(task, definition, {
    power: portOf(task, definition, externalId),
    reinstall:
      definition.reinstall === undefined
        ? undefined
        : async (context, which, spec) => {
            const machine = await definition.reinstall?.(context, { externalId, reinstall: which }, spec)
            return machine ?? { externalId }
          },
    vanished: () => vanished(task, externalId),
  })
}

/** A machine that is there under a known id, with no step to go on from, was made by a create that got that far: it is not made again. */
async function adopt(task: Task, definition: Definition): Promise<ObservedMachine | undefined> {
  const { externalId } = task.item.observed
  if (externalId === '') return undefined
  task.currentStep = 'observe'
  const machine = await lookBeyondLag(task, definition, externalId)
  const underWay = task.item.steps.size > 0 || task.item.inDoubt
  if (machine === undefined && underWay) throw await vanished(task, externalId)
  return underWay ? undefined : machine
}

async function make(task: Task, definition: Definition): Promise<ObservedMachine> {
  const firstEver = task.item.steps.size === 0 && task.item.observed.externalId === ''
  const spec = await checkedSpec(task, definition, { askProvider: firstEver })
  await task.begin('create', 'creating the machine', begunObserved)
  const machine = await definition.create(makeWorkContext(task), spec)
  task.signal.throwIfAborted()
  if (machine.externalId === '') throw new ProviderError('INTERNAL', 'create gave a machine without an external id')
  return machine
}

/** The machine was made before: its power is looked after, and that it is still there. */
async function keepUp(task: Task, definition: Definition): Promise<void> {
  const { externalId } = task.item.observed
  task.currentStep = 'observe'
  const port = portOf(task, definition, externalId)
  const machine = await retryTransient(task.signal, port.observe)
  if (machine === undefined) throw await vanished(task, externalId)
  await task.settle({ ...presentOf(machine), ...(await convergePower(task, port, machine)) })
}

async function deprovision(task: Task, definition: Definition): Promise<void> {
  const { item } = task
  if (!task.completed && !item.untouched) {
    const coveredAtMs = Math.max(doubtEnd(task.item, definition), listedAt(task, definition))
    await callDelete(task, definition)
    if (coveredAtMs > monotonicMs()) {
      // A create that is still under way could land behind the delete, and one that is done may not be listed yet.
      const message = 'what an earlier create made may not be seen yet; waiting until it must be, to delete it too'
      item.tell({ generation: task.wish.generation, progress: { step: 'delete', message } })
      await sleep(coveredAtMs - monotonicMs(), task.signal)
      await callDelete(task, definition)
    }
    item.doubts.clear()
    item.inheritedDoubt = undefined
  }
  await task.complete({ presence: Presence.ABSENT, createInDoubt: false, generation: task.wish.generation })
}

async function callDelete(task: Task, definition: Definition): Promise<void> {
  const { ownershipKey, name } = wireSpec(task)
  const { externalId } = task.item.observed
  await task.begin('delete', 'deleting the machine')
  await failpoint('sdk.delete.before')
  await definition.delete(makeWorkContext(task), { ownershipKey, name, ...(externalId !== '' && { externalId }) })
  await failpoint('sdk.delete.after')
  task.signal.throwIfAborted()
}

/** When what was made last shows in a listing. 0: its id is known, and nothing depends on listings. */
function listedAt({ item }: Task, definition: Definition): number {
  return item.observed.externalId === '' ? item.lastMadeAtMs + (definition.listingLagMs ?? 0) : 0
}

function portOf(task: Task, definition: Definition, externalId: string): PowerPort {
  return {
    observe: async () => (externalId === '' ? undefined : definition.observe(task.context(), externalId)),
    power:
      definition.power === undefined
        ? undefined
        : async (wish) => definition.power?.(makeWorkContext(task, 'unstored'), externalId, wish),
    rescue:
      definition.rescue === undefined
        ? undefined
        : async (wish) => definition.rescue?.(makeWorkContext(task, 'unstored'), externalId, wish),
  }
}

/** "Not seen yet" is not "not there": what was made a moment ago gets the time that it may take to show. */
async function lookBeyondLag(
  task: Task,
  definition: Definition,
  externalId: string,
): Promise<ObservedMachine | undefined> {
  const look = (): Promise<ObservedMachine | undefined> =>
    retryTransient(task.signal, () => definition.observe(task.context(), externalId))
  const machine = await look()
  const lagMs = definition.listingLagMs ?? 0
  if (machine !== undefined || lagMs === 0) return machine
  await sleep(lagMs, task.signal)
  return look()
}

async function vanished(task: Task, externalId: string): Promise<ProviderError> {
  await task.report({ observed: { presence: Presence.ABSENT } })
  return new ProviderError(
    'INTERNAL',
    `the machine ${externalId || '(no id known)'} is gone: it was looked for and not found`,
    { retryable: false },
  )
}

function presentOf(machine: ObservedMachine): ObservedInit {
  return { ...observedToProto(machine), presence: Presence.PRESENT }
}
