import { setTimeout as delay } from 'node:timers/promises'

/** Waits. @throws the signal's reason as soon as it fires. */
export async function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  if (durationMs <= 0) return
  try {
    await delay(durationMs, undefined, { signal })
  } catch {
    signal.throwIfAborted()
  }
}
