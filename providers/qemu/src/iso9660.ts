/** One file of an image. */
export interface IsoFile {
  /** As it is to be read back, for example `user-data`. */
  readonly name: string
  readonly content: Uint8Array
}

const sectorBytes = 2048
const systemAreaSectors = 16
const escapeUcs2Level3 = '%/E'

/** How names are written: plain ISO 9660, or Joliet, which keeps them as they are. */
interface Naming {
  readonly encode: (name: string) => Buffer
  /** As long as `bytes`, padded with blanks. */
  readonly text: (value: string, bytes: number) => Buffer
}

const plainNaming: Naming = {
  encode: (name) => Buffer.from(`${name.toUpperCase().replace(/[^A-Z0-9_]/g, '_')}.;1`, 'latin1'),
  text: (value, bytes) => Buffer.from(value.padEnd(bytes).slice(0, bytes), 'latin1'),
}

const jolietNaming: Naming = {
  encode: (name) => bigEndianUtf16(name),
  // A field of an odd size has a byte over, which stays zero.
  text: (value, bytes) =>
    Buffer.concat([bigEndianUtf16(value.padEnd(bytes >> 1).slice(0, bytes >> 1)), Buffer.alloc(bytes & 1)]),
}

/**
 * Writes an ISO 9660 image with Joliet names and one flat folder, as NoCloud reads it. What it needs fits into one sector of
 * directory, so that at most some twenty files go in.
 *
 * @param label the volume's label, at most 16 characters.
 * @throws RangeError where names or label do not fit.
 */
export function makeIso(label: string, files: readonly IsoFile[], made: Date): Buffer {
  if (label.length > 16) throw new RangeError(`the label "${label}" has more than 16 characters`)
  const sorted = [...files].sort((a, b) => (a.name < b.name ? -1 : 1))
  const layout = layOut(sorted)
  const image = Buffer.alloc(layout.sectors * sectorBytes)
  const put = (sector: number, content: Uint8Array): void => image.set(content, sector * sectorBytes)
  put(systemAreaSectors, volumeDescriptor(1, label, plainNaming, layout.plain, layout.sectors, made))
  put(systemAreaSectors + 1, volumeDescriptor(2, label, jolietNaming, layout.joliet, layout.sectors, made))
  put(systemAreaSectors + 2, Buffer.from('\xffCD001\x01', 'latin1'))
  for (const [tree, naming] of [
    [layout.plain, plainNaming],
    [layout.joliet, jolietNaming],
  ] as const) {
    put(tree.littlePathTable, pathTable(tree.directory, 'little'))
    put(tree.bigPathTable, pathTable(tree.directory, 'big'))
    put(tree.directory, directory(tree.directory, layout.files, naming, made))
  }
  for (const file of layout.files) put(file.sector, file.content)
  return image
}

interface Tree {
  readonly littlePathTable: number
  readonly bigPathTable: number
  readonly directory: number
}

interface PlacedFile extends IsoFile {
  readonly sector: number
}

function layOut(files: readonly IsoFile[]): {
  plain: Tree
  joliet: Tree
  files: readonly PlacedFile[]
  sectors: number
} {
  const first = systemAreaSectors + 3
  const plain = { littlePathTable: first, bigPathTable: first + 1, directory: first + 4 }
  const joliet = { littlePathTable: first + 2, bigPathTable: first + 3, directory: first + 5 }
  let sectors = first + 6
  const placed = files.map((file) => {
    const sector = sectors
    sectors += Math.max(1, Math.ceil(file.content.length / sectorBytes))
    return { ...file, sector }
  })
  return { plain, joliet, files: placed, sectors }
}

/** A volume descriptor, ECMA-119 section 8.4 and 8.5. */
function volumeDescriptor(type: 1 | 2, label: string, naming: Naming, tree: Tree, sectors: number, made: Date): Buffer {
  const block = Buffer.alloc(sectorBytes)
  const put = (offset: number, content: Uint8Array): void => block.set(content, offset)
  put(0, Buffer.from(`${String.fromCharCode(type)}CD001\x01`, 'latin1'))
  put(8, naming.text('LINUX', 32))
  put(40, naming.text(label, 32))
  put(80, both32(sectors))
  if (type === 2) put(88, Buffer.from(escapeUcs2Level3, 'latin1'))
  put(120, both16(1))
  put(124, both16(1))
  put(128, both16(sectorBytes))
  put(132, both32(pathTableBytes))
  block.writeUInt32LE(tree.littlePathTable, 140)
  block.writeUInt32BE(tree.bigPathTable, 148)
  put(156, directoryRecord(Buffer.from([0]), tree.directory, sectorBytes, true, made))
  put(190, naming.text('', 128 * 4))
  put(702, naming.text('', 37 * 3))
  put(813, longDate(made))
  put(830, longDate(made))
  put(847, noDate)
  put(864, noDate)
  block[881] = 1
  return block
}

const pathTableBytes = 10

function pathTable(directorySector: number, order: 'little' | 'big'): Buffer {
  const table = Buffer.alloc(pathTableBytes)
  table[0] = 1
  if (order === 'little') {
    table.writeUInt32LE(directorySector, 2)
    table.writeUInt16LE(1, 6)
  } else {
    table.writeUInt32BE(directorySector, 2)
    table.writeUInt16BE(1, 6)
  }
  return table
}

function directory(sector: number, files: readonly PlacedFile[], naming: Naming, made: Date): Buffer {
  const self = directoryRecord(Buffer.from([0]), sector, sectorBytes, true, made)
  const parent = directoryRecord(Buffer.from([1]), sector, sectorBytes, true, made)
  const records = files.map((file) =>
    directoryRecord(naming.encode(file.name), file.sector, file.content.length, false, made),
  )
  const whole = Buffer.concat([self, parent, ...records])
  if (whole.length > sectorBytes) throw new RangeError(`${files.length} files do not fit into one sector of directory`)
  return whole
}

function directoryRecord(id: Buffer, sector: number, bytes: number, isDirectory: boolean, made: Date): Buffer {
  const record = Buffer.alloc(33 + id.length + ((id.length + 1) & 1))
  record[0] = record.length
  record.set(both32(sector), 2)
  record.set(both32(bytes), 10)
  const date = [
    made.getUTCFullYear() - 1900,
    made.getUTCMonth() + 1,
    made.getUTCDate(),
    made.getUTCHours(),
    made.getUTCMinutes(),
  ]
  record.set([...date, made.getUTCSeconds(), 0], 18)
  record[25] = isDirectory ? 2 : 0
  record.set(both16(1), 28)
  record[32] = id.length
  record.set(id, 33)
  return record
}

const noDate = Buffer.from(`${'0'.repeat(16)}\0`, 'latin1')

function longDate(date: Date): Buffer {
  const digits = date
    .toISOString()
    .replace(/[^0-9]/g, '')
    .slice(0, 16)
  return Buffer.from(`${digits}\0`, 'latin1')
}

/** A number in both byte orders, as the format has nearly all of its numbers. */
function both32(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32LE(value, 0)
  bytes.writeUInt32BE(value, 4)
  return bytes
}

function both16(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt16LE(value, 0)
  bytes.writeUInt16BE(value, 2)
  return bytes
}

function bigEndianUtf16(text: string): Buffer {
  return Buffer.from(text, 'utf16le').swap16()
}
