import { Operation } from '@slipway/proto/provider/v1'
import { failpoint } from '../internal/failpoint.js'
import { monotonicMs, sleep, withDeadline } from '../internal/timing.js'
import { plainJson } from './convert.js'
import { ProviderError, type FailureCode } from './errors.js'
import { retryTransient } from './retry.js'
import type { Task } from './task.js'
import type { Json, StepEffect, StepRun } from './types.js'
import type { WorkItem } from './work-item.js'

export const defaultEffectTimeoutMs = 60_000

const namePattern = /^[a-z][a-z0-9-]{0,62}$/
const reservedPrefix = 'sdk-'
const maxResultBytes = 256 * 1024

/** Answers that leave no doubt: the cloud has refused, and nothing was made. After anything else something may exist. */
const definiteRefusals: ReadonlySet<FailureCode> = new Set([
  'CAPACITY',
  'QUOTA',
  'INVALID_SPEC',
  'CREDENTIALS',
  'RATE_LIMITED',
  'CONFLICT',
])

/** Runs a named piece of work once over all crashes. See {@link WorkContext.step}. */
export async function runStep<Result extends Json>(
  task: Task,
  name: string,
  work: StepRun<Result> | StepEffect<Result>,
): Promise<Result> {
  if (!namePattern.test(name) || name.startsWith(reservedPrefix)) {
    throw new ProviderError(
      'INTERNAL',
      `"${name}" is no step name: use lower-case words with dashes, not beginning with ${reservedPrefix}`,
      {
        retryable: false,
      },
    )
  }
  task.signal.throwIfAborted()
  const stored = task.item.steps.get(name)
  if (stored !== undefined) return stored as Result
  task.currentStep = name
  const result = typeof work === 'function' ? await runPlain(task, name, work) : await runEffect(task, name, work)
  task.signal.throwIfAborted()
  return result
}

/**
 * Runs a step where nothing is to be remembered: power may be switched many times within one operation, and each time all of it is to be done.
 */
export async function runUnstored<Result extends Json>(
  signal: AbortSignal,
  work: StepRun<Result> | StepEffect<Result>,
): Promise<Result> {
  signal.throwIfAborted()
  if (typeof work === 'function') return work(signal)
  return (await work.find(signal)) ?? (await work.run(signal))
}

async function runPlain<Result extends Json>(task: Task, name: string, run: StepRun<Result>): Promise<Result> {
  await task.leaseHolds()
  const result = checkedResult(name, await run(task.signal))
  await task.store(name, result)
  return result as Result
}

async function runEffect<Result extends Json>(task: Task, name: string, effect: StepEffect<Result>): Promise<Result> {
  const found = await lookUp(task, name, effect)
  if (found !== undefined) return (await storeEffect(task, name, found)) as Result
  const timeoutMs = effectTimeoutMs(task, effect)
  await task.begin(name, `${name} is about to run`, marksDoubt(task) ? { createInDoubt: true } : undefined)
  task.item.begun.add(name)
  await failpoint('sdk.effect.before')
  task.signal.throwIfAborted()
  return (await storeEffect(task, name, await runGuarded(task, name, effect.run, timeoutMs))) as Result
}

