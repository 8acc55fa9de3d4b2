import { once } from 'node:events'
import { followConsole } from '../../client/console.js'
import { ControlStripper } from '../console-text.js'
import { CliError, exitCodes, usageError } from '../failure.js'
import { machineType } from '../resources.js'
import type { Session } from '../session.js'

export interface ConsoleFlags {
  readonly follow?: boolean
  readonly tail?: string
  readonly raw?: boolean
}

/**
 * `machine console NAME [--follow] [--tail N] [--raw]`: the bytes, and nothing else, on standard output; all that is said about them on standard
 * error. Control characters go to a terminal; elsewhere they are left out, but with --raw.
 */
export async function machineConsole(session: Session, name: string, flags: ConsoleFlags): Promise<void> {
  if (session.structured || session.output === 'name')
    throw usageError(`a console is bytes, and has no form as ${session.output}; leave -o out`)
  const follow = flags.follow === true
  const tailLines = flags.tail === undefined ? undefined : linesOf(flags.tail)
  const { stdout, signal } = session.surroundings
  const { machines } = await session.client()
  const full = machineType.fullName(name, session.workspace)
  const stripper = stdout.isTTY === true || flags.raw === true ? undefined : new ControlStripper()
  const start = tailLines === undefined ? {} : { tailLines }
  const open = (position: string, until: AbortSignal) =>
    machines.streamMachineConsole(
      { name: full, follow, ...(position === '' ? start : { position }) },
      { signal: until, timeoutMs: 0 },
    )
  for await (const update of followConsole(open, signal)) {
    if (update.kind === 'interrupted') {
      session.note(`-- interrupted, going on from here: ${update.error.rawMessage} --`)
      continue
    }
    if (update.gap) session.note(gapNote(update.lostBytes))
    const bytes = stripper === undefined ? update.data : stripper.strip(update.data)
    // A reader who is slow holds up the console, and not this process's memory.
    if (bytes.length > 0 && !stdout.write(bytes)) await Promise.race([once(stdout, 'drain'), ended(signal)])
  }
  if (signal.aborted) throw new CliError(exitCodes.interrupted, 'stopped looking')
}

function gapNote(lostBytes: bigint): string {
  return `-- ${lostBytes === 0n ? 'some output' : `${lostBytes} bytes of output`} before this can be had no more --`
}

function linesOf(text: string): number {
  const lines = Number(text)
  if (!/^\d+$/.test(text) || lines > 1_000_000)
    throw usageError(`--tail must be a whole number of lines up to 1000000, and not «${text}»`)
  return lines
}

function ended(signal: AbortSignal): Promise<unknown> {
  return signal.aborted ? Promise.resolve() : once(signal as unknown as EventTarget, 'abort')
}
