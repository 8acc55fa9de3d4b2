import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import type { Role } from '../domain/access/roles.js'
import { invalidField } from '../domain/error/errors.js'
import { priorityOf } from '../domain/share/priority.js'
import { bindingName, principalName, resourceName } from '../domain/names.js'
import type { TokenRow } from '../store/client-tokens.js'
import type { ShownBinding } from '../store/role-bindings.js'
import type { Described, PrincipalContent, ShareContent } from '../store/tenancy.js'
import type { OrganizationRow, PrincipalRow, WorkspaceRow } from '../store/tables.js'
import { checkedLabels, fromPriority, nameOf, toPriority, toTime } from './convert.js'

// Organizations, workspaces, principals, role bindings and tokens, between protobuf and rows.

export const kindNumbers = {
  USER: hub.PrincipalKind.USER,
  SERVICE_ACCOUNT: hub.PrincipalKind.SERVICE_ACCOUNT,
} as const satisfies Record<PrincipalRow['kind'], hub.PrincipalKind>

export const roleNumbers: Readonly<Record<Role, hub.Role>> = {
  OWNER: hub.Role.OWNER,
  OPERATOR: hub.Role.OPERATOR,
  HOST_CREATOR: hub.Role.HOST_CREATOR,
  VIEWER: hub.Role.VIEWER,
  ADMINISTRATOR: hub.Role.ADMINISTRATOR,
  PROVIDER_OPERATOR: hub.Role.PROVIDER_OPERATOR,
  AUDITOR: hub.Role.AUDITOR,
}

const common = (row: OrganizationRow) => ({
  uid: row.id,
  displayName: row.display_name,
  labels: { ...row.labels },
  annotations: { ...row.annotations },
  createTime: toTime(row.created_at),
  updateTime: toTime(row.updated_at),
  etag: String(row.version),
})

export function toOrganization(row: OrganizationRow): hub.Organization {
  return create(hub.OrganizationSchema, { ...common(row), name: resourceName('organization', row.name) })
}

export function toWorkspace(row: WorkspaceRow): hub.Workspace {
  return create(hub.WorkspaceSchema, {
    ...common(row),
    name: resourceName('workspace', row.name),
    organization: resourceName('organization', row.organization_name),
    // Changes from before there were shares lack the columns.
    share: {
      weight: row.weight ?? 1,
      priority: toPriority(row.priority),
      maxPriority: toPriority(row.max_priority),
    },
  })
}

/** @throws HubError INVALID_FIELD. */
export function fromShare(given: hub.WorkspaceShare | undefined): ShareContent {
  const priority = fromPriority(given?.priority) ?? 0
  const maxPriority = fromPriority(given?.maxPriority) ?? priority
  if (priority > maxPriority)
    throw invalidField('share.max_priority', 'is below share.priority; raise the one or lower the other')
  return { weight: given === undefined || given.weight === 0 ? 1 : given.weight, priority, maxPriority }
}

/** The words of a share's event. */
export function shareText({ weight, priority, maxPriority }: ShareContent): string {
  return `Weight ${weight}, priority ${priorityOf(priority)}, at most ${priorityOf(maxPriority)}`
}

export function toPrincipal(row: PrincipalRow): hub.Principal {
  return create(hub.PrincipalSchema, {
    ...common(row),
    name: principalName(row.organization_name, row.name),
    kind: kindNumbers[row.kind],
    disabled: row.disabled,
  })
}

export function toBinding(row: ShownBinding): hub.RoleBinding {
  const scope = {
    organization: row.workspace_name === null ? row.organization_name : null,
    workspace: row.workspace_name,
  }
  return create(hub.RoleBindingSchema, {
    name: bindingName(scope, row.name),
    principal: principalName(row.principal_organization, row.principal_name),
    role: roleNumbers[row.role],
    creator: row.created_by,
    createTime: toTime(row.created_at),
  })
}

export function toToken(row: TokenRow): hub.Token {
  return create(hub.TokenSchema, {
    name: resourceName('token', row.id),
    principal: row.principal,
    displayName: row.name,
    createTime: toTime(row.createdAt),
    expireTime: toTime(row.expiresAt),
    lastUseTime: toTime(row.lastUsedAt),
    revokeTime: toTime(row.revokedAt),
  })
}

interface GivenDescription {
  readonly displayName: string
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
}

/** What is to be there after a change: of the fields that are named what is given, and of the others what is there. */
export function mergeDescribed(
  row: OrganizationRow,
  given: GivenDescription,
  paths: ReadonlySet<string>,
  field: string,
): Described {
  return {
    displayName: paths.has('display_name') ? given.displayName : row.display_name,
    labels: paths.has('labels') ? checkedLabels(given.labels, `${field}.labels`) : row.labels,
    annotations: paths.has('annotations') ? given.annotations : row.annotations,
  }
}

export function fromDescribed(given: GivenDescription | undefined, field: string): Described {
  return {
    displayName: given?.displayName ?? '',
    labels: checkedLabels(given?.labels ?? {}, `${field}.labels`),
    annotations: given?.annotations ?? {},
  }
}

export function fromKind(kind: hub.PrincipalKind): PrincipalRow['kind'] | undefined {
  return nameOf(kindNumbers, kind)
}

/** What an update leaves of a principal. */
export function mergePrincipal(row: PrincipalRow, given: hub.Principal, paths: ReadonlySet<string>): PrincipalContent {
  return {
    ...mergeDescribed(row, given, paths, 'principal'),
    kind: row.kind,
    disabled: paths.has('disabled') ? given.disabled : row.disabled,
  }
}
