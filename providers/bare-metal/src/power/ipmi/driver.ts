import { resolveBmcAddress } from '../address.js'
import type {
  BmcDriver,
  BmcEnvironment,
  BmcFacts,
  BootDevice,
  BootMode,
  ConsolePart,
  PowerAction,
  PowerState,
} from '../driver.js'
import { BmcError, isBmcError } from '../errors.js'
import type { BmcSecret, IpmiSettings } from '../settings.js'
import { Turns } from '../turns.js'
import { pause, underSignals } from '../waiting.js'
import { cipherSuite } from './cipher-suite.js'
import * as commands from './commands.js'
import { privilegeLevels, type Login } from './handshake.js'
import { IpmiSession, type Request } from './session.js'
import { followConsole } from './sol.js'
import { UdpPort, type Endpoint } from './udp-port.js'

/** A BMC forgets a session after 60 s of silence (IPMI 2.0, section 6.12.15); one that is older than this is not relied on. */
const sessionIdleMs = 45_000
const busyTries = 4
const busyPauseMs = 250

/** A BMC by IPMI 2.0 over RMCP+. It logs in when first asked, keeps its session while it is in use, and logs in anew where that was lost. */
export class IpmiDriver implements BmcDriver {
  readonly kind = 'ipmi'
  readonly #settings: IpmiSettings
  readonly #login: Login
  readonly #allow: ((ip: string) => boolean) | undefined
  readonly #port: UdpPort
  readonly #ownsPort: boolean
  readonly #turns = new Turns()
  readonly #closing = new AbortController()
  #session: IpmiSession | undefined
  #idle: NodeJS.Timeout | undefined

