import { existsSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { output } from './programs.js'

/** A Debian package as apt knows it. */
export interface Package {
  readonly name: string
  readonly version: string
  /** Of the archive's file, which apt checks: `SHA256:…`. */
  readonly digest: string
  readonly fileName: string
}

/** Whatever lies in the cache of this machine's apt would not be printed. */
const printUris = [
  ...['-o', 'Acquire::ForceHash=SHA256', '-o', 'Dir::Cache::archives=/nonexistent'],
  ...['--print-uris', '-qq'],
]

/**
 * Resolves packages with all that they depend on, as if nothing were installed here: so that the result depends on apt's lists alone.
 * @throws Error where apt does not know one of them.
 */
export async function resolvePackages(names: readonly string[]): Promise<readonly Package[]> {
  const how = [
    '-o',
    'Dir::State::status=/dev/null',
    '-o',
    'APT::Install-Recommends=0',
    '-o',
    'Debug::NoLocking=1',
    '-y',
  ]
  const said = await output('apt-get', [...printUris, ...how, 'install', ...names])
  return parseUris(said)
}

/** The package of the newest kernel that a metapackage stands for, without what it depends on. */
export async function resolveKernel(metapackage: string): Promise<Package> {
  const depends = await output('apt-cache', ['depends', metapackage])
  const name = /^ *Depends: (linux-image-[0-9]\S*)$/m.exec(depends)?.[1]
  if (name === undefined) throw new Error(`apt knows no ${metapackage}: run apt-get update`)
  const [found] = parseUris(await output('apt-get', [...printUris, 'download', name]))
  if (found === undefined) throw new Error(`apt can't download ${name}: run apt-get update`)
  return found
}

/** Lines `'http://…/x_1%3a2_amd64.deb' x_1%3a2_amd64.deb 1234 SHA256:…`. */
export function parseUris(said: string): readonly Package[] {
  return said
    .split('\n')
    .filter((line) => line.startsWith("'"))
    .map((line) => {
      const [, fileName = '', , digest = ''] = line.split(' ')
      const [name = '', version = ''] = fileName.split('_')
      if (!fileName.endsWith('.deb') || digest === '') throw new Error(`apt said what is not understood: ${line}`)
      return { name, version: decodeURIComponent(version), digest, fileName }
    })
}

/** Downloads packages into a folder where they are not there yet. @returns their files, in the same order. */
export async function fetchPackages(folder: string, packages: readonly Package[]): Promise<readonly string[]> {
  await mkdir(folder, { recursive: true })
  const files = packages.map(({ fileName }) => join(folder, fileName))
  const missing = packages.filter((_, index) => !existsSync(files[index] ?? ''))
  if (missing.length > 0) {
    const draft = await mkdtemp(join(folder, '.fetch-'))
    try {
      // apt fetches as a user of its own, which has to be let in.
      await chmod(draft, 0o755)
      const wanted = missing.map(({ name, version }) => `${name}=${version}`)
      await output('apt-get', ['-qq', '-o', 'APT::Sandbox::User=root', 'download', ...wanted], { cwd: draft })
      for (const { fileName } of missing) await rename(join(draft, fileName), join(folder, fileName))
    } finally {
      await rm(draft, { recursive: true, force: true })
    }
  }
  return files
}

/** Unpacks packages into one folder, over one another. Nothing of theirs is run. */
export async function unpackPackages(folder: string, files: readonly string[]): Promise<void> {
  await mkdir(folder, { recursive: true })
  for (const file of files) await output('dpkg-deb', ['-x', file, folder])
}
