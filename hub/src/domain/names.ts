import { HubError } from './error/errors.js'

// Names and keys. Resource names are what the API shows; short names are their last part.

/** A short, unique name of a machine, request or orphan: the prefix and the random tail of its UUID. */
export function shortName(prefix: 'm' | 'r' | 'o', id: string): string {
  return `${prefix}-${id.replaceAll('-', '').slice(-12)}`
}

/**
 * The name of a machine out there: the hostname's first label, so that people know it, and the tail of the request's id, so that it is unique and the same
 * for every try. A DNS label of at most 63 characters.
 */
export function externalName(hostname: string, requestId: string): string {
  const label = (hostname.split('.')[0] ?? '').replace(/[^a-z0-9-]/g, '-').slice(0, 40)
  const start = /^[a-z]/.test(label) ? label : `h-${label}`
  return `${start.replace(/-+$/, '')}-${requestId.replaceAll('-', '').slice(-12)}`
}

/** What everything carries that is created for a request: this hub's id, and the request's. */
export function ownershipKey(hubId: string, requestId: string): string {
  return `${hubId}/${requestId}`
}

/** The source of a regular expression for one id, in the form in which ids are written everywhere. */
export const uuidPattern = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'
const keyPattern = new RegExp(`^(${uuidPattern})/(${uuidPattern})$`)

/** An ownership key's two halves, or undefined for a key that no hub made. */
export function parseOwnershipKey(key: string): { readonly hubId: string; readonly requestId: string } | undefined {
  const match = keyPattern.exec(key)
  return match?.[1] === undefined || match[2] === undefined ? undefined : { hubId: match[1], requestId: match[2] }
}

/** Whether a key speaks of this hub at all, readable or not. */
export function isKeyOf(hubId: string, key: string): boolean {
  return key.startsWith(`${hubId}/`)
}

/** `workspaces/{workspace}/hosts/{id}`. */
export function hostName(workspace: string, id: string): string {
  return `workspaces/${workspace}/hosts/${id}`
}

/** `workspaces/{workspace}/hostSets/{id}`. */
export function hostSetName(workspace: string, id: string): string {
  return `workspaces/${workspace}/hostSets/${id}`
}

/** The workspace and id in a host set's resource name. @throws HubError INVALID_FIELD. */
export function parseHostSetName(name: string, field = 'name'): { readonly workspace: string; readonly id: string } {
  const match = /^workspaces\/([^/]+)\/hostSets\/([^/]+)$/.exec(name)
  if (match?.[1] !== undefined && match[2] !== undefined) return { workspace: match[1], id: match[2] }
  throw malformed(field, 'workspaces/{workspace}/hostSets/{id}', name)
}

const collections = {
  provider: 'providers',
  machine_class: 'machineClasses',
  machine: 'machines',
  machine_request: 'machineRequests',
  event: 'events',
  workspace: 'workspaces',
  token: 'tokens',
  organization: 'organizations',
  price_list: 'priceLists',
  provider_pool: 'providerPools',
} as const

export type Collection = keyof typeof collections

/** `{collection}/{id}`. */
export function resourceName(collection: Collection, id: string): string {
  return `${collections[collection]}/${id}`
}

/**
 * The id in a resource name.
 *
 * @param field to complain about.
 * @throws HubError INVALID_FIELD.
 */
export function parseResourceName(collection: Collection, name: string, field = 'name'): string {
  const prefix = `${collections[collection]}/`
  const id = name.startsWith(prefix) ? name.slice(prefix.length) : ''
  if (id !== '' && !id.includes('/')) return id
  const description = `must be of the form ${prefix}{id}, but is «${name.slice(0, 100)}»`
  throw new HubError('INVALID_FIELD', `${field}: ${description}`, { violations: [{ field, description }] })
}

/** `providers/{provider}/orphans/{id}`. */
export function orphanName(provider: string, id: string): string {
  return `providers/${provider}/orphans/${id}`
}

/** The provider and id in an orphan's resource name. @throws HubError INVALID_FIELD. */
export function parseOrphanName(name: string, field = 'name'): { readonly provider: string; readonly id: string } {
  const match = /^providers\/([^/]+)\/orphans\/([^/]+)$/.exec(name)
  if (match?.[1] !== undefined && match[2] !== undefined) return { provider: match[1], id: match[2] }
  const description = `must be of the form providers/{provider}/orphans/{id}, but is «${name.slice(0, 100)}»`
  throw new HubError('INVALID_FIELD', `${field}: ${description}`, { violations: [{ field, description }] })
}

/** The workspace and id in a host's resource name. @throws HubError INVALID_FIELD. */
export function parseHostName(name: string, field = 'name'): { readonly workspace: string; readonly id: string } {
  const match = /^workspaces\/([^/]+)\/hosts\/([^/]+)$/.exec(name)
  if (match?.[1] !== undefined && match[2] !== undefined) return { workspace: match[1], id: match[2] }
  const description = `must be of the form workspaces/{workspace}/hosts/{id}, but is «${name.slice(0, 100)}»`
  throw new HubError('INVALID_FIELD', `${field}: ${description}`, { violations: [{ field, description }] })
}