  constructor(settings: IpmiSettings, secret: BmcSecret, options: BmcEnvironment = {}) {
    this.#settings = settings
    this.#login = {
      suite: cipherSuite(settings.cipherSuite),
      username: secret.username,
      password: secret.password,
      privilege: privilegeLevels[settings.privilege],
      ...(secret.bmcKey !== undefined && { bmcKey: Buffer.from(secret.bmcKey, 'hex') }),
    }
    this.#allow = options.allowAddress
    this.#ownsPort = options.udpPort === undefined
    this.#port = options.udpPort ?? new UdpPort({ sockets: 1 })
  }

  readPower(signal: AbortSignal): Promise<PowerState> {
    return this.#turn(signal, async (ask) => commands.parsePower(await ask(commands.getChassisStatus)))
  }

  setPower(action: PowerAction, signal: AbortSignal): Promise<void> {
    return this.#turn(signal, async (ask) => {
      await ask(commands.chassisControl(action))
    })
  }

  setBootOnce(device: BootDevice, mode: BootMode, signal: AbortSignal): Promise<void> {
    return this.#turn(signal, (ask) => setBootOnce(ask, device, mode))
  }

  verify(signal: AbortSignal): Promise<BmcFacts> {
    return this.#turn(signal, async (ask) => {
      const device = commands.parseDeviceId(await ask(commands.getDeviceId))
      const power = commands.parsePower(await ask(commands.getChassisStatus))
      const guid = await optional(async () => commands.parseGuid(await ask(commands.getSystemGuid)))
      const address = await optional(async () =>
        commands.parseLanAddress(await ask(commands.getLanParameter(commands.lanParameters.address))),
      )
      const mac = await optional(async () =>
        commands.parseLanMac(await ask(commands.getLanParameter(commands.lanParameters.mac))),
      )
      return {
        kind: this.kind,
        vendor: commands.vendorName(device.manufacturer),
        model: `product ${device.product}`,
        firmware: device.firmware,
        power,
        ...(guid !== undefined && { guid }),
        ...(address !== undefined && { address }),
        ...(mac !== undefined && { mac }),
      }
    })
  }

  /** Sends any command, for what has no function of its own here. @returns what follows the completion code. */
  raw(request: Request, signal: AbortSignal): Promise<Buffer> {
    return this.#turn(signal, (ask) => ask(request))
  }

  /** In a session of its own, so that it hinders nothing else. */
  async *openConsole(signal: AbortSignal): AsyncIterable<ConsolePart> {
    const both = AbortSignal.any([signal, this.#closing.signal])
    const session = await this.#open(both)
    try {
      yield* followConsole(session, both)
    } finally {
      await session.close(AbortSignal.timeout(this.#settings.timeoutMs))
    }
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return
    this.#closing.abort(new BmcError('unreachable', 'the connection to the BMC was closed'))
    await this.#logOut()
    if (this.#ownsPort) await this.#port.close()
  }

  #turn<Result>(signal: AbortSignal, work: (ask: Ask) => Promise<Result>): Promise<Result> {
    return underSignals([signal, this.#closing.signal], (both) =>
      this.#turns.run(both, async () => {
        clearTimeout(this.#idle)
        try {
          return await work((request) => this.#ask(request, both))
        } finally {
          this.#idle = setTimeout(() => void this.#logOut(), sessionIdleMs).unref()
        }
      }),
    )
  }

  /** Asks in the session that is there, and where that gets no answer, in a new one: a BMC that was restarted knows no sessions. */
  async #ask(request: Request, signal: AbortSignal): Promise<Buffer> {
    const kept = this.#session
    const session = kept ?? (this.#session = await this.#open(signal))
    try {
      return await patiently(signal, () => session.request(request, signal))
    } catch (error) {
      if (!isBmcError(error, 'unreachable')) throw error
      this.#session = undefined
      if (kept === undefined || error.inDoubt) throw error
      this.#session = await this.#open(signal)
      return await this.#session.request(request, signal)
    }
  }

  async #open(signal: AbortSignal): Promise<IpmiSession> {
    const { address, port, timeoutMs, tries } = this.#settings
    const endpoint: Endpoint = { ...(await resolveBmcAddress(address, this.#allow)), port }
    return IpmiSession.open(this.#port, endpoint, this.#login, { timeoutMs, tries }, signal)
  }

  async #logOut(): Promise<void> {
    clearTimeout(this.#idle)
    const session = this.#session
    this.#session = undefined
    await session?.close(AbortSignal.timeout(this.#settings.timeoutMs))
  }
}

type Ask = (request: Request) => Promise<Buffer>

/** Refusals that mean "this BMC has no such parameter", or does not let it be set. */
function isMissingParameter(error: unknown): boolean {
  return (
    isBmcError(error, 'unsupported') ||
    (isBmcError(error, 'refused') && ['0x80', '0x82', '0xc9', '0xcc', '0xc7'].includes(error.said ?? ''))
  )
}

/**
 * Sets the boot flags as IPMI 2.0 (section 28.12) wants it done: under the in-progress mark where the BMC has one, kept valid for longer than
 * the minute in which a power command is expected, and read back.
 */
async function setBootOnce(ask: Ask, device: BootDevice, mode: BootMode): Promise<void> {
  const { setInProgress, validFlagClearing, acknowledge, flags } = commands.bootParameters
  const what = `to boot once from ${device}`
  const marked = await markInProgress(ask, what)
  try {
    // Bit 3: the flags stay valid though no power command follows within 60 s.
    await unlessMissing(ask(commands.setBootOption(validFlagClearing, [0x08], what)))
    await unlessMissing(ask(commands.setBootOption(acknowledge, [0x01, 0x01], what)))
    await ask(commands.setBootOption(flags, commands.bootFlags(device, mode), what)).catch((error: unknown) => {
      if (!isMissingParameter(error)) throw error
      throw new BmcError('unsupported', `the BMC cannot be told ${what}`, { cause: error })
    })
  } finally {
    if (marked) await unlessMissing(ask(commands.setBootOption(setInProgress, [0x00], what)))
  }
  const seen = commands.parseBootFlags(await ask(commands.getBootOption(flags, 'what it boots from')))
  if (seen.device !== device) throw new BmcError('ignored', `the BMC accepted ${what}, and still has ${seen.device}`)
  if (seen.persistent) throw new BmcError('ignored', `the BMC was asked ${what}, and made it so for ever`)
}

/** @returns whether the mark is set, and must be taken back. @throws BmcError `busy` while somebody else has it. */
async function markInProgress(ask: Ask, what: string): Promise<boolean> {
  const set = commands.setBootOption(commands.bootParameters.setInProgress, [0x01], what)
  try {
    await ask(set)
    return true
  } catch (error) {
    if (isBmcError(error, 'refused') && error.said === '0x81') {
      // Who set the mark may be long gone, as it has no timeout of its own. Taking it back is what the next one is left with.
      await unlessMissing(ask(commands.setBootOption(commands.bootParameters.setInProgress, [0x00], what)))
      await ask(set)
      return true
    }
    if (isMissingParameter(error)) return false
    throw error
  }
}

async function unlessMissing(asked: Promise<unknown>): Promise<void> {
  await asked.catch((error: unknown) => {
    if (!isMissingParameter(error)) throw error
  })
}

/** A fact that not every BMC, or not every user, can be given. */
async function optional<Fact>(read: () => Promise<Fact>): Promise<Fact | undefined> {
  try {
    return await read()
  } catch (error) {
    if (isBmcError(error, 'unsupported', 'refused', 'privilege', 'protocol')) return undefined
    throw error
  }
}

/** Asks again, a few times, where the BMC says that it is busy. */
async function patiently<Answer>(signal: AbortSignal, ask: () => Promise<Answer>): Promise<Answer> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await ask()
    } catch (error) {
      if (!isBmcError(error, 'busy') || attempt === busyTries) throw error
      await pause(busyPauseMs * attempt, signal)
    }
  }
}
