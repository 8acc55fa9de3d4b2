// Roles, and what each of them allows. A role of a tenant is bound at an organization, for all that is in it, or at one of its workspaces; a role of the hub concerns everything.

/** What there is to be allowed, `{resource}.{what}`. Whatever ends in `.read` changes nothing. */
export const permissions = [
  'organization.read',
  'organization.write',
  'organization.manage',
  'workspace.read',
  'workspace.write',
  'principal.read',
  'principal.write',
  'role.read',
  'role.write',
  'token.read',
  'token.write',
  'host.read',
  'host.create',
  'host.write',
  'host.prioritize',
  'host.adopt',
  'class.read',
  'class.write',
  'machine.read',
  'machine.power',
  'machine.rescue',
  // Not one of those that only read: what systems write there may hold secrets.
  'machine.console',
  'machine.write',
  'request.read',
  'request.write',
  'provider.read',
  'provider.write',
  'pool.read',
  'pool.write',
  'share.write',
  'orphan.read',
  'orphan.write',
  'secret.read',
  'secret.write',
  'quota.read',
  'quota.write',
  'price.read',
  'price.write',
  'agreement.read',
  'usage.read',
  'event.read',
  'audit.read',
] as const
export type Permission = (typeof permissions)[number]

export const tenantRoles = ['OWNER', 'OPERATOR', 'HOST_CREATOR', 'VIEWER'] as const
export const hubRoles = ['ADMINISTRATOR', 'PROVIDER_OPERATOR', 'AUDITOR'] as const
export type TenantRole = (typeof tenantRoles)[number]
export type HubRole = (typeof hubRoles)[number]
export type Role = TenantRole | HubRole
export const roles: readonly Role[] = [...tenantRoles, ...hubRoles]

export function isHubRole(role: Role): role is HubRole {
  return hubRoles.some((candidate) => candidate === role)
}

const viewer: readonly Permission[] = [
  'organization.read',
  'workspace.read',
  'host.read',
  'class.read',
  'machine.read',
  'request.read',
  'provider.read',
  'quota.read',
  'usage.read',
  'event.read',
]
const hostCreator: readonly Permission[] = [
  'organization.read',
  'workspace.read',
  'host.read',
  'host.create',
  'host.write',
  'class.read',
  'provider.read',
  'quota.read',
  'event.read',
]
const operator: readonly Permission[] = [
  ...viewer,
  'host.create',
  'host.write',
  'host.prioritize',
  'host.adopt',
  'machine.power',
  'machine.rescue',
  'machine.console',
  'principal.read',
  'role.read',
  'secret.read',
]
const owner: readonly Permission[] = [
  ...operator,
  'organization.write',
  'workspace.write',
  'principal.write',
  'role.write',
  'token.read',
  'token.write',
  'secret.write',
  'agreement.read',
  'audit.read',
]
const providerOperator: readonly Permission[] = [
  'organization.read',
  'workspace.read',
  'host.read',
  'class.read',
  'class.write',
  'machine.read',
  'machine.power',
  'machine.rescue',
  'machine.console',
  'machine.write',
  'request.read',
  'request.write',
  'provider.read',
  'provider.write',
  'pool.read',
  'pool.write',
  'orphan.read',
  'orphan.write',
  'event.read',
]

/** What each role allows. */
export const rolePermissions: Readonly<Record<Role, ReadonlySet<Permission>>> = {
  OWNER: new Set(owner),
  OPERATOR: new Set(operator),
  HOST_CREATOR: new Set(hostCreator),
  VIEWER: new Set(viewer),
  ADMINISTRATOR: new Set(permissions),
  PROVIDER_OPERATOR: new Set(providerOperator),
  AUDITOR: new Set(permissions.filter((permission) => permission.endsWith('.read'))),
}
