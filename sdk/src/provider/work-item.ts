import { create } from '@bufbuild/protobuf'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import {
  ConditionStatus,
  ItemKind,
  ObservedSchema,
  Operation,
  PowerState,
  Presence,
  type Claimed,
  type Desired,
  type ItemRef,
  type Observed,
  type StepResult,
} from '@slipway/proto/provider/v1'
import { ReportRefused, type Acked, type ReportInit } from '../internal/reports.js'
import { monotonicMs } from '../internal/timing.js'
import { failureToProto, valueToJson, type ObservedInit } from './convert.js'
import type { Doubt, DoubtMemory, InheritedDoubt } from './doubts.js'
import { ProviderError, Stopped } from './errors.js'
import type { Runtime } from './runtime.js'
import type { Snapshot } from './settings.js'
import { Task } from './task.js'
import type { Json } from './types.js'

const begunCondition = 'CreateBegun'

/** By this an instance tells all others, before it begins, that something of a request may exist from now on. */
export const begunObserved: ObservedInit = {
  conditions: [
    {
      type: begunCondition,
      status: ConditionStatus.TRUE,
      reason: 'Begun',
      message: 'Making it was begun, so something of it may exist',
    },
  ],
}

/** The same of a server that is to be adopted. */
export const begunAdoption: ObservedInit = {
  conditions: [
    {
      type: begunCondition,
      status: ConditionStatus.TRUE,
      reason: 'Adopting',
      message: 'Adopting it was begun, so our key may be on it',
    },
  ],
}

/** Brings what is to what is wished, once, for one wish. */
export type Converge = (task: Task) => Promise<void>

/** How a claim ends by its holder's wish. */
export type Outcome =
  | { readonly settledGeneration: bigint }
  /** @param generation of the wish that was known. */
  | { readonly retryAfterMs: number; readonly generation?: bigint }

/** One claim: what is wished, what is known, and the task that makes the one of the other. It ends with a Release, or without one where the claim was lost. */
export class WorkItem {
  readonly ref: ItemRef
  readonly fence: bigint
  readonly attempt: number
  readonly claimedAtMs = monotonicMs()
  /** Until when something may have been made that has no known id: by somebody before this claim, or by this one. */
  lastMadeAtMs = this.claimedAtMs
  /** Effects of this claim whose outcome is not known, by step. */
  readonly doubts: Map<string, Doubt>
  /** Effects that this claim has begun. */
  readonly begun = new Set<string>()
  /** Nothing was ever tried, by whichever instance, as far as anybody knows. */
  readonly fresh: boolean
  /** Somebody else left a create in doubt; cleared when it was looked into. */
  inheritedDoubt: InheritedDoubt | undefined
  /** What the hub has stored. */
  observed: Observed
  readonly #runtime: Runtime
  readonly #memory: DoubtMemory
  readonly #over = new AbortController()
  #desired: Desired
  #steps: Map<string, Json>
  #task: Task | undefined
  #stopping = false
  #settled = false

  constructor(
    runtime: Runtime,
    memory: DoubtMemory,
    claimed: Claimed & { readonly item: ItemRef; readonly desired: Desired },
  ) {
    this.ref = claimed.item
    this.fence = claimed.fence
    this.attempt = Math.max(1, claimed.attempt)
    this.observed = create(ObservedSchema, claimed.observed)
    this.#runtime = runtime
    this.#memory = memory
    this.#desired = claimed.desired
    this.#steps = stepsOf(claimed.steps, claimed.desired)
    const recalled = memory.recall(this.ref.id, this.fence)
    this.doubts = new Map(recalled?.own)
    if (recalled !== undefined) this.inheritedDoubt = recalled.inherited
    else if (this.observed.createInDoubt === true) this.inheritedDoubt = { sinceMs: this.claimedAtMs }
    this.fresh =
      this.attempt === 1 &&
      recalled === undefined &&
      claimed.steps.length === 0 &&
      this.observed.presence !== Presence.PRESENT &&
      this.observed.externalId === '' &&
      this.observed.createInDoubt !== true &&
      !isBegun(this.observed)
  }

  /** Whether nobody ever began to make anything, so that nothing of it can exist. */
  get untouched(): boolean {
    return this.fresh && !isBegun(this.observed)
  }

