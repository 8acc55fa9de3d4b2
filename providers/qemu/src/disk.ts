import { randomBytes } from 'node:crypto'
import { access, chmod, constants, link, open, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ProviderError } from '@slipway/sdk'
import { z } from 'zod'
import { imagePaths, type Image } from './config.js'
import { errnoOf, fromSystemError } from './errors.js'
import { runProgram, type Programs } from './programs.js'

export const diskFileName = 'disk.qcow2'
export const seedFileName = 'seed.iso'

const gibBytes = 1024 ** 3

const imageInfo = z.object({
  'virtual-size': z.number(),
  'backing-filename': z.string().optional(),
  'format-specific': z.object({ data: z.object({ 'data-file': z.string().optional() }).optional() }).optional(),
})

/**
 * Proves that an image can be used, and tells how large a disk must be at least to hold it, in GiB.
 *
 * @throws ProviderError of code INVALID_SPEC where it is missing, unreadable, of another format, or leads on to other files.
 */
export async function inspectImage(
  programs: Programs,
  id: string,
  image: Image,
  signal?: AbortSignal,
): Promise<number> {
  for (const file of imagePaths(image)) {
    const usable = await access(file, constants.R_OK).then(
      async () => (await stat(file)).isFile(),
      () => false,
    )
    if (!usable) throw new ProviderError('INVALID_SPEC', `image ${id}: ${file} is no file that the provider can read`)
  }
  if (image.kind === 'kernel') return 0
  const info = await readImageInfo(programs, id, image, signal)
  // A file that names others would have the host read them for whoever made it.
  const elsewhere = info['backing-filename'] ?? info['format-specific']?.data?.['data-file']
  if (elsewhere !== undefined) {
    throw new ProviderError(
      'INVALID_SPEC',
      `image ${id}: it builds upon another file (${elsewhere}); make it whole with qemu-img convert`,
    )
  }
  return Math.ceil(info['virtual-size'] / gibBytes)
}

async function readImageInfo(
  programs: Programs,
  id: string,
  image: Extract<Image, { kind: 'disk' }>,
  signal?: AbortSignal,
) {
  try {
    const args = ['info', '--output=json', '--force-share', '-f', image.format, image.path]
    const { stdout } = await runProgram(programs, 'qemuImg', args, signal === undefined ? {} : { signal })
    return imageInfo.parse(JSON.parse(stdout))
  } catch (error) {
    signal?.throwIfAborted()
    if (error instanceof ProviderError && error.code === 'UNAVAILABLE') throw error
    const why = error instanceof Error ? error.message : String(error)
    throw new ProviderError('INVALID_SPEC', `image ${id}: ${image.path} cannot be used as ${image.format}: ${why}`, {
      cause: error,
    })
  }
}

/** Makes a machine's disk, unless it has one: an overlay of the image, or an empty one for a kernel image. Nothing ever replaces a disk. */
export async function ensureDisk(
  programs: Programs,
  folder: string,
  image: Image,
  diskGib: number,
  signal?: AbortSignal,
): Promise<void> {
  const disk = join(folder, diskFileName)
  if (await exists(disk)) return
  const base = image.kind === 'disk' ? ['-b', image.path, '-F', image.format] : []
  await makeOnce(disk, async (draft) => {
    await runProgram(
      programs,
      'qemuImg',
      ['create', '-q', '-f', 'qcow2', ...base, draft, `${diskGib}G`],
      signal === undefined ? {} : { signal },
    )
    await chmod(draft, 0o600)
  })
}

/** Writes a machine's seed, unless it has one. */
export async function ensureSeed(folder: string, make: () => Buffer): Promise<void> {
  const seed = join(folder, seedFileName)
  if (await exists(seed)) return
  await makeOnce(seed, async (draft) => {
    const handle = await open(draft, 'wx', 0o600)
    try {
      await handle.writeFile(make())
      await handle.sync()
    } finally {
      await handle.close()
    }
  })
}

/** @returns whether a machine has all the files that it is started with. */
export async function hasStorage(folder: string): Promise<boolean> {
  return (await exists(join(folder, diskFileName))) && (await exists(join(folder, seedFileName)))
}

/**
 * Makes a file under another name and then links it to its own: it is whole as soon as it is there, and of two that race the first one
 * stays, which may be in use already.
 */
async function makeOnce(file: string, make: (draft: string) => Promise<void>): Promise<void> {
  const draft = `${file}.${randomBytes(8).toString('hex')}`
  try {
    await make(draft)
    await link(draft, file)
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw fromSystemError(error, file)
  } finally {
    await rm(draft, { force: true })
  }
}

async function exists(file: string): Promise<boolean> {
  try {
    await access(file)
    return true
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
}
