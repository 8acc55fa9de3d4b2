import fc from 'fast-check'
import t from 'tap'
import { decryptPayload, deriveKeys, encryptPayload, cipherSuite, type SessionKeys } from './cipher-suite.js'
import { parseBootFlags, parseDeviceId, parseGuid } from './commands.js'
import { encodeRequest, encodeResponse, parseRequest, parseResponse } from './message.js'
import {
  encodePing,
  encodePong,
  encodeSealed,
  encodeSessionless,
  encodeSetup,
  openSealed,
  parsePacket,
} from './packet.js'
import { SequenceWindow } from './sequence-window.js'
import { encodeSol, parseSol, SolReceiver } from './sol.js'

const bytes = (maxLength: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ maxLength }).map((array) => Buffer.from(array))
const exactly = (length: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((array) => Buffer.from(array))
const keys: fc.Arbitrary<SessionKeys> = fc
  .tuple(fc.constantFrom(3 as const, 17 as const), exactly(20))
  .map(([id, sik]) => deriveKeys(cipherSuite(id), sik))
const sessionId = fc.integer({ min: 1, max: 0xffff_ffff })
const sessionPayload = fc.record({
  type: fc.constantFrom(0, 1),
  sequence: fc.integer({ min: 1, max: 0xffff_ffff }),
  payload: bytes(200),
})
const message = fc.record({
  netFn: fc.integer({ min: 0, max: 31 }).map((half) => half * 2),
  command: fc.integer({ min: 0, max: 255 }),
  sequence: fc.integer({ min: 0, max: 63 }),
  data: bytes(60),
})

void t.test('what is encrypted is decrypted', (t) => {
  const property = fc.property(exactly(16), bytes(300), (key, plain) => {
    const sealed = encryptPayload(key, plain)
    return sealed.length % 16 === 0 && decryptPayload(key, sealed)?.equals(plain) === true
  })
  fc.assert(property)
  t.end()
})

void t.test('what is sealed is opened, by whoever has the keys and the session', (t) => {
  const property = fc.property(keys, sessionId, sessionPayload, (theKeys, id, what) => {
    const packet = encodeSealed(theKeys, id, what)
    t.match(parsePacket(packet), { kind: 'sealed', sessionId: id })
    t.same(openSealed(theKeys, id, packet), what)
    t.equal(openSealed(theKeys, id === 1 ? 2 : id - 1, packet), undefined)
  })
  fc.assert(property, { numRuns: 50 })
  t.end()
})

void t.test('no byte of a sealed packet can be changed, dropped or added', (t) => {
  const property = fc.property(
    keys,
    sessionId,
    sessionPayload,
    fc.nat(),
    fc.integer({ min: 1, max: 255 }),
    bytes(8),
    (theKeys, id, what, where, difference, more) => {
      const packet = encodeSealed(theKeys, id, what)
      const opens = (bent: Buffer): boolean => {
        const parsed = parsePacket(bent)
        return parsed?.kind === 'sealed' && openSealed(theKeys, id, bent) !== undefined
      }
      const bent = Buffer.from(packet)
      const index = where % bent.length
      bent[index] = (bent[index] ?? 0) ^ difference
      // The second byte of RMCP is reserved, is not covered by the code and means nothing.
      const changed = index !== 1 && opens(bent)
      const cut = opens(packet.subarray(0, where % packet.length))
      const grown = more.length > 0 && opens(Buffer.concat([packet, more]))
      return !changed && !cut && !grown
    },
  )
  fc.assert(property, { numRuns: 500 })
  t.end()
})

void t.test('another key opens nothing', (t) => {
  const property = fc.property(keys, keys, sessionId, sessionPayload, (right, wrong, id, what) => {
    fc.pre(!right.k1.equals(wrong.k1))
    return openSealed(wrong, id, encodeSealed(right, id, what)) === undefined
  })
  fc.assert(property)
  t.end()
})

void t.test('any bytes are sorted or dropped, and never throw', (t) => {
  const headed = bytes(80).map((rest) => Buffer.concat([Buffer.from([6, 0, 0xff, 7]), rest]))
  const property = fc.property(fc.oneof(bytes(80), headed), keys, (packet, theKeys) => {
    const parsed = parsePacket(packet)
    if (parsed?.kind === 'sealed') return openSealed(theKeys, parsed.sessionId, packet) === undefined
    if (parsed?.kind === 'sessionless') parseResponse(parsed.message)
    parseSol(packet)
    parseRequest(packet)
    return true
  })
  fc.assert(property, { numRuns: 2_000 })
  t.end()
})

void t.test('what is outside of sessions goes there and back', (t) => {
  const property = fc.property(bytes(200), fc.integer({ min: 0x10, max: 0x15 }), fc.nat(255), (payload, type, tag) => {
    t.same(parsePacket(encodeSetup(type, payload)), { kind: 'setup', payloadType: type, payload })
    t.same(parsePacket(encodeSessionless(payload)), { kind: 'sessionless', message: payload })
    t.same(parsePacket(encodePing(tag)), { kind: 'ping', tag })
    t.same(parsePacket(encodePong(tag)), { kind: 'pong', tag, supportsIpmi: true })
  })
  fc.assert(property, { numRuns: 50 })
  t.end()
})

void t.test('messages go there and back, and a changed byte is found', (t) => {
  const property = fc.property(message, fc.nat(), fc.integer({ min: 1, max: 255 }), (request, where, difference) => {
    const encoded = encodeRequest(request)
    t.same(parseRequest(encoded), request)
    const answer = { ...request, netFn: request.netFn | 1, data: Buffer.concat([Buffer.from([0]), request.data]) }
    t.same(parseResponse(encodeResponse(answer)), answer)
    t.equal(parseResponse(encoded), undefined, 'a request is no answer')
    const index = where % encoded.length
    encoded[index] = (encoded[index] ?? 0) ^ difference
    t.equal(parseRequest(encoded), undefined)
  })
  fc.assert(property, { numRuns: 100 })
  t.end()
})

void t.test('a sequence window takes each number once, in any near order', (t) => {
  const property = fc.property(fc.array(fc.integer({ min: 1, max: 100 }), { maxLength: 200 }), (numbers) => {
    const window = new SequenceWindow()
    const taken: number[] = []
    for (const number of numbers) {
      const highest = Math.max(0, ...taken)
      const expected = !taken.includes(number) && number > highest - 32
      t.equal(window.accept(number), expected)
      if (expected) taken.push(number)
    }
  })
  fc.assert(property, { numRuns: 50 })
  const window = new SequenceWindow()
  for (const wrong of [0, -1, 1.5, Number.NaN, 2 ** 32]) t.equal(window.accept(wrong), false)
  t.equal(window.accept(2 ** 32 - 1), true)
  t.equal(window.accept(2 ** 32 - 1), false)
  t.end()
})

void t.test('GUIDs are read in whatever order the BMC has them', (t) => {
  const guid = '12345678-9abc-4def-8123-456789abcdef'
  const plain = Buffer.from(guid.replaceAll('-', ''), 'hex')
  const smbios = Buffer.from(plain)
  smbios.subarray(0, 4).reverse()
  smbios.subarray(4, 6).reverse()
  smbios.subarray(6, 8).reverse()
  for (const order of [plain, smbios, Buffer.from(plain).reverse()]) t.equal(parseGuid(order), guid)
  t.equal(parseGuid(Buffer.alloc(16)), undefined)
  t.equal(parseGuid(Buffer.alloc(16, 0xff)), undefined)
  t.end()
})

void t.test('answers that are cut off are protocol errors', (t) => {
  for (const parse of [parseDeviceId, parseBootFlags, parseGuid])
    t.throws(() => parse(Buffer.alloc(2)), { code: 'UNAVAILABLE', message: /has 2 bytes/ })
  t.end()
})

void t.test('the characters of a console are put in order, and come once', (t) => {
  const property = fc.property(fc.array(fc.tuple(bytes(20), fc.nat(2), bytes(5))), (parts) => {
    const receiver = new SolReceiver()
    const sent: Buffer[] = []
    const got: Buffer[] = []
    for (const [index, [data, repeats, more]] of parts.entries()) {
      const sequence = (index % 15) + 1
      // A packet whose acknowledgement was lost is repeated, and may have grown.
      const packets = Array.from({ length: repeats }, () => data).concat([Buffer.concat([data, more])])
      for (const packet of packets) {
        const parsed = parseSol(encodeSol({ sequence, acknowledged: 0, accepted: 0, data: packet }))
        const taken = parsed === undefined ? undefined : receiver.take(parsed)
        t.match(taken?.acknowledgement, { acknowledged: sequence, accepted: packet.length })
        got.push(Buffer.from(taken?.fresh ?? []))
      }
      sent.push(data, more)
    }
    t.same(Buffer.concat(got), Buffer.concat(sent))
    t.equal(receiver.take({ sequence: 0, acknowledged: 1, accepted: 0, data: Buffer.from('x') }), undefined)
  })
  fc.assert(property, { numRuns: 50 })
  t.equal(parseSol(Buffer.from([16, 0, 0, 0])), undefined)
  t.equal(parseSol(Buffer.from([1, 0])), undefined)
  t.end()
})
