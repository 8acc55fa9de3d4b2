import { spawn, type ChildProcess } from 'node:child_process'
import { open, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ProviderError } from '@slipway/sdk'
import { monitorSocketName } from './command.js'
import { errnoOf, fromProgramOutput, fromSystemError, isMissing } from './errors.js'
import { lockConflictCode, lockedCommand } from './locks.js'
import { findQemu, isAlive, signalProcess, type MachineProcess } from './process-table.js'
import { missingProgram, type Programs } from './programs.js'
import { QmpClient } from './qmp.js'

/** Held by a machine's QEMU as long as it lives: the kernel lets no second one have it. */
export const lockFileName = 'lock'

/** What QEMU says: why it did not start, and warnings. */
const logFileName = 'qemu.log'
const maxLogBytes = 64 * 1024

const lockWaitMs = 2_000
const startTimeoutMs = 25_000
const startPollMs = 25
const exitPollMs = 50
const quitTimeoutMs = 5_000
/** A button pressed before the guest's system listens is lost, so it is pressed again. */
const pressAgainMs = 4_000

/** Where one machine's files and its process are. */
export interface MachinePlace {
  readonly folder: string
  readonly homeFolder: string
  readonly uuid: string
}

/** `unresponsive`: it runs, and its monitor does not answer. */
export type QemuStatus = string

/** The machine's QEMU, if it runs. */
export async function findMachineQemu(place: MachinePlace): Promise<MachineProcess | undefined> {
  return findQemu(place.folder, { folder: place.homeFolder, uuid: place.uuid })
}

/**
 * Starts a machine's QEMU and returns when its monitor answers. It runs in a session of its own and outlives this process. Where the
 * machine runs already, started by whomever, that one is it: of any number of starts at once only one gets the machine's lock.
 *
 * @throws ProviderError by what QEMU said; CONFLICT where the lock is held by a process that is no QEMU of this machine.
 */
export async function startQemu(
  programs: Programs,
  place: MachinePlace,
  args: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  if ((await findMachineQemu(place)) !== undefined) return
  const { ended, logBytes } = await launch(programs, place, args)
  const waiting = new AbortController()
  const answering = untilAnswering(place, AbortSignal.any([signal, waiting.signal]))
  answering.catch(() => undefined)
  try {
    const how = await Promise.race([ended, answering])
    if (how === 'answering' || how === 0) return
    if (how !== lockConflictCode) throw await startFailure(programs, place, how, logBytes)
  } catch (error) {
    throw errnoOf(error) === 'ENOENT' ? await missingPart(programs, place) : fromSystemError(error, programs.qemu)
  } finally {
    waiting.abort()
  }
  await adoptHolder(place, signal)
}

interface Launched {
  /** The exit code, or the signal. */
  readonly ended: Promise<string | number>
  /** Where in the log this start begins. */
  readonly logBytes: number
}

async function launch(programs: Programs, place: MachinePlace, args: readonly string[]): Promise<Launched> {
  try {
    const log = await open(join(place.folder, logFileName), 'a', 0o600)
    try {
      if ((await log.stat()).size > maxLogBytes) await log.truncate()
      const logBytes = (await log.stat()).size
      const command = lockedCommand(join(place.folder, lockFileName), lockWaitMs, [programs.qemu, ...args])
      // Nothing of this process's environment is a machine's business.
      const env = { PATH: process.env['PATH'], LC_ALL: 'C' }
      const child = spawn(programs.flock, command, {
        cwd: place.folder,
        env,
        detached: true,
        stdio: ['ignore', log.fd, log.fd],
      })
      child.unref()
      return { ended: endOf(child), logBytes }
    } finally {
      await log.close()
    }
  } catch (error) {
    throw isMissing(error) ? folderGone(place) : fromSystemError(error, `starting QEMU in ${place.folder}`)
  }
}

/** Listens from the first moment on: a start that fails is over at once. */
function endOf(child: ChildProcess): Promise<string | number> {
  const ended = new Promise<string | number>((resolve, reject) => {
    child.once('exit', (code, name) => resolve(code ?? name ?? 'an unknown cause'))
    child.once('error', reject)
  })
  ended.catch(() => undefined)
  return ended
}

