import { create, type JsonObject as ProtoJsonObject } from '@bufbuild/protobuf'
import {
  durationFromMs,
  durationMs,
  timestampDate,
  timestampFromDate,
  type Duration,
  type Timestamp,
} from '@bufbuild/protobuf/wkt'
import * as hub from '@slipway/proto/hub/v1'
import * as wire from '@slipway/proto/provider/v1'
import type * as facts from '../domain/facts.js'
import { invalidField } from '../domain/error/errors.js'
import {
  defaultPhoneHomeTimeoutMs,
  defaultProvisionTimeoutMs,
  type ClassBootstrap,
  type ClassOffering,
  type HostState,
  type MachineSelector,
  type PlacementWish,
} from '../domain/host/host.js'
import { priorityLevel, priorityOf, type Priority } from '../domain/share/priority.js'
import type { MachineState } from '../domain/machine/machine.js'
import { parseResourceName, resourceName } from '../domain/names.js'
import { parseLabelSelector } from '../domain/selector.js'
import type { Capability, ProviderKind } from '../domain/provider/provider.js'
import type { RequestState } from '../domain/request/request.js'

// Between protobuf and the domain, for what several resources have in common. Protobuf enums stop here: each table below fails to compile when it misses a name.

export function toTime(date: Date | string | null | undefined): Timestamp | undefined {
  return date === null || date === undefined
    ? undefined
    : timestampFromDate(typeof date === 'string' ? new Date(date) : date)
}

export function fromTime(time: Timestamp | undefined): Date | undefined {
  return time === undefined ? undefined : timestampDate(time)
}

export function toObject(value: facts.JsonObject): ProtoJsonObject {
  return value as ProtoJsonObject
}

export function fromObject(value: ProtoJsonObject | undefined): facts.JsonObject {
  return value ?? {}
}

export const hostStateNumbers: Readonly<Record<HostState, hub.HostState>> = {
  ORDERED: hub.HostState.ORDERED,
  PLACED: hub.HostState.PLACED,
  PROVISIONING: hub.HostState.PROVISIONING,
  BOOTSTRAPPING: hub.HostState.BOOTSTRAPPING,
  READY: hub.HostState.READY,
  ERROR: hub.HostState.ERROR,
  RELEASING: hub.HostState.RELEASING,
  RELEASED: hub.HostState.RELEASED,
}

export const requestStateNumbers: Readonly<Record<RequestState, hub.MachineRequestState>> = {
  PENDING: hub.MachineRequestState.PENDING,
  PROVISIONING: hub.MachineRequestState.PROVISIONING,
  PROVISIONED: hub.MachineRequestState.PROVISIONED,
  FAILED: hub.MachineRequestState.FAILED,
  DEPROVISIONING: hub.MachineRequestState.DEPROVISIONING,
  GONE: hub.MachineRequestState.GONE,
}

export const machineStateNumbers: Readonly<Record<MachineState, hub.MachineState>> = {
  DISCOVERED: hub.MachineState.DISCOVERED,
  VERIFYING: hub.MachineState.VERIFYING,
  MANAGEABLE: hub.MachineState.MANAGEABLE,
  INSPECTING: hub.MachineState.INSPECTING,
  INSPECT_WAIT: hub.MachineState.INSPECT_WAIT,
  CLEANING: hub.MachineState.CLEANING,
  CLEAN_WAIT: hub.MachineState.CLEAN_WAIT,
  AVAILABLE: hub.MachineState.AVAILABLE,
  PROVISIONING: hub.MachineState.PROVISIONING,
  PROVISION_WAIT: hub.MachineState.PROVISION_WAIT,
  ACTIVE: hub.MachineState.ACTIVE,
  ADOPTING: hub.MachineState.ADOPTING,
  VERIFY_FAILED: hub.MachineState.VERIFY_FAILED,
  INSPECT_FAILED: hub.MachineState.INSPECT_FAILED,
  CLEAN_FAILED: hub.MachineState.CLEAN_FAILED,
  PROVISION_FAILED: hub.MachineState.PROVISION_FAILED,
  ADOPT_FAILED: hub.MachineState.ADOPT_FAILED,
  GONE: hub.MachineState.GONE,
}

export const healthNumbers = {
  HEALTHY: wire.Health.HEALTHY,
  DEGRADED: wire.Health.DEGRADED,
  UNHEALTHY: wire.Health.UNHEALTHY,
} as const

