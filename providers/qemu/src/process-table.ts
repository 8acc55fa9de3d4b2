import { readdir, readFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { errnoOf } from './errors.js'

/** A process that is, or is about to become, the QEMU of a machine. */
export interface MachineProcess {
  readonly pid: number
  /** When it was started, in clock ticks since boot: with the pid it names one process for ever, which a pid alone does not. */
  readonly startTicks: string
  /** The machine's folder as it was when the process was started. */
  readonly folder: string
  readonly uuid: string
  readonly ownershipKey: string
  /** False: it still waits for the machine's lock. */
  readonly isQemu: boolean
  readonly accelerator: string
}

/** The name under which a guest finds its ownership key in QEMU's firmware configuration, and we find it on the command line. */
export const ownershipKeyItem = 'opt/org.slipway/ownership-key'

export const pidFileName = 'qemu.pid'

/** Finds the processes of all machines below a folder. It reads the command line of every process of the host. */
export async function findProcesses(directory: string): Promise<readonly MachineProcess[]> {
  const entries = await readdir('/proc')
  const pids = entries.filter((entry) => /^\d+$/.test(entry)).map(Number)
  const found = await Promise.all(pids.map((pid) => readProcess(pid)))
  return found.filter((process) => process !== undefined).filter((process) => dirname(process.folder) === directory)
}

/**
 * The QEMU of one machine: the one that its pid file names, if that proves to be it, else whichever is found.
 *
 * @param folder where the machine's folder is now; a deleted one has moved since its process was started.
 */
export async function findQemu(
  folder: string,
  machine: { readonly folder: string; readonly uuid: string },
): Promise<MachineProcess | undefined> {
  const isIt = (process: MachineProcess | undefined): boolean =>
    process !== undefined && process.isQemu && process.folder === machine.folder && process.uuid === machine.uuid
  const named = await readProcess(await readPidFile(folder))
  if (isIt(named)) return named
  return (await findProcesses(dirname(machine.folder))).find(isIt)
}

/** @returns whether this very process still lives. One that has ended and waits to be reaped does not. */
export async function isAlive(process: MachineProcess): Promise<boolean> {
  const now = await readProcess(process.pid)
  return now !== undefined && now.startTicks === process.startTicks
}

/** Sends a signal to this very process, and to no other that came by its pid. @returns false where it has ended. */
export async function signalProcess(target: MachineProcess, signal: NodeJS.Signals): Promise<boolean> {
  if (!(await isAlive(target))) return false
  try {
    return process.kill(target.pid, signal)
  } catch (error) {
    if (errnoOf(error) === 'ESRCH') return false
    throw error
  }
}

/** Reads one process; undefined where there is none, or it is no machine's. */
async function readProcess(pid: number): Promise<MachineProcess | undefined> {
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined
  const [commandLine, stat] = await Promise.all([
    readOrNothing(`/proc/${pid}/cmdline`),
    readOrNothing(`/proc/${pid}/stat`),
  ])
  const machine = parseCommandLine(commandLine.split('\0'))
  const status = parseStat(stat)
  if (machine === undefined || status === undefined || status.hasEnded) return undefined
  return { pid, startTicks: status.startTicks, ...machine }
}

/** Reads a QEMU command line as this provider writes it; undefined for any other. */
export function parseCommandLine(argv: readonly string[]): Omit<MachineProcess, 'pid' | 'startTicks'> | undefined {
  const valueOf = (flag: string): string | undefined => {
    const at = argv.indexOf(flag)
    return at < 0 ? undefined : argv[at + 1]
  }
  const [uuid, pidFile] = [valueOf('-uuid'), valueOf('-pidfile')]
  const keyPrefix = `name=${ownershipKeyItem},string=`
  const ownershipKey = argv.find((argument) => argument.startsWith(keyPrefix))?.slice(keyPrefix.length)
  if (uuid === undefined || pidFile === undefined || ownershipKey === undefined || basename(pidFile) !== pidFileName)
    return undefined
  const accelerator = valueOf('-accel')?.split(',')[0] ?? ''
  return { folder: dirname(pidFile), uuid, ownershipKey, isQemu: basename(argv[0] ?? '') !== 'flock', accelerator }
}

/** Reads /proc/<pid>/stat. The second field is a name in parentheses that may hold anything, parentheses too. */
export function parseStat(stat: string): { readonly startTicks: string; readonly hasEnded: boolean } | undefined {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const [state, startTicks] = [fields[0], fields[19]]
  if (state === undefined || startTicks === undefined) return undefined
  return { startTicks, hasEnded: state === 'Z' || state === 'X' }
}

async function readPidFile(folder: string): Promise<number> {
  return Number((await readOrNothing(join(folder, pidFileName))).trim())
}

async function readOrNothing(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch {
    // It has ended meanwhile, or is another user's.
    return ''
  }
}