  get desired(): Desired {
    return this.#desired
  }

  /** Results stored for the operation that is wished now. */
  get steps(): ReadonlyMap<string, Json> {
    return this.#steps
  }

  get inDoubt(): boolean {
    return this.inheritedDoubt !== undefined || this.doubts.size > 0
  }

  get isRequest(): boolean {
    return this.ref.kind === ItemKind.MACHINE_REQUEST
  }

  /** Fires when the claim is over: what still runs must not go on. A changed wish does not fire it. */
  get over(): AbortSignal {
    return this.#over.signal
  }

  /** The wish is another one now. */
  change(desired: Desired, steps: readonly StepResult[]): void {
    if (desired.generation < this.#desired.generation) return
    const same =
      desired.operation === this.#desired.operation && desired.operationGeneration === this.#desired.operationGeneration
    this.#steps = new Map([...(same ? this.#steps : []), ...stepsOf(steps, desired)])
    const isNew = desired.generation > this.#desired.generation
    this.#desired = desired
    if (isNew) this.#task?.abort(new Stopped('changed', 'the wish has changed'))
  }

  /** The claim is over: nothing more may be done or said. */
  revoke(why: string): void {
    const stopped = new Stopped('revoked', why)
    this.#over.abort(stopped)
    this.#task?.abort(stopped)
    this.#runtime.session.dropReports(this.claim, why)
  }

  /** The process is stopping: what cannot be interrupted is finished, the rest is handed back. */
  stop(): void {
    this.#stopping = true
    this.#task?.abort(new Stopped('stopping', 'this instance is stopping'))
  }

  /** Works until the wish is met, an attempt has failed, or the claim is over. Never throws. @returns how to release it; undefined: not at all. */
  async work(converge: Converge, settings: () => Snapshot): Promise<Outcome | undefined> {
    const log = this.#runtime.log.child({ item: this.ref.id })
    try {
      while (!this.over.aborted) {
        // A machine that is to be left alone is nobody's before that is over.
        if (this.#stopping || this.#desired.paused) return await this.#handBack()
        const task = new Task(this.#runtime, this, settings())
        this.#task = task
        try {
          await converge(task)
          task.signal.throwIfAborted()
          this.#settled = true
          return { settledGeneration: task.wish.generation }
        } catch (thrown) {
          if (task.signal.aborted) continue
          const { generation } = task.wish
          if (thrown instanceof Stopped && thrown.why === 'waiting')
            return { retryAfterMs: thrown.lookAfterMs, generation }
          log.warn({ err: thrown, step: task.currentStep || undefined }, 'an attempt failed')
          const retryAfterMs = await this.#fail(task, ProviderError.from(thrown))
          if (!task.signal.aborted) return { retryAfterMs, generation }
        } finally {
          if (task.wish.operation === Operation.PROVISION) this.lastMadeAtMs = monotonicMs()
        }
      }
      return undefined
    } catch (thrown) {
      if (this.over.aborted) return undefined
      log.error({ err: thrown }, 'an attempt could not be reported')
      return { retryAfterMs: 30_000 }
    } finally {
      this.#task = undefined
      if (this.#settled) this.#memory.forget(this.ref.id)
      else this.#memory.remember(this.ref.id, this.fence, { own: this.doubts, inherited: this.inheritedDoubt })
    }
  }

  /** Says something under this claim, until the hub has stored it. @throws Stopped of `revoked`; ProviderError where it makes no sense to the hub. */
  async report(report: Omit<ReportInit, 'item' | 'fence'>): Promise<Acked> {
    this.over.throwIfAborted()
    const observed = this.#withDoubt(report.observed)
    try {
      const acked = await this.#runtime.session.report(this.claim, {
        ...report,
        ...(observed !== undefined && { observed }),
        item: this.ref,
        fence: this.fence,
      })
      if (observed !== undefined) this.observed = merge(this.observed, observed)
      return acked
    } catch (thrown) {
      this.over.throwIfAborted()
      if (!(thrown instanceof ReportRefused)) throw thrown
      if (thrown.why === 'invalid') throw new ProviderError('INTERNAL', thrown.message, { retryable: false })
      this.revoke(thrown.message)
      throw this.over.reason
    }
  }

  /** Says something once, where that is easily done. */
  tell(report: Omit<ReportInit, 'item' | 'fence'>): void {
    if (!this.over.aborted) this.#runtime.session.tell(this.claim, { ...report, item: this.ref, fence: this.fence })
  }

  /** Keeps a step's result, which the hub has stored. */
  keep(task: Task, name: string, result: Json): void {
    const { operation, operationGeneration } = this.#desired
    if (task.wish.operation === operation && task.wish.operationGeneration === operationGeneration)
      this.#steps.set(name, result)
  }

  /** How the reports of this claim are known, apart from those of any other claim of the item. */
  get claim(): string {
    return `${this.ref.id}@${this.fence}`
  }

  async #fail(task: Task, error: ProviderError): Promise<number> {
    if (error.code === 'CREDENTIALS') this.#runtime.health.failed('work', error)
    await this.report({
      generation: task.wish.generation,
      failure: failureToProto(error, task.currentStep),
      observed: {},
    })
    return error.retryable ? (error.retryAfterMs ?? 0) : 0
  }

  async #handBack(): Promise<Outcome> {
    if (this.inDoubt !== (this.observed.createInDoubt ?? false))
      await this.report({ generation: this.#desired.generation, observed: {} })
    return { retryAfterMs: 0, generation: this.#desired.generation }
  }

  /** Whatever is reported as observed also says whether a create is in doubt, where the hub does not know it yet. */
  #withDoubt(observed: ReportInit['observed']): ObservedInit | undefined {
    if (observed === undefined || observed.createInDoubt !== undefined) return observed
    return this.inDoubt === (this.observed.createInDoubt ?? false)
      ? observed
      : { ...observed, createInDoubt: this.inDoubt }
  }
}

function isBegun(observed: Observed): boolean {
  return observed.conditions.some(({ type, status }) => type === begunCondition && status === ConditionStatus.TRUE)
}

/** The Release that an outcome stands for. */
export function releaseOf(item: Pick<WorkItem, 'ref' | 'fence'>, outcome: Outcome) {
  return {
    item: item.ref,
    fence: item.fence,
    outcome:
      'settledGeneration' in outcome
        ? { case: 'settledGeneration' as const, value: outcome.settledGeneration }
        : { case: 'retryAfter' as const, value: durationFromMs(Math.round(outcome.retryAfterMs)) },
    generation: 'generation' in outcome ? (outcome.generation ?? 0n) : 0n,
  }
}

function stepsOf(steps: readonly StepResult[], desired: Desired): Map<string, Json> {
  return new Map(
    steps
      .filter(
        (step) => step.operation === desired.operation && step.operationGeneration === desired.operationGeneration,
      )
      .map((step) => [step.name, valueToJson(step.result)]),
  )
}

/** Fields that are not said leave what was said before. */
function merge(before: Observed, said: ObservedInit): Observed {
  const set = create(ObservedSchema, said)
  return create(ObservedSchema, {
    generation: set.generation > before.generation ? set.generation : before.generation,
    presence: set.presence === Presence.UNSPECIFIED ? before.presence : set.presence,
    externalId: set.externalId === '' ? before.externalId : set.externalId,
    power: set.power === PowerState.UNSPECIFIED ? before.power : set.power,
    addresses: set.addresses.length === 0 ? before.addresses : set.addresses,
    conditions: set.conditions.length === 0 ? before.conditions : set.conditions,
    ...definedOnly({
      rebootsDone: set.rebootsDone ?? before.rebootsDone,
      reinstallsDone: set.reinstallsDone ?? before.reinstallsDone,
      rescue: set.rescue ?? before.rescue,
      attributes: set.attributes ?? before.attributes,
      createInDoubt: set.createInDoubt ?? before.createInDoubt,
      hardware: set.hardware ?? before.hardware,
    }),
  })
}

function definedOnly<Fields extends Record<string, unknown>>(
  fields: Fields,
): { [Key in keyof Fields]?: NonNullable<Fields[Key]> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [Key in keyof Fields]?: NonNullable<Fields[Key]>
  }
}
