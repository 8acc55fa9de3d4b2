import { create } from '@bufbuild/protobuf'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { HubError } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { replacesMembers } from '../domain/host-set/host-set.js'
import { hostSetName, parseHostSetName, parseResourceName } from '../domain/names.js'
import { matchesLabels, parseLabelSelector } from '../domain/selector.js'
import { memberName } from '../domain/host-set/member.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import { findWorkspaces } from '../store/hosts.js'
import {
  endHostSet,
  findHostSet,
  insertHostSet,
  listHostSets,
  lockHostSet,
  pauseHostSet,
  removeHostSet,
  updateHostSet,
  type HostSetListFilter,
} from '../store/host-sets.js'
import { openUserData } from '../store/host-set-reconcile.js'
import type { HostSetRow } from '../store/tables.js'
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
import { memberOf } from './host-set-orders.js'
import { fromHostSet, toHostSet } from './host-set-resources.js'
import { hostSetNotFound, workspaceNotFound } from './not-found.js'
import { OrderReads } from './order-reads.js'
import { checkOrder } from './order.js'
import { watchResources, type WatchParts } from './watch.js'

const ofTemplate = [
  'machine_class',
  'shape',
  'placement',
  'provider_data',
  'user_data',
  'labels',
  'annotations',
  'protected',
  'lifetime',
  'ssh_public_keys',
] as const
const mutable = [
  'replicas',
  'template',
  ...ofTemplate.map((field) => `template.${field}` as const),
  'spread',
  'rollout',
  'repair',
  'labels',
  'annotations',
] as const
type Path = (typeof mutable)[number]

function event(row: HostSetRow, reason: EventDraft['reason'], message: string): EventDraft {
  return {
    subject: hostSetName(row.workspace_name, row.name),
    reason,
    message,
    severity: 'INFO',
    organizationId: row.organization_id,
  }
}

function nameTaken(id: string): HubError {
  const description = 'is in use in this workspace; choose another name, or delete that host set first'
  return new HubError('NAME_TAKEN', `host_set_id: ${id} ${description}`, {
    violations: [{ field: 'host_set_id', description }],
  })
}

/** What is wrong with a member is wrong with the template. */
async function aboutTemplate<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof HubError) || error.violations.length === 0) throw error
    const inTemplate = (text: string) => text.replace(/^host\./, 'host_set.template.')
    throw new HubError(error.reason, inTemplate(error.message), {
      metadata: error.metadata,
      violations: error.violations.map(({ field, description }) => ({ field: inTemplate(field), description })),
    })
  }
}

/** Checks a member as an order; that a quota is full now says nothing of the set. @throws HubError as an order does. */
async function checkMember(
  deps: ApiDeps,
  reads: OrderReads,
  set: Parameters<typeof memberOf>[0],
  order: Pick<Parameters<typeof checkOrder>[2], 'workspace' | 'id'> & { readonly userData: string },
): Promise<Pick<hub.CreateHostSetResponse, 'candidates' | 'warnings'>> {
  try {
    const host = memberOf(set, '', order.userData)
    const open = await reads.openPools(order.workspace.name)
    const { candidates, warnings } = await aboutTemplate(() =>
      // Its members claim what they need, when they are ordered.
      checkOrder(deps, reads, { workspace: order.workspace, id: order.id, host }, { open, claim: undefined }),
    )
    return { candidates: candidates(), warnings }
  } catch (error) {
    if (!(error instanceof HubError) || !['QUOTA_EXCEEDED', 'BUDGET_EXCEEDED'].includes(error.reason)) throw error
    return { candidates: [], warnings: [`Members will wait: ${error.message}`] }
  }
}

async function createHostSet(
  deps: ApiDeps,
  reads: OrderReads,
  request: hub.CreateHostSetRequest,
  context: HandlerContext,
): Promise<hub.CreateHostSetResponse> {
  const workspaceName = parseResourceName('workspace', request.parent, 'parent')
  const given = request.hostSet ?? create(hub.HostSetSchema)
  const spec = fromHostSet(given)
  const [workspace] = await findWorkspaces(databaseOf(deps, context), [workspaceName])
  if (workspace === undefined) throw workspaceNotFound(workspaceName)
  const userData = given.template?.userData ?? ''
  const { candidates, warnings } = await checkMember(deps, reads, spec, {
    workspace,
    id: memberName(request.hostSetId, 0),
    userData,
  })
  const cause = causeOf(context)
  const work = async (tx: Tx) => {
    const row = await insertHostSet(tx, deps.keyring, {
      ...spec,
      workspace,
      name: request.hostSetId,
      userData,
      createdBy: cause.actor,
    })
    if (row === undefined) throw nameTaken(request.hostSetId)
    await appendEvents(tx, cause, [event(row, 'HostSetCreated', `Made, for ${row.replicas} members`)])
    return create(hub.CreateHostSetResponseSchema, { hostSet: toHostSet(row), warnings })
  }
  if (request.validateOnly) {
    const answer = await tryOut(databaseOf(deps, context), work)
    return create(hub.CreateHostSetResponseSchema, { ...answer, candidates })
  }
  return createOnce(deps, context, {
    requestId: request.requestId,
    request: { schema: hub.CreateHostSetRequestSchema, message: request },
    response: hub.CreateHostSetResponseSchema,
    wake: [],
    work,
  })
}

