import { create } from '@bufbuild/protobuf'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { HubError, invalidField } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { parseQuotaName, parseResourceName, quotaName } from '../domain/names.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import { findWorkspaces } from '../store/hosts.js'
import {
  deleteQuota,
  findQuota,
  insertQuota,
  listQuotas,
  lockQuota,
  updateQuota,
  type QuotaMaxima,
} from '../store/quotas.js'
import type { ShownQuota } from '../store/quotas.js'
import { findOrganization } from '../store/tenancy.js'
import {
  causeOf,
  checkEtag,
  createOnce,
  databaseOf,
  decodePageToken,
  maskedPaths,
  pageSize,
  readPage,
  scopesOfCall,
  tryOut,
  type ApiDeps,
} from './context.js'
import { organizationNotFound } from './not-found.js'
import { immutable } from './provider-change.js'
import { quotaNotFound, toQuota } from './quota-resources.js'

const mutable = ['display_name', 'max_hosts', 'max_vcpus', 'max_memory_mib', 'budget'] as const

function event(row: ShownQuota, reason: EventDraft['reason'], message: string): EventDraft {
  return {
    subject: quotaName(row.organization_name, row.name),
    reason,
    message,
    severity: 'INFO',
    organizationId: row.organization_id,
  }
}

const optional = (value: bigint | undefined) => (value === undefined ? null : Number(value))

/** @throws HubError INVALID_FIELD. */
function maximaOf(given: hub.Quota): QuotaMaxima {
  const { budget } = given
  if (budget !== undefined && budget.maxHourlyMicros === undefined && budget.maxMonthlyMicros === undefined)
    throw invalidField('quota.budget', 'give max_hourly_micros, max_monthly_micros, or both')
  const maxima = {
    max_hosts: optional(given.maxHosts),
    max_vcpus: optional(given.maxVcpus),
    max_memory_mib: optional(given.maxMemoryMib),
    currency: budget?.currency ?? '',
    max_hourly_micros: optional(budget?.maxHourlyMicros),
    max_monthly_micros: optional(budget?.maxMonthlyMicros),
  }
  if (Object.values(maxima).every((value) => value === null || value === ''))
    throw invalidField('quota', 'limits nothing; give max_hosts, max_vcpus, max_memory_mib or a budget')
  return maxima
}

/** Where a new quota is kept, and which hosts it is about. @throws HubError */
async function scopeOf(tx: Tx, organization: string, given: hub.Quota) {
  const organizationId = (await findOrganization(tx, organization))?.id
  if (organizationId === undefined) throw organizationNotFound(organization)
  const className =
    given.machineClass === '' ? '' : parseResourceName('machine_class', given.machineClass, 'quota.machine_class')
  if (given.workspace === '') return { organizationId, workspace: undefined, className }
  const name = parseResourceName('workspace', given.workspace, 'quota.workspace')
  const [workspace] = await findWorkspaces(tx, [name])
  if (workspace?.organizationId !== organizationId)
    throw new HubError('WORKSPACE_NOT_FOUND', `there is no workspace ${name} in organization ${organization}`, {
      metadata: { workspace: name },
      violations: [{ field: 'quota.workspace', description: `is not one of organization ${organization}` }],
    })
  return { organizationId, workspace, className }
}

async function createQuota(
  deps: ApiDeps,
  request: hub.CreateQuotaRequest,
  context: HandlerContext,
): Promise<hub.CreateQuotaResponse> {
  const organization = parseResourceName('organization', request.parent, 'parent')
  const given = request.quota ?? create(hub.QuotaSchema)
  const maxima = maximaOf(given)
  const work = async (tx: Tx) => {
    const scope = await scopeOf(tx, organization, given)
    if ((await findQuota(tx, organization, request.quotaId)) !== undefined)
      throw new HubError('NAME_TAKEN', `quota_id: ${request.quotaId} is in use; choose another name`, {
        violations: [{ field: 'quota_id', description: 'is in use; choose another name' }],
      })
    const row = await insertQuota(tx, {
      ...maxima,
      ...scope,
      organizationName: organization,
      name: request.quotaId,
      displayName: given.displayName,
      family: given.family,
    })
    await appendEvents(tx, causeOf(context), [event(row, 'QuotaCreated', 'Made')])
    return create(hub.CreateQuotaResponseSchema, { quota: toQuota(row) })
  }
  if (request.validateOnly) return tryOut(databaseOf(deps, context), work)
  return createOnce(deps, context, {
    requestId: request.requestId,
    request: { schema: hub.CreateQuotaRequestSchema, message: request },
    response: hub.CreateQuotaResponseSchema,
    wake: [],
    work,
  })
}

