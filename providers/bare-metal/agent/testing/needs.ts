import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const packagesByProgram: Readonly<Record<string, string>> = {
  'apt-get': 'apt',
  'dpkg-deb': 'dpkg',
  'qemu-system-x86_64': 'qemu-system-x86',
  'qemu-img': 'qemu-utils',
  sfdisk: 'fdisk',
  mcopy: 'mtools',
  jq: 'jq',
  busybox: 'busybox-static',
}

/** What building images takes. */
export const buildTools = ['apt-get', 'dpkg-deb']

/** Why a test that needs programs can't run here; false: it can. In CI it runs in any case, and fails. */
export function missingFor(programs: readonly string[]): string | false {
  if (process.env['CI'] === 'true') return false
  const folders = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin']
  const missing = programs.filter((program) => !folders.some((folder) => existsSync(join(folder, program))))
  if (missing.length === 0) return false
  return `needs the packages ${missing.map((program) => packagesByProgram[program] ?? program).join(' ')}`
}

/** Keeps packages and images over runs: SLIPWAY_LAB_CACHE, else below the nearest node_modules that has anything installed. */
export const cacheFolder = process.env['SLIPWAY_LAB_CACHE'] ?? join(nearestModules(), '.cache/slipway-lab')

function nearestModules(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); folder !== dirname(folder); folder = dirname(folder)) {
    if (existsSync(join(folder, 'node_modules', 'typescript'))) return join(folder, 'node_modules')
  }
  throw new Error('there is no node_modules to keep images in: set SLIPWAY_LAB_CACHE')
}