/** The set with those fields of another that are named. */
function merged(current: hub.HostSet, given: hub.HostSet, paths: ReadonlySet<Path>): hub.HostSet {
  const of = (path: Path) => (paths.has(path) ? given : current)
  const before = current.template ?? create(hub.HostTemplateSchema)
  const wanted = given.template ?? create(hub.HostTemplateSchema)
  const inTemplate = (field: (typeof ofTemplate)[number]) =>
    paths.has('template') || paths.has(`template.${field}`) ? wanted : before
  // A class takes the place of a shape, and the other way round.
  const sized = paths.has('template') || paths.has('template.machine_class') || paths.has('template.shape')
  const [rollout, repair] = [of('rollout').rollout, of('repair').repair]
  const [shape, placement] = [(sized ? wanted : before).shape, inTemplate('placement').placement]
  const [providerData, lifetime] = [inTemplate('provider_data').providerData, inTemplate('lifetime').lifetime]
  return create(hub.HostSetSchema, {
    replicas: of('replicas').replicas,
    template: {
      machineClass: (sized ? wanted : before).machineClass,
      ...(shape !== undefined && { shape }),
      ...(placement !== undefined && { placement }),
      ...(providerData !== undefined && { providerData }),
      labels: inTemplate('labels').labels,
      annotations: inTemplate('annotations').annotations,
      protected: inTemplate('protected').protected,
      sshPublicKeys: inTemplate('ssh_public_keys').sshPublicKeys,
      ...(lifetime !== undefined && { lifetime }),
    },
    spread: of('spread').spread,
    ...(rollout !== undefined && { rollout }),
    ...(repair !== undefined && { repair }),
    labels: of('labels').labels,
    annotations: of('annotations').annotations,
  })
}

/** New user-data; undefined: as it is. What is never read back is not taken away by who sends the rest again. */
function userDataOf(given: hub.HostSet, mask: readonly string[]): string | undefined {
  const userData = given.template?.userData ?? ''
  return mask.includes('template.user_data') || userData !== '' ? userData : undefined
}

async function changeHostSet(
  deps: ApiDeps,
  reads: OrderReads,
  request: hub.UpdateHostSetRequest,
  context: HandlerContext,
): Promise<hub.HostSet> {
  const given = request.hostSet ?? create(hub.HostSetSchema)
  const { workspace, id } = parseHostSetName(given.name, 'host_set.name')
  const mask = request.updateMask?.paths ?? []
  const paths = maskedPaths(mask, mutable)
  const userData = paths.has('template') || paths.has('template.user_data') ? userDataOf(given, mask) : undefined
  const db = databaseOf(deps, context)
  const before = await findHostSet(db, workspace, id)
  if (before === undefined) throw hostSetNotFound(given.name)
  const wanted = fromHostSet(merged(toHostSet(before), given, paths))
  if (replacesMembers(before.template, wanted.template) || userData !== undefined)
    await checkMember(deps, reads, wanted, {
      workspace: { organizationId: before.organization_id, id: before.workspace_id, name: workspace },
      id: memberName(id, 0),
      userData: userData ?? '',
    })
  const row = await inTransaction(db, async (tx) => {
    const locked = await lockLive(tx, given.name, given.etag)
    const spec = fromHostSet(merged(toHostSet(locked), given, paths))
    if (request.validateOnly) return locked
    // What is sent again as it is changes nothing.
    const key = { organizationId: locked.organization_id, id: locked.id }
    const rewrites = userData !== undefined && userData !== (await openUserData(tx, deps.keyring, key))
    const replaces = rewrites || replacesMembers(locked.template, spec.template)
    const updated = await updateHostSet(tx, deps.keyring, locked, {
      spec,
      replaces,
      ...(rewrites && { userData }),
    })
    if (updated.version !== locked.version)
      await appendEvents(tx, causeOf(context), [event(updated, 'HostSetUpdated', describeChange(locked, updated))])
    return updated
  })
  deps.wake.signal({ kind: 'change' })
  return toHostSet(row)
}

function describeChange(before: HostSetRow, after: HostSetRow): string {
  const parts = [
    ...(before.replicas === after.replicas ? [] : [`${after.replicas} members instead of ${before.replicas}`]),
    ...(before.template_revision === after.template_revision
      ? []
      : [`template ${after.template_revision}: members are replaced`]),
  ]
  return parts.length === 0 ? 'Changed' : parts.join('; ')
}