/** The quota with those fields of another that may change. @throws HubError FIELD_IMMUTABLE. */
function merged(current: hub.Quota, given: hub.Quota, paths: ReadonlySet<(typeof mutable)[number]>): hub.Quota {
  for (const field of ['workspace', 'machineClass', 'family'] as const)
    if (given[field] !== '' && given[field] !== current[field])
      throw immutable(`quota.${field === 'machineClass' ? 'machine_class' : field}`)
  const fields = create(hub.QuotaSchema, {
    displayName: paths.has('display_name') ? given.displayName : current.displayName,
  })
  const of = (path: (typeof mutable)[number]) => (paths.has(path) ? given : current)
  const [hosts, vcpus, memory] = [of('max_hosts').maxHosts, of('max_vcpus').maxVcpus, of('max_memory_mib').maxMemoryMib]
  if (hosts !== undefined) fields.maxHosts = hosts
  if (vcpus !== undefined) fields.maxVcpus = vcpus
  if (memory !== undefined) fields.maxMemoryMib = memory
  const { budget } = of('budget')
  if (budget !== undefined) fields.budget = budget
  return fields
}

async function changeQuota(
  deps: ApiDeps,
  request: hub.UpdateQuotaRequest,
  context: HandlerContext,
): Promise<hub.UpdateQuotaResponse> {
  const given = request.quota ?? create(hub.QuotaSchema)
  const { organization, id } = parseQuotaName(given.name, 'quota.name')
  const paths = maskedPaths(request.updateMask?.paths, mutable)
  const row = await inTransaction(databaseOf(deps, context), async (tx) => {
    const locked = await lockQuota(tx, organization, id)
    if (locked === undefined) throw quotaNotFound(given.name, 'quota.name')
    checkEtag(given.etag, locked, given.name)
    const wanted = merged(toQuota(locked), given, paths)
    const change = { ...maximaOf(wanted), display_name: wanted.displayName }
    if (request.validateOnly) return locked
    const updated = await updateQuota(tx, locked, change)
    if (updated.version !== locked.version)
      await appendEvents(tx, causeOf(context), [
        event(updated, 'QuotaUpdated', 'Changed; it ends nothing that is there'),
      ])
    return updated
  })
  // What waits for a quota may go on.
  deps.wake.signal({ kind: 'host' }, { kind: 'change' })
  return create(hub.UpdateQuotaResponseSchema, { quota: toQuota(row) })
}

export function quotaService(deps: ApiDeps): ServiceImpl<typeof hub.QuotaService> {
  return {
    createQuota: (request, context) => createQuota(deps, request, context),

    async getQuota(request, context) {
      const { organization, id } = parseQuotaName(request.name)
      const row = await findQuota(databaseOf(deps, context), organization, id)
      if (row === undefined) throw quotaNotFound(request.name)
      return { quota: toQuota(row) }
    },

    async listQuotas(request, context) {
      const organization = parseResourceName('organization', request.parent, 'parent')
      const list = JSON.stringify(['quotas', organization])
      const after = decodePageToken(deps, request.pageToken, list)
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) =>
          listQuotas(
            tx,
            { organization: organization === '-' ? undefined : organization, within: scopesOfCall(context) },
            after === undefined ? undefined : [String(after[0]), String(after[1])],
            limit,
          ),
        keyOf: (row) => [row.organization_name, row.name],
      })
      return { quotas: page.rows.map(toQuota), nextPageToken: page.nextPageToken }
    },

    updateQuota: (request, context) => changeQuota(deps, request, context),

    async deleteQuota(request, context) {
      const { organization, id } = parseQuotaName(request.name)
      await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockQuota(tx, organization, id)
        if (locked === undefined) {
          if (request.allowMissing) return
          throw quotaNotFound(request.name)
        }
        checkEtag(request.etag, locked, request.name)
        await deleteQuota(tx, locked)
        await appendEvents(tx, causeOf(context), [event(locked, 'QuotaDeleted', 'Deleted')])
      })
      deps.wake.signal({ kind: 'host' }, { kind: 'change' })
      return {}
    },
  }
}
