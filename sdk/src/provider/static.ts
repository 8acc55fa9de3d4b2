import { Operation, Presence } from '@slipway/proto/provider/v1'
import { failpoint } from '../internal/failpoint.js'
import { monotonicMs, sleep } from '../internal/timing.js'
import { hardwareToProto, observedToProto, staticMachineFromProto, type ObservedInit } from './convert.js'
import { ProviderError } from './errors.js'
import { checkedSpec, wireMachine } from './order.js'
import { convergePower, needsPower, type PowerPort } from './power.js'
import { convergeReinstall } from './reinstall.js'
import { retryTransient } from './retry.js'
import { doubtEnd } from './steps.js'
import type { Task } from './task.js'
import type { ObservedMachine, StaticDefinition, StaticMachine } from './types.js'
import { makeWorkContext } from './work-context.js'
import { begunObserved } from './work-item.js'

type Definition = StaticDefinition<unknown, unknown, unknown>

/** Makes what is wished true, for a provider of machines that exist already: of a request with its allocated machine, or of a machine for itself. */
export async function convergeStatic(task: Task, definition: Definition): Promise<void> {
  const machine = staticMachineFromProto(wireMachine(task))
  const finished = task.completed && task.wish.operation !== Operation.DEPROVISION
  if (finished || task.wish.operation === Operation.UNSPECIFIED) return keepUp(task, definition, machine)
  switch (task.wish.operation) {
    case Operation.PROVISION:
      return provision(task, definition, machine)
    case Operation.REINSTALL:
      return reinstall(task, definition, machine)
    case Operation.DEPROVISION:
      return deprovision(task, definition, machine)
    case Operation.VERIFY:
      return finish(
        task,
        definition,
        machine,
        await run(task, 'verify', () => definition.verify?.(makeWorkContext(task), machine)),
      )
    case Operation.INSPECT:
      return finish(task, definition, machine, await inspect(task, definition, machine))
    case Operation.CLEAN:
      return clean(task, definition, machine)
    case Operation.ADOPT:
      return adopt(task, definition, machine)
    case Operation.POWER:
      return finish(task, definition, machine, {})
    case Operation.UNADOPT:
      throw new ProviderError('INTERNAL', 'operation UNADOPT is not for a static provider', { retryable: false })
  }
}

async function provision(task: Task, definition: Definition, machine: StaticMachine): Promise<void> {
  const spec = await checkedSpec(task, definition, { askProvider: task.item.steps.size === 0 })
  await task.begin('provision', 'provisioning the machine', begunObserved)
  const made = { power: 'on' as const, ...(await definition.provision(makeWorkContext(task), machine, spec)) }
  task.signal.throwIfAborted()
  task.item.doubts.clear()
  task.item.inheritedDoubt = undefined
  const observed: ObservedInit = { ...observedToProto(made), presence: Presence.PRESENT, createInDoubt: false }
  const port = portOf(task, definition, machine)
  if (!needsPower(task, port, made)) return task.complete({ ...observed, generation: task.wish.generation })
  await task.complete(observed)
  await task.settle(await convergePower(task, port, made))
}

async function reinstall(task: Task, definition: Definition, machine: StaticMachine): Promise<void> {
  return convergeReinstall(task, definition, {
    power: portOf(task, definition, machine),
    reinstall:
      definition.reinstall === undefined
        ? undefined
        : async (context, which, spec) => {
            const made = await definition.reinstall?.(context, { ...machine, reinstall: which }, spec)
            return made ?? { externalId: machine.externalId }
          },
    vanished: (externalId) => Promise.resolve(missing(externalId)),
  })
}

async function deprovision(task: Task, definition: Definition, machine: StaticMachine): Promise<void> {
  const port = portOf(task, definition, machine)
  const { item } = task
  const nothingToDo = task.completed || item.untouched
  let power: ObservedInit = {}
  if (!nothingToDo) {
    const coveredAtMs = doubtEnd(item, definition)
    await takeOff(task, definition, machine)
    if (coveredAtMs > monotonicMs()) {
      // An installation that is still under way could land behind the wipe that comes next, and the next host would find it.
      const message =
        'what an earlier try began may still be under way; waiting until it cannot be, to take it off, too'
      item.tell({ generation: task.wish.generation, progress: { step: 'deprovision', message } })
      await sleep(coveredAtMs - monotonicMs(), task.signal)
      await takeOff(task, definition, machine)
    }
    item.doubts.clear()
    item.inheritedDoubt = undefined
    power = await powerOffIfThere(task, port)
  }
  await task.complete({ ...power, presence: Presence.ABSENT, createInDoubt: false, generation: task.wish.generation })
}

