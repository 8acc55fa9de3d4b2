import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import type * as hub from '@slipway/proto/hub/v1'
import { HubError } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { parseHostName, parseResourceName, resourceName } from '../domain/names.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import { scheduleHost } from '../store/host-schedule.js'
import {
  findRequest,
  forgetRequest,
  hastenRequest,
  listRequests,
  lockRequest,
  readRequestDetails,
  type RequestListFilter,
} from '../store/machine-requests.js'
import type { MachineRequestRow } from '../store/tables.js'
import type { WakeTopic } from '../store/wake.js'
import { causeOf, databaseOf, decodePageToken, pageSize, readPage, scopesOfCall, type ApiDeps } from './context.js'
import { namesOf, requestStateNumbers } from './convert.js'
import { requestNotFound } from './not-found.js'
import { toMachineRequest } from './resources.js'
import { watchResources, type WatchParts } from './watch.js'

function filterOf(filter: hub.MachineRequestFilter | undefined): RequestListFilter {
  if (filter !== undefined && filter.host !== '') parseHostName(filter.host, 'filter.host')
  return {
    states: namesOf(requestStateNumbers, filter?.states ?? []),
    providers: (filter?.providers ?? []).map((name, index) =>
      parseResourceName('provider', name, `filter.providers[${index}]`),
    ),
    classes: (filter?.machineClasses ?? []).map((name, index) =>
      parseResourceName('machine_class', name, `filter.machine_classes[${index}]`),
    ),
    host: filter?.host ?? '',
    showGone: filter?.showGone ?? false,
  }
}

function event(
  row: MachineRequestRow,
  reason: EventDraft['reason'],
  message: string,
  severity: EventDraft['severity'],
): EventDraft {
  return {
    subject: resourceName('machine_request', row.name),
    related: [row.host_name, resourceName('provider', row.provider_name)],
    reason,
    message,
    severity,
    providerId: row.provider_id,
    organizationId: row.organization_id,
  }
}

export function machineRequestService(deps: ApiDeps, parts: WatchParts): ServiceImpl<typeof hub.MachineRequestService> {
  const detailed = async (rows: readonly MachineRequestRow[]): Promise<hub.MachineRequest[]> => {
    const details = await readRequestDetails(deps.db, rows)
    return rows.map((row) => toMachineRequest(row, details.get(row.id)))
  }
  const withRequest = async (
    context: HandlerContext,
    resource: string,
    work: (tx: Tx, row: MachineRequestRow, wake: WakeTopic[]) => Promise<void>,
  ) => {
    const name = parseResourceName('machine_request', resource)
    const wake: WakeTopic[] = [{ kind: 'change' }, { kind: 'host' }]
    const row = await inTransaction(
      databaseOf(deps, context),
      async (tx) => {
        const locked = await lockRequest(tx, name)
        if (locked === undefined) throw requestNotFound(name)
        if (locked.state === 'GONE')
          throw new HubError('REQUEST_STATE_FORBIDS', `machine request ${name} is GONE already; nothing is left to do`)
        await work(tx, locked, wake)
        return (await findRequest(tx, name)) ?? locked
      },
      'order',
    )
    deps.wake.signal({ kind: 'work', providerId: row.provider_id }, ...wake)
    return { machineRequest: (await detailed([row]))[0] }
  }
  return {
    async getMachineRequest(request, context) {
      const name = parseResourceName('machine_request', request.name)
      const row = await findRequest(databaseOf(deps, context), name)
      if (row === undefined) throw requestNotFound(name)
      return { machineRequest: (await detailed([row]))[0] }
    },

    async listMachineRequests(request, context) {
      const filter = { ...filterOf(request.filter), within: scopesOfCall(context) }
      const list = JSON.stringify(['machineRequests', filter])
      const after = decodePageToken(deps, request.pageToken, list)
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) => listRequests(tx, filter, String(after?.[0] ?? ''), limit),
        keyOf: (row) => [row.id],
      })
      return { machineRequests: await detailed(page.rows), nextPageToken: page.nextPageToken, revision: page.revision }
    },

    async *watchMachineRequests(request, context) {
      const name = request.name === '' ? '' : parseResourceName('machine_request', request.name)
      const filter = { ...filterOf(request.filter), within: scopesOfCall(context) }
      const matches = (row: MachineRequestRow) =>
        (name === '' || row.name === name) &&
        (filter.states.length === 0 || filter.states.includes(row.state)) &&
        (filter.providers.length === 0 || filter.providers.includes(row.provider_name)) &&
        (filter.classes.length === 0 || filter.classes.includes(row.class_name)) &&
        (filter.host === '' || row.host_name === filter.host)
      const watched = watchResources<MachineRequestRow>(parts, context, {
        resource: 'machine_request',
        revision: request.revision,
        matches,
        existing: (tx, last, limit) => listRequests(tx, filter, last?.id ?? '', limit),
      })
      for await (const { changes, revision, synced } of watched) {
        const shown = changes.filter(({ row }) => matches(row))
        const details = await readRequestDetails(
          deps.db,
          shown.map(({ row }) => row),
        )
        yield {
          changes: shown.map(({ type, row }) => ({ type, machineRequest: toMachineRequest(row, details.get(row.id)) })),
          revision,
          synced,
        }
      }
    },

    retryMachineRequest: (request, context) =>
      withRequest(context, request.name, async (tx, row) => {
        if (row.operation === 'ADOPT' && row.state === 'PENDING' && row.static)
          throw new HubError(
            'REQUEST_STATE_FORBIDS',
            `machine request ${row.name} waits for its machine to be looked at; retry the machine`,
            { metadata: { state: row.state } },
          )
        await hastenRequest(tx, row)
        await appendEvents(tx, causeOf(context), [
          event(row, 'RequestRetried', 'The next attempt is due at once', 'INFO'),
        ])
      }),

    forgetMachineRequest: (request, context) =>
      withRequest(context, request.name, async (tx, row, wake) => {
        const cause = causeOf(context)
        await forgetRequest(tx, row, cause.actor, request.reason, new Date(), wake)
        await scheduleHost(tx, { organizationId: row.organization_id, hostId: row.host_id })
        await appendEvents(tx, cause, [
          event(
            row,
            'RequestForgotten',
            `Force-forgotten: ${request.reason}. ${row.external_id ?? 'Whatever was made'} may still exist, and cost money`,
            'WARNING',
          ),
        ])
      }),
  }
}
