/** One entry of an archive. Whom it belongs to and when it was made is the same for all: root, and the epoch. */
export interface Entry {
  /** Without a slash at the beginning or the end. */
  readonly path: string
  /** With the type's bits: 0o100755 a program, 0o040755 a folder, 0o120777 a symbolic link, 0o020600 a character device. */
  readonly mode: number
  /** A file's content, or a link's target. */
  readonly data?: Buffer
  /** Of a device. */
  readonly device?: { readonly major: number; readonly minor: number }
}

export const modes = { folder: 0o040755, file: 0o100644, program: 0o100755, link: 0o120777, characterDevice: 0o020600 }

/**
 * An archive for the kernel's initramfs: the same entries give the same bytes, in whatever order they come. Folders that are not among them are added.
 * Format "newc": Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
 *
 * @throws RangeError where a path stands twice, or is none.
 */
export function cpioArchive(entries: Iterable<Entry>): Buffer {
  const byPath = new Map<string, Entry>()
  for (const entry of entries) {
    if (!/^[^/]+(\/[^/]+)*$/.test(entry.path) || /[\0\n]/.test(entry.path))
      throw new RangeError(`"${entry.path}" is no path of an archive`)
    if (byPath.has(entry.path)) throw new RangeError(`${entry.path} is in the archive twice`)
    byPath.set(entry.path, entry)
  }
  for (const { path } of [...byPath.values()]) {
    for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1)) {
      const folder = path.slice(0, end)
      if (!byPath.has(folder)) byPath.set(folder, { path: folder, mode: modes.folder })
    }
  }
  const sorted = [...byPath.values()].sort((a, b) => (a.path < b.path ? -1 : 1))
  const parts = sorted.flatMap((entry, index) => record(entry, index + 1))
  return Buffer.concat([...parts, ...record({ path: 'TRAILER!!!', mode: 0 }, 0)])
}

function record({ path, mode, data = Buffer.alloc(0), device }: Entry, inode: number): Buffer[] {
  const name = Buffer.from(`${path}\0`)
  const fields = [
    inode,
    mode,
    0, // owner
    0, // group
    1, // links
    0, // changed at
    data.length,
    0, // device that it is on
    0,
    device?.major ?? 0,
    device?.minor ?? 0,
    name.length,
    0, // checksum: none in this format
  ]
  const head = Buffer.from(`070701${fields.map((field) => field.toString(16).toUpperCase().padStart(8, '0')).join('')}`)
  return [head, name, padding(head.length + name.length), data, padding(data.length)]
}

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4)
}
