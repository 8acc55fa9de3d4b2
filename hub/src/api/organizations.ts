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
  countWorkspaces,
  defaultOrganization,
  deleteOrganization,
  findOrganization,
  insertOrganization,
  listOrganizations,
  lockOrganization,
  updateOrganization,
  type TenancyFilter,
} from '../store/tenancy.js'
import type { OrganizationRow } from '../store/tables.js'
import {
  causeOf,
  checkEtag,
  createOnce,
  databaseOf,
  decodePageToken,
  maskedPaths,
  nameTaken,
  pageSize,
  readPage,
  scopesOfCall,
  tryOut,
  type ApiDeps,
} from './context.js'
import { organizationNotFound } from './not-found.js'
import { fromDescribed, mergeDescribed, toOrganization } from './tenancy-resources.js'
import { watchResources, type WatchParts } from './watch.js'

const mutable = ['display_name', 'labels', 'annotations'] as const

function event(row: OrganizationRow, reason: EventDraft['reason'], message: string): EventDraft {
  const subject = resourceName('organization', row.name)
  return { subject, reason, message, severity: 'INFO', organizationId: row.id }
}

function filterOf(filter: hub.OrganizationFilter | undefined, within: TenancyFilter['within']): TenancyFilter {
  parseLabelSelector(filter?.labelSelector ?? '')
  return { labelSelector: filter?.labelSelector ?? '', within, organization: '' }
}

export function organizationService(deps: ApiDeps, parts: WatchParts): ServiceImpl<typeof hub.OrganizationService> {
  return {
    async createOrganization(request, context) {
      const content = fromDescribed(request.organization, 'organization')
      const work = async (tx: Tx) => {
        const row = await insertOrganization(tx, request.organizationId, content)
        if (row === undefined) throw nameTaken('organization_id', request.organizationId)
        await appendEvents(tx, causeOf(context), [event(row, 'OrganizationCreated', 'Created')])
        return create(hub.CreateOrganizationResponseSchema, { organization: toOrganization(row) })
      }
      if (request.validateOnly) return tryOut(databaseOf(deps, context), work)
      return createOnce(deps, context, {
        requestId: request.requestId,
        request: { schema: hub.CreateOrganizationRequestSchema, message: request },
        response: hub.CreateOrganizationResponseSchema,
        wake: [],
        work,
      })
    },

    async getOrganization(request, context) {
      const name = parseResourceName('organization', request.name)
      const row = await findOrganization(databaseOf(deps, context), name)
      if (row === undefined) throw organizationNotFound(name)
      return { organization: toOrganization(row) }
    },

    async listOrganizations(request, context) {
      const filter = filterOf(request.filter, scopesOfCall(context))
      const list = JSON.stringify(['organizations', filter])
      const after = decodePageToken(deps, request.pageToken, list)
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) => listOrganizations(tx, filter, String(after?.[0] ?? ''), limit),
        keyOf: (row) => [row.name],
      })
      const { nextPageToken, revision } = page
      return { organizations: page.rows.map(toOrganization), nextPageToken, revision }
    },

    async updateOrganization(request, context) {
      const given = request.organization ?? create(hub.OrganizationSchema)
      const name = parseResourceName('organization', given.name, 'organization.name')
      const paths = maskedPaths(request.updateMask?.paths, mutable)
      const row = await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockOrganization(tx, name)
        if (locked === undefined) throw organizationNotFound(name)
        checkEtag(given.etag, locked, given.name)
        const content = mergeDescribed(locked, given, paths, 'organization')
        if (request.validateOnly) return locked
        const updated = await updateOrganization(tx, locked, content)
        if (updated.version !== locked.version)
          await appendEvents(tx, causeOf(context), [event(updated, 'OrganizationUpdated', [...paths].join(', '))])
        return updated
      })
      deps.wake.signal({ kind: 'change' })
      return { organization: toOrganization(row) }
    },

    async deleteOrganization(request, context) {
      const name = parseResourceName('organization', request.name)
      await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockOrganization(tx, name)
        if (locked === undefined) {
          if (request.allowMissing) return
          throw organizationNotFound(name)
        }
        checkEtag(request.etag, locked, request.name)
        if (name === defaultOrganization)
          throw new HubError(
            'ORGANIZATION_IN_USE',
            'the organization default is the one that the hub came with; it stays',
          )
        const workspaces = await countWorkspaces(tx, locked.id)
        if (workspaces > 0) {
          throw new HubError(
            'ORGANIZATION_IN_USE',
            `organization ${name} has ${workspaces} workspaces; delete them first`,
            { metadata: { workspaces: String(workspaces) } },
          )
        }
        const providers = await countOwned(tx, locked.id)
        if (providers > 0) {
          throw new HubError(
            'ORGANIZATION_IN_USE',
            `organization ${name} owns ${providers} providers; delete them, or give them to somebody else first`,
            { metadata: { providers: String(providers) } },
          )
        }
        await deleteOrganization(tx, locked)
        await appendEvents(tx, causeOf(context), [event(locked, 'OrganizationDeleted', 'Deleted')])
      })
      deps.wake.signal({ kind: 'change' }, { kind: 'access' })
      return {}
    },

    async *watchOrganizations(request, context) {
      const name = request.name === '' ? '' : parseResourceName('organization', request.name)
      const filter = filterOf(request.filter, scopesOfCall(context))
      const selector = parseLabelSelector(filter.labelSelector)
      const watched = watchResources<OrganizationRow>(parts, context, {
        resource: 'organization',
        revision: request.revision,
        matches: (row) => (name === '' || row.name === name) && matchesLabels(selector, row.labels),
        existing: (tx, last, limit) => listOrganizations(tx, filter, last?.name ?? '', limit),
      })
      for await (const { changes, revision, synced } of watched) {
        yield {
          changes: changes.map(({ type, row }) => ({ type, organization: toOrganization(row) })),
          revision,
          synced,
        }
      }
    },
  }
}
