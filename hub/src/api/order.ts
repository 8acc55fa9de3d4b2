import { create } from '@bufbuild/protobuf'
import { durationMs } from '@bufbuild/protobuf/wkt'
import * as hub from '@slipway/proto/hub/v1'
import { HubError, invalidField } from '../domain/error/errors.js'
import type { JsonObject, Labels, Shape } from '../domain/facts.js'
import {
  defaultPhoneHomeTimeoutMs,
  defaultProvisionTimeoutMs,
  type ClassSpec,
  type PlacementWish,
} from '../domain/host/host.js'
import { checkHostname } from '../domain/host/hostname.js'
import { checkSshKeys } from '../domain/host/ssh-keys.js'
import { hostName, parseResourceName, resourceName } from '../domain/names.js'
import {
  describePlace,
  judgePlacement,
  layProviderData,
  mayWait,
  type Candidate,
  type Judged,
} from '../domain/placement/placement.js'
import type { Company } from '../domain/placement/company.js'
import { explainPlacement, type OrderStanding } from '../domain/placement/criteria.js'
import { pricedFor } from '../domain/placement/priced.js'
import { demandOf, limitReason, placeOf } from '../domain/quota/demand.js'
import type { Pool } from '../domain/pool/pool.js'
import type { Demand } from '../domain/quota/quota.js'
import type { Tx } from '../store/database.js'
import type { NewExpiry, WorkspaceKey } from '../store/hosts.js'
import type { LimitBook } from '../store/limit-book.js'
import type { OpenPools } from '../store/pools.js'
import { classSpecOf, ensureClassForShape, findClass, nameForShape } from '../store/machine-classes.js'
import type { MachineClassRow } from '../store/tables.js'
import { poolsFor } from './claiming.js'
import type { ApiDeps } from './context.js'
import type { OrderReads } from './order-reads.js'
import { checkedLabels, fromObject, fromPlacement, fromShape, fromTime, toPrice } from './convert.js'
import { classNotFound } from './machine-classes.js'
import { checkWithProvider } from './provider-check.js'
import { limitExceeded } from './quota-resources.js'

const maxReasons = 10

export interface OrderCheck {
  /** Where it would be placed, now or later, for quotas and budgets; null: nobody knows. */
  readonly estimate: Demand['place']
  readonly className: string
  readonly hostname: string
  readonly classSpec: ClassSpec
  readonly shape: Shape | null
  readonly placement: PlacementWish
  readonly providerData: JsonObject
  readonly labels: Labels
  /** Every place, and why it was chosen or not. */
  readonly candidates: () => hub.PlacementCandidate[]
  readonly expiry: NewExpiry | undefined
  readonly warnings: string[]
}

interface Order {
  readonly workspace: WorkspaceKey
  readonly id: string
  readonly host: hub.Host
  /** Where it was asked for beforehand. */
  readonly spec?: Promise<SpecOfOrder>
}

/** What an order is for: its class, or the shape that it gives. */
interface SpecOfOrder {
  readonly className: string
  readonly classSpec: ClassSpec
  readonly shape: Shape | null
}

/**
 * Checks an order before anything of it is stored: class, places, provider data against the provider's schema, and the provider's own opinion.
 *
 * @throws HubError CLASS_NOT_FOUND, CLASS_NOT_OFFERED, QUOTA_EXCEEDED, BUDGET_EXCEEDED, PROVIDER_DATA_INVALID, INVALID_FIELD.
 */
