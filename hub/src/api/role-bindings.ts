import { create } from '@bufbuild/protobuf'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { isHubRole, type Role } from '../domain/access/roles.js'
import { HubError, invalidField } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import {
  parseBindingName,
  parsePrincipalName,
  parseScopeName,
  principalName,
  scopeName,
  type ScopeName,
} from '../domain/names.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import {
  deleteBinding,
  findBinding,
  insertBinding,
  isAdministered,
  listBindings,
  type ShownBinding,
} from '../store/role-bindings.js'
import { findOrganization, findPrincipal, findWorkspace } from '../store/tenancy.js'
import type { PrincipalRow } from '../store/tables.js'
import {
  causeOf,
  createOnce,
  databaseOf,
  decodePageToken,
  pageSize,
  readPage,
  scopesOfCall,
  type ApiDeps,
} from './context.js'
import { nameOf } from './convert.js'
import { bindingNotFound, organizationNotFound, principalNotFound, workspaceNotFound } from './not-found.js'
import { roleNumbers, toBinding } from './tenancy-resources.js'

interface ScopeRows {
  /** Null: the whole hub. */
  readonly organization: { readonly id: string; readonly name: string } | null
  readonly workspace: string | null
}

/** @throws HubError ORGANIZATION_NOT_FOUND, WORKSPACE_NOT_FOUND. */
async function readScope(tx: Tx, { organization, workspace }: ScopeName): Promise<ScopeRows> {
  if (workspace !== null) {
    const row = await findWorkspace(tx, workspace)
    if (row === undefined) throw workspaceNotFound(workspace)
    return { organization: { id: row.organization_id, name: row.organization_name }, workspace }
  }
  if (organization === null) return { organization: null, workspace: null }
  const row = await findOrganization(tx, organization)
  if (row === undefined) throw organizationNotFound(organization)
  return { organization: row, workspace: null }
}

function event(row: ShownBinding, reason: EventDraft['reason'], message: string): EventDraft {
  const { name, principal } = toBinding(row)
  return {
    subject: name,
    related: [principal],
    reason,
    message,
    severity: 'INFO',
    ...(row.organization_id !== null && { organizationId: row.organization_id }),
  }
}

/** @throws HubError INVALID_FIELD. */
function roleOf(binding: hub.RoleBinding, scope: ScopeName): Role {
  const role = nameOf(roleNumbers, binding.role)
  if (role === undefined) throw invalidField('role_binding.role', 'is missing; say which role')
  const forHub = scope.organization === null && scope.workspace === null
  if (isHubRole(role) === forHub) return role
  throw invalidField(
    'role_binding.role',
    forHub
      ? `${role} is a role of an organization or workspace; name one as parent`
      : `${role} is a role of the whole hub; leave parent empty`,
  )
}

export function roleBindingService(deps: ApiDeps): ServiceImpl<typeof hub.RoleBindingService> {
  /** The principal of a binding to be: an organization binds its own, and an administrator anyone. */
  const principalFor = async (context: HandlerContext, name: string, scope: ScopeRows): Promise<PrincipalRow> => {
    const parsed = parsePrincipalName(name, 'role_binding.principal')
    // Whoever owns a single workspace does not see the organization's principals, and may bind them all the same.
    const row = await findPrincipal(deps.db, parsed)
    const own = row !== undefined && row.organization_id === scope.organization?.id
    if (row === undefined || (scopesOfCall(context) !== undefined && !own)) throw principalNotFound(name)
    return row
  }
  return {
    async createRoleBinding(request, context) {
      const given = request.roleBinding ?? create(hub.RoleBindingSchema)
      const scope = parseScopeName(request.parent)
      const role = roleOf(given, scope)
      const response = await createOnce(deps, context, {
        requestId: request.requestId,
        request: { schema: hub.CreateRoleBindingRequestSchema, message: request },
        response: hub.CreateRoleBindingResponseSchema,
        wake: [{ kind: 'access' }],
        work: async (tx) => {
          const where = await readScope(tx, scope)
          const principal = await principalFor(context, given.principal, where)
          const cause = causeOf(context)
          const name = await insertBinding(tx, { principalId: principal.id, role, ...where, createdBy: cause.actor })
          if (name === undefined) {
            const description = `${given.principal} has ${role} there already`
            throw new HubError('NAME_TAKEN', description, {
              violations: [{ field: 'role_binding', description }],
            })
          }
          const row: ShownBinding = {
            id: '',
            name,
            principal_id: principal.id,
            principal_name: principal.name,
            principal_organization: principal.organization_name,
            role,
            organization_id: where.organization?.id ?? null,
            organization_name: where.organization?.name ?? null,
            workspace_name: where.workspace,
            created_by: cause.actor,
            created_at: new Date(),
          }
          const whom = principalName(principal.organization_name, principal.name)
          await appendEvents(tx, cause, [
            event(row, 'RoleBound', `${whom} is ${role} of ${scopeName(scope) || 'the hub'}`),
          ])
          return create(hub.CreateRoleBindingResponseSchema, { roleBinding: toBinding(row) })
        },
      })
      return response
    },

    async getRoleBinding(request, context) {
      const { scope, id } = parseBindingName(request.name)
      const row = await findBinding(databaseOf(deps, context), scope, id)
      if (row === undefined) throw bindingNotFound(request.name)
      return { roleBinding: toBinding(row) }
    },

    async listRoleBindings(request, context) {
      const scope = parseScopeName(request.parent)
      const within = scopesOfCall(context)
      const list = JSON.stringify(['roleBindings', scope, within, request.principal])
      const after = decodePageToken(deps, request.pageToken, list)
      const db = databaseOf(deps, context)
      const principal =
        request.principal === ''
          ? undefined
          : await findPrincipal(db, parsePrincipalName(request.principal, 'principal'))
      if (request.principal !== '' && principal === undefined) return {}
      const filter = { scope, principalId: principal?.id, within }
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) => listBindings(tx, filter, String(after?.[0] ?? ''), limit),
        keyOf: (row) => [row.id],
      })
      return { roleBindings: page.rows.map(toBinding), nextPageToken: page.nextPageToken }
    },

    async deleteRoleBinding(request, context) {
      const { scope, id } = parseBindingName(request.name)
      await inTransaction(databaseOf(deps, context), async (tx) => {
        const row = await findBinding(tx, scope, id)
        if (row === undefined) {
          if (request.allowMissing) return
          throw bindingNotFound(request.name)
        }
        if (row.role === 'ADMINISTRATOR' && !(await isAdministered(tx, { bindingId: row.id })))
          throw new HubError(
            'LAST_ADMINISTRATOR',
            'nobody would be left who may administer the hub; bind another one first',
          )
        if (!(await deleteBinding(tx, row.id))) return
        await appendEvents(tx, causeOf(context), [event(row, 'RoleUnbound', `${row.role} no longer`)])
      })
      deps.wake.signal({ kind: 'change' }, { kind: 'access' })
      return {}
    },
  }
}
