import { setTimeout as delay } from 'node:timers/promises'

/** Waits until something is so. @throws Error that says what was waited for. */
export async function until(what: string, look: () => boolean, timeoutMs = 60_000): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!look()) {
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`)
    await delay(5)
  }
}
