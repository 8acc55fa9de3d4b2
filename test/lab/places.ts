import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../../', import.meta.url))

/** The lab's own files, beside the sources. */
export const labFolder = join(root, 'test/lab')

/** Keeps packages and images over runs: SLIPWAY_LAB_CACHE, else below node_modules. */
export const cacheDir = process.env['SLIPWAY_LAB_CACHE'] ?? join(root, 'node_modules/.cache/slipway-lab')

const packagesByFile: Readonly<Record<string, string>> = {
  'qemu-system-x86_64': 'qemu-system-x86',
  'qemu-img': 'qemu-utils',
  ipmi_sim: 'openipmi',
  ipmitool: 'ipmitool',
  dnsmasq: 'dnsmasq-base',
  ip: 'iproute2',
  sfdisk: 'fdisk',
  mformat: 'mtools',
  'grub-mkimage': 'grub-common',
  curl: 'curl',
  '/usr/lib/ipxe/undionly.kpxe': 'ipxe',
  '/usr/share/OVMF/OVMF_CODE_4M.fd': 'ovmf',
  '/usr/lib/grub/i386-pc/boot.img': 'grub-pc-bin',
  '/usr/lib/grub/x86_64-efi/normal.mod': 'grub-efi-amd64-bin',
}

/** The Debian packages that the lab misses on this machine. */
export function missingPackages(more: Readonly<Record<string, string>> = {}): readonly string[] {
  const folders = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin']
  return Object.entries({ ...packagesByFile, ...more }).flatMap(([file, name]) =>
    (file.startsWith('/') ? existsSync(file) : folders.some((folder) => existsSync(join(folder, file)))) ? [] : [name],
  )
}

/** Why the lab's tests can't run here; false: they can. In CI they always do, and fail. @param more packages by program, beside the lab's own. */
export function whySkipped(more: Readonly<Record<string, string>> = {}): string | false {
  if (process.env['CI'] === 'true') return false
  const missing = missingPackages(more)
  if (missing.length > 0) return `needs the packages ${missing.join(' ')}`
  return process.getuid?.() === 0 ? false : 'needs root, for network namespaces'
}