/** `organizations/{organization}/secrets/{id}`. */
export function secretName(organization: string, id: string): string {
  return `organizations/${organization}/secrets/${id}`
}

/** The organization and id in a secret's resource name. @throws HubError INVALID_FIELD. */
export function parseSecretName(name: string, field = 'name'): { readonly organization: string; readonly id: string } {
  return parseInOrganization('secrets', name, field)
}

/** `organizations/{organization}/quotas/{id}`. */
export function quotaName(organization: string, id: string): string {
  return `organizations/${organization}/quotas/${id}`
}

/** The organization and id in a quota's resource name. @throws HubError INVALID_FIELD. */
export function parseQuotaName(name: string, field = 'name'): { readonly organization: string; readonly id: string } {
  return parseInOrganization('quotas', name, field)
}

/** `organizations/{organization}/billingAgreements/{id}`. */
export function agreementName(organization: string, id: string): string {
  return `organizations/${organization}/billingAgreements/${id}`
}

/** The organization and id in a billing agreement's resource name. @throws HubError INVALID_FIELD. */
export function parseAgreementName(
  name: string,
  field = 'name',
): { readonly organization: string; readonly id: string } {
  return parseInOrganization('billingAgreements', name, field)
}

function parseInOrganization(collection: string, name: string, field: string) {
  const [first, organization = '', second, id = '', ...rest] = name.split('/')
  if (first === 'organizations' && second === collection && organization !== '' && id !== '' && rest.length === 0)
    return { organization, id }
  const description = `must be of the form organizations/{organization}/${collection}/{id}, but is «${name.slice(0, 100)}»`
  throw new HubError('INVALID_FIELD', `${field}: ${description}`, { violations: [{ field, description }] })
}

function malformed(field: string, form: string, name: string): HubError {
  const description = `must be of the form ${form}, but is «${name.slice(0, 100)}»`
  return new HubError('INVALID_FIELD', `${field}: ${description}`, { violations: [{ field, description }] })
}

/** `organizations/{organization}/principals/{id}`, or `principals/{id}` for one of the hub itself. */
export function principalName(organization: string | null, id: string): string {
  return organization === null ? `principals/${id}` : `organizations/${organization}/principals/${id}`
}

/** The organization (null: the hub itself) and id in a principal's resource name. @throws HubError INVALID_FIELD. */
export function parsePrincipalName(
  name: string,
  field = 'name',
): { readonly organization: string | null; readonly id: string } {
  const match = /^(?:organizations\/([^/]+)\/)?principals\/([^/]+)$/.exec(name)
  if (match?.[2] !== undefined) return { organization: match[1] ?? null, id: match[2] }
  throw malformed(field, 'organizations/{organization}/principals/{id} or principals/{id}', name)
}

/** The name of an identity: that of its principal, and its own. */
export function identityName(principal: string, id: string): string {
  return `${principal}/identities/${id}`
}

/** The principal's name and the id in an identity's resource name. @throws HubError INVALID_FIELD. */
export function parseIdentityName(name: string, field = 'name'): { readonly principal: string; readonly id: string } {
  const match = /^((?:organizations\/[^/]+\/)?principals\/[^/]+)\/identities\/([^/]+)$/.exec(name)
  if (match?.[1] === undefined || match[2] === undefined) throw malformed(field, '{principal}/identities/{id}', name)
  return { principal: match[1], id: match[2] }
}

/** Where a role is bound, or something else of tenancy is kept. Both null: the whole hub. */
export interface ScopeName {
  readonly organization: string | null
  readonly workspace: string | null
}

/** `organizations/{id}`, `workspaces/{id}`, or nothing for the whole hub. */
export function scopeName({ organization, workspace }: ScopeName): string {
  if (workspace !== null) return resourceName('workspace', workspace)
  return organization === null ? '' : resourceName('organization', organization)
}

/** @throws HubError INVALID_FIELD. */
export function parseScopeName(name: string, field = 'parent'): ScopeName {
  if (name === '') return { organization: null, workspace: null }
  const match = /^(organizations|workspaces)\/([^/]+)$/.exec(name)
  if (match?.[2] === undefined) throw malformed(field, 'organizations/{id} or workspaces/{id}, or empty', name)
  return match[1] === 'workspaces'
    ? { organization: null, workspace: match[2] }
    : { organization: match[2], workspace: null }
}

/** The name of a role binding: that of its scope, and its own. */
export function bindingName(scope: ScopeName, id: string): string {
  const parent = scopeName(scope)
  return parent === '' ? `roleBindings/${id}` : `${parent}/roleBindings/${id}`
}

/** @throws HubError INVALID_FIELD. */
export function parseBindingName(name: string, field = 'name'): { readonly scope: ScopeName; readonly id: string } {
  const match = /^(?:((?:organizations|workspaces)\/[^/]+)\/)?roleBindings\/([^/]+)$/.exec(name)
  if (match?.[2] === undefined) throw malformed(field, '{scope}/roleBindings/{id} or roleBindings/{id}', name)
  return { scope: parseScopeName(match[1] ?? '', field), id: match[2] }
}
