import { create, type JsonObject as ProtoJsonObject, type JsonValue } from '@bufbuild/protobuf'
import { durationMs, type Duration, ValueSchema } from '@bufbuild/protobuf/wkt'
import { fromJson, toJson } from '@bufbuild/protobuf'
import {
  AddressType,
  Capability,
  ConditionStatus,
  DesiredSchema,
  FailureCode,
  Health,
  ItemKind,
  MachineSpecSchema,
  Operation,
  OrphanOutcome,
  PowerState,
  Presence,
  StaticMachineSchema,
  StepResultSchema,
  ValidateReinstallSchema,
  type Address,
  type Desired,
  type Failure,
  type Hardware,
  type MachineSpec,
  type Observed,
  type OrphanRemoval,
  type RateBudget,
  type Report,
  type Shape,
  type StepResult,
  type ValidateReinstall,
} from '@slipway/proto/provider/v1'
import type * as facts from '../domain/facts.js'
import type {
  BudgetFacts,
  Capability as DomainCapability,
  Health as DomainHealth,
} from '../domain/provider/provider.js'
import type { OrderToValidate } from '../domain/provider/validator.js'
import type { ObservedFacts, ReportFacts } from '../domain/request/apply-report.js'
import type { RescueWish } from '../domain/request/request.js'
import type { OrderAnswer } from '../store/orphan-orders.js'
import type { ItemKind as StoredItemKind, MachineRequestRow, MachineRow } from '../store/tables.js'
import type { StoredStep } from '../store/work-items.js'

// Between the wire and the domain. Protobuf enums stop here.

const capabilityNames: Readonly<Record<number, DomainCapability>> = {
  [Capability.POWER]: 'POWER',
  [Capability.REINSTALL]: 'REINSTALL',
  [Capability.INSPECT]: 'INSPECT',
  [Capability.OFFERINGS]: 'OFFERINGS',
  [Capability.VALIDATE]: 'VALIDATE',
  [Capability.LIST]: 'LIST',
  [Capability.REMOVE_ORPHAN]: 'REMOVE_ORPHAN',
  [Capability.RESCUE]: 'RESCUE',
  [Capability.CONSOLE]: 'CONSOLE',
  [Capability.ADOPT]: 'ADOPT',
}

/** Capabilities that this hub knows; others are ignored. */
export function fromCapabilities(values: readonly Capability[]): DomainCapability[] {
  return [...new Set(values.flatMap((value) => capabilityNames[value] ?? []))]
}

export function fromHealth(health: Health): DomainHealth {
  if (health === Health.DEGRADED) return 'DEGRADED'
  return health === Health.UNHEALTHY ? 'UNHEALTHY' : 'HEALTHY'
}

export function fromPower(power: PowerState): facts.PowerState | undefined {
  if (power === PowerState.ON) return 'ON'
  return power === PowerState.OFF ? 'OFF' : undefined
}

export function toPower(power: facts.PowerState | null | undefined): PowerState {
  if (power === 'ON') return PowerState.ON
  return power === 'OFF' ? PowerState.OFF : PowerState.UNSPECIFIED
}

export function toItemKind(kind: StoredItemKind): ItemKind {
  return kind === 'MACHINE' ? ItemKind.MACHINE : ItemKind.MACHINE_REQUEST
}

const operations = {
  PROVISION: Operation.PROVISION,
  REINSTALL: Operation.REINSTALL,
  DEPROVISION: Operation.DEPROVISION,
  VERIFY: Operation.VERIFY,
  INSPECT: Operation.INSPECT,
  CLEAN: Operation.CLEAN,
  POWER: Operation.POWER,
  ADOPT: Operation.ADOPT,
  UNADOPT: Operation.UNADOPT,
} as const

function toOperation(name: string | null): Operation {
  return name !== null && name in operations ? operations[name as keyof typeof operations] : Operation.UNSPECIFIED
}

function fromOperation(operation: Operation): string {
  return Object.entries(operations).find(([, value]) => value === operation)?.[0] ?? ''
}

const failureCodes: Readonly<Record<number, facts.FailureCode>> = {
  [FailureCode.CAPACITY]: 'CAPACITY',
  [FailureCode.QUOTA]: 'QUOTA',
  [FailureCode.INVALID_SPEC]: 'INVALID_SPEC',
  [FailureCode.CREDENTIALS]: 'CREDENTIALS',
  [FailureCode.CONFLICT]: 'CONFLICT',
  [FailureCode.RATE_LIMITED]: 'RATE_LIMITED',
  [FailureCode.UNAVAILABLE]: 'UNAVAILABLE',
  [FailureCode.TIMEOUT]: 'TIMEOUT',
  [FailureCode.INTERNAL]: 'INTERNAL',
}

