import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Readable } from 'node:stream'
import { ProviderError } from '@slipway/sdk'
import { errnoOf, fromProgramOutput, fromSystemError } from './errors.js'

/** The programs that machines are made with, by name on the PATH or by path. */
export interface Programs {
  readonly qemu: string
  readonly qemuImg: string
  readonly flock: string
}

export const defaultPrograms: Programs = { qemu: 'qemu-system-x86_64', qemuImg: 'qemu-img', flock: 'flock' }

/** The Debian package of each program. */
const packages: Readonly<Record<keyof Programs, string>> = {
  qemu: 'qemu-system-x86',
  qemuImg: 'qemu-utils',
  flock: 'util-linux',
}

const maxOutputBytes = 1024 * 1024

export interface RunOptions {
  readonly signal?: AbortSignal
  /** Default 30 000. */
  readonly timeoutMs?: number
  /** Exit codes that are no failure, besides 0. */
  readonly expected?: readonly number[]
}

export interface RunResult {
  readonly exitCode: number
  readonly stdout: string
}

/**
 * Runs a program to its end.
 *
 * @throws ProviderError: UNAVAILABLE naming the package where the program is missing, TIMEOUT, or by what it printed.
 */
export async function runProgram(
  programs: Programs,
  which: keyof Programs,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const program = programs[which]
  const timeoutMs = options.timeoutMs ?? 30_000
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, LC_ALL: 'C' } })
  const output = { stdout: collect(child.stdout), stderr: collect(child.stderr) }
  const kill = (): void => void child.kill('SIGKILL')
  let timedOut = false
  const timer = setTimeout(() => {
    timedOut = true
    kill()
  }, timeoutMs)
  options.signal?.addEventListener('abort', kill, { once: true })
  try {
    const [exitCode, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
    options.signal?.throwIfAborted()
    if (timedOut) throw new ProviderError('TIMEOUT', `${program} did not end within ${timeoutMs} ms`)
    if (exitCode === null || (exitCode !== 0 && !options.expected?.includes(exitCode))) {
      throw fromProgramOutput(program, signal ?? `code ${exitCode}`, output.stderr())
    }
    return { exitCode, stdout: output.stdout() }
  } catch (error) {
    throw errnoOf(error) === 'ENOENT' ? missingProgram(programs, which) : fromSystemError(error, program)
  } finally {
    clearTimeout(timer)
    options.signal?.removeEventListener('abort', kill)
  }
}

/** Says which package a program is in. */
export function missingProgram(programs: Programs, which: keyof Programs): ProviderError {
  return new ProviderError(
    'UNAVAILABLE',
    `there is no ${programs[which]} on the host of the provider: install it (on Debian the package ${packages[which]}), or set the PATH of the provider`,
  )
}

/** The version that a program tells of itself. */
export async function programVersion(programs: Programs, which: keyof Programs): Promise<string> {
  const { stdout } = await runProgram(programs, which, ['--version'], { timeoutMs: 10_000 })
  return /\d+(\.\d+)+/.exec(stdout)?.[0] ?? 'unknown'
}

function collect(stream: Readable): () => string {
  let text = ''
  stream.setEncoding('utf8')
  stream.on('data', (part: string) => {
    if (text.length < maxOutputBytes) text += part
  })
  return () => text
}
