import { setMaxListeners } from 'node:events'

/** Waits. @throws the signal's reason as soon as it fires. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason as Error)
    const onAbort = (): void => {
      clearTimeout(timer)
      reject(signal.reason as Error)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort)
      resolve()
    }, ms)
    signal.addEventListener('abort', onAbort, { once: true })
  })
}

/** Waits for a promise, but no longer than until the signal fires. @throws the signal's reason. */
export function untilAborted<Value>(promise: Promise<Value>, signal: AbortSignal): Promise<Value> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error)
    if (signal.aborted) return onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}

/**
 * Runs something under a signal that fires as soon as one of these does. Unlike AbortSignal.any it leaves nothing behind at signals that live long: on
 * Node 20 each use would stay in memory as long as they do.
 */
export async function underSignals<Result>(
  signals: readonly AbortSignal[],
  run: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const controller = new AbortController()
  const onAbort = (event: Event): void => controller.abort((event.target as AbortSignal).reason)
  // Many pieces of work under one signal are what it is for, and no leak to warn of.
  setMaxListeners(0, ...signals)
  for (const signal of signals) {
    if (signal.aborted) controller.abort(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
  }
  try {
    return await run(controller.signal)
  } finally {
    for (const signal of signals) signal.removeEventListener('abort', onAbort)
  }
}