export const capabilityNumbers: Readonly<Record<Capability, wire.Capability>> = {
  POWER: wire.Capability.POWER,
  REINSTALL: wire.Capability.REINSTALL,
  INSPECT: wire.Capability.INSPECT,
  OFFERINGS: wire.Capability.OFFERINGS,
  VALIDATE: wire.Capability.VALIDATE,
  LIST: wire.Capability.LIST,
  REMOVE_ORPHAN: wire.Capability.REMOVE_ORPHAN,
  RESCUE: wire.Capability.RESCUE,
  CONSOLE: wire.Capability.CONSOLE,
  ADOPT: wire.Capability.ADOPT,
}

const severityNumbers = { INFO: hub.Severity.INFO, WARNING: hub.Severity.WARNING, ERROR: hub.Severity.ERROR } as const
export const toSeverity = (severity: keyof typeof severityNumbers): hub.Severity => severityNumbers[severity]

export const failureNumbers: Readonly<Record<facts.FailureCode, wire.FailureCode>> = {
  CAPACITY: wire.FailureCode.CAPACITY,
  QUOTA: wire.FailureCode.QUOTA,
  INVALID_SPEC: wire.FailureCode.INVALID_SPEC,
  CREDENTIALS: wire.FailureCode.CREDENTIALS,
  CONFLICT: wire.FailureCode.CONFLICT,
  RATE_LIMITED: wire.FailureCode.RATE_LIMITED,
  UNAVAILABLE: wire.FailureCode.UNAVAILABLE,
  TIMEOUT: wire.FailureCode.TIMEOUT,
  INTERNAL: wire.FailureCode.INTERNAL,
}

/** The name that a table gives a number, or undefined. */
export function nameOf<Name extends string>(table: Readonly<Record<Name, number>>, number: number): Name | undefined {
  return (Object.keys(table) as Name[]).find((name) => table[name] === number)
}

/** Names of several numbers; those that are not in the table fall away. */
export function namesOf<Name extends string>(
  table: Readonly<Record<Name, number>>,
  numbers: readonly number[],
): Name[] {
  return numbers.flatMap((number) => nameOf(table, number) ?? [])
}

export function fromKind(kind: wire.ProviderKind): ProviderKind {
  return kind === wire.ProviderKind.STATIC ? 'STATIC' : 'DYNAMIC'
}

export function toKind(kind: ProviderKind): wire.ProviderKind {
  return kind === 'STATIC' ? wire.ProviderKind.STATIC : wire.ProviderKind.DYNAMIC
}

export function toPower(power: facts.PowerState | null): wire.PowerState {
  if (power === null) return wire.PowerState.UNSPECIFIED
  return power === 'ON' ? wire.PowerState.ON : wire.PowerState.OFF
}

export function toLastError(error: facts.LastError | null): hub.LastError | undefined {
  if (error === null) return undefined
  return create(hub.LastErrorSchema, {
    code: failureNumbers[error.code],
    message: error.message,
    externalCode: error.externalCode,
    step: error.step,
    retryable: error.retryable,
    attempts: error.attempts,
    time: timestampFromDate(new Date(error.at)),
    ...(error.nextAttemptAt !== undefined && { nextAttemptTime: timestampFromDate(new Date(error.nextAttemptAt)) }),
  })
}

const conditionNumbers = {
  TRUE: wire.ConditionStatus.TRUE,
  FALSE: wire.ConditionStatus.FALSE,
  UNKNOWN: wire.ConditionStatus.UNSPECIFIED,
} as const

export function toConditions(conditions: readonly facts.Condition[]): wire.Condition[] {
  return conditions.map((condition) =>
    create(wire.ConditionSchema, {
      type: condition.type,
      status: conditionNumbers[condition.status],
      reason: condition.reason,
      message: condition.message,
      lastTransitionTime: timestampFromDate(new Date(condition.lastTransitionAt)),
    }),
  )
}

export function toShape(shape: Partial<facts.Shape>): wire.Shape {
  return create(wire.ShapeSchema, {
    vcpus: shape.vcpus ?? 0,
    memoryMib: BigInt(shape.memoryMib ?? 0),
    diskGib: BigInt(shape.diskGib ?? 0),
    diskClass: shape.diskClass ?? '',
    architecture: shape.architecture ?? '',
  })
}

export function fromShape(shape: wire.Shape | undefined): facts.Shape {
  return {
    vcpus: shape?.vcpus ?? 0,
    memoryMib: Number(shape?.memoryMib ?? 0n),
    diskGib: Number(shape?.diskGib ?? 0n),
    diskClass: shape?.diskClass ?? '',
    architecture: shape?.architecture ?? '',
  }
}

