import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const run = promisify(execFile)

/**
 * Runs a program to its end, in the C locale.
 * @returns what it printed.
 * @throws Error with what it complained of.
 */
export async function output(
  program: string,
  args: readonly string[],
  options: { readonly cwd?: string } = {},
): Promise<string> {
  try {
    const { stdout } = await run(program, [...args], {
      ...options,
      env: { ...process.env, LC_ALL: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive' },
      maxBuffer: 64 * 1024 * 1024,
    })
    return stdout
  } catch (error) {
    const { code, stderr } = error as { code?: string | number; stderr?: string }
    if (code === 'ENOENT') throw new Error(`there is no program ${program} here`, { cause: error })
    const complaint = (stderr ?? '').trim().split('\n').slice(-5).join('\n')
    throw new Error(`${program} ${args.slice(0, 4).join(' ')} … ended with ${code}: ${complaint}`, { cause: error })
  }
}
