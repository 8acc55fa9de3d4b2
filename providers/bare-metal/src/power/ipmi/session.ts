import { BmcError } from '../errors.js'
import { Turns } from '../turns.js'
import type { SessionKeys } from './cipher-suite.js'
import { asError } from './completion-code.js'
import { exchange } from './exchange.js'
import { Handshake, privilegeLevels, type Login, type Outcome } from './handshake.js'
import { encodeRequest, parseResponse, type IpmiMessage } from './message.js'
import {
  encodePing,
  encodeSealed,
  encodeSessionless,
  encodeSetup,
  openSealed,
  parsePacket,
  payloadTypes,
  type SessionPayload,
} from './packet.js'
import { SequenceWindow } from './sequence-window.js'
import type { Endpoint, UdpPort } from './udp-port.js'

/** How patient to be with a BMC. */
export interface Patience {
  /** For each answer. */
  readonly timeoutMs: number
  /** How often each request is sent. */
  readonly tries: number
}

export interface Request {
  readonly netFn: number
  readonly command: number
  readonly data?: readonly number[]
  /** For messages to people. */
  readonly what: string
  /** Once: sending it twice does it twice. Default: it may be sent again where no answer comes. */
  readonly once?: boolean
}

const netFnApp = 0x06
const commandAuthCapabilities = 0x38
const commandSetPrivilege = 0x3b
const commandCloseSession = 0x3c
const commandDeviceId = 0x01
/** Channel E: the one that we come in by. */
const thisChannel = 0x0e

/** Asks an address whether it speaks IPMI at all, without a login. */
export async function pingBmc(
  port: UdpPort,
  endpoint: Endpoint,
  patience: Patience,
  signal: AbortSignal,
): Promise<boolean> {
  const tag = Math.floor(Math.random() * 255)
  return exchange(
    port,
    endpoint,
    () => encodePing(tag),
    (bytes) => {
      const packet = parsePacket(bytes)
      return packet?.kind === 'pong' && packet.tag === tag ? packet.supportsIpmi : undefined
    },
    { ...patience, signal, what: 'a presence ping' },
  )
}

/** What a BMC says of its LAN channel before anybody has logged in; IPMI 2.0, section 22.13. */
export interface AuthCapabilities {
  readonly ipmi20: boolean
  /** It has a BMC key (K_G) of its own. */
  readonly needsBmcKey: boolean
}

export async function readAuthCapabilities(
  port: UdpPort,
  endpoint: Endpoint,
  patience: Patience,
  signal: AbortSignal,
): Promise<AuthCapabilities> {
  const sequence = Math.floor(Math.random() * 64)
  const data = Buffer.from([0x80 | thisChannel, privilegeLevels.operator])
  const request = { netFn: netFnApp, command: commandAuthCapabilities, sequence, data }
  const answer = await exchange(
    port,
    endpoint,
    () => encodeSessionless(encodeRequest(request)),
    (bytes) => {
      const packet = parsePacket(bytes)
      return packet?.kind === 'sessionless' ? answerTo(request, parseResponse(packet.message)) : undefined
    },
    { ...patience, signal, what: 'what it can authenticate with' },
  )
  const refused = asError(answer, 'what it can authenticate with')
  if (refused !== undefined) throw refused
  if (answer.length < 9) throw new BmcError('protocol', "the BMC's channel authentication capabilities are cut off")
  const [types, status, extended] = [answer.readUInt8(2), answer.readUInt8(3), answer.readUInt8(4)]
  return { ipmi20: (types & 0x80) !== 0 && (extended & 0x02) !== 0, needsBmcKey: (status & 0x20) !== 0 }
}

/**
 * How often all of a handshake is begun anew where packets were lost in its middle. Each time is twice as patient: a BMC that is slower than our
 * patience answers each repeated RAKP message with another challenge, and would never be understood.
 */
const handshakeTries = 5

/**
 * A session of IPMI 2.0 with one BMC. Requests wait for each other. Packets that were forged, cut off or replayed are dropped and counted;
 * the wait for the true answer goes on.
 */
export class IpmiSession {
  /** Packets that claimed to be of this session, and were not to be believed. */
  refusedPackets = 0
  readonly bmcGuid: Buffer
  readonly #port: UdpPort
  readonly #endpoint: Endpoint
  readonly #patience: Patience
  readonly #keys: SessionKeys
  readonly #consoleId: number
  readonly #bmcId: number
  readonly #turns = new Turns()
  readonly #window = new SequenceWindow()
  #sequence = 0
  #requestSequence = 0

