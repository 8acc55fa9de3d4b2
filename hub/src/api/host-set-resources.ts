import { create } from '@bufbuild/protobuf'
import { durationFromMs, durationMs } from '@bufbuild/protobuf/wkt'
import * as hub from '@slipway/proto/hub/v1'
import { invalidField } from '../domain/error/errors.js'
import type { HostSetState, HostTemplate, Spread } from '../domain/host-set/host-set.js'
import { checkSshKeys } from '../domain/host/ssh-keys.js'
import { hostSetName, parseResourceName, resourceName } from '../domain/names.js'
import type { HostSetSpec } from '../store/host-sets.js'
import type { HostSetRow } from '../store/tables.js'
import {
  checkedLabels,
  fromObject,
  fromPlacement,
  fromShape,
  nameOf,
  toConditions,
  toObject,
  toPlacement,
  toShape,
  toTime,
} from './convert.js'

// Host sets between rows and protobuf.

const spreadNumbers: Readonly<Record<Spread, hub.Spread>> = {
  NONE: hub.Spread.NONE,
  PROVIDER: hub.Spread.PROVIDER,
  LOCATION: hub.Spread.LOCATION,
  FAILURE_DOMAIN: hub.Spread.FAILURE_DOMAIN,
}
const stateNumbers: Readonly<Record<HostSetState, hub.HostSetState>> = {
  PROGRESSING: hub.HostSetState.PROGRESSING,
  READY: hub.HostSetState.READY,
  DEGRADED: hub.HostSetState.DEGRADED,
  PAUSED: hub.HostSetState.PAUSED,
  DELETING: hub.HostSetState.DELETING,
}

const defaults = { maxSurge: 1, maxUnavailable: 0, progressDeadlineMs: 3_600_000, maxRepairs: 1, maxUnhealthy: 100 }

export function toHostSet(row: HostSetRow): hub.HostSet {
  return create(hub.HostSetSchema, {
    name: hostSetName(row.workspace_name, row.name),
    uid: row.id,
    replicas: row.replicas,
    template: toTemplate(row.template),
    spread: spreadNumbers[row.spread],
    rollout: {
      maxSurge: row.max_surge,
      maxUnavailable: row.max_unavailable,
      progressDeadline: durationFromMs(row.progress_deadline_ms),
    },
    repair: { maxAtOnce: row.max_repairs, maxUnhealthyPercent: row.max_unhealthy_percent },
    labels: { ...row.labels },
    annotations: { ...row.annotations },
    state: stateNumbers[row.state],
    stateMessage: row.state_message,
    conditions: toConditions(row.conditions),
    currentReplicas: row.counts.current ?? 0,
    readyReplicas: row.counts.ready ?? 0,
    updatedReplicas: row.counts.updated ?? 0,
    unhealthyReplicas: row.counts.unhealthy ?? 0,
    releasingReplicas: row.counts.releasing ?? 0,
    templateRevision: BigInt(row.template_revision),
    paused: row.pause_reason !== null,
    pauseReason: row.pause_reason ?? '',
    refusedOrders: row.refused_orders,
    nextOrderTime: toTime(row.next_order_at),
    createTime: toTime(row.created_at),
    updateTime: toTime(row.updated_at),
    deleteTime: toTime(row.delete_requested_at),
    etag: String(row.version),
  })
}

export function toTemplate(template: HostTemplate): hub.HostTemplate {
  return create(hub.HostTemplateSchema, {
    machineClass: template.className === '' ? '' : resourceName('machine_class', template.className),
    ...(template.shape !== null && { shape: toShape(template.shape) }),
    placement: toPlacement(template.placement),
    providerData: toObject(template.providerData),
    labels: { ...template.labels },
    annotations: { ...template.annotations },
    protected: template.protected,
    sshPublicKeys: [...(template.sshPublicKeys ?? [])],
    ...(template.lifetimeMs !== null && { lifetime: durationFromMs(template.lifetimeMs) }),
  })
}

/** @throws HubError INVALID_FIELD. */
function fromTemplate(template: hub.HostTemplate): HostTemplate {
  if ((template.machineClass === '') === (template.shape === undefined))
    throw invalidField('host_set.template.machine_class', 'give either a machine_class or a shape, and not both')
  checkSshKeys(template.sshPublicKeys, 'host_set.template.ssh_public_keys')
  return {
    className:
      template.machineClass === ''
        ? ''
        : parseResourceName('machine_class', template.machineClass, 'host_set.template.machine_class'),
    shape: template.shape === undefined ? null : fromShape(template.shape),
    placement: fromPlacement(template.placement, 'host_set.template.placement'),
    providerData: fromObject(template.providerData),
    labels: checkedLabels(template.labels, 'host_set.template.labels'),
    annotations: template.annotations,
    protected: template.protected,
    lifetimeMs: template.lifetime === undefined ? null : durationMs(template.lifetime),
    ...(template.sshPublicKeys.length > 0 && { sshPublicKeys: template.sshPublicKeys }),
  }
}

/** What a set is wanted to be, with what is not said filled in. @throws HubError INVALID_FIELD. */
export function fromHostSet(given: hub.HostSet): HostSetSpec {
  const { rollout, repair } = given
  const maxSurge = rollout?.maxSurge ?? defaults.maxSurge
  const maxUnavailable = rollout?.maxUnavailable ?? defaults.maxUnavailable
  if (maxSurge === 0 && maxUnavailable === 0)
    throw invalidField(
      'host_set.rollout.max_surge',
      'is 0, as is max_unavailable: members could not be replaced; raise one of them',
    )
  return {
    replicas: given.replicas,
    template: fromTemplate(given.template ?? create(hub.HostTemplateSchema)),
    spread: nameOf(spreadNumbers, given.spread) ?? 'NONE',
    maxSurge,
    maxUnavailable,
    progressDeadlineMs:
      rollout?.progressDeadline === undefined ? defaults.progressDeadlineMs : durationMs(rollout.progressDeadline),
    maxRepairs: repair?.maxAtOnce ?? defaults.maxRepairs,
    maxUnhealthyPercent: repair?.maxUnhealthyPercent ?? defaults.maxUnhealthy,
    labels: checkedLabels(given.labels, 'host_set.labels'),
    annotations: given.annotations,
  }
}
