import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, constants, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { release } from 'node:os'
import { join } from 'node:path'
import { ProviderError } from '@slipway/sdk'
import { z } from 'zod'
import type { Config } from './config.js'
import { programVersion, type Programs } from './programs.js'

/** How machines are run: by the processor itself, or emulated, and then why. */
export type Accelerator = { readonly kind: 'kvm' } | { readonly kind: 'tcg'; readonly reason: string }

/** A kernel prints its first line within a second under KVM that works. */
const probeTimeoutMs = 8_000

const cacheFileName = '.kvm-probe.json'

const cachedProbe = z.strictObject({ key: z.string(), works: z.boolean(), detail: z.string() })

type Probe = Omit<z.infer<typeof cachedProbe>, 'key'>

/**
 * Chooses how to run machines. That /dev/kvm is there and can be opened proves nothing: it may be a kind of KVM that runs only prepared
 * guests, or one that hangs. So a kernel has to boot under it, once for each boot of the host; the outcome is kept in the folder.
 *
 * @throws ProviderError of code UNAVAILABLE where KVM is demanded and does not work.
 */
export async function chooseAccelerator(
  config: Config,
  programs: Programs,
  directory: string,
  device = '/dev/kvm',
): Promise<Accelerator> {
  if (config.accel === 'tcg') return { kind: 'tcg', reason: 'the configuration asks for it' }
  const { works, detail } = await probeKvm(config, programs, directory, device)
  if (works) return { kind: 'kvm' }
  if (config.accel === 'kvm') {
    throw new ProviderError(
      'UNAVAILABLE',
      `the configuration asks for KVM, which does not work on this host: ${detail}. Set accel to auto or tcg to emulate`,
    )
  }
  return { kind: 'tcg', reason: detail }
}

async function probeKvm(config: Config, programs: Programs, directory: string, device: string): Promise<Probe> {
  if (!(await isUsable(device, constants.R_OK | constants.W_OK))) {
    return { works: false, detail: `there is no ${device} that the provider may open` }
  }
  const kernel = await findKernel(config)
  if (kernel === undefined) return { works: false, detail: 'there is no kernel to try KVM with: set probeKernel' }
  const key = await probeKey(kernel, programs)
  const cacheFile = join(directory, cacheFileName)
  const cached = await readCache(cacheFile)
  if (cached?.key === key) return { works: cached.works, detail: cached.detail }
  const probe = await bootUnderKvm(programs, kernel)
  const draft = `${cacheFile}.${process.pid}`
  await writeFile(draft, JSON.stringify({ key, ...probe }), { mode: 0o600 })
  await rename(draft, cacheFile)
  return probe
}

async function findKernel(config: Config): Promise<string | undefined> {
  const ofImages = Object.values(config.images).flatMap((image) => (image.kind === 'kernel' ? [image.kernel] : []))
  const candidates = [
    ...(config.probeKernel === undefined ? [] : [config.probeKernel]),
    ...ofImages,
    `/boot/vmlinuz-${release()}`,
    '/boot/vmlinuz',
    '/vmlinuz',
  ]
  for (const candidate of candidates) {
    if (await isUsable(candidate, constants.R_OK)) return candidate
  }
  return undefined
}

/** What a probe's outcome holds for. */
async function probeKey(kernel: string, programs: Programs): Promise<string> {
  const [bootId, { mtimeMs, size }, version] = await Promise.all([
    readFile('/proc/sys/kernel/random/boot_id', 'utf8'),
    stat(kernel),
    programVersion(programs, 'qemu'),
  ])
  return [bootId.trim(), kernel, mtimeMs, size, version].join(' ')
}

async function readCache(file: string): Promise<z.infer<typeof cachedProbe> | undefined> {
  try {
    return cachedProbe.parse(JSON.parse(await readFile(file, 'utf8')))
  } catch {
    return undefined
  }
}

/** Boots a kernel and waits for its first words on the serial line. */
export async function bootUnderKvm(programs: Programs, kernel: string, timeoutMs = probeTimeoutMs): Promise<Probe> {
  const args = [
    ...[
      '-machine',
      'q35,usb=off',
      '-accel',
      'kvm',
      '-cpu',
      'host',
      '-m',
      '256M',
      '-nodefaults',
      '-no-user-config',
      '-display',
      'none',
      '-no-reboot',
    ],
    ...['-serial', 'stdio', '-kernel', kernel, '-append', 'console=ttyS0 earlyprintk=ttyS0 panic=-1'],
  ]
  const child = spawn(programs.qemu, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = once(child, 'close').then(
    () => undefined,
    () => undefined,
  )
  let errors = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text))
  const booted = new Promise<true>((resolve) => {
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-4_096)
      if (output.includes('Linux version')) resolve(true)
    })
  })
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<'late'>((resolve) => (timer = setTimeout(() => resolve('late'), timeoutMs)))
  const outcome = await Promise.race([booted, ended, late])
  clearTimeout(timer)
  child.kill('SIGKILL')
  await ended
  if (outcome === true) return { works: true, detail: `${kernel} booted under it` }
  const how =
    outcome === 'late'
      ? `showed no sign of life within ${timeoutMs} ms`
      : `ended: ${errors.trim().slice(-500) || 'QEMU said nothing'}`
  return { works: false, detail: `/dev/kvm is there, but ${kernel} ${how}` }
}

async function isUsable(file: string, mode: number): Promise<boolean> {
  return access(file, mode).then(
    () => true,
    () => false,
  )
}
