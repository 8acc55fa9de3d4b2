import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { postgresBin, postgresUser } from './postgres.js'

const marker = 'SLIPWAY_CHAOS_SANDBOX'

/** What this machine lacks for a run, in words; nothing: it has all. */
export function whatIsMissing(): readonly string[] {
  const missing: string[] = []
  if (process.platform !== 'linux') missing.push('Linux')
  if (process.getuid?.() !== 0) missing.push('root (for network namespaces and mounts)')
  if (postgresBin() === undefined)
    missing.push('PostgreSQL server programs (initdb in /usr/lib/postgresql/*/bin or SLIPWAY_POSTGRES_BIN)')
  else if (postgresUser() === undefined) missing.push('a user postgres')
  for (const program of ['ip', 'unshare', 'setpriv', 'mount']) {
    if (spawnSync('which', [program]).status !== 0) missing.push(`the program ${program}`)
  }
  if (missing.length > 0) return missing
  const probe = spawnSync('unshare', [
    ...unshareFlags,
    'sh',
    '-c',
    'ip link add br9 type bridge && ip link add v9 type veth peer name w9',
  ])
  if (probe.status !== 0) missing.push(`network namespaces with bridge and veth (${String(probe.stderr).trim()})`)
  return missing
}

const unshareFlags = ['--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc']

/** Whether this process runs in namespaces of its own already. */
export function inSandbox(): boolean {
  return process.env[marker] !== undefined
}

/** The run's folder inside the sandbox: a file system in memory, which vanishes with the run. */
export function sandboxFolder(): string {
  const folder = process.env[marker]
  if (folder === undefined) throw new Error('this is not the sandbox')
  return folder
}

/**
 * Runs this very program again in mount, network and process namespaces of its own. However it ends, by itself, by Ctrl-C or by SIGKILL, the kernel removes with it
 * every process, namespace and mount that it made; the one empty folder left is removed here.
 *
 * @returns the exit code.
 */
export async function enterSandbox(argv: readonly string[]): Promise<number> {
  removeStale()
  const folder = mkdtempSync(join(tmpdir(), `slipway-chaos-${process.pid}-`))
  const script = process.argv[1] ?? ''
  const setUp =
    'mkdir -p /run/netns && mount -t tmpfs none /run/netns && mount -t tmpfs -o mode=755 none "$0" && exec "$@"'
  const args = [...unshareFlags, 'sh', '-c', setUp, folder, process.execPath, script, ...argv]
  const child = spawn('unshare', args, {
    env: { ...process.env, [marker]: folder },
    // The pipe is the sandbox's lifeline: it ends when this process does, however that happens.
    stdio: ['pipe', 'inherit', 'inherit'],
  })
  const pass = (signal: NodeJS.Signals) => () => child.stdin.end(signal)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, pass(signal))
  const [code] = (await once(child, 'exit')) as [number | null]
  rmdirSync(folder)
  return code ?? 1
}

/** Empty folders of runs that were killed outright: nobody was left to remove them. */
function removeStale(): void {
  for (const name of readdirSync(tmpdir())) {
    const pid = /^slipway-chaos-(\d+)-/.exec(name)?.[1]
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) rmdirSync(join(tmpdir(), name))
  }
}

/** In the sandbox: resolves when the one outside is gone or was told to stop. */
export function toldToStop(): Promise<void> {
  return new Promise((resolve) => {
    process.stdin.on('data', () => undefined)
    process.stdin.once('end', resolve)
    process.stdin.once('error', () => resolve())
    // In the foreground of a terminal both get Ctrl-C.
    process.once('SIGINT', () => resolve())
  })
}

/** Makes a folder in the sandbox with a file system in memory of its own. */
export function mountMemory(folder: string, mebibytes: number): void {
  mkdirSync(folder, { recursive: true })
  const result = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${mebibytes}m,mode=755`, 'none', folder])
  if (result.status !== 0) throw new Error(`cannot mount ${folder}: ${String(result.stderr)}`)
}

export function unmount(folder: string): void {
  spawnSync('umount', ['-l', folder])
}
