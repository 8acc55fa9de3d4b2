import { create, fromBinary } from '@bufbuild/protobuf'
import type { HandlerContext } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { v7 as uuid } from 'uuid'
import { makeBootstrapSecrets } from '../auth/bootstrap-secrets.js'
import { allowedEverywhere, decide, type Grant } from '../domain/access/decide.js'
import { HubError, invalidField } from '../domain/error/errors.js'
import { adoptedPrice, adoptedShape, findAdoptedPlace } from '../domain/host/adoption.js'
import type { ClassSpec } from '../domain/host/host.js'
import { externalName, hostName, ownershipKey, parseResourceName, shortName } from '../domain/names.js'
import type { Candidate } from '../domain/placement/placement.js'
import { pricedFor } from '../domain/placement/priced.js'
import { mayUse } from '../domain/provider/ownership.js'
import { demandOf, placeOf } from '../domain/quota/demand.js'
import type { Tx } from '../store/database.js'
import { appendEvents, type Cause } from '../store/events.js'
import { findHost, findWorkspaces, insertHosts, type WorkspaceRef } from '../store/hosts.js'
import { findAnswer } from '../store/idempotency.js'
import { openLimitBook } from '../store/limit-book.js'
import { classSpecOf, findClass } from '../store/machine-classes.js'
import { loadCandidates } from '../store/placement.js'
import { pricingOf, readPricing } from '../store/pricing.js'
import { findProvider } from '../store/providers.js'
import { findKnownServer, storeServerAdoption } from '../store/server-adoption.js'
import type { HostRow, MachineClassRow, ProviderRow } from '../store/tables.js'
import { causeOf, createOnce, databaseOf, idempotencyKey, identityOf, tryOut, type ApiDeps } from './context.js'
import { checkedLabels } from './convert.js'
import { classNotFound } from './machine-classes.js'
import { workspaceNotFound } from './not-found.js'
import { askProvider } from './provider-check.js'
import { limitExceeded } from './quota-resources.js'
import { toHost } from './resources.js'

// Servers that exist already at dynamic providers become hosts. Nothing of them is changed but the key that says whose they are.

interface Adoption {
  readonly request: hub.AdoptHostRequest
  readonly workspace: WorkspaceRef
  readonly provider: ProviderRow
  readonly machineClass: MachineClassRow
  /** With all that the server has, and as nothing that phones home: it was set up long ago. */
  readonly classSpec: ClassSpec
  readonly candidate: Candidate
  readonly hostname: string
  readonly labels: Readonly<Record<string, string>>
}

/** Takes a server into a host: everything that can be checked is checked first, and then the order to its provider is stored. */
export async function adoptHost(
  deps: ApiDeps,
  context: HandlerContext,
  request: hub.AdoptHostRequest,
): Promise<hub.AdoptHostResponse> {
  const keyed = { requestId: request.requestId, request: { schema: hub.AdoptHostRequestSchema, message: request } }
  const key = idempotencyKey(deps, context, keyed)
  const name = parseResourceName('workspace', request.parent, 'parent')
  // A tenant sees its workspace; what is done there for it is the hub's.
  const [workspace] = await findWorkspaces(databaseOf(deps, context), [name])
  if (workspace === undefined) throw workspaceNotFound(name)
  // Asked before anything is checked: what was accepted once stays so.
  const before = key === undefined || request.validateOnly ? undefined : await findAnswer(deps.db, key)
  if (before !== undefined) return fromBinary(hub.AdoptHostResponseSchema, before)
  const adoption = await checkAdoption(deps, context, request, workspace)
  const warnings = await askAbout(deps, adoption)
  const work = async (tx: Tx) => {
    const host = await store(deps, tx, adoption, causeOf(context))
    return create(hub.AdoptHostResponseSchema, { host: toHost(host), warnings })
  }
  if (request.validateOnly) {
    const { host } = await tryOut(deps.db, work)
    const tried = host && create(hub.HostSchema, { ...host, uid: '', etag: '', state: hub.HostState.UNSPECIFIED })
    return create(hub.AdoptHostResponseSchema, { warnings, ...(tried !== undefined && { host: tried }) })
  }
  return createOnce(deps, context, {
    ...keyed,
    db: deps.db,
    response: hub.AdoptHostResponseSchema,
    wake: [{ kind: 'work', providerId: adoption.provider.id }, { kind: 'host' }],
    work,
  })
}

