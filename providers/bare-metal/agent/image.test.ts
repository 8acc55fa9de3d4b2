import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { cpioArchive, modes, type Entry } from './image/cpio.js'
import { moduleName, parseTables, renderTables, selectModules } from './image/modules.js'
import { parseUris } from './image/packages.js'
import { ensureAgentImage } from './image/agent.js'
import { buildTools, missingFor } from './testing/needs.js'

void t.test('an archive is the same, however its entries come', async (t) => {
  const path = fc.stringMatching(/^[a-z]{1,4}(\/[a-z]{1,4}){0,3}$/)
  const entry = fc.record({
    path,
    mode: fc.constantFrom(modes.file, modes.program),
    data: fc.uint8Array({ maxLength: 9 }),
  })
  fc.assert(
    fc.property(fc.uniqueArray(entry, { selector: ({ path }) => path, maxLength: 12 }), (list) => {
      const entries: Entry[] = list.map(({ data, ...rest }) => ({ ...rest, data: Buffer.from(data) }))
      const archive = cpioArchive(entries)
      return archive.equals(cpioArchive([...entries].reverse())) && archive.length % 4 === 0
    }),
  )
  t.throws(() => cpioArchive([{ path: '/etc', mode: modes.folder }]), RangeError)
  t.throws(
    () =>
      cpioArchive([
        { path: 'a', mode: modes.file },
        { path: 'a', mode: modes.file },
      ]),
    /twice/,
  )
})

void t.test('an archive is what the kernel reads', async (t) => {
  const archive = cpioArchive([{ path: 'bin/x', mode: modes.program, data: Buffer.from('hello') }])
  const [folder, file] = [archive.subarray(0, 110), archive.subarray(116)]
  t.equal(folder.subarray(0, 6).toString(), '070701')
  t.equal(archive.subarray(110, 114).toString(), 'bin\0', 'the folder comes before what is in it')
  t.equal(Number.parseInt(folder.subarray(14, 22).toString(), 16), modes.folder)
  t.equal(Number.parseInt(file.subarray(54, 62).toString(), 16), 5, 'the length of the content')
  t.equal(file.subarray(110, 116).toString(), 'bin/x\0')
  t.equal(file.subarray(116, 121).toString(), 'hello')
  t.ok(archive.includes('TRAILER!!!\0'))
})

void t.test('of a kernel’s modules those are taken that are asked for, with what they need', async (t) => {
  const tables = parseTables(
    'kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko: kernel/drivers/ptp/ptp.ko\nkernel/drivers/ptp/ptp.ko:\nkernel/drivers/scsi/st.ko.xz:\nkernel/fs/nls/nls-x.ko:\n',
    '# comment\nalias pci:v8086 e1000e\nalias scsi:t-0x01* st\nalias nls_x nls_x\n',
  )
  const taken = selectModules(tables, {
    folders: ['drivers/net/ethernet/', 'drivers/scsi/'],
    names: ['nls_x'],
    except: ['drivers/scsi/st.'],
  })
  t.same(taken.map(moduleName), ['e1000e', 'ptp', 'nls_x'])
  t.same(
    renderTables(tables, taken, (path) => `${moduleName(path)}.ko`),
    {
      dep: 'e1000e.ko: ptp.ko\nptp.ko:\nnls_x.ko:\n',
      alias: 'alias nls_x nls_x\nalias pci:v8086 e1000e\n',
    },
  )
})

void t.test('what apt says is read, or refused', async (t) => {
  const line = "'http://deb.example/libc6_2.36-9%2bdeb12u14_amd64.deb' libc6_1%3a2.36_amd64.deb 2759320 SHA256:ba4f"
  t.same(parseUris(`${line}\nE: nothing\n`), [
    { name: 'libc6', version: '1:2.36', digest: 'SHA256:ba4f', fileName: 'libc6_1%3a2.36_amd64.deb' },
  ])
  t.throws(() => parseUris("'http://deb.example/x.deb' x_1_amd64.deb 1 "), /not understood/)
})

const missing = missingFor(buildTools)

void t.test('built twice, the image has the same bytes', { skip: missing, timeout: 900_000 }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'slipway-agent-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const digestOf = async (cacheDir: string) => {
    const image = await ensureAgentImage({ flavour: 'cloud', cacheDir })
    const content = await Promise.all([image.kernel, image.initrd].map((file) => readFile(file)))
    return { image, bytes: content.map((part) => createHash('sha256').update(part).digest('hex')) }
  }
  const [one, other] = [await digestOf(join(folder, 'one')), await digestOf(join(folder, 'other'))]
  t.same(one.bytes, other.bytes)
  t.equal(one.image.digest, other.image.digest)
  t.equal(
    (await ensureAgentImage({ flavour: 'cloud', cacheDir: join(folder, 'one') })).initrd,
    one.image.initrd,
    'and is kept',
  )
})
