import { Operation, type Desired } from '@slipway/proto/provider/v1'
import type { Acked, ReportInit } from '../internal/reports.js'
import { sleep } from '../internal/timing.js'
import type { Urgency } from './budgets.js'
import { jsonToValue, type ObservedInit } from './convert.js'
import type { Stopped } from './errors.js'
import { makeContext, type Runtime } from './runtime.js'
import type { Snapshot } from './settings.js'
import type { Context, Json } from './types.js'
import type { WorkItem } from './work-item.js'

/** The step that stands for a whole operation; authors' names cannot be this. */
export const outcomeStep = 'sdk-outcome'

/** One attempt at one wish of one item. A changed wish ends it and begins another. */
export class Task {
  readonly runtime: Runtime
  readonly item: WorkItem
  readonly settings: Snapshot
  readonly wish: Desired
  /** Where it is, for the failure report. */
  currentStep = ''
  readonly #controller = new AbortController()

  constructor(runtime: Runtime, item: WorkItem, settings: Snapshot) {
    this.runtime = runtime
    this.item = item
    this.settings = settings
    this.wish = item.desired
  }

  /** Fires when this attempt must stop, for whatever reason. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  abort(stopped: Stopped): void {
    this.#controller.abort(stopped)
  }

  /** Whether the operation that is wished was completed before, by whichever instance. */
  get completed(): boolean {
    return this.item.steps.has(outcomeStep)
  }

  get urgency(): Urgency {
    const makes = this.wish.operation === Operation.PROVISION || this.wish.operation === Operation.REINSTALL
    return makes && !this.completed ? 'normal' : 'urgent'
  }

  /** What an author's function that only looks gets. */
  context(): Context<unknown, unknown> {
    return makeContext(
      this.runtime,
      this.settings,
      this.urgency,
      this.signal,
      this.runtime.log.child({ item: this.item.ref.id }),
    )
  }

  /** @throws Stopped of `revoked` when the claim is over. A changed wish does not stop a report: what is so must be stored. */
  report(report: Omit<ReportInit, 'item' | 'fence' | 'generation'>): Promise<Acked> {
    return this.item.report({ ...report, generation: this.wish.generation })
  }

  /**
   * Says that something is about to be done out there, and returns when the hub has stored it under this fence, a short while ago at most: what follows is begun
   * on the hub's word that the claim is still ours.
   *
   * @throws the signal's reason.
   */
  async begin(step: string, message: string, observed?: ObservedInit): Promise<void> {
    this.signal.throwIfAborted()
    this.currentStep = step
    await this.#untilCovered({ progress: { step, message }, ...(observed !== undefined && { observed }) })
  }

  /** Hears from the hub that the claim is still ours. @returns when what it answered was sent, on the monotonic clock. @throws the signal's reason. */
  async confirm(): Promise<number> {
    this.signal.throwIfAborted()
    return this.#untilCovered({})
  }

  async #untilCovered(report: Omit<ReportInit, 'item' | 'fence' | 'generation'>): Promise<number> {
    for (;;) {
      const { sentAtMs } = await this.report(report)
      this.signal.throwIfAborted()
      if (this.runtime.session.lease.covers(sentAtMs)) return sentAtMs
    }
  }

  /** Returns when the lease is young enough to begin something that changes nothing for good. @throws the signal's reason. */
  async leaseHolds(): Promise<void> {
    while (!this.runtime.session.lease.mayAct()) await sleep(50, this.signal)
    this.signal.throwIfAborted()
  }

  /** Stores a step's result, with whatever else is to be said in the same breath. */
  async store(
    name: string,
    result: Json,
    alongside: Omit<ReportInit, 'item' | 'fence' | 'generation' | 'step'> = {},
  ): Promise<void> {
    const { operation, operationGeneration } = this.wish
    await this.report({
      ...alongside,
      step: { operation, operationGeneration, name, result: jsonToValue(result as never) },
    })
    this.item.keep(this, name, result)
  }

  /** Reports the operation as complete, once; what was completed before is only reported as it is seen now. */
  async complete(observed: ObservedInit): Promise<void> {
    const { operation, operationGeneration } = this.wish
    await this.store(outcomeStep, true, { observed, completed: { operation, operationGeneration } })
  }

  /** Reports that the wish is met. */
  async settle(observed: ObservedInit): Promise<void> {
    await this.report({ observed: { ...observed, generation: this.wish.generation } })
  }
}