/** @throws HubError as the RPC says. */
async function checkAdoption(
  deps: ApiDeps,
  context: HandlerContext,
  request: hub.AdoptHostRequest,
  workspace: WorkspaceRef,
): Promise<Adoption> {
  const labels = checkedLabels(request.labels, 'labels')
  const className = parseResourceName('machine_class', request.machineClass, 'machine_class')
  const provider = await usableProvider(deps, context, request, workspace)
  const machineClass = await findClass(deps.db, className)
  if (machineClass === undefined) throw classNotFound(className, 'machine_class')
  const known = await findKnownServer(deps.db, provider.id, request.externalId)
  if (known !== undefined) throw serverKnown(provider, request.externalId)
  const spec = classSpecOf(machineClass)
  const candidate = await placeOfServer(deps, request, workspace, provider, { className, spec })
  const shape = adoptedShape(spec.shape, candidate.shape)
  return {
    request,
    workspace,
    provider,
    machineClass,
    classSpec: { ...spec, shape, bootstrap: { ...spec.bootstrap, phoneHome: false } },
    candidate,
    hostname: request.hostname === '' ? request.hostId : request.hostname,
    labels,
  }
}

/** The provider, if the caller may adopt there. @throws HubError PROVIDER_NOT_FOUND, PROVIDER_NOT_USABLE, PERMISSION_MISSING, ADOPTION_UNSUPPORTED. */
async function usableProvider(
  deps: ApiDeps,
  context: HandlerContext,
  request: hub.AdoptHostRequest,
  workspace: WorkspaceRef,
): Promise<ProviderRow> {
  const name = parseResourceName('provider', request.provider, 'provider')
  const provider = await findProvider(deps.db, name)
  const { grants } = identityOf(context)
  const ownership = provider && {
    ownerOrganizationId: provider.owner_organization_id,
    ownerWorkspaceId: provider.owner_workspace_id,
    poolId: provider.pool_id,
    claimWorkspaceId: provider.claim_workspace_id,
  }
  const orderer = { organizationId: workspace.organizationId, workspaceId: workspace.id }
  const isUsable = ownership !== undefined && mayUse(ownership, orderer)
  if (provider === undefined || (!isUsable && !allowedEverywhere(grants, 'host.adopt')))
    throw new HubError('PROVIDER_NOT_FOUND', `there is no provider ${name}`, { metadata: { provider: name } })
  if (!isUsable)
    throw new HubError('PROVIDER_NOT_USABLE', `workspace ${workspace.name} may not use provider ${name}`, {
      metadata: { provider: name },
    })
  refuseOthers(grants, provider, workspace)
  if (provider.kind !== 'DYNAMIC')
    throw invalidField(
      'provider',
      `${name} manages machines of its own: adopt one of those by \`slipway machine adopt\``,
    )
  // Before an instance has connected nobody knows.
  if (!provider.capabilities.includes('ADOPT')) {
    const why = provider.state === 'PENDING' ? 'no instance of it has ever connected' : 'its software does not do that'
    throw new HubError('ADOPTION_UNSUPPORTED', `provider ${name} cannot take over servers: ${why}`, {
      metadata: { provider: name },
    })
  }
  return provider
}

/**
 * Whoever adopts a server has it from there on: so it must be theirs already, or the hub's administrators say so. At a provider of a workspace all servers are that
 * workspace's, at one of an organization the organization's; at all others they may be anybody's, those of tenants before included.
 *
 * @throws HubError PERMISSION_MISSING.
 */
