import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { HubError } from '../domain/error/errors.js'
import { quotaName, resourceName } from '../domain/names.js'
import { limitReason } from '../domain/quota/demand.js'
import type { Excess } from '../domain/quota/quota.js'
import type { ShownQuota } from '../store/quotas.js'
import { toTime } from './convert.js'

// Quotas between rows and protobuf, and what they refuse.

/** The refusal of an order that would break a limit. */
export function limitExceeded(excess: Excess): HubError {
  const { limit, message } = excess
  return new HubError(limitReason(excess), `${message}; release hosts, or have the quota raised`, {
    metadata: {
      quota: limit.quota,
      limit: limit.kind,
      maximum: String(limit.maximum),
      used: String(limit.used),
    },
  })
}

export function quotaNotFound(name: string, field = 'name'): HubError {
  const description = `there is no quota ${name}; \`slipway get quotas\` lists them`
  return new HubError('QUOTA_NOT_FOUND', description, {
    metadata: { quota: name },
    violations: [{ field, description }],
  })
}

const big = (value: number | null | undefined) => (value === null || value === undefined ? undefined : BigInt(value))

/** Fields that are set, and no others: protobuf tells absent from undefined. */
function present<T extends object>(fields: T): { [Key in keyof T]: Exclude<T[Key], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as never
}

export function toQuota(row: ShownQuota): hub.Quota {
  const { usage } = row
  return create(hub.QuotaSchema, {
    name: quotaName(row.organization_name, row.name),
    uid: row.id,
    displayName: row.display_name,
    workspace: row.workspace_name === null ? '' : resourceName('workspace', row.workspace_name),
    machineClass: row.class_name === '' ? '' : resourceName('machine_class', row.class_name),
    family: row.family,
    ...present({
      maxHosts: big(row.max_hosts),
      maxVcpus: big(row.max_vcpus),
      maxMemoryMib: big(row.max_memory_mib),
    }),
    ...(row.currency !== '' && {
      budget: create(hub.BudgetSchema, {
        currency: row.currency,
        ...present({
          maxHourlyMicros: big(row.max_hourly_micros),
          maxMonthlyMicros: big(row.max_monthly_micros),
        }),
      }),
    }),
    usage: create(
      hub.QuotaUsageSchema,
      present({
        hosts: big(usage.HOSTS),
        vcpus: big(usage.VCPUS),
        memoryMib: big(usage.MEMORY_MIB),
        hourlyMicros: big(usage.HOURLY_MICROS),
        monthlyMicros: big(usage.MONTHLY_MICROS),
      }),
    ),
    createTime: toTime(row.created_at),
    updateTime: toTime(row.updated_at),
    etag: String(row.version),
  })
}