/** A machine that was taken out of the rack has no power to switch, and must not keep its request from its end. @returns what its power is then, if it is there. */
async function powerOffIfThere(task: Task, port: PowerPort): Promise<ObservedInit> {
  const seen = await retryTransient(task.signal, port.observe)
  if (seen === undefined) return {}
  if (seen.power !== 'off') await run(task, 'power off', () => port.power?.('off'))
  return observedToProto({ power: 'off' })
}

async function takeOff(task: Task, definition: Definition, machine: StaticMachine): Promise<void> {
  await task.begin('deprovision', 'taking the host off the machine')
  await failpoint('sdk.delete.before')
  await definition.deprovision?.(makeWorkContext(task), machine)
  await failpoint('sdk.delete.after')
  task.signal.throwIfAborted()
}

async function inspect(task: Task, definition: Definition, machine: StaticMachine): Promise<ObservedInit> {
  if (definition.inspect === undefined) return {}
  await task.begin('inspect', 'reading the hardware')
  const hardware = await definition.inspect(makeWorkContext(task), machine)
  task.signal.throwIfAborted()
  return { hardware: hardwareToProto(hardware) }
}

/** A server in use is looked at, and nothing else: its power, too, stays as it is. As a request's operation it says that the host is there already. */
async function adopt(task: Task, definition: Definition, machine: StaticMachine): Promise<void> {
  if (task.item.isRequest) return keepUp(task, definition, machine)
  task.currentStep = 'adopt'
  const seen = await retryTransient(task.signal, () => definition.observe(task.context(), machine))
  if (seen === undefined) throw missing(machine.externalId)
  const hardware = await definition.adopt?.(makeWorkContext(task), machine)
  task.signal.throwIfAborted()
  await task.complete({
    ...observedToProto(seen),
    presence: Presence.PRESENT,
    ...(hardware !== undefined && { hardware: hardwareToProto(hardware) }),
    generation: task.wish.generation,
  })
}

async function clean(task: Task, definition: Definition, machine: StaticMachine): Promise<void> {
  await run(task, 'clean', () => definition.clean(makeWorkContext(task), machine))
  const port = portOf(task, definition, machine)
  const seen = await retryTransient(task.signal, port.observe)
  // A clean machine waits for its next host without power, whatever the wiping left.
  if (seen?.power === 'on') await run(task, 'power off', () => port.power?.('off'))
  await finish(task, definition, machine, {})
}

/** A function of the author's, begun on the hub's word; one that is not there counts as done. */
async function run(task: Task, step: string, work: () => Promise<void> | undefined): Promise<ObservedInit> {
  await task.begin(step, step)
  await work()
  task.signal.throwIfAborted()
  return {}
}

/** The end of a machine's own operation: its power is brought to what is wished, and all is reported at once. */
async function finish(task: Task, definition: Definition, machine: StaticMachine, found: ObservedInit): Promise<void> {
  const observed = await lookAndPower(task, definition, machine)
  await task.complete({ ...found, ...observed, generation: task.wish.generation })
}

async function keepUp(task: Task, definition: Definition, machine: StaticMachine): Promise<void> {
  await task.settle(await lookAndPower(task, definition, machine))
}

async function lookAndPower(task: Task, definition: Definition, machine: StaticMachine): Promise<ObservedInit> {
  task.currentStep = 'observe'
  const port = portOf(task, definition, machine)
  const seen = await retryTransient(task.signal, port.observe)
  if (seen === undefined) throw missing(machine.externalId)
  return { ...observedToProto(seen), presence: Presence.PRESENT, ...(await convergePower(task, port, seen)) }
}

function missing(externalId: string): ProviderError {
  return new ProviderError(
    'INTERNAL',
    `the machine ${externalId} is not there any more: it was looked for and not found`,
    { retryable: true },
  )
}

function portOf(task: Task, definition: Definition, machine: StaticMachine): PowerPort {
  return {
    observe: (): Promise<ObservedMachine | undefined> => definition.observe(task.context(), machine),
    power: (wish) => definition.power(makeWorkContext(task, 'unstored'), machine, wish),
    rescue:
      definition.rescue === undefined
        ? undefined
        : async (wish) => definition.rescue?.(makeWorkContext(task, 'unstored'), machine, wish),
  }
}