function refuseOthers(grants: readonly Grant[], provider: ProviderRow, workspace: WorkspaceRef): void {
  if (allowedEverywhere(grants, 'host.adopt')) return
  const { owner_organization_id: organizationId, owner_workspace_id: ownerWorkspaceId } = provider
  const place = { organizationId, workspace: ownerWorkspaceId === null ? null : workspace.name }
  if (provider.pool_id === null && organizationId !== null && decide(grants, 'host.adopt', place) === 'tenant') return
  const whose = organizationId === null ? "the hub's" : "the organization's"
  throw new HubError(
    'PERMISSION_MISSING',
    `your roles do not allow host.adopt at provider ${provider.name}, which is ${whose}: its servers may be others'; ask whoever administers it`,
    { metadata: { permission: 'host.adopt' } },
  )
}

/** @throws HubError CLASS_NOT_OFFERED, INVALID_FIELD. */
async function placeOfServer(
  deps: ApiDeps,
  request: hub.AdoptHostRequest,
  workspace: WorkspaceRef,
  provider: ProviderRow,
  { className, spec }: { readonly className: string; readonly spec: ClassSpec },
): Promise<Candidate> {
  const orderer = { organizationId: workspace.organizationId, workspaceId: workspace.id }
  const placement = { providers: [provider.name], families: [], locations: [], maxHourlyMicros: 0 }
  const [candidates, pricing] = await Promise.all([
    loadCandidates(deps.db, orderer, { ...spec, machineSelector: null }, placement),
    readPricing(deps.db, [workspace.organizationId]),
  ])
  const here = candidates.filter((candidate) => candidate.provider.id === provider.id)
  const priced = pricedFor(here, pricingOf(pricing, workspace.organizationId), className)
  const found = findAdoptedPlace(priced, spec.shape, request)
  if (found.kind === 'place') return found.candidate
  if (found.kind === 'several')
    throw invalidField(found.field, `say which the server has: the class offers ${found.choices.join(', ')} there`)
  const asked = [request.typeId, request.location].filter((part) => part !== '').join(' in ')
  const why = found.reasons.length === 0 ? '' : `: ${found.reasons.join('; ')}`
  throw new HubError(
    'CLASS_NOT_OFFERED',
    `machine class ${className} offers ${asked === '' ? 'nothing' : `no ${asked}`} at provider ${provider.name}${why}`,
    { metadata: { machine_class: className, provider: provider.name } },
  )
}

/** @returns what was not checked, and why. @throws HubError PROVIDER_DATA_INVALID. */
function askAbout(deps: ApiDeps, adoption: Adoption): Promise<string[]> {
  const { request, workspace, provider, machineClass, classSpec, candidate, hostname, labels } = adoption
  const order = {
    typeId: candidate.typeId,
    location: candidate.location,
    shape: classSpec.shape,
    providerData: candidate.providerData,
    hostname,
    hostName: hostName(workspace.name, request.hostId),
    workspace: workspace.name,
    machineClass: machineClass.name,
    labels,
    // It is as it is: nothing is put on it.
    sshPublicKeys: [],
    adoptExternalId: request.externalId,
  }
  // What the class says in the provider's own terms is how one is made, and not what this one has to be.
  return askProvider(deps, provider, order, '')
}

