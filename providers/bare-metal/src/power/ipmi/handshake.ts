import { randomBytes } from 'node:crypto'
import { BmcError, type BmcErrorKind } from '../errors.js'
import { deriveKeys, hmac, keyBytes, sameBytes, type CipherSuite, type SessionKeys } from './cipher-suite.js'

/** Privilege levels; IPMI 2.0, section 6.8. */
export const privilegeLevels = { user: 2, operator: 3, administrator: 4 } as const

/** Names a user by name alone, whatever privilege it has (RAKP message 1, byte 25, bit 4). */
const nameOnly = 0x10

export interface Login {
  readonly suite: CipherSuite
  readonly username: string
  readonly password: string
  /** K_G, where the BMC has one. */
  readonly bmcKey?: Uint8Array
  readonly privilege: number
}

/**
 * What became of an answer: it was not one (`ignore`), the next step may begin (`done`), all has to begin anew because packets were lost on the way
 * (`again`), or the BMC will not have us (`failed`).
 */
export type Outcome =
  | { readonly kind: 'ignore' }
  | { readonly kind: 'done' }
  | { readonly kind: 'again'; readonly why: string }
  | { readonly kind: 'failed'; readonly error: BmcError }

const ignore: Outcome = { kind: 'ignore' }
const done: Outcome = { kind: 'done' }

/** RMCP+ and RAKP status codes that do not mean a defect of ours; IPMI 2.0, table 13-15. */
const statuses: Readonly<Record<number, { readonly kind: BmcErrorKind; readonly text: string }>> = {
  0x01: { kind: 'sessions-exhausted', text: 'it has no session left' },
  0x04: { kind: 'cipher-suite-refused', text: 'it does not know the authentication algorithm' },
  0x05: { kind: 'cipher-suite-refused', text: 'it does not know the integrity algorithm' },
  0x06: { kind: 'cipher-suite-refused', text: 'it has no such authentication' },
  0x07: { kind: 'cipher-suite-refused', text: 'it has no such integrity algorithm' },
  0x09: { kind: 'privilege', text: 'it knows no such role' },
  0x0a: { kind: 'privilege', text: 'the user may not have that privilege' },
  0x0b: { kind: 'sessions-exhausted', text: 'it has no session left for that privilege' },
  0x0c: { kind: 'unknown-user', text: "the user's name is too long for it" },
  0x0d: { kind: 'unknown-user', text: 'it knows no such user' },
  0x0e: { kind: 'unknown-user', text: 'it knows no such GUID' },
  0x10: { kind: 'cipher-suite-refused', text: 'it does not know the encryption' },
  0x11: { kind: 'cipher-suite-refused', text: 'it has no cipher suite of these algorithms' },
}

/** The BMC forgot, or never knew, the session: its side of the handshake had timed out or went another way. */
const lostStatuses: ReadonlySet<number> = new Set([0x02, 0x08])

/**
 * The console's side of opening a session: Open Session and RAKP messages 1 to 4 (IPMI 2.0, sections 13.17 to 13.24). Pure: it makes
 * payloads and judges those that come back. One for each attempt.
 */
export class Handshake {
  readonly #login: Login
  readonly #passwordKey: Buffer
  readonly #consoleRandom: Buffer
  readonly #consoleId: Buffer
  readonly #tag: number
  #bmcId: Buffer = Buffer.alloc(4)
  #bmcRandom: Buffer = Buffer.alloc(16)
  #bmcGuid: Buffer = Buffer.alloc(16)
  #sik: Buffer = Buffer.alloc(0)

