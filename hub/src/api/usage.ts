import { create } from '@bufbuild/protobuf'
import { durationFromMs, timestampFromDate } from '@bufbuild/protobuf/wkt'
import type { ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { invalidField, HubError } from '../domain/error/errors.js'
import { hostName, parseScopeName, resourceName } from '../domain/names.js'
import { usageRecords, type UsageRecord } from '../domain/price/usage.js'
import { inSnapshot } from '../store/database.js'
import { databaseNow } from '../store/host-reconcile.js'
import { findUsageScope, listUsageHosts, readUsage, type UsageHost } from '../store/usage.js'
import { databaseOf, decodePageToken, encodePageToken, pageSize, type ApiDeps } from './context.js'
import { fromTime, toPrice } from './convert.js'
import { organizationNotFound, workspaceNotFound } from './not-found.js'

/** What was used: read from the ledger, and reckoned anew each time. */
export function usageService(deps: ApiDeps): ServiceImpl<typeof hub.UsageService> {
  return {
    async listUsage(request, context) {
      const name = parseScopeName(request.parent)
      const from = fromTime(request.startTime) ?? null
      const end = fromTime(request.endTime)
      if (from !== null && end !== undefined && end <= from)
        throw invalidField('end_time', 'must be later than start_time')
      const list = JSON.stringify(['usage', request.parent, from, end ?? null])
      const after = decodePageToken(deps, request.pageToken, list)
      return inSnapshot(databaseOf(deps, context), async (tx) => {
        const scope = await findUsageScope(tx, name)
        if (scope === undefined) throw absent(name)
        // Time goes on between two pages: all of them end where the first one did.
        const now = after === undefined ? await databaseNow(tx) : timeOf(after[3])
        const span = { from, to: end === undefined || end > now ? now : end }
        const size = pageSize(request.pageSize)
        const hosts = await listUsageHosts(tx, scope, span, hostOf(after), size + 1)
        const page = hosts.slice(0, size)
        const usage = await readUsage(
          tx,
          scope.organizationId,
          page.map(({ hostId }) => hostId),
          span,
        )
        const last = page.at(-1)
        return {
          records: page.flatMap((host) =>
            usageRecords(usage.get(host.hostId) ?? [], span.from, span.to).map((record) => toRecord(host, record)),
          ),
          nextPageToken:
            hosts.length > size && last !== undefined
              ? encodePageToken(deps, [last.workspaceName, last.hostName, last.hostId, now.getTime()], list)
              : '',
          endTime: timestampFromDate(span.to),
        }
      })
    },
  }
}

function absent({ organization, workspace }: { organization: string | null; workspace: string | null }): HubError {
  if (workspace !== null) return workspaceNotFound(workspace)
  return organization === null
    ? invalidField('parent', 'must be organizations/{id} or workspaces/{id}')
    : organizationNotFound(organization)
}

function hostOf(after: readonly (string | number)[] | undefined): UsageHost | undefined {
  if (after === undefined) return undefined
  const [workspaceName, hostName, hostId] = after.map(String)
  if (!/^[0-9a-f-]{36}$/.test(hostId ?? '')) throw damagedToken()
  return { workspaceName: workspaceName ?? '', hostName: hostName ?? '', hostId: hostId ?? '' }
}

function timeOf(part: string | number | undefined): Date {
  const time = new Date(Number(part))
  if (Number.isNaN(time.getTime())) throw damagedToken()
  return time
}

function damagedToken(): HubError {
  const description = 'is damaged; give it as next_page_token was, or start over'
  return new HubError('INVALID_PAGE_TOKEN', `page_token: ${description}`, {
    violations: [{ field: 'page_token', description }],
  })
}

function toRecord(host: UsageHost, record: UsageRecord): hub.UsageRecord {
  return create(hub.UsageRecordSchema, {
    host: hostName(host.workspaceName, host.hostName),
    hostUid: host.hostId,
    machineClass: resourceName('machine_class', record.className),
    provider: resourceName('provider', record.providerName),
    month: timestampFromDate(record.month),
    startTime: timestampFromDate(record.startedAt),
    endTime: timestampFromDate(record.endedAt),
    allocated: durationFromMs(record.allocatedMs),
    billable: durationFromMs(record.billableMs),
    poweredOn: durationFromMs(record.poweredOnMs),
    price: toPrice(record.price),
    amountMicros: BigInt(record.amountMicros),
    setupMicros: BigInt(record.setupMicros),
  })
}
