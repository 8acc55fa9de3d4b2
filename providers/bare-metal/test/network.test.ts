import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { option } from '../src/boot/dhcp-packet.js'
import { clientPacket, firmwareOptions, ipxeOptions, messageType, testUuid } from '../testing/packets.js'
import { makeFiles, until } from '../testing/scene.js'
import { Segment, unsupported } from './namespace.js'

// The real ports in namespaces of their own, beside the DHCP server that most sites have: dnsmasq.

const here = dirname(fileURLToPath(import.meta.url))
const missing = unsupported()
const skip = missing !== undefined && process.env['CI'] !== 'true' && missing
const scriptUrl = 'http://10.77.0.1:8080/boot/script?mac=${netX/mac}&uuid=${uuid}'

interface Answer {
  readonly type: number
  readonly yiaddr: string
  readonly siaddr: string
  readonly file: string
  readonly options: Readonly<Record<string, string>>
}

class Place {
  readonly segment: Segment
  readonly folder = mkdtempSync(join(tmpdir(), 'slipway-segment-'))

  constructor(test: Test) {
    test.teardown(() => rmSync(this.folder, { recursive: true, force: true }))
    this.segment = new Segment(test)
  }

  /** Serves network boot at 10.77.0.1. */
  async serve(dhcp: object, overrides: object = {}): Promise<void> {
    const { filesDir } = makeFiles(this.folder)
    const config = { boot: { address: '10.77.0.1', dhcp }, ...overrides }
    const child = this.segment.start(
      this.segment.servers,
      process.execPath,
      [join(here, 'boot-server.js'), JSON.stringify(config)],
      {
        STATE_DIR: join(this.folder, 'state'),
        FILES_DIR: filesDir,
      },
    )
    let errors = ''
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (errors += text))
    const ready = child.stdout === null ? Promise.reject(new Error('no output')) : once(child.stdout, 'data')
    await Promise.race([ready, once(child, 'close').then(() => Promise.reject(new Error(`it ended: ${errors}`)))])
  }

  /** Starts dnsmasq as the site's DHCP server, and waits until it answers. */
  async dnsmasq(...lines: string[]): Promise<void> {
    const file = join(this.folder, 'dnsmasq.conf')
    const log = join(this.folder, 'dnsmasq.log')
    mkdirSync(join(this.folder, 'leases'), { recursive: true })
    const common = [
      'port=0',
      'interface=eth0',
      'bind-dynamic',
      'no-ping',
      'dhcp-authoritative',
      'user=root',
      'log-dhcp',
      `log-facility=${log}`,
    ]
    const range = [
      'dhcp-range=10.77.0.100,10.77.0.150,255.255.255.0,10m',
      `dhcp-leasefile=${join(this.folder, 'leases/file')}`,
    ]
    writeFileSync(file, [...common, ...range, ...lines, ''].join('\n'))
    this.segment.start(this.segment.site, 'dnsmasq', ['--keep-in-foreground', `--conf-file=${file}`])
    await until('dnsmasq to serve', () => {
      try {
        return /DHCP, IP range/.test(readFileSync(log, 'utf8'))
      } catch {
        return false
      }
    })
  }

  /** What a machine that sends this is answered. */
  async ask(
    packet: Buffer,
    to: { readonly address?: string; readonly port?: number; readonly from?: number } = {},
  ): Promise<readonly Answer[]> {
    const { address = '255.255.255.255', port = 67, from = 68 } = to
    const args = [join(here, 'dhcp-client.js'), packet.toString('hex'), address, String(port), String(from)]
    const { output, status } = await this.segment.run(this.segment.client, process.execPath, args)
    if (status !== 0) throw new Error(output)
    return output
      .trim()
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Answer)
  }

  /** Has an independent client get an address, as an operating system does. */
  async udhcpc(): Promise<string> {
    const script = join(this.folder, 'udhcpc.sh')
    writeFileSync(
      script,
      '#!/bin/sh\n[ "$1" = bound ] && ip addr add "$ip/$mask" dev "$interface" && echo "bound $ip router $router"\nexit 0\n',
      { mode: 0o755 },
    )
    const { output } = await this.segment.run(this.segment.client, 'busybox', [
      'udhcpc',
      '-f',
      '-q',
      '-n',
      '-t',
      '5',
      '-T',
      '1',
      '-i',
      'eth0',
      '-s',
      script,
    ])
    return output
  }
}