  /** @throws BmcError where the login cannot be put into IPMI's fields. */
  constructor(login: Login, random: (bytes: number) => Buffer = randomBytes) {
    this.#login = login
    const password = Buffer.from(login.password)
    if (password.length > keyBytes)
      throw new BmcError(
        'wrong-password',
        `the BMC's password has ${password.length} bytes; IPMI 2.0 allows ${keyBytes}`,
      )
    if (Buffer.byteLength(login.username) > 16)
      throw new BmcError('unknown-user', "the BMC's user name has more than the 16 bytes that IPMI 2.0 allows")
    this.#passwordKey = padKey(password)
    this.#consoleRandom = random(16)
    this.#consoleId = random(4)
    // Zero means "outside a session".
    if (this.#consoleId.every((byte) => byte === 0)) this.#consoleId[0] = 1
    this.#tag = random(1).readUInt8()
  }

  get consoleSessionId(): number {
    return this.#consoleId.readUInt32LE()
  }

  get bmcSessionId(): number {
    return this.#bmcId.readUInt32LE()
  }

  get bmcGuid(): Buffer {
    return this.#bmcGuid
  }

  /** The keys of the session that was opened. */
  get keys(): SessionKeys {
    return deriveKeys(this.#login.suite, this.#sik)
  }

  openRequest(): Buffer {
    const { suite, privilege } = this.#login
    const algorithms = [suite.authentication, suite.integrity, suite.confidentiality]
    const proposals = algorithms.flatMap((algorithm, type) => [type, 0, 0, 8, algorithm, 0, 0, 0])
    return Buffer.from([this.#tag, privilege, 0, 0, ...this.#consoleId, ...proposals])
  }

  acceptOpen(payload: Buffer): Outcome {
    const refused = this.#status(payload)
    if (refused !== undefined) return refused
    if (payload.length !== 36) return ignore
    const { suite } = this.#login
    const chosen = [payload[16], payload[24], payload[32]]
    const wished = [suite.authentication, suite.integrity, suite.confidentiality]
    if (chosen.some((algorithm, index) => algorithm !== wished[index]))
      return failed('cipher-suite-refused', `the BMC answered cipher suite ${suite.id} with other algorithms`)
    const bmcId = payload.subarray(8, 12)
    if (bmcId.readUInt32LE() === 0) return ignore
    this.#bmcId = Buffer.from(bmcId)
    return done
  }

  rakp1(): Buffer {
    const head = Buffer.from([this.#tag, 0, 0, 0])
    const name = Buffer.from(this.#login.username)
    const role = Buffer.from([this.#role, 0, 0, name.length])
    return Buffer.concat([head, this.#bmcId, this.#consoleRandom, role, name])
  }

  acceptRakp2(payload: Buffer): Outcome {
    const refused = this.#status(payload)
    if (refused !== undefined) return refused
    const { suite } = this.#login
    if (payload.length !== 40 + suite.digestBytes) return ignore
    this.#bmcRandom = Buffer.from(payload.subarray(8, 24))
    this.#bmcGuid = Buffer.from(payload.subarray(24, 40))
    const expected = hmac(
      suite,
      this.#passwordKey,
      this.#consoleId,
      this.#bmcId,
      this.#consoleRandom,
      this.#bmcRandom,
      this.#bmcGuid,
      this.#user,
    )
    if (!sameBytes(expected, payload.subarray(40)))
      return failed('wrong-password', `the BMC knows the user ${this.#userForPeople} by another password`)
    this.#sik = hmac(
      suite,
      this.#login.bmcKey === undefined ? this.#passwordKey : padKey(this.#login.bmcKey),
      this.#consoleRandom,
      this.#bmcRandom,
      this.#user,
    )
    return done
  }

  rakp3(): Buffer {
    const proof = hmac(this.#login.suite, this.#passwordKey, this.#bmcRandom, this.#consoleId, this.#user)
    return Buffer.concat([Buffer.from([this.#tag, 0, 0, 0]), this.#bmcId, proof])
  }

  acceptRakp4(payload: Buffer): Outcome {
    // RAKP 2 proved that the BMC has our password; that it finds ours wrong means that it went on from another RAKP 1 than we did.
    if (payload[1] === 0x0f && this.#isOurs(payload)) return { kind: 'again', why: 'RAKP messages crossed' }
    const refused = this.#status(payload)
    if (refused !== undefined) return refused
    const { suite } = this.#login
    if (payload.length !== 8 + suite.codeBytes) return ignore
    const expected = hmac(suite, this.#sik, this.#consoleRandom, this.#bmcId, this.#bmcGuid)
    if (sameBytes(expected.subarray(0, suite.codeBytes), payload.subarray(8))) return done
    return failed('wrong-password', 'the BMC has another BMC key (K_G) than was given; correct bmcKey')
  }

  /** What an answer's status decides: undefined where it says that all is well. */
  #status(payload: Buffer): Outcome | undefined {
    if (!this.#isOurs(payload)) return ignore
    const status = payload.readUInt8(1)
    if (status === 0) return undefined
    if (lostStatuses.has(status)) return { kind: 'again', why: 'the BMC does not know the session any more' }
    if (status === 0x0f)
      return failed('wrong-password', `the BMC refuses the password of ${this.#userForPeople}`, status)
    const meaning = statuses[status]
    if (meaning === undefined)
      return failed('protocol', `the BMC ended the handshake with status ${hex(status)}`, status)
    return failed(meaning.kind, this.#explain(meaning.kind, meaning.text), status)
  }

  #explain(kind: BmcErrorKind, text: string): string {
    if (kind === 'cipher-suite-refused')
      return `the BMC refuses cipher suite ${this.#login.suite.id}: ${text}; set cipherSuite to one that it has`
    return `the BMC refuses the user ${this.#userForPeople}: ${text}`
  }

  #isOurs(payload: Buffer): boolean {
    if (payload.length < 2 || payload[0] !== this.#tag) return false
    // Some BMCs cut a refusal off after its status. Nothing is taken from it but that they refuse.
    if (payload.length < 8) return payload[1] !== 0
    return payload.subarray(4, 8).equals(this.#consoleId)
  }

  get #role(): number {
    return this.#login.privilege | nameOnly
  }

  get #user(): Buffer {
    const name = Buffer.from(this.#login.username)
    return Buffer.concat([Buffer.from([this.#role, name.length]), name])
  }

  get #userForPeople(): string {
    return this.#login.username === '' ? '(the one without a name)' : JSON.stringify(this.#login.username)
  }
}

function failed(kind: BmcErrorKind, message: string, status?: number): Outcome {
  const options = status === undefined ? {} : { said: hex(status) }
  return { kind: 'failed', error: new BmcError(kind, message, options) }
}

export function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, '0')}`
}

export function padKey(key: Uint8Array): Buffer {
  return Buffer.concat([key], keyBytes)
}
