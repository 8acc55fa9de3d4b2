import { create } from '@bufbuild/protobuf'
import type { ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { HubError } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { parseResourceName, resourceName } from '../domain/names.js'
import { matchesLabels, parseLabelSelector } from '../domain/selector.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import { countOwned } from '../store/providers.js'
import {
  countHosts,
  countHostSets,
  deleteWorkspace,
  findOrganization,
  findWorkspace,
  insertWorkspace,
  listWorkspaces,
  lockWorkspace,
  updateShare,
  updateWorkspace,
  type TenancyFilter,
} from '../store/tenancy.js'
import type { WorkspaceRow } from '../store/tables.js'
import {
  causeOf,
  checkEtag,
  createOnce,
  databaseOf,
  decodePageToken,
  maskedPaths,
  nameTaken,
  organizationFilter,
  pageSize,
  readPage,
  scopesOfCall,
  tryOut,
  type ApiDeps,
} from './context.js'
import { organizationNotFound, workspaceNotFound } from './not-found.js'
import { claimForNew } from './claiming.js'
import { fromDescribed, fromShare, mergeDescribed, shareText, toWorkspace } from './tenancy-resources.js'
import { watchResources, type WatchParts } from './watch.js'

const mutable = ['display_name', 'labels', 'annotations'] as const

function event(row: WorkspaceRow, reason: EventDraft['reason'], message: string): EventDraft {
  const related = [resourceName('organization', row.organization_name)]
  return {
    subject: resourceName('workspace', row.name),
    related,
    reason,
    message,
    severity: 'INFO',
    organizationId: row.organization_id,
  }
}

function filterOf(
  parent: string,
  filter: hub.WorkspaceFilter | undefined,
  within: TenancyFilter['within'],
): TenancyFilter {
  parseLabelSelector(filter?.labelSelector ?? '')
  return { labelSelector: filter?.labelSelector ?? '', within, organization: organizationFilter(parent) }
}

export function workspaceService(deps: ApiDeps, parts: WatchParts): ServiceImpl<typeof hub.WorkspaceService> {
  return {
    async createWorkspace(request, context) {
      const organizationId = parseResourceName('organization', request.parent, 'parent')
      const content = fromDescribed(request.workspace, 'workspace')
      const work = async (tx: Tx) => {
        const organization = await findOrganization(tx, organizationId)
        if (organization === undefined) throw organizationNotFound(organizationId)
        const row = await insertWorkspace(tx, organization, request.workspaceId, content)
        if (row === undefined) throw nameTaken('workspace_id', request.workspaceId)
        await appendEvents(tx, causeOf(context), [event(row, 'WorkspaceCreated', 'Created')])
        return create(hub.CreateWorkspaceResponseSchema, { workspace: toWorkspace(row) })
      }
      if (request.validateOnly) return tryOut(databaseOf(deps, context), work)
      const made = await createOnce(deps, context, {
        requestId: request.requestId,
        request: { schema: hub.CreateWorkspaceRequestSchema, message: request },
        response: hub.CreateWorkspaceResponseSchema,
        wake: [],
        work,
      })
      const row = await findWorkspace(deps.db, request.workspaceId)
      if (row !== undefined) await claimForNew(deps, context, row)
      return made
    },

    async setWorkspaceShare(request, context) {
      const name = parseResourceName('workspace', request.name)
      const share = fromShare(request.share)
      const row = await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockWorkspace(tx, name)
        if (locked === undefined) throw workspaceNotFound(name)
        checkEtag(request.etag, locked, request.name)
        const updated = await updateShare(tx, locked, share)
        if (updated.version !== locked.version)
          await appendEvents(tx, causeOf(context), [event(updated, 'WorkspaceShareSet', shareText(share))])
        return updated
      })
      deps.wake.signal({ kind: 'change' })
      return { workspace: toWorkspace(row) }
    },

    async getWorkspace(request, context) {
      const name = parseResourceName('workspace', request.name)
      const row = await findWorkspace(databaseOf(deps, context), name)
      if (row === undefined) throw workspaceNotFound(name)
      return { workspace: toWorkspace(row) }
    },

    async listWorkspaces(request, context) {
      const filter = filterOf(request.parent, request.filter, scopesOfCall(context))
      const list = JSON.stringify(['workspaces', filter])
      const after = decodePageToken(deps, request.pageToken, list)
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) => listWorkspaces(tx, filter, String(after?.[0] ?? ''), limit),
        keyOf: (row) => [row.name],
      })
      const { nextPageToken, revision } = page
      return { workspaces: page.rows.map(toWorkspace), nextPageToken, revision }
    },

    async updateWorkspace(request, context) {
      const given = request.workspace ?? create(hub.WorkspaceSchema)
      const name = parseResourceName('workspace', given.name, 'workspace.name')
      const paths = maskedPaths(request.updateMask?.paths, mutable)
      const row = await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockWorkspace(tx, name)
        if (locked === undefined) throw workspaceNotFound(name)
        checkEtag(given.etag, locked, given.name)
        const content = mergeDescribed(locked, given, paths, 'workspace')
        if (request.validateOnly) return locked
        const updated = await updateWorkspace(tx, locked, content)
        if (updated.version !== locked.version)
          await appendEvents(tx, causeOf(context), [event(updated, 'WorkspaceUpdated', [...paths].join(', '))])
        return updated
      })
      deps.wake.signal({ kind: 'change' })
      return { workspace: toWorkspace(row) }
    },

    async deleteWorkspace(request, context) {
      const name = parseResourceName('workspace', request.name)
      await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockWorkspace(tx, name)
        if (locked === undefined) {
          if (request.allowMissing) return
          throw workspaceNotFound(name)
        }
        checkEtag(request.etag, locked, request.name)
        const hosts = await countHosts(tx, name)
        if (hosts > 0) {
          throw new HubError('WORKSPACE_IN_USE', `workspace ${name} has ${hosts} hosts; release them first`, {
            metadata: { hosts: String(hosts) },
          })
        }
        const sets = await countHostSets(tx, name)
        if (sets > 0)
          throw new HubError('WORKSPACE_IN_USE', `workspace ${name} has ${sets} host sets; delete them first`, {
            metadata: { host_sets: String(sets) },
          })
        const providers = await countOwned(tx, locked.organization_id, locked.id)
        if (providers > 0) {
          throw new HubError(
            'WORKSPACE_IN_USE',
            `workspace ${name} owns ${providers} providers; delete them, or give them to somebody else first`,
            { metadata: { providers: String(providers) } },
          )
        }
        await deleteWorkspace(tx, locked)
        await appendEvents(tx, causeOf(context), [event(locked, 'WorkspaceDeleted', 'Deleted')])
      })
      deps.wake.signal({ kind: 'change' }, { kind: 'access' })
      return {}
    },

    async *watchWorkspaces(request, context) {
      const name = request.name === '' ? '' : parseResourceName('workspace', request.name)
      const filter = filterOf(request.parent, request.filter, scopesOfCall(context))
      const selector = parseLabelSelector(filter.labelSelector)
      const watched = watchResources<WorkspaceRow>(parts, context, {
        resource: 'workspace',
        revision: request.revision,
        matches: (row) =>
          (name === '' || row.name === name) &&
          (filter.organization === '' || row.organization_name === filter.organization) &&
          matchesLabels(selector, row.labels),
        existing: (tx, last, limit) => listWorkspaces(tx, filter, last?.name ?? '', limit),
      })
      for await (const { changes, revision, synced } of watched) {
        yield { changes: changes.map(({ type, row }) => ({ type, workspace: toWorkspace(row) })), revision, synced }
      }
    },
  }
}
