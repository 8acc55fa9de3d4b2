import { Presence, type MachineSpec as WireSpec } from '@slipway/proto/provider/v1'
import { failpoint } from '../internal/failpoint.js'
import { monotonicMs, sleep } from '../internal/timing.js'
import { hardwareToProto, observedToProto } from './convert.js'
import { ProviderError } from './errors.js'
import { wireSpec } from './order.js'
import { retryTransient } from './retry.js'
import { doubtEnd } from './steps.js'
import type { Task } from './task.js'
import type { AdoptFunctions, Context, DynamicDefinition, ExistingServer, Shape, Violation } from './types.js'
import { makeWorkContext } from './work-context.js'
import { begunAdoption } from './work-item.js'

type Definition = DynamicDefinition<unknown, unknown, unknown>
type Functions = AdoptFunctions<unknown, unknown>

/** How long a key that was taken off may still be seen. */
const unmarkTimeoutMs = 60_000

/**
 * Takes over a server that exists already, untouched: our key is put on it, it is looked at once more, and what it is is reported. One that bears our key already was
 * adopted by half, by an earlier try, and is gone on with.
 */
export async function adoptServer(task: Task, definition: Definition): Promise<void> {
  const adopt = functionsOf(definition)
  const spec = wireSpec(task)
  const { adoptExternalId: id, ownershipKey } = spec
  task.currentStep = 'look'
  const look = async (): Promise<ExistingServer> => {
    const found = await retryTransient(task.signal, () => adopt.find(task.context(), id))
    return judged(found, spec)
  }
  await look()
  await task.begin('look', `server ${id} is there, and free`, begunAdoption)
  const context = makeWorkContext(task)
  await context.step('mark', {
    find: async () => ((await look()).ownershipKey === ownershipKey ? true : undefined),
    run: async () => {
      // Whoever was faster has put its key on it since.
      if ((await look()).ownershipKey !== ownershipKey) await adopt.mark(context, { externalId: id, ownershipKey })
      return true
    },
  })
  task.currentStep = 'verify'
  const server = await look()
  if (server.ownershipKey !== ownershipKey)
    throw lasting('CONFLICT', `the ownership key that was put on server ${id} is not there any more`)
  await task.complete({
    ...observedToProto(server),
    presence: Presence.PRESENT,
    ...(server.shape !== undefined && { hardware: hardwareToProto({ shape: server.shape }) }),
    createInDoubt: false,
    generation: task.wish.generation,
  })
}

/** Takes our key off a server that was to be adopted, and changes nothing else; whatever becomes of the server, it is never removed here. */
export async function leaveServer(task: Task, definition: Definition): Promise<void> {
  const { item } = task
  if (!task.completed && !item.untouched) {
    const adopt = functionsOf(definition)
    const coveredAtMs = doubtEnd(item, definition)
    await unmark(task, adopt)
    if (coveredAtMs > monotonicMs()) {
      // A key that is still on its way could land behind this.
      const message =
        'the key may still be on its way to the server; waiting until it must be there, to take it off too'
      item.tell({ generation: task.wish.generation, progress: { step: 'unmark', message } })
      await sleep(coveredAtMs - monotonicMs(), task.signal)
      await unmark(task, adopt)
    }
    item.doubts.clear()
    item.inheritedDoubt = undefined
  }
  await task.complete({ createInDoubt: false, generation: task.wish.generation })
}

async function unmark(task: Task, adopt: Functions): Promise<void> {
  const { adoptExternalId: externalId, ownershipKey } = wireSpec(task)
  const isMarked = async (): Promise<boolean> => {
    const server = await retryTransient(task.signal, () => adopt.find(task.context(), externalId))
    return server?.ownershipKey === ownershipKey
  }
  if (!(await isMarked())) return
  await task.begin('unmark', `taking our key off server ${externalId}`)
  await failpoint('sdk.unmark.before')
  const context = makeWorkContext(task)
  await adopt.unmark(context, { externalId, ownershipKey })
  await failpoint('sdk.unmark.after')
  await context.poll(async () => ((await isMarked()) ? undefined : true), {
    timeoutMs: unmarkTimeoutMs,
    what: `the key to be off server ${externalId}`,
  })
}

