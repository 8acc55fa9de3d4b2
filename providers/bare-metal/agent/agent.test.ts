import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import {
  agentCommandLine,
  agentPaths,
  type Authority,
  type ImageSource,
  type Order,
  type OrderResult,
} from '../src/agent/protocol.js'
import { ensureAgentImage } from './image/agent.js'
import { Desk } from './testing/desk.js'
import { Machine } from './testing/machine.js'
import { Rehearsal, type RehearsalDisk } from './testing/rehearsal.js'
import { cacheFolder, missingFor } from './testing/needs.js'

// The real agent over disks that the host looks into: its scripts and programs alone where it is about what goes wrong, and once on a kernel of its own.

const run = promisify(execFile)
const skip =
  missingFor(['apt-get', 'dpkg-deb', 'qemu-system-x86_64', 'qemu-img', 'sfdisk', 'mcopy', 'zstd', 'busybox']) ||
  (process.getuid?.() !== 0 && 'needs root, for loop devices')
const mib = 1024 * 1024
const mac = '52:54:00:12:34:56'

async function until<Result>(
  what: string,
  check: () => Result | undefined | false | Promise<Result | undefined | false>,
  timeoutMs = 300_000,
): Promise<Result> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const result = await check()
    if (result !== undefined && result !== false) return result
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`)
    await sleep(100)
  }
}

let built: ReturnType<typeof ensureAgentImage> | undefined
const agentImage = () => (built ??= ensureAgentImage({ flavour: 'cloud', cacheDir: cacheFolder }))

async function rehearse(t: Test, disks: readonly RehearsalDisk[]) {
  const desk = new Desk()
  const port = await desk.start()
  t.teardown(() => desk.stop())
  const { initrd } = await agentImage()
  const server = `http://127.0.0.1:${port}`
  const rehearsal = await Rehearsal.start(t, {
    initrd,
    disks,
    commandLine: agentCommandLine({ server, token: desk.token, bootMac: mac }),
  })
  const ended = (id: string): Promise<OrderResult> =>
    until(`the end of ${id}`, () => {
      const result = desk.resultOf(id)
      if (result === undefined && !rehearsal.running) throw new Error(`the agent ended: ${rehearsal.said}`)
      return result
    })
  return { desk, server, port, rehearsal, ended, give: (order: Order) => desk.orders.push(order) }
}

const authority: Authority = { item: 'machines/m-1', operation: 'CLEAN', generation: '3', fence: '12' }

const secret = 'THE-LAST-TENANT-WAS-HERE'

/** Plants bytes of a tenant all over a disk: at its ends, and every MiB. */
async function plant(file: string): Promise<void> {
  const disk = await open(file, 'r+')
  const { size } = await disk.stat()
  for (let at = 0; at < size; at += mib) await disk.write(secret, at)
  await disk.write(secret, size - secret.length)
  await disk.close()
}

async function planted(file: string): Promise<number> {
  return (await readFile(file)).toString('latin1').split(secret).length - 1
}

/** A disk image as tenants bring them: a table, a partition that UEFI boots from, and what is in it. */
async function makeImage(folder: string): Promise<Buffer> {
  const file = join(folder, 'image.raw')
  await writeFile(file, '')
  await truncate(file, 12 * mib)
  const table = 'label: gpt\nstart=2048, size=8192, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\nstart=10240, size=8192\n'
  await run('sh', ['-c', 'printf "%s" "$2" | sfdisk -q "$1"', '-', file, table])
  const image = await readFile(file)
  randomBytes(3 * mib).copy(image, mib + 4096)
  randomBytes(2 * mib).copy(image, 5 * mib + 512)
  return image
}

const sha256 = (content: Buffer) => createHash('sha256').update(content).digest('hex')

/** What lies in the image's partitions: all of it but the tables, which grow with the disk. */
const partitions = (content: Buffer) => content.subarray(mib, 9 * mib)

const virtio = { name: 'vda', serial: 'VIRTIO-1', sizeMib: 48 }
const other = { name: 'vdb', serial: 'VIRTIO-2', sizeMib: 64 }
const target = ({ name, serial, sizeMib }: RehearsalDisk) => ({ name, serial, sizeBytes: sizeMib * mib })