/** @throws HubError HOST_SET_NOT_FOUND, ETAG_MISMATCH, HOST_SET_DELETING. */
async function lockLive(tx: Tx, name: string, etag: string): Promise<HostSetRow> {
  const { workspace, id } = parseHostSetName(name)
  const locked = await lockHostSet(tx, workspace, id)
  if (locked === undefined) throw hostSetNotFound(name)
  checkEtag(etag, locked, name)
  if (locked.delete_requested_at !== null)
    throw new HubError('HOST_SET_DELETING', `host set ${id} is being deleted with its members`)
  return locked
}

function filterOf(
  parent: string,
  filter: hub.HostSetFilter | undefined,
  within: HostSetListFilter['within'],
): HostSetListFilter {
  const workspace = parseResourceName('workspace', parent, 'parent')
  const labelSelector = filter?.labelSelector ?? ''
  parseLabelSelector(labelSelector)
  return { workspace: workspace === '-' ? undefined : workspace, labelSelector, within }
}

export function hostSetService(deps: ApiDeps, parts: WatchParts): ServiceImpl<typeof hub.HostSetService> {
  const reads = new OrderReads(deps.db)
  const setPaused = async (
    request: { readonly name: string; readonly etag: string },
    context: HandlerContext,
    pause: boolean,
  ): Promise<hub.HostSet> => {
    const row = await inTransaction(databaseOf(deps, context), async (tx) => {
      const locked = await lockLive(tx, request.name, request.etag)
      if ((locked.pause_reason !== null) === pause) return locked
      const updated = await pauseHostSet(tx, locked, pause ? 'ByRequest' : null)
      const line = pause
        ? event(updated, 'HostSetPaused', 'Rollouts and repairs stand still')
        : event(updated, 'HostSetResumed', 'Rollouts and repairs go on')
      await appendEvents(tx, causeOf(context), [line])
      return updated
    })
    deps.wake.signal({ kind: 'change' })
    return toHostSet(row)
  }

  return {
    createHostSet: (request, context) => createHostSet(deps, reads, request, context),

    async getHostSet(request, context) {
      const { workspace, id } = parseHostSetName(request.name)
      const row = await findHostSet(databaseOf(deps, context), workspace, id)
      if (row === undefined) throw hostSetNotFound(request.name)
      return { hostSet: toHostSet(row) }
    },

    async listHostSets(request, context) {
      const filter = filterOf(request.parent, request.filter, scopesOfCall(context))
      const list = JSON.stringify(['host_sets', filter])
      const after = decodePageToken(deps, request.pageToken, list)
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) =>
          listHostSets(tx, filter, after === undefined ? undefined : [String(after[0]), String(after[1])], limit),
        keyOf: (row) => [row.workspace_name, row.name],
      })
      return { hostSets: page.rows.map(toHostSet), nextPageToken: page.nextPageToken, revision: page.revision }
    },

    async updateHostSet(request, context) {
      return { hostSet: await changeHostSet(deps, reads, request, context) }
    },

    async deleteHostSet(request, context) {
      const { workspace, id } = parseHostSetName(request.name)
      const row = await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockHostSet(tx, workspace, id)
        if (locked === undefined) {
          if (request.allowMissing) return undefined
          throw hostSetNotFound(request.name)
        }
        checkEtag(request.etag, locked, request.name)
        if (request.cascade) {
          if (locked.delete_requested_at !== null) return locked
          const ending = await endHostSet(tx, locked)
          await appendEvents(tx, causeOf(context), [event(ending, 'HostSetDeleting', 'Deleted with its members')])
          return ending
        }
        await removeHostSet(tx, locked)
        await appendEvents(tx, causeOf(context), [event(locked, 'HostSetDeleted', 'Deleted; its members stay')])
        return undefined
      })
      deps.wake.signal({ kind: 'change' })
      return row === undefined ? {} : { hostSet: toHostSet(row) }
    },

    async pauseHostSet(request, context) {
      return { hostSet: await setPaused(request, context, true) }
    },

    async resumeHostSet(request, context) {
      return { hostSet: await setPaused(request, context, false) }
    },

    async *watchHostSets(request, context) {
      const filter = filterOf(request.parent, request.filter, scopesOfCall(context))
      const only = request.name === '' ? undefined : parseHostSetName(request.name)
      const selector = parseLabelSelector(filter.labelSelector)
      const watched = watchResources<HostSetRow>(parts, context, {
        resource: 'host_set',
        revision: request.revision,
        matches: (row) =>
          (only === undefined || (row.workspace_name === only.workspace && row.name === only.id)) &&
          (filter.workspace === undefined || row.workspace_name === filter.workspace) &&
          matchesLabels(selector, row.labels),
        existing: async (tx, last, limit) => {
          if (only === undefined)
            return listHostSets(tx, filter, last === undefined ? undefined : [last.workspace_name, last.name], limit)
          const row = last === undefined ? await findHostSet(tx, only.workspace, only.id) : undefined
          return row === undefined ? [] : [row]
        },
      })
      for await (const { changes, revision, synced } of watched)
        yield { changes: changes.map(({ type, row }) => ({ type, hostSet: toHostSet(row) })), revision, synced }
    },
  }
}
