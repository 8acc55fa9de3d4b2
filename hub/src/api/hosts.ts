import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { HubError } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { hostName, parseHostName, parseResourceName } from '../domain/names.js'
import { matchesLabels, parseLabelSelector } from '../domain/selector.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import { findHost, listHosts, lockHost, moveHost, updateHost, type HostListFilter } from '../store/hosts.js'
import type { HostRow } from '../store/tables.js'
import {
  causeOf,
  checkEtag,
  decodePageToken,
  idempotencyKey,
  maskedPaths,
  pageSize,
  readPage,
  type ApiDeps,
} from './context.js'
import { checkedLabels, hostStateNumbers, namesOf } from './convert.js'
import { reinstallHost } from './host-reinstall.js'
import { OrderLog } from './order-log.js'
import { OrderReads } from './order-reads.js'
import { checkOrder, classOfOrder } from './order.js'
import { toHost } from './resources.js'
import { watchResources, type WatchParts } from './watch.js'

const mutable = ['labels', 'annotations', 'protected'] as const

function hostNotFound(name: string): HubError {
  return new HubError('HOST_NOT_FOUND', `there is no host ${name}; \`slipway get hosts\` lists them`, {
    metadata: { host: name },
  })
}

function nameTaken(id: string): HubError {
  return new HubError(
    'NAME_TAKEN',
    `host_id: ${id} is in use in this workspace; choose another name, or release that host first`,
    {
      violations: [
        {
          field: 'host_id',
          description: 'is in use in this workspace; choose another name, or release that host first',
        },
      ],
    },
  )
}

function filterOf(parent: string, filter: hub.HostFilter | undefined): HostListFilter {
  const workspace = parseResourceName('workspace', parent, 'parent')
  parseLabelSelector(filter?.labelSelector ?? '')
  return {
    workspace: workspace === '-' ? undefined : workspace,
    states: namesOf(hostStateNumbers, filter?.states ?? []),
    providers: (filter?.providers ?? []).map((name, index) =>
      parseResourceName('provider', name, `filter.providers[${index}]`),
    ),
    classes: (filter?.machineClasses ?? []).map((name, index) =>
      parseResourceName('machine_class', name, `filter.machine_classes[${index}]`),
    ),
    labelSelector: filter?.labelSelector ?? '',
    showReleased: filter?.showReleased ?? false,
  }
}

function event(row: HostRow, reason: EventDraft['reason'], message: string): EventDraft {
  return {
    subject: hostName(row.workspace_name, row.name),
    reason,
    message,
    severity: 'INFO',
    organizationId: row.organization_id,
  }
}