async function untilAnswering(place: MachinePlace, signal: AbortSignal): Promise<'answering'> {
  const deadlineMs = performance.now() + startTimeoutMs
  while (performance.now() < deadlineMs) {
    await sleep(startPollMs, undefined, { signal })
    if ((await queryStatus(place.folder)) !== 'unresponsive') return 'answering'
  }
  throw new ProviderError('TIMEOUT', `QEMU did not answer within ${startTimeoutMs} ms of its start`)
}

/** Node says the same of a program that is missing and of a folder to start it in. */
async function missingPart(programs: Programs, place: MachinePlace): Promise<ProviderError> {
  return stat(place.folder).then(
    () => missingProgram(programs, 'flock'),
    () => folderGone(place),
  )
}

function folderGone(place: MachinePlace): ProviderError {
  return new ProviderError('CONFLICT', `the machine of ${place.folder} was deleted while it was being started`)
}

/** Somebody else holds the lock: they are starting the machine, or have. */
async function adoptHolder(place: MachinePlace, signal: AbortSignal): Promise<void> {
  const deadlineMs = performance.now() + lockWaitMs
  while (performance.now() < deadlineMs) {
    if ((await findMachineQemu(place)) !== undefined) return
    await sleep(exitPollMs, undefined, { signal })
  }
  throw new ProviderError('CONFLICT', `the lock of ${place.folder} is held, yet no QEMU of this machine is to be found`)
}

async function startFailure(
  programs: Programs,
  place: MachinePlace,
  how: string | number,
  logBytes: number,
): Promise<ProviderError> {
  const log = await readFile(join(place.folder, logFileName)).catch(() => Buffer.alloc(0))
  const said = log.subarray(logBytes).toString()
  if (/^flock: failed to execute/m.test(said)) return missingProgram(programs, 'qemu')
  return fromProgramOutput(programs.qemu, typeof how === 'number' ? `code ${how}` : how, said)
}

/** What QEMU says of its machine: `running`, `paused`, `io-error`, … */
export async function queryStatus(folder: string, timeoutMs = 3_000): Promise<QemuStatus> {
  try {
    const client = await QmpClient.connect(folder, monitorSocketName, { timeoutMs })
    try {
      const answer = (await client.execute('query-status')) as { status?: unknown }
      return typeof answer.status === 'string' ? answer.status : 'unresponsive'
    } finally {
      client.close()
    }
  } catch (error) {
    if (error instanceof ProviderError || isMissing(error)) return 'unresponsive'
    throw error
  }
}

/**
 * Shuts a machine down as its power button would, and switches it off where that takes longer than `timeoutMs`. 0 switches it off at
 * once. It returns when the process has ended.
 *
 * @returns whether the guest shut down by itself.
 */
export async function shutDown(
  place: MachinePlace,
  target: MachineProcess,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<boolean> {
  const deadlineMs = performance.now() + timeoutMs
  while (performance.now() < deadlineMs) {
    await tell(place.folder, 'system_powerdown')
    const waitMs = Math.min(pressAgainMs, deadlineMs - performance.now())
    if (await waitForEnd(target, waitMs, signal)) return true
  }
  await tell(place.folder, 'quit')
  if (await waitForEnd(target, quitTimeoutMs, signal)) return false
  await signalProcess(target, 'SIGKILL')
  if (await waitForEnd(target, quitTimeoutMs, signal)) return false
  throw new ProviderError(
    'TIMEOUT',
    `QEMU (process ${target.pid}) did not end within ${quitTimeoutMs} ms of being killed`,
  )
}

/** Gives a command whose effect is seen elsewhere: an end of QEMU in the middle of the answer is no failure. */
async function tell(folder: string, command: string): Promise<void> {
  try {
    const client = await QmpClient.connect(folder, monitorSocketName)
    try {
      await client.execute(command)
    } finally {
      client.close()
    }
  } catch (error) {
    if (!(error instanceof ProviderError) && !isMissing(error)) throw error
  }
}

/** Waits until a process has ended. @returns false where it has not within `timeoutMs`. */
export async function waitForEnd(target: MachineProcess, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
  const deadlineMs = performance.now() + timeoutMs
  while (await isAlive(target)) {
    if (performance.now() >= deadlineMs) return false
    await sleep(exitPollMs, undefined, { signal })
  }
  return true
}
