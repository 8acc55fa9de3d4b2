import { randomBytes } from 'node:crypto'
import type { CipherSuiteId } from '../../src/power/ipmi/cipher-suite.js'
import { encodeResponse, parseRequest, type IpmiMessage } from '../../src/power/ipmi/message.js'
import {
  encodePong,
  encodeSealed,
  encodeSessionless,
  encodeSetup,
  openSealed,
  parsePacket,
  payloadTypes,
} from '../../src/power/ipmi/packet.js'
import { BmcSessions, type BmcSession, type BmcUser } from './bmc-sessions.js'
import { SimulatedMachine } from './machine.js'

export interface SimulatedBmcOptions {
  readonly users?: readonly BmcUser[]
  readonly suites?: readonly CipherSuiteId[]
  readonly guid?: Buffer
  readonly maxSessions?: number
  readonly bmcKey?: Buffer
  readonly hidesUsers?: boolean
  /** Speaks IPMI 1.5 alone. */
  readonly old?: boolean
  readonly machine?: SimulatedMachine
}

export const simulatedUser: BmcUser = { name: 'slipway', password: 'a-simulated-one', privilege: 4 }

interface Answer {
  readonly code: number
  readonly data?: readonly number[]
}

type Command = (data: Buffer, session: BmcSession | undefined) => Answer

/** A BMC that speaks IPMI 2.0: bytes in, bytes out. Sockets, loss and delays are for those who use it. */
export class SimulatedBmc {
  readonly machine: SimulatedMachine
  readonly sessions: BmcSessions
  readonly guid: Buffer
  /** Answers nothing at all. */
  silent = false
  /** So many requests from now on are answered with "busy". */
  busyTimes = 0
  /** Requests that were carried out, sessions' own ones included. */
  requests = 0
  /** Packets of sessions that were forged, replayed or cut off. */
  refusedPackets = 0
  /** The last packet of a session that was taken, for those who want to replay it. */
  lastTaken: Buffer | undefined
  #inProgress = false
  #flags: readonly number[] = [0, 0, 0, 0, 0]
  readonly #options: SimulatedBmcOptions
  readonly #commands: ReadonlyMap<number, Command>

  constructor(options: SimulatedBmcOptions = {}) {
    this.#options = options
    this.machine = options.machine ?? new SimulatedMachine()
    this.guid = options.guid ?? randomBytes(16)
    this.sessions = new BmcSessions({
      users: options.users ?? [simulatedUser],
      suites: options.suites ?? [17, 3],
      guid: this.guid,
      maxSessions: options.maxSessions ?? 8,
      hidesUsers: options.hidesUsers ?? false,
      ...(options.bmcKey !== undefined && { bmcKey: options.bmcKey }),
    })
    this.#commands = this.#table()
  }

  /** Takes in a packet. @returns the answer, where there is one. */
  receive(bytes: Buffer): Buffer | undefined {
    const packet = this.silent ? undefined : parsePacket(bytes)
    switch (packet?.kind) {
      case 'ping':
        return encodePong(packet.tag)
      case 'sessionless':
        return this.#sessionless(packet.message)
      case 'setup':
        return this.#setup(packet.payloadType, packet.payload)
      case 'sealed':
        return this.#sealed(packet.sessionId, packet.bytes)
      case 'pong':
      case undefined:
        return undefined
    }
  }

  #sessionless(bytes: Buffer): Buffer | undefined {
    const request = parseRequest(bytes)
    if (request?.netFn !== 6 || request.command !== 0x38) return undefined
    return encodeSessionless(encodeResponse(this.#answer(request, undefined)))
  }

  #setup(type: number, payload: Buffer): Buffer | undefined {
    if (this.#options.old === true) return undefined
    const steps: Readonly<Record<number, (payload: Buffer) => Buffer | undefined>> = {
      [payloadTypes.openSessionRequest]: (bytes) => this.sessions.openSession(bytes),
      [payloadTypes.rakp1]: (bytes) => this.sessions.rakp1(bytes),
      [payloadTypes.rakp3]: (bytes) => this.sessions.rakp3(bytes),
    }
    const answer = steps[type]?.(payload)
    return answer === undefined ? undefined : encodeSetup(type + 1, answer)
  }

  #sealed(sessionId: number, bytes: Buffer): Buffer | undefined {
    const session = this.sessions.find(sessionId)
    if (session?.keys === undefined) return undefined
    const opened = openSealed(session.keys, sessionId, bytes)
    if (opened === undefined || !session.window.accept(opened.sequence)) {
      this.refusedPackets += 1
      return undefined
    }
    this.lastTaken = bytes
    const request = opened.type === payloadTypes.ipmi ? parseRequest(opened.payload) : undefined
    if (request === undefined) return undefined
    const { keys } = session
    const payload = encodeResponse(this.#answer(request, session))
    session.sequenceOut += 1
    return encodeSealed(keys, session.consoleId.readUInt32LE(), {
      type: payloadTypes.ipmi,
      sequence: session.sequenceOut,
      payload,
    })
  }

  #answer(request: IpmiMessage, session: BmcSession | undefined): IpmiMessage {
    this.requests += 1
    const { code, data = [] } = this.#carryOut(request, session)
    return { ...request, netFn: request.netFn | 1, data: Buffer.from([code, ...data]) }
  }

