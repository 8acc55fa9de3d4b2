import { create } from '@bufbuild/protobuf'
import { durationFromMs, durationMs } from '@bufbuild/protobuf/wkt'
import * as hub from '@slipway/proto/hub/v1'
import { orphanName, resourceName } from '../domain/names.js'
import { defaultOrphanPolicy, type KeepReason, type OrphanMode, type OrphanPolicy } from '../domain/orphan/orphan.js'
import { orphanStateOf, type OrphanState, type ShownOrphan } from '../store/orphans.js'
import type { ProviderRow } from '../store/tables.js'
import { nameOf, toAddresses, toLastError, toPower, toTime } from './convert.js'

// Orphans, and what becomes of them, between protobuf and the domain.

type OrphanPolicyColumns = Pick<
  ProviderRow,
  'orphan_mode' | 'orphan_min_age_ms' | 'orphan_max_per_pass' | 'orphan_max_percent'
>

export const orphanStateNumbers: Readonly<Record<OrphanState, hub.OrphanState>> = {
  KEPT: hub.OrphanState.KEPT,
  REMOVING: hub.OrphanState.REMOVING,
  REMOVED: hub.OrphanState.REMOVED,
}

export const orphanKeepReasonNumbers: Readonly<Record<KeepReason, hub.OrphanKeepReason>> = {
  FOREIGN_HUB: hub.OrphanKeepReason.FOREIGN_HUB,
  KEY_UNREADABLE: hub.OrphanKeepReason.KEY_UNREADABLE,
  REQUEST_LIVE: hub.OrphanKeepReason.REQUEST_LIVE,
  ADOPTION: hub.OrphanKeepReason.ADOPTION,
  KEPT_BY_PERSON: hub.OrphanKeepReason.KEPT_BY_PERSON,
  REMOVAL_UNSUPPORTED: hub.OrphanKeepReason.REMOVAL_UNSUPPORTED,
  POLICY_REPORTS: hub.OrphanKeepReason.POLICY_REPORTS,
  RESTORED: hub.OrphanKeepReason.RESTORED,
  CREATE_IN_FLIGHT: hub.OrphanKeepReason.CREATE_IN_FLIGHT,
  NOT_LISTED: hub.OrphanKeepReason.NOT_LISTED,
  SEEN_ONCE: hub.OrphanKeepReason.SEEN_ONCE,
  TOO_YOUNG: hub.OrphanKeepReason.TOO_YOUNG,
  REFUSED: hub.OrphanKeepReason.REFUSED,
  REMOVAL_STOPPED: hub.OrphanKeepReason.REMOVAL_STOPPED,
  LIMIT_REACHED: hub.OrphanKeepReason.LIMIT_REACHED,
}

const orphanModeNumbers: Readonly<Record<OrphanMode, hub.OrphanMode>> = {
  REPORT: hub.OrphanMode.REPORT,
  REMOVE: hub.OrphanMode.REMOVE,
}

/** What a policy leaves out is the default. */
export function fromOrphanPolicy(policy: hub.OrphanPolicy | undefined): OrphanPolicy {
  const { mode, minAgeMs, maxPerPass, maxPercent } = defaultOrphanPolicy
  return {
    mode: nameOf(orphanModeNumbers, policy?.mode ?? 0) ?? mode,
    minAgeMs: policy?.minAge === undefined ? minAgeMs : Math.round(durationMs(policy.minAge)),
    maxPerPass: policy?.maxPerPass || maxPerPass,
    maxPercent: policy?.maxPercent || maxPercent,
  }
}

export function toOrphanPolicy(row: Partial<OrphanPolicyColumns>): hub.OrphanPolicy {
  // Changes from before there was a policy lack the columns.
  return create(hub.OrphanPolicySchema, {
    mode: orphanModeNumbers[row.orphan_mode ?? defaultOrphanPolicy.mode],
    minAge: durationFromMs(row.orphan_min_age_ms ?? defaultOrphanPolicy.minAgeMs),
    maxPerPass: row.orphan_max_per_pass ?? defaultOrphanPolicy.maxPerPass,
    maxPercent: row.orphan_max_percent ?? defaultOrphanPolicy.maxPercent,
  })
}

export function toOrphan(row: ShownOrphan): hub.Orphan {
  return create(hub.OrphanSchema, {
    name: orphanName(row.provider_name, row.name),
    uid: row.id,
    provider: resourceName('provider', row.provider_name),
    kind: row.kind,
    externalId: row.external_id,
    externalName: row.external_name,
    ownershipKey: row.ownership_key,
    machineRequest: row.request_name === null ? '' : resourceName('machine_request', row.request_name),
    state: orphanStateNumbers[orphanStateOf(row)],
    keepReason: row.keep_reason === null ? hub.OrphanKeepReason.UNSPECIFIED : orphanKeepReasonNumbers[row.keep_reason],
    keepMessage: row.keep_message,
    sightings: row.sightings,
    firstSeenTime: toTime(row.first_seen_at),
    lastSeenTime: toTime(row.last_seen_at),
    power: toPower(row.power),
    addresses: toAddresses(row.addresses),
    removalOrderTime: toTime(row.removal_ordered_at),
    removalOrderedBy: row.removal_ordered_by ?? '',
    removalAttempts: row.removal_attempts,
    removalNextTime: toTime(row.removal_due_at),
    lastError: toLastError(row.last_error),
    keptBy: row.kept_by ?? '',
    keptFor: row.kept_for,
    updateTime: toTime(row.updated_at),
    etag: String(row.version),
  })
}
