import { decryptPayload, encryptPayload, integrityCode, sameBytes, type SessionKeys } from './cipher-suite.js'

/** Payload types of RMCP+; IPMI 2.0, table 13-16. */
export const payloadTypes = {
  ipmi: 0x00,
  sol: 0x01,
  openSessionRequest: 0x10,
  openSessionResponse: 0x11,
  rakp1: 0x12,
  rakp2: 0x13,
  rakp3: 0x14,
  rakp4: 0x15,
} as const

/** Nothing that is spoken here needs more; larger packets are dropped unread. */
export const maxPacketBytes = 1_024

const rmcpVersion = 0x06
const noAcknowledge = 0xff
const classAsf = 0x06
const classIpmi = 0x07
const rmcpHeaderBytes = 4
const authTypeNone = 0x00
const authTypeRmcpPlus = 0x06
const encryptedBit = 0x80
const authenticatedBit = 0x40
const nextHeader = 0x07
const asfEnterprise = 4542
const asfPing = 0x80
const asfPong = 0x40

/** What a packet is as far as it can be told without keys. */
export type Packet =
  | { readonly kind: 'ping'; readonly tag: number }
  | { readonly kind: 'pong'; readonly tag: number; readonly supportsIpmi: boolean }
  /** An IPMI message outside a session, in the wrapping of IPMI 1.5. */
  | { readonly kind: 'sessionless'; readonly message: Buffer }
  /** A step of a handshake. */
  | { readonly kind: 'setup'; readonly payloadType: number; readonly payload: Buffer }
  /** Part of a session: not to be believed before {@link openSealed} has verified it. */
  | { readonly kind: 'sealed'; readonly sessionId: number; readonly bytes: Buffer }

/** Sorts a packet. @returns undefined for whatever is not exactly one of the forms spoken here. */
export function parsePacket(bytes: Buffer): Packet | undefined {
  if (bytes.length <= rmcpHeaderBytes || bytes.length > maxPacketBytes) return undefined
  if (bytes[0] !== rmcpVersion || bytes[2] !== noAcknowledge) return undefined
  if (bytes[3] === classAsf) return parseAsf(bytes.subarray(rmcpHeaderBytes))
  if (bytes[3] !== classIpmi) return undefined
  const body = bytes.subarray(rmcpHeaderBytes)
  if (body[0] === authTypeNone) return parseSessionless(body)
  return body[0] === authTypeRmcpPlus ? parseRmcpPlus(bytes, body) : undefined
}

function parseAsf(body: Buffer): Packet | undefined {
  if (body.length < 8 || body.readUInt32BE(0) !== asfEnterprise) return undefined
  const [type, tag, dataBytes] = [body.readUInt8(4), body.readUInt8(5), body.readUInt8(7)]
  if (body.length !== 8 + dataBytes) return undefined
  if (type === asfPing && dataBytes === 0) return { kind: 'ping', tag }
  if (type !== asfPong || dataBytes !== 16) return undefined
  return { kind: 'pong', tag, supportsIpmi: (body.readUInt8(16) & 0x80) !== 0 }
}

function parseSessionless(body: Buffer): Packet | undefined {
  if (body.length < 10 || body.readUInt32LE(1) !== 0 || body.readUInt32LE(5) !== 0) return undefined
  const messageBytes = body.readUInt8(9)
  // Some senders add one byte, so that the whole has not a length that old network cards could not send (IPMI 1.5, section 12.8).
  const excess = body.length - 10 - messageBytes
  return excess === 0 || excess === 1
    ? { kind: 'sessionless', message: body.subarray(10, 10 + messageBytes) }
    : undefined
}

function parseRmcpPlus(bytes: Buffer, body: Buffer): Packet | undefined {
  if (body.length < 12) return undefined
  const [type, sessionId, payloadBytes] = [body.readUInt8(1), body.readUInt32LE(2), body.readUInt16LE(10)]
  const protectedBits = type & (encryptedBit | authenticatedBit)
  if (sessionId !== 0)
    // A session is encrypted and authenticated from its first packet to its last, or not spoken.
    return protectedBits === (encryptedBit | authenticatedBit) ? { kind: 'sealed', sessionId, bytes } : undefined
  if (protectedBits !== 0 || body.readUInt32LE(6) !== 0 || body.length !== 12 + payloadBytes) return undefined
  return { kind: 'setup', payloadType: type, payload: body.subarray(12) }
}

