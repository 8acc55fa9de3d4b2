import { systemClock, type Clock } from './clock.js'
import { createBmcDriver } from './create-driver.js'
import type {
  BmcDriver,
  BmcFacts,
  ConsolePart,
  BootDevice,
  BootMode,
  CreateBmcDriver,
  PowerEvent,
  PowerState,
  PowerSupervisor,
  PowerView,
  SupervisedMachine,
  WantedPower,
} from './driver.js'
import { BmcError, isBmcError, type BmcErrorKind } from './errors.js'
import { UdpPort } from './ipmi/udp-port.js'
import { Lane } from './lane.js'
import * as rules from './rules.js'
import { bringPower, defaultSwitchPatience, rebootMachine, softOff, type SwitchPatience } from './switch-power.js'
import { Turns } from './turns.js'
import { underSignals } from './waiting.js'

export interface SupervisorOptions {
  readonly rules?: Partial<rules.PowerRules>
  readonly patience?: Partial<SwitchPatience>
  /** How many healthy BMCs are watched at once; as many others may be worked on for those who wait. */
  readonly concurrency?: number
  readonly clock?: Clock
  readonly createDriver?: CreateBmcDriver
  readonly allowAddress?: (ip: string) => boolean
  /**
   * Asked right before a machine is switched off because it was found on. Where several processes watch the same machines, only one that holds the
   * machine, or knows that nobody does, may say yes. `handed-over`: whoever holds the machine, or will, is told and does it. Either counts as a correction.
   * Default: always.
   */
  readonly mayCorrect?: (id: string) => Promise<boolean | 'handed-over'>
}

interface Watched {
  readonly id: string
  readonly machine: SupervisedMachine
  readonly driver: BmcDriver
  readonly turns: Turns
  /** Ends what is under way when the machine is removed or gets new settings. */
  readonly leaving: AbortController
  record: rules.PowerRecord
  readAtMs: number | undefined
  error: PowerView['error']
  /** Work that is under way or waits, the watching included. */
  busy: number
}

/** Failures of single wishes that say nothing against the BMC. */
const harmless: ReadonlySet<BmcErrorKind> = new Set(['busy', 'unsupported', 'refused', 'needs-person'])

const defaultConcurrency = 64
/** BMCs that failed last time are asked a few at a time, in a lane of their own: they take long, and delay no healthy one. */
const sickShare = 4

/** Makes a supervisor. It does nothing by itself before {@link PowerSupervisor.start}. */
export function createPowerSupervisor(options: SupervisorOptions = {}): PowerSupervisor {
  return new Supervisor(options)
}

class Supervisor implements PowerSupervisor {
  readonly #rules: rules.PowerRules
  readonly #patience: SwitchPatience
  readonly #clock: Clock
  readonly #options: SupervisorOptions
  readonly #udpPort = new UdpPort()
  readonly #healthy: Lane
  readonly #sick: Lane
  readonly #urgent: Lane
  readonly #watched = new Map<string, Watched>()
  readonly #listeners = new Set<(event: PowerEvent) => void>()
  readonly #stopping = new AbortController()
  readonly #underWay = new Set<Promise<unknown>>()
  #cancelTimer: () => void = () => undefined
  #started = false
  #pass = { endsAtMs: 0, corrections: 0 }

  constructor(options: SupervisorOptions) {
    const concurrency = options.concurrency ?? defaultConcurrency
    this.#options = options
    this.#rules = { ...rules.defaultPowerRules, ...options.rules }
    this.#patience = { ...defaultSwitchPatience, ...options.patience }
    this.#clock = options.clock ?? systemClock
    this.#healthy = new Lane(concurrency)
    this.#urgent = new Lane(concurrency)
    this.#sick = new Lane(Math.max(1, Math.floor(concurrency / sickShare)))
  }

