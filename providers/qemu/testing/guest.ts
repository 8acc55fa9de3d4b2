import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The tiny guest of the tests: a real kernel, and a system that reads its seed, phones home, and minds the power button. */
export interface Guest {
  readonly kernel: string
  readonly initrd: string
  readonly cmdline: string
  /** An image of a provider's configuration. */
  readonly image: {
    readonly kind: 'kernel'
    readonly kernel: string
    readonly initrd: string
    readonly cmdline: string
  }
}

const sourceFolder = fileURLToPath(new URL('../../testing/guest/', import.meta.url))
const cmdline = 'console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check'

/** The Debian packages that tests with a real QEMU need. */
const packagesByProgram: Readonly<Record<string, string>> = {
  'qemu-system-x86_64': 'qemu-system-x86',
  'qemu-img': 'qemu-utils',
  flock: 'util-linux',
  busybox: 'busybox-static',
}

/**
 * The Debian packages that are missing here for tests with a real QEMU; empty: all is there. Without them tests skip and say so,
 * and where CI is `true` they fail.
 */
export function missingPackages(): readonly string[] {
  const folders = (process.env['PATH'] ?? '').split(':')
  return Object.entries(packagesByProgram).flatMap(([program, name]) =>
    folders.some((folder) => existsSync(join(folder, program))) ? [] : [name],
  )
}

/**
 * Gives the guest, and builds it where that was not done before. It is kept in the folder that SLIPWAY_GUEST_DIR names, else in
 * node_modules/.cache/slipway-guest, by what it is built from.
 *
 * @throws where it cannot be built, with what the build said.
 */
export async function ensureGuest(): Promise<Guest> {
  const cache = process.env['SLIPWAY_GUEST_DIR'] ?? defaultCache()
  const folder = join(cache, await sourceDigest())
  if (!existsSync(join(folder, 'initrd.img'))) await build(cache, folder)
  const files = { kernel: join(folder, 'vmlinuz'), initrd: join(folder, 'initrd.img'), cmdline }
  return { ...files, image: { kind: 'kernel', ...files } }
}

/** Built aside and then renamed: of several tests that build at once the first one's stays. */
async function build(cache: string, folder: string): Promise<void> {
  await mkdir(cache, { recursive: true })
  const draft = await mkdtemp(join(cache, '.build-'))
  try {
    const child = spawn('sh', [join(sourceFolder, 'build.sh'), draft], { stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
    const [code] = (await once(child, 'close')) as [number | null]
    if (code !== 0) throw new Error(`the test guest could not be built: ${said.trim().slice(-2_000)}`)
    await rename(draft, folder).catch(async (error: unknown) => {
      if (!existsSync(join(folder, 'initrd.img'))) throw error
    })
  } finally {
    await rm(draft, { recursive: true, force: true })
  }
}

async function sourceDigest(): Promise<string> {
  const digest = createHash('sha256')
  for (const name of (await readdir(sourceFolder)).sort()) {
    digest.update(`${name}\0`).update(await readFile(join(sourceFolder, name)))
  }
  return digest.digest('hex').slice(0, 16)
}

/** The nearest node_modules that has anything installed, from here upwards. */
function defaultCache(): string {
  for (let folder = sourceFolder; folder !== dirname(folder); folder = dirname(folder)) {
    if (existsSync(join(folder, 'node_modules', 'typescript')))
      return join(folder, 'node_modules', '.cache', 'slipway-guest')
  }
  throw new Error('there is no node_modules to keep the test guest in: set SLIPWAY_GUEST_DIR')
}