  #carryOut({ netFn, command, data }: IpmiMessage, session: BmcSession | undefined): Answer {
    if (this.busyTimes > 0 && session !== undefined) {
      this.busyTimes -= 1
      return { code: 0xc0 }
    }
    const run = this.#commands.get((netFn << 8) | command)
    if (run === undefined) return { code: 0xc1 }
    const changes = netFn === 0 && (command === 0x02 || command === 0x08)
    if (changes && (session?.privilege ?? 0) < 3) return { code: 0xd4 }
    return run(data, session)
  }

  #table(): ReadonlyMap<number, Command> {
    return new Map<number, Command>([
      [0x0601, () => ({ code: 0, data: [0x20, 1, 2, 0x07, 2, 0xbf, 0x7c, 0x2a, 0, 1, 2] })],
      [0x0637, () => ({ code: 0, data: [...this.guid] })],
      [0x0638, () => ({ code: 0, data: this.#capabilities() })],
      [0x063b, (data, session) => takePrivilege(data, session)],
      [0x063c, (data) => this.#closeSession(data)],
      [0x0001, () => ({ code: 0, data: [this.machine.power === 'on' ? 1 : 0, 0, 0] })],
      [0x0002, (data) => this.#chassisControl(data)],
      [0x0008, (data) => this.#setBootOption(data)],
      [0x0009, (data) => this.#getBootOption(data)],
      [0x0c02, (data) => lanParameter(data)],
    ])
  }

  #capabilities(): readonly number[] {
    const version2 = this.#options.old !== true
    const keyed = this.#options.bmcKey !== undefined
    return [1, version2 ? 0x80 : 0x04, keyed ? 0x24 : 0x04, version2 ? 0x03 : 0x01, 0, 0, 0, 0]
  }

  #closeSession(data: Buffer): Answer {
    if (data.length < 4 || this.sessions.find(data.readUInt32LE()) === undefined) return { code: 0x87 }
    this.sessions.remove(data.readUInt32LE())
    return { code: 0 }
  }

  #chassisControl(data: Buffer): Answer {
    const act = (['off', 'on', 'cycle', 'reset', undefined, 'soft-off'] as const)[data[0] ?? 4]
    if (data.length !== 1 || act === undefined) return { code: 0xcc }
    if (this.machine.power === 'off' && (act === 'cycle' || act === 'reset')) return { code: 0xd5 }
    this.machine.setPower(act)
    return { code: 0 }
  }

  #setBootOption(data: Buffer): Answer {
    const parameter = (data[0] ?? 0x7f) & 0x7f
    if (parameter === 0) {
      if (data[1] === 1 && this.#inProgress) return { code: 0x81 }
      this.#inProgress = data[1] === 1
      return { code: 0 }
    }
    if (parameter === 3 || parameter === 4) return { code: 0 }
    if (parameter !== 5 || data.length !== 6) return { code: parameter === 5 ? 0xc7 : 0x80 }
    const device = (['default', 'network', 'disk'] as const)[((data[2] ?? 0) >> 2) & 0x0f]
    if (device === undefined) return { code: 0xcc }
    this.machine.setBootNext({ device, uefi: ((data[1] ?? 0) & 0x20) !== 0 })
    this.#flags = [...data.subarray(1)]
    return { code: 0 }
  }

  #getBootOption(data: Buffer): Answer {
    const parameter = (data[0] ?? 0x7f) & 0x7f
    if (parameter !== 5) return { code: 0x80 }
    const { device, uefi } = this.machine.bootNext
    const number = { default: 0, network: 1, disk: 2 }[device]
    const valid = number === 0 ? 0 : 0x80 | (uefi ? 0x20 : 0)
    return { code: 0, data: [1, 5, valid, number << 2, ...this.#flags.slice(2)] }
  }
}

function takePrivilege(data: Buffer, session: BmcSession | undefined): Answer {
  const wanted = data[0] ?? 0
  if (session === undefined || data.length !== 1) return { code: 0xcc }
  if (wanted > session.maxPrivilege) return { code: 0x81 }
  if (wanted !== 0) session.privilege = wanted
  return { code: 0, data: [session.privilege] }
}

function lanParameter(data: Buffer): Answer {
  if (data[1] === 3) return { code: 0, data: [0x11, 127, 0, 0, 1] }
  if (data[1] === 5) return { code: 0, data: [0x11, 0x52, 0x54, 0, 0x88, 0, 1] }
  return { code: 0x80 }
}