export async function checkOrder(
  deps: ApiDeps,
  reads: OrderReads,
  order: Order,
  pooling: Pooling,
): Promise<OrderCheck> {
  const { host } = order
  const labels = checkedLabels(host.labels, 'host.labels')
  checkHostname(host.hostname === '' ? order.id : host.hostname, host.hostname === '' ? 'host_id' : 'host.hostname')
  checkSshKeys(host.sshPublicKeys, 'host.ssh_public_keys')
  const placement = fromPlacement(host.placement, 'host.placement')
  const expiry = expiryOf(host, 'host.')
  const { className, classSpec, shape } = await (order.spec ?? specOfOrder(reads, host))
  const pools = await drawOn(pooling, classSpec, placement)
  const orderer = {
    organizationId: order.workspace.organizationId,
    workspaceId: order.workspace.id,
    ...(pools.would.length > 0 && { openPoolIds: pools.would.map(({ id }) => id) }),
  }
  const [found, limits, pricing, company] = await Promise.all([
    reads.candidates(orderer, classSpec, placement),
    reads.limits(order.workspace),
    reads.pricing(order.workspace.organizationId),
    reads.company({ workspaceName: order.workspace.name, hostSetId: null, labels }, placement),
  ])
  const candidates = pricedFor(found, pricing, className)
  const providerData = fromObject(host.providerData)
  const what = { className, classSpec, placement, providerData, ...(company !== undefined && { company }) }
  const judged = judgeWithin(limits, order.workspace, what, candidates)
  if (!mayWait(judged)) throw notOffered(className, judged, pools.exhausted)
  const warnings = pools.would.map(({ name }) => `The order would claim a provider of pool ${name}.`)
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
    if (chosen.candidate.machine?.contested === true)
      warnings.push('Hosts wait for machines already; the order would take its turn.')
  }
  return {
    // Where nothing can be had right now, what may do later tells what it is likely to cost.
    estimate: chosen === undefined ? null : placeOf(chosen.candidate),
    className,
    hostname: host.hostname === '' ? order.id : host.hostname,
    classSpec,
    shape,
    placement,
    providerData,
    labels,
    expiry,
    candidates: () => toCandidates(judged, what),
    warnings,
  }
}

/** When a host is to end; undefined: nothing is said of it. @throws HubError INVALID_FIELD. */
export function expiryOf(host: hub.Host, field: string): NewExpiry | undefined {
  const at = fromTime(host.expireTime)
  if (at !== undefined && host.lifetime !== undefined)
    throw invalidField(`${field}lifetime`, 'give either an expire_time or a lifetime, and not both')
  if (host.lifetime !== undefined) return { lifetimeMs: durationMs(host.lifetime) }
  if (at === undefined) return undefined
  if (at.getTime() <= Date.now()) throw invalidField(`${field}expire_time`, 'lies in the past; give a time to come')
  return { at }
}

/** What of pools may come to an order. */
export interface Pooling {
  readonly open: OpenPools | undefined
  /** Claims of the first of them that has anything left. Absent: the order is only looked at. */
  readonly claim: ((pools: readonly Pool[]) => Promise<Pool | undefined>) | undefined
}

/** Has a workspace claim what its order needs; or says what it would. */
async function drawOn(
  { open, claim }: Pooling,
  spec: ClassSpec,
  placement: PlacementWish,
): Promise<{ readonly would: readonly Pool[]; readonly exhausted: readonly Pool[] }> {
  if (open === undefined) return { would: [], exhausted: [] }
  const pools = poolsFor(open, { families: familiesOf(spec, placement), regions: placement.regions ?? [] })
  if (pools.length === 0) return { would: [], exhausted: [] }
  if (claim === undefined)
    return { would: pools.filter(({ free }) => free).slice(0, 1), exhausted: pools.filter(({ free }) => !free) }
  const claimed = await claim(pools)
  return { would: [], exhausted: claimed === undefined ? pools : [] }
}

/** Families that could serve an order; undefined: any. */
function familiesOf(spec: ClassSpec, placement: PlacementWish): ReadonlySet<string> | undefined {
  if (placement.families.length > 0) return new Set(placement.families)
  // A selector over machines, or no offerings at all, leaves it open.
  if (spec.machineSelector !== null || spec.offerings.length === 0) return undefined
  return spec.offerings.some(({ family, provider }) => family === '' && provider !== '')
    ? undefined
    : new Set(spec.offerings.map(({ family }) => family))
}

