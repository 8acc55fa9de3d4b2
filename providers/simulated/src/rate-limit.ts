import { closeSync, fstatSync, mkdirSync, openSync, readdirSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'

export interface RateLimit {
  readonly limit: number
  readonly windowMs: number
}

/**
 * Counts a call in the current window of a world: each call is one byte of the window's file, so that all processes share one
 * count without a lock. Calls that came too late are counted too, as impatience is elsewhere.
 *
 * @returns how long to wait where the limit is exceeded, in milliseconds; 0 where it is not.
 */
export function countCall(dir: string, { limit, windowMs }: RateLimit, nowMs: number): number {
  const folder = join(dir, 'rate')
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const window = Math.floor(nowMs / windowMs)
  const file = `${windowMs}-${window}`
  const fd = openSync(join(folder, file), 'a', 0o600)
  let calls: number
  try {
    writeSync(fd, '.')
    calls = fstatSync(fd).size
  } finally {
    closeSync(fd)
  }
  if (calls === 1) dropOtherWindows(folder, file)
  return calls <= limit ? 0 : Math.max(1, (window + 1) * windowMs - nowMs)
}

function dropOtherWindows(folder: string, current: string): void {
  for (const file of readdirSync(folder)) if (file !== current) rmSync(join(folder, file), { force: true })
}
