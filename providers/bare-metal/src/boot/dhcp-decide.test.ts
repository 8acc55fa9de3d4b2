import fc from 'fast-check'
import t from 'tap'
import {
  clientPacket,
  firmwareOptions,
  ipxeOptions,
  messageType,
  readReply,
  testMac,
  testUuid,
} from '../../testing/packets.js'
import { decide, type Admission, type Arrival, type DhcpSite } from './dhcp-decide.js'
import { Leases } from './dhcp-leases.js'
import { option, parsePacket } from './dhcp-packet.js'
import { addressBytes, encodeReply } from './dhcp-reply.js'
import { parseIpv4, parseNetwork } from './ipv4.js'
import { isSameUuid } from './pxe-client.js'

const proxy: DhcpSite = { serverAddress: '10.0.0.2', bootUrl: 'http://10.0.0.2:8080', mode: 'proxy' }
const admitted = (): Admission => ({ admit: 'boot' })
const refused = (): Admission => ({ admit: 'nothing', why: 'test', rogue: true })
const scriptUrl = 'http://10.0.0.2:8080/boot/script?mac=${netX/mac}&uuid=${uuid}'

function arrival(port: 67 | 4011 = 67): Arrival {
  return { port, address: port === 67 ? '0.0.0.0' : '10.0.0.77', sourcePort: port === 67 ? 68 : 4011, nowMs: 1_000 }
}

function pool(): Leases {
  const network = parseNetwork('10.0.0.0/24') ?? { address: 0, prefix: 0 }
  const number = (text: string) => parseIpv4(text) ?? 0
  return new Leases({
    network,
    from: number('10.0.0.100'),
    to: number('10.0.0.103'),
    reservations: new Map([['52:54:00:00:00:01', number('10.0.0.50')]]),
    taken: [number('10.0.0.2')],
    leaseMs: 600_000,
  })
}

function full(leases = pool(), addressKnown = false): DhcpSite {
  return {
    ...proxy,
    mode: 'full',
    network: { mask: '255.255.255.0', router: '10.0.0.1', dns: ['10.0.0.1'] },
    leases,
    addressKnown,
  }
}

function ask(bytes: Buffer, site: DhcpSite, admit = admitted, at = arrival()) {
  const packet = parsePacket(bytes)
  if ('malformed' in packet) throw new Error(packet.malformed)
  const decision = decide(packet, at, site, admit)
  return decision.decision === 'silence' ? decision : { ...decision, reply: readReply(decision.bytes) }
}

void t.test('beside another server: boot information, and no address', (t) => {
  const bios = ask(clientPacket({ options: firmwareOptions(0) }), proxy)
  t.match(bios, {
    to: { address: '255.255.255.255', port: 68 },
    reply: { op: 2, xid: 0x1234, yiaddr: '0.0.0.0', siaddr: '10.0.0.2', file: 'undionly.kpxe', type: 2 },
  })
  if (!('reply' in bios)) throw new Error('silence')
  t.equal(bios.reply.options.get(option.vendorClass)?.toString(), 'PXEClient')
  t.same([...(bios.reply.options.get(option.vendorSpecific) ?? [])], [6, 1, 8, 255])
  t.equal(bios.reply.options.get(option.clientUuid)?.length, 17, 'the UUID comes back')
  for (const arch of [7, 9])
    t.match(ask(clientPacket({ options: firmwareOptions(arch) }), proxy), { reply: { file: 'snponly.efi' } })
  t.match(ask(clientPacket({ options: ipxeOptions() }), proxy), { reply: { file: scriptUrl } }, 'iPXE gets its script')
  const http = clientPacket({
    options: [
      [option.vendorClass, 'HTTPClient:Arch:00016'],
      [option.clientArch, Buffer.from([0, 16])],
    ],
  })
  const answer = ask(http, proxy)
  t.match(answer, { reply: { file: 'http://10.0.0.2:8080/boot/ipxe/snponly.efi' } })
  t.equal('reply' in answer && answer.reply.options.get(option.vendorClass)?.toString(), 'HTTPClient')
  t.end()
})

