import fc from 'fast-check'
import t from 'tap'
import { clientPacket, firmwareOptions, testMac } from '../../testing/packets.js'
import { option, parsePacket, parseSuboptions } from './dhcp-packet.js'

const wellFormed = clientPacket({ options: firmwareOptions() })

void t.test('what firmware sends is read', (t) => {
  const packet = parsePacket(
    clientPacket({ broadcast: true, hops: 1, giaddr: '10.0.0.9', options: firmwareOptions(7) }),
  )
  t.match(packet, { mac: testMac, xid: 0x1234, hops: 1, broadcast: true, giaddr: '10.0.0.9', ciaddr: '0.0.0.0' })
  t.end()
})

void t.test('a long option in parts is one', (t) => {
  const parts = clientPacket({
    options: [
      [option.userClass, 'iP'],
      [option.userClass, 'XE'],
    ],
  })
  const packet = parsePacket(parts)
  t.equal('options' in packet && packet.options.get(option.userClass)?.toString(), 'iPXE')
  t.end()
})

void t.test('what is not formed as it should be is refused, with a reason', (t) => {
  const change = (at: number, value: number): Buffer => {
    const bytes = Buffer.from(wellFormed)
    bytes[at] = value
    return bytes
  }
  const cases: [string, Buffer][] = [
    ['too short', wellFormed.subarray(0, 239)],
    ['too long', Buffer.concat([wellFormed, Buffer.alloc(1500)])],
    ['a server’s', change(0, 2)],
    ['not Ethernet', change(1, 6)],
    ['an address of another length', change(2, 8)],
    ['too many hops', change(3, 17)],
    ['no cookie', change(236, 0)],
    ['without an end', wellFormed.subarray(0, -1)],
    ['cut off in an option', wellFormed.subarray(0, -5)],
    ['BOOTP', Buffer.concat([wellFormed.subarray(0, 240), Buffer.from([255])])],
    ['a server’s message type', clientPacket({ type: 2 })],
    ['an architecture of one byte', clientPacket({ options: [[option.clientArch, Buffer.from([0])]] })],
    ['a UUID of 16 bytes', clientPacket({ options: [[option.clientUuid, Buffer.alloc(16)]] })],
    ['a UUID of another kind', clientPacket({ options: [[option.clientUuid, Buffer.alloc(17, 1)]] })],
    ['a network interface of two bytes', clientPacket({ options: [[option.clientNic, Buffer.from([1, 3])]] })],
    ['a vendor class that is no text', clientPacket({ options: [[option.vendorClass, Buffer.from([80, 0])]] })],
    ['vendor options cut off', clientPacket({ options: [[option.vendorSpecific, Buffer.from([71, 4, 0])]] })],
    ['a relay’s option cut off', clientPacket({ options: [[option.relayAgent, Buffer.from([1, 9, 0])]] })],
    ['iPXE’s option cut off', clientPacket({ options: [[option.ipxe, Buffer.from([19])]] })],
    ['an empty user class', clientPacket({ options: [[option.userClass, '']] })],
    ['options in the name fields', clientPacket({ options: [[option.overload, Buffer.from([1])]] })],
    ['too many options', clientPacket({ options: Array.from({ length: 100 }, () => [200, 'x'] as const) })],
  ]
  for (const [what, bytes] of cases) t.match(parsePacket(bytes), { malformed: /\w/ }, what)
  t.end()
})

void t.test('no datagram makes the parser throw, or go on for ever', (t) => {
  const flipped = fc
    .array(fc.tuple(fc.nat(wellFormed.length - 1), fc.nat(255)), { minLength: 1, maxLength: 12 })
    .map((changes) => {
      const bytes = Buffer.from(wellFormed)
      for (const [at, value] of changes) bytes[at] = value
      return bytes
    })
  const cut = fc.nat(wellFormed.length).map((length) => wellFormed.subarray(0, length))
  const options = fc
    .uint8Array({ maxLength: 400 })
    .map((tail) => Buffer.concat([wellFormed.subarray(0, 240), Buffer.from(tail)]))
  const any = fc.uint8Array({ maxLength: 1600 }).map((bytes) => Buffer.from(bytes))
  fc.assert(
    fc.property(fc.oneof(flipped, cut, options, any), (bytes) => {
      const packet = parsePacket(bytes)
      return 'malformed' in packet ? packet.malformed.length > 0 : /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(packet.mac)
    }),
    { numRuns: 20_000 },
  )
  t.end()
})

void t.test('options within options never reach beyond them', (t) => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 300 }),
      fc.constantFrom('may end' as const, 'no end' as const),
      (bytes, end) => {
        const parts = parseSuboptions(Buffer.from(bytes), end)
        return parts === undefined || [...parts.values()].reduce((sum, part) => sum + part.length, 0) <= bytes.length
      },
    ),
    { numRuns: 5_000 },
  )
  t.end()
})
