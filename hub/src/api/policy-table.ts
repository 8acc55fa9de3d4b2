import type { DescService, Message, MessageShape } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import type { Permission } from '../domain/access/roles.js'
import type { HubError } from '../domain/error/errors.js'
import {
  parseAgreementName,
  parseBindingName,
  parseHostName,
  parseHostSetName,
  parseIdentityName,
  parsePrincipalName,
  parseQuotaName,
  parseResourceName,
  parseScopeName,
  parseSecretName,
  type ScopeName,
} from '../domain/names.js'
import * as missing from './not-found.js'
import { agreementNotFound } from './price-resources.js'
import { quotaNotFound } from './quota-resources.js'
import { secretNotFound } from './secret-resources.js'

// What each method of the client API asks of its caller, and where: one entry a method. One that is missing does not compile, and keeps the hub from starting.

/** What the place of a call is found by. */
export type PlaceName =
  | {
      readonly of: 'organization' | 'workspace' | 'machine' | 'machine_request' | 'event' | 'token'
      readonly id: string
    }
  | { readonly of: 'principal'; readonly organization: string | null; readonly name: string }

/** Where a call wants to do something. */
export type Target =
  /** To what belongs to the hub as a whole. */
  | { readonly kind: 'hub' }
  /** Wherever it may: its answer is made of what it may see. */
  | { readonly kind: 'anywhere' }
  /** To what is its own, and wherever else it may. */
  | { readonly kind: 'own' }
  | {
      readonly kind: 'place'
      readonly at: PlaceName
      /** What is answered where the caller may not know of it: the very same as where it does not exist. */
      readonly hidden: () => HubError
    }

/** `public`: nobody is asked who they are. `authenticated`: anybody who is let in. */
export type Rule<Input = Message> =
  'public' | 'authenticated' | { readonly permission: Permission; readonly target: (request: Input) => Target }

type Rules<Service extends DescService> = {
  readonly [Method in keyof Service['method']]: Rule<MessageShape<Service['method'][Method]['input']>>
}

const hubWide = (permission: Permission) => ({ permission, target: (): Target => ({ kind: 'hub' }) })
const anywhere = (permission: Permission) => ({ permission, target: (): Target => ({ kind: 'anywhere' }) })

function inOrganization(id: string, hidden: () => HubError): Target {
  return { kind: 'place', at: { of: 'organization', id }, hidden }
}
function inWorkspace(id: string, hidden: () => HubError): Target {
  return { kind: 'place', at: { of: 'workspace', id }, hidden }
}
function organization(name: string, field: string): Target {
  const id = parseResourceName('organization', name, field)
  return inOrganization(id, () => missing.organizationNotFound(id))
}
function workspace(name: string, field: string): Target {
  const id = parseResourceName('workspace', name, field)
  return inWorkspace(id, () => missing.workspaceNotFound(id))
}
function host(name: string): Target {
  return inWorkspace(parseHostName(name).workspace, () => missing.hostNotFound(name))
}
function hostSet(name: string): Target {
  return inWorkspace(parseHostSetName(name).workspace, () => missing.hostSetNotFound(name))
}
function machine(name: string): Target {
  const id = parseResourceName('machine', name)
  return { kind: 'place', at: { of: 'machine', id }, hidden: () => missing.machineNotFound(id) }
}
function machineRequest(name: string): Target {
  const id = parseResourceName('machine_request', name)
  return { kind: 'place', at: { of: 'machine_request', id }, hidden: () => missing.requestNotFound(id) }
}
function token(name: string): Target {
  const id = parseResourceName('token', name)
  return { kind: 'place', at: { of: 'token', id }, hidden: () => missing.tokenNotFound(name) }
}
function event(name: string): Target {
  const id = parseResourceName('event', name)
  return { kind: 'place', at: { of: 'event', id }, hidden: () => missing.eventNotFound(id) }
}
function principal(name: string, field: string): Target {
  const { organization } = parsePrincipalName(name, field)
  return {
    kind: 'place',
    at: { of: 'principal', organization, name },
    hidden: () => missing.principalNotFound(name),
  }
}
function identity(name: string): Target {
  const target = principal(parseIdentityName(name).principal, 'name')
  return target.kind === 'place' ? { ...target, hidden: () => missing.identityNotFound(name) } : target
}
function scope(name: ScopeName, hidden?: () => HubError): Target {
  if (name.workspace !== null) {
    const id = name.workspace
    return inWorkspace(id, hidden ?? (() => missing.workspaceNotFound(id)))
  }
  const id = name.organization
  return id === null ? { kind: 'hub' } : inOrganization(id, hidden ?? (() => missing.organizationNotFound(id)))
}
function scopeToList(name: string): Target {
  return name === '' ? { kind: 'anywhere' } : scope(parseScopeName(name))
}
function organizationOrHub(name: string): Target {
  return name === '' ? { kind: 'hub' } : organization(name, 'parent')
}
function binding(name: string): Target {
  return scope(parseBindingName(name).scope, () => missing.bindingNotFound(name))
}
function organizationToList(parent: string): Target {
  return parent === 'organizations/-' ? { kind: 'anywhere' } : organization(parent, 'parent')
}
function agreement(name: string): Target {
  return inOrganization(parseAgreementName(name).organization, () => agreementNotFound(name))
}
function quota(name: string): Target {
  return inOrganization(parseQuotaName(name).organization, () => quotaNotFound(name))
}
function secret(name: string, field: string): Target {
  return inOrganization(parseSecretName(name, field).organization, () => secretNotFound(name, field))
}