export function toPrice(price: facts.Price | null | undefined): wire.Price | undefined {
  if (price === null || price === undefined) return undefined
  return create(wire.PriceSchema, {
    currency: price.currency,
    hourlyMicros: BigInt(price.hourlyMicros),
    monthlyMicros: BigInt(price.monthlyMicros),
    setupMicros: BigInt(price.setupMicros),
  })
}

export function fromPrice(price: wire.Price): facts.Price {
  return {
    currency: price.currency,
    hourlyMicros: Number(price.hourlyMicros),
    monthlyMicros: Number(price.monthlyMicros),
    setupMicros: Number(price.setupMicros),
  }
}

export function toHardware(hardware: facts.Hardware): wire.Hardware {
  return create(wire.HardwareSchema, {
    ...(hardware.shape !== undefined && { shape: toShape(hardware.shape) }),
    vendor: hardware.vendor ?? '',
    model: hardware.model ?? '',
    serial: hardware.serial ?? '',
    nics: hardware.nics ?? 0,
    uuid: hardware.uuid ?? '',
    macs: [...(hardware.macs ?? [])],
    ...(hardware.details !== undefined && { details: toObject(hardware.details) }),
  })
}

export function toAddresses(addresses: readonly facts.Address[]): wire.Address[] {
  return addresses.map((address) =>
    create(wire.AddressSchema, { type: wire.AddressType[address.type], ip: address.ip }),
  )
}

export function toProgress(progress: facts.Progress | null): wire.Progress | undefined {
  if (progress === null) return undefined
  return create(wire.ProgressSchema, {
    step: progress.step,
    message: progress.message,
    ...(progress.percent !== undefined && { percent: progress.percent }),
  })
}

export function toPlacement(wish: Partial<PlacementWish>): hub.Placement {
  return create(hub.PlacementSchema, {
    providers: (wish.providers ?? []).map((name) => resourceName('provider', name)),
    families: [...(wish.families ?? [])],
    locations: [...(wish.locations ?? [])],
    maxHourlyMicros: BigInt(wish.maxHourlyMicros ?? 0),
    regions: [...(wish.regions ?? [])],
    residency: [...(wish.residency ?? [])],
    affinities: (wish.affinities ?? []).map(({ side, domain, labelSelector, required }) => ({
      ...{ side: sideNumbers[side], domain: domainNumbers[domain], labelSelector, required },
    })),
    spread: (wish.spread ?? []).map(({ domain, labelSelector }) => ({ domain: domainNumbers[domain], labelSelector })),
  })
}

const sideNumbers = { NEAR: hub.AffinitySide.NEAR, APART: hub.AffinitySide.APART }
const domainNumbers = {
  PROVIDER: hub.FailureDomain.PROVIDER,
  LOCATION: hub.FailureDomain.LOCATION,
  RACK: hub.FailureDomain.RACK,
}

/** Affinities and spreading, where there are any. @throws HubError INVALID_FIELD, INVALID_LABEL_SELECTOR. */
function fromCompany(
  { affinities, spread }: hub.Placement,
  field: string,
): Pick<PlacementWish, 'affinities' | 'spread'> {
  const domainOf = (domain: hub.FailureDomain, path: string) => {
    const found = nameOf(domainNumbers, domain)
    if (found === undefined) throw invalidField(`${path}.domain`, 'give a domain')
    return found
  }
  return {
    ...(affinities.length > 0 && {
      affinities: affinities.map(({ side, domain, labelSelector, required }, index) => {
        const path = `${field}.affinities[${index}]`
        const found = nameOf(sideNumbers, side)
        if (found === undefined) throw invalidField(`${path}.side`, 'give a side')
        parseLabelSelector(labelSelector)
        return { side: found, domain: domainOf(domain, path), labelSelector, required }
      }),
    }),
    ...(spread.length > 0 && {
      spread: spread.map(({ domain, labelSelector }, index) => {
        parseLabelSelector(labelSelector)
        return { domain: domainOf(domain, `${field}.spread[${index}]`), labelSelector }
      }),
    }),
  }
}

export function fromPlacement(placement: hub.Placement | undefined, field: string): PlacementWish {
  return {
    providers: (placement?.providers ?? []).map((name, index) =>
      parseResourceName('provider', name, `${field}.providers[${index}]`),
    ),
    families: placement?.families ?? [],
    locations: placement?.locations ?? [],
    maxHourlyMicros: Number(placement?.maxHourlyMicros ?? 0n),
    ...(placement !== undefined && placement.regions.length > 0 && { regions: placement.regions }),
    ...(placement !== undefined && placement.residency.length > 0 && { residency: placement.residency }),
    ...(placement !== undefined && fromCompany(placement, field)),
  }
}