export function fromFailure(failure: Failure): facts.Failure {
  return {
    code: failureCodes[failure.code] ?? 'INTERNAL',
    message: failure.message,
    retryable: failure.retryable,
    externalCode: failure.externalCode,
    step: failure.step,
    ...(failure.retryAfter !== undefined && { retryAfterMs: toMs(failure.retryAfter) }),
  }
}

/** A duration in whole milliseconds, never negative. */
export function toMs(duration: Duration | undefined): number {
  return duration === undefined ? 0 : Math.max(0, Math.round(durationMs(duration)))
}

export function fromBudgets(budgets: readonly RateBudget[]): BudgetFacts[] {
  return budgets.map(({ name, limit, remaining, resetsIn }) => ({ name, limit, remaining, resetsInMs: toMs(resetsIn) }))
}

export function fromAddresses(addresses: readonly Address[]): facts.Address[] {
  return addresses.map((address) => ({
    type:
      address.type === AddressType.PUBLIC ? 'PUBLIC' : address.type === AddressType.PRIVATE ? 'PRIVATE' : 'UNSPECIFIED',
    ip: address.ip,
  }))
}

export function fromShape(shape: Shape): facts.Shape {
  return {
    vcpus: shape.vcpus,
    memoryMib: Number(shape.memoryMib),
    diskGib: Number(shape.diskGib),
    diskClass: shape.diskClass,
    architecture: shape.architecture,
  }
}

export function fromHardware(hardware: Hardware): facts.Hardware {
  return {
    ...(hardware.shape !== undefined && { shape: fromShape(hardware.shape) }),
    ...(hardware.vendor !== '' && { vendor: hardware.vendor }),
    ...(hardware.model !== '' && { model: hardware.model }),
    ...(hardware.serial !== '' && { serial: hardware.serial }),
    ...(hardware.details !== undefined && { details: hardware.details }),
    ...(hardware.nics > 0 && { nics: hardware.nics }),
    ...(hardware.uuid !== '' && { uuid: hardware.uuid.toLowerCase() }),
    ...(hardware.macs.length > 0 && { macs: hardware.macs }),
  }
}

const conditionStatuses: Readonly<Record<ConditionStatus, facts.ConditionStatus>> = {
  [ConditionStatus.UNSPECIFIED]: 'UNKNOWN',
  [ConditionStatus.TRUE]: 'TRUE',
  [ConditionStatus.FALSE]: 'FALSE',
}

function fromObserved(observed: Observed): ObservedFacts {
  const power = fromPower(observed.power)
  return {
    generation: Number(observed.generation),
    ...(observed.presence === Presence.PRESENT && { presence: 'PRESENT' as const }),
    ...(observed.presence === Presence.ABSENT && { presence: 'ABSENT' as const }),
    ...(observed.externalId !== '' && { externalId: observed.externalId }),
    ...(power !== undefined && { power }),
    ...(observed.rebootsDone !== undefined && { rebootsDone: Number(observed.rebootsDone) }),
    ...(observed.reinstallsDone !== undefined && { reinstallsDone: Number(observed.reinstallsDone) }),
    ...(observed.rescue !== undefined && { rescue: Number(observed.rescue) }),
    ...(observed.addresses.length > 0 && { addresses: fromAddresses(observed.addresses) }),
    ...(observed.attributes !== undefined && { attributes: observed.attributes }),
    ...(observed.conditions.length > 0 && {
      conditions: observed.conditions.map((condition) => ({
        type: condition.type,
        status: conditionStatuses[condition.status],
        reason: condition.reason,
        message: condition.message,
      })),
    }),
    ...(observed.createInDoubt !== undefined && { createInDoubt: observed.createInDoubt }),
    ...(observed.hardware !== undefined && { hardware: fromHardware(observed.hardware) }),
  }
}