const organizations: Rules<typeof hub.OrganizationService> = {
  createOrganization: hubWide('organization.manage'),
  getOrganization: { permission: 'organization.read', target: ({ name }) => organization(name, 'name') },
  listOrganizations: anywhere('organization.read'),
  updateOrganization: {
    permission: 'organization.write',
    target: (request) => organization(request.organization?.name ?? '', 'organization.name'),
  },
  deleteOrganization: { permission: 'organization.manage', target: ({ name }) => organization(name, 'name') },
  watchOrganizations: anywhere('organization.read'),
}

const workspaces: Rules<typeof hub.WorkspaceService> = {
  createWorkspace: { permission: 'workspace.write', target: ({ parent }) => organization(parent, 'parent') },
  getWorkspace: { permission: 'workspace.read', target: ({ name }) => workspace(name, 'name') },
  listWorkspaces: anywhere('workspace.read'),
  updateWorkspace: {
    permission: 'workspace.write',
    target: (request) => workspace(request.workspace?.name ?? '', 'workspace.name'),
  },
  deleteWorkspace: { permission: 'workspace.write', target: ({ name }) => workspace(name, 'name') },
  setWorkspaceShare: hubWide('share.write'),
  watchWorkspaces: anywhere('workspace.read'),
}

const principals: Rules<typeof hub.PrincipalService> = {
  createPrincipal: { permission: 'principal.write', target: ({ parent }) => organizationOrHub(parent) },
  getPrincipal: { permission: 'principal.read', target: ({ name }) => principal(name, 'name') },
  listPrincipals: anywhere('principal.read'),
  updatePrincipal: {
    permission: 'principal.write',
    target: (request) => principal(request.principal?.name ?? '', 'principal.name'),
  },
  deletePrincipal: { permission: 'principal.write', target: ({ name }) => principal(name, 'name') },
  watchPrincipals: anywhere('principal.read'),
}

const roleBindings: Rules<typeof hub.RoleBindingService> = {
  createRoleBinding: { permission: 'role.write', target: ({ parent }) => scope(parseScopeName(parent)) },
  getRoleBinding: { permission: 'role.read', target: ({ name }) => binding(name) },
  listRoleBindings: { permission: 'role.read', target: ({ parent }) => scopeToList(parent) },
  deleteRoleBinding: { permission: 'role.write', target: ({ name }) => binding(name) },
}

const tokens: Rules<typeof hub.TokenService> = {
  createToken: {
    permission: 'token.write',
    target: (request) => (request.principal === '' ? { kind: 'own' } : principal(request.principal, 'principal')),
  },
  getToken: { permission: 'token.read', target: ({ name }) => token(name) },
  listTokens: { permission: 'token.read', target: () => ({ kind: 'own' }) },
  revokeToken: { permission: 'token.write', target: ({ name }) => token(name) },
}

const identities: Rules<typeof hub.IdentityService> = {
  createIdentity: { permission: 'principal.write', target: ({ parent }) => principal(parent, 'parent') },
  listIdentities: { permission: 'principal.read', target: ({ parent }) => principal(parent, 'parent') },
  deleteIdentity: { permission: 'principal.write', target: ({ name }) => identity(name) },
}

const audit: Rules<typeof hub.AuditService> = {
  listAuditEntries: { permission: 'audit.read', target: ({ parent }) => organizationOrHub(parent) },
  getAuditHead: { permission: 'audit.read', target: ({ parent }) => organizationOrHub(parent) },
  verifyAudit: { permission: 'audit.read', target: ({ parent }) => organizationOrHub(parent) },
}

const secrets: Rules<typeof hub.SecretService> = {
  createSecret: { permission: 'secret.write', target: ({ parent }) => organization(parent, 'parent') },
  getSecret: { permission: 'secret.read', target: ({ name }) => secret(name, 'name') },
  listSecrets: { permission: 'secret.read', target: ({ parent }) => organizationToList(parent) },
  updateSecret: {
    permission: 'secret.write',
    target: (request) => secret(request.secret?.name ?? '', 'secret.name'),
  },
  deleteSecret: { permission: 'secret.write', target: ({ name }) => secret(name, 'name') },
}