export function toClassOfferings(offerings: readonly ClassOffering[]): hub.ClassOffering[] {
  return offerings.map((offering) =>
    create(hub.ClassOfferingSchema, {
      family: offering.family,
      provider: offering.provider === '' ? '' : resourceName('provider', offering.provider),
      typeId: offering.typeId,
      locations: [...offering.locations],
      ...(offering.price !== undefined && { price: toPrice(offering.price) }),
      providerData: toObject(offering.providerData),
    }),
  )
}

/** @throws HubError INVALID_FIELD. */
export function fromClassOfferings(offerings: readonly hub.ClassOffering[], field: string): ClassOffering[] {
  return offerings.map((offering, index) => {
    const path = `${field}[${index}]`
    if (offering.family === '' && offering.provider === '')
      throw invalidField(path, 'give a family, a provider, or both')
    return {
      family: offering.family,
      provider: offering.provider === '' ? '' : parseResourceName('provider', offering.provider, `${path}.provider`),
      typeId: offering.typeId,
      locations: offering.locations,
      ...(offering.price !== undefined && { price: fromPrice(offering.price) }),
      providerData: fromObject(offering.providerData),
    }
  })
}

export function toSelector(selector: MachineSelector | null): hub.MachineSelector | undefined {
  if (selector === null) return undefined
  return create(hub.MachineSelectorSchema, {
    labelSelector: selector.labelSelector,
    provider: selector.provider === '' ? '' : resourceName('provider', selector.provider),
    providerData: toObject(selector.providerData),
    ...(selector.price !== undefined && { price: toPrice(selector.price) }),
    minNics: selector.minNics ?? 0,
  })
}

export function fromSelector(selector: hub.MachineSelector | undefined, field: string): MachineSelector | null {
  if (selector === undefined) return null
  return {
    labelSelector: selector.labelSelector,
    provider: selector.provider === '' ? '' : parseResourceName('provider', selector.provider, `${field}.provider`),
    providerData: fromObject(selector.providerData),
    ...(selector.price !== undefined && { price: fromPrice(selector.price) }),
    ...(selector.minNics > 0 && { minNics: selector.minNics }),
  }
}

export function toBootstrap(bootstrap: Partial<ClassBootstrap>): hub.ClassBootstrap {
  return create(hub.ClassBootstrapSchema, {
    phoneHome: bootstrap.phoneHome ?? false,
    phoneHomeTimeout: durationFromMs(bootstrap.phoneHomeTimeoutMs ?? defaultPhoneHomeTimeoutMs),
    provisionTimeout: durationFromMs(bootstrap.provisionTimeoutMs ?? defaultProvisionTimeoutMs),
    userData: bootstrap.userData ?? '',
  })
}

export function fromBootstrap(bootstrap: hub.ClassBootstrap | undefined): ClassBootstrap {
  const ms = (duration: Duration | undefined, fallback: number) =>
    duration === undefined ? fallback : Math.round(durationMs(duration))
  return {
    phoneHome: bootstrap?.phoneHome ?? false,
    phoneHomeTimeoutMs: ms(bootstrap?.phoneHomeTimeout, defaultPhoneHomeTimeoutMs),
    provisionTimeoutMs: ms(bootstrap?.provisionTimeout, defaultProvisionTimeoutMs),
    userData: bootstrap?.userData ?? '',
  }
}

const labelKey = /^[A-Za-z0-9]([A-Za-z0-9._/-]{0,125}[A-Za-z0-9])?$/

/** @throws HubError INVALID_FIELD. */
export function checkedLabels(
  labels: Readonly<Record<string, string>>,
  field: string,
): Readonly<Record<string, string>> {
  for (const [key, value] of Object.entries(labels)) {
    if (!labelKey.test(key))
      throw invalidField(`${field}["${key}"]`, 'a key has letters, digits and ._/- within, 127 at most')
    if (value.length > 256) throw invalidField(`${field}["${key}"]`, 'a value has 256 characters at most')
  }
  return labels
}

const priorityNumbers = {
  LOW: hub.Priority.LOW,
  NORMAL: hub.Priority.NORMAL,
  HIGH: hub.Priority.HIGH,
} as const satisfies Record<Priority, hub.Priority>

/** The level of a priority; undefined: nothing is said of it. */
export function fromPriority(priority: hub.Priority | undefined): number | undefined {
  const name = nameOf(priorityNumbers, priority ?? hub.Priority.UNSPECIFIED)
  return name && priorityLevel(name)
}

/** @param level absent from what was stored before there were priorities. */
export function toPriority(level: number | undefined): hub.Priority {
  return priorityNumbers[priorityOf(level ?? 0)]
}