export function fromReport(report: Report): ReportFacts {
  const { step, progress, observed, failure, completed, waiting } = report
  return {
    ...(step !== undefined && {
      step: {
        operation: fromOperation(step.operation),
        operationGeneration: Number(step.operationGeneration),
        name: step.name,
        result: step.result === undefined ? null : toJson(ValueSchema, step.result),
      },
    }),
    ...(progress !== undefined && {
      progress: {
        step: progress.step,
        message: progress.message,
        ...(progress.percent !== undefined && { percent: progress.percent }),
      },
    }),
    ...(observed !== undefined && { observed: fromObserved(observed) }),
    ...(failure !== undefined && { failure: fromFailure(failure) }),
    ...(completed !== undefined && {
      completed: {
        operation: fromOperation(completed.operation),
        operationGeneration: Number(completed.operationGeneration),
      },
    }),
    ...(waiting !== undefined && {
      waiting: {
        operation: fromOperation(waiting.operation),
        operationGeneration: Number(waiting.operationGeneration),
        timeoutMs: toMs(waiting.timeout),
        message: waiting.message,
      },
    }),
  }
}

/** The stored steps of one operation, for whoever goes on with it. */
export function toStepResults(
  steps: readonly StoredStep[],
  operation: string | null,
  operationGeneration: number,
): StepResult[] {
  return steps
    .filter((step) => step.operation === operation && step.operationGeneration === operationGeneration)
    .map((step) =>
      create(StepResultSchema, {
        operation: toOperation(step.operation),
        operationGeneration: BigInt(step.operationGeneration),
        name: step.name,
        result: fromJson(ValueSchema, (step.result ?? null) as JsonValue),
      }),
    )
}

/** The opened secrets of a request, and where its machine phones home. */
export interface BootstrapSecrets {
  readonly userData: string
  readonly phoneHomeToken: string
  /** The client API's base URL as machines reach it. */
  readonly publicUrl: string
}

/** A machine request's order, as its provider gets it. */
export function toMachineSpec(row: MachineRequestRow, secrets: BootstrapSecrets | undefined): MachineSpec {
  const phoneHome = row.spec.phoneHome && secrets !== undefined
  return create(MachineSpecSchema, {
    name: row.external_name,
    ownershipKey: row.ownership_key,
    typeId: row.type_id,
    location: row.location,
    shape: toShape(row.spec.shape),
    providerData: row.spec.providerData as ProtoJsonObject,
    bootstrap: {
      hostname: row.spec.hostname,
      userData: secrets?.userData ?? '',
      phoneHomeUrl: phoneHome ? `${secrets.publicUrl}/phone-home` : '',
      phoneHomePathUrl: phoneHome ? `${secrets.publicUrl}/phone-home/${secrets.phoneHomeToken}` : '',
      phoneHomeToken: phoneHome ? secrets.phoneHomeToken : '',
      sshPublicKeys: [...(row.spec.sshPublicKeys ?? [])],
    },
    host: {
      host: row.host_name,
      hostUid: row.host_id,
      workspace: row.workspace_name,
      machineClass: row.class_name,
      labels: { ...row.spec.labels },
    },
    adoptExternalId: row.adopt_external_id ?? '',
  })
}

export function toShape(shape: facts.Shape): {
  vcpus: number
  memoryMib: bigint
  diskGib: bigint
  diskClass: string
  architecture: string
} {
  return {
    vcpus: shape.vcpus,
    memoryMib: BigInt(shape.memoryMib),
    diskGib: BigInt(shape.diskGib),
    diskClass: shape.diskClass,
    architecture: shape.architecture,
  }
}

function toStaticMachine(row: MachineRow) {
  return create(StaticMachineSchema, {
    machineId: row.id,
    externalId: row.external_id,
    providerData: row.provider_data as ProtoJsonObject,
  })
}

function toRescue({ revision, sshKeys, sshPublicKeys }: RescueWish) {
  return { revision: BigInt(revision), sshKeys: [...sshKeys], sshPublicKeys: [...sshPublicKeys] }
}

function toPresence({ operation, desired_presence: desired }: MachineRequestRow): Presence {
  // What is let go of may stay, or go: that is nothing to us.
  if (operation === 'UNADOPT') return Presence.UNSPECIFIED
  return desired === 'PRESENT' ? Presence.PRESENT : Presence.ABSENT
}

