import { randomBytes } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Item } from './gateway/item.js'
import type { HubSession } from './gateway/session.js'
import { Wire } from './gateway/wire.js'
import { ProviderProcess } from './process.js'
import type { Bench } from './bench.js'
import { until } from './until.js'

const minStartMs = 60_000

export interface StartOptions {
  /** Do not wait until it takes work. */
  readonly waitForReady?: boolean
  readonly env?: Readonly<Record<string, string>>
  /** Another token than a good one; `null`: none. */
  readonly joinToken?: string | null
  /** The state folder of an instance that ran before. */
  readonly stateDir?: string
  /** Where it is to connect to. Default: its own wire to the bench's gateway. */
  readonly gatewayPort?: () => number
}

/** One instance of the provider under test: its process, its state folder, and the wire between it and the gateway. */
export class Instance {
  readonly name: string
  readonly stateDir: string
  readonly wire: Wire
  process: ProviderProcess
  readonly #bench: Bench
  readonly #options: StartOptions
  #starts = 1

  private constructor(bench: Bench, name: string, stateDir: string, wire: Wire, options: StartOptions) {
    this.#bench = bench
    this.name = name
    this.stateDir = stateDir
    this.wire = wire
    this.#options = options
    this.process = this.#spawn(options.joinToken === undefined ? bench.gateway.joinToken() : options.joinToken, {})
  }

  static async launch(bench: Bench, name: string, options: StartOptions): Promise<Instance> {
    const stateDir = options.stateDir ?? join(bench.folder, `state-${name}-${randomBytes(3).toString('hex')}`)
    mkdirSync(stateDir, { recursive: true, mode: 0o700 })
    const wire = await Wire.open(options.gatewayPort ?? (() => bench.gateway.port))
    return new Instance(bench, name, stateDir, wire, options)
  }

  /** The sessions that it opened so far, the oldest first. */
  get sessions(): HubSession[] {
    return this.#bench.gateway.sessions.filter((session) => this.wire.carries(session.peer))
  }

  /** The session that it opened last, if that is open. */
  get current(): HubSession | undefined {
    const last = this.sessions.at(-1)
    return last?.open === true ? last : undefined
  }

  /** Its n-th session, from 1. */
  async session(n: number): Promise<HubSession> {
    return until(`session ${n} of ${this.name}`, () => this.#alive() && this.sessions[n - 1], this.#startMs)
  }

  /** Its session, once it has one that takes work. @param after waits for a later one than this. */
  async ready(after?: HubSession): Promise<HubSession> {
    return until(
      `a session of ${this.name} that takes work`,
      () => {
        const session = this.current
        if (!this.#alive() || session === undefined || session === after) return undefined
        return (session.all('ready').at(-1)?.capacity ?? 0) > 0 && session
      },
      this.#startMs,
    )
  }

  /** Hands it an item under a higher fence. */
  async claim(item: Item): Promise<HubSession> {
    const session = await this.ready()
    this.#bench.gateway.claim(item, session)
    return session
  }

  /** Starts a process once more in the same place, without a join token. The one before must have ended. */
  start(env: Readonly<Record<string, string>> = {}, joinToken: string | null = null): void {
    this.#starts += 1
    this.process = this.#spawn(joinToken, env)
  }

  /** Kills it where it stands, frees what it held as the end of its lease would, and starts it again. @returns its new session. */
  async crash(env: Readonly<Record<string, string>> = {}): Promise<HubSession> {
    const before = this.sessions.at(-1)
    await this.process.kill()
    this.#bench.expireLeases(this)
    this.start(env)
    return this.ready(before)
  }

  /** Asks it to stop, and gives how it ended. */
  async stop(): Promise<number | NodeJS.Signals> {
    this.process.mayEnd = true
    this.process.signal('SIGTERM')
    return until(`${this.name} to stop after SIGTERM`, () => this.process.ending, this.#bench.waitMs)
  }

  /** A program takes its time to start where a machine is busy, whatever else it may be asked to do in less. */
  get #startMs(): number {
    return Math.max(this.#bench.waitMs, minStartMs)
  }

  #alive(): true {
    if (this.process.running || this.process.mayEnd) return true
    throw new Error(
      `${this.process.name} has ended by itself: ${this.process.ending}\n${this.process.output.slice(-2_000)}`,
    )
  }

  #spawn(joinToken: string | null, env: Readonly<Record<string, string>>): ProviderProcess {
    const { settings, command, transcript } = this.#bench
    const name = this.#starts === 1 ? this.name : `${this.name}#${this.#starts}`
    const environment: NodeJS.ProcessEnv = {
      ...process.env,
      SLIPWAY_GATEWAY: this.wire.address,
      SLIPWAY_STATE_DIR: this.stateDir,
      SLIPWAY_INSTANCE_NAME: `conformance-${this.name}`,
      ...(joinToken !== null && { SLIPWAY_JOIN_TOKEN: joinToken }),
      ...settings.env,
      ...this.#options.env,
      ...env,
    }
    return new ProviderProcess(name, [...command, ...(settings.args ?? [])], environment, transcript)
  }
}
