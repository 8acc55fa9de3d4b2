import { create } from '@bufbuild/protobuf'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { maySpeakFor } from '../domain/access/decide.js'
import { HubError, invalidField } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { parsePrincipalName, parseResourceName, principalName, resourceName } from '../domain/names.js'
import { matchesLabels, parseLabelSelector } from '../domain/selector.js'
import { administratorId } from '../store/client-tokens.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import { grantsOf, isAdministered } from '../store/role-bindings.js'
import {
  deletePrincipal,
  findOrganization,
  findPrincipal,
  insertPrincipal,
  listPrincipals,
  lockPrincipal,
  updatePrincipal,
  type PrincipalFilter,
} from '../store/tenancy.js'
import type { PrincipalRow } from '../store/tables.js'
import {
  causeOf,
  checkEtag,
  createOnce,
  databaseOf,
  decodePageToken,
  identityOf,
  maskedPaths,
  nameTaken,
  organizationFilter,
  pageSize,
  readPage,
  scopesOfCall,
  tryOut,
  type ApiDeps,
} from './context.js'
import { organizationNotFound, principalNotFound } from './not-found.js'
import { fromDescribed, fromKind, mergePrincipal, toPrincipal } from './tenancy-resources.js'
import { watchResources, type WatchParts } from './watch.js'

const mutable = ['display_name', 'disabled', 'labels', 'annotations'] as const

function event(row: PrincipalRow, reason: EventDraft['reason'], message: string): EventDraft {
  return {
    subject: principalName(row.organization_name, row.name),
    ...(row.organization_name !== null && { related: [resourceName('organization', row.organization_name)] }),
    reason,
    message,
    severity: 'INFO',
    ...(row.organization_id !== null && { organizationId: row.organization_id }),
  }
}

function filterOf(
  parent: string,
  filter: hub.PrincipalFilter | undefined,
  within: PrincipalFilter['within'],
): PrincipalFilter {
  parseLabelSelector(filter?.labelSelector ?? '')
  return {
    labelSelector: filter?.labelSelector ?? '',
    within,
    organization: organizationFilter(parent),
    kind: fromKind(filter?.kind ?? hub.PrincipalKind.UNSPECIFIED),
  }
}

/**
 * Refuses to hand a principal to somebody by whom it could do more than whoever hands it may let it do.
 *
 * @throws HubError ROLE_TOO_HIGH.
 */
export async function refuseRoleTooHigh(deps: ApiDeps, context: HandlerContext, row: PrincipalRow): Promise<void> {
  const identity = identityOf(context)
  if (identity.principalId === row.id) return
  // All that it may do, wherever that is: the caller may not know of all of it.
  if (maySpeakFor(identity.grants, await grantsOf(deps.db, row.id))) return
  const name = principalName(row.organization_name, row.name)
  throw new HubError('ROLE_TOO_HIGH', `${name} may do more than you may let it do; ask whoever gave it its roles`, {
    metadata: { principal: name },
  })
}

async function refuseLast(tx: Tx, row: PrincipalRow): Promise<void> {
  // Only the hub's own sight tells of roles for the hub, and only administrators can take anything from whoever has one.
  if (row.organization_id !== null) return
  if (await isAdministered(tx, { principalId: row.id })) return
  throw new HubError('LAST_ADMINISTRATOR', 'nobody would be left who may administer the hub; make another one first')
}