void t.test('iPXE of a network card that cannot load by HTTP chains to ours', (t) => {
  const old = clientPacket({
    options: [...firmwareOptions(0), [option.userClass, 'iPXE'], [option.ipxe, Buffer.from([24, 1, 1])]],
  })
  t.match(ask(old, proxy), { reply: { file: 'undionly.kpxe' } })
  t.end()
})

void t.test('what is none of our business gets no answer', (t) => {
  const silences: [string, Buffer, DhcpSite, Arrival][] = [
    ['an operating system', clientPacket(), proxy, arrival()],
    [
      'a request for an address',
      clientPacket({ type: messageType.request, options: firmwareOptions() }),
      proxy,
      arrival(),
    ],
    ['an architecture without iPXE', clientPacket({ options: firmwareOptions(11) }), proxy, arrival()],
    ['an operating system at 4011', clientPacket({ type: messageType.request }), proxy, arrival(4011)],
    ['a discover at 4011', clientPacket({ options: firmwareOptions() }), proxy, arrival(4011)],
    [
      'port 67 of a boot service',
      clientPacket({ options: firmwareOptions() }),
      { ...proxy, mode: 'pxe-service' },
      arrival(),
    ],
    [
      'the choice of another server',
      clientPacket({
        type: messageType.request,
        options: [
          [option.serverId, addressBytes('10.0.0.9')],
          [option.requestedAddress, addressBytes('10.0.0.100')],
        ],
      }),
      full(),
      arrival(),
    ],
  ]
  for (const [what, bytes, site, at] of silences) t.match(ask(bytes, site, admitted, at), { decision: 'silence' }, what)
  t.end()
})

void t.test('the boot service answers whoever asks it, and repeats the item that was chosen', (t) => {
  const item = Buffer.from([71, 4, 0x80, 1, 0, 0, 255])
  const request = clientPacket({
    type: messageType.request,
    ciaddr: '10.0.0.77',
    options: [...firmwareOptions(), [option.vendorSpecific, item]],
  })
  const answer = ask(request, { ...proxy, mode: 'pxe-service' }, admitted, arrival(4011))
  t.match(answer, { to: { address: '10.0.0.77', port: 4011 }, reply: { type: 5, file: 'undionly.kpxe' } })
  t.same(
    'reply' in answer && [...(answer.reply.options.get(option.vendorSpecific) ?? [])],
    [6, 1, 8, 71, 4, 0x80, 1, 0, 0, 255],
  )
  t.end()
})

void t.test('through a relay, the answer goes back to it, with its option', (t) => {
  const circuit = Buffer.from([1, 4, 101, 116, 104, 48])
  const answer = ask(
    clientPacket({ giaddr: '10.0.9.1', hops: 1, options: [...firmwareOptions(), [option.relayAgent, circuit]] }),
    proxy,
  )
  t.match(answer, { to: { address: '10.0.9.1', port: 67 } })
  t.same('reply' in answer && answer.reply.options.get(option.relayAgent), circuit)
  t.equal('reply' in answer && [...answer.reply.options.keys()].at(-1), option.relayAgent, 'as the last one')
  t.end()
})