void t.test('it says what the machine is made of, and takes no token twice', { skip, timeout: 300_000 }, async (t) => {
  const { desk, server, rehearsal } = await rehearse(t, [virtio, other])
  rehearsal.begin()
  t.match(await until('the inventory', () => desk.inventories[0]), {
    cpu: { model: 'Rehearsal "CPU"', count: 1, sockets: 1, architecture: 'amd64' },
    memoryBytes: 1024 * mib,
    dmi: { vendor: 'Re"hearsal\\ Inc.', serial: 'R-1', uuid: '9d5a1f4e-7c0b-4a57-9a1c-0c0ffee00002' },
    firmware: { mode: 'bios', secureBoot: false },
    bootMac: mac,
    disks: [
      { ...target(virtio), transport: 'virtio', rotational: false, logicalBlockBytes: 512 },
      { ...target(other), model: '', wwn: '' },
    ],
  })
  const replayed = await fetch(`${server}${agentPaths.session}`, {
    method: 'POST',
    body: JSON.stringify({ version: 1, token: desk.token }),
  })
  t.equal(replayed.status, 403)
  t.notMatch(rehearsal.said, desk.token, 'its console does not tell the token')
  desk.orders.push({ kind: 'inspect', id: 'again' }, { kind: 'power-off' })
  await until('the end', () => !rehearsal.running)
  t.same(desk.resultOf('again'), { outcome: 'done' })
  t.equal(desk.inventories.length, 2)
  t.match(await rehearsal.note('fake/ended'), /poweroff/)
  t.match(desk.console, /ordered to poweroff/, 'its console was sent to the end')
  t.same(desk.violations, [])
})

void t.test('a token that is refused is the end of a boot', { skip, timeout: 300_000 }, async (t) => {
  const { desk, rehearsal } = await rehearse(t, [virtio])
  desk.judge = (question) => (question === 'session' ? 403 : undefined)
  rehearsal.begin()
  await until('the end', () => !rehearsal.running)
  t.match(rehearsal.said, /refuses this boot \(403\)/)
  t.same(desk.inventories, [], 'it says nothing more')
})

void t.test('only an order that stands touches a disk', { skip, timeout: 300_000 }, async (t) => {
  const { desk, rehearsal, give, ended } = await rehearse(t, [virtio, other])
  for (const { name } of [virtio, other]) await plant(rehearsal.fileOf(name))
  const untouched = async () =>
    t.same(await Promise.all([virtio, other].map(({ name }) => planted(rehearsal.fileOf(name)))), [49, 65])
  rehearsal.begin()

  desk.judge = (question) => (question === 'confirm' ? 409 : undefined)
  give({ kind: 'wipe', id: 'stale', authority, method: 'overwrite' })
  t.match(await ended('stale'), { outcome: 'failed', code: 'superseded' })
  t.same(desk.confirmations[0]?.authority, authority, 'it said under which fence it was ordered')
  await untouched()

  const file = desk.addFile('image', await makeImage(rehearsal.folder))
  const image = { url: `${desk.url}${file.path}`, format: 'raw', compression: 'none', sha256: file.sha256 } as const
  give({ kind: 'install', id: 'stale-install', authority, disk: target(virtio), image, efiEntry: false })
  t.match(await ended('stale-install'), { code: 'superseded' })
  await untouched()

  for (const unsure of [503, 'silence'] as const) {
    desk.judge = (question) => (question === 'confirm' ? unsure : undefined)
    const before = desk.confirmations.length
    give({ kind: 'wipe', id: `unsure-${unsure}`, authority, method: 'overwrite' })
    await until('it to ask', () => desk.confirmations.length > before)
    if (unsure === 503) await until('it to ask again', () => desk.confirmations.length > before + 4)
    await untouched()
    desk.judge = (question) => (question === 'confirm' ? 409 : undefined)
    desk.drop()
    t.match(await ended(`unsure-${unsure}`), { code: 'superseded' })
  }

  desk.judge = () => undefined
  desk.beginWithinMs = 0
  const before = desk.confirmations.length
  give({ kind: 'wipe', id: 'late', authority, method: 'overwrite' })
  await until('it to ask again, as every answer is too old', () => desk.confirmations.length > before + 4)
  await untouched()
  desk.beginWithinMs = 10_000
  t.match(await ended('late'), { outcome: 'done' }, 'and it begins as soon as one is fresh')
  t.same(await Promise.all([virtio, other].map(({ name }) => planted(rehearsal.fileOf(name)))), [0, 0])
})

