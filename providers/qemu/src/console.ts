import { copyFile, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { consoleFileName } from './command.js'
import { isMissing } from './errors.js'

const previousConsoleFileName = 'console.1.log'

/** Keeps a console within bounds: what there is becomes the previous part, and a new one begins. QEMU appends, so it goes on at the new end. */
export async function boundConsole(folder: string, maxBytes: number): Promise<void> {
  const file = join(folder, consoleFileName)
  try {
    if ((await stat(file)).size <= maxBytes) return
    await copyFile(file, join(folder, previousConsoleFileName))
    await truncate(file)
  } catch (error) {
    if (!isMissing(error)) throw error
  }
}
