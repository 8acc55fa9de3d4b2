import { randomUUID } from 'node:crypto'
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import {
  DesiredSchema,
  ItemKind,
  ObservedSchema,
  Operation,
  Presence,
  type Desired,
  type HubMessageSchema,
  type Observed,
  type Release,
  type Report,
  type StepResult,
} from '@slipway/proto/provider/v1'

type HubBody = NonNullable<MessageInitShape<typeof HubMessageSchema>['body']>

/** What a hub would keep of one item. */
export class TestItem {
  readonly id = randomUUID()
  readonly kind: ItemKind
  fence = 0n
  attempt = 0
  desired: Desired
  steps: StepResult[] = []
  observed: Observed = create(ObservedSchema)
  readonly #revoked = new Set<bigint>()
  readonly reports: Report[] = []
  readonly releases: Release[] = []

  constructor(kind: ItemKind) {
    this.kind = kind
    this.desired = create(DesiredSchema, {
      generation: 1n,
      operation: kind === ItemKind.MACHINE ? Operation.VERIFY : Operation.PROVISION,
      operationGeneration: 1n,
      presence: Presence.PRESENT,
      ...(kind === ItemKind.MACHINE_REQUEST && {
        spec: { name: `m-${this.id.slice(0, 8)}`, ownershipKey: `hub/${this.id}`, typeId: 'small' },
      }),
    })
  }

  get ref() {
    return { kind: this.kind, id: this.id }
  }

  /** A new wish: its generation rises, and with another operation, or one more reinstall, that of the operation too. */
  wish(change: MessageInitShape<typeof DesiredSchema>): this {
    const { $typeName: _type, ...before } = this.desired
    const operationChanged =
      (change.operation !== undefined && change.operation !== this.desired.operation) ||
      (change.reinstalls !== undefined && change.reinstalls !== this.desired.reinstalls)
    this.desired = create(DesiredSchema, {
      ...before,
      ...(change as object),
      generation: this.desired.generation + 1n,
      operationGeneration: this.desired.operationGeneration + (operationChanged ? 1n : 0n),
    })
    return this
  }

  /** Hands it over, under a higher fence. */
  claimed(): HubBody {
    this.fence += 1n
    this.attempt += 1
    const { ref, fence, desired, attempt, observed } = this
    return { case: 'claimed', value: { item: ref, fence, desired, attempt, observed, steps: this.#stepsNow() } }
  }

  /** Tells the holder of the present wish. */
  changed(): HubBody {
    return {
      case: 'desiredChanged',
      value: { item: this.ref, fence: this.fence, desired: this.desired, steps: this.#stepsNow() },
    }
  }

  /** Takes the claim away: its fence is stale from here on. */
  revoked(): HubBody {
    this.#revoked.add(this.fence)
    return { case: 'revoked', value: { item: this.ref, fence: this.fence, reason: 'test' } }
  }

  wasRevoked(fence: bigint): boolean {
    return this.#revoked.has(fence)
  }

  store(report: Report): void {
    this.reports.push(report)
    const { step, observed } = report
    if (step !== undefined) this.steps = [...this.steps.filter((stored) => keyOf(stored) !== keyOf(step)), step]
    if (observed !== undefined) this.#observe(observed)
  }

  release(release: Release): void {
    if (release.fence === this.fence) this.releases.push(release)
  }

  get stepNames(): string[] {
    return this.steps.map(({ name }) => name)
  }

  get failures() {
    return this.reports.flatMap(({ failure }) => (failure === undefined ? [] : [failure]))
  }

  get completions() {
    return this.reports.flatMap(({ completed }) => (completed === undefined ? [] : [completed]))
  }

  /** How it was released last; undefined: it is held, or was never claimed. */
  get outcome(): Release['outcome'] | undefined {
    const last = this.releases.at(-1)
    return last?.fence === this.fence ? last.outcome : undefined
  }

  get settledAt(): bigint | undefined {
    return this.outcome?.case === 'settledGeneration' ? this.outcome.value : undefined
  }

  #observe(said: Observed): void {
    const { $typeName: _type, ...before } = this.observed
    this.observed = create(ObservedSchema, {
      ...before,
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

  #stepsNow(): StepResult[] {
    const { operation, operationGeneration } = this.desired
    return this.steps.filter((step) => step.operation === operation && step.operationGeneration === operationGeneration)
  }
}

function keyOf(step: StepResult): string {
  return `${step.operation}/${step.operationGeneration}/${step.name}`
}