void t.test('a network of our own: an address, and what to boot', (t) => {
  const site = full()
  const offer = ask(clientPacket({ options: ipxeOptions() }), site)
  if (!('reply' in offer)) throw new Error('silence')
  const { yiaddr } = offer.reply
  t.match(yiaddr, /^10\.0\.0\.10[0-3]$/)
  t.match(offer.reply, { type: 2, file: scriptUrl })
  const request = clientPacket({
    type: messageType.request,
    options: [
      ...ipxeOptions(),
      [option.serverId, addressBytes('10.0.0.2')],
      [option.requestedAddress, addressBytes(yiaddr)],
    ],
  })
  const ack = ask(request, site)
  t.match(ack, { reply: { type: 5, yiaddr } })
  if (!('reply' in ack)) throw new Error('silence')
  t.same([...(ack.reply.options.get(option.subnetMask) ?? [])], [255, 255, 255, 0])
  t.equal(ack.reply.options.get(option.leaseTime)?.readUInt32BE(0), 600)
  const renewal = clientPacket({ type: messageType.request, ciaddr: yiaddr })
  t.match(ask(renewal, site), { to: { address: yiaddr, port: 68 }, reply: { type: 5, yiaddr } }, 'it keeps its address')
  const elsewhere = clientPacket({
    type: messageType.request,
    mac: '52:54:00:00:00:99',
    options: [[option.requestedAddress, addressBytes(yiaddr)]],
  })
  t.match(ask(elsewhere, site), { to: { address: '255.255.255.255' }, reply: { type: 6 } }, 'and nobody else gets it')
  t.match(
    ask(clientPacket({ mac: '52:54:00:00:00:01' }), site),
    { reply: { yiaddr: '10.0.0.50', file: '' } },
    'a reservation',
  )
  t.end()
})

void t.test('a machine that may not boot has no boot file, and an address only where that is wished', (t) => {
  const known = (): Admission => ({ admit: 'address' })
  t.match(ask(clientPacket({ options: firmwareOptions() }), full(), known), { decision: 'silence', rogue: false })
  t.match(ask(clientPacket({ options: firmwareOptions() }), full(pool(), true), known), {
    reply: { file: '', siaddr: '0.0.0.0' },
  })
  t.match(ask(clientPacket({ options: firmwareOptions() }), proxy, known), { decision: 'silence' })
  t.end()
})

void t.test('addresses run out, are given back, and are left alone where somebody uses them', (t) => {
  const leases = pool()
  const macs = [1, 2, 3, 4].map((n) => `52:54:00:00:01:0${n}`)
  const given = macs.map((mac) => leases.offer(mac, undefined, 0))
  t.equal(new Set(given).size, 4)
  t.equal(leases.offer('52:54:00:00:01:05', undefined, 0), undefined, 'none is left')
  for (const [at, mac] of macs.entries()) t.ok(leases.take(mac, given[at] ?? '', 0))
  t.match(ask(clientPacket({ mac: '52:54:00:00:01:05' }), full(leases)), { decision: 'silence' })
  leases.release(macs[1] ?? '', given[0] ?? '')
  t.equal(leases.offer('52:54:00:00:01:05', undefined, 0), undefined, 'nobody gives back what another has')
  leases.release(macs[0] ?? '', given[0] ?? '')
  t.equal(leases.offer('52:54:00:00:01:05', undefined, 0), given[0])
  leases.decline('52:54:00:00:01:05', given[0] ?? '', 0)
  t.equal(leases.offer('52:54:00:00:01:06', undefined, 0), undefined, 'somebody was found on it')
  const again = new Leases(
    {
      network: parseNetwork('10.0.0.0/24') ?? { address: 0, prefix: 0 },
      from: 0x0a000064,
      to: 0x0a000067,
      reservations: new Map(),
      taken: [],
      leaseMs: 600_000,
    },
    leases.entries(1),
  )
  t.equal(again.offer(macs[1] ?? '', undefined, 1), given[1], 'what was written down is known again')
  t.equal(leases.offer('52:54:00:00:01:06', undefined, 700_000) !== undefined, true, 'what has run out is free')
  t.end()
})

