import { randomBytes } from 'node:crypto'
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

/** A machine of a cloud that is a folder: one file for each. */
export interface FolderMachine {
  readonly id: string
  readonly name: string
  readonly key: string
  readonly power: 'on' | 'off'
  readonly reboots: number
  readonly reinstalls: number
  /** Which reinstall it was that was done last, in its caller's own count. */
  readonly mark: number
  readonly rescue: boolean
  readonly sshPublicKeys: readonly string[]
  /** When it runs, and when it is gone, by the time of day; the latter is absent while nobody has asked for it. */
  readonly runsAtMs: number
  readonly goneAtMs?: number
}

/** What is wrong with the cloud right now. */
export interface FolderFaults {
  readonly full?: boolean
  readonly throttled?: boolean
  /** The next create takes effect, and its answer never comes. */
  readonly losesAnswer?: boolean
  readonly createMs?: number
  /** Listings fail after their first page. */
  readonly listBreaks?: boolean
}

export type FolderErrorCode = 'full' | 'throttled' | 'forbidden' | 'no-answer' | 'broken' | 'missing'

/** A call that the cloud refused, or did not answer. */
export class FolderError extends Error {
  override readonly name = 'FolderError'
  readonly code: FolderErrorCode

  constructor(code: FolderErrorCode) {
    super(`the cloud says: ${code}`)
    this.code = code
  }
}

export const goodToken = 'a-token-that-is-good'
export const otherToken = 'another-token-that-is-good'

const callMs = 10
const goneMs = 300
const pageSize = 100

/** A cloud that is a folder, so that any process can look at it. Names need not be unique in it. */
export class FolderCloud {
  readonly #dir: string
  readonly #token: string

  /** @param token what the caller proves itself with. */
  constructor(dir: string, token: string = goodToken) {
    this.#dir = dir
    this.#token = token
    mkdirSync(this.#machines, { recursive: true })
  }

  async create(name: string, key: string, sshPublicKeys: readonly string[] = []): Promise<FolderMachine> {
    await this.#call('write')
    const { full = false, losesAnswer = false, createMs = 100, ...others } = this.faults
    if (full) throw new FolderError('full')
    const id = `m-${randomBytes(4).toString('hex')}`
    const counts = { reboots: 0, reinstalls: 0, mark: 0, rescue: false, sshPublicKeys }
    const machine: FolderMachine = { id, name, key, power: 'on', ...counts, runsAtMs: Date.now() + createMs }
    this.put(machine)
    if (!losesAnswer) return machine
    this.faults = { full, createMs, ...others }
    await delay(200)
    throw new FolderError('no-answer')
  }

  async get(id: string): Promise<FolderMachine | undefined> {
    await this.#call('read')
    return this.all().find((machine) => machine.id === id)
  }

  /** One page of what exists. @param from the page, from 0. */
  async page(from: number): Promise<{ readonly machines: readonly FolderMachine[]; readonly more: boolean }> {
    await this.#call('read')
    if (from > 0 && this.faults.listBreaks === true) throw new FolderError('broken')
    const all = this.all()
    return { machines: all.slice(from * pageSize, (from + 1) * pageSize), more: all.length > (from + 1) * pageSize }
  }

  async remove(id: string): Promise<void> {
    await this.#call('write')
    const machine = this.all().find((each) => each.id === id)
    if (machine === undefined) throw new FolderError('missing')
    this.put({ ...machine, goneAtMs: machine.goneAtMs ?? Date.now() + goneMs })
  }

  async power(id: string, wish: 'on' | 'off' | 'reboot'): Promise<void> {
    const { rescue, ...machine } = await this.#written(id)
    // What starts anew starts its own system.
    if (wish === 'on') this.put({ ...machine, rescue, power: 'on' })
    else if (wish === 'off') this.put({ ...machine, rescue: false, power: 'off' })
    else this.put({ ...machine, rescue: false, reboots: machine.reboots + 1 })
  }

  /** Puts a new system on a machine. */
  async reinstall(id: string, mark: number): Promise<void> {
    const machine = await this.#written(id)
    const { losesAnswer = false, ...others } = this.faults
    this.put({ ...machine, power: 'on', rescue: false, reinstalls: machine.reinstalls + 1, mark })
    if (!losesAnswer) return
    this.faults = others
    await delay(200)
    throw new FolderError('no-answer')
  }

  /** Puts a key on a machine, or takes it off: empty. */
  async key(id: string, key: string): Promise<void> {
    const machine = await this.#written(id)
    const { losesAnswer = false, ...others } = this.faults
    this.put({ ...machine, key })
    if (!losesAnswer) return
    this.faults = others
    await delay(200)
    throw new FolderError('no-answer')
  }

  /** Starts a machine into its rescue system, or into its own. */
  async rescue(id: string, enabled: boolean): Promise<void> {
    const machine = await this.#written(id)
    this.put({ ...machine, rescue: enabled })
  }

  /** What exists, past the API. */
  all(): FolderMachine[] {
    return readdirSync(this.#machines)
      .filter((file) => file.endsWith('.json'))
      .sort()
      .map((file) => JSON.parse(readFileSync(join(this.#machines, file), 'utf8')) as FolderMachine)
      .filter(({ goneAtMs = Infinity }) => goneAtMs > Date.now())
  }

  /** Puts a machine there as it is, past the API. */
  put(machine: FolderMachine): void {
    const file = join(this.#machines, machine.id)
    writeFileSync(`${file}.new`, JSON.stringify(machine))
    renameSync(`${file}.new`, `${file}.json`)
  }

  /** Makes one disappear, past the API. */
  drop(id: string): void {
    rmSync(join(this.#machines, `${id}.json`), { force: true })
  }

  /** Calls so far: each is one byte of a file. */
  calls(kind: 'read' | 'write'): number {
    const file = join(this.#dir, kind)
    return existsSync(file) ? statSync(file).size : 0
  }

  get faults(): FolderFaults {
    const file = join(this.#dir, 'faults.json')
    return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as FolderFaults) : {}
  }

  set faults(faults: FolderFaults) {
    writeFileSync(join(this.#dir, 'faults.json'), JSON.stringify(faults))
  }

  get #machines(): string {
    return join(this.#dir, 'machines')
  }

  async #written(id: string): Promise<FolderMachine> {
    await this.#call('write')
    const machine = this.all().find((each) => each.id === id)
    if (machine === undefined) throw new FolderError('missing')
    return machine
  }

  async #call(kind: 'read' | 'write'): Promise<void> {
    appendFileSync(join(this.#dir, kind), '.')
    await delay(callMs)
    if (this.#token !== goodToken && this.#token !== otherToken) throw new FolderError('forbidden')
    if (this.faults.throttled === true) throw new FolderError('throttled')
  }
}
