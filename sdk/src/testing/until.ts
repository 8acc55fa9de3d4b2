import { setTimeout as delay } from 'node:timers/promises'

/** Waits until `look` gives something other than undefined or false. @throws Error that says what was waited for. */
export async function until<Value>(
  what: string,
  look: () => Value | undefined | false,
  timeoutMs = 15_000,
): Promise<Value> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const value = look()
    if (value !== undefined && value !== false) return value
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`)
    await delay(5)
  }
}
