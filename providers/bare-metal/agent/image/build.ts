import { createHash, randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, realpath, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { cpioArchive, modes, type Entry } from './cpio.js'
import { findLoader, librariesOf, loaderPath } from './libraries.js'
import { moduleName, parseTables, renderTables, selectModules } from './modules.js'
import { fetchPackages, resolveKernel, resolvePackages, unpackPackages, type Package } from './packages.js'
import { output } from './programs.js'

/** A system that runs from memory, made of Debian's packages and of files of its own. */
export interface Recipe {
  readonly flavour: Flavour
  /** Programs by package. `busybox-static` has to be among them: what is not here is an applet of it. `zstd`, too, which packs the whole. */
  readonly programs: Readonly<Record<string, readonly string[]>>
  /** Other names of programs. */
  readonly links?: Readonly<Record<string, string>>
  readonly modules: {
    readonly folders: readonly string[]
    readonly names: readonly string[]
    readonly except: readonly string[]
  }
  /** Whether image servers out there are to be trusted as Debian trusts them. */
  readonly certificates: boolean
  /** A folder, all of which is copied in as it is; what begins with `#!` can be run. */
  readonly root: string
}

/** Which of Debian's kernels: `generic` has drivers for real machines; `cloud` for virtual ones alone, and boots faster. */
export type Flavour = 'generic' | 'cloud'

/** A kernel, and the system that it starts. */
export interface MemoryImage {
  readonly kernel: string
  readonly initrd: string
  /** Of all that went into it: the same inputs have the same, and give the same bytes. */
  readonly digest: string
}

/** Raised where the same inputs would give other bytes. */
const layoutVersion = 2

const metapackages: Readonly<Record<Flavour, string>> = {
  generic: 'linux-image-amd64',
  cloud: 'linux-image-cloud-amd64',
}

/** What is taken from packages beside programs and what these need. */
const otherPackages = ['ca-certificates', 'libgcc-s1']

/**
 * Gives an image, and builds it where that was not done before: from Debian's packages as apt on this machine knows them, and the recipe's files.
 * Nothing is installed, and no root is needed.
 *
 * @param cacheDir keeps the packages, and each image below its digest.
 * @throws Error where apt knows no package lists, a package can't be fetched, or this is no amd64 machine with Debian's apt and dpkg.
 */
export async function ensureImage(recipe: Recipe, cacheDir: string): Promise<MemoryImage> {
  if (process.arch !== 'x64') throw new Error(`the image can be built on amd64 alone, not on ${process.arch}`)
  const [kernel, closure] = await Promise.all([
    resolveKernel(metapackages[recipe.flavour]),
    resolvePackages([...Object.keys(recipe.programs), ...otherPackages]),
  ])
  const packages = closure.filter(({ name }) => isOfUse(name, recipe))
  const digest = await inputDigest(recipe, [kernel, ...packages])
  const folder = join(cacheDir, digest)
  const image: MemoryImage = { kernel: join(folder, 'vmlinuz'), initrd: join(folder, 'initrd.img'), digest }
  if (existsSync(image.initrd)) return image
  await mkdir(cacheDir, { recursive: true })
  const draft = await mkdtemp(join(cacheDir, '.build-'))
  try {
    await build(draft, recipe, await fetchPackages(join(cacheDir, 'packages'), [kernel, ...packages]))
    // Of several that build at once the first one's stays; the others' are the same.
    await rename(join(draft, 'out'), folder).catch((error: unknown) => {
      if (!existsSync(image.initrd)) throw error
    })
  } finally {
    await rm(draft, { recursive: true, force: true })
  }
  return image
}

/** Packages that a package's scripts need, and no program: there is no use in fetching them. Libraries that are missed would be noticed. */
function isOfUse(name: string, { programs }: Recipe): boolean {
  return (
    name in programs ||
    otherPackages.includes(name) ||
    (/^(lib|zlib)/.test(name) && !/perl|^libpam|^libsemanage|^libsepol|^libaudit/.test(name))
  )
}

/** Of packages and of the agent's own files: the name under which an image is kept. */
async function inputDigest({ root, ...recipe }: Recipe, packages: readonly Package[]): Promise<string> {
  const digest = createHash('sha256').update(`layout ${layoutVersion}\n${JSON.stringify(recipe)}\n`)
  for (const { name, version, digest: content } of packages) digest.update(`${name} ${version} ${content}\n`)
  for (const { path, mode, data } of await filesBelow(root))
    digest.update(`${path} ${mode} ${data?.length}\n`).update(data ?? '')
  return digest.digest('hex').slice(0, 32)
}

async function build(draft: string, recipe: Recipe, [kernelFile = '', ...files]: readonly string[]): Promise<void> {
  const [root, kernelRoot, out] = ['root', 'kernel', 'out'].map((name) => join(draft, name)) as [string, string, string]
  await unpackPackages(root, files)
  await unpackPackages(kernelRoot, [kernelFile])
  await mkdir(out)
  const busybox = join(root, (await findProgram(root, 'busybox')).slice(1))
  const entries = [
    ...(await systemEntries(root, busybox, recipe)),
    ...(await moduleEntries(kernelRoot, busybox, recipe)),
    ...(await filesBelow(recipe.root)),
  ]
  await writeFile(join(out, 'initrd.cpio'), cpioArchive(entries))
  const libraryPath = ['usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu'].map((folder) => join(root, folder)).join(':')
  const zstd = join(root, (await findProgram(root, 'zstd')).slice(1))
  await output(
    findLoader(root),
    // One thread, so that the bytes do not hang on how many there are.
    // prettier-ignore
    ['--library-path', libraryPath, zstd, '-q', '--single-thread', '-12', '--rm', '-f', join(out, 'initrd.cpio'), '-o', join(out, 'initrd.img')],
  )
  const [name = ''] = (await readdir(join(kernelRoot, 'boot'))).filter((entry) => entry.startsWith('vmlinuz-'))
  await rename(join(kernelRoot, 'boot', name), join(out, 'vmlinuz'))
}

/** busybox and its applets, the programs, what they need, and the folders that the agent mounts on. */
async function systemEntries(root: string, busybox: string, recipe: Recipe): Promise<readonly Entry[]> {
  const entries: Entry[] = ['dev', 'proc', 'sys', 'run', 'tmp', 'etc', 'root'].map((path) => ({
    path,
    mode: modes.folder,
  }))
  // The kernel opens it before anything is mounted.
  entries.push({ path: 'dev/console', mode: modes.characterDevice, device: { major: 5, minor: 1 } })
  const names = Object.values(recipe.programs).flat()
  const programs = await Promise.all(
    names.map(async (name) => [name, join(root, (await findProgram(root, name)).slice(1))] as const),
  )
  for (const [name, file] of programs) {
    const path = name === 'busybox' ? 'bin/busybox' : `usr/bin/${name}`
    entries.push({ path, mode: modes.program, data: await readFile(file) })
  }
  const applets = (await output(busybox, ['--list'])).split('\n').filter(Boolean)
  for (const applet of applets) {
    if (applet !== 'busybox') entries.push(link(`bin/${applet}`, 'busybox'))
  }
  for (const [name, target] of Object.entries(recipe.links ?? {})) entries.push(link(`usr/bin/${name}`, target))
  const dynamic = programs.filter(([name]) => name !== 'busybox').map(([, file]) => file)
  const libraries = new Map(await librariesOf(root, dynamic))
  libraries.set(
    'libgcc_s.so.1',
    await findFile(root, ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu'], 'libgcc_s.so.1'),
  )
  for (const [name, file] of libraries) {
    entries.push({
      path: `usr/lib/x86_64-linux-gnu/${name}`,
      mode: modes.file,
      data: await readFile(await realpath(file)),
    })
  }
  entries.push({ path: loaderPath, mode: modes.program, data: await readFile(await realpath(findLoader(root))) })
  if ('mtools' in recipe.programs) entries.push(...(await codepage(root)))
  if (recipe.certificates)
    entries.push({ path: 'etc/ssl/certs/ca-certificates.crt', mode: modes.file, data: await certificates(root) })
  return entries
}

/** mtools turns file names into the code page of DOS, and libc finds how in these two. */
async function codepage(root: string): Promise<readonly Entry[]> {
  const folder = 'usr/lib/x86_64-linux-gnu/gconv'
  const table = 'alias CP850// IBM850//\nmodule IBM850// INTERNAL IBM850 1\nmodule INTERNAL IBM850// IBM850 1\n'
  const converter = await readFile(await findFile(root, [folder], 'IBM850.so'))
  return [
    { path: `${folder}/gconv-modules`, mode: modes.file, data: Buffer.from(table) },
    { path: `${folder}/IBM850.so`, mode: modes.file, data: converter },
  ]
}

/** The authorities that image servers out there are trusted by, as Debian ships them. */
async function certificates(root: string): Promise<Buffer> {
  const folder = join(root, 'usr/share/ca-certificates/mozilla')
  const names = (await readdir(folder)).filter((name) => name.endsWith('.crt')).sort()
  return Buffer.concat(await Promise.all(names.map((name) => readFile(join(folder, name)))))
}

async function moduleEntries(kernelRoot: string, busybox: string, { modules }: Recipe): Promise<readonly Entry[]> {
  const base = existsSync(join(kernelRoot, 'lib/modules')) ? kernelRoot : join(kernelRoot, 'usr')
  const [version = ''] = await readdir(join(base, 'lib/modules'))
  const folder = join(base, 'lib/modules', version)
  await output(busybox, ['depmod', '-b', base, version])
  const tables = parseTables(
    await readFile(join(folder, 'modules.dep'), 'utf8'),
    await readFile(join(folder, 'modules.alias'), 'utf8'),
  )
  const taken = selectModules(tables, modules)
  const unpacked = (path: string) => `${moduleName(path)}.ko`
  const { dep, alias } = renderTables(tables, taken, unpacked)
  const to = (name: string) => `lib/modules/${version}/${name}`
  const entries: Entry[] = [
    { path: to('modules.dep'), mode: modes.file, data: Buffer.from(dep) },
    { path: to('modules.alias'), mode: modes.file, data: Buffer.from(alias) },
  ]
  for (const path of taken) {
    const file = existsSync(join(folder, path)) ? join(folder, path) : join(base, path)
    entries.push({ path: to(unpacked(path)), mode: modes.file, data: await readModule(file, busybox) })
  }
  return entries
}

/** Modules go in unpacked: the whole archive is compressed, and better. */
async function readModule(file: string, busybox: string): Promise<Buffer> {
  if (!file.endsWith('.xz')) return readFile(file)
  const copy = `${file}.${randomBytes(4).toString('hex')}`
  await output('sh', ['-c', '"$1" xzcat "$2" >"$3"', '-', busybox, file, copy])
  return readFile(copy)
}

async function filesBelow(root: string): Promise<readonly Entry[]> {
  const names = (await readdir(root, { recursive: true })).sort()
  const entries = await Promise.all(
    names.map(async (path): Promise<readonly Entry[]> => {
      const file = join(root, path)
      if ((await stat(file)).isDirectory()) return []
      const data = await readFile(file)
      return [{ path, mode: data.subarray(0, 2).toString() === '#!' ? modes.program : modes.file, data }]
    }),
  )
  return entries.flat()
}

function link(path: string, target: string): Entry {
  return { path, mode: modes.link, data: Buffer.from(target) }
}

async function findProgram(root: string, name: string): Promise<string> {
  return (await findFile(root, ['bin', 'sbin', 'usr/bin', 'usr/sbin'], name)).slice(root.length)
}

async function findFile(root: string, folders: readonly string[], name: string): Promise<string> {
  const found = folders.map((folder) => join(root, folder, name)).find((file) => existsSync(file))
  if (found === undefined) throw new Error(`no package brings ${name}`)
  return found
}
