import t from 'tap'
import { parse } from 'yaml'
import { SimMachine } from '../testing/sim-machine.js'
import type { InventoryDisk } from './agent/protocol.js'
import { configSchema, credentialsSchema, dataSchema } from './config.js'
import { chooseDisk, describeMiss } from './disks.js'
import { IdentityMismatch, MachineBook } from './machine-book.js'
import { keysProblem, noCloudFiles, seedFor } from './seed.js'

const boot = { address: '10.0.0.2' }
const bmc = { kind: 'ipmi', address: '10.9.0.1' }
const faultsOf = (config: object): readonly string[] =>
  configSchema.safeParse({ boot, ...config }).error?.issues.map(({ path }) => path.join('.')) ?? []

void t.test('configuration', (t) => {
  t.match(configSchema.parse({ boot, machines: [{ id: 'a', macs: ['52-54-00-AB-CD-01'], bmc }] }), {
    boot: { port: 8080, tftpPort: 69, dhcp: { mode: 'proxy' } },
    machines: [{ macs: ['52:54:00:ab:cd:01'], bootMode: 'uefi', inUse: false }],
    discovery: { enabled: true, unmatched: 'show' },
    timeouts: { bootTries: 3 },
  })
  const bad: [string, object, string][] = [
    ['an address that is none', { boot: { address: 'here' } }, 'boot.address'],
    [
      'two machines of one name',
      {
        machines: [
          { id: 'a', macs: ['52:54:00:00:00:01'], bmc },
          { id: 'a', macs: ['52:54:00:00:00:02'], bmc },
        ],
      },
      'machines.1',
    ],
    [
      'two machines of one card',
      {
        machines: [
          { id: 'a', macs: ['52:54:00:00:00:01'], bmc },
          { id: 'b', macs: ['52:54:00:00:00:01'], bmc },
        ],
      },
      'machines.1',
    ],
    ['a machine that nobody could know', { machines: [{ id: 'a', bmc }] }, 'machines.0'],
    ['a group of machines', { machines: [{ id: 'a', macs: ['01:00:5e:00:00:01'], bmc }] }, 'machines.0.macs.0'],
    [
      'a path for a file',
      { images: { a: { file: '../etc/passwd', format: 'raw', sha256: '0'.repeat(64) } } },
      'images.a.file',
    ],
    [
      'a file of the host',
      { images: { a: { url: 'file:///etc/passwd', format: 'raw', sha256: '0'.repeat(64) } } },
      'images.a.url',
    ],
    ['an image without a checksum', { images: { a: { file: 'a', format: 'raw' } } }, 'images.a.sha256'],
    ['an image from nowhere', { images: { a: { format: 'raw', sha256: '0'.repeat(64) } } }, 'images.a'],
    ['settings of iPXE in arguments', { netboot: { a: { kernel: 'k', args: '${net0/mac}' } } }, 'netboot.a.args'],
    [
      'a pool from its end',
      { boot: { ...boot, dhcp: { mode: 'full', network: '10.0.0.0/24', from: '10.0.0.9', to: '10.0.0.8' } } },
      'boot.dhcp.to',
    ],
    ['a rule that fits everything', { discovery: { rules: [{ name: 'a' }] } }, 'discovery.rules.0'],
    ['a misspelt key', { boots: {} }, ''],
  ]
  for (const [what, config, field] of bad)
    t.ok(faultsOf(config).includes(field), `${what}: ${faultsOf(config).join(', ')}`)
  t.ok(dataSchema.safeParse({ image: 'a', netboot: 'b' }).error, 'an image and a netboot class')
  t.same(credentialsSchema.parse({}), { bmc: {} })
  t.type(configSchema['~standard'].jsonSchema.input({ target: 'draft-2020-12' }), 'object')
  t.end()
})

const gib = 1024 ** 3
function disk(name: string, sizeGib: number, more: Partial<InventoryDisk> = {}): InventoryDisk {
  return {
    name,
    sizeBytes: sizeGib * gib,
    serial: `S-${name}`,
    wwn: '',
    model: '',
    firmware: '',
    rotational: false,
    transport: 'sata',
    logicalBlockBytes: 512,
    ...more,
  }
}