  private constructor(port: UdpPort, endpoint: Endpoint, patience: Patience, handshake: Handshake) {
    this.#port = port
    this.#endpoint = endpoint
    this.#patience = patience
    this.#keys = handshake.keys
    this.#consoleId = handshake.consoleSessionId
    this.#bmcId = handshake.bmcSessionId
    this.bmcGuid = handshake.bmcGuid
  }

  /**
   * Logs in and takes the privilege.
   * @throws BmcError of the kinds `unreachable`, `unknown-user`, `wrong-password`, `cipher-suite-refused`, `privilege`, `sessions-exhausted`,
   * `unsupported` (it speaks IPMI 1.5 alone), `protocol`.
   */
  static async open(
    port: UdpPort,
    endpoint: Endpoint,
    login: Login,
    patience: Patience,
    signal: AbortSignal,
  ): Promise<IpmiSession> {
    const capabilities = await readAuthCapabilities(port, endpoint, patience, signal)
    if (!capabilities.ipmi20) throw new BmcError('unsupported', 'the BMC speaks IPMI 1.5 alone, and 2.0 is needed')
    if (capabilities.needsBmcKey && login.bmcKey === undefined)
      throw new BmcError('wrong-password', 'the BMC has a BMC key (K_G) of its own; give it as bmcKey')
    for (let attempt = 1; ; attempt += 1) {
      const longer = { ...patience, timeoutMs: patience.timeoutMs * 2 ** (attempt - 1) }
      const opened = await shakeHands(port, endpoint, login, longer, signal)
      if (opened.kind === 'open') {
        const session = new IpmiSession(port, endpoint, patience, opened.handshake)
        await session.#takePrivilege(login.privilege, signal)
        return session
      }
      if (attempt === handshakeTries)
        throw new BmcError('unreachable', `the BMC's handshake did not end in ${attempt} tries: ${opened.why}`)
    }
  }

