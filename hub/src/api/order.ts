import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { HubError, invalidField } from '../domain/error/errors.js'
import type { JsonObject, Labels, Shape } from '../domain/facts.js'
import {
  defaultPhoneHomeTimeoutMs,
  defaultProvisionTimeoutMs,
  type ClassSpec,
  type PlacementWish,
} from '../domain/host/host.js'
import { hostName, parseResourceName, resourceName } from '../domain/names.js'
import {
  describePlace,
  judgePlacement,
  layProviderData,
  mayWait,
  type Candidate,
  type Judged,
} from '../domain/placement/placement.js'
import type { Tx } from '../store/database.js'
import { classSpecOf, ensureClassForShape, findClass, nameForShape } from '../store/machine-classes.js'
import type { MachineClassRow } from '../store/tables.js'
import type { ApiDeps } from './context.js'
import type { OrderReads } from './order-reads.js'
import { checkedLabels, fromObject, fromPlacement, fromShape, toPrice } from './convert.js'
import { classNotFound } from './machine-classes.js'
import { checkWithProvider } from './provider-check.js'

const maxReasons = 10

export interface OrderCheck {
  readonly className: string
  readonly hostname: string
  readonly classSpec: ClassSpec
  readonly shape: Shape | null
  readonly placement: PlacementWish
  readonly providerData: JsonObject
  readonly labels: Labels
  readonly candidates: hub.PlacementCandidate[]
  readonly warnings: string[]
}

interface Order {
  readonly workspace: string
  readonly id: string
  readonly host: hub.Host
}

/**
 * Checks an order before anything of it is stored: class, places, provider data against the provider's schema, and the provider's own opinion.
 *
 * @throws HubError CLASS_NOT_FOUND, CLASS_NOT_OFFERED, PROVIDER_DATA_INVALID, INVALID_FIELD.
 */
export async function checkOrder(deps: ApiDeps, reads: OrderReads, order: Order): Promise<OrderCheck> {
  const { host } = order
  const labels = checkedLabels(host.labels, 'host.labels')
  const placement = fromPlacement(host.placement, 'host.placement')
  const { className, classSpec, shape } = await specOfOrder(reads, host)
  const judged = judgePlacement({ shape: classSpec.shape, placement }, await reads.candidates(classSpec, placement))
  if (!mayWait(judged)) throw notOffered(className, judged)
  const providerData = fromObject(host.providerData)
  const warnings: string[] = []
  // Nothing would do right now: the first place that may do later tells what the order must look like.
  const chosen =
    judged.find((place) => place.chosen) ?? judged.find((place) => place.rejected === undefined || mayWait([place]))
  if (chosen !== undefined) {
    warnings.push(
      ...(await askProvider(deps, reads, order, chosen.candidate, {
        className,
        classSpec,
        providerData,
        labels,
      })),
    )
    if (!chosen.chosen)
      warnings.push(`Nothing can be had right now; the order would wait. ${chosen.rejected?.message ?? ''}`.trim())
  }
  return {
    className,
    hostname: host.hostname === '' ? order.id : host.hostname,
    classSpec,
    shape,
    placement,
    providerData,
    labels,
    candidates: judged.map(toCandidate),
    warnings,
  }
}

/** The class that an order names, or the one that is found or made for its shape. */
export async function classOfOrder(tx: Tx, host: hub.Host): Promise<MachineClassRow> {
  if (host.machineClass === '') {
    const shape = fromShape(host.shape)
    return ensureClassForShape(tx, nameForShape(shape), {
      displayName: 'Made for orders that give a shape',
      spec: specForShape(shape),
      labels: {},
      annotations: {},
    })
  }
  const name = parseResourceName('machine_class', host.machineClass, 'host.machine_class')
  const row = await findClass(tx, name)
  if (row === undefined) throw classNotFound(name, 'host.machine_class')
  return row
}

async function specOfOrder(
  reads: OrderReads,
  host: hub.Host,
): Promise<{ readonly className: string; readonly classSpec: ClassSpec; readonly shape: Shape | null }> {
  if ((host.machineClass === '') === (host.shape === undefined)) {
    throw invalidField('host.machine_class', 'give either a machine_class or a shape, and not both')
  }
  if (host.machineClass === '') {
    const shape = fromShape(host.shape)
    if (shape.vcpus === 0 || shape.memoryMib === 0)
      throw invalidField('host.shape', 'give at least vcpus and memory_mib')
    return { className: nameForShape(shape), classSpec: specForShape(shape), shape }
  }
  const name = parseResourceName('machine_class', host.machineClass, 'host.machine_class')
  const row = await reads.machineClass(name)
  if (row === undefined) throw classNotFound(name, 'host.machine_class')
  return { className: name, classSpec: classSpecOf(row), shape: null }
}

function specForShape(shape: Shape): ClassSpec {
  return {
    shape,
    offerings: [],
    machineSelector: null,
    bootstrap: {
      phoneHome: false,
      phoneHomeTimeoutMs: defaultPhoneHomeTimeoutMs,
      provisionTimeoutMs: defaultProvisionTimeoutMs,
      userData: '',
    },
  }
}

async function askProvider(
  deps: ApiDeps,
  reads: OrderReads,
  order: Order,
  candidate: Candidate,
  what: {
    readonly className: string
    readonly classSpec: ClassSpec
    readonly providerData: JsonObject
    readonly labels: Labels
  },
): Promise<string[]> {
  const provider = await reads.provider(candidate.provider.name)
  if (provider === undefined) return []
  return checkWithProvider(
    deps,
    provider,
    {
      typeId: candidate.typeId,
      location: candidate.location,
      shape: what.classSpec.shape,
      providerData: layProviderData(candidate.providerData, what.providerData),
      hostname: order.host.hostname === '' ? order.id : order.host.hostname,
      hostName: hostName(order.workspace, order.id),
      workspace: order.workspace,
      machineClass: what.className,
      labels: what.labels,
    },
    'host.',
  )
}

function notOffered(className: string, judged: readonly Judged[]): HubError {
  const reasons = judged
    .slice(0, maxReasons)
    .map(({ candidate, rejected }) => `${describePlace(candidate)}: ${rejected?.message ?? ''}`)
  const why =
    reasons.length === 0 ? 'no provider that is known has an offering or a machine for it' : reasons.join('; ')
  return new HubError(
    'CLASS_NOT_OFFERED',
    `no provider offers machine class ${className} within what the order allows: ${why}. Add a provider, change the class's offerings, or widen the placement.`,
    {
      metadata: { machine_class: className },
      violations: [{ field: 'host.machine_class', description: `is not offered: ${why}` }],
    },
  )
}

function toCandidate({ candidate, chosen, rejected }: Judged): hub.PlacementCandidate {
  return create(hub.PlacementCandidateSchema, {
    provider: resourceName('provider', candidate.provider.name),
    typeId: candidate.typeId,
    location: candidate.location,
    machine: candidate.machine === null ? '' : resourceName('machine', candidate.machine.name),
    price: toPrice(candidate.price),
    chosen,
    rejectedReason: rejected?.reason ?? '',
    message: rejected?.message ?? '',
  })
}
