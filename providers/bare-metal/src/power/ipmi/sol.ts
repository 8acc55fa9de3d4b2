import { BmcError, isBmcError } from '../errors.js'
import type { ConsolePart } from '../driver.js'
import { untilAborted } from '../waiting.js'
import { payloadTypes } from './packet.js'
import type { IpmiSession } from './session.js'

/** Serial over LAN; IPMI 2.0, chapters 15 and 24. */

const netFnApp = 0x06
const commandActivate = 0x48
const commandDeactivate = 0x49
const commandActivationStatus = 0x4a
const instance = 1
/** Encrypted and authenticated. */
const protectedAux = 0xc0
const keepAliveMs = 20_000
/** What is kept for a reader who is slower than the console. Beyond it nothing is acknowledged, so that the BMC waits. */
const maxUnreadBytes = 256 * 1024

/** One packet of a console; section 15.9. */
export interface SolPacket {
  /** 1 to 15; 0 carries no characters. */
  readonly sequence: number
  /** The packet that it acknowledges; 0: none. */
  readonly acknowledged: number
  /** How many characters of that one were taken. */
  readonly accepted: number
  readonly data: Buffer
  /** What the BMC says of the line: see {@link solStatus}. A console says nothing here. */
  readonly status?: number
}

/** Bits of a BMC's status; table 15-2. */
export const solStatus = {
  /** The console was taken away, by somebody else or by the BMC itself. */
  deactivated: 0x10,
  /** Characters were dropped before they could be sent. */
  overrun: 0x08,
} as const

export function encodeSol({ sequence, acknowledged, accepted, data, status = 0 }: SolPacket): Buffer {
  return Buffer.concat([Buffer.from([sequence, acknowledged, accepted, status]), data])
}

/** @returns undefined for what is cut off or has a sequence number that cannot be. */
export function parseSol(payload: Buffer): SolPacket | undefined {
  if (payload.length < 4) return undefined
  const [sequence, acknowledged, accepted] = [payload.readUInt8(0), payload.readUInt8(1), payload.readUInt8(2)]
  if (sequence > 15 || acknowledged > 15) return undefined
  return { sequence, acknowledged, accepted, data: payload.subarray(4), status: payload.readUInt8(3) }
}

/**
 * Puts the characters of a console in order: a packet that is repeated because its acknowledgement was lost gives only what it has more
 * than before.
 */
export class SolReceiver {
  #last = 0
  #taken = 0

  /** @returns the new characters and the acknowledgement to send. Undefined: there is nothing to acknowledge. */
  take(packet: SolPacket): { readonly fresh: Buffer; readonly acknowledgement: SolPacket } | undefined {
    if (packet.sequence === 0) return undefined
    const repeated = packet.sequence === this.#last
    const fresh = packet.data.subarray(repeated ? this.#taken : 0)
    this.#last = packet.sequence
    this.#taken = packet.data.length
    const accepted = Math.min(packet.data.length, 0xff)
    return { fresh, acknowledgement: { sequence: 0, acknowledged: packet.sequence, accepted, data: Buffer.alloc(0) } }
  }
}

/**
 * Follows the machine's serial console in a session of its own until the signal fires.
 * @throws BmcError: `busy` where somebody else has the console, or takes it, `unsupported` where there is none.
 */
export async function* followConsole(session: IpmiSession, signal: AbortSignal): AsyncIterable<ConsolePart> {
  const receiver = new SolReceiver()
  const unread: ConsolePart[] = []
  let lost = false
  let unreadBytes = 0
  let wake = (): void => undefined
  let failure: unknown
  const stopListening = session.listen(payloadTypes.sol, (payload) => {
    const packet = parseSol(payload)
    if (packet === undefined || unreadBytes > maxUnreadBytes) return
    const { status = 0 } = packet
    if ((status & solStatus.deactivated) !== 0) {
      failure ??= new BmcError('busy', 'the BMC took the serial console away, or gave it to somebody else')
      wake()
    }
    lost ||= (status & solStatus.overrun) !== 0
    const taken = receiver.take(packet)
    if (taken === undefined) return
    session.send(payloadTypes.sol, encodeSol(taken.acknowledgement)).catch(() => undefined)
    if (taken.fresh.length === 0) return
    unread.push({ bytes: Buffer.from(taken.fresh), lost })
    lost = false
    unreadBytes += taken.fresh.length
    wake()
  })
  const beat = setInterval(() => {
    stillActive(session, signal).catch((error: unknown) => {
      failure ??= error
      wake()
    })
  }, keepAliveMs)
  let active = false
  try {
    await activate(session, signal)
    active = true
    while (!signal.aborted && (failure === undefined || unread.length > 0)) {
      const next = unread.shift()
      if (next !== undefined) {
        unreadBytes -= next.bytes.length
        yield next
      } else await untilAborted(new Promise<void>((resolve) => (wake = resolve)), signal).catch(() => undefined)
    }
    if (failure !== undefined && !signal.aborted) throw failure as Error
  } finally {
    clearInterval(beat)
    stopListening()
    // What was never ours is not given back: that would take it from whoever has it.
    if (active) await deactivate(session)
  }
}

async function deactivate(session: IpmiSession): Promise<void> {
  const command = { netFn: netFnApp, command: commandDeactivate, data: [payloadTypes.sol, instance, 0, 0, 0, 0] }
  await session
    .request({ ...command, what: 'to end the console', once: true }, AbortSignal.timeout(1_000))
    .catch(() => undefined)
}

/**
 * Keeps the session, and asks whether the console is still active: not every BMC says when it was taken away. Get Payload Activation Status, section 24.4.
 * @throws BmcError `busy` where it is not.
 */
async function stillActive(session: IpmiSession, signal: AbortSignal): Promise<void> {
  await session.keepAlive(signal)
  const ask = { netFn: netFnApp, command: commandActivationStatus, data: [payloadTypes.sol], what: 'about its console' }
  const answer = await session.request(ask, signal).catch((error: unknown) => {
    if (isBmcError(error, 'unsupported', 'refused', 'privilege')) return undefined
    throw error
  })
  const instances = answer === undefined || answer.length < 2 ? 1 : answer.readUInt8(1)
  if ((instances & 1) === 0) throw new BmcError('busy', 'the BMC took the serial console away')
}

async function activate(session: IpmiSession, signal: AbortSignal): Promise<void> {
  const data = [payloadTypes.sol, instance, protectedAux, 0, 0, 0]
  try {
    await session.request({ netFn: netFnApp, command: commandActivate, data, what: 'for its console' }, signal)
  } catch (error) {
    if (isBmcError(error) && error.said === '0x80')
      throw new BmcError('busy', 'somebody else has the serial console of the BMC', { said: '0x80', cause: error })
    if (isBmcError(error) && ['0x81', '0x82', '0x83'].includes(error.said ?? ''))
      throw new BmcError('unsupported', 'serial over LAN is switched off in the BMC', { cause: error })
    throw error
  }
}