  add(machine: SupervisedMachine): void {
    const known = this.#watched.get(machine.id)
    if (known !== undefined && sameLogin(known.machine, machine)) return
    if (known !== undefined) this.#track(this.#retire(known))
    const now = this.#clock.monotonicMs()
    const fresh = rules.newRecord(now)
    this.#watched.set(machine.id, {
      id: machine.id,
      machine,
      driver: this.#makeDriver(machine),
      turns: new Turns(),
      leaving: new AbortController(),
      record: known === undefined ? fresh : { ...known.record, failures: 0, nextAtMs: now },
      readAtMs: known?.readAtMs,
      error: undefined,
      busy: 0,
    })
    this.#pump()
  }

  async remove(id: string): Promise<void> {
    const known = this.#watched.get(id)
    this.#watched.delete(id)
    if (known !== undefined) await this.#retire(known)
  }

  ids(): readonly string[] {
    return [...this.#watched.keys()]
  }

  setWanted(id: string, wanted: WantedPower): void {
    const known = this.#get(id)
    known.record = rules.wish(known.record, wanted, true)
  }

  resume(id: string): void {
    const known = this.#get(id)
    known.record = { ...rules.resume(known.record), nextAtMs: this.#clock.monotonicMs() }
    this.#pump()
  }

  view(id: string): PowerView | undefined {
    const known = this.#watched.get(id)
    if (known === undefined) return undefined
    const { record, readAtMs, error } = known
    return {
      id,
      wanted: record.wanted,
      power: error === undefined || error.kind === 'ignored' ? record.power : 'unknown',
      contested: record.contested,
      ...(readAtMs !== undefined && { readAtMs }),
      ...(error !== undefined && { error }),
    }
  }

  views(): readonly PowerView[] {
    return this.ids().flatMap((id) => this.view(id) ?? [])
  }

  onEvent(listener: (event: PowerEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  readPower(id: string, signal: AbortSignal): Promise<PowerState> {
    return this.#work(id, signal, async (known, both) => {
      const power = await known.driver.readPower(both)
      this.#seen(known, power)
      return power
    })
  }

  switchPower(id: string, wanted: 'on' | 'off' | 'reboot' | 'soft-off', signal: AbortSignal): Promise<void> {
    const target = wanted === 'on' || wanted === 'reboot' ? 'on' : 'off'
    return this.#work(id, signal, async (known, both) => {
      if (known.record.wanted !== 'any') known.record = rules.wish(known.record, target, false)
      const { driver } = known
      if (wanted === 'reboot') await rebootMachine(driver, this.#patience, both)
      else if (wanted === 'soft-off') await softOff(driver, this.#patience, both)
      else await bringPower(driver, wanted, this.#patience, both)
      // It is our own doing: taken for granted before it is looked at, it is no change by others.
      known.record = { ...known.record, power: target }
      this.#seen(known, target)
    })
  }

  setBootOnce(id: string, device: BootDevice, mode: BootMode, signal: AbortSignal): Promise<void> {
    return this.withDriver(id, signal, (driver, both) => driver.setBootOnce(device, mode, both))
  }

  verify(id: string, signal: AbortSignal): Promise<BmcFacts> {
    return this.#work(id, signal, async (known, both) => {
      const facts = await known.driver.verify(both)
      this.#recovered(known)
      return facts
    })
  }

  withDriver<Result>(
    id: string,
    signal: AbortSignal,
    work: (driver: BmcDriver, signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    return this.#work(id, signal, (known, both) => work(known.driver, both))
  }

  openConsole(id: string, signal: AbortSignal): AsyncIterable<ConsolePart> | undefined {
    return this.#get(id).driver.openConsole?.(signal)
  }

  start(): void {
    this.#started = true
    this.#pump()
  }

  async stop(): Promise<void> {
    this.#started = false
    this.#cancelTimer()
    this.#stopping.abort(new BmcError('unreachable', 'the supervision of power was stopped'))
    const all = [...this.#watched.values()]
    this.#watched.clear()
    await Promise.allSettled([...all.map((known) => this.#retire(known)), ...this.#underWay])
    await this.#udpPort.close()
  }

  #makeDriver({ id, settings, secret, witness }: SupervisedMachine): BmcDriver {
    const { allowAddress, createDriver = createBmcDriver } = this.#options
    return createDriver(settings, secret, {
      name: id,
      udpPort: this.#udpPort,
      ...(witness !== undefined && { witness }),
      ...(allowAddress !== undefined && { allowAddress }),
    })
  }

  #get(id: string): Watched {
    const known = this.#watched.get(id)
    if (known === undefined) throw new BmcError('unsupported', `no power is known for the machine ${id}`)
    return known
  }

  async #retire(known: Watched): Promise<void> {
    known.leaving.abort(new BmcError('unreachable', 'the settings of the BMC were changed or removed'))
    await known.driver.close()
  }

  /** Something that somebody waits for. */
  async #work<Result>(
    id: string,
    signal: AbortSignal,
    work: (known: Watched, signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    const known = this.#get(id)
    const signals = [signal, known.leaving.signal, this.#stopping.signal]
    known.busy += 1
    try {
      return await underSignals(signals, (both) =>
        known.turns.run(both, () => this.#urgent.run(both, () => work(known, both))),
      )
    } catch (error) {
      const given = signals.some(({ aborted }) => aborted)
      if (isBmcError(error) && !given && !harmless.has(error.kind)) this.#failed(known, error)
      throw error
    } finally {
      known.busy -= 1
      this.#pump()
    }
  }

  /** Begins what is due, as far as there is room, and sees to it that it is called again for the rest. */
  #pump(): void {
    this.#cancelTimer()
    if (!this.#started) return
    const now = this.#clock.monotonicMs()
    let soonestMs = Infinity
    const due: Watched[] = []
    for (const known of this.#watched.values()) {
      if (known.busy > 0) continue
      if (known.record.nextAtMs <= now) due.push(known)
      else soonestMs = Math.min(soonestMs, known.record.nextAtMs)
    }
    due.sort((left, right) => left.record.nextAtMs - right.record.nextAtMs)
    for (const known of due) {
      const lane = known.record.failures > 0 ? this.#sick : this.#healthy
      // What finds no room is begun when somebody leaves.
      if (lane.free > 0) this.#track(this.#watch(known, lane))
    }
    if (soonestMs < Infinity) this.#cancelTimer = this.#clock.after(soonestMs - now, () => this.#pump())
  }

  async #watch(known: Watched, lane: Lane): Promise<void> {
    const signals = [known.leaving.signal, this.#stopping.signal]
    known.busy += 1
    try {
      await underSignals(signals, (both) =>
        lane.run(both, () =>
          known.turns.run(both, async () => {
            const power = await known.driver.readPower(both)
            if (this.#seen(known, power, this.#correctionsLeft())) await this.#correct(known, both)
          }),
        ),
      )
    } catch (error) {
      if (!signals.some(({ aborted }) => aborted)) this.#failed(known, asBmcError(error))
    } finally {
      known.busy -= 1
      this.#pump()
    }
  }

  #correctionsLeft(): number {
    const now = this.#clock.monotonicMs()
    if (now >= this.#pass.endsAtMs) this.#pass = { endsAtMs: now + this.#rules.intervalMs, corrections: 0 }
    return this.#rules.correctionsPerPass - this.#pass.corrections
  }

  async #correct(known: Watched, signal: AbortSignal): Promise<void> {
    this.#pass.corrections += 1
    const answer = await this.#options.mayCorrect?.(known.id)
    // While that was asked, the wish may have become another.
    if (answer === false || known.record.wanted !== 'off') return
    if (answer === 'handed-over') {
      known.record = rules.handedOver(known.record, this.#clock.monotonicMs())
      return
    }
    await bringPower(known.driver, 'off', this.#patience, signal)
    known.record = rules.corrected(known.record, this.#clock.monotonicMs())
    this.#tell(known, 'corrected', 'was found on, is wanted off, and was switched off', { from: 'on', to: 'off' })
  }

  /** Takes in a reading. @returns whether the machine is to be switched off. */
  #seen(known: Watched, power: PowerState, correctionsLeft?: number): boolean {
    const now = this.#clock.monotonicMs()
    known.readAtMs = this.#clock.epochMs()
    const { record, news, correct } = rules.read(known.record, power, now, this.#rules, correctionsLeft)
    known.record = record
    if (!record.ignoring) known.error = undefined
    for (const item of news) this.#tellNews(known, item)
    return correct
  }

  #recovered(known: Watched): void {
    if (known.record.failures > 0) this.#tellNews(known, { kind: 'recovered' })
    known.error = undefined
    known.record = { ...known.record, failures: 0, nextAtMs: this.#clock.monotonicMs() }
  }

  #failed(known: Watched, error: BmcError): void {
    const now = this.#clock.monotonicMs()
    const before = known.error
    known.record = rules.failed(known.record, error.kind, now, this.#rules, this.#clock.random())
    const same = before?.kind === error.kind
    known.error = {
      kind: error.kind,
      message: error.message,
      sinceMs: same ? before.sinceMs : this.#clock.epochMs(),
      times: same ? before.times + 1 : 1,
    }
    if (same) return
    const kind = error.kind === 'ignored' ? 'ignored' : 'failing'
    this.#tell(known, kind, error.message, { errorKind: error.kind })
  }

  #tellNews(known: Watched, news: rules.PowerNews): void {
    const { wanted } = known.record
    switch (news.kind) {
      case 'changed-outside':
        return this.#tell(known, news.kind, `power went from ${news.from} to ${news.to}, and not by us`, news)
      case 'contested':
        return this.#tell(
          known,
          news.kind,
          `power is wanted ${wanted} and others change it: left alone until a person says`,
        )
      case 'correction-delayed':
        return this.#tell(
          known,
          news.kind,
          'was found on and is wanted off; too many others are, so that it has to wait',
        )
      case 'recovered':
        return this.#tell(known, news.kind, 'the BMC answers again')
    }
  }

  #tell(known: Watched, kind: PowerEvent['kind'], message: string, more: Partial<PowerEvent> = {}): void {
    const event: PowerEvent = { ...more, kind, id: known.id, atMs: this.#clock.epochMs(), message }
    for (const listener of this.#listeners) listener(event)
  }

  #track(work: Promise<unknown>): void {
    const tracked: Promise<unknown> = work.catch(() => undefined).finally(() => this.#underWay.delete(tracked))
    this.#underWay.add(tracked)
  }
}

function asBmcError(thrown: unknown): BmcError {
  if (thrown instanceof BmcError) return thrown
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  return new BmcError('protocol', `asking the BMC failed: ${message}`, { cause: thrown })
}

function sameLogin(left: SupervisedMachine, right: SupervisedMachine): boolean {
  return (
    left.witness === right.witness &&
    JSON.stringify([left.settings, left.secret]) === JSON.stringify([right.settings, right.secret])
  )
}
