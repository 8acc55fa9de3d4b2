import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { output } from './programs.js'

const folders = ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu', 'lib', 'usr/lib']
const loader = 'ld-linux-x86-64.so.2'

/** Where the dynamic loader expects to be found on the running system. */
export const loaderPath = `lib64/${loader}`

/** The loader in a folder into which packages were unpacked. */
export function findLoader(root: string): string {
  const found = ['lib64', 'usr/lib64', ...folders].map((folder) => join(root, folder, loader)).find(existsSync)
  if (found === undefined) throw new Error(`there is no ${loader} among the packages`)
  return found
}

/**
 * The shared libraries that programs need, found among the unpacked packages alone: by name, where they lie.
 * @throws Error where one is missing.
 */
export async function librariesOf(root: string, programs: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const path = folders.map((folder) => join(root, folder)).join(':')
  const found = new Map<string, string>()
  for (const program of programs) {
    const said = await output(findLoader(root), ['--inhibit-cache', '--library-path', path, '--list', program])
    for (const line of said.split('\n')) {
      const [, name, file] = /^\s*(\S+) => (.+?)(?: \(0x[0-9a-f]+\))?$/.exec(line) ?? []
      if (name === undefined || file === undefined || name.includes(loader)) continue
      if (!file.startsWith(`${root}/`)) throw new Error(`${program} needs ${name}, and no package brings it: ${file}`)
      found.set(name, file)
    }
  }
  return found
}
