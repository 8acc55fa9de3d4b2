import { isIP } from 'node:net'
import { create, fromJson, toJson, type JsonObject, type JsonValue, type MessageInitShape } from '@bufbuild/protobuf'
import { durationFromMs, ValueSchema, type Value } from '@bufbuild/protobuf/wkt'
import {
  AddressType,
  FailureCode as WireFailureCode,
  FailureSchema,
  BootstrapSchema,
  HostContextSchema,
  PowerState,
  ShapeSchema,
  type AddressSchema,
  type Failure,
  type HardwareSchema,
  type InventoryMachineSchema,
  type MachineSpec as WireSpec,
  type ObservedSchema,
  type OfferingSchema,
  type OwnedResourceSchema,
  type StaticMachine as WireStaticMachine,
  type ViolationSchema,
} from '@slipway/proto/provider/v1'
import { ProviderError } from './errors.js'
import type {
  Address,
  DiscoveredMachine,
  Hardware,
  Json,
  MachineSpec,
  ObservedMachine,
  Offering,
  OwnedMachine,
  Power,
  Shape,
  StaticMachine,
  Violation,
} from './types.js'

/** Between the words of authors and those of the protocol. */

export type ObservedInit = Omit<MessageInitShape<typeof ObservedSchema>, '$typeName' | '$unknown'>

const maxMessageLength = 8000

/** What is thrown, as the hub is told of it. */
export function failureToProto(thrown: unknown, step = ''): Failure {
  const error = ProviderError.from(thrown)
  return create(FailureSchema, {
    code: WireFailureCode[error.code],
    message: error.message.slice(0, maxMessageLength),
    retryable: error.retryable,
    ...(error.retryAfterMs !== undefined && { retryAfter: durationFromMs(Math.round(error.retryAfterMs)) }),
    externalCode: (error.externalCode ?? '').slice(0, 256),
    step: step.slice(0, 128),
  })
}

export function violationToProto({ field, description }: Violation): MessageInitShape<typeof ViolationSchema> {
  return { field: field.slice(0, 512), description: description.slice(0, 4096) }
}

/** Anything that an author gives back, as plain JSON. @throws ProviderError where it is none, naming what it is. */
export function plainJson(value: unknown, what: string): JsonValue {
  try {
    return JSON.parse(JSON.stringify(value ?? null)) as JsonValue
  } catch (error) {
    throw new ProviderError('INTERNAL', `${what} cannot be said in JSON: ${(error as Error).message}`, {
      retryable: false,
    })
  }
}

export function jsonToValue(json: JsonValue): Value {
  return fromJson(ValueSchema, json)
}

export function valueToJson(value: Value | undefined): Json {
  return value === undefined ? null : toJson(ValueSchema, value)
}

export function powerToProto(power: Power | undefined): PowerState {
  if (power === undefined) return PowerState.UNSPECIFIED
  return power === 'on' ? PowerState.ON : PowerState.OFF
}

export function powerFromProto(power: PowerState): Power | undefined {
  if (power === PowerState.UNSPECIFIED) return undefined
  return power === PowerState.ON ? 'on' : 'off'
}

function addressToProto(address: Address): MessageInitShape<typeof AddressSchema> {
  if (isIP(address.ip) === 0) {
    throw new ProviderError(
      'INTERNAL',
      `"${address.ip}" is not an IP address; the provider must give addresses without prefix length`,
    )
  }
  return { type: address.type === 'public' ? AddressType.PUBLIC : AddressType.PRIVATE, ip: address.ip }
}

function jsonObject(value: { readonly [key: string]: Json } | undefined, what: string): JsonObject | undefined {
  return value === undefined ? undefined : (plainJson(value, what) as JsonObject)
}

/** What was seen; fields that are absent stay unsaid. */
export function observedToProto(machine: Partial<ObservedMachine>): ObservedInit {
  const attributes = jsonObject(machine.attributes, 'attributes')
  return {
    ...(machine.externalId !== undefined && { externalId: machine.externalId }),
    ...(machine.power !== undefined && { power: powerToProto(machine.power) }),
    ...(machine.addresses !== undefined && { addresses: machine.addresses.map(addressToProto) }),
    ...(attributes !== undefined && { attributes }),
  }
}

