import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import { delimiter, join } from 'node:path'

/**
 * Whether tests that need a program are to be skipped, and why: false where it is there, and in CI, where it has to be.
 * @param packages the Debian package of each program.
 */
export async function skipWithout(packages: Readonly<Record<string, string>>): Promise<string | false> {
  const missing: string[] = []
  for (const [program, name] of Object.entries(packages)) if (!(await isInstalled(program))) missing.push(name)
  if (missing.length === 0 || process.env['CI'] === 'true') return false
  return `needs the package${missing.length > 1 ? 's' : ''} ${missing.join(', ')}`
}

async function isInstalled(program: string): Promise<boolean> {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    try {
      await access(join(folder, program), constants.X_OK)
      return true
    } catch {
      continue
    }
  }
  return false
}
