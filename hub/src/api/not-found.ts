import { HubError, type ErrorReason } from '../domain/error/errors.js'

// What is said of things that do not exist. The policy says the very same of things that a caller may not know of.

function notFound(reason: ErrorReason, what: string, key: string, name: string, advice = ''): HubError {
  return new HubError(reason, `there is no ${what} ${name}${advice}`, { metadata: { [key]: name } })
}

export const organizationNotFound = (name: string) =>
  notFound('ORGANIZATION_NOT_FOUND', 'organization', 'organization', name)
export const workspaceNotFound = (name: string) => notFound('WORKSPACE_NOT_FOUND', 'workspace', 'workspace', name)
export const principalNotFound = (name: string) => notFound('PRINCIPAL_NOT_FOUND', 'principal', 'principal', name)
export const bindingNotFound = (name: string) =>
  notFound('ROLE_BINDING_NOT_FOUND', 'role binding', 'role_binding', name)
export const tokenNotFound = (name: string) => notFound('TOKEN_NOT_FOUND', 'token', 'token', name)
export const identityNotFound = (name: string) => notFound('IDENTITY_NOT_FOUND', 'identity', 'identity', name)
export const hostNotFound = (name: string) =>
  notFound('HOST_NOT_FOUND', 'host', 'host', name, '; `slipway get hosts` lists them')
export const hostSetNotFound = (name: string) =>
  notFound('HOST_SET_NOT_FOUND', 'host set', 'host_set', name, '; `slipway get hostsets` lists them')
export const machineNotFound = (name: string) =>
  notFound('MACHINE_NOT_FOUND', 'machine', 'machine', name, '; `slipway get machines` lists them')
export const requestNotFound = (name: string) =>
  notFound('MACHINE_REQUEST_NOT_FOUND', 'machine request', 'machine_request', name)
export const eventNotFound = (id: string) =>
  new HubError('EVENT_NOT_FOUND', `there is no event ${id}, or it was trimmed`)