/** Asks for what an earlier try may have made, and waits out a create that may still be under way. */
async function lookUp<Result extends Json>(
  task: Task,
  name: string,
  effect: StepEffect<Result>,
): Promise<Result | undefined> {
  const { item } = task
  const doubt = item.doubts.get(name)
  const inDoubt = doubt !== undefined || item.inheritedDoubt !== undefined
  // Outside of PROVISION, REINSTALL and ADOPT no flag tells of an effect that was lost, so there it is always looked for.
  const surelyFirst = marksDoubt(task) && item.fresh && !item.begun.has(name) && !inDoubt
  if (surelyFirst) return undefined
  const look = async (): Promise<Result | undefined> => {
    await task.leaseHolds()
    return await retryTransient(task.signal, () => effect.find(task.signal))
  }
  const found = await look()
  if (found !== undefined || !inDoubt) return found
  const { sinceMs, timeoutMs } = doubt ?? {
    sinceMs: item.inheritedDoubt?.sinceMs ?? item.claimedAtMs,
    timeoutMs: effectTimeoutMs(task, effect),
  }
  const waitMs = sinceMs + timeoutMs + (task.runtime.definition.listingLagMs ?? 0) - monotonicMs()
  if (waitMs > 0) {
    const message = `an earlier create may still be under way; waiting ${Math.ceil(waitMs / 1000)} s before it may be repeated`
    item.tell({ generation: task.wish.generation, progress: { step: name, message } })
    await sleep(waitMs, task.signal)
  }
  const foundLate = await look()
  // Looked for after all the time that it could take: it was never made.
  if (foundLate === undefined) settleDoubt(task, name)
  return foundLate
}

async function runGuarded<Result extends Json>(
  task: Task,
  name: string,
  run: StepRun<Result>,
  timeoutMs: number,
): Promise<Result> {
  const { item } = task
  if (marksDoubt(task)) item.doubts.set(name, { sinceMs: monotonicMs(), timeoutMs })
  try {
    // Its own signal: a changed wish lets it finish, so that its result is known.
    const result = await withDeadline(
      timeoutMs,
      item.over,
      () =>
        new ProviderError(
          'TIMEOUT',
          `step ${name} gave no answer within ${timeoutMs} ms; what it asked for may have happened`,
        ),
      run,
    )
    await failpoint('sdk.effect.after')
    return result
  } catch (thrown) {
    if (!item.over.aborted && definiteRefusals.has(ProviderError.from(thrown).code)) settleDoubt(task, name)
    throw thrown
  }
}

async function storeEffect(task: Task, name: string, result: unknown): Promise<Json> {
  const checked = checkedResult(name, result)
  settleDoubt(task, name)
  await failpoint('sdk.report.before')
  await task.store(name, checked, marksDoubt(task) ? { observed: { createInDoubt: task.item.inDoubt } } : {})
  await failpoint('sdk.report.after')
  return checked
}

function settleDoubt(task: Task, name: string): void {
  task.item.doubts.delete(name)
  task.item.inheritedDoubt = undefined
}

/** When what has been done with an unknown outcome can be under way no more, and shows in a listing, on the monotonic clock. 0: there is nothing of that kind. */
export function doubtEnd(
  item: WorkItem,
  { effectTimeoutMs, listingLagMs }: { readonly effectTimeoutMs?: number; readonly listingLagMs?: number },
): number {
  if (!item.inDoubt) return 0
  const own = [...item.doubts.values()].map(({ sinceMs, timeoutMs }) => sinceMs + timeoutMs)
  const inherited =
    item.inheritedDoubt === undefined ? 0 : item.inheritedDoubt.sinceMs + (effectTimeoutMs ?? defaultEffectTimeoutMs)
  return Math.max(0, inherited, ...own) + (listingLagMs ?? 0)
}

/** Only what makes machines, makes them anew, or makes them ours is shown as a create in doubt. */
function marksDoubt(task: Task): boolean {
  return task.item.isRequest && doubtful.has(task.wish.operation)
}

const doubtful: ReadonlySet<Operation> = new Set([Operation.PROVISION, Operation.REINSTALL, Operation.ADOPT])

function effectTimeoutMs(task: Task, effect: StepEffect<Json>): number {
  return effect.timeoutMs ?? task.runtime.definition.effectTimeoutMs ?? defaultEffectTimeoutMs
}

function checkedResult(name: string, result: unknown): Json {
  const json = plainJson(result, `the result of step ${name}`)
  const bytes = Buffer.byteLength(JSON.stringify(json))
  if (bytes > maxResultBytes) {
    throw new ProviderError(
      'INTERNAL',
      `the result of step ${name} has ${bytes} bytes; store an id and not the thing (at most ${maxResultBytes})`,
      {
        retryable: false,
      },
    )
  }
  return json
}