/** Judges places, within what limits allow. @throws HubError QUOTA_EXCEEDED, BUDGET_EXCEEDED where nothing else keeps places from being taken. */
function judgeWithin(
  limits: LimitBook,
  workspace: WorkspaceKey,
  what: {
    readonly className: string
    readonly classSpec: ClassSpec
    readonly placement: PlacementWish
    readonly providerData: JsonObject
    readonly company?: readonly Company[]
  },
  candidates: readonly Candidate[],
): readonly Judged[] {
  const { className, classSpec, ...wish } = what
  const order = { shape: classSpec.shape, ...wish }
  if (limits.isEmpty) return judgePlacement(order, candidates)
  const { organizationId, id: workspaceId } = workspace
  const excessAt = (candidate: Candidate) =>
    limits.excess(demandOf({ organizationId, workspaceId, className, classSpec }, placeOf(candidate)))
  const excess = (candidate: Candidate) => {
    const found = excessAt(candidate)
    return found && { reason: limitReason(found), message: found.message }
  }
  const judged = judgePlacement({ ...order, excess }, candidates)
  if (judged[0]?.chosen === true) return judged
  const limited = judged.find(
    ({ rejected }) => rejected?.reason === 'QUOTA_EXCEEDED' || rejected?.reason === 'BUDGET_EXCEEDED',
  )
  const found = limited && excessAt(limited.candidate)
  if (found !== undefined) throw limitExceeded(found)
  return judged
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

/** The class that a server in use counts for: the one that is named, or one for the shape that it has. */
export async function classForAdoption(
  tx: Tx,
  named: string,
  has: Shape | undefined,
): Promise<{
  readonly className: string
  readonly classId: string
  readonly classSpec: ClassSpec
  readonly shape: Shape | null
}> {
  if (named !== '') {
    const name = parseResourceName('machine_class', named, 'machine_class')
    const row = await findClass(tx, name)
    if (row === undefined) throw classNotFound(name, 'machine_class')
    return { className: name, classId: row.id, classSpec: classSpecOf(row), shape: null }
  }
  if (has === undefined) throw invalidField('machine_class', 'name one: its provider does not say what the machine has')
  const row = await ensureClassForShape(tx, nameForShape(has), {
    displayName: 'Made for orders that give a shape',
    spec: specForShape(has),
    labels: {},
    annotations: {},
  })
  return { className: row.name, classId: row.id, classSpec: classSpecOf(row), shape: has }
}

/** @throws HubError INVALID_FIELD, CLASS_NOT_FOUND. */
export async function specOfOrder(reads: OrderReads, host: hub.Host): Promise<SpecOfOrder> {
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
  // Its name is unique, and whoever orders may use it: it was among the places.
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
      hostName: hostName(order.workspace.name, order.id),
      workspace: order.workspace.name,
      machineClass: what.className,
      labels: what.labels,
      sshPublicKeys: order.host.sshPublicKeys,
    },
    'host.',
  )
}

function notOffered(className: string, judged: readonly Judged[], exhausted: readonly Pool[]): HubError {
  const reasons = [
    ...exhausted.map(({ name }) => `pool ${name} has no provider left`),
    ...judged
      .slice(0, maxReasons)
      .map(({ candidate, rejected }) => `${describePlace(candidate)}: ${rejected?.message ?? ''}`),
  ]
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

function toCandidates(judged: readonly Judged[], order: OrderStanding): hub.PlacementCandidate[] {
  const why = explainPlacement(judged, order)
  return judged.map((place, index) => toCandidate(place, why[index] ?? ''))
}

function toCandidate({ candidate, chosen, rejected }: Judged, message: string): hub.PlacementCandidate {
  return create(hub.PlacementCandidateSchema, {
    provider: resourceName('provider', candidate.provider.name),
    typeId: candidate.typeId,
    location: candidate.location,
    machine: candidate.machine === null ? '' : resourceName('machine', candidate.machine.name),
    price: toPrice(candidate.price),
    chosen,
    rejectedReason: rejected?.reason ?? '',
    message,
  })
}
