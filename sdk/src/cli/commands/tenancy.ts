import { randomUUID } from 'node:crypto'
import * as hub from '@slipway/proto/hub/v1'
import { parseTimeout } from '../waiting.js'
import { usageError } from '../failure.js'
import { parsePriority } from '../resource-type.js'
import { resourceType } from '../resources.js'
import type { Session } from '../session.js'
import { shortPrincipal } from '../resources-tenancy.js'

// Organizations, workspaces, and who may do what in them.

interface Described {
  readonly displayName?: string
}

const organizationName = (id: string) => (id.includes('/') ? id : `organizations/${id}`)

/** `organization create NAME`. */
export async function createOrganization(session: Session, name: string, flags: Described): Promise<void> {
  const client = await session.client()
  const { organization } = await client.organizations.createOrganization({
    organizationId: name,
    organization: { displayName: flags.displayName ?? '' },
    requestId: randomUUID(),
  })
  if (organization !== undefined) session.printOne(resourceType('organization'), organization)
}

/** `workspace create NAME --organization ORG`. */
export async function createWorkspace(
  session: Session,
  name: string,
  flags: Described & { readonly organization: string },
): Promise<void> {
  const client = await session.client()
  const { workspace } = await client.workspaces.createWorkspace({
    parent: organizationName(flags.organization),
    workspaceId: name,
    workspace: { displayName: flags.displayName ?? '' },
    requestId: randomUUID(),
  })
  if (workspace !== undefined) session.printOne(resourceType('workspace'), workspace)
}

/** `workspace share NAME`. */
export async function setShare(
  session: Session,
  name: string,
  flags: { readonly weight?: string; readonly priority?: string; readonly maxPriority?: string },
): Promise<void> {
  const weight = Number(flags.weight ?? 1)
  if (!Number.isInteger(weight) || weight < 1 || weight > 1_000)
    throw usageError(`--weight ${flags.weight} must be a whole number from 1 to 1000`)
  const level = (word: string | undefined) => (word === undefined ? hub.Priority.UNSPECIFIED : parsePriority(word))
  const client = await session.client()
  const { workspace } = await client.workspaces.setWorkspaceShare({
    name: resourceType('workspace').fullName(name, session.workspace),
    share: { weight, priority: level(flags.priority), maxPriority: level(flags.maxPriority) },
  })
  if (workspace !== undefined) session.printOne(resourceType('workspace'), workspace)
}

/** `principal create NAME`: a service account, or with `--user` a person. */
export async function createPrincipal(
  session: Session,
  name: string,
  flags: Described & { readonly user?: boolean },
): Promise<void> {
  const full = resourceType('principal').fullName(name, session.workspace)
  const client = await session.client()
  const { principal } = await client.principals.createPrincipal({
    parent: full.startsWith('organizations/') ? full.split('/').slice(0, 2).join('/') : '',
    principalId: full.slice(full.lastIndexOf('/') + 1),
    principal: {
      kind: flags.user === true ? hub.PrincipalKind.USER : hub.PrincipalKind.SERVICE_ACCOUNT,
      displayName: flags.displayName ?? '',
    },
    requestId: randomUUID(),
  })
  if (principal !== undefined) session.printOne(resourceType('principal'), principal)
}

/** `principal enable|disable NAME`. */
export async function setDisabled(session: Session, name: string, disabled: boolean): Promise<void> {
  const client = await session.client()
  const { principal } = await client.principals.updatePrincipal({
    principal: { name: resourceType('principal').fullName(name, session.workspace), disabled },
    updateMask: { paths: ['disabled'] },
  })
  if (principal !== undefined) session.printOne(resourceType('principal'), principal)
}

/** `role bind ROLE PRINCIPAL`, somewhere or for the whole hub. @throws CliError. */
export async function bindRole(
  session: Session,
  word: string,
  principal: string,
  flags: { readonly organization?: string; readonly inWorkspace?: string },
): Promise<void> {
  const role = (hub.Role as unknown as Readonly<Record<string, hub.Role>>)[word.toUpperCase().replaceAll('-', '_')]
  if (typeof role !== 'number' || role === hub.Role.UNSPECIFIED)
    throw usageError(
      `there is no role ${word}; there are owner, operator, host-creator, viewer, administrator, provider-operator, auditor`,
    )
  if (flags.organization !== undefined && flags.inWorkspace !== undefined)
    throw usageError('give --organization or --in-workspace, and not both')
  const parent =
    flags.inWorkspace !== undefined
      ? `workspaces/${flags.inWorkspace}`
      : flags.organization === undefined
        ? ''
        : organizationName(flags.organization)
  const client = await session.client()
  const { roleBinding } = await client.roleBindings.createRoleBinding({
    parent,
    roleBinding: { principal: resourceType('principal').fullName(principal, session.workspace), role },
    requestId: randomUUID(),
  })
  if (roleBinding !== undefined) session.printOne(resourceType('rolebinding'), roleBinding)
}

/** `token create [PRINCIPAL]`: prints the token, and nothing else, on standard output. */
export async function createToken(
  session: Session,
  principal: string | undefined,
  flags: Described & { readonly ttl?: string },
): Promise<void> {
  const client = await session.client()
  const ttlMs = flags.ttl === undefined ? undefined : parseTimeout(flags.ttl)
  const made = await client.tokens.createToken({
    principal: principal === undefined ? '' : resourceType('principal').fullName(principal, session.workspace),
    displayName: flags.displayName ?? '',
    ...(ttlMs !== undefined && { ttl: { seconds: BigInt(Math.ceil(ttlMs / 1_000)) } }),
  })
  session.note(`Token of ${shortPrincipal(made.token?.principal ?? '')}. It is shown this once.`)
  session.printValue({ name: made.token?.name ?? '', secret: made.secret }, `${made.secret}\n`)
}

/** `token revoke ID`. */
export async function revokeToken(session: Session, id: string): Promise<void> {
  const client = await session.client()
  const { token } = await client.tokens.revokeToken({ name: resourceType('token').fullName(id, session.workspace) })
  if (token !== undefined) session.printOne(resourceType('token'), token)
}
