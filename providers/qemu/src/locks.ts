import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { ProviderError } from '@slipway/sdk'
import { errnoOf, fromSystemError } from './errors.js'
import { missingProgram, runProgram, type Programs } from './programs.js'

// Locks are the kernel's (flock), held through flock(1): they end with the process that holds them, so none is ever left behind.

/** What flock ends with where somebody else has the lock. */
export const lockConflictCode = 75

/** Arguments of flock that take a lock and then become the program; the program and its threads hold the lock as long as they live. */
export function lockedCommand(lockFile: string, waitMs: number, command: readonly string[]): readonly string[] {
  const waiting = waitMs === 0 ? ['--nonblock'] : ['--timeout', String(waitMs / 1000)]
  return [
    '--exclusive',
    ...waiting,
    '--conflict-exit-code',
    String(lockConflictCode),
    '--no-fork',
    lockFile,
    ...command,
  ]
}

/** @returns whether anybody holds the lock. Where its folder is gone nobody does. */
export async function isLocked(programs: Programs, lockFile: string): Promise<boolean> {
  const args = lockedCommand(lockFile, 0, ['true'])
  try {
    const { exitCode } = await runProgram(programs, 'flock', args, { expected: [lockConflictCode], timeoutMs: 5_000 })
    return exitCode === lockConflictCode
  } catch (error) {
    if (existsSync(dirname(lockFile))) throw error
    return false
  }
}

/**
 * Runs something while no other process of this host runs anything under the same lock. It is released even where this process is
 * killed in between.
 *
 * @throws ProviderError of code CONFLICT where the lock was not to be had within `waitMs`.
 */
export async function withLock<Result>(
  programs: Programs,
  lockFile: string,
  waitMs: number,
  run: () => Promise<Result>,
): Promise<Result> {
  // The holder lives as long as its standard input is open. In a session of its own no Ctrl-C reaches it before us.
  const holder = spawn(programs.flock, lockedCommand(lockFile, waitMs, ['sh', '-c', 'echo locked && exec cat']), {
    stdio: ['pipe', 'pipe', 'ignore'],
    detached: true,
  })
  const ended = once(holder, 'close') as Promise<[number | null]>
  ended.catch(() => undefined)
  // Its end is waited for; a pipe that broke says nothing more than that.
  holder.stdin.on('error', () => undefined)
  try {
    const outcome = await Promise.race([once(holder.stdout, 'data').then(() => 'locked' as const), ended])
    if (outcome !== 'locked') {
      const [code] = outcome
      const why =
        code === lockConflictCode ? `was not free within ${waitMs} ms` : `could not be taken (flock ended with ${code})`
      throw new ProviderError('CONFLICT', `the lock ${lockFile} ${why}`)
    }
    return await run()
  } catch (error) {
    throw errnoOf(error) === 'ENOENT' && isSpawnError(error)
      ? missingProgram(programs, 'flock')
      : fromSystemError(error, lockFile)
  } finally {
    holder.stdin.end()
    await ended.catch(() => undefined)
  }
}

function isSpawnError(error: unknown): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).syscall?.startsWith('spawn') === true
}