export function principalService(deps: ApiDeps, parts: WatchParts): ServiceImpl<typeof hub.PrincipalService> {
  return {
    async createPrincipal(request, context) {
      const given = request.principal ?? create(hub.PrincipalSchema)
      const kind = fromKind(given.kind)
      if (kind === undefined) throw invalidField('principal.kind', 'is missing; say USER or SERVICE_ACCOUNT')
      const organizationId = request.parent === '' ? null : parseResourceName('organization', request.parent, 'parent')
      const content = { ...fromDescribed(given, 'principal'), kind, disabled: given.disabled }
      const work = async (tx: Tx) => {
        const organization = organizationId === null ? null : await findOrganization(tx, organizationId)
        if (organization === undefined) throw organizationNotFound(organizationId ?? '')
        const name = { organization: organizationId, id: request.principalId }
        if ((await findPrincipal(tx, name)) !== undefined) throw nameTaken('principal_id', request.principalId)
        const row = await insertPrincipal(tx, organization, request.principalId, content)
        await appendEvents(tx, causeOf(context), [event(row, 'PrincipalCreated', `Created as ${row.kind}`)])
        return create(hub.CreatePrincipalResponseSchema, { principal: toPrincipal(row) })
      }
      if (request.validateOnly) return tryOut(databaseOf(deps, context), work)
      return createOnce(deps, context, {
        requestId: request.requestId,
        request: { schema: hub.CreatePrincipalRequestSchema, message: request },
        response: hub.CreatePrincipalResponseSchema,
        wake: [],
        work,
      })
    },

    async getPrincipal(request, context) {
      const row = await findPrincipal(databaseOf(deps, context), parsePrincipalName(request.name))
      if (row === undefined) throw principalNotFound(request.name)
      return { principal: toPrincipal(row) }
    },

    async listPrincipals(request, context) {
      const filter = filterOf(request.parent, request.filter, scopesOfCall(context))
      const list = JSON.stringify(['principals', filter])
      const after = decodePageToken(deps, request.pageToken, list)
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) =>
          listPrincipals(tx, filter, after === undefined ? undefined : [String(after[0]), String(after[1])], limit),
        keyOf: (row) => [row.organization_name ?? '', row.name],
      })
      const { nextPageToken, revision } = page
      return { principals: page.rows.map(toPrincipal), nextPageToken, revision }
    },

    async updatePrincipal(request, context) {
      const given = request.principal ?? create(hub.PrincipalSchema)
      const name = parsePrincipalName(given.name, 'principal.name')
      const paths = maskedPaths(request.updateMask?.paths, mutable)
      const row = await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockPrincipal(tx, name)
        if (locked === undefined) throw principalNotFound(given.name)
        checkEtag(given.etag, locked, given.name)
        const content = mergePrincipal(locked, given, paths)
        const { disabled } = content
        // Whoever lets somebody in again might have given it all that it may do.
        if (!disabled && locked.disabled) await refuseRoleTooHigh(deps, context, locked)
        if (disabled && !locked.disabled) await refuseLast(tx, locked)
        if (request.validateOnly) return locked
        const updated = await updatePrincipal(tx, locked, content)
        if (updated.version !== locked.version)
          await appendEvents(tx, causeOf(context), [event(updated, 'PrincipalUpdated', [...paths].join(', '))])
        return updated
      })
      deps.wake.signal({ kind: 'change' }, { kind: 'access' })
      return { principal: toPrincipal(row) }
    },

    async deletePrincipal(request, context) {
      const name = parsePrincipalName(request.name)
      await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockPrincipal(tx, name)
        if (locked === undefined) {
          if (request.allowMissing) return
          throw principalNotFound(request.name)
        }
        checkEtag(request.etag, locked, request.name)
        if (locked.id === administratorId)
          throw new HubError(
            'LAST_ADMINISTRATOR',
            `${request.name} is the one that the hub came with; disable it instead`,
          )
        await refuseLast(tx, locked)
        await deletePrincipal(tx, locked)
        await appendEvents(tx, causeOf(context), [event(locked, 'PrincipalDeleted', 'Deleted')])
      })
      deps.wake.signal({ kind: 'change' }, { kind: 'access' })
      return {}
    },

    async *watchPrincipals(request, context) {
      const filter = filterOf(request.parent, request.filter, scopesOfCall(context))
      const selector = parseLabelSelector(filter.labelSelector)
      const only = request.name === '' ? undefined : parsePrincipalName(request.name)
      const matches = (row: PrincipalRow) =>
        (only === undefined || (row.organization_name === only.organization && row.name === only.id)) &&
        (filter.organization === '' || row.organization_name === filter.organization) &&
        (filter.kind === undefined || row.kind === filter.kind) &&
        matchesLabels(selector, row.labels)
      const watched = watchResources<PrincipalRow>(parts, context, {
        resource: 'principal',
        revision: request.revision,
        matches,
        existing: (tx, last, limit) =>
          listPrincipals(tx, filter, last === undefined ? undefined : [last.organization_name ?? '', last.name], limit),
      })
      for await (const { changes, revision, synced } of watched) {
        yield {
          changes: changes
            .filter(({ row }) => matches(row))
            .map(({ type, row }) => ({ type, principal: toPrincipal(row) })),
          revision,
          synced,
        }
      }
    },
  }
}