void t.test(
  'what is under way is broken off by anybody’s word, and by nobody’s silence',
  { skip, timeout: 300_000 },
  async (t) => {
    const { desk, rehearsal, give, ended } = await rehearse(t, [virtio])
    await plant(rehearsal.fileOf('vda'))
    // A disk that takes its time: the test says when it is done.
    await rehearsal.sys('block/vda/queue/discard_max_bytes', '4096\n')
    await rehearsal.fake(
      'blkdiscard',
      'echo begun >>/fake/discard; while [ ! -e /fake/go ]; do sleep 0.1; done; exec /usr/bin/blkdiscard "$@"',
    )
    rehearsal.begin()
    give({ kind: 'wipe', id: 'broken', authority, method: 'best' })
    await until('it to be under way', async () => (await rehearsal.note('fake/discard')) !== '')
    desk.judge = (question) => (question === 'confirm' ? 409 : undefined)
    t.match(await ended('broken'), { code: 'superseded' })
    t.equal(await planted(rehearsal.fileOf('vda')), 49)

    desk.judge = () => undefined
    give({ kind: 'wipe', id: 'alone', authority, method: 'best' })
    await until(
      'it to be under way again',
      async () => (await rehearsal.note('fake/discard')).split('begun').length > 2,
    )
    desk.judge = () => 503
    await until('it to have spoken in vain', () => desk.asked.filter((each) => each === 'heartbeat 503').length > 2)
    await rehearsal.put('fake/go', '')
    await until('the wipe to be done while nobody answers', async () => (await planted(rehearsal.fileOf('vda'))) === 0)
    await until('it to offer its result in vain', () => desk.asked.filter((each) => each === 'result 503').length > 2)
    desk.judge = () => undefined
    t.match(
      await ended('alone'),
      { outcome: 'done', disks: [{ name: 'vda', wiped: true }] },
      'its result waits for whoever comes next',
    )
  },
)

void t.test('an unknown session is left, with all that was under way', { skip, timeout: 300_000 }, async (t) => {
  const { desk, rehearsal, give } = await rehearse(t, [virtio])
  await plant(rehearsal.fileOf('vda'))
  rehearsal.begin()
  desk.judge = (question) => (question === 'confirm' || question === 'heartbeat' ? 401 : undefined)
  give({ kind: 'wipe', id: 'lost', authority, method: 'overwrite' })
  await until('the end', () => !rehearsal.running)
  t.match(rehearsal.said, /does not know this session/)
  t.equal(await planted(rehearsal.fileOf('vda')), 49)
})

void t.test('a raw image, packed, with a seed', { skip, timeout: 300_000 }, async (t) => {
  const { desk, rehearsal, give, ended } = await rehearse(t, [virtio])
  const image = await makeImage(rehearsal.folder)
  rehearsal.begin()
  const file = desk.addFile('image.raw.gz', gzipSync(image))
  give({
    kind: 'install',
    id: 'raw',
    authority,
    disk: target(virtio),
    image: { url: `${desk.url}${file.path}`, format: 'raw', compression: 'gzip', sha256: file.sha256 },
    seed: {
      label: 'cidata',
      files: [
        { path: 'user-data', base64: Buffer.from('#cloud-config\n').toString('base64') },
        { path: 'openstack/latest/meta_data.json', base64: Buffer.from('{}').toString('base64') },
      ],
    },
    efiEntry: true,
  })
  t.match(await ended('raw'), { outcome: 'done', sha256: file.sha256 })
  const disk = rehearsal.fileOf('vda')
  t.ok(partitions(await readFile(disk)).equals(partitions(image)), 'is on the disk as it was ordered')
  const { stdout } = await run('sfdisk', ['--json', disk])
  const { partitiontable: table } = JSON.parse(stdout) as {
    partitiontable: { partitions: { name?: string; start: number }[]; lastlba: number }
  }
  t.equal(table.partitions.length, 3)
  t.ok(table.lastlba > 90_000, 'its table knows the whole disk')
  const at = `${disk}@@${(table.partitions.find(({ name }) => name === 'cidata')?.start ?? 0) * 512}`
  t.equal((await run('mcopy', ['-i', at, '::user-data', '-'])).stdout, '#cloud-config\n')
  t.equal((await run('mcopy', ['-i', at, '::openstack/latest/meta_data.json', '-'])).stdout, '{}')
  t.match(
    (await run('blkid', ['-p', '-o', 'export', '--offset', at.split('@@')[1] ?? '', disk])).stdout,
    /LABEL=cidata/i,
  )
  t.match((await run('sfdisk', ['--verify', disk])).stdout, /No errors/)
  t.same(desk.violations, [])
})

