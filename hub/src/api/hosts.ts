import { isDeepStrictEqual } from 'node:util'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { allowedEverywhere, decide } from '../domain/access/decide.js'
import { HubError, invalidField } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { hostName, parseHostName, parseResourceName } from '../domain/names.js'
import type { Pool } from '../domain/pool/pool.js'
import { matchesLabels, parseLabelSelector } from '../domain/selector.js'
import { allowsPriority, priorityOf as priorityName } from '../domain/share/priority.js'
import { inTransaction, type Db, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import {
  findHost,
  listHosts,
  lockHost,
  moveHost,
  updateHost,
  type HostListFilter,
  type NewExpiry,
  type WorkspaceRef,
} from '../store/hosts.js'
import { findMachine } from '../store/machines.js'
import { failedAdoption } from '../store/server-adoption.js'
import type { HostRow } from '../store/tables.js'
import {
  causeOf,
  checkEtag,
  databaseOf,
  decodePageToken,
  idempotencyKey,
  identityOf,
  maskedPaths,
  pageSize,
  reachOfCall,
  readPage,
  scopesOfCall,
  type ApiDeps,
} from './context.js'
import { claimFirst } from './claiming.js'
import { checkedLabels, fromPriority, hostStateNumbers, namesOf } from './convert.js'
import { adoptHost } from './host-adoption.js'
import { reinstallHost } from './host-reinstall.js'
import { hostNotFound, workspaceNotFound } from './not-found.js'
import { OrderLog } from './order-log.js'
import { OrderReads } from './order-reads.js'
import { checkOrder, classOfOrder, specOfOrder, expiryOf } from './order.js'
import { refuseProtected } from './machine-events.js'
import { toHost } from './resources.js'
import { watchResources, type WatchParts } from './watch.js'

const mutable = ['labels', 'annotations', 'protected', 'expire_time', 'lifetime'] as const

function keysImmutable(): HubError {
  const field = 'host.ssh_public_keys'
  const description =
    'cannot be changed, since they are put there when the system is: change them on the machine, or order another host'
  return new HubError('FIELD_IMMUTABLE', `${field}: ${description}`, { violations: [{ field, description }] })
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

/** What lets go of a host powers its machine off and wipes it. @throws HubError MACHINE_PROTECTED. */
async function refuseProtectedMachine(tx: Tx, row: HostRow): Promise<void> {
  const machine = row.machine_name === null ? undefined : await findMachine(tx, row.machine_name)
  if (machine !== undefined && machine.host_id === row.id) refuseProtected(machine)
}

/** Whoever wanted that server would be given another one, and pay for it. @throws HubError HOST_STATE_FORBIDS. */
async function refuseFailedAdoption(db: Db, row: HostRow): Promise<void> {
  const externalId = await failedAdoption(db, row)
  if (externalId === undefined) return
  throw new HubError(
    'HOST_STATE_FORBIDS',
    `host ${row.name} was to take over server ${externalId}, and never did: release it, which leaves the server alone, and adopt the server again`,
    { metadata: { state: row.state } },
  )
}

/** What becomes of the time at which a host ends: null for never, undefined where nothing is said of it. @throws HubError INVALID_FIELD. */
function expiryChange(given: hub.Host, mask: readonly string[]): NewExpiry | null | undefined {
  const asked = (path: string) => mask.length === 0 || mask.includes(path)
  if (!asked('expire_time') && !asked('lifetime')) return undefined
  if (mask.includes('expire_time') && mask.includes('lifetime'))
    throw invalidField('update_mask', 'names expire_time and lifetime; one of them says it all')
  if (mask.includes('lifetime') && given.lifetime === undefined)
    throw invalidField('host.lifetime', 'is missing; to have the host never expire, name expire_time and give none')
  const only = create(hub.HostSchema, {
    ...(asked('expire_time') && given.expireTime !== undefined && { expireTime: given.expireTime }),
    ...(asked('lifetime') && given.lifetime !== undefined && { lifetime: given.lifetime }),
  })
  return expiryOf(only, 'host.') ?? (mask.includes('expire_time') ? null : undefined)
}

/** @throws HubError PRIORITY_TOO_HIGH. */
function priorityOfOrder(context: HandlerContext, workspace: WorkspaceRef, host: hub.Host): number {
  const { range } = workspace
  const level = fromPriority(host.priority)
  if (level === undefined) return range.priority
  const { grants } = identityOf(context)
  if (allowedEverywhere(grants, 'share.write')) return level
  const mayPrioritize =
    allowedEverywhere(grants, 'host.prioritize') ||
    decide(grants, 'host.prioritize', { organizationId: workspace.organizationId, workspace: workspace.name }) ===
      'tenant'
  if (allowsPriority(range, level, mayPrioritize)) return level
  const most = priorityName(mayPrioritize ? range.maxPriority : range.priority)
  throw new HubError(
    'PRIORITY_TOO_HIGH',
    `host.priority: ${priorityName(level)} is more than you may ask for in workspace ${workspace.name}, which is ${most} at most`,
    { violations: [{ field: 'host.priority', description: `may be ${most} at most` }] },
  )
}

export function hostService(deps: ApiDeps, parts: WatchParts): ServiceImpl<typeof hub.HostService> {
  // Orders that come at the same time are checked and stored together.
  const reads = new OrderReads(deps.db)
  const orders = new OrderLog(deps)
  const withHost = async (
    context: HandlerContext,
    resource: string,
    etag: string,
    work: (tx: Tx, row: HostRow) => Promise<HostRow>,
  ): Promise<hub.Host> => {
    const { workspace, id } = parseHostName(resource)
    const row = await inTransaction(
      databaseOf(deps, context),
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

  const claimWith = (context: HandlerContext, workspace: WorkspaceRef, pools: readonly Pool[]) =>
    claimFirst(
      deps,
      causeOf(context),
      { ...workspace, organization_id: workspace.organizationId },
      pools,
      'with an order',
    )

  const createHost = async (
    request: hub.CreateHostRequest,
    context: HandlerContext,
  ): Promise<hub.CreateHostResponse> => {
    const workspaceName = parseResourceName('workspace', request.parent, 'parent')
    const given = request.host ?? create(hub.HostSchema)
    const key = idempotencyKey(deps, context, {
      requestId: request.requestId,
      request: { schema: hub.CreateHostRequestSchema, message: request },
    })
    const reach = reachOfCall(context)
    // In the same round trip as what comes first; what is amiss with it matters where nothing else is.
    const spec = specOfOrder(reads, given)
    spec.catch(() => undefined)
    const [workspace, before, open] = await Promise.all([
      reach === undefined
        ? reads.workspace(workspaceName)
        : reads.visibleWorkspace({ name: workspaceName, db: databaseOf(deps, context), reach }),
      // Asked before anything is checked: what was accepted once stays so, whatever has become of the places that it could have had.
      key === undefined || request.validateOnly ? undefined : reads.answer(key),
      reads.openPools(workspaceName),
    ])
    if (workspace === undefined) throw workspaceNotFound(workspaceName)
    if (before !== undefined) return fromBinary(hub.CreateHostResponseSchema, before)
    const priority = priorityOfOrder(context, workspace, given)
    const order = await checkOrder(
      deps,
      reads,
      { workspace, id: request.hostId, host: given, spec },
      { open, claim: request.validateOnly ? undefined : (pools) => claimWith(context, workspace, pools) },
    )
    // With a request_id, a name that is in use may be this very order's own.
    if (key === undefined && (await findHost(databaseOf(deps, context), workspaceName, request.hostId)) !== undefined)
      throw nameTaken(request.hostId)
    if (request.validateOnly) {
      const host = create(hub.HostSchema, {
        ...given,
        name: hostName(workspaceName, request.hostId),
        userData: '',
        state: hub.HostState.UNSPECIFIED,
      })
      return create(hub.CreateHostResponseSchema, { host, candidates: order.candidates(), warnings: order.warnings })
    }
    const cause = causeOf(context)
    const answer = await orders.submit({
      key,
      cause,
      className: order.className,
      classSpec: order.classSpec,
      placement: order.placement,
      workspace,
      estimate: order.estimate,
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
        priority,
        createdBy: cause.actor,
        sshPublicKeys: given.sshPublicKeys,
        ...(order.expiry !== undefined && { expiry: order.expiry }),
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

    async getHost(request, context) {
      const { workspace, id } = parseHostName(request.name)
      const row = await findHost(databaseOf(deps, context), workspace, id)
      if (row === undefined) throw hostNotFound(request.name)
      return { host: toHost(row) }
    },

    async listHosts(request, context) {
      const filter = { ...filterOf(request.parent, request.filter), within: scopesOfCall(context) }
      const list = JSON.stringify(['hosts', filter])
      const after = decodePageToken(deps, request.pageToken, list)
      const page = await readPage(deps, context, {
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
      const mask = request.updateMask?.paths ?? []
      if (mask.includes('ssh_public_keys')) throw keysImmutable()
      const paths = maskedPaths(mask, mutable)
      const labels = checkedLabels(given.labels, 'host.labels')
      const expiry = expiryChange(given, mask)
      const host = await withHost(context, given.name, given.etag, async (tx, row) => {
        // Without a mask, nothing is said of keys where none are given.
        const otherKeys = given.sshPublicKeys.length > 0 && !isDeepStrictEqual(given.sshPublicKeys, row.ssh_public_keys)
        if (mask.length === 0 && otherKeys) throw keysImmutable()
        if (request.validateOnly) return row
        const updated = await updateHost(tx, row, {
          ...(paths.has('labels') && { labels }),
          ...(paths.has('annotations') && { annotations: given.annotations }),
          ...(paths.has('protected') && { protected: given.protected }),
          ...(expiry !== undefined && { expiry }),
        })
        if (updated.version !== row.version)
          await appendEvents(tx, causeOf(context), [event(updated, 'HostUpdated', [...paths].join(', '))])
        return updated
      })
      return { host }
    },

    async deleteHost(request, context) {
      const { workspace, id } = parseHostName(request.name)
      if (request.allowMissing && (await findHost(databaseOf(deps, context), workspace, id)) === undefined) return {}
      const host = await withHost(context, request.name, request.etag, async (tx, row) => {
        if (row.protected)
          throw new HubError('HOST_PROTECTED', `host ${id} is protected; take the protection off first`)
        if (row.state === 'RELEASING') return row
        await refuseProtectedMachine(tx, row)
        const moved = await moveHost(tx, row, 'RELEASING', 'Release was asked for', true)
        await appendEvents(tx, causeOf(context), [event(row, 'HostReleasing', 'Release was asked for')])
        return moved
      })
      return { host }
    },

    async retryHost(request, context) {
      const host = await withHost(context, request.name, '', async (tx, row) => {
        if (row.state !== 'ERROR')
          throw new HubError(
            'HOST_NOT_FAILED',
            `host ${row.name} is ${row.state}; only a host in ERROR can be retried`,
            { metadata: { state: row.state } },
          )
        await refuseProtectedMachine(tx, row)
        await refuseFailedAdoption(deps.db, row)
        const moved = await moveHost(tx, row, 'ORDERED', 'Tried again: looking for a place', false)
        await appendEvents(tx, causeOf(context), [event(row, 'HostRetried', 'Tried again')])
        return moved
      })
      return { host }
    },

    reinstallHost: (request, context) => reinstallHost(deps, context, request, hostNotFound),

    adoptHost: (request, context) => adoptHost(deps, context, request),

    async *watchHosts(request, context) {
      const filter = { ...filterOf(request.parent, request.filter), within: scopesOfCall(context) }
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