export function hostService(deps: ApiDeps, parts: WatchParts): ServiceImpl<typeof hub.HostService> {
  // Orders that come at the same time are checked and stored together.
  const reads = new OrderReads(deps.db)
  const orders = new OrderLog(deps)
  const withHost = async (
    resource: string,
    etag: string,
    work: (tx: Tx, row: HostRow) => Promise<HostRow>,
  ): Promise<hub.Host> => {
    const { workspace, id } = parseHostName(resource)
    const row = await inTransaction(
      deps.db,
      async (tx) => {
        const locked = await lockHost(tx, workspace, id)
        if (locked === undefined) throw hostNotFound(resource)
        checkEtag(etag, locked, resource)
        return work(tx, locked)
      },
      'order',
    )
    deps.wake.signal({ kind: 'host' }, { kind: 'change' })
    return toHost(row)
  }

  const createHost = async (
    request: hub.CreateHostRequest,
    context: HandlerContext,
  ): Promise<hub.CreateHostResponse> => {
    const workspaceName = parseResourceName('workspace', request.parent, 'parent')
    const given = request.host ?? create(hub.HostSchema)
    const key = idempotencyKey(context, {
      requestId: request.requestId,
      request: { schema: hub.CreateHostRequestSchema, message: request },
    })
    const [workspace, before] = await Promise.all([
      reads.workspace(workspaceName),
      // Asked before anything is checked: what was accepted once stays so, whatever has become of the places that it could have had.
      key === undefined || request.validateOnly ? undefined : reads.answer(key),
    ])
    if (workspace === undefined)
      throw new HubError('WORKSPACE_NOT_FOUND', `there is no workspace ${workspaceName}`, {
        metadata: { workspace: workspaceName },
      })
    if (before !== undefined) return fromBinary(hub.CreateHostResponseSchema, before)
    const order = await checkOrder(deps, reads, { workspace: workspaceName, id: request.hostId, host: given })
    // With a request_id, a name that is in use may be this very order's own.
    if (key === undefined && (await findHost(deps.db, workspaceName, request.hostId)) !== undefined)
      throw nameTaken(request.hostId)
    if (request.validateOnly) {
      const host = create(hub.HostSchema, {
        ...given,
        name: hostName(workspaceName, request.hostId),
        userData: '',
        state: hub.HostState.UNSPECIFIED,
      })
      return create(hub.CreateHostResponseSchema, { host, candidates: order.candidates, warnings: order.warnings })
    }
    const cause = causeOf(context)
    const answer = await orders.submit({
      key,
      cause,
      className: order.className,
      classSpec: order.classSpec,
      placement: order.placement,
      findClass: (tx) => classOfOrder(tx, given),
      toHost: (machineClass) => ({
        workspace,
        name: request.hostId,
        hostname: order.hostname,
        classId: machineClass.id,
        className: machineClass.name,
        classSpec: order.classSpec,
        shape: order.shape,
        placement: order.placement,
        providerData: order.providerData,
        userData: given.userData,
        labels: order.labels,
        annotations: given.annotations,
        protected: given.protected,
        createdBy: cause.actor,
      }),
      toEvent: (row) => event(row, 'HostOrdered', `Ordered as ${row.class_name}`),
      toAnswer: (row) =>
        toBinary(
          hub.CreateHostResponseSchema,
          create(hub.CreateHostResponseSchema, { host: toHost(row), warnings: order.warnings }),
        ),
      nameTaken: () => nameTaken(request.hostId),
    })
    return fromBinary(hub.CreateHostResponseSchema, answer)
  }

  return {
    createHost,

    async getHost(request) {
      const { workspace, id } = parseHostName(request.name)
      const row = await findHost(deps.db, workspace, id)
      if (row === undefined) throw hostNotFound(request.name)
      return { host: toHost(row) }
    },

    async listHosts(request) {
      const filter = filterOf(request.parent, request.filter)
      const list = JSON.stringify(['hosts', filter])
      const after = decodePageToken(request.pageToken, list, 3)
      const page = await readPage(deps, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) =>
          listHosts(
            tx,
            filter,
            after === undefined ? undefined : [String(after[0]), String(after[1]), String(after[2])],
            limit,
          ),
        keyOf: (row) => [row.workspace_name, row.name, row.id],
      })
      return { hosts: page.rows.map(toHost), nextPageToken: page.nextPageToken, revision: page.revision }
    },

    async updateHost(request, context) {
      const given = request.host ?? create(hub.HostSchema)
      const paths = maskedPaths(request.updateMask?.paths, mutable)
      const labels = checkedLabels(given.labels, 'host.labels')
      const host = await withHost(given.name, given.etag, async (tx, row) => {
        if (request.validateOnly) return row
        const updated = await updateHost(tx, row, {
          ...(paths.has('labels') && { labels }),
          ...(paths.has('annotations') && { annotations: given.annotations }),
          ...(paths.has('protected') && { protected: given.protected }),
        })
        if (updated.version !== row.version)
          await appendEvents(tx, causeOf(context), [event(updated, 'HostUpdated', [...paths].join(', '))])
        return updated
      })
      return { host }
    },

    async deleteHost(request, context) {
      const { workspace, id } = parseHostName(request.name)
      if (request.allowMissing && (await findHost(deps.db, workspace, id)) === undefined) return {}
      const host = await withHost(request.name, request.etag, async (tx, row) => {
        if (row.protected)
          throw new HubError('HOST_PROTECTED', `host ${id} is protected; take the protection off first`)
        if (row.state === 'RELEASING') return row
        const moved = await moveHost(tx, row, 'RELEASING', 'Release was asked for', true)
        await appendEvents(tx, causeOf(context), [event(row, 'HostReleasing', 'Release was asked for')])
        return moved
      })
      return { host }
    },

    async retryHost(request, context) {
      const host = await withHost(request.name, '', async (tx, row) => {
        if (row.state !== 'ERROR')
          throw new HubError(
            'HOST_NOT_FAILED',
            `host ${row.name} is ${row.state}; only a host in ERROR can be retried`,
            { metadata: { state: row.state } },
          )
        const moved = await moveHost(tx, row, 'ORDERED', 'Tried again: looking for a place', false)
        await appendEvents(tx, causeOf(context), [event(row, 'HostRetried', 'Tried again')])
        return moved
      })
      return { host }
    },

    reinstallHost: (request, context) => reinstallHost(deps, context, request, hostNotFound),

    async *watchHosts(request, context) {
      const filter = filterOf(request.parent, request.filter)
      const only = request.name === '' ? undefined : parseHostName(request.name)
      const selector = parseLabelSelector(filter.labelSelector)
      const matches = (row: HostRow) =>
        (only === undefined || (row.workspace_name === only.workspace && row.name === only.id)) &&
        (filter.workspace === undefined || row.workspace_name === filter.workspace) &&
        (filter.states.length === 0 || filter.states.includes(row.state)) &&
        (filter.providers.length === 0 ||
          (row.provider_name !== null && filter.providers.includes(row.provider_name))) &&
        (filter.classes.length === 0 || filter.classes.includes(row.class_name)) &&
        matchesLabels(selector, row.labels)
      const watched = watchResources<HostRow>(parts, context, {
        resource: 'host',
        revision: request.revision,
        matches,
        existing: async (tx, last, limit) => {
          if (only !== undefined) {
            const row = last === undefined ? await findHost(tx, only.workspace, only.id) : undefined
            return row === undefined ? [] : [row]
          }
          return listHosts(
            tx,
            filter,
            last === undefined ? undefined : [last.workspace_name, last.name, last.id],
            limit,
          )
        },
      })
      for await (const { changes, revision, synced } of watched) {
        yield {
          changes: changes.filter(({ row }) => matches(row)).map(({ type, row }) => ({ type, host: toHost(row) })),
          revision,
          synced,
        }
      }
    },
  }
}
