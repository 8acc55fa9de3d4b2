import { randomBytes } from 'node:crypto'
import {
  cipherSuite,
  deriveKeys,
  hmac,
  sameBytes,
  type CipherSuite,
  type CipherSuiteId,
  type SessionKeys,
} from '../../src/power/ipmi/cipher-suite.js'
import { padKey } from '../../src/power/ipmi/handshake.js'
import { SequenceWindow } from '../../src/power/ipmi/sequence-window.js'

export interface BmcUser {
  readonly name: string
  readonly password: string
  /** 2 user, 3 operator, 4 administrator. */
  readonly privilege: number
}

export interface SessionRules {
  readonly users: readonly BmcUser[]
  readonly suites: readonly CipherSuiteId[]
  readonly guid: Buffer
  readonly maxSessions: number
  readonly bmcKey?: Buffer
  /** Answers unknown users as if they were known, as careful BMCs do. */
  readonly hidesUsers: boolean
}

/** A session as the BMC sees it. */
export interface BmcSession {
  readonly id: number
  readonly consoleId: Buffer
  readonly suite: CipherSuite
  readonly window: SequenceWindow
  keys: SessionKeys | undefined
  /** What the user has taken, by Set Session Privilege Level. */
  privilege: number
  maxPrivilege: number
  sequenceOut: number
  sik: Buffer
  consoleRandom: Buffer
  bmcRandom: Buffer
  passwordKey: Buffer
  user: Buffer
}

const status = {
  ok: 0,
  noRoom: 0x01,
  invalidSession: 0x02,
  privilege: 0x0a,
  unknownUser: 0x0d,
  wrongCode: 0x0f,
  noSuite: 0x11,
}

/** The managed system's side of RMCP+ sessions (IPMI 2.0, chapter 13), written against the specification for tests of the console's side. */
export class BmcSessions {
  readonly #rules: SessionRules
  readonly #sessions = new Map<number, BmcSession>()

  constructor(rules: SessionRules) {
    this.#rules = rules
  }

  find(id: number): BmcSession | undefined {
    return this.#sessions.get(id)
  }

  get open(): number {
    return [...this.#sessions.values()].filter(({ keys }) => keys !== undefined).length
  }

  remove(id: number): void {
    this.#sessions.delete(id)
  }

  /** As after a restart of the BMC. */
  forgetAll(): void {
    this.#sessions.clear()
  }

  openSession(payload: Buffer): Buffer | undefined {
    if (payload.length !== 32) return undefined
    const [tag, consoleId] = [payload.readUInt8(0), payload.subarray(4, 8)]
    const suite = this.#rules.suites
      .map(cipherSuite)
      .find(
        ({ authentication, integrity, confidentiality }) =>
          payload[12] === authentication && payload[20] === integrity && payload[28] === confidentiality,
      )
    if (suite === undefined) return Buffer.from([tag, status.noSuite, 0, 0, ...consoleId])
    if (this.open >= this.#rules.maxSessions) return Buffer.from([tag, status.noRoom, 0, 0, ...consoleId])
    const id = 1 + (randomBytes(4).readUInt32LE() % 0xffff_fffe)
    const empty = Buffer.alloc(0)
    this.#dropHalfOpen()
    this.#sessions.set(id, {
      id,
      consoleId: Buffer.from(consoleId),
      suite,
      window: new SequenceWindow(),
      keys: undefined,
      privilege: 2,
      maxPrivilege: 0,
      sequenceOut: 0,
      sik: empty,
      consoleRandom: empty,
      bmcRandom: empty,
      passwordKey: empty,
      user: empty,
    })
    const idBytes = Buffer.alloc(4)
    idBytes.writeUInt32LE(id)
    return Buffer.concat([Buffer.from([tag, status.ok, 4, 0]), consoleId, idBytes, payload.subarray(8, 32)])
  }

  rakp1(payload: Buffer): Buffer | undefined {
    if (payload.length < 28 || payload.length !== 28 + payload.readUInt8(27)) return undefined
    const [tag, session] = [payload.readUInt8(0), this.#sessions.get(payload.readUInt32LE(4))]
    if (session === undefined || session.keys !== undefined)
      return Buffer.from([tag, status.invalidSession, 0, 0, 0, 0, 0, 0])
    const name = payload.subarray(28).toString()
    const user = this.#rules.users.find((known) => known.name === name)
    if (user === undefined && !this.#rules.hidesUsers)
      return Buffer.from([tag, status.unknownUser, 0, 0, ...session.consoleId])
    const role = payload.readUInt8(24) & 0x0f
    if (user !== undefined && role > user.privilege)
      return Buffer.from([tag, status.privilege, 0, 0, ...session.consoleId])
    // A repeated RAKP 1 gets another challenge, as from the stricter of real BMCs.
    session.consoleRandom = Buffer.from(payload.subarray(8, 24))
    session.bmcRandom = randomBytes(16)
    session.passwordKey = user === undefined ? randomBytes(20) : padKey(Buffer.from(user.password))
    session.user = Buffer.concat([payload.subarray(24, 25), payload.subarray(27)])
    session.maxPrivilege = user?.privilege ?? 0
    const { guid } = this.#rules
    const code = hmac(
      session.suite,
      session.passwordKey,
      session.consoleId,
      idBytes(session),
      session.consoleRandom,
      session.bmcRandom,
      guid,
      session.user,
    )
    return Buffer.concat([Buffer.from([tag, status.ok, 0, 0]), session.consoleId, session.bmcRandom, guid, code])
  }

  rakp3(payload: Buffer): Buffer | undefined {
    if (payload.length < 8) return undefined
    const [tag, session] = [payload.readUInt8(0), this.#sessions.get(payload.readUInt32LE(4))]
    if (session === undefined || session.keys !== undefined || session.bmcRandom.length === 0)
      return Buffer.from([tag, status.invalidSession, 0, 0, ...(session?.consoleId ?? [0, 0, 0, 0])])
    const { suite, passwordKey, bmcRandom, consoleId, consoleRandom, user } = session
    if (!sameBytes(hmac(suite, passwordKey, bmcRandom, consoleId, user), payload.subarray(8)))
      return Buffer.from([tag, status.wrongCode, 0, 0, ...consoleId])
    const key = this.#rules.bmcKey === undefined ? passwordKey : padKey(this.#rules.bmcKey)
    session.sik = hmac(suite, key, consoleRandom, bmcRandom, user)
    session.keys = deriveKeys(suite, session.sik)
    const code = hmac(suite, session.sik, consoleRandom, idBytes(session), this.#rules.guid)
    return Buffer.concat([Buffer.from([tag, status.ok, 0, 0]), consoleId, code.subarray(0, suite.codeBytes)])
  }

  #dropHalfOpen(): void {
    for (const [id, { keys }] of this.#sessions) {
      if (keys === undefined && this.#sessions.size > 4 * this.#rules.maxSessions) this.#sessions.delete(id)
    }
  }
}

function idBytes({ id }: BmcSession): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(id)
  return bytes
}