/** What keeps a server from being adopted, looked up without any effect. */
export async function adoptionViolations(
  definition: Definition,
  context: Context<unknown, unknown>,
  spec: WireSpec,
): Promise<readonly Violation[]> {
  const { adopt } = definition
  if (adopt === undefined)
    return [{ field: 'spec.adopt_external_id', description: 'this provider cannot take over servers' }]
  const found = await retryTransient(context.signal, () => adopt.find(context, spec.adoptExternalId))
  const wrong = misfit(found, spec)
  return wrong === undefined ? [] : [{ field: wrong.field, description: wrong.message }]
}

/** @throws ProviderError that lasts, where the server is not the one that was ordered, or somebody else's. */
function judged(found: ExistingServer | undefined, spec: WireSpec): ExistingServer {
  const wrong = misfit(found, spec)
  if (wrong !== undefined) throw lasting(wrong.code, wrong.message)
  if (found === undefined) throw new Error('a server that is not there was taken for one that fits')
  return found
}

interface Misfit {
  readonly code: 'CONFLICT' | 'INVALID_SPEC'
  readonly field: string
  readonly message: string
}

function misfit(found: ExistingServer | undefined, spec: WireSpec): Misfit | undefined {
  const { adoptExternalId: id, ownershipKey, typeId, location } = spec
  const server = (message: string, code: Misfit['code'] = 'INVALID_SPEC'): Misfit => ({
    code,
    field: 'spec.adopt_external_id',
    message,
  })
  if (found === undefined) return server(`there is no server ${id}`)
  // One server has one id: by another spelling of it, it could be adopted twice.
  if (found.externalId !== id)
    return server(`there is no server ${id}; the one that answers to it is ${found.externalId}`)
  // The key of whoever has it is nobody else's business. Before there is a request there is no key of ours, either.
  if (found.ownershipKey !== '' && found.ownershipKey !== ownershipKey)
    return server(`server ${id} bears the ownership key of another request or hub`, 'CONFLICT')
  if (typeId !== '' && found.typeId !== undefined && found.typeId !== typeId)
    return {
      code: 'INVALID_SPEC',
      field: 'spec.type_id',
      message: `server ${id} is a ${found.typeId}, not a ${typeId}`,
    }
  if (location !== '' && found.location !== undefined && found.location !== location) {
    const message = `server ${id} is in ${found.location}, not in ${location}`
    return { code: 'INVALID_SPEC', field: 'spec.location', message }
  }
  // Where the type is known, it says what there is; a class may promise less.
  const differs = found.typeId === undefined ? shapeDiffers(found.shape, spec.shape) : undefined
  return differs === undefined ? undefined : server(`server ${id} ${differs}`)
}

/** How a server is not of the shape that was ordered. What is not said of either is not compared. */
function shapeDiffers(found: Shape | undefined, ordered: WireSpec['shape']): string | undefined {
  if (found === undefined || ordered === undefined) return undefined
  const memoryMib = Number(ordered.memoryMib)
  const isSame =
    (ordered.vcpus === 0 || found.vcpus === ordered.vcpus) && (memoryMib === 0 || found.memoryMib === memoryMib)
  if (isSame) return undefined
  return `has ${found.vcpus} vCPUs and ${found.memoryMib} MiB, not the ${ordered.vcpus} vCPUs and ${memoryMib} MiB of its class`
}

function functionsOf(definition: Definition): Functions {
  if (definition.adopt !== undefined) return definition.adopt
  throw new ProviderError('INTERNAL', 'this software cannot take over servers, nor let go of them; start one that can')
}

function lasting(code: Misfit['code'], message: string): ProviderError {
  return new ProviderError(code, message, { retryable: false })
}
