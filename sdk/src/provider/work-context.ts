import { durationFromMs } from '@bufbuild/protobuf/wkt'
import { Operation } from '@slipway/proto/provider/v1'
import { monotonicMs, sleep, untilAborted } from '../internal/timing.js'
import { observedToProto } from './convert.js'
import { ProviderError, Stopped } from './errors.js'
import { isTransient } from './retry.js'
import { runStep, runUnstored } from './steps.js'
import type { Task } from './task.js'
import type { Claim, Context, ObservedMachine, PollOptions, WaitOptions, WorkContext } from './types.js'

/**
 * What an author's function that works on an item gets.
 *
 * @param steps whether the hub keeps the results of its steps.
 */
export function makeWorkContext(task: Task, steps: 'stored' | 'unstored' = 'stored'): WorkContext<unknown, unknown> {
  const { item } = task
  const context = task.context()
  return {
    ...context,
    attempt: item.attempt,
    last: lastOf(task),
    claim: claimOf(task),
    step: (name, run) => (steps === 'stored' ? runStep(task, name, run) : runUnstored(task.signal, run)),
    progress: (message, percent) => {
      const progress = {
        step: task.currentStep,
        message: message.slice(0, 1024),
        ...(percent !== undefined && { percent: clampPercent(percent) }),
      }
      if (!task.signal.aborted) item.tell({ generation: task.wish.generation, progress })
    },
    report: async (observed: Partial<ObservedMachine>) => {
      await task.report({ observed: observedToProto(observed) })
      task.signal.throwIfAborted()
    },
    poll: (check, options) => poll(context, check, options),
    wait: (options) => wait(task, options),
  }
}

const operationNames: Readonly<Record<Operation, Claim['operation']>> = {
  [Operation.UNSPECIFIED]: 'observe',
  [Operation.PROVISION]: 'provision',
  [Operation.DEPROVISION]: 'deprovision',
  [Operation.VERIFY]: 'verify',
  [Operation.INSPECT]: 'inspect',
  [Operation.CLEAN]: 'clean',
  [Operation.POWER]: 'power',
  [Operation.REINSTALL]: 'reinstall',
  [Operation.ADOPT]: 'adopt',
  [Operation.UNADOPT]: 'unadopt',
}

function claimOf(task: Task): Claim {
  const { item, wish, runtime } = task
  return {
    item: `${item.isRequest ? 'machineRequests' : 'machines'}/${item.ref.id}`,
    operation: operationNames[wish.operation],
    generation: wish.operationGeneration,
    fence: item.fence,
    mayAct: () => !task.signal.aborted && runtime.session.lease.mayAct(),
    confirm: async () => {
      const sentAtMs = await task.confirm()
      return runtime.session.lease.leftMs(sentAtMs)
    },
  }
}

function lastOf(task: Task): WorkContext<unknown, unknown>['last'] {
  const { externalId, attributes } = task.item.observed
  return {
    ...(externalId !== '' && { externalId }),
    ...(attributes !== undefined && { attributes: attributes }),
  }
}

const defaultLookAfterMs = 600_000

/** See {@link WorkContext.wait}. The hub has stored it before the claim ends. */
async function wait(task: Task, { timeoutMs, lookAfterMs = defaultLookAfterMs, message }: WaitOptions): Promise<never> {
  task.signal.throwIfAborted()
  const { operation, operationGeneration } = task.wish
  const timeout = durationFromMs(Math.round(timeoutMs))
  await task.report({ waiting: { operation, operationGeneration, timeout, message: message.slice(0, 1024) } })
  task.signal.throwIfAborted()
  throw new Stopped('waiting', message, lookAfterMs)
}

function clampPercent(percent: number): number {
  return Math.min(100, Math.max(0, Math.round(percent)))
}

/** See {@link WorkContext.poll}. A check that fails for the moment is asked again, as long as there is time. */
export async function poll<Result>(
  context: Pick<Context<unknown, unknown>, 'signal'>,
  check: (signal: AbortSignal) => Promise<Result | undefined>,
  options: PollOptions = {},
): Promise<Result> {
  const { initialDelayMs = 500, maxDelayMs = 10_000, timeoutMs = 600_000, what = 'the result' } = options
  const deadlineMs = monotonicMs() + timeoutMs
  let delayMs = initialDelayMs
  let lastError: ProviderError | undefined
  for (;;) {
    try {
      const result = await untilAborted(check(context.signal), context.signal)
      if (result !== undefined) return result
      lastError = undefined
    } catch (thrown) {
      context.signal.throwIfAborted()
      lastError = ProviderError.from(thrown)
      if (!isTransient(lastError)) throw thrown
    }
    const pauseMs = Math.max(delayMs * (0.5 + Math.random() / 2), lastError?.retryAfterMs ?? 0)
    if (monotonicMs() + pauseMs > deadlineMs) {
      const reason = lastError === undefined ? '' : `; the last look failed: ${lastError.message}`
      throw new ProviderError('TIMEOUT', `${what} did not come within ${timeoutMs} ms${reason}`, { cause: lastError })
    }
    await sleep(pauseMs, context.signal)
    delayMs = Math.min(maxDelayMs, delayMs * 2)
  }
}