void t.test('a qcow2 image, and what pretends to be one', { skip, timeout: 300_000 }, async (t) => {
  const { desk, rehearsal, give, ended } = await rehearse(t, [virtio, other])
  const image = await makeImage(rehearsal.folder)
  const raw = join(rehearsal.folder, 'image.raw')
  await writeFile(raw, image)
  await plant(rehearsal.fileOf('vdb'))
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, `${raw}.qcow2`])
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-u', '-b', '/etc/passwd', '-F', 'raw', `${raw}.thin`, '1M'])
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', `${raw}.large`, '1G'])
  rehearsal.begin()
  const order = async (id: string, name: string): Promise<Buffer> => {
    const content = await readFile(name)
    const file = desk.addFile(id, content)
    const source = {
      url: `${desk.url}${file.path}`,
      format: 'qcow2',
      compression: 'none',
      sha256: file.sha256,
    } as const
    give({ kind: 'install', id, authority, disk: target(other), image: source, efiEntry: false })
    return content
  }
  const packed = await order('qcow2', `${raw}.qcow2`)
  t.match(await ended('qcow2'), { outcome: 'done', sha256: sha256(packed) })
  const content = await readFile(rehearsal.fileOf('vdb'))
  t.ok(content.subarray(0, image.length).equals(image), 'is on the disk, unpacked')
  t.notOk(content.includes(packed.subarray(0, 104)), 'and nothing of the packed one is left')
  await order('thin', `${raw}.thin`)
  t.match(await ended('thin'), { code: 'image-invalid', message: /another file/ })
  await order('large', `${raw}.large`)
  t.match(await ended('large'), { code: 'image-invalid', message: /has room for/ })
  await order('no-qcow2', raw)
  t.match(await ended('no-qcow2'), { code: 'image-invalid' })
})

void t.test('what can’t be installed does not boot', { skip, timeout: 300_000 }, async (t) => {
  const { desk, rehearsal, give, ended } = await rehearse(t, [virtio])
  const image = await makeImage(rehearsal.folder)
  const disk = rehearsal.fileOf('vda')
  await writeFile(disk, image)
  await truncate(disk, virtio.sizeMib * mib)
  rehearsal.begin()
  const file = desk.addFile('image.raw', image)
  const url = `${desk.url}${file.path}`
  const good = { url, format: 'raw', compression: 'none', sha256: file.sha256 } as const
  const cases: readonly [string, Partial<Extract<Order, { kind: 'install' }>>, object][] = [
    ['other', { disk: { ...target(virtio), serial: 'X' } }, { code: 'wrong-disk', message: /VIRTIO-1/ }],
    ['gone', { disk: { ...target(virtio), name: 'sdz' } }, { code: 'wrong-disk', message: /no disk sdz/ }],
    ['size', { disk: { ...target(virtio), sizeBytes: 5 } }, { code: 'wrong-disk', message: /50331648 bytes/ }],
    ['nowhere', { image: { ...good, url: `${url}-not` } }, { code: 'image-unavailable', message: /404/ }],
  ]
  for (const [id, change, result] of cases) {
    give({ kind: 'install', id, authority, disk: target(virtio), image: good, efiEntry: false, ...change })
    t.match(await ended(id), { outcome: 'failed', ...result }, id)
  }
  t.ok((await readFile(disk)).subarray(0, image.length).equals(image), 'what is there is left alone')

  const broken: readonly [string, Partial<ImageSource>, object][] = [
    ['spoilt', { sha256: 'f'.repeat(64) }, { code: 'checksum-mismatch', message: new RegExp(sha256(image)) }],
    ['packed', { compression: 'gzip' }, { code: 'image-invalid' }],
  ]
  for (const [id, change, result] of broken) {
    give({ kind: 'install', id, authority, disk: target(virtio), image: { ...good, ...change }, efiEntry: false })
    t.match(await ended(id), { outcome: 'failed', ...result }, id)
  }
  const content = await readFile(disk)
  t.ok(content.subarray(0, mib).equals(Buffer.alloc(mib)), 'neither a table nor a loader at the beginning')
  t.ok(content.subarray(-mib).equals(Buffer.alloc(mib)), 'nor a copy of the table at the end')
  await writeFile(`${disk}.large`, randomBytes(50 * mib))
  const large = desk.addFile('large', await readFile(`${disk}.large`))
  give({
    kind: 'install',
    id: 'large',
    authority,
    disk: target(virtio),
    image: { ...good, url: `${desk.url}${large.path}`, sha256: large.sha256 },
    efiEntry: false,
  })
  t.match(await ended('large'), { code: 'image-invalid', message: /does not fit/ })
})