void t.test('beside dnsmasq: it gives the address, and we say what to boot', { skip }, async (t) => {
  const place = new Place(t)
  await place.dnsmasq()
  await place.serve({ mode: 'proxy' })
  const { mac } = place.segment
  for (const [arch, file] of [
    [0, 'undionly.kpxe'],
    [7, 'snponly.efi'],
  ] as const) {
    const answers = await place.ask(clientPacket({ mac, broadcast: true, options: firmwareOptions(arch) }))
    t.equal(answers.length, 2)
    const [theirs, ours] = [
      answers.find(({ yiaddr }) => yiaddr !== '0.0.0.0'),
      answers.find(({ yiaddr }) => yiaddr === '0.0.0.0'),
    ]
    t.match(theirs, { type: 2, yiaddr: /^10\.77\.0\.1\d\d$/, file: '' })
    t.match(ours, {
      type: 2,
      siaddr: '10.77.0.1',
      file,
      options: { [option.vendorClass]: Buffer.from('PXEClient').toString('hex') },
    })
  }
  t.match(
    (await place.ask(clientPacket({ mac, broadcast: true, options: ipxeOptions() }))).find(
      ({ yiaddr }) => yiaddr === '0.0.0.0',
    ),
    { file: scriptUrl },
  )
  t.match(await place.udhcpc(), /bound 10\.77\.0\.1\d\d/, 'an operating system hears of dnsmasq alone')
  const request = clientPacket({
    mac,
    broadcast: true,
    type: messageType.request,
    ciaddr: '10.77.0.120',
    options: firmwareOptions(),
  })
  t.match(await place.ask(request, { address: '10.77.0.1', port: 4011, from: 4011 }), [
    { type: 5, file: 'undionly.kpxe' },
  ])
  await fetchesFiles(t, place)
})

/** TFTP and HTTP, by a client that nobody here wrote. */
async function fetchesFiles(t: Test, place: Place): Promise<void> {
  const { segment, folder } = place
  const target = join(folder, 'fetched')
  for (const [name, size] of [
    ['undionly.kpxe', '1468'],
    ['snponly.efi', '512'],
  ] as const) {
    const real = readFileSync(join('/usr/lib/ipxe', name))
    const tftp = await segment.run(segment.client, 'curl', [
      '-sS',
      '--max-time',
      '60',
      '--tftp-blksize',
      size,
      '-o',
      target,
      `tftp://10.77.0.1/${name}`,
    ])
    t.equal(tftp.status, 0, tftp.output)
    t.ok(readFileSync(target).equals(real), `${name} by TFTP in blocks of ${size}`)
    const http = await segment.run(segment.client, 'curl', [
      '-sSf',
      '--max-time',
      '60',
      '-o',
      target,
      `http://10.77.0.1:8080/boot/ipxe/${name}`,
    ])
    t.equal(http.status, 0, http.output)
    t.ok(readFileSync(target).equals(real), `${name} by HTTP`)
  }
  const missing = await segment.run(segment.client, 'curl', [
    '-sS',
    '--max-time',
    '10',
    '-o',
    target,
    'tftp://10.77.0.1/..%2f..%2fetc%2fpasswd',
  ])
  t.not(missing.status, 0)
  const script = await segment.run(segment.client, 'curl', [
    '-sS',
    '--max-time',
    '10',
    `http://10.77.0.1:8080/boot/script?mac=${segment.mac}&uuid=${testUuid}`,
  ])
  t.match(
    script.output,
    /^#!ipxe[\s\S]*slipway\.server=http:\/\/10\.77\.0\.1:8080 slipway\.token=0\./,
    'a machine that nobody knows boots the agent',
  )
}