function rmcpHeader(messageClass: number): readonly number[] {
  return [rmcpVersion, 0, noAcknowledge, messageClass]
}

/** ASF presence ping; ASF 2.0, section 3.2.4.2. */
export function encodePing(tag: number): Buffer {
  return Buffer.from([...rmcpHeader(classAsf), 0, 0, 0x11, 0xbe, asfPing, tag, 0, 0])
}

/** The answer to it, of a BMC that speaks IPMI. */
export function encodePong(tag: number): Buffer {
  const data = [0, 0, 0x11, 0xbe, 0, 0, 0, 0, 0x81, 0, 0, 0, 0, 0, 0, 0]
  return Buffer.from([...rmcpHeader(classAsf), 0, 0, 0x11, 0xbe, asfPong, tag, 0, data.length, ...data])
}

export function encodeSessionless(message: Uint8Array): Buffer {
  return Buffer.from([...rmcpHeader(classIpmi), authTypeNone, 0, 0, 0, 0, 0, 0, 0, 0, message.length, ...message])
}

export function encodeSetup(payloadType: number, payload: Uint8Array): Buffer {
  const header = Buffer.from([...rmcpHeader(classIpmi), authTypeRmcpPlus, payloadType, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
  header.writeUInt16LE(payload.length, 14)
  return Buffer.concat([header, payload])
}

/** What travels in a session. */
export interface SessionPayload {
  readonly type: number
  /** Counts from 1, for each direction apart. */
  readonly sequence: number
  readonly payload: Buffer
}

/** Encrypts and authenticates a payload; IPMI 2.0, section 13.6. @param sessionId the receiver's. */
export function encodeSealed(
  keys: SessionKeys,
  sessionId: number,
  { type, sequence, payload }: SessionPayload,
  iv?: Uint8Array,
): Buffer {
  const sealed = encryptPayload(keys.k2, payload, iv)
  const head = Buffer.alloc(12)
  head[0] = authTypeRmcpPlus
  head[1] = encryptedBit | authenticatedBit | type
  head.writeUInt32LE(sessionId, 2)
  head.writeUInt32LE(sequence, 6)
  head.writeUInt16LE(sealed.length, 10)
  const padBytes = (4 - ((head.length + sealed.length + 2) % 4)) % 4
  const covered = Buffer.concat([head, sealed, Buffer.alloc(padBytes, 0xff), Buffer.from([padBytes, nextHeader])])
  return Buffer.concat([Buffer.from(rmcpHeader(classIpmi)), covered, integrityCode(keys, covered)])
}

/**
 * Verifies and decrypts a packet of a session. Whether its sequence number is a fresh one is the caller's to judge.
 * @returns undefined for whatever was not sealed with these keys for this session, or has a byte too many or too few.
 */
export function openSealed(keys: SessionKeys, sessionId: number, bytes: Buffer): SessionPayload | undefined {
  const { codeBytes } = keys.suite
  const covered = bytes.subarray(rmcpHeaderBytes, bytes.length - codeBytes)
  if (covered.length < 14 || covered.readUInt32LE(2) !== sessionId) return undefined
  if (!sameBytes(integrityCode(keys, covered), bytes.subarray(bytes.length - codeBytes))) return undefined
  const payloadBytes = covered.readUInt16LE(10)
  const padBytes = covered.readUInt8(covered.length - 2)
  if (covered.readUInt8(covered.length - 1) !== nextHeader) return undefined
  if (covered.length !== 12 + payloadBytes + padBytes + 2) return undefined
  const payload = decryptPayload(keys.k2, covered.subarray(12, 12 + payloadBytes))
  if (payload === undefined) return undefined
  return { type: covered.readUInt8(1) & 0x3f, sequence: covered.readUInt32LE(6), payload }
}
