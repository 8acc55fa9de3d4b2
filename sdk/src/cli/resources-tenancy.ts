import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { follow } from '../client/watch.js'
import { age, collection, idOf, paged, priorityText, type ResourceType } from './resource-type.js'

// Organizations and what is theirs, for the generic commands.

export const organizations: ResourceType<hub.Organization> = {
  kind: 'Organization',
  singular: 'organization',
  plural: 'organizations',
  aliases: ['org', 'orgs'],
  schema: hub.OrganizationSchema,
  columns: [
    { heading: 'NAME', value: (organization) => idOf(organization.name) },
    { heading: 'DISPLAY NAME', value: (organization) => organization.displayName },
    { heading: 'AGE', value: (organization, now) => age(organization.createTime, now) },
  ],
  fullName: collection('organizations'),
  get: async (client, name) =>
    (await client.organizations.getOrganization({ name })).organization ?? create(hub.OrganizationSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const filter = { labelSelector: options.selector }
      const page = await client.organizations.listOrganizations({ pageSize: 500, pageToken, filter })
      return { rows: page.organizations, nextPageToken: page.nextPageToken }
    }),
  watch: (client, options, signal) =>
    follow(
      (revision, signal) =>
        client.organizations.watchOrganizations(
          { name: options.name, revision, filter: { labelSelector: options.selector } },
          { signal, timeoutMs: 0 },
        ),
      (change) => change.organization,
      { signal },
    ),
  state: () => '',
  terminal: [],
  ready: [''],
}

export const workspaces: ResourceType<hub.Workspace> = {
  kind: 'Workspace',
  singular: 'workspace',
  plural: 'workspaces',
  aliases: ['ws'],
  schema: hub.WorkspaceSchema,
  columns: [
    { heading: 'NAME', value: (workspace) => idOf(workspace.name) },
    { heading: 'ORGANIZATION', value: (workspace) => idOf(workspace.organization) },
    { heading: 'DISPLAY NAME', value: (workspace) => workspace.displayName },
    { heading: 'WEIGHT', wide: true, value: ({ share }) => String(share?.weight ?? 1) },
    {
      heading: 'PRIORITY',
      wide: true,
      value: ({ share }) =>
        share === undefined || share.maxPriority === share.priority
          ? priorityText(share?.priority ?? hub.Priority.NORMAL)
          : `${priorityText(share.priority)} to ${priorityText(share.maxPriority)}`,
    },
    { heading: 'AGE', value: (workspace, now) => age(workspace.createTime, now) },
  ],
  fullName: collection('workspaces'),
  get: async (client, name) =>
    (await client.workspaces.getWorkspace({ name })).workspace ?? create(hub.WorkspaceSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const filter = { labelSelector: options.selector }
      const page = await client.workspaces.listWorkspaces({ pageSize: 500, pageToken, filter })
      return { rows: page.workspaces, nextPageToken: page.nextPageToken }
    }),
  watch: (client, options, signal) =>
    follow(
      (revision, signal) =>
        client.workspaces.watchWorkspaces(
          { name: options.name, revision, filter: { labelSelector: options.selector } },
          { signal, timeoutMs: 0 },
        ),
      (change) => change.workspace,
      { signal },
    ),
  state: () => '',
  terminal: [],
  ready: [''],
}

