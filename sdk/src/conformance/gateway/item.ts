import { randomUUID } from 'node:crypto'
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import type { ItemKind } from '@slipway/proto/provider/v1'
import {
  DesiredSchema,
  ObservedSchema,
  Presence,
  type Claimed,
  type Desired,
  type DesiredChanged,
  type Failure,
  type Observed,
  type Operation,
  type Release,
  type Report,
  type StepResult,
} from '@slipway/proto/provider/v1'

type DesiredInit = Omit<MessageInitShape<typeof DesiredSchema>, '$typeName' | '$unknown'>

/** What a hub keeps of one item, and nothing more than that: whatever a provider is handed comes from here. */
export class Item {
  readonly id: string
  readonly kind: ItemKind
  desired: Desired
  observed: Observed = create(ObservedSchema)
  steps: StepResult[] = []
  /** The fence of the last claim; 0: never claimed. */
  fence = 0n
  /** Tries since it last went well. */
  attempt = 0
  /** Whether somebody holds it. */
  held = false
  /** The instance that holds it, or did last. */
  holder = ''
  /** Reports that were stored, in order. */
  readonly reports: Report[] = []
  readonly releases: Release[] = []

  constructor(kind: ItemKind, desired: DesiredInit, id: string = randomUUID()) {
    this.id = id
    this.kind = kind
    this.desired = create(DesiredSchema, {
      generation: 1n,
      operationGeneration: 1n,
      presence: Presence.PRESENT,
      ...desired,
    })
  }

  get ref() {
    return { kind: this.kind, id: this.id }
  }

  /** The ownership key of a request; empty for a machine. */
  get key(): string {
    return this.desired.spec?.ownershipKey ?? ''
  }

  /** A new wish: its generation rises, and with another operation, or one more reinstall, that of the operation too. */
  wish(change: DesiredInit): this {
    const { $typeName: _type, $unknown: _unknown, ...before } = this.desired
    const another =
      (change.operation !== undefined && change.operation !== this.desired.operation) ||
      (change.reinstalls !== undefined && change.reinstalls !== this.desired.reinstalls)
    this.desired = create(DesiredSchema, {
      ...before,
      operationGeneration: this.desired.operationGeneration + (another ? 1n : 0n),
      ...change,
      generation: this.desired.generation + 1n,
    })
    return this
  }

  /** The next claim of it. */
  nextClaim(): Omit<Claimed, '$typeName'> {
    this.fence += 1n
    this.attempt += 1
    this.held = true
    const { fence, desired, attempt, observed } = this
    return { item: this.#wireRef(), fence, desired, attempt, observed, steps: this.stepsNow() }
  }

  /** The claim that is held now, said again. */
  sameClaim(): Omit<Claimed, '$typeName'> {
    const { fence, desired, attempt, observed } = this
    return { item: this.#wireRef(), fence, desired, attempt, observed, steps: this.stepsNow() }
  }

  changed(): Omit<DesiredChanged, '$typeName'> {
    return { item: this.#wireRef(), fence: this.fence, desired: this.desired, steps: this.stepsNow() }
  }

  /** Nobody holds it any more, and the fence of the last claim is stale. */
  free(): void {
    this.held = false
  }

  /** Whether a report or a release under this fence still counts. */
  accepts(fence: bigint): boolean {
    return this.held && fence === this.fence
  }

  store(report: Report): void {
    this.reports.push(report)
    const { step, observed } = report
    if (step !== undefined) this.steps = [...this.steps.filter((stored) => stepKey(stored) !== stepKey(step)), step]
    if (observed !== undefined) this.observed = merge(this.observed, observed)
  }

  release(release: Release): void {
    this.releases.push(release)
    this.held = false
    if (release.outcome.case === 'settledGeneration') this.attempt = 0
  }

  /** How the last claim was released; undefined: it is held, or was taken away. */
  get outcome(): Release['outcome'] | undefined {
    const last = this.releases.at(-1)
    return last?.fence === this.fence ? last.outcome : undefined
  }

  /** The generation at which the last claim was settled. */
  get settledAt(): bigint | undefined {
    return this.outcome?.case === 'settledGeneration' ? this.outcome.value : undefined
  }

  get failures(): Failure[] {
    return this.reports.flatMap(({ failure }) => (failure === undefined ? [] : [failure]))
  }

  /** How often an operation was reported as complete. */
  completions(operation: Operation): number {
    return this.reports.filter(({ completed }) => completed?.operation === operation).length
  }

  /**
   * Forgets all that was reported, as if it had never arrived, but for how often it was tried: at the first try of a request of which nothing is known a provider may
   * take it that nothing exists.
   */
  forget({ attempts }: { readonly attempts: number }): void {
    this.attempt = attempts
    this.observed = create(ObservedSchema)
    this.steps = []
  }

  stepsNow(): StepResult[] {
    const { operation, operationGeneration } = this.desired
    return this.steps.filter((step) => step.operation === operation && step.operationGeneration === operationGeneration)
  }

  #wireRef(): Claimed['item'] {
    return { $typeName: 'slipway.provider.v1.ItemRef', kind: this.kind, id: this.id }
  }
}

function stepKey(step: StepResult): string {
  return `${step.operation}/${step.operationGeneration}/${step.name}`
}

/** Fields that are not set leave what was said before. */
function merge(before: Observed, said: Observed): Observed {
  const { $typeName: _type, $unknown: _unknown, ...kept } = before
  return create(ObservedSchema, {
    ...kept,
    generation: said.generation > before.generation ? said.generation : before.generation,
    presence: said.presence || before.presence,
    externalId: said.externalId || before.externalId,
    power: said.power || before.power,
    addresses: said.addresses.length > 0 ? said.addresses : before.addresses,
    conditions: said.conditions.length > 0 ? said.conditions : before.conditions,
    ...(said.rebootsDone !== undefined && { rebootsDone: said.rebootsDone }),
    ...(said.reinstallsDone !== undefined && { reinstallsDone: said.reinstallsDone }),
    ...(said.rescue !== undefined && { rescue: said.rescue }),
    ...(said.attributes !== undefined && { attributes: said.attributes }),
    ...(said.createInDoubt !== undefined && { createInDoubt: said.createInDoubt }),
    ...(said.hardware !== undefined && { hardware: said.hardware }),
  })
}
