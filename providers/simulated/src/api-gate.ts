import type { DurationSetting, Simulation } from './config.js'
import { diceFor, type Dice } from './dice.js'
import { CloudError } from './errors.js'
import type { CloudCode, Fact, Line } from './facts.js'
import { pause } from './pause.js'
import { countCall, type RateLimit } from './rate-limit.js'
import { attemptsOf, type World, type WorldState } from './world.js'

/** What every call of a simulated API is subject to. */
export interface GateConfig {
  readonly seed?: number | undefined
  readonly answerTimeoutMs: number
  readonly rateLimit?: RateLimit | undefined
  readonly faults: {
    readonly refuseCredentials: boolean
    readonly unavailableRate: number
    readonly timeoutBeforeRate: number
    readonly lostAnswerRate: number
  }
}

/** Who calls, and how it wants to be told of refusals. */
export interface Caller {
  readonly apiToken: string | undefined
  /** Runs before each call, for example to wait for a rate budget. */
  readonly beforeCall?: () => Promise<void>
  /** What is thrown for a refusal. Default: the refusal itself. */
  readonly failure?: (error: CloudError) => Error
}

/** One writing call. */
export interface Write<State> {
  readonly call: string
  /** What it is about: an ownership key, an id, a serial number. */
  readonly subject: string
  readonly latency: DurationSetting
  /** The fault that was ordered with what it is about. */
  readonly simulate?: (state: State) => Simulation | undefined
}

/** The door of a simulated API: latency, credentials, rate limit, outages, and answers that get lost. */
export class ApiGate<State extends WorldState> {
  readonly #world: World<State>
  readonly #config: GateConfig
  readonly #caller: Caller
  readonly #seed: number
  static #reads = 0

  constructor(world: World<State>, config: GateConfig, caller: Caller) {
    this.#world = world
    this.#config = config
    this.#caller = caller
    this.#seed = world.seed(config.seed)
  }

  /** A call that only looks. @throws the caller's idea of a CloudError, or the signal's reason. */
  async read<Result>(
    call: string,
    latency: DurationSetting,
    signal: AbortSignal,
    look: (state: State, nowMs: number, dice: Dice) => Result,
  ): Promise<Result> {
    const dice = diceFor(this.#seed, call, ApiGate.#reads++)
    await this.#caller.beforeCall?.()
    await pause(dice.duration('latency', latency), signal)
    const refusal = this.#refusal(dice)
    if (refusal !== undefined) throw this.#failure(refusal.code, refusal.message, refusal.retryAfterMs)
    return look(this.#world.settled(), this.#world.now(), dice)
  }

  /**
   * A call that changes the world: `decide` gives the fact that it leads to, which may be a refusal, and is asked again where
   * another process was faster. Half of the latency passes before the effect and half after it.
   *
   * @returns the line that was written. @throws the caller's idea of a CloudError, or the signal's reason.
   */
  async write(
    write: Write<State>,
    signal: AbortSignal,
    decide: (state: State, nowMs: number, dice: Dice) => Fact,
  ): Promise<Line> {
    const latencyMs = diceFor(this.#seed, write.call, ApiGate.#reads++).duration('latency', write.latency)
    await this.#caller.beforeCall?.()
    await pause(latencyMs / 2, signal)
    const limitedMs = this.#limitedMs()
    this.#world.settled()
    const line = this.#world.ledger.commit((state, nowMs) => ({
      ...this.#outcome(write, state, limitedMs, (dice) => decide(state, nowMs, dice)),
      call: write.call,
      subject: write.subject,
    }))
    if (line === undefined) throw new Error(`${write.call} came to nothing`)
    const unheard = line.answer === 'lost' || (line.fact === 'call.refused' && line.code === 'timeout')
    await pause(latencyMs / 2 + (unheard ? this.#config.answerTimeoutMs : 0), signal)
    if (line.fact === 'call.refused') throw this.#failure(line.code, line.message, line.retryAfterMs)
    if (line.fact === 'violation') throw this.#failure('conflict', line.message)
    if (unheard) throw this.#failure('timeout', `no answer to ${write.call} within ${this.#config.answerTimeoutMs} ms`)
    return line
  }

  #outcome(
    write: Write<State>,
    state: State,
    limitedMs: number,
    decide: (dice: Dice) => Fact,
  ): Fact & { answer?: 'lost' } {
    const dice = diceFor(this.#seed, write.call, state.calls.get(write.call) ?? 0)
    // What is ordered strikes the first call alone: what comes after it must be able to recover.
    const isFirst = attemptsOf(state, write.call, write.subject) === 0
    const struckBy = isFirst ? write.simulate?.(state) : undefined
    const { faults, answerTimeoutMs } = this.#config
    const refusal = this.#refusal(dice, limitedMs, struckBy === 'unavailable')
    if (refusal !== undefined) return refusal
    if (struckBy === 'timeout-before' || dice.happens('timeout-before', faults.timeoutBeforeRate))
      return refused('timeout', `no answer to ${write.call} within ${answerTimeoutMs} ms`)
    const fact = decide(dice)
    if (fact.fact === 'call.refused' || fact.fact === 'violation') return fact
    const isLost = struckBy === 'lost-answer' || dice.happens('lost-answer', faults.lostAnswerRate)
    return isLost ? { ...fact, answer: 'lost' } : fact
  }

  #refusal(dice: Dice, limitedMs = this.#limitedMs(), struck = false) {
    const { faults } = this.#config
    if (faults.refuseCredentials || this.#caller.apiToken?.startsWith('invalid') === true)
      return refused('unauthorized', 'the API token is refused; give the provider another one')
    if (limitedMs > 0) return refused('rate-limited', `too many calls; try again in ${limitedMs} ms`, limitedMs)
    if (struck || dice.happens('unavailable', faults.unavailableRate))
      return refused('unavailable', 'the API is unavailable for the moment')
    return undefined
  }

  #limitedMs(): number {
    const { rateLimit } = this.#config
    return rateLimit === undefined ? 0 : countCall(this.#world.dir, rateLimit, this.#world.now())
  }

  #failure(code: CloudCode, message: string, retryAfterMs?: number): Error {
    const error = new CloudError(code, message, retryAfterMs)
    return this.#caller.failure?.(error) ?? error
  }
}

/** The fact of a refusal. */
export function refused(code: CloudCode, message: string, retryAfterMs?: number) {
  return { fact: 'call.refused' as const, code, message, ...(retryAfterMs !== undefined && { retryAfterMs }) }
}
