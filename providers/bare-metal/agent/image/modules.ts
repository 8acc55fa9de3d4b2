/** What depmod found out about a kernel's modules. */
export interface ModuleTables {
  /** modules.dep: a module's path below lib/modules/VERSION, and the paths of those that it needs, in the order in which depmod gives them. */
  readonly needs: ReadonlyMap<string, readonly string[]>
  /** modules.alias: lines `alias PATTERN NAME`. */
  readonly aliases: readonly string[]
}

export function parseTables(dep: string, alias: string): ModuleTables {
  const needs = new Map<string, readonly string[]>()
  for (const line of dep.split('\n')) {
    const [, path, rest = ''] = /^(\S+):\s*(.*)$/.exec(line) ?? []
    if (path !== undefined) needs.set(path, rest.split(/\s+/).filter(Boolean))
  }
  return { needs, aliases: alias.split('\n').filter((line) => line.startsWith('alias ')) }
}

/** A module's name as the kernel has it: dashes are underscores. */
export function moduleName(path: string): string {
  return (path.split('/').at(-1) ?? '').replace(/\.ko(\.(xz|gz|zst))?$/, '').replaceAll('-', '_')
}

/**
 * The modules to take: those below one of `folders` (which end in a slash), those named in `names`, less those below `except`, and all that they need.
 * A name that the kernel has built in, or has not, is no fault. @returns paths, sorted.
 */
export function selectModules(
  { needs }: ModuleTables,
  wanted: {
    readonly folders: readonly string[]
    readonly names: readonly string[]
    readonly except: readonly string[]
  },
): readonly string[] {
  const names = new Set(wanted.names.map((name) => name.replaceAll('-', '_')))
  const below = (path: string, folders: readonly string[]) =>
    folders.some((folder) => path.includes(`kernel/${folder}`))
  const taken = new Set<string>()
  for (const [path, others] of needs) {
    if (!names.has(moduleName(path)) && (!below(path, wanted.folders) || below(path, wanted.except))) continue
    for (const each of [path, ...others]) taken.add(each)
  }
  return [...taken].sort()
}

/** The tables that modprobe reads, for the modules that were taken; `unpacked` gives the paths that they have in the image. */
export function renderTables(
  { needs, aliases }: ModuleTables,
  taken: readonly string[],
  unpacked: (path: string) => string,
): { readonly dep: string; readonly alias: string } {
  const names = new Set(taken.map(moduleName))
  const dep = taken.map(
    (path) => `${unpacked(path)}:${(needs.get(path) ?? []).map((each) => ` ${unpacked(each)}`).join('')}\n`,
  )
  const alias = aliases.filter((line) => names.has((line.split(' ').at(-1) ?? '').replaceAll('-', '_'))).sort()
  return { dep: dep.join(''), alias: alias.map((line) => `${line}\n`).join('') }
}