/** The wish for a machine request. */
export function toRequestDesired(
  row: MachineRequestRow,
  machine: MachineRow | undefined,
  secrets: BootstrapSecrets | undefined,
): Desired {
  return create(DesiredSchema, {
    generation: BigInt(row.generation),
    operation: toOperation(row.operation),
    operationGeneration: BigInt(row.operation_generation),
    presence: toPresence(row),
    // Before it is ours nobody switches it.
    power:
      row.adopt_external_id !== null && row.provisioned_at === null
        ? PowerState.UNSPECIFIED
        : toPower(row.desired_power),
    reboots: BigInt(row.reboots),
    reinstalls: BigInt(row.reinstalls),
    ...(row.rescue !== null && { rescue: toRescue(row.rescue) }),
    spec: toMachineSpec(row, secrets),
    ...(machine !== undefined && { machine: toStaticMachine(machine) }),
    paused: row.paused_at !== null,
  })
}

/** The wish for a static machine's own work. Without a person's wish, power is what its operation makes of it; a machine that waits for its next host is off. */
export function toMachineDesired(row: MachineRow): Desired {
  return create(DesiredSchema, {
    generation: BigInt(row.generation),
    operation: toOperation(row.operation),
    operationGeneration: BigInt(row.operation_generation),
    presence: Presence.PRESENT,
    // What is wished of a machine with a host is its request's affair.
    power: row.request_id === null ? toPower(row.desired_power ?? (row.state === 'AVAILABLE' ? 'OFF' : null)) : 0,
    reboots: BigInt(row.request_id === null ? row.reboots : row.reboots_done),
    machine: toStaticMachine(row),
    paused: row.paused_at !== null,
  })
}

/** What was reported last of an item, for whoever goes on with it. */
export function toObserved(row: MachineRequestRow | MachineRow) {
  const isRequest = 'presence' in row
  return {
    generation: BigInt(row.observed_generation),
    presence:
      !isRequest || row.presence === 'PRESENT'
        ? Presence.PRESENT
        : row.presence === 'ABSENT'
          ? Presence.ABSENT
          : Presence.UNSPECIFIED,
    externalId: row.external_id ?? '',
    power: toPower(row.power),
    rebootsDone: BigInt(row.reboots_done),
    attributes: row.attributes as ProtoJsonObject,
    addresses: row.addresses.map((address) => ({ type: AddressType[address.type], ip: address.ip })),
    conditions: row.conditions.map((condition) => ({
      type: condition.type,
      status: ConditionStatus[condition.status === 'UNKNOWN' ? 'UNSPECIFIED' : condition.status],
      reason: condition.reason,
      message: condition.message,
    })),
    ...(isRequest && {
      createInDoubt: row.create_in_doubt,
      reinstallsDone: BigInt(row.reinstalls_done),
      rescue: BigInt(row.rescue_seen),
    }),
  }
}

const orphanOutcomes: Readonly<Record<OrphanOutcome, OrderAnswer['outcome']>> = {
  [OrphanOutcome.UNSPECIFIED]: 'FAILED',
  [OrphanOutcome.REMOVED]: 'REMOVED',
  [OrphanOutcome.ALREADY_GONE]: 'ALREADY_GONE',
  [OrphanOutcome.KEY_MISMATCH]: 'KEY_MISMATCH',
  [OrphanOutcome.HELD]: 'HELD',
  [OrphanOutcome.FAILED]: 'FAILED',
}

/** What an instance says of an order to remove an orphan. */
export function fromOrphanRemoval({ orderId, outcome, message, failure }: OrphanRemoval): OrderAnswer {
  return {
    orderId,
    outcome: orphanOutcomes[outcome],
    message,
    failure: failure === undefined ? undefined : fromFailure(failure),
  }
}

/** What a provider is asked about an order. */
export interface OrderQuestion {
  readonly spec: MachineSpec
  readonly reinstall?: ValidateReinstall
}

/** An order as its provider is asked about it, before a request exists, or before its machine is reinstalled. */
export function toOrderQuestion(order: OrderToValidate): OrderQuestion {
  const spec = create(MachineSpecSchema, {
    typeId: order.typeId,
    location: order.location,
    shape: toShape(order.shape),
    providerData: order.providerData as ProtoJsonObject,
    bootstrap: { hostname: order.hostname, sshPublicKeys: [...order.sshPublicKeys] },
    host: {
      host: order.hostName,
      workspace: order.workspace,
      machineClass: order.machineClass,
      labels: { ...order.labels },
    },
  })
  if (order.adoptExternalId !== undefined) return { spec: { ...spec, adoptExternalId: order.adoptExternalId } }
  if (order.reinstall === undefined) return { spec }
  const { externalId, providerData } = order.reinstall
  return {
    spec,
    reinstall: create(ValidateReinstallSchema, { externalId, providerData: providerData as ProtoJsonObject }),
  }
}