void t.test('each disk is wiped by the best that it offers and that holds', { skip, timeout: 300_000 }, async (t) => {
  const sata = { name: 'sda', serial: 'SATA-1', sizeMib: 16 }
  const frozen = { name: 'sdb', serial: 'SATA-2', sizeMib: 16 }
  const nvme = { name: 'nvme0n1', serial: 'NVME-1', sizeMib: 16 }
  const liar = { name: 'nvme1n1', serial: 'NVME-2', sizeMib: 16 }
  const { desk, rehearsal, give, ended } = await rehearse(t, [sata, frozen, nvme, liar])
  for (const { name } of [sata, frozen, nvme, liar]) await plant(rehearsal.fileOf(name))
  // Drives as their makers and standards have them, as far as the agent asks: one that knows its trade, one that the firmware has frozen, and one that only says so.
  const security = (state: string) =>
    `echo "Security: "; printf "\\tMaster password revision code = 65534\\n\\t\\tsupported\\n\\tnot\\tenabled\\n\\tnot\\tlocked\\n\\t${state}\\n\\tnot\\texpired: security count\\n\\t\\tsupported: enhanced erase\\n"; echo "Logical Unit"`
  await rehearsal.fake(
    'hdparm',
    `echo "$*" >>/fake/hdparm; for device; do :; done
case "$*" in
  "-I "*sda) ${security('not\\tfrozen')} ;;
  "-I "*sdb) ${security('\\tfrozen')} ;;
  *--security-set-pass*) ;;
  *--security-erase-enhanced*) echo "bad/missing sense data" >&2; exit 5 ;;
  *--security-disable*) ;;
  *"--security-erase "*) dd if=/dev/urandom of=$device bs=1048576 count=16 conv=notrunc ;;
esac`,
  )
  await rehearsal.fake(
    'nvme',
    `echo "$*" >>/fake/nvme; for device; do :; done
case "$1" in
  id-ctrl) case $device in *nvme0n1) echo '{"sanicap": 2, "oacs": 2, "fna": 4}' ;; *) echo '{"sanicap": 0, "oacs": 2, "fna": 0}' ;; esac ;;
  sanitize) dd if=/dev/zero of=$device bs=1048576 count=16 conv=notrunc ;;
  sanitize-log) n=$(cat /fake/sanitized 2>/dev/null); echo "x$n" >/fake/sanitized; if [ "$n" = xx ]; then echo '{"sstat": {"status": "(1) Completed"}}'; else echo '{"sstat": 2}'; fi ;;
  format) echo "Success formatting namespace:1" ;;
esac`,
  )
  rehearsal.begin()
  give({ kind: 'wipe', id: 'best', authority, method: 'best' })
  const result = await ended('best')
  t.match(result, { outcome: 'done' })
  const disks = new Map(result.disks?.map((disk) => [disk.serial, disk]))
  const stepsOf = ({ serial }: RehearsalDisk) => disks.get(serial)?.steps.map(({ step, ok }) => `${step} ${ok}`)
  t.same(stepsOf(sata), ['ata-secure-erase-enhanced false', 'ata-secure-erase true'])
  t.match(disks.get('SATA-1')?.readBack, { unchanged: 0, zero: 0 }, 'random bytes are as good as zeroes')
  t.match(await rehearsal.note('fake/hdparm'), /--security-disable slipway \S*sda/, 'no password was left behind')
  t.same(stepsOf(frozen), ['overwrite true'])
  t.same(stepsOf(nvme), ['nvme-sanitize-block true'])
  t.same(
    stepsOf(liar),
    ['nvme-format-user-data false', 'overwrite true'],
    'what only says that it is done is found out',
  )
  t.match(disks.get('NVME-2')?.steps[0]?.message, /read as before/)
  const left = await Promise.all([sata, frozen, nvme, liar].map(({ name }) => planted(rehearsal.fileOf(name))))
  t.same(left, [0, 0, 0, 0])
  t.same(desk.violations, [])
})