// Who is limited does not set the limits, nor the prices.
const quotas: Rules<typeof hub.QuotaService> = {
  createQuota: hubWide('quota.write'),
  getQuota: { permission: 'quota.read', target: ({ name }) => quota(name) },
  listQuotas: { permission: 'quota.read', target: ({ parent }) => organizationToList(parent) },
  updateQuota: hubWide('quota.write'),
  deleteQuota: hubWide('quota.write'),
}

const priceLists: Rules<typeof hub.PriceListService> = {
  createPriceList: hubWide('price.write'),
  getPriceList: hubWide('price.read'),
  listPriceLists: hubWide('price.read'),
  updatePriceList: hubWide('price.write'),
  deletePriceList: hubWide('price.write'),
}

const agreements: Rules<typeof hub.BillingAgreementService> = {
  createBillingAgreement: hubWide('price.write'),
  getBillingAgreement: { permission: 'agreement.read', target: ({ name }) => agreement(name) },
  listBillingAgreements: { permission: 'agreement.read', target: ({ parent }) => organizationToList(parent) },
  updateBillingAgreement: hubWide('price.write'),
  deleteBillingAgreement: hubWide('price.write'),
}

const catalog: Rules<typeof hub.CatalogService> = {
  listCatalog: { permission: 'class.read', target: ({ parent }) => workspace(parent, 'parent') },
}

const usage: Rules<typeof hub.UsageService> = {
  listUsage: { permission: 'usage.read', target: ({ parent }) => scope(parseScopeName(parent)) },
}

const hosts: Rules<typeof hub.HostService> = {
  createHost: { permission: 'host.create', target: ({ parent }) => workspace(parent, 'parent') },
  getHost: { permission: 'host.read', target: ({ name }) => host(name) },
  listHosts: anywhere('host.read'),
  updateHost: { permission: 'host.write', target: (request) => host(request.host?.name ?? '') },
  deleteHost: { permission: 'host.write', target: ({ name }) => host(name) },
  retryHost: { permission: 'host.write', target: ({ name }) => host(name) },
  reinstallHost: { permission: 'host.write', target: ({ name }) => host(name) },
  // At which providers is asked there: what is at one that others use too may be theirs.
  adoptHost: { permission: 'host.adopt', target: ({ parent }) => workspace(parent, 'parent') },
  watchHosts: anywhere('host.read'),
}

// To want more members is to order them.
const hostSets: Rules<typeof hub.HostSetService> = {
  createHostSet: { permission: 'host.create', target: ({ parent }) => workspace(parent, 'parent') },
  getHostSet: { permission: 'host.read', target: ({ name }) => hostSet(name) },
  listHostSets: anywhere('host.read'),
  updateHostSet: { permission: 'host.create', target: (request) => hostSet(request.hostSet?.name ?? '') },
  deleteHostSet: { permission: 'host.write', target: ({ name }) => hostSet(name) },
  pauseHostSet: { permission: 'host.write', target: ({ name }) => hostSet(name) },
  resumeHostSet: { permission: 'host.write', target: ({ name }) => hostSet(name) },
  watchHostSets: anywhere('host.read'),
}

const machineClasses: Rules<typeof hub.MachineClassService> = {
  createMachineClass: hubWide('class.write'),
  getMachineClass: anywhere('class.read'),
  listMachineClasses: anywhere('class.read'),
  updateMachineClass: hubWide('class.write'),
  deleteMachineClass: hubWide('class.write'),
  watchMachineClasses: anywhere('class.read'),
}

const machines: Rules<typeof hub.MachineService> = {
  getMachine: { permission: 'machine.read', target: ({ name }) => machine(name) },
  listMachines: anywhere('machine.read'),
  updateMachine: hubWide('machine.write'),
  deleteMachine: hubWide('machine.write'),
  watchMachines: anywhere('machine.read'),
  setMachinePower: { permission: 'machine.power', target: ({ name }) => machine(name) },
  setMachineRescue: { permission: 'machine.rescue', target: ({ name }) => machine(name) },
  streamMachineConsole: { permission: 'machine.console', target: ({ name }) => machine(name) },
  acceptMachine: hubWide('machine.write'),
  setMachineMaintenance: hubWide('machine.write'),
  holdMachine: hubWide('machine.write'),
  unholdMachine: hubWide('machine.write'),
  adoptMachine: hubWide('machine.write'),
  moveMachine: hubWide('machine.write'),
  retryMachine: hubWide('machine.write'),
}