void t.test('the disk is the least surprising one', (t) => {
  const disks = [
    disk('sda', 4_000, { rotational: true }),
    disk('sdb', 480),
    disk('sdc', 240),
    disk('sdd', 240),
    disk('sde', 16, { transport: 'usb' }),
    disk('nvme0n1', 960, { transport: 'nvme' }),
  ]
  t.equal(chooseDisk(disks, {}, 0)?.name, 'sdc')
  t.equal(chooseDisk([...disks].reverse(), {}, 0)?.name, 'sdc', 'in whichever order they are found')
  t.equal(chooseDisk(disks, {}, 300)?.name, 'sdb')
  t.equal(chooseDisk(disks, { class: 'nvme' }, 0)?.name, 'nvme0n1')
  t.equal(chooseDisk(disks, { class: 'hdd' }, 0)?.name, 'sda')
  t.equal(chooseDisk(disks, {}, 2_000)?.name, 'sda', 'one that turns only where nothing else will do')
  t.equal(chooseDisk(disks, { serial: 'S-sde' }, 0)?.name, 'sde', 'on USB only by name')
  t.equal(chooseDisk(disks, { minGib: 500, maxGib: 900 }, 0), undefined)
  t.match(
    describeMiss(disks, { class: 'nvme' }, 2_000),
    /no disk fits \(class nvme, minGib 2000\); there are sda \(hdd, 4000 GiB/,
  )
  t.end()
})

void t.test('who a machine is', (t) => {
  const sim = (id: string, number: number, serial = `SN-${id}`) =>
    new SimMachine({
      id,
      mac: `52:54:00:00:00:0${number}`,
      uuid: `0000000${number}-0000-4000-8000-000000000000`,
      serial,
      endpoints: () => [],
    })
  const config = configSchema.parse({
    boot,
    machines: [
      { id: 'a', serial: 'SN-a', bmc },
      { id: 'b', macs: ['52:54:00:00:00:02'], bmc },
    ],
  })
  const book = new MachineBook(config)
  const [a, b, c] = [sim('a', 1), sim('b', 2), sim('c', 3)]
  t.equal(book.meet({ bootId: '1', mac: a.mac }, a.inventory()), 'a', 'by its serial number')
  t.same(book.find('a')?.macs, [a.mac], 'and from then on by its card')
  t.ok(book.isKnownMac(a.mac))
  const pretender = sim('x', 4, 'SN-a')
  t.not(
    book.meet({ bootId: '2', mac: pretender.mac }, pretender.inventory()),
    'a',
    'nobody becomes a machine that is known by saying so',
  )
  t.equal(book.meet({ bootId: '3', mac: b.mac, machineId: 'b' }, b.inventory()), 'b')
  const swapped = { ...b.inventory(), dmi: { ...b.inventory().dmi, uuid: c.uuid } }
  t.throws(() => book.meet({ bootId: '4', mac: b.mac, machineId: 'b' }, swapped), IdentityMismatch)
  const found = book.meet({ bootId: '5', mac: c.mac }, c.inventory())
  t.equal(found, c.uuid)
  t.notOk(book.isKnownMac(c.mac), 'a stranger may boot again')
  book.note(found, { claimed: true })
  t.ok(book.isKnownMac(c.mac), 'until somebody works on it')
  const twin = new SimMachine({ id: 'd', mac: '52:54:00:00:00:09', uuid: c.uuid, serial: 'SN-d', endpoints: () => [] })
  t.equal(
    book.meet({ bootId: '6', mac: twin.mac }, twin.inventory()),
    'mac-525400000009',
    'a UUID that two have names neither',
  )
  t.same(
    new MachineBook(config, book.snapshot())
      .list()
      .map(({ id }) => id)
      .sort(),
    book
      .list()
      .map(({ id }) => id)
      .sort(),
  )
  t.end()
})

void t.test('seeds', (t) => {
  const bootstrap = {
    hostname: 'web-1',
    userData: '',
    phoneHomeUrl: 'http://hub/p',
    phoneHomePathUrl: 'http://hub/p/token',
    phoneHomeToken: 'token',
    sshPublicKeys: [] as string[],
  }
  t.match(
    noCloudFiles('m-1', bootstrap).get('user-data')?.toString(),
    /^#cloud-config\nphone_home:\n {2}url: "http:\/\/hub\/p\/token"/,
  )
  const own = noCloudFiles('m-1', { ...bootstrap, userData: '#!/bin/sh\n' })
  t.equal(own.get('user-data')?.toString(), '#!/bin/sh\n')
  t.match(own.get('vendor-data')?.toString(), /phone_home/, 'phoning home stands below the own user-data')
  t.equal(seedFor('none', 'm-1', bootstrap), undefined)
  t.match(seedFor('nocloud', 'm-1', bootstrap), {
    label: 'cidata',
    files: [{ path: 'meta-data' }, { path: 'user-data' }, { path: 'vendor-data' }],
  })
  t.notMatch(noCloudFiles('m-1', bootstrap).get('meta-data')?.toString(), /keys/)
  const keys = ['ssh-ed25519 AAAA "quoted" \\ grüß: #1', 'ssh-rsa BBBB']
  const keyed = { ...bootstrap, userData: '#!/bin/sh\n', sshPublicKeys: keys }
  t.strictSame(parse(noCloudFiles('m-1', keyed).get('meta-data')?.toString() ?? ''), {
    'instance-id': 'm-1',
    'local-hostname': 'web-1',
    'public-keys': keys,
  })
  const metaData = (drive: typeof keyed) => {
    const file = seedFor('config-drive', 'm-1', drive)?.files.find(({ path }) => path.endsWith('meta_data.json'))
    return JSON.parse(Buffer.from(file?.base64 ?? '', 'base64').toString()) as unknown
  }
  const named = { uuid: 'm-1', name: 'm-1', hostname: 'web-1' }
  t.strictSame(metaData(keyed), { ...named, public_keys: { 'key-0': keys[0], 'key-1': keys[1] } })
  t.strictSame(metaData({ ...keyed, sshPublicKeys: [] }), named)
  const file = { file: 'x', format: 'raw', sha256: 'a'.repeat(64) }
  const { images, netboot } = configSchema.parse({
    boot,
    images: { deaf: { ...file, seed: 'none' }, cloud: file },
    netboot: { deaf: { kernel: 'k' }, cloud: { kernel: 'k', args: 'ds=nocloud;s={{seedUrl}}' } },
  })
  const problem = (data: object, sshPublicKeys: readonly string[] = keys) =>
    keysProblem({ images, netboot }, dataSchema.parse(data), { sshPublicKeys })
  t.match(problem({ image: 'deaf' }), /image deaf takes no seed/)
  t.match(problem({ netboot: 'deaf' }), /netboot class deaf names no {{seedUrl}}/)
  for (const data of [{ image: 'cloud' }, { netboot: 'cloud' }, { image: 'none' }, { netboot: 'none' }, {}])
    t.equal(problem(data), undefined, 'what is not there is complained of elsewhere')
  t.equal(problem({ image: 'deaf' }, []), undefined)
  t.match(seedFor('config-drive', 'm-1', bootstrap), {
    label: 'config-2',
    files: [{ path: 'openstack/latest/meta_data.json' }, { path: 'openstack/latest/user_data' }],
  })
  t.end()
})
