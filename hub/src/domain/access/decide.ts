import { isHubRole, rolePermissions, type Permission, type Role } from './roles.js'

// Who may do what, and where: the whole of the decision, and nothing but it.

/** A role, and where it is bound. */
export interface Grant {
  readonly role: Role
  /** Null: the whole hub. */
  readonly organizationId: string | null
  /** The name of a workspace. Null: the organization and all of its workspaces. */
  readonly workspace: string | null
}

/** Where something is to be done. */
export interface Place {
  /** Null: it belongs to the hub itself. */
  readonly organizationId: string | null
  /** Null: it belongs to the organization as a whole. */
  readonly workspace: string | null
}

/** Places that some grants speak of, the whole hub apart. */
export interface Scopes {
  readonly organizationIds: readonly string[]
  /** Names of single workspaces. */
  readonly workspaces: readonly string[]
}

export const nowhere: Scopes = { organizationIds: [], workspaces: [] }

/**
 * `hub`: allowed by a role of the whole hub. `tenant`: allowed by one of an organization or workspace. `denied`: known to the caller, who may not do that. `hidden`: the
 * caller is to be told what is told of things that do not exist.
 */
export type Decision = 'hub' | 'tenant' | 'denied' | 'hidden'

/** Whether a role of the whole hub allows something. */
export function allowedEverywhere(grants: readonly Grant[], permission: Permission): boolean {
  return grants.some((grant) => isHubRole(grant.role) && rolePermissions[grant.role].has(permission))
}

/** Decides about one place. */
export function decide(grants: readonly Grant[], permission: Permission, place: Place): Decision {
  if (allowedEverywhere(grants, permission)) return 'hub'
  const here = grants.filter((grant) => covers(grant, place))
  if (here.some((grant) => !isHubRole(grant.role) && rolePermissions[grant.role].has(permission))) return 'tenant'
  // What belongs to the hub is no tenant's secret, and there is nothing of it that only some may know of.
  if (place.organizationId === null) return 'denied'
  const inside = grants.some((grant) => grant.organizationId === place.organizationId)
  return here.length > 0 || (inside && place.workspace === null) ? 'denied' : 'hidden'
}

/** Whether what a grant allows, it allows there. */
export function covers(grant: Grant, place: Place): boolean {
  if (isHubRole(grant.role)) return true
  if (grant.organizationId === null || grant.organizationId !== place.organizationId) return false
  return grant.workspace === null || grant.workspace === place.workspace
}

/** Where tenants' roles allow something; without a permission, wherever there is any role. */
export function scopesOf(grants: readonly Grant[], permission?: Permission): Scopes {
  const allowing = grants.filter(
    ({ role }) => !isHubRole(role) && (permission === undefined || rolePermissions[role].has(permission)),
  )
  return {
    organizationIds: distinct(
      allowing.flatMap(({ organizationId, workspace }) =>
        organizationId !== null && workspace === null ? [organizationId] : [],
      ),
    ),
    workspaces: distinct(allowing.flatMap(({ workspace }) => workspace ?? [])),
  }
}

function distinct(values: readonly string[]): readonly string[] {
  return [...new Set(values)].sort()
}

/** Whether scopes name any place at all. */
export function isAnywhere(scopes: Scopes): boolean {
  return scopes.organizationIds.length + scopes.workspaces.length > 0
}

/** Whether scopes take in a place. */
export function reaches(scopes: Scopes, place: Place): boolean {
  return (
    (place.organizationId !== null && scopes.organizationIds.includes(place.organizationId)) ||
    (place.workspace !== null && scopes.workspaces.includes(place.workspace))
  )
}

/**
 * Whether whoever has some grants may speak for whoever has others: only where each of those is one that it could have given. Otherwise a token, or another way to log in,
 * would be a way to more than one has.
 */
export function maySpeakFor(own: readonly Grant[], others: readonly Grant[]): boolean {
  return others.every((grant) => {
    const decision = decide(own, 'role.write', grant)
    return decision === 'hub' || (decision === 'tenant' && !isHubRole(grant.role))
  })
}