void t.test('a disk that keeps its data is told of, and fails the whole', { skip, timeout: 300_000 }, async (t) => {
  const { rehearsal, give, ended } = await rehearse(t, [virtio, other])
  for (const { name } of [virtio, other]) await plant(rehearsal.fileOf(name))
  await rehearsal.fake('dd', 'case "$*" in *of=/fake/dev/vdb*) cat >/dev/null; exit 0 ;; esac; exec /bin/dd "$@"')
  rehearsal.begin()
  give({ kind: 'wipe', id: 'sick', authority, method: 'overwrite' })
  const result = await ended('sick')
  t.match(result, { outcome: 'failed', code: 'wipe-failed', message: /vdb/ })
  const [one, two] = result.disks ?? []
  t.match(one, { name: 'vda', wiped: true })
  t.match(two, { name: 'vdb', wiped: false, steps: [{ step: 'overwrite', ok: false, message: /read as before/ }] })
  t.ok((two?.readBack.unchanged ?? 0) > 0)
})

void t.test('an agent on a kernel of its own', { skip, timeout: 600_000 }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'slipway-agent-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const desk = new Desk()
  const port = await desk.start()
  t.teardown(() => desk.stop())
  const disks = (['nvme', 'virtio'] as const).map((kind) => ({ kind, serial: `${kind}-1`, file: join(folder, kind) }))
  for (const { file } of disks) {
    await writeFile(file, Buffer.alloc(32 * mib))
    await plant(file)
  }
  const image = await agentImage()
  desk.orders.push({ kind: 'wipe', id: 'wipe', authority, method: 'best' }, { kind: 'power-off' })
  const extra = 'no_timer_check'
  const server = `http://10.0.2.2:${port}`
  const commandLine = agentCommandLine({ server, token: desk.token, bootMac: mac, console: 'ttyS0,115200', extra })
  const machine = new Machine(t, folder, { ...image, mac, commandLine, disks })
  await until('the machine to have switched itself off', () => !machine.running, 540_000)
  t.match(desk.inventories[0], {
    cpu: { count: 1, architecture: 'amd64' },
    memoryBytes: 512 * mib,
    dmi: { vendor: 'Slipway', serial: 'TEST-1', uuid: '9d5a1f4e-7c0b-4a57-9a1c-0c0ffee00001' },
    firmware: { mode: 'bios', vendor: 'SeaBIOS' },
    nics: [{ mac, link: true, driver: 'virtio_net' }],
    disks: [
      { name: 'nvme0n1', serial: 'nvme-1', transport: 'nvme', wwn: /^nvme\./ },
      { name: 'vda', serial: 'virtio-1' },
    ],
  })
  const result = desk.resultOf('wipe')
  t.match(result, { outcome: 'done' })
  t.same(
    result?.disks?.map(({ steps }) => steps.at(-1)?.step),
    ['nvme-format-user-data', 'discard'],
  )
  t.same(await Promise.all(disks.map(({ file }) => planted(file))), [0, 0])
  t.match(desk.console, /ordered to poweroff/, 'its console was sent to the end')
  t.same(desk.violations, [])
})