export const principals: ResourceType<hub.Principal> = {
  kind: 'Principal',
  singular: 'principal',
  plural: 'principals',
  aliases: [],
  schema: hub.PrincipalSchema,
  columns: [
    { heading: 'NAME', value: (principal) => shortPrincipal(principal.name) },
    { heading: 'KIND', value: (principal) => hub.PrincipalKind[principal.kind].toLowerCase().replace('_', ' ') },
    { heading: 'STATE', value: (principal) => (principal.disabled ? 'disabled' : 'enabled') },
    { heading: 'DISPLAY NAME', value: (principal) => principal.displayName },
    { heading: 'AGE', value: (principal, now) => age(principal.createTime, now) },
  ],
  fullName: principalFullName,
  get: async (client, name) =>
    (await client.principals.getPrincipal({ name })).principal ?? create(hub.PrincipalSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const filter = { labelSelector: options.selector }
      const page = await client.principals.listPrincipals({ pageSize: 500, pageToken, filter })
      return { rows: page.principals, nextPageToken: page.nextPageToken }
    }),
  watch: (client, options, signal) =>
    follow(
      (revision, signal) =>
        client.principals.watchPrincipals(
          { name: options.name, revision, filter: { labelSelector: options.selector } },
          { signal, timeoutMs: 0 },
        ),
      (change) => change.principal,
      { signal },
    ),
  state: (principal) => (principal.disabled ? 'disabled' : 'enabled'),
  terminal: [],
  ready: ['enabled'],
}

export const roleBindings: ResourceType<hub.RoleBinding> = {
  kind: 'RoleBinding',
  singular: 'rolebinding',
  plural: 'rolebindings',
  aliases: ['roles', 'role'],
  schema: hub.RoleBindingSchema,
  columns: [
    { heading: 'NAME', value: (binding) => binding.name },
    { heading: 'ROLE', value: (binding) => hub.Role[binding.role].toLowerCase().replace('_', '-') },
    { heading: 'PRINCIPAL', value: (binding) => shortPrincipal(binding.principal) },
    { heading: 'BY', wide: true, value: (binding) => binding.creator },
    { heading: 'AGE', value: (binding, now) => age(binding.createTime, now) },
  ],
  fullName: collection('roleBindings'),
  get: async (client, name) =>
    (await client.roleBindings.getRoleBinding({ name })).roleBinding ?? create(hub.RoleBindingSchema),
  pages: (client) =>
    paged(async (pageToken) => {
      const page = await client.roleBindings.listRoleBindings({ pageSize: 500, pageToken })
      return { rows: page.roleBindings, nextPageToken: page.nextPageToken }
    }),
  state: () => '',
  terminal: [],
  ready: [''],
}

export const tokens: ResourceType<hub.Token> = {
  kind: 'Token',
  singular: 'token',
  plural: 'tokens',
  aliases: [],
  schema: hub.TokenSchema,
  columns: [
    { heading: 'ID', value: (token) => idOf(token.name) },
    { heading: 'PRINCIPAL', value: (token) => shortPrincipal(token.principal) },
    { heading: 'STATE', value: tokenState },
    {
      heading: 'USED',
      value: (token, now) => (token.lastUseTime === undefined ? 'never' : age(token.lastUseTime, now)),
    },
    { heading: 'DISPLAY NAME', value: (token) => token.displayName },
    { heading: 'AGE', value: (token, now) => age(token.createTime, now) },
  ],
  fullName: collection('tokens'),
  get: async (client, name) => (await client.tokens.getToken({ name })).token ?? create(hub.TokenSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const page = await client.tokens.listTokens({ pageSize: 500, pageToken, showEnded: options.all })
      return { rows: page.tokens, nextPageToken: page.nextPageToken }
    }),
  state: tokenState,
  terminal: ['revoked'],
  ready: ['valid'],
}

function tokenState(token: hub.Token): string {
  if (token.revokeTime !== undefined) return 'revoked'
  return token.expireTime !== undefined && Number(token.expireTime.seconds) * 1_000 <= Date.now() ? 'expired' : 'valid'
}

/** `ada` is the hub's own; `acme/ada` is of the organization acme. */
function principalFullName(id: string): string {
  const [first = '', second, ...rest] = id.split('/')
  if (second === undefined) return `principals/${first}`
  return rest.length === 0 && first !== 'principals' ? `organizations/${first}/principals/${second}` : id
}

/** A principal's name as people write it. */
export function shortPrincipal(name: string): string {
  return name.replace(/^organizations\/([^/]+)\/principals\//, '$1/').replace(/^principals\//, '')
}