const machineRequests: Rules<typeof hub.MachineRequestService> = {
  getMachineRequest: { permission: 'request.read', target: ({ name }) => machineRequest(name) },
  listMachineRequests: anywhere('request.read'),
  watchMachineRequests: anywhere('request.read'),
  retryMachineRequest: hubWide('request.write'),
  forgetMachineRequest: hubWide('request.write'),
}

const providers: Rules<typeof hub.ProviderService> = {
  createProvider: hubWide('provider.write'),
  // Which of them may be seen is the database's to say: what may be used.
  getProvider: anywhere('provider.read'),
  listProviders: anywhere('provider.read'),
  updateProvider: hubWide('provider.write'),
  deleteProvider: hubWide('provider.write'),
  watchProviders: anywhere('provider.read'),
  createJoinToken: hubWide('provider.write'),
  releaseHolds: hubWide('provider.write'),
}

const providerPools: Rules<typeof hub.ProviderPoolService> = {
  createProviderPool: hubWide('pool.write'),
  getProviderPool: hubWide('pool.read'),
  listProviderPools: hubWide('pool.read'),
  updateProviderPool: hubWide('pool.write'),
  deleteProviderPool: hubWide('pool.write'),
  claimProvider: hubWide('pool.write'),
  releaseProvider: hubWide('pool.write'),
}

const orphans: Rules<typeof hub.OrphanService> = {
  getOrphan: hubWide('orphan.read'),
  listOrphans: hubWide('orphan.read'),
  removeOrphan: hubWide('orphan.write'),
  keepOrphan: hubWide('orphan.write'),
}

const events: Rules<typeof hub.EventService> = {
  getEvent: { permission: 'event.read', target: ({ name }) => event(name) },
  listEvents: anywhere('event.read'),
  watchEvents: anywhere('event.read'),
}

const system: Rules<typeof hub.SystemService> = { getServerInfo: 'authenticated' }
const bootstrap: Rules<typeof hub.BootstrapService> = { phoneHome: 'public' }
const signIn: Rules<typeof hub.SignInService> = { listIssuers: 'public', signIn: 'public' }

/** Health and reflection tell nothing of anybody. */
const publicServices = new Set([
  'grpc.health.v1.Health',
  'grpc.reflection.v1.ServerReflection',
  'grpc.reflection.v1alpha.ServerReflection',
])

const table = new Map<string, Rule>([
  ...rulesOf(hub.OrganizationService, organizations),
  ...rulesOf(hub.WorkspaceService, workspaces),
  ...rulesOf(hub.PrincipalService, principals),
  ...rulesOf(hub.RoleBindingService, roleBindings),
  ...rulesOf(hub.TokenService, tokens),
  ...rulesOf(hub.IdentityService, identities),
  ...rulesOf(hub.SignInService, signIn),
  ...rulesOf(hub.AuditService, audit),
  ...rulesOf(hub.SecretService, secrets),
  ...rulesOf(hub.QuotaService, quotas),
  ...rulesOf(hub.PriceListService, priceLists),
  ...rulesOf(hub.BillingAgreementService, agreements),
  ...rulesOf(hub.CatalogService, catalog),
  ...rulesOf(hub.UsageService, usage),
  ...rulesOf(hub.HostService, hosts),
  ...rulesOf(hub.HostSetService, hostSets),
  ...rulesOf(hub.MachineClassService, machineClasses),
  ...rulesOf(hub.MachineService, machines),
  ...rulesOf(hub.MachineRequestService, machineRequests),
  ...rulesOf(hub.ProviderService, providers),
  ...rulesOf(hub.ProviderPoolService, providerPools),
  ...rulesOf(hub.OrphanService, orphans),
  ...rulesOf(hub.EventService, events),
  ...rulesOf(hub.SystemService, system),
  ...rulesOf(hub.BootstrapService, bootstrap),
])

function rulesOf<Service extends DescService>(service: Service, rules: Rules<Service>): [string, Rule][] {
  const byName = rules as unknown as Readonly<Record<string, Rule>>
  return service.methods.flatMap((method): [string, Rule][] => {
    const rule = byName[method.localName]
    return rule === undefined ? [] : [[`${service.typeName}/${method.name}`, rule]]
  })
}

/** The rule of a method, `{service}/{method}`; undefined: there is none, and it is not to be served. */
export function ruleOf(service: string, method: string): Rule | undefined {
  return publicServices.has(service) ? 'public' : table.get(`${service}/${method}`)
}

/** @throws Error naming every method of these services that has no rule. */
export function requireRules(services: readonly DescService[]): void {
  const bare = services.flatMap((service) =>
    service.methods
      .filter((method) => ruleOf(service.typeName, method.name) === undefined)
      .map((method) => `${service.typeName}/${method.name}`),
  )
  if (bare.length > 0)
    throw new Error(`nothing says who may call ${bare.join(', ')}: give each a rule in hub/src/api/policy-table.ts`)
}
