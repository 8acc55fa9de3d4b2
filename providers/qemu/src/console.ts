import { copyFile, rename, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { ConsoleRefused, readConsoleFile, type ConsoleChunk, type ConsoleWish } from '@slipway/sdk'
import { consoleFileName } from './command.js'
import { isMissing } from './errors.js'

const previousConsoleFileName = 'console.1.log'
const copyFileName = 'console.1.log.part'

/** Keeps a console within bounds: what there is becomes the previous part, and a new one begins. QEMU appends, so it goes on at the new end. */
export async function boundConsole(folder: string, maxBytes: number): Promise<void> {
  const file = join(folder, consoleFileName)
  try {
    const part = join(folder, copyFileName)
    if ((await stat(file)).size > maxBytes) {
      await copyFile(file, part)
      await truncate(file)
    }
    // Named last, so that whoever reads along sees by the name that the turnover is through; also that of a process that died over it.
    await rename(part, join(folder, previousConsoleFileName))
  } catch (error) {
    if (!isMissing(error)) throw error
  }
}

/** Shows the console of a machine by the folder that it lives in. @throws ConsoleRefused where it has none. */
export function showConsole(
  folder: string | undefined,
  wish: ConsoleWish,
  signal: AbortSignal,
): AsyncIterable<ConsoleChunk> {
  if (folder === undefined) throw new ConsoleRefused('not-found', 'there is no such machine on this host')
  const path = join(folder, consoleFileName)
  return readConsoleFile(
    { path, previousPath: join(folder, previousConsoleFileName), turnover: 'copy', waitForIt: true },
    wish,
    signal,
  )
}