/** @throws HubError PROVIDER_NOT_USABLE, QUOTA_EXCEEDED, BUDGET_EXCEEDED, NAME_TAKEN, SERVER_KNOWN. */
async function store(deps: ApiDeps, tx: Tx, adoption: Adoption, cause: Cause): Promise<HostRow> {
  const { request, workspace, provider, machineClass, classSpec, candidate, labels } = adoption
  const { organizationId, id: workspaceId, name: workspaceName } = workspace
  const className = machineClass.name
  const limits = await openLimitBook(tx, [{ organizationId, workspaceId }])
  const price = adoptedPrice(candidate.price)
  const demand = demandOf({ organizationId, workspaceId, className, classSpec }, placeOf({ ...candidate, price }))
  const excess = limits.excess(demand)
  if (excess !== undefined) throw limitExceeded(excess)
  const [stored] = await insertHosts(tx, deps.keyring, [
    {
      workspace,
      name: request.hostId,
      hostname: adoption.hostname,
      classId: machineClass.id,
      className,
      classSpec,
      shape: null,
      placement: { providers: [], families: [], locations: [], maxHourlyMicros: 0 },
      providerData: {},
      userData: '',
      labels,
      annotations: request.annotations,
      // To release it is to delete a server that was there before: that is to be meant.
      protected: true,
      priority: workspace.range.priority,
      createdBy: cause.actor,
    },
  ])
  if (stored === undefined) throw nameTaken(request.hostId)
  const host = stored.row
  limits.charge(host.id, demand)
  await limits.flush(tx)
  const now = new Date()
  const draft = makeDraft(deps, host, adoption, now)
  if (!(await storeServerAdoption(tx, { host, externalId: request.externalId, draft, now })))
    throw serverKnown(provider, request.externalId)
  const subject = hostName(workspaceName, request.hostId)
  const message = `Takes over server ${request.externalId} of provider ${provider.name} as ${className}, untouched`
  await appendEvents(tx, cause, [
    {
      subject,
      related: [`machineRequests/${draft.request.name}`, `providers/${provider.name}`],
      reason: 'HostAdopting',
      message,
      severity: 'INFO',
      organizationId,
      providerId: provider.id,
    },
  ])
  return (await findHost(tx, workspaceName, request.hostId)) ?? host
}

function makeDraft(deps: ApiDeps, host: HostRow, { provider, candidate }: Adoption, now: Date) {
  const id = uuid()
  const { bootstrap, shape } = host.class_spec
  return {
    request: {
      provider_id: provider.id,
      id,
      name: shortName('r', id),
      provider_name: provider.name,
      organization_id: host.organization_id,
      workspace_name: host.workspace_name,
      host_id: host.id,
      host_name: hostName(host.workspace_name, host.name),
      class_id: host.class_id,
      class_name: host.class_name,
      state: 'PENDING' as const,
      external_name: externalName(host.hostname, id),
      ownership_key: ownershipKey(deps.hubId, id),
      type_id: candidate.typeId,
      location: candidate.location,
      price: adoptedPrice(candidate.price),
      spec: {
        shape,
        providerData: candidate.providerData,
        hostname: host.hostname,
        phoneHome: false,
        phoneHomeTimeoutMs: bootstrap.phoneHomeTimeoutMs,
        provisionTimeoutMs: bootstrap.provisionTimeoutMs,
        labels: host.labels,
      },
      static: false,
      machine_id: null,
      machine_name: null,
    },
    lane: { workspaceId: host.workspace_id, priority: host.priority },
    secrets: makeBootstrapSecrets(deps.keyring, {
      requestId: id,
      hostname: host.hostname,
      bootstrap,
      userData: '',
      publicUrl: deps.publicUrl(),
      now,
    }),
  }
}

function serverKnown({ name }: ProviderRow, externalId: string): HubError {
  const description = 'is known to the hub already, as a machine or by an adoption that is under way'
  return new HubError('SERVER_KNOWN', `external_id: server ${externalId} of provider ${name} ${description}`, {
    metadata: { provider: name },
    violations: [{ field: 'external_id', description }],
  })
}

function nameTaken(id: string): HubError {
  const description = 'is in use in this workspace; choose another name, or release that host first'
  return new HubError('NAME_TAKEN', `host_id: ${id} ${description}`, {
    violations: [{ field: 'host_id', description }],
  })
}
