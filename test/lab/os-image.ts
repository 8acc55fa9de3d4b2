import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { copyFile, mkdtemp, open, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ensureImage } from '@slipway/provider-bare-metal/agent'
import { labFolder } from './places.js'

const run = promisify(execFile)
const mib = 1024 * 1024
const sectorBytes = 512
const sectors = (bytes: number) => bytes / sectorBytes

/** A bootable disk image that a tenant could have brought: GPT, GRUB for BIOS and UEFI, a kernel, a system, and a partition for data. */
export interface OsImage {
  readonly file: string
  readonly sha256: string
  readonly sizeBytes: number
  /** What its system writes all over its data partition. */
  readonly secret: string
}

const [biosStart, espStart] = [1 * mib, 2 * mib]
const tenantBytes = 8 * mib
const grubModules = 'part_gpt fat linux normal search search_label serial terminal boot'.split(' ')

/**
 * Makes the image. No root, no mount: sfdisk, mtools and grub-mkimage.
 *
 * @param secret letters and digits.
 */
export async function makeOsImage(file: string, cacheDir: string, secret: string): Promise<OsImage> {
  const { kernel, initrd } = await ensureImage(
    {
      flavour: 'cloud',
      programs: { 'busybox-static': ['busybox'], mtools: ['mtools'], zstd: ['zstd'] },
      links: { mcopy: 'mtools' },
      modules: { folders: ['drivers/virtio/'], names: ['virtio_net', 'virtio_blk', 'nvme', 'virtio_rng'], except: [] },
      certificates: false,
      root: join(labFolder, 'os'),
    },
    cacheDir,
  )
  const work = await mkdtemp(join(tmpdir(), 'slipway-os-'))
  try {
    const espBytes = Math.ceil(((await stat(kernel)).size + (await stat(initrd)).size) / mib + 6) * mib
    const tenantStart = espStart + espBytes
    const sizeBytes = tenantStart + tenantBytes + mib
    const programs = await makeLoaders(work, secret)
    await writeFile(file, '')
    await truncate(file, sizeBytes)
    await partition(file, [
      `start=${sectors(biosStart)}, size=${sectors(mib)}, type=21686148-6449-6E6F-744E-656564454649, name=bios`,
      `start=${sectors(espStart)}, size=${sectors(espBytes)}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp`,
      `start=${sectors(tenantStart)}, size=${sectors(tenantBytes)}, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=tenant`,
    ])
    const esp = `${file}@@${espStart}`
    await run('mformat', ['-i', esp, '-v', 'LABESP', '-T', String(sectors(espBytes)), '-h', '255', '-s', '63', '::'])
    await run('mmd', ['-i', esp, '::/EFI', '::/EFI/BOOT'])
    await run('mcopy', ['-i', esp, programs.efi, '::/EFI/BOOT/BOOTX64.EFI'])
    await run('mcopy', ['-i', esp, kernel, '::/vmlinuz'])
    await run('mcopy', ['-i', esp, initrd, '::/initrd.img'])
    await embedBiosLoader(file, programs.core)
    const sha256 = createHash('sha256')
      .update(await readFile(file))
      .digest('hex')
    return { file, sha256, sizeBytes, secret }
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

/** The same as qcow2. */
export async function toQcow2(image: OsImage, file: string): Promise<OsImage> {
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', image.file, file])
  const content = await readFile(file)
  return { ...image, file, sizeBytes: content.length, sha256: createHash('sha256').update(content).digest('hex') }
}

async function makeLoaders(work: string, secret: string): Promise<{ readonly core: string; readonly efi: string }> {
  const config = join(work, 'grub.cfg')
  await writeFile(
    config,
    `set timeout=0
serial --unit=0 --speed=115200
terminal_output serial
search --no-floppy --label LABESP --set=root
linux /vmlinuz console=ttyS0,115200 no_timer_check quiet panic=-1 lab.root=disk lab.secret=${secret}
initrd /initrd.img
boot
`,
  )
  const [core, efi] = [join(work, 'core.img'), join(work, 'BOOTX64.EFI')]
  const make = (format: string, out: string, more: readonly string[]) =>
    run('grub-mkimage', ['-O', format, '-o', out, '-c', config, '-p', '/boot/grub', ...grubModules, ...more])
  await make('i386-pc', core, ['biosdisk'])
  await make('x86_64-efi', efi, [])
  return { core, efi }
}

async function partition(file: string, lines: readonly string[]): Promise<void> {
  const child = spawn('sfdisk', ['-q', file], { stdio: ['pipe', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  child.stdin.end(`label: gpt\nlabel-id: 11111111-2222-3333-4444-555555555555\n${lines.join('\n')}\n`)
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0) throw new Error(`sfdisk: ${said}`)
}

/**
 * What grub-install does with a disk that is no device: boot.img into the first sector, told where core.img begins; core.img into the BIOS boot partition, told where the rest of
 * itself is. Offsets: GRUB_BOOT_MACHINE_KERNEL_SECTOR (0x5c) and the first block list of diskboot.S (0x1f4), as in GRUB 2.
 */
async function embedBiosLoader(file: string, coreFile: string): Promise<void> {
  const boot = await readFile('/usr/lib/grub/i386-pc/boot.img')
  const core = await readFile(coreFile)
  if (core.length > mib) throw new Error(`GRUB's core image has ${core.length} bytes, and its partition ${mib}`)
  const first = sectors(biosStart)
  const disk = await open(file, 'r+')
  try {
    const { buffer: record } = await disk.read(Buffer.alloc(sectorBytes), 0, sectorBytes, 0)
    boot.copy(record, 0, 0, 440)
    record.writeBigUInt64LE(BigInt(first), 0x5c)
    // Two NOPs instead of a jump: the drive is the one that the firmware names.
    record.writeUInt16LE(0x9090, 0x66)
    await disk.write(record, 0, sectorBytes, 0)
    core.writeBigUInt64LE(BigInt(first + 1), 0x1f4)
    core.writeUInt16LE(Math.ceil(core.length / sectorBytes) - 1, 0x1fc)
    core.writeUInt16LE(0x820, 0x1fe)
    await disk.write(core, 0, core.length, biosStart)
  } finally {
    await disk.close()
  }
}

/** A copy of the image of which one byte is another: what a broken mirror serves. */
export async function spoil(image: OsImage, file: string): Promise<void> {
  await copyFile(image.file, file)
  const disk = await open(file, 'r+')
  try {
    const at = Math.floor(image.sizeBytes / 2)
    const { buffer } = await disk.read(Buffer.alloc(1), 0, 1, at)
    await disk.write(Buffer.from([(buffer[0] ?? 0) ^ 1]), 0, 1, at)
  } finally {
    await disk.close()
  }
}