  /**
   * Asks something and gives what follows the completion code.
   * @throws BmcError: `unreachable` where no answer came (in doubt where the request is to be sent once alone), else as the completion code says.
   */
  request(request: Request, signal: AbortSignal): Promise<Buffer> {
    return this.#turns.run(signal, async () => {
      const answer = await this.#ask(request, signal)
      const refused = asError(answer, request.what)
      if (refused !== undefined) throw refused
      return answer.subarray(1)
    })
  }

  /** Keeps the session from being forgotten: a BMC ends it after 60 s without a word. */
  async keepAlive(signal: AbortSignal): Promise<void> {
    await this.request({ netFn: netFnApp, command: commandDeviceId, what: 'whether it is there' }, signal)
  }

  /** Logs out, without insisting: a BMC that does not hear it forgets the session by itself. */
  async close(signal: AbortSignal): Promise<void> {
    const id = Buffer.alloc(4)
    id.writeUInt32LE(this.#bmcId)
    const request = { netFn: netFnApp, command: commandCloseSession, data: [...id], what: 'to end the session' }
    await this.#turns.run(signal, () => this.#ask({ ...request, once: true }, signal)).catch(() => undefined)
  }

  /** Sends a payload of another type than IPMI's, once. */
  async send(type: number, payload: Buffer): Promise<void> {
    await this.#port.send(this.#endpoint, this.#seal(type, payload))
  }

  /** Listens to the payloads of one type. @returns what ends it. */
  listen(type: number, listener: (payload: Buffer) => void): () => void {
    return this.#port.listen(this.#endpoint, (bytes) => {
      if (typeOf(bytes) !== type) return
      const payload = this.#unseal(bytes)
      if (payload !== undefined) listener(payload.payload)
    })
  }

  async #takePrivilege(privilege: number, signal: AbortSignal): Promise<void> {
    try {
      const request = { netFn: netFnApp, command: commandSetPrivilege, data: [privilege], what: 'for its privilege' }
      const granted = await this.request(request, signal)
      if (((granted[0] ?? 0) & 0x0f) < privilege)
        throw new BmcError('privilege', 'the BMC grants the user less privilege than was asked for')
    } catch (error) {
      await this.close(AbortSignal.timeout(this.#patience.timeoutMs))
      if (!(error instanceof BmcError) || !['0x80', '0x81', '0xcc'].includes(error.said ?? '')) throw error
      throw new BmcError('privilege', 'the BMC does not grant the user the privilege that power and boot need', {
        cause: error,
        ...(error.said !== undefined && { said: error.said }),
      })
    }
  }

  #ask(request: Request, signal: AbortSignal): Promise<Buffer> {
    this.#requestSequence = (this.#requestSequence + 1) & 0x3f
    const { netFn, command } = request
    const message = { netFn, command, sequence: this.#requestSequence, data: Buffer.from(request.data ?? []) }
    const once = request.once === true
    const { timeoutMs, tries } = this.#patience
    return exchange(
      this.#port,
      this.#endpoint,
      () => this.#seal(payloadTypes.ipmi, encodeRequest(message)),
      (bytes) => {
        if (typeOf(bytes) !== payloadTypes.ipmi) return undefined
        const payload = this.#unseal(bytes)
        return payload === undefined ? undefined : answerTo(message, parseResponse(payload.payload))
      },
      {
        // What is sent once is waited for as long as what is sent often.
        timeoutMs: once ? timeoutMs * tries : timeoutMs,
        tries: once ? 1 : tries,
        signal,
        what: request.what,
        inDoubt: once,
      },
    )
  }

  #seal(type: number, payload: Buffer): Buffer {
    this.#sequence += 1
    return encodeSealed(this.#keys, this.#bmcId, { type, sequence: this.#sequence, payload })
  }

  #unseal(bytes: Buffer): SessionPayload | undefined {
    const packet = parsePacket(bytes)
    if (packet?.kind !== 'sealed' || packet.sessionId !== this.#consoleId) return undefined
    const payload = openSealed(this.#keys, this.#consoleId, bytes)
    if (payload !== undefined && this.#window.accept(payload.sequence)) return payload
    this.refusedPackets += 1
    return undefined
  }
}

/** The payload type that a packet of a session claims to have. */
function typeOf(bytes: Buffer): number {
  return (bytes[5] ?? 0) & 0x3f
}

/** The data of an answer, where it is the one to this request. */
function answerTo(request: IpmiMessage, answer: IpmiMessage | undefined): Buffer | undefined {
  if (answer === undefined || answer.netFn !== (request.netFn | 1)) return undefined
  return answer.command === request.command && answer.sequence === request.sequence ? answer.data : undefined
}

type Opened =
  { readonly kind: 'open'; readonly handshake: Handshake } | { readonly kind: 'again'; readonly why: string }

async function shakeHands(
  port: UdpPort,
  endpoint: Endpoint,
  login: Login,
  patience: Patience,
  signal: AbortSignal,
): Promise<Opened> {
  const handshake = new Handshake(login)
  const steps = [
    step(
      'to open a session',
      payloadTypes.openSessionRequest,
      () => handshake.openRequest(),
      (payload) => handshake.acceptOpen(payload),
    ),
    step(
      'RAKP 1',
      payloadTypes.rakp1,
      () => handshake.rakp1(),
      (payload) => handshake.acceptRakp2(payload),
    ),
    step(
      'RAKP 3',
      payloadTypes.rakp3,
      () => handshake.rakp3(),
      (payload) => handshake.acceptRakp4(payload),
    ),
  ]
  for (const [index, { what, type, make, accept }] of steps.entries()) {
    const outcome = await exchange(
      port,
      endpoint,
      () => encodeSetup(type, make()),
      (bytes) => {
        const packet = parsePacket(bytes)
        if (packet?.kind !== 'setup' || packet.payloadType !== type + 1) return undefined
        const judged = accept(packet.payload)
        return judged.kind === 'ignore' ? undefined : judged
      },
      { ...patience, signal, what },
    ).catch((error: unknown): Outcome => {
      // Having answered before, it is there: most likely it activated the session, and the answer was lost.
      if (index > 0 && error instanceof BmcError && error.kind === 'unreachable')
        return { kind: 'again', why: error.message }
      throw error
    })
    if (outcome.kind === 'failed') throw outcome.error
    if (outcome.kind === 'again') return outcome
  }
  return { kind: 'open', handshake }
}

interface Step {
  readonly what: string
  readonly type: number
  readonly make: () => Buffer
  readonly accept: (payload: Buffer) => Outcome
}

function step(what: string, type: number, make: () => Buffer, accept: (payload: Buffer) => Outcome): Step {
  return { what, type, make, accept }
}
