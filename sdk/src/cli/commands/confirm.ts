import { createInterface } from 'node:readline/promises'
import { CliError, exitCodes, usageError } from '../failure.js'
import type { Session } from '../session.js'

/** Asks before what cannot be undone. Where nobody can be asked, `--yes` must have been given. @throws CliError unless it is wanted. */
export async function confirm(session: Session, what: string, yes: boolean): Promise<void> {
  if (yes) return
  const { stdin, stderr } = session.surroundings
  if (stdin.isTTY !== true || stderr.isTTY !== true)
    throw usageError(`${what} needs --yes where there is no terminal to ask at`)
  const reader = createInterface({ input: stdin, output: stderr })
  try {
    const answer = await reader.question(`${what}? [y/N] `)
    if (/^y(es)?$/i.test(answer.trim())) return
  } finally {
    reader.close()
  }
  throw new CliError(exitCodes.failure, 'nothing was done')
}
