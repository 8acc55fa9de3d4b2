import fc from 'fast-check'
import t from 'tap'
import { allowedEverywhere, decide, maySpeakFor, reaches, scopesOf, type Grant, type Place } from './decide.js'
import { hubRoles, isHubRole, permissions, rolePermissions, roles, tenantRoles, type Permission } from './roles.js'

const organizations = ['a', 'b']
const workspaces: Readonly<Record<string, readonly string[]>> = { a: ['a-1', 'a-2'], b: ['b-1'] }
const places: readonly Place[] = [
  { organizationId: null, workspace: null },
  ...organizations.flatMap((organizationId): Place[] => [
    { organizationId, workspace: null },
    ...(workspaces[organizationId] ?? []).map((workspace) => ({ organizationId, workspace })),
  ]),
]
const tenantPlaces = places.filter((place) => place.organizationId !== null)

const anyGrant: fc.Arbitrary<Grant> = fc.oneof(
  fc.record({ role: fc.constantFrom(...hubRoles), organizationId: fc.constant(null), workspace: fc.constant(null) }),
  fc
    .record({ role: fc.constantFrom(...tenantRoles), place: fc.constantFrom(...tenantPlaces) })
    .map(({ role, place }): Grant => ({ role, ...place })),
)
const anyGrants = fc.array(anyGrant, { maxLength: 5 })
const anyPlace = fc.constantFrom(...places)
const anyPermission = fc.constantFrom<Permission>(...permissions)
const allowed = (grants: readonly Grant[], permission: Permission, place: Place) =>
  ['hub', 'tenant'].includes(decide(grants, permission, place))

void t.test('a decision', async (t) => {
  await t.test('is that of the single roles taken together', async () => {
    fc.assert(
      fc.property(anyGrants, anyPermission, anyPlace, (grants, permission, place) => {
        const one = grants.some((grant) => allowed([grant], permission, place))
        return allowed(grants, permission, place) === one
      }),
    )
  })

  await t.test('never reaches from one organization into another', async () => {
    fc.assert(
      fc.property(anyGrants, anyPermission, anyPlace, (grants, permission, place) => {
        const foreign = grants.filter(
          (grant) => !isHubRole(grant.role) && grant.organizationId !== place.organizationId,
        )
        const decision = decide(foreign, permission, place)
        return decision === (place.organizationId === null ? 'denied' : 'hidden')
      }),
    )
  })

  await t.test('never reaches from one workspace into another, or up', async () => {
    fc.assert(
      fc.property(anyGrants, anyPermission, anyPlace, (grants, permission, place) => {
        const beside = grants.filter(
          (grant) => !isHubRole(grant.role) && grant.workspace !== null && grant.workspace !== place.workspace,
        )
        return !allowed(beside, permission, place)
      }),
    )
  })

  await t.test('agrees with the scopes that lists are filtered by', async () => {
    fc.assert(
      fc.property(anyGrants, anyPermission, anyPlace, (grants, permission, place) => {
        if (allowedEverywhere(grants, permission)) return decide(grants, permission, place) === 'hub'
        return reaches(scopesOf(grants, permission), place) === (decide(grants, permission, place) === 'tenant')
      }),
    )
  })

  await t.test('hides nothing from whoever sees the whole hub', async () => {
    fc.assert(
      fc.property(anyGrants, anyPermission, anyPlace, (grants, permission, place) => {
        return !grants.some(({ role }) => isHubRole(role)) || decide(grants, permission, place) !== 'hidden'
      }),
    )
  })
})

void t.test('speaking for another gives nobody more than it could give itself', async () => {
  fc.assert(
    fc.property(anyGrants, anyGrants, anyPermission, anyPlace, (own, others, permission, place) => {
      if (!maySpeakFor(own, others)) return true
      return !allowed(others, permission, place) || allowed(own, permission, place)
    }),
  )
})

void t.test('roles', async (t) => {
  t.strictSame([...rolePermissions.ADMINISTRATOR].sort(), [...permissions].sort(), 'an administrator may do everything')
  t.ok(
    [...rolePermissions.AUDITOR, ...rolePermissions.VIEWER].every((permission) => permission.endsWith('.read')),
    'who looks changes nothing',
  )
  for (const permission of permissions.filter((each) => each.endsWith('.read'))) {
    t.ok(rolePermissions.AUDITOR.has(permission), `an auditor has ${permission}`)
  }
  for (const role of tenantRoles) {
    t.ok(
      [...rolePermissions[role]].every((permission) => rolePermissions.OWNER.has(permission)),
      `an owner may do all that ${role} may`,
    )
  }
  t.notOk(rolePermissions.OWNER.has('organization.manage'), 'no tenant makes or ends organizations')
  t.notOk(rolePermissions.PROVIDER_OPERATOR.has('token.write'))
  t.equal(roles.length, new Set(roles).size)
})
