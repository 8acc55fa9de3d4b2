import { createHash } from 'node:crypto'
import { create } from '@bufbuild/protobuf'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import * as hub from '@slipway/proto/hub/v1'
import { HubError } from '../domain/error/errors.js'
import { toConditionReason } from '../domain/host/conditions.js'
import { narrowTo } from '../domain/host-set/domains.js'
import { hostName, hostSetName, resourceName } from '../domain/names.js'
import { memberName } from '../domain/host-set/member.js'
import type { MemberOrder, MemberOutcome, OrderMember } from '../store/member-orders.js'
import { hubCause } from '../store/events.js'
import { holdMemberGuard } from '../store/host-set-reconcile.js'
import { claimFirst } from './claiming.js'
import type { ApiDeps } from './context.js'
import { toObject, toPlacement, toShape } from './convert.js'
import { workspaceNotFound } from './not-found.js'
import { OrderLog } from './order-log.js'
import { OrderReads } from './order-reads.js'
import { checkOrder, classOfOrder } from './order.js'

/** What a member is ordered as. */
export function memberOf(
  set: Pick<MemberOrder['set'], 'template' | 'spread'>,
  domain: string,
  userData: string,
): hub.Host {
  const { template } = set
  return create(hub.HostSchema, {
    machineClass: template.className === '' ? '' : resourceName('machine_class', template.className),
    ...(template.shape !== null && { shape: toShape(template.shape) }),
    placement: toPlacement(narrowTo(template.placement, set.spread, domain)),
    providerData: toObject(template.providerData),
    userData,
    labels: { ...template.labels },
    annotations: { ...template.annotations },
    protected: template.protected,
    sshPublicKeys: [...(template.sshPublicKeys ?? [])],
    ...(template.lifetimeMs !== null && { lifetime: durationFromMs(template.lifetimeMs) }),
  })
}

/** Orders members of sets by the same way that people's orders take. */
export function memberOrders(deps: ApiDeps): OrderMember {
  const reads = new OrderReads(deps.db)
  const orders = new OrderLog(deps)
  return async (order) => {
    try {
      await place(deps, reads, orders, order)
      return { kind: 'ordered' }
    } catch (error) {
      return refusalOf(error)
    }
  }
}

function refusalOf(error: unknown): MemberOutcome {
  if (!(error instanceof HubError)) throw error
  if (error.reason === 'ETAG_MISMATCH') return { kind: 'stale' }
  return {
    kind: 'refused',
    reason: toConditionReason(error.reason),
    message: error.message,
    nameTaken: error.reason === 'NAME_TAKEN',
  }
}

async function place(deps: ApiDeps, reads: OrderReads, orders: OrderLog, order: MemberOrder): Promise<void> {
  const { set, ordinal } = order
  const id = memberName(set.name, ordinal)
  const [workspace, open] = await Promise.all([
    reads.workspace(set.workspace_name),
    reads.openPools(set.workspace_name),
  ])
  if (workspace === undefined) throw workspaceNotFound(set.workspace_name)
  const host = memberOf(set, order.domain, order.userData)
  const claimant = { id: workspace.id, organization_id: workspace.organizationId, name: workspace.name }
  const checked = await checkOrder(
    deps,
    reads,
    { workspace, id, host },
    { open, claim: (pools) => claimFirst(deps, hubCause, claimant, pools, `with an order of set ${set.name}`) },
  )
  const name = hostSetName(set.workspace_name, set.name)
  const fingerprint = createHash('sha256').update(`${set.id}/${ordinal}`).digest()
  await orders.submit({
    // The same number is the same host, whatever the template has become since: what was ordered once stays so.
    key: {
      scope: `hostset/${set.id} ${hub.HostService.typeName}/CreateHost`,
      key: String(ordinal),
      fingerprint,
      isOf: (stored) => stored.equals(fingerprint),
    },
    cause: hubCause,
    className: checked.className,
    classSpec: checked.classSpec,
    placement: checked.placement,
    workspace,
    estimate: checked.estimate,
    findClass: (tx) => classOfOrder(tx, host),
    toHost: (machineClass) => ({
      workspace,
      name: id,
      hostname: checked.hostname,
      classId: machineClass.id,
      className: machineClass.name,
      classSpec: checked.classSpec,
      shape: checked.shape,
      placement: checked.placement,
      providerData: checked.providerData,
      userData: order.userData,
      labels: checked.labels,
      annotations: set.template.annotations,
      protected: set.template.protected,
      // A set has no say of its own in whose turn it is.
      priority: workspace.range.priority,
      createdBy: name,
      sshPublicKeys: set.template.sshPublicKeys ?? [],
      member: { setId: set.id, setName: set.name, ordinal, revision: set.template_revision, domain: order.domain },
      ...(checked.expiry !== undefined && { expiry: checked.expiry }),
    }),
    toEvent: (row) => ({
      subject: hostName(row.workspace_name, row.name),
      related: [name],
      reason: 'HostOrdered',
      message: `Ordered as ${row.class_name} by its set ${set.name}`,
      severity: 'INFO',
      organizationId: row.organization_id,
    }),
    toAnswer: (row) => Buffer.from(row.id),
    nameTaken: () => new HubError('NAME_TAKEN', `${id} is in use in this workspace by a host that is not of this set`),
    guard: async (tx) =>
      (await holdMemberGuard(tx, order.guard))
        ? undefined
        : new HubError('ETAG_MISMATCH', `host set ${set.name} has changed since`),
  })
}