void t.test('no address is ever two machines’ at once', (t) => {
  const mac = fc.integer({ min: 1, max: 9 }).map((n) => `52:54:00:00:02:0${n}`)
  const wanted = fc.integer({ min: 98, max: 106 }).map((n) => `10.0.0.${n}`)
  const call = fc.oneof(
    fc.tuple(fc.constant('offer' as const), mac, fc.option(wanted, { nil: undefined })),
    fc.tuple(fc.constant('take' as const), mac, wanted),
    fc.tuple(fc.constant('release' as const), mac, wanted),
    fc.tuple(fc.constant('decline' as const), mac, wanted),
  )
  fc.assert(
    fc.property(fc.array(fc.tuple(call, fc.nat(400_000)), { maxLength: 60 }), (calls) => {
      const leases = pool()
      let nowMs = 0
      for (const [[what, who, address], pauseMs] of calls) {
        nowMs += pauseMs
        if (what === 'offer') leases.offer(who, address, nowMs)
        else if (what === 'take') leases.take(who, address, nowMs)
        else if (what === 'release') leases.release(who, address)
        else leases.decline(who, address, nowMs)
        const held = leases.entries(nowMs)
        if (new Set(held.map((lease) => lease.address)).size !== held.length) return false
        if (held.some((lease) => lease.address < 0x0a000064 || lease.address > 0x0a000067)) return false
      }
      return true
    }),
    { numRuns: 500 },
  )
  t.end()
})

void t.test('whoever is not admitted gets nothing, whatever it asks', (t) => {
  const options = fc.constantFrom(firmwareOptions(0), firmwareOptions(7), ipxeOptions(0), ipxeOptions(7), [])
  const type = fc.constantFrom(...Object.values(messageType))
  const site = fc.constantFrom<DhcpSite>(proxy, { ...proxy, mode: 'pxe-service' }, full(), full(pool(), true))
  fc.assert(
    fc.property(
      options,
      type,
      site,
      fc.constantFrom<67 | 4011>(67, 4011),
      fc.boolean(),
      (given, kind, where, port, relayed) => {
        const bytes = clientPacket({ type: kind, options: given, ...(relayed && { giaddr: '10.0.9.1' }) })
        const decision = ask(bytes, where, refused, arrival(port))
        return decision.decision === 'silence'
      },
    ),
    { numRuns: 1_000 },
  )
  t.end()
})

void t.test('every answer is for the one who asked, and fits', (t) => {
  const options = fc.constantFrom(firmwareOptions(0), firmwareOptions(7), ipxeOptions(0), ipxeOptions(7))
  fc.assert(
    fc.property(options, fc.nat(0xffffffff), fc.uint8Array({ minLength: 6, maxLength: 6 }), (given, xid, bytes) => {
      const mac = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':')
      const decision = ask(clientPacket({ xid, mac, options: given }), proxy)
      if (!('reply' in decision)) return false
      const { reply } = decision
      return (
        reply.xid === xid &&
        reply.mac === mac.replaceAll(':', '') &&
        decision.bytes.length >= 300 &&
        decision.bytes.length <= 548
      )
    }),
  )
  t.end()
})

void t.test('what does not fit is refused and not cut off', (t) => {
  const packet = parsePacket(clientPacket())
  if ('malformed' in packet) throw new Error(packet.malformed)
  const reply = { type: 'offer' as const, serverAddress: '10.0.0.2', options: [] }
  t.throws(() => encodeReply(packet, { ...reply, bootFile: 'x'.repeat(128) }), RangeError)
  t.throws(() => encodeReply(packet, { ...reply, serverAddress: 'here' }), RangeError)
  t.end()
})

void t.test('one machine’s UUID in either order of bytes', (t) => {
  t.ok(isSameUuid(testUuid, testUuid.toUpperCase()))
  t.ok(isSameUuid(testUuid, '44454c4c-5100-1048-8056-b4c04f595931'))
  t.notOk(isSameUuid(testUuid, '44454c4c-5100-1048-8056-b4c04f595932'))
  t.ok(isSameUuid(testUuid, '00000000-0000-0000-0000-000000000000'), 'who says nothing is not refused')
  t.equal(testMac.length, 17)
  t.end()
})