function shapeToProto(shape: Shape): MessageInitShape<typeof ShapeSchema> {
  return {
    vcpus: shape.vcpus,
    memoryMib: BigInt(Math.round(shape.memoryMib)),
    diskGib: BigInt(Math.round(shape.diskGib)),
    diskClass: shape.diskClass ?? '',
    architecture: shape.architecture ?? '',
  }
}

export function hardwareToProto(hardware: Hardware): MessageInitShape<typeof HardwareSchema> {
  const details = jsonObject(hardware.details, 'hardware details')
  return {
    ...(hardware.shape !== undefined && { shape: shapeToProto(hardware.shape) }),
    vendor: hardware.vendor ?? '',
    model: hardware.model ?? '',
    serial: hardware.serial ?? '',
    nics: hardware.nics ?? 0,
    uuid: hardware.uuid ?? '',
    macs: [...(hardware.macs ?? [])],
    ...(details !== undefined && { details }),
  }
}

export function offeringToProto(offering: Offering): MessageInitShape<typeof OfferingSchema> {
  const { price } = offering
  return {
    typeId: offering.typeId,
    location: offering.location ?? '',
    shape: shapeToProto(offering.shape),
    ...(price !== undefined && {
      price: {
        currency: price.currency,
        hourlyMicros: price.hourlyMicros,
        monthlyMicros: price.monthlyMicros ?? 0n,
        setupMicros: price.setupMicros ?? 0n,
      },
    }),
    available: offering.available,
    ...(offering.remaining !== undefined && { remaining: offering.remaining }),
  }
}

export function discoveredToProto(machine: DiscoveredMachine): MessageInitShape<typeof InventoryMachineSchema> {
  const providerData = jsonObject(machine.providerData, 'providerData')
  return {
    externalId: machine.externalId,
    ...(machine.hardware !== undefined && { hardware: hardwareToProto(machine.hardware) }),
    power: powerToProto(machine.power),
    labels: { ...machine.labels },
    ...(providerData !== undefined && { providerData }),
    addresses: (machine.addresses ?? []).map(addressToProto),
    acceptedByRule: machine.acceptedByRule ?? '',
    inUse: machine.inUse ?? false,
  }
}

export function ownedToProto(machine: OwnedMachine): MessageInitShape<typeof OwnedResourceSchema> {
  return {
    kind: machine.kind ?? 'server',
    externalId: machine.externalId,
    ownershipKey: machine.ownershipKey,
    name: machine.name ?? '',
    power: powerToProto(machine.power),
    addresses: (machine.addresses ?? []).map(addressToProto),
  }
}

/** An order, with its `data` as the author's schema gave it. */
export function specFromProto(spec: WireSpec, data: unknown): MachineSpec<unknown> {
  const shape = spec.shape ?? create(ShapeSchema)
  const bootstrap = spec.bootstrap ?? create(BootstrapSchema)
  const host = spec.host ?? create(HostContextSchema)
  return {
    name: spec.name,
    ownershipKey: spec.ownershipKey,
    typeId: spec.typeId,
    location: spec.location,
    shape: {
      vcpus: shape.vcpus,
      memoryMib: Number(shape.memoryMib),
      diskGib: Number(shape.diskGib),
      diskClass: shape.diskClass,
      architecture: shape.architecture,
    },
    data,
    bootstrap: {
      hostname: bootstrap.hostname,
      userData: bootstrap.userData,
      phoneHomeUrl: bootstrap.phoneHomeUrl,
      phoneHomePathUrl: bootstrap.phoneHomePathUrl,
      phoneHomeToken: bootstrap.phoneHomeToken,
      sshPublicKeys: [...bootstrap.sshPublicKeys],
    },
    host: {
      host: host.host,
      hostUid: host.hostUid,
      workspace: host.workspace,
      machineClass: host.machineClass,
      labels: { ...host.labels },
    },
  }
}

export function staticMachineFromProto(machine: WireStaticMachine): StaticMachine {
  return { machineId: machine.machineId, externalId: machine.externalId, providerData: { ...machine.providerData } }
}