void t.test('dnsmasq names us as the boot server, and we answer on port 4011 alone', { skip }, async (t) => {
  const place = new Place(t)
  await place.dnsmasq(
    'dhcp-match=set:ipxe,175',
    'pxe-service=tag:!ipxe,X86PC,"Slipway",32769,10.77.0.1',
    'pxe-service=tag:!ipxe,X86-64_EFI,"Slipway",32769,10.77.0.1',
  )
  await place.serve({ mode: 'pxe-service' })
  const { mac } = place.segment
  const answers = await place.ask(clientPacket({ mac, broadcast: true, options: firmwareOptions() }))
  t.equal(answers.length, 1, 'dnsmasq alone answers on port 67')
  t.match(answers, [{ yiaddr: /^10\.77\.0\.1\d\d$/ }])
  t.match(
    answers[0]?.options[String(option.vendorSpecific)] ?? '',
    /0807(8001)010a4d0001/,
    'it names 10.77.0.1 as the boot server of type 32769',
  )
  await place.udhcpc()
  const item = Buffer.from([71, 4, 0x80, 1, 0, 0, 255])
  const request = clientPacket({
    mac,
    broadcast: true,
    type: messageType.request,
    ciaddr: answers[0]?.yiaddr ?? '',
    options: [...firmwareOptions(), [option.vendorSpecific, item]],
  })
  t.match(await place.ask(request, { address: '10.77.0.1', port: 4011, from: 4011 }), [
    {
      type: 5,
      siaddr: '10.77.0.1',
      file: 'undionly.kpxe',
      options: { [option.vendorSpecific]: '060108470480010000ff' },
    },
  ])
})

void t.test('dnsmasq says everything itself: the lines of the documentation', { skip }, async (t) => {
  const place = new Place(t)
  const readme = readFileSync(join(here, '../../README.md'), 'utf8')
  const lines =
    /<!-- dnsmasq -->\s*```\n([\s\S]*?)```/.exec(readme)?.[1]?.replaceAll('10.0.0.2', '10.77.0.1').trim().split('\n') ??
    []
  t.ok(lines.length > 3, 'the documentation has them')
  await place.dnsmasq(...lines)
  await place.serve({ mode: 'off' })
  const { mac } = place.segment
  t.match(await place.ask(clientPacket({ mac, broadcast: true, options: firmwareOptions(0) })), [
    { siaddr: '10.77.0.1', file: 'undionly.kpxe' },
  ])
  t.match(await place.ask(clientPacket({ mac, broadcast: true, options: firmwareOptions(7) })), [
    { siaddr: '10.77.0.1', file: 'snponly.efi' },
  ])
  t.match(await place.ask(clientPacket({ mac, broadcast: true, options: ipxeOptions() })), [{ file: scriptUrl }])
  t.equal(
    (await place.ask(clientPacket({ mac, broadcast: true, options: ipxeOptions() }), { port: 67 })).length,
    1,
    'nobody else answers',
  )
})

void t.test('a network of our own', { skip }, async (t) => {
  const place = new Place(t)
  const { mac } = place.segment
  const full = {
    mode: 'full',
    network: '10.77.0.0/24',
    from: '10.77.0.200',
    to: '10.77.0.210',
    router: '10.77.0.1',
    reservations: { [mac]: '10.77.0.9' },
  }
  await place.serve(full)
  t.match(
    await place.udhcpc(),
    /bound 10\.77\.0\.9 router 10\.77\.0\.1/,
    'an independent client gets the address that is kept for it',
  )
  t.match(await place.ask(clientPacket({ mac, broadcast: true, options: ipxeOptions() })), [
    { type: 2, yiaddr: '10.77.0.9', file: scriptUrl },
  ])
  t.match(await place.ask(clientPacket({ broadcast: true, mac: '52:54:00:77:00:02', options: firmwareOptions(7) })), [
    { yiaddr: /^10\.77\.0\.2\d\d$/, file: 'snponly.efi' },
  ])
  const saved = JSON.parse(readFileSync(join(place.folder, 'state/boots.json'), 'utf8')) as { leases: unknown[] }
  t.ok(saved.leases.length > 0, 'who has which address is written down')
})

void t.test('a machine that is known, and is not to boot, is not answered', { skip }, async (t) => {
  const place = new Place(t)
  const { mac } = place.segment
  await place.serve({ mode: 'proxy' }, { machines: [{ id: 'm1', macs: [mac], bmc: { kind: 'manual' } }] })
  t.same(await place.ask(clientPacket({ mac, broadcast: true, options: firmwareOptions() })), [])
  t.equal(
    (await place.ask(clientPacket({ broadcast: true, mac: '52:54:00:77:00:02', options: firmwareOptions() }))).length,
    1,
    'others are',
  )
})
