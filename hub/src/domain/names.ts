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

const uuidPattern = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'
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

const collections = {
  provider: 'providers',
  machine_class: 'machineClasses',
  machine: 'machines',
  machine_request: 'machineRequests',
  event: 'events',
  workspace: 'workspaces',
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
